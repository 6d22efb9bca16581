package verify

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// row is the select list's fields; nil is NULL.
type row [][]byte

func (a row) equal(b row) bool {
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) || !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// chunkBytes is what one read should hold at most, by the table's average row.
const chunkBytes = 8 << 20

// keyed compares a table with a key, chunk by chunk in the source's key order.
// Bounds come from the source, and the target is asked for the same interval, so
// that rows which only the target has are seen too. The intervals cover all keys
// even where the target sorts otherwise: a key that is above the first bound and
// not above the last is above one and not above the next.
//
// Both servers first hash the chunk; only where the hashes differ are its rows
// read and compared here.
func (r *run) keyed(ctx context.Context, sh *shape, rep *TableReport) error {
	n := r.cfg.ChunkRows
	if sh.width > 0 {
		n = max(16, min(n, int(chunkBytes/sh.width)))
	}
	var after keyValues
	for {
		upto, err := r.bound(ctx, sh, after, n)
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		src, tgt, err := r.sums(ctx, sh, sh.interval(after, upto))
		if err != nil {
			return err
		}
		rep.Rows += src.rows
		r.report(func(p *Progress) { p.RowsDone += src.rows })
		if !src.same(tgt) {
			if err := r.chunk(ctx, sh, after, upto, n, rep); err != nil {
				return err
			}
		}
		if upto == nil {
			return nil
		}
		after = upto
	}
}

// bound is the key of the n-th row after a key; nil when there are fewer.
func (r *run) bound(ctx context.Context, sh *shape, after keyValues, n int) (keyValues, error) {
	e := make([]string, len(sh.key))
	for i, k := range sh.key {
		e[i] = sh.columns[k.at].source
	}
	q := "SELECT " + strings.Join(e, ", ") + sh.from(true, sh.interval(after, nil)) + sh.order() + " LIMIT 1 OFFSET " + strconv.Itoa(n-1)
	var key keyValues
	err := query(ctx, r.cfg.Source, q, len(e), func(x row) error {
		key = keyValues(x)
		return nil
	})
	return key, err
}

// sum is what a chunk hashes to: half of the rows' SHA-256, joined with XOR,
// which no order of reading changes. Rows of a key are all different, so none
// cancel out.
type sum struct {
	rows, hashed int64
	high, low    uint64
}

// same is false also where a row could not be hashed.
func (s sum) same(o sum) bool { return s == o && s.rows == s.hashed }

// sums hashes an interval on both sides at once.
func (r *run) sums(ctx context.Context, sh *shape, condition string) (src, tgt sum, err error) {
	one := func(s Side, source bool) (sum, error) {
		// The limit keeps the servers from merging the inner query into the
		// outer one, and hashing each row three times.
		q := "SELECT COUNT(*), COUNT(h), COALESCE(BIT_XOR(CAST(CONV(LEFT(h, 16), 16, 10) AS UNSIGNED)), 0), " +
			"COALESCE(BIT_XOR(CAST(CONV(SUBSTRING(h, 17, 16), 16, 10) AS UNSIGNED)), 0) FROM (SELECT " +
			sh.digest(source) + " AS h" + sh.from(source, condition) + " LIMIT 9223372036854775807) AS hashes"
		var x sum
		return x, s.DB.QueryRowContext(ctx, q).Scan(&x.rows, &x.hashed, &x.high, &x.low)
	}
	done := make(chan error, 1) // owner: the goroutine below; bound 1; never closed
	go func() {
		var err error
		tgt, err = one(r.cfg.Target, false)
		done <- wrap("target", err)
	}()
	src, err = one(r.cfg.Source, true)
	return src, tgt, errors.Join(wrap("source", err), <-done)
}

func wrap(side string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", side, err)
	}
	return nil
}

// chunk reads an interval's rows on both sides, at most n at a time, and looks
// again at those that differ.
func (r *run) chunk(ctx context.Context, sh *shape, after, upto keyValues, n int, rep *TableReport) error {
	var candidates []candidate // at most recheckRows and a page more
	flush := func(least int) error {
		for len(candidates) > least {
			k := min(recheckRows, len(candidates))
			if err := r.recheck(ctx, sh, candidates[:k], rep); err != nil {
				return err
			}
			candidates = candidates[k:]
		}
		return nil
	}
	for more := true; more; {
		src, err := r.read(ctx, sh, true, sh.interval(after, upto), n)
		if err != nil {
			return wrap("source", err)
		}
		end := upto
		if more = len(src) == n; more {
			end = sh.keyOf(src[n-1])
		}
		open := make(map[string]row, len(src)) // the source's rows that the target has not shown
		for _, x := range src {
			open[sh.keyOf(x).id()] = x
		}
		for from := after; ; {
			tgt, err := r.read(ctx, sh, false, sh.interval(from, end), n)
			if err != nil {
				return wrap("target", err)
			}
			for _, x := range tgt {
				c := sh.candidate(x)
				if s, ok := open[c.id]; !ok || !s.equal(x) {
					candidates = append(candidates, c)
				}
				delete(open, c.id)
			}
			if len(tgt) < n {
				break
			}
			from = sh.keyOf(tgt[n-1])
			if err := flush(recheckRows); err != nil {
				return err
			}
		}
		for _, x := range src {
			if c := sh.candidate(x); open[c.id] != nil {
				candidates = append(candidates, c)
			}
		}
		if err := flush(recheckRows); err != nil {
			return err
		}
		after = end
	}
	return flush(0)
}

// read gives the rows of a condition in key order, at most limit; 0: all.
func (r *run) read(ctx context.Context, sh *shape, source bool, condition string, limit int) ([]row, error) {
	side := r.cfg.Target
	if source {
		side = r.cfg.Source
	}
	q := "SELECT " + sh.list(source) + sh.from(source, condition) + sh.order()
	if limit > 0 {
		q += " LIMIT " + strconv.Itoa(limit)
	}
	var out []row
	err := query(ctx, side, q, len(sh.columns), func(x row) error {
		out = append(out, x)
		return nil
	})
	return out, err
}

// query calls f for each row, which f may keep.
func query(ctx context.Context, s Side, q string, fields int, f func(row) error) error {
	rows, err := s.DB.QueryContext(ctx, q)
	if err != nil {
		return err
	}
	defer rows.Close()
	raw := make([]sql.RawBytes, fields)
	into := make([]any, fields)
	for i := range raw {
		into[i] = &raw[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		size := 0
		for _, b := range raw {
			size += len(b)
		}
		x, all := make(row, fields), make([]byte, 0, size) // one allocation for the values
		for i, b := range raw {
			if b != nil {
				all = append(all, b...)
				x[i] = all[len(all)-len(b) : len(all) : len(all)]
			}
		}
		if err := f(x); err != nil {
			return err
		}
	}
	return rows.Err()
}
