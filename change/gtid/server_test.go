package gtid

import (
	"context"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

// The server is the oracle of set arithmetic and of spelling.
func TestSetsAgainstMySQL(t *testing.T) {
	s, _ := mysqltest.Shared(t, mysqltest.MySQL97)
	rapid.Check(t, func(t *rapid.T) {
		a, _ := fill(t, drawGTIDs(t, "a"))
		b, _ := fill(t, drawGTIDs(t, "b"))
		// Handed over in a random order and case, it comes back as ours.
		parts := strings.Split(a.String(), ",")
		text := strings.ToUpper(strings.Join(rapid.Permutation(parts).Draw(t, "parts"), " , "))
		var same, minus string
		var subset bool
		err := s.DB().QueryRowContext(context.Background(), "SELECT GTID_SUBTRACT(?, ''), GTID_SUBTRACT(?, ?), GTID_SUBSET(?, ?)",
			text, a.String(), b.String(), b.String(), a.String()).Scan(&same, &minus, &subset)
		if err != nil {
			t.Fatal(err)
		}
		one := func(s string) string { return strings.ReplaceAll(s, "\n", "") }
		if one(same) != a.String() {
			t.Fatalf("the server spells %q as %q", a, same)
		}
		if got := a.Minus(b).String(); one(minus) != got {
			t.Fatalf("%s minus %s: the server has %q, we %q", a, b, minus, got)
		}
		if subset != a.Contains(b) {
			t.Fatalf("%s contains %s: the server says %v", a, b, subset)
		}
		parsed, err := Parse(MySQL, same)
		if err != nil || !parsed.Equal(a) {
			t.Fatalf("%q parses to %s, %v", same, parsed, err)
		}
	})
}

// What the servers say of themselves parses and comes back in the same spelling.
func TestServersOwnSets(t *testing.T) {
	for flavor, query := range map[mysqltest.Flavor]string{
		mysqltest.MySQL97:     "SELECT @@global.gtid_executed",
		mysqltest.MariaDB1011: "SELECT @@global.gtid_binlog_pos",
		mysqltest.MariaDB118:  "SELECT @@global.gtid_binlog_pos",
	} {
		t.Run(string(flavor), func(t *testing.T) {
			s, db := mysqltest.Shared(t, flavor)
			for _, domain := range []string{"10", "2", "0"} {
				if flavor.IsMariaDB() {
					s.Exec(t, "SET gtid_domain_id="+domain, "CREATE TABLE "+db+".t"+domain+" (a INT)")
				} else {
					s.Exec(t, "SET gtid_next='AUTOMATIC:Tag_"+domain+"'", "CREATE TABLE "+db+".t"+domain+" (a INT)")
				}
			}
			text := strings.ReplaceAll(s.Value(t, query), "\n", "")
			set := parse(t, string(flavor.Server()), text)
			if set.String() != text {
				t.Errorf("the server's %q is our %q", text, set)
			}
		})
	}
}
