package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
)

// Bulk loads are transactions of several hundred row changes, a statement after the
// other: on a table whose keys are dense whole numbers, and on one without any key,
// in which many rows are equal.

const (
	denseRows = 3000 // ids of the table dense
	heapRows  = 300  // rows of heap, about
)

var bulkTables = []string{
	"CREATE TABLE dense (id INT PRIMARY KEY, v INT NOT NULL, note VARCHAR(60) NOT NULL)",
	"CREATE TABLE heap (a INT NOT NULL, b INT NOT NULL, note VARCHAR(60) NULL)",
}

// bulkLoads commits one bulk load after the other until the context ends.
func (w *Workload) bulkLoads(ctx context.Context) error {
	r := w.random(1 << 35)
	for {
		c, err := w.connect(ctx, r, true)
		if err != nil {
			return unlessDone(ctx, err)
		}
		for err == nil {
			if err = w.settle(c.bulkLoad(ctx)); err == nil {
				err = sleep(ctx, w.cfg.BulkEvery)
			}
		}
		c.close()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the load is over
		}
		w.reconnects.Add(1)
	}
}

// bulkLoad is one transaction.
func (c *client) bulkLoad(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	for range 1 + c.r.IntN(2) {
		load := denseLoad
		if c.r.IntN(2) == 0 {
			load = heapLoad
		}
		for _, q := range load(c.r) {
			if err := c.exec(ctx, q); err != nil {
				return c.abort(ctx, err)
			}
		}
	}
	return c.commit(ctx)
}

// denseLoad writes a range of neighbours anew, changes half of it, and perhaps moves
// or deletes some.
func denseLoad(r *rand.Rand) []string {
	n := 50 + r.IntN(250)
	from := r.IntN(denseRows)
	rows := make([]string, n)
	for i := range rows {
		rows[i] = fmt.Sprintf("(%d,%d,'%s')", from+i, r.IntN(1000), strings.Repeat("n", r.IntN(50)))
	}
	load := []string{
		fmt.Sprintf("DELETE FROM %s.dense WHERE id BETWEEN %d AND %d", Schema, from, from+n-1),
		"INSERT INTO " + Schema + ".dense VALUES " + strings.Join(rows, ","),
		fmt.Sprintf("UPDATE %s.dense SET v = v + 1 WHERE id BETWEEN %d AND %d", Schema, from+n/4, from+n*3/4),
	}
	switch r.IntN(3) {
	case 0: // each takes the place of the one before
		load = append(load, fmt.Sprintf("DELETE FROM %s.dense WHERE id = %d", Schema, from),
			fmt.Sprintf("UPDATE %s.dense SET id = id - 1 WHERE id BETWEEN %d AND %d ORDER BY id", Schema, from+1, from+n-1))
	case 1:
		load = append(load, fmt.Sprintf("DELETE FROM %s.dense WHERE id BETWEEN %d AND %d", Schema, from+n/2, from+n-1))
	}
	return load
}

// heapLoad keeps the table about as large as it is.
func heapLoad(r *rand.Rand) []string {
	n := 50 + r.IntN(150)
	rows := make([]string, n)
	kinds := 1 + r.IntN(20) // different rows among them
	for i := range rows {
		rows[i] = fmt.Sprintf("(%d,%d,NULL)", i%kinds, i%kinds%3)
	}
	return []string{
		"INSERT INTO " + Schema + ".heap VALUES " + strings.Join(rows, ","),
		fmt.Sprintf("UPDATE %s.heap SET b = b + 1, note = IF(note IS NULL, 'x', NULL) WHERE a = %d LIMIT %d", Schema, r.IntN(5), n/2),
		fmt.Sprintf("SET @more = (SELECT COUNT(*) - %d FROM %s.heap)", heapRows, Schema),
		fmt.Sprintf("DELETE FROM %s.heap WHERE @more > 0 AND a <> %d LIMIT %d", Schema, r.IntN(20), 2*n),
	}
}
