// Package workload writes to a primary what real applications write, and the odd
// things that break replication: several clients with every operation, key
// changes, unique-key swaps, transactions over many tables, bank transfers with a
// constant sum, every column type at its bounds, odd names, tables without keys,
// and DDL in the middle of it all.
//
// Everything random comes from a seed. With one client a seed gives one history;
// with several, each client's own sequence.
package workload

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/server"
)

// Config of a workload. The zero value of everything but DB is usable.
type Config struct {
	Seed    uint64
	DB      *sql.DB // root on the primary; its connections get session settings of all kinds
	Clients int     // concurrent clients; 0: 4
	// Rate bounds the transactions per second of all clients together; 0: no bound.
	Rate float64
	// Transactions ends Run after so many commits; 0: only its context does.
	Transactions int64
	// DDLEvery is the pause after every statement of the DDL scenarios, which
	// follow each other without end; 0: no DDL.
	DDLEvery time.Duration
	// BulkEvery is the pause after every transaction of several hundred rows, which one
	// more client commits; 0: none of these.
	BulkEvery time.Duration
	// Types includes the tables with every column type; they cost most of the bytes.
	Types bool
	// Log gets what happens seldom: scenarios, reconnects, surprises.
	Log zerolog.Logger
}

// Schemas are the schemas that a workload owns: Prepare drops and makes them.
func Schemas() []string { return []string{Schema, OddSchema, ddlSchema} }

// The schemas of the workload's tables.
const (
	Schema    = "load_main"
	OddSchema = "load `odd`-订单"
	ddlSchema = "load_ddl"
)

// Stats are running totals.
type Stats struct {
	Transactions int64 // committed
	Rows         int64 // changed by committed transactions, as the server counted
	RolledBack   int64 // on purpose, or after an error the server is expected to give
	Unknown      int64 // the connection broke in a COMMIT: it may have happened
	Reconnects   int64
	DDL          int64            // statements
	Refused      map[uint16]int64 // expected server errors by number
	Unexpected   map[string]int64 // all others: a fault of the workload
}

// Workload is one load on one primary.
type Workload struct {
	cfg    Config
	info   server.Info
	tables []rowTable

	transactions, rows, rolledBack, unknown, reconnects, ddl, played atomic.Int64

	mu         sync.Mutex // guards the maps
	refused    map[uint16]int64
	unexpected map[string]int64
}

// New makes a workload; Prepare comes next.
func New(cfg Config) *Workload {
	if cfg.Clients == 0 {
		cfg.Clients = 4
	}
	return &Workload{cfg: cfg, refused: map[uint16]int64{}, unexpected: map[string]int64{}}
}

// Stats may be called at any time.
func (w *Workload) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Stats{
		Transactions: w.transactions.Load(), Rows: w.rows.Load(), RolledBack: w.rolledBack.Load(), Unknown: w.unknown.Load(),
		Reconnects: w.reconnects.Load(), DDL: w.ddl.Load(), Refused: maps.Clone(w.refused), Unexpected: maps.Clone(w.unexpected),
	}
}

// random is the generator of one actor.
func (w *Workload) random(actor uint64) *rand.Rand { return rand.New(rand.NewPCG(w.cfg.Seed, actor)) }

// Prepare drops the workload's schemas, makes them anew, and fills the tables.
func (w *Workload) Prepare(ctx context.Context) error {
	c, err := w.connect(ctx, w.random(0), true)
	if err != nil {
		return err
	}
	defer c.close()
	if w.info, err = server.Detect(ctx, c.conn); err != nil {
		return err
	}
	for _, s := range Schemas() {
		for _, q := range []string{"DROP DATABASE IF EXISTS ", "CREATE DATABASE "} {
			if err := c.exec(ctx, q+server.QuoteName(s)); err != nil {
				return err
			}
		}
	}
	if err := c.exec(ctx, "USE "+Schema); err != nil {
		return err
	}
	for _, q := range slices.Concat(shopTables, bulkTables) {
		if err := c.exec(ctx, q); err != nil {
			return err
		}
	}
	w.tables = keyTables(w.info)
	w.tables = append(w.tables, oddTables()...)
	if w.cfg.Types {
		w.tables = append(w.tables, typeTables(w.info)...)
	}
	for _, t := range w.tables {
		if err := t.create(ctx, c); err != nil {
			return err
		}
	}
	return w.fill(ctx, c)
}

