package producer

import (
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

// TestEndToEnd: what is committed on each kind of server arrives in the log,
// once, in order, with its rows and statements.
func TestEndToEnd(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			p := start(t, srv, newMemLog(), func(c *Config) { c.Start = StartEarliest })
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(20))",
				"INSERT INTO d.t VALUES (1,'a'),(2,'b')", "UPDATE d.t SET v='c' WHERE id=2", "DELETE FROM d.t WHERE id=1",
				"ALTER TABLE d.t ADD w INT NOT NULL DEFAULT 7", "INSERT INTO d.t VALUES (3,'x',8)",
				"CREATE TABLE d.u SELECT id, v FROM d.t", "DROP TABLE d.u")
			p.holds(t, srv)
			txs := readLog(t, string(f.Server()), p.log.all())
			once(t, txs)
			var got []string
			for _, x := range txs {
				for _, d := range x.ddl {
					got = append(got, strings.Join(strings.Fields(strings.ToLower(strings.ReplaceAll(d, "`", ""))), " "))
				}
				for _, r := range x.rows {
					got = append(got, r.Table.Name.String()+" "+r.Op.String()+" "+texts(r.Before)+">"+texts(r.After))
				}
			}
			t.Logf("%d entries\n%s\n%+v", len(p.log.all()), strings.Join(got, "\n"), p.Status())
		})
	}
}
