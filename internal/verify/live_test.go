package verify

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
)

// Native replication is the pipeline here: while clients write, nothing may be
// reported, and a difference that is planted on the replica must be found.
func TestWhileTheLoadRuns(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			src, tgt := mysqltest.Start(t, f), mysqltest.Start(t, f)
			cfg := Config{Source: open(t, src.Endpoint()), Target: open(t, tgt.Endpoint()), ChunkRows: 16}
			if err := tgt.ReplicateFrom(ctx, src); err != nil {
				t.Fatal(err)
			}
			cfg.Settle = func(ctx context.Context) error {
				want, err := ExecutedSet(ctx, cfg.Source)
				if err != nil {
					return err
				}
				return tgt.WaitForGTIDs(ctx, want.String())
			}
			src.Exec(t, "CREATE DATABASE v", "CREATE TABLE v.k (a INT, b VARCHAR(20), c INT, d TEXT, PRIMARY KEY (a, b))",
				"CREATE TABLE v.u (a INT, b INT NOT NULL UNIQUE)", "CREATE TABLE v.m (a INT, b VARCHAR(20))",
				"INSERT INTO v.k SELECT n MOD 5, CONCAT('k', n), n, REPEAT('x', n) FROM (WITH RECURSIVE r AS (SELECT 0 n UNION ALL SELECT n+1 FROM r WHERE n < 299) SELECT n FROM r) r",
				"INSERT INTO v.u SELECT c, c FROM v.k", "INSERT INTO v.m SELECT a, b FROM v.k")

			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			loading, stop := context.WithCancel(ctx)
			var clients sync.WaitGroup
			for c := range uint64(3) {
				clients.Add(1)
				go func() {
					defer clients.Done()
					rnd := rand.New(rand.NewPCG(seed, c))
					for loading.Err() == nil {
						n, m := rnd.IntN(300), rnd.IntN(300)
						q := []string{
							fmt.Sprintf("REPLACE INTO v.k VALUES (%d, 'k%d', %d, REPEAT('y', %d))", n%5, n, m, m),
							fmt.Sprintf("DELETE FROM v.k WHERE a = %d AND b = 'k%d'", n%5, n),
							fmt.Sprintf("UPDATE IGNORE v.k SET a = a + 1, c = %d WHERE b = 'k%d'", m, n),
							fmt.Sprintf("UPDATE IGNORE v.u SET b = %d WHERE b = %d", m, n),
							fmt.Sprintf("INSERT INTO v.m VALUES (%d, 'k%d')", n%5, m),
							fmt.Sprintf("DELETE FROM v.m WHERE b = 'k%d' LIMIT 2", n),
						}[rnd.IntN(6)]
						// Deadlocks are part of such a load.
						if _, err := src.DB().ExecContext(loading, q); err != nil && loading.Err() == nil && server.ErrorNumber(err) != 1213 {
							t.Errorf("%s: %v", q, err)
							return
						}
						time.Sleep(time.Duration(rnd.IntN(4)) * time.Millisecond)
					}
				}()
			}
			defer func() { stop(); clients.Wait() }()

			for range 2 {
				rep, err := Run(ctx, cfg)
				if err != nil || rep.Differences != 0 {
					t.Fatalf("nothing is wrong: %v %+v", err, rep)
				}
			}
			// Rows that the load does not touch.
			tgt.Exec(t, "SET sql_log_bin=0", "INSERT INTO v.k VALUES (9, 'extra', 1, 'x')", "INSERT INTO v.m VALUES (9, 'extra')", "INSERT INTO v.u VALUES (1, -1)")
			rep, err := Run(ctx, cfg)
			if err != nil || rep.Differences != 3 {
				t.Fatalf("three rows are wrong: %v %+v", err, rep)
			}
			for _, tr := range rep.Tables {
				if tr.Extra != 1 || tr.Listed[0].Kind != Extra {
					t.Errorf("%+v", tr)
				}
			}
			stop()
			clients.Wait()
			if rep, err = Run(ctx, cfg); err != nil || rep.Differences != 3 || rep.Unsettled != 0 {
				t.Fatalf("three rows are wrong, and nothing moves: %v %+v", err, rep)
			}
		})
	}
}

