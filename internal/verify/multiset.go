package verify

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// distinctMax bounds the distinct rows counted in one pass, so memory: about
// 100 MB a table. Larger tables are read in several passes, each counting the
// rows whose hash falls into its share.
const distinctMax = 1 << 20

type digest [16]byte

// multiset compares a table without a key: each distinct row must be there as
// often on both sides. While the table moves the whole is read again, after the
// target has caught up, until both sides agree or the source stands still.
func (r *run) multiset(ctx context.Context, sh *shape, rep *TableReport) error {
	passes := 1
	var last map[digest]int64
	for attempt := 1; ; attempt++ {
		diff, src, total, err := r.countAll(ctx, sh, &passes)
		if err != nil {
			return err
		}
		if attempt == 1 {
			rep.Rows = total
			r.report(func(p *Progress) { p.RowsDone += total })
		}
		if len(diff) == 0 {
			return nil
		}
		// The same differences with the same counts at the source twice in a
		// row, with a catch-up between them, are believed.
		stood := r.cfg.Settle == nil || sameCounts(src, last)
		last = src
		if stood {
			return r.nameRows(ctx, sh, diff, rep)
		}
		if attempt >= r.cfg.Attempts {
			rep.Unsettled += int64(len(diff))
			return nil
		}
		if attempt > 1 {
			select {
			case <-time.After(time.Duration(attempt) * 100 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := r.settle(ctx); err != nil {
			return err
		}
	}
}

func sameCounts(a, b map[digest]int64) bool {
	if len(a) != len(b) {
		return false
	}
	for k, n := range a {
		if b[k] != n {
			return false
		}
	}
	return true
}

// countAll returns, for the rows whose counts differ, source minus target, and
// the source's count of them; total is the source's number of rows. It raises
// passes when the table turns out to be too large for one.
func (r *run) countAll(ctx context.Context, sh *shape, passes *int) (diff, src map[digest]int64, total int64, err error) {
again:
	diff, src, total = map[digest]int64{}, map[digest]int64{}, 0
	for pass := range *passes {
		net := map[digest]int64{}
		counts := map[digest]int64{}
		for _, side := range []struct {
			Side
			sign int64
			name string
		}{{r.cfg.Source, +1, "source"}, {r.cfg.Target, -1, "target"}} {
			err := r.each(ctx, side.Side, sh, func(x row) {
				if side.sign > 0 && pass == 0 {
					total++
				}
				h := hash(x)
				if int(binary.LittleEndian.Uint32(h[:]))%*passes != pass {
					return
				}
				if net[h] += side.sign; net[h] == 0 {
					delete(net, h)
				}
				if side.sign > 0 {
					counts[h]++
				}
			})
			if err != nil {
				return nil, nil, 0, fmt.Errorf("%s: %w", side.name, err)
			}
			if len(counts) > 2*distinctMax && *passes < 1<<16 {
				*passes *= 2 + len(counts)/distinctMax
				goto again
			}
		}
		for h, n := range net {
			diff[h], src[h] = n, counts[h]
		}
	}
	return diff, src, total, nil
}

// each streams a whole table.
func (r *run) each(ctx context.Context, s Side, sh *shape, f func(row)) error {
	rows, err := s.DB.QueryContext(ctx, "SELECT "+sh.list+" FROM "+sh.table())
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		x, err := scan(rows, sh.fields)
		if err != nil {
			return err
		}
		f(x)
	}
	return rows.Err()
}

func hash(x row) digest {
	h := sha256.New()
	var n [8]byte
	for _, f := range x {
		l := int64(len(f))
		if f == nil {
			l = -1
		}
		binary.LittleEndian.PutUint64(n[:], uint64(l))
		h.Write(n[:])
		h.Write(f)
	}
	var d digest
	copy(d[:], h.Sum(nil))
	return d
}

// nameRows reads both sides once more to show what the differing rows hold.
func (r *run) nameRows(ctx context.Context, sh *shape, diff map[digest]int64, rep *TableReport) error {
	shown := map[digest]row{}
	for _, s := range []Side{r.cfg.Source, r.cfg.Target} {
		err := r.each(ctx, s, sh, func(x row) {
			if len(shown) < r.cfg.KeysMax {
				if h := hash(x); diff[h] != 0 {
					shown[h] = x
				}
			}
		})
		if err != nil {
			return err
		}
	}
	for h, n := range diff {
		d := Difference{Kind: Missing, Count: n}
		if n < 0 {
			d.Kind, d.Count = Extra, -n
		}
		if x, ok := shown[h]; ok {
			for i, c := range sh.columns {
				if i > 0 {
					d.Key += ", "
				}
				d.Key += c + "=" + printable(x[i])
			}
		}
		r.add(rep, d, d.Count)
	}
	return nil
}
