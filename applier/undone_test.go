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

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
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
