package applier

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/log"
)

// undoing is a connection whose server, at one statement, undoes the transaction
// and says that a row can't be stored.
type undoing struct {
	target.Execer
	at   string // how the statement begins
	left *atomic.Int32
}

func (u *undoing) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if strings.HasPrefix(query, u.at) && u.left.Add(-1) == 0 {
		if _, err := u.Execer.ExecContext(ctx, "ROLLBACK"); err != nil {
			return nil, err
		}
		return nil, &mysql.MySQLError{Number: 1644, Message: "made up by the test"}
	}
	return u.Execer.ExecContext(ctx, query, args...)
}

// TestTransactionUndoneByItself: a server that undoes the whole transaction for a
// statement that seems to be refused for a row's sake, whose rows are then done
// again one by one, has nothing of them committed without the lane's place, nor the
// place without what came before.
func TestTransactionUndoneByItself(t *testing.T) {
	bothFlavors(t, func(t *testing.T, f mysqltest.Flavor) {
		for _, large := range []bool{false, true} {
			t.Run(fmt.Sprintf("large=%t", large), func(t *testing.T) {
				cfg := Config{}
				if large {
					cfg = Config{Atomicity: AtomicTransaction, LargeBytes: 1000, BatchBytes: 1000}
				}
				d := newDuel(t, f, cfg)
				d.stop()
				d.make("k", false)
				d.exec("CREATE TABLE @k (id INT, u INT NULL, v VARCHAR(80) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL)")
				var left atomic.Int32
				left.Store(1)
				if large {
					left.Store(2) // the first part would be lost
				}
				under := func(c *sql.Conn) target.Execer {
					return &undoing{Execer: c, at: "INSERT INTO `" + d.db + "`.`k`", left: &left}
				}
				run := func() error {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					a, e := New(d.cfg, zerolog.Nop())
					if e != nil {
						t.Fatal(e)
					}
					a.guard.under = under
					ran := make(chan error, 1)
					go func() { ran <- a.Run(ctx) }()
					for n := range 6 {
						tx := &change.Transaction{GTID: "0-1-1", CommitTime: time.Now(), Continued: n < 5}
						for i := range 3 {
							id := 10*n + i
							tx.Rows = append(tx.Rows, change.Row{Table: d.tables["k"], Op: change.Insert, After: row(id, id, strings.Repeat("x", 60))})
						}
						if err := a.Apply(ctx, change.Place{Offset: log.Offset(n)}, tx, ""); err != nil {
							break // Run says why
						}
					}
					for {
						if at, _ := a.Durable(); at.Offset == 5 {
							cancel()
						}
						select {
						case err := <-ran:
							return err
						case <-time.After(5 * time.Millisecond):
						}
					}
				}
				err := run()
				if large {
					if !errors.Is(err, ErrInterrupted) || !errors.Is(err, errUndone) {
						t.Fatalf("Run: %v", err)
					}
					err = run()
				}
				if err != nil {
					t.Fatalf("Run: %v", err)
				}
				if left.Load() > 0 {
					t.Fatal("the transaction was not undone")
				}
				if got := d.srv.Value(t, "SELECT CONCAT_WS(' ', COUNT(*), COUNT(DISTINCT id)) FROM "+d.db+".k"); got != "18 18" {
					t.Errorf("rows and different ones: %s", got)
				}
			})
		}
	})
}

// lonely is a lane's session without an applier.
func lonely(t *testing.T, cfg Config) (*sqlBackend, *sqlLane) {
	t.Helper()
	ctx := context.Background()
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	b, err := newSQLBackend(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.close() })
	c, err := b.claim(ctx)
	if err != nil {
		t.Fatal(err)
	}
	l, err := b.lane(ctx, c.epoch, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return b, l.(*sqlLane)
}

// TestDeadlockUndoesAll: what servers do when they choose a transaction to break a
// deadlock is what errUndone and its guards think: everything since the beginning is
// gone, savepoints too, and what comes next is another transaction.
func TestDeadlockUndoesAll(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			srv, db := mysqltest.Shared(t, f)
			for _, s := range []string{
				"CREATE TABLE @x (id INT PRIMARY KEY, n INT)", "CREATE TABLE @k (id INT)",
				"INSERT INTO @x VALUES (1, 0), (2, 0), (11, 0), (12, 0), (13, 0), (14, 0), (15, 0), (16, 0)",
			} {
				srv.Exec(t, strings.ReplaceAll(s, "@", db+"."))
			}
			_, l := lonely(t, Config{Stream: db, Target: srv.Endpoint(), Lanes: 1, Owner: "test"})
			if err := l.move(ctx, causality.Start, change.Place{Offset: 5}); err != nil {
				t.Fatal(err)
			}
			exec := func(statement string) error {
				_, err := l.watch.ExecContext(ctx, strings.ReplaceAll(statement, "@", db+"."))
				return err
			}
			for _, s := range []string{"SAVEPOINT sp", "INSERT INTO @k VALUES (1)", "UPDATE @x SET n = 1 WHERE id = 1"} {
				if err := exec(s); err != nil {
					t.Fatalf("%s: %v", s, err)
				}
			}
			other, err := srv.DB().BeginTx(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Rollback()
			// It has changed more rows, so it is not the one to be undone.
			if _, err := other.ExecContext(ctx, "UPDATE "+db+".x SET n = n + 2 WHERE id >= 2"); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := other.ExecContext(ctx, "UPDATE "+db+".x SET n = 2 WHERE id = 1")
				done <- err
			}()
			err = exec("UPDATE @x SET n = 1 WHERE id = 2")
			if e := <-done; e != nil {
				t.Fatalf("the other transaction: %v", e)
			}
			if server.ErrorNumber(err) != 1213 {
				t.Fatalf("no deadlock: %v", err)
			}
			// A lane never gets here. If it did:
			for _, s := range []string{"ROLLBACK TO SAVEPOINT sp", "RELEASE SAVEPOINT sp"} {
				if err := exec(s); server.ErrorNumber(err) != 1305 {
					t.Errorf("%s: %v", s, err)
				}
			}
			if err := exec("INSERT INTO @k VALUES (2)"); err != nil {
				t.Fatal(err)
			}
			if err := l.commit(ctx); !errors.Is(err, errUndone) {
				t.Errorf("commit: %v", err)
			}
			if err := l.move(ctx, change.Place{Offset: 5}, change.Place{Offset: 6}); !errors.Is(err, errUndone) {
				t.Errorf("move: %v", err)
			}
			l.close()
			if n := srv.Value(t, "SELECT COUNT(*) FROM "+db+".k"); n != "0" {
				t.Errorf("%s rows were committed", n)
			}
		})
	}
}
