package workload

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twinspan/twinspan/internal/server"
)

// client is one session on the primary.
type client struct {
	w    *Workload
	conn *sql.Conn
	r    *rand.Rand
	rows int64 // changed in the open transaction
}

// connect makes a session, waiting for a server that is away. Random settings
// are those that an applier must not inherit by accident. The only error is the
// context's.
func (w *Workload) connect(ctx context.Context, r *rand.Rand, plain bool) (*client, error) {
	zone, isolation := "+00:00", "REPEATABLE READ"
	if !plain {
		zone = []string{"+00:00", "+05:30", "-08:00", "+13:00"}[r.IntN(4)]
		isolation = []string{"REPEATABLE READ", "READ COMMITTED"}[r.IntN(2)]
	}
	for wait := 20 * time.Millisecond; ; wait = min(wait*2, time.Second) {
		c, err := w.session(ctx, r, zone, isolation)
		if err == nil {
			return c, nil
		}
		if plain && server.ErrorNumber(err) != 0 && !goesAway(err) {
			return nil, err
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

func (w *Workload) session(ctx context.Context, r *rand.Rand, zone, isolation string) (*client, error) {
	conn, err := w.cfg.DB.Conn(ctx)
	if err != nil {
		return nil, err
	}
	c := &client{w: w, conn: conn, r: r}
	for _, q := range []string{
		// Not strict: zero dates and values out of range are to be stored, not refused.
		"SET SESSION sql_mode = 'ALLOW_INVALID_DATES'",
		"SET SESSION time_zone = '" + zone + "'",
		"SET SESSION TRANSACTION ISOLATION LEVEL " + isolation,
		"SET SESSION innodb_lock_wait_timeout = 5",
		"USE " + Schema,
	} {
		if err := c.exec(ctx, q); err != nil && server.ErrorNumber(err) != 1049 { // no such schema yet
			c.close()
			return nil, err
		}
	}
	return c, nil
}

// close ends the session itself: its settings must not reach another one.
func (c *client) close() {
	if c == nil {
		return
	}
	_ = c.conn.Raw(func(any) error { return driver.ErrBadConn }) // drops the connection
	_ = c.conn.Close()
}

func (c *client) exec(ctx context.Context, q string, args ...any) error {
	res, err := c.conn.ExecContext(ctx, q, args...)
	if err != nil {
		if len(q) > 400 {
			q = q[:400] + "…"
		}
		return fmt.Errorf("%s: %w", q, err)
	}
	if n, err := res.RowsAffected(); err == nil {
		c.rows += n
	}
	return nil
}

func (c *client) begin(ctx context.Context) error {
	c.rows = 0
	return c.exec(ctx, "START TRANSACTION")
}

func (c *client) commit(ctx context.Context) error {
	rows := c.rows
	if err := c.exec(ctx, "COMMIT"); err != nil {
		if server.ErrorNumber(err) == 0 {
			c.w.unknown.Add(1)
		}
		return err
	}
	c.w.transactions.Add(1)
	c.w.rows.Add(rows)
	return nil
}

// transaction runs a random transaction of one to six operations. After a
// server error the transaction is rolled back and the error returned.
func (c *client) transaction(ctx context.Context, w *Workload) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	steps := 1
	if c.r.IntN(3) == 0 {
		steps = 2 + c.r.IntN(5)
	}
	for i := range steps {
		if steps > 1 && c.r.IntN(20) == 0 {
			if err := c.savepoint(ctx, w, i); err != nil {
				return c.abort(ctx, err)
			}
			continue
		}
		if err := c.step(ctx, w); err != nil {
			// A statement that failed on a key is undone by itself; some
			// applications go on in spite of it.
			if server.ErrorNumber(err) == 1062 && c.r.IntN(2) == 0 {
				continue
			}
			return c.abort(ctx, err)
		}
	}
	if c.r.IntN(25) == 0 {
		w.rolledBack.Add(1)
		return c.exec(ctx, "ROLLBACK")
	}
	return c.commit(ctx)
}

func (c *client) abort(ctx context.Context, cause error) error {
	if server.ErrorNumber(cause) == 0 {
		return cause // the connection is gone, and the transaction with it
	}
	if err := c.exec(ctx, "ROLLBACK"); err != nil {
		return err
	}
	return cause
}

// savepoint does something and undoes it inside the transaction.
func (c *client) savepoint(ctx context.Context, w *Workload, i int) error {
	name := fmt.Sprintf("`sp %d`", i)
	if err := c.exec(ctx, "SAVEPOINT "+name); err != nil {
		return err
	}
	if err := c.step(ctx, w); err != nil {
		return err
	}
	if c.r.IntN(2) == 0 {
		return c.exec(ctx, "RELEASE SAVEPOINT "+name)
	}
	return c.exec(ctx, "ROLLBACK TO SAVEPOINT "+name)
}

// step is one operation, of the shop or on one of the row tables.
func (c *client) step(ctx context.Context, w *Workload) error {
	if c.r.IntN(2) == 0 {
		return shopOperations[c.r.IntN(len(shopOperations))](ctx, c)
	}
	t := w.tables[c.r.IntN(len(w.tables))]
	return c.exec(ctx, t.operation(c.r))
}
