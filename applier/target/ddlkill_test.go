package target

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/log"
)

// TestDDLServerKilled kills the target at random moments of a series of
// statements, each of which would show if it ran twice or not at all.
func TestDDLServerKilled(t *testing.T) {
	for _, flavor := range mysqltest.Flavors() {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			rng := rand.New(rand.NewPCG(seed, 2))
			ctx := context.Background()
			s := mysqltest.Start(t, flavor)
			db, err := Open(s.Endpoint())
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			s.Exec(t, "CREATE DATABASE k", "CREATE TABLE k.x (id INT PRIMARY KEY AUTO_INCREMENT, s VARCHAR(100))", "CREATE TABLE k.y LIKE k.x",
				"INSERT INTO k.x (s) VALUES (REPEAT('a', 100)), (REPEAT('b', 100))")
			for range 12 {
				s.Exec(t, "INSERT INTO k.x (s) SELECT s FROM k.x")
			}
			want := map[string]int{"x": 8192, "y": 0}
			columns := 2
			offset := log.Offset(0)
			run := func(text string) {
				t.Helper()
				offset++
				d := &change.DDL{Text: text, DefaultSchema: "k", SQLMode: 1 << 21}
				stop := make(chan error, 1) // owner: run; the answer of the one killer
				killer := time.AfterFunc(time.Duration(rng.IntN(120))*time.Millisecond, func() { stop <- s.Kill() })
				err := NewDDLRunner(DDLOptions{DB: db, Stream: "k"}).Run(ctx, change.Place{Offset: offset}, d)
				if killer.Stop() {
					stop <- nil
				}
				if kerr := <-stop; kerr != nil {
					t.Fatalf("seed %d: kill: %v", seed, kerr)
				}
				if err == nil && s.PID() != 0 {
					return
				}
				if err := s.Restart(ctx); err != nil {
					t.Fatalf("seed %d: restart: %v", seed, err)
				}
				for try := 0; ; try++ {
					err := NewDDLRunner(DDLOptions{DB: db, Stream: "k"}).Run(ctx, change.Place{Offset: offset}, d)
					if err == nil {
						return
					}
					if !Retryable(err) || try > 20 {
						t.Fatalf("seed %d: %s: %v", seed, text, err)
					}
				}
			}
			for round := range 2 {
				run(fmt.Sprintf("ALTER TABLE x ADD COLUMN c%d INT NOT NULL DEFAULT 1, ALGORITHM=COPY", round))
				run(fmt.Sprintf("ALTER TABLE y ADD COLUMN c%d INT NOT NULL DEFAULT 1", round))
				columns++
				run("RENAME TABLE x TO tmp, y TO x, tmp TO y")
				want["x"], want["y"] = want["y"], want["x"]
				run("CREATE TABLE a (id INT)")
				run("CREATE TABLE b (id INT)")
				run("DROP TABLE a, b")
			}
			run("TRUNCATE TABLE y")
			want["y"] = 0
			for table, rows := range want {
				if got := s.Value(t, "SELECT COUNT(*) FROM k."+table); got != fmt.Sprint(rows) {
					t.Errorf("seed %d: %s has %s rows, not %d", seed, table, got, rows)
				}
				if got := s.Value(t, "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = 'k' AND table_name = '"+table+"'"); got != fmt.Sprint(columns) {
					t.Errorf("seed %d: %s has %s columns, not %d", seed, table, got, columns)
				}
			}
			names := []string{}
			for _, r := range s.Query(t, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'k' ORDER BY 1") {
				names = append(names, r[0])
			}
			if got := strings.Join(names, " "); got != "x y" {
				t.Errorf("seed %d: tables %s", seed, got)
			}
		})
	}
}
