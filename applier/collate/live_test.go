package collate

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"vitess.io/vitess/go/mysql/collations/charset"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
)

// TestEqualityOfServers: whenever a server says that two strings are one, so do
// the weights; over every character up to U+107FF and over random strings made to
// collide. For every usable collation with SOAK set, else for some of each server's.
func TestEqualityOfServers(t *testing.T) {
	for _, f := range []struct {
		kind   mysqltest.Flavor
		flavor server.Flavor
	}{
		{mysqltest.MySQL97, server.MySQL}, {mysqltest.MariaDB1011, server.MariaDB}, {mysqltest.MariaDB118, server.MariaDB},
	} {
		t.Run(string(f.kind), func(t *testing.T) {
			srv := mysqltest.Start(t, f.kind)
			compareAll(t, srv.DB(), f.flavor)
		})
	}
}

func compareAll(t *testing.T, pool *sql.DB, flavor server.Flavor) {
	ctx := context.Background()
	db, err := pool.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(q string) {
		t.Helper()
		if _, err := db.ExecContext(ctx, q); err != nil {
			t.Fatalf("%.120s: %v", q, err)
		}
	}
	exec("CREATE DATABASE collate_test")
	exec("USE collate_test")
	exec("SET sql_mode=''")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))

	byCharset := map[string][]*Weigher{}
	rows, err := db.QueryContext(ctx, "SELECT collation_name, character_set_name FROM information_schema.collations ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var name string
		var cs sql.NullString // MariaDB: NULL for one that fits several charsets
		if err := rows.Scan(&name, &cs); err != nil {
			t.Fatal(err)
		}
		if w, ok := Lookup(flavor, name); ok && w.coll != nil {
			byCharset[cs.String] = append(byCharset[cs.String], w)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("SOAK") == "" {
		charsets := slices.Sorted(maps.Keys(byCharset))
		for range len(charsets) - 5 {
			i := rng.IntN(len(charsets))
			delete(byCharset, charsets[i])
			charsets = slices.Delete(charsets, i, i+1)
		}
		for cs, ws := range byCharset {
			rng.Shuffle(len(ws), func(i, j int) { ws[i], ws[j] = ws[j], ws[i] })
			byCharset[cs] = ws[:min(len(ws), 6)]
		}
	}
	total := 0
	for cs, weighers := range byCharset {
		exec("DROP TABLE IF EXISTS p")
		exec("CREATE TABLE p (c VARCHAR(24) CHARACTER SET " + cs + ")")
		fill(exec, weighers[0].charset, rng)
		for _, w := range weighers {
			total++
			compare(t, db, w)
		}
	}
	t.Logf("%d collations", total)
	if total < 200 && os.Getenv("SOAK") != "" || total < 5 {
		t.Errorf("only %d collations were compared", total)
	}
}

// tricky are characters that collide, combine, expand, contract or vanish.
var tricky = []rune("aAäÄâåáæeEéèêßsSſzZcCçhHlLłjJñnNŋoOöøœuUüyYiIıİdDđ ÀﬁﬀĳǆǅlL·'-_.,0１²½①ＡａⅠАаЯяЁёΣσςάΑ" +
	"あアｱァぁゝヽーガがｶﾞ゛一丁中文字가각ㄱ각\u0300\u0301\u0308\u030a\u0327\u00a0\u2002\u3000\u00ad\u200b\u200d\u200f\ufeff\ufffd\u0000\u0001\t\n" +
	"ाकख्กเแ่ཀྵ😀😁𝐀𝑨𐐀𐐨🇩🇪")

func fill(exec func(string), cs charset.Charset, rng *rand.Rand) {
	encode := func(s string) ([]byte, bool) {
		enc, err := charset.ConvertFromUTF8(nil, cs, []byte(s))
		if err != nil {
			return nil, false
		}
		back, err := charset.Convert(nil, charset.Charset_utf8mb4{}, enc, cs)
		return enc, err == nil && string(back) == s
	}
	var values []string
	last := rune(0x107ff)
	if !cs.SupportsSupplementaryChars() {
		last = 0xffff
	}
	for r := rune(0); r <= last; r++ {
		if r >= 0xd800 && r < 0xe000 {
			continue
		}
		if enc, ok := encode(string(r)); ok {
			values = append(values, fmt.Sprintf("(x'%x')", enc))
		}
	}
	var alphabet []rune
	for _, r := range tricky {
		if _, ok := encode(string(r)); ok {
			alphabet = append(alphabet, r)
		}
	}
	for range 10000 {
		some := alphabet
		if rng.IntN(2) == 0 { // few characters: many collisions
			at := rng.IntN(len(alphabet))
			some = alphabet[at:min(at+4, len(alphabet))]
		}
		var s []rune
		for range 1 + rng.IntN(5) {
			s = append(s, some[rng.IntN(len(some))])
		}
		if enc, ok := encode(string(s)); ok {
			values = append(values, fmt.Sprintf("(x'%x')", enc))
		}
	}
	for len(values) > 0 {
		n := min(len(values), 20000)
		exec("INSERT INTO p VALUES " + strings.Join(values[:n], ","))
		values = values[n:]
	}
}

func compare(t *testing.T, db *sql.Conn, w *Weigher) {
	rows, err := db.QueryContext(context.Background(),
		"SELECT CAST(c AS BINARY), DENSE_RANK() OVER (ORDER BY c COLLATE "+w.name+") FROM p")
	if err != nil {
		t.Fatalf("%s: %v", w.name, err)
	}
	defer rows.Close()
	class := map[int64][]byte{}
	first := map[int64][]byte{}
	bad := 0
	for rows.Next() {
		var rank int64
		var b []byte
		if err := rows.Scan(&b, &rank); err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		k := w.Append(nil, b, 0)
		if f, ok := class[rank]; !ok {
			class[rank], first[rank] = k, b
		} else if !bytes.Equal(f, k) {
			if bad++; bad <= 3 {
				t.Errorf("%s: %x and %x are equal to the server, their weights are %x and %x", w.name, first[rank], b, f, k)
			}
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", w.name, err)
	}
	ours := map[string]bool{}
	for _, k := range class {
		ours[string(k)] = true
	}
	// Far fewer classes than the server's would mean that everything waits.
	if len(ours) < len(class)*9/10 {
		t.Errorf("%s: %d classes for the server's %d", w.name, len(ours), len(class))
	}
}