// fill puts the first rows into every table, one transaction each.
func (w *Workload) fill(ctx context.Context, c *client) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	if err := fillShop(ctx, c); err != nil {
		return err
	}
	if err := c.commit(ctx); err != nil {
		return err
	}
	for _, t := range w.tables {
		if err := c.begin(ctx); err != nil {
			return err
		}
		// Every edge value of every column once, in step, then random rows.
		for i := range max(t.rows, t.edges()) {
			err := c.exec(ctx, t.insert(c.r, i))
			if err != nil && !isExpected(err) {
				return err
			}
		}
		if err := c.commit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Run drives the load until the context ends or Config.Transactions are
// committed, which is no error. Lost connections are made again; a server that
// stays away is waited for.
func (w *Workload) Run(ctx context.Context) error {
	if w.tables == nil {
		return errors.New("workload: Run before Prepare")
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var clients, others sync.WaitGroup
	errs := make([]error, w.cfg.Clients+2) // one slot per goroutine, read after all ended
	for i := range w.cfg.Clients {
		clients.Go(func() { errs[i] = w.client(ctx, uint64(i)+1) })
	}
	if w.cfg.DDLEvery > 0 {
		others.Go(func() { errs[w.cfg.Clients] = w.definitions(ctx) })
	}
	if w.cfg.BulkEvery > 0 {
		others.Go(func() { errs[w.cfg.Clients+1] = w.bulkLoads(ctx) })
	}
	clients.Wait()
	stop()
	others.Wait()
	return errors.Join(append(errs, w.quiesce(context.WithoutCancel(ctx)))...)
}

// quiesce waits until the server has ended what the clients left: a statement
// whose connection is closed in the middle of it goes on to its end.
func (w *Workload) quiesce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	const q = "SELECT COUNT(*) FROM information_schema.processlist WHERE command IN ('Query', 'Execute', 'Killed') AND user = 'root' AND id <> CONNECTION_ID()"
	for {
		var n int
		err := w.cfg.DB.QueryRowContext(ctx, q).Scan(&n)
		if err == nil && n == 0 {
			return nil
		}
		if e := sleep(ctx, 20*time.Millisecond); e != nil {
			return fmt.Errorf("workload: %d statements are still running: %w", n, errors.Join(err, e))
		}
	}
}

// client commits one random transaction after the other.
func (w *Workload) client(ctx context.Context, actor uint64) error {
	r := w.random(actor)
	var pause time.Duration
	if w.cfg.Rate > 0 {
		pause = time.Duration(float64(time.Second) * float64(w.cfg.Clients) / w.cfg.Rate)
	}
	next := time.Now()
	var c *client
	defer func() { c.close() }()
	for ctx.Err() == nil {
		if w.cfg.Transactions > 0 && w.transactions.Load() >= w.cfg.Transactions {
			return nil
		}
		// Now and then a new session with other settings.
		if c != nil && r.IntN(200) == 0 {
			c.close()
			c = nil
		}
		if c == nil {
			var err error
			if c, err = w.connect(ctx, r, false); err != nil {
				return unlessDone(ctx, err)
			}
		}
		if err := w.settle(c.transaction(ctx, w)); err != nil {
			c.close()
			c = nil
			if ctx.Err() == nil {
				w.reconnects.Add(1)
			}
		}
		if pause > 0 {
			next = next.Add(pause)
			// A server that was away is not made up for in one burst.
			if late := time.Since(next); late > time.Second {
				next = time.Now()
			}
			if err := sleep(ctx, time.Until(next)); err != nil {
				return unlessDone(ctx, err)
			}
		}
	}
	return nil
}

// settle counts an error; it returns it when the connection is not usable any more.
func (w *Workload) settle(err error) error {
	switch {
	case err == nil:
		return nil
	case isExpected(err):
		w.mu.Lock()
		w.refused[server.ErrorNumber(err)]++
		w.mu.Unlock()
		w.rolledBack.Add(1)
		return nil
	case server.ErrorNumber(err) != 0 && !goesAway(err):
		w.mu.Lock()
		w.unexpected[err.Error()]++
		first := w.unexpected[err.Error()] == 1
		w.mu.Unlock()
		if first {
			w.cfg.Log.Warn().Err(err).Msg("the server refused a statement of the workload")
		}
		return nil
	}
	return err
}

// expected errors of a concurrent load with DDL in the middle.
var expected = map[uint16]bool{
	1020: true, // snapshot isolation: the row has changed since (MariaDB 11)
	1048: true, // NULL in a NOT NULL column, after a MODIFY
	1054: true, // unknown column: another client's DDL
	1062: true, // duplicate key
	1146: true, // unknown table: another client's DDL
	1205: true, // lock wait timeout
	1213: true, // deadlock
	1412: true, // table definition changed since the snapshot
	1467: true, // no auto-increment value, after a deadlock
	1451: true, // a foreign key refers to it
	1452: true, // a foreign key refers to nothing
	1526: true, // no partition for the value
	1615: true, // statement needs to be prepared again
	3101: true, // rolled back by the server
}

func isExpected(err error) bool { return expected[server.ErrorNumber(err)] }

// goesAway: the server is shutting down, or has ended the session.
func goesAway(err error) bool {
	switch server.ErrorNumber(err) {
	case 1053, 1077, 1079, 1080, 1152, 1290, 1317, 1836, 1927, 3169, 4031:
		return true
	}
	return false
}

// unlessDone: the end of the context is how a run is meant to end.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Large commits one transaction that inserts n rows, updates all of them, and
// deletes a third: 7n/3 row changes.
func (w *Workload) Large(ctx context.Context, n int) error {
	c, err := w.connect(ctx, w.random(1<<32), true)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.begin(ctx); err != nil {
		return err
	}
	digits := "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)"
	from := digits + " d1"
	number := "d1.d"
	for i, scale := 2, 10; scale < n; i, scale = i+1, scale*10 {
		from += fmt.Sprintf(" CROSS JOIN %s d%d", digits, i)
		number += fmt.Sprintf(" + %d * d%d.d", scale, i)
	}
	for _, q := range []string{
		"DELETE FROM " + Schema + ".large",
		fmt.Sprintf("INSERT INTO %s.large (id, note, amount) SELECT n, CONCAT('row ', n, ' ', REPEAT('.', n %% 60)), n * 1.25 FROM (SELECT %s AS n FROM %s) numbers WHERE n < %d", Schema, number, from, n),
		"UPDATE " + Schema + ".large SET amount = amount + 1, note = CONCAT(note, '!')",
		"DELETE FROM " + Schema + ".large WHERE id % 3 = 0",
	} {
		if err := c.exec(ctx, q); err != nil {
			return err
		}
	}
	return c.commit(ctx)
}
