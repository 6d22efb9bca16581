package binlog

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// randomColumn makes a column of a random shape, and literals for it.
func randomColumn(r *rand.Rand) (string, func() string) {
	digits := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('0' + r.IntN(10))
			if r.IntN(3) == 0 {
				b[i] = '0'
			}
		}
		return string(b)
	}
	sign := func() string { return []string{"", "-"}[r.IntN(2)] }
	fraction := func(n int) string {
		if n == 0 {
			return ""
		}
		return "." + digits(n)
	}
	f := r.IntN(7)
	switch r.IntN(9) {
	case 0, 1, 2:
		p := 1 + r.IntN(65)
		s := r.IntN(min(p, 30) + 1)
		return fmt.Sprintf("DECIMAL(%d,%d)", p, s), func() string { return sign() + "0" + digits(r.IntN(p-s+1)) + fraction(s) }
	case 3:
		return fmt.Sprintf("TIME(%d)", f), func() string {
			return fmt.Sprintf("'%s%02d:%02d:%02d%s'", sign(), r.IntN(838), r.IntN(60), r.IntN(60), fraction(f))
		}
	case 4:
		return fmt.Sprintf("DATETIME(%d)", f), func() string {
			return fmt.Sprintf("'%04d-%02d-%02d %02d:%02d:%02d%s'", r.IntN(10000), r.IntN(13), r.IntN(32), r.IntN(24), r.IntN(60), r.IntN(60), fraction(f))
		}
	case 5:
		return fmt.Sprintf("TIMESTAMP(%d) NULL", f), func() string {
			return fmt.Sprintf("'%04d-%02d-%02d %02d:%02d:%02d%s'", 1970+r.IntN(68), 1+r.IntN(12), 2+r.IntN(27), r.IntN(24), r.IntN(60), r.IntN(60), fraction(f))
		}
	case 6:
		n := 1 + r.IntN(64)
		return fmt.Sprintf("BIT(%d)", n), func() string { return fmt.Sprint(r.Uint64() >> (64 - n)) }
	case 7:
		n := r.IntN(64) + 1
		return "SET(" + tall(n) + ")", func() string { return fmt.Sprint(r.Uint64() >> (64 - n)) }
	}
	n := 1 + r.IntN(255)
	return fmt.Sprintf("BINARY(%d)", n), func() string {
		b := make([]byte, r.IntN(n+1))
		for i := range b {
			b[i] = byte(r.IntN(4) * 64)
		}
		return fmt.Sprintf("x'%x'", b)
	}
}

// TestRandomRowsAgainstServer does what TestRowsAgainstServer does, with random
// columns and values.
func TestRandomRowsAgainstServer(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	eachFlavor(t, func(t *testing.T, s *mysqltest.Server, db string) {
		r := rand.New(rand.NewPCG(seed, 2))
		cols := collationsOf(t, s)
		for n := range 12 {
			name := fmt.Sprintf("r%d", n)
			var columns []string
			var literals []func() string
			for i := range 1 + r.IntN(20) {
				c, f := randomColumn(r)
				columns = append(columns, fmt.Sprintf("c%d %s", i, c))
				literals = append(literals, f)
			}
			var rows []string
			for i := range 40 {
				row := []string{fmt.Sprint(i + 1)}
				for _, f := range literals {
					if r.IntN(8) == 0 {
						row = append(row, "NULL")
					} else {
						row = append(row, f())
					}
				}
				rows = append(rows, "("+strings.Join(row, ",")+")")
			}
			table, got := decodeAll(t, cols, capture(t, s, db, "SET sql_mode='"+looseMode+"'",
				"CREATE TABLE "+name+" (id INT PRIMARY KEY, "+strings.Join(columns, ", ")+")", "INSERT IGNORE INTO "+name+" VALUES "+strings.Join(rows, ",")))
			want := snapshot(t, s, db, table)
			if len(want) != len(got[change.Insert]) {
				t.Fatalf("%d rows decoded, %d selected", len(got[change.Insert]), len(want))
			}
			for i, x := range got[change.Insert] {
				compareImage(t, fmt.Sprintf("%s row %d", name, i+1), table, x.after, want[i])
			}
		}
	})
}