// A target with many rows that the source has not is read in pages, and each of
// them is counted.
func TestManyMoreOnOneSide(t *testing.T) {
	src, tgt, cfg := sides(t, mysqltest.MySQL97)
	cfg.KeysMax = 5
	for _, s := range []*mysqltest.Server{src, tgt} {
		s.Exec(t, "CREATE DATABASE v", "CREATE TABLE v.a (a INT PRIMARY KEY)", "CREATE TABLE v.b (a INT PRIMARY KEY)", "CREATE TABLE v.c (a INT)")
	}
	const numbers = "SELECT n FROM (WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n+1 FROM r WHERE n < 900) SELECT n FROM r) r"
	src.Exec(t, "INSERT INTO v.b "+numbers)
	tgt.Exec(t, "INSERT INTO v.a "+numbers, "INSERT INTO v.c "+numbers)
	rep, err := Run(context.Background(), cfg)
	if err != nil || rep.Differences != 2700 || rep.Rows != 900 {
		t.Fatalf("%v %+v", err, rep)
	}
	for _, tr := range rep.Tables {
		if tr.Differences != 900 || len(tr.Listed) != 5 || (tr.Table == "v.b") != (tr.Missing == 900) {
			t.Errorf("%+v", tr)
		}
		if tr.Table == "v.a" && tr.Listed[4].Key != "a=5" {
			t.Errorf("the listed ones are not the first: %+v", tr.Listed)
		}
	}
}

// A row without a key that arrives late is no difference; what keeps changing is
// unsettled.
func TestMultisetsInMotion(t *testing.T) {
	src, tgt, cfg := sides(t, mysqltest.MariaDB1011)
	for _, s := range []*mysqltest.Server{src, tgt} {
		s.Exec(t, "CREATE DATABASE v", "CREATE TABLE v.t (a INT, b INT)", "INSERT INTO v.t VALUES (1,1),(1,1),(2,2)")
	}
	src.Exec(t, "INSERT INTO v.t VALUES (1,1),(3,3),(4,4)")
	calls := 0
	cfg.Settle = func(context.Context) error {
		if calls++; calls == 4 {
			tgt.Exec(t, "INSERT INTO v.t VALUES (1,1),(3,3)")
		}
		return nil
	}
	rep, err := Run(context.Background(), cfg)
	if err != nil || rep.Differences != 1 || rep.Unsettled != 0 || rep.Tables[0].Listed[0].Key != "a=4, b=4" {
		t.Fatalf("%v %+v", err, rep)
	}
	src.Exec(t, "DELETE FROM v.t WHERE a=4")
	cfg.Attempts = 3
	cfg.Settle = func(context.Context) error { src.Exec(t, "INSERT INTO v.t VALUES (5,5)"); return nil }
	if rep, err = Run(context.Background(), cfg); err != nil || rep.Differences != 0 || rep.Unsettled != 1 || rep.Equal() {
		t.Fatalf("%v %+v", err, rep)
	}
}

// MySQL and MariaDB hold the same values in types of other names.
func TestAcrossFlavours(t *testing.T) {
	my, _, _ := sides(t, mysqltest.MySQL97)
	maria, _, _ := sides(t, mysqltest.MariaDB118)
	table := "CREATE TABLE v.t " + strings.Replace(fmt.Sprintf(everyType, "VARCHAR(20) CHARACTER SET utf8mb4"), "dd DOUBLE", "dd DOUBLE, d4 DOUBLE(15,4), ve VECTOR(2)", 1)
	for _, s := range []*mysqltest.Server{my, maria} {
		s.Exec(t, "SET sql_mode=''", "SET NAMES utf8mb4", "CREATE DATABASE v", table)
		for n := range 60 {
			s.Exec(t, "SET sql_mode=''", "SET NAMES utf8mb4", "INSERT INTO v.t "+everyColumn+" VALUES "+everyRow(fmt.Sprintf("'%s%d'", []string{"ß", "ss", "Z", "a "}[n%4], n)),
				fmt.Sprintf("UPDATE v.t SET d4 = 12345678901.2345, ve = x'0000803f000080bf', fl = %d / 7e0, dd = %d / 7e0", n, n))
		}
		// MariaDB's JSON is the text that was given; the applier gives MySQL's.
		s.Exec(t, `UPDATE v.t SET js = '{"a": [1, 2.5, null], "é": "\\"x"}'`)
	}
	for _, sides := range [][2]*mysqltest.Server{{my, maria}, {maria, my}} {
		cfg := Config{Source: open(t, sides[0].Endpoint()), Target: open(t, sides[1].Endpoint()), ChunkRows: 16}
		rep, err := Run(context.Background(), cfg)
		if err != nil || !rep.Equal() || rep.Rows != 60 || rep.Tables[0].Method != "key" {
			t.Fatalf("%v %+v", err, rep)
		}
	}
	maria.Exec(t, "UPDATE v.t SET fl = fl + 0.01 WHERE id = 'ß8'", "DELETE FROM v.t WHERE id = 'ss9'")
	rep, err := Run(context.Background(), Config{Source: open(t, my.Endpoint()), Target: open(t, maria.Endpoint()), ChunkRows: 16})
	if err != nil || rep.Differences != 2 || rep.Tables[0].Missing != 1 || rep.Tables[0].Different != 1 {
		t.Fatalf("%v %+v", err, rep)
	}
}
