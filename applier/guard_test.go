package applier

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/conflicts"
	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/schema"
)

// TestHintOfParkedKeyIsKept: a lane that holds the store's lock while another is
// about to park a change takes nothing for unparked that the other then parks.
func TestHintOfParkedKeyIsKept(t *testing.T) {
	bothFlavors(t, func(t *testing.T, f mysqltest.Flavor) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		srv, db := mysqltest.Shared(t, f)
		b, l := lonely(t, Config{Stream: db, Target: srv.Endpoint(), Lanes: 1, Owner: "test", Exceptions: parkAll})
		table := &schema.Table{Name: schema.Name{Schema: db, Table: "gone"}, Columns: []schema.Column{{Name: "id", Type: schema.Int}}}
		key := []uint64{causality.TableKey(table.Name)}
		var id int64
		if err := l.conn.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&id); err != nil {
			t.Fatal(err)
		}

		other, err := srv.DB().BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Rollback()
		if _, err := b.guard.store.Lock(ctx, other); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			err := l.move(ctx, causality.Start, change.Place{})
			if err == nil {
				_, err = l.apply(ctx, []run{{route: b.missingRoute(table), marks: []mark{{}},
					rows: []change.Row{{Table: table, Op: change.Insert, After: row(1)}}}})
			}
			if err == nil {
				err = l.commit(ctx)
			}
			done <- err
		}()
		for waits := 0; waits == 0; time.Sleep(150 * time.Millisecond) { // who asks more often than ten times a second is told old news
			if err := srv.DB().QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id = ? AND trx_state = 'LOCK WAIT'",
				id).Scan(&waits); err != nil {
				t.Fatal(err)
			}
		}
		suspects := map[uint64]int64{}
		b.guard.suspects(suspects, key)
		holders, err := b.guard.store.Holders(ctx, other, key)
		if err != nil || len(holders) != 0 {
			t.Fatalf("nothing is parked yet: %v, %v", holders, err)
		}
		b.guard.free(suspects, holders)
		if err := other.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if all, err := b.guard.store.Load(ctx, srv.DB()); err != nil || len(all) != 1 {
			t.Fatalf("parked: %v, %v", all, err)
		}
		if !b.guard.suspects(suspects, key) {
			t.Error("a change is parked under a key that is not among the hints")
		}
	})
}

// undoingConnector makes connections as undoing is one.
type undoingConnector struct {
	driver.Connector
	at   string
	left int // one connection is used at a time
}

func (c *undoingConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &undoingConn{conn, c}, nil
}

type undoingConn struct {
	driver.Conn
	c *undoingConnector
}

func (u *undoingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	x := u.Conn.(driver.ExecerContext)
	if strings.HasPrefix(query, u.c.at) {
		if u.c.left--; u.c.left == 0 {
			if _, err := x.ExecContext(ctx, "ROLLBACK", nil); err != nil {
				return nil, err
			}
			return nil, &mysql.MySQLError{Number: 1644, Message: "made up by the test"}
		}
	}
	return x.ExecContext(ctx, query, args)
}

func (u *undoingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return u.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (u *undoingConn) CheckNamedValue(v *driver.NamedValue) error {
	return u.Conn.(driver.NamedValueChecker).CheckNamedValue(v)
}

// TestChainUndoneByItself: a server that undoes a chain half way does not have the
// changes before that taken for applied.
func TestChainUndoneByItself(t *testing.T) {
	bothFlavors(t, func(t *testing.T, f mysqltest.Flavor) {
		d := newDuel(t, f, Config{Conflicts: conflicts.Policies{Policy: conflicts.Exception}, Exceptions: parkAll})
		d.exec("INSERT INTO @t VALUES (1, 99, 'x')")
		d.feed(d.change("t", nil, row(1, 10, "a")), d.change("t", row(1, 10, "a"), row(1, 11, "a")), d.change("t", nil, row(2, 10, "b")))
		d.settled()
		d.exec("DELETE FROM @t")
		all := d.parked()
		connector, err := mysql.MySQLDriver{}.OpenConnector(fmt.Sprintf("root@tcp(%s)/?clientFoundRows=true&interpolateParams=true", d.srv.Address))
		if err != nil {
			t.Fatal(err)
		}
		db := sql.OpenDB(&undoingConnector{Connector: connector, at: "INSERT INTO `" + d.db + "`.`t`", left: 2})
		defer db.Close()
		r := &exceptions.Retrier{Store: d.store(), DB: db, Policies: d.cfg.Conflicts, By: "test"}
		if o, err := r.Retry(context.Background(), all[0].ID); err == nil {
			t.Errorf("half a chain: %+v", o)
		}
		d.has("t")
		if n := len(d.parked()); n != 3 {
			t.Errorf("%d are still parked", n)
		}
		if o := d.retry(r, all[0].ID); !o.Applied {
			t.Errorf("%+v", o)
		}
		d.has("t", "1 11 a", "2 10 b")
	})
}
