package verify

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// distinctMax bounds the distinct rows counted in one pass, and so the memory:
// about 100 MB a table. Larger tables are read in several passes, each counting
// the rows whose hash falls into its share.
const distinctMax = 1 << 20

// sharesMax is how many passes a table is read in at most.
const sharesMax = 1 << 12

// errTooMany: more distinct rows than distinctMax in one share.
var errTooMany = errors.New("too many distinct rows")

// digest is half of a row's SHA-256.
type digest [16]byte

// multiset compares a table without a key: each distinct row must be there as
// often on both sides. What differs is counted again as keyed rows are: until it
// is equal, or stood still at the source and differs, or moved too often.
func (r *run) multiset(ctx context.Context, sh *shape, rep *TableReport) error {
	candidates, total, err := r.candidates(ctx, sh)
	if err != nil {
		return err
	}
	rep.Rows = total
	r.report(func(p *Progress) { p.RowsDone += total })

	stood := map[digest]int{}
	found := map[digest]int64{} // source minus target
	var before map[digest]int64
	for attempt := 0; len(candidates) > 0; attempt++ {
		if before == nil {
			if before, err = r.count(ctx, sh, true, candidates); err != nil {
				return err
			}
		}
		if err := r.settle(ctx); err != nil {
			return err
		}
		there, err := r.count(ctx, sh, false, candidates)
		if err != nil {
			return err
		}
		after, err := r.count(ctx, sh, true, candidates)
		if err != nil {
			return err
		}
		for h := range candidates {
			switch {
			case before[h] != after[h]:
				stood[h] = 0
			case before[h] == there[h]:
				delete(candidates, h)
				continue
			default:
				stood[h]++
			}
			if stood[h] >= r.stoodNeeded() {
				found[h] = before[h] - there[h]
				delete(candidates, h)
			} else if attempt+1 >= r.cfg.Attempts {
				r.unsettled(rep, Difference{Kind: Unsettled, Key: "a row whose SHA-256 begins with " + hex.EncodeToString(h[:])}, 1)
				delete(candidates, h)
			}
		}
		before = after
		if len(candidates) > 0 {
			if err := r.pause(ctx, attempt); err != nil {
				return err
			}
		}
	}
	return r.nameRows(ctx, sh, found, rep)
}

// candidates finds the rows whose counts differ, and the source's number of rows.
// It takes as many shares as the memory's bound asks for.
func (r *run) candidates(ctx context.Context, sh *shape) (map[digest]bool, int64, error) {
shares:
	for shares := uint32(1); shares <= sharesMax; shares *= 4 {
		out := map[digest]bool{}
		total := int64(0)
		for share := range shares {
			net := map[digest]int64{} // at most distinctMax
			for _, source := range []bool{true, false} {
				err := r.hashes(ctx, sh, source, func(h digest) error {
					if source && share == 0 {
						total++
					}
					if binary.LittleEndian.Uint32(h[:])%shares != share {
						return nil
					}
					if source {
						net[h]++
					} else {
						net[h]--
					}
					if net[h] == 0 {
						delete(net, h)
					} else if len(net) > distinctMax {
						return errTooMany
					}
					return nil
				})
				if errors.Is(err, errTooMany) {
					continue shares
				}
				if err != nil {
					return nil, 0, err
				}
			}
			for h := range net {
				out[h] = true
			}
			if len(out) > distinctMax {
				// Not a handful of rows on their way: the tables are not
				// of the same content, and naming each row helps nobody.
				return nil, total, fmt.Errorf("more than %d distinct rows differ", distinctMax)
			}
		}
		return out, total, nil
	}
	return nil, 0, fmt.Errorf("more than %d million distinct rows", distinctMax*sharesMax/1_000_000)
}

// count tells how often each of some rows is there.
func (r *run) count(ctx context.Context, sh *shape, source bool, of map[digest]bool) (map[digest]int64, error) {
	out := make(map[digest]int64, len(of))
	err := r.hashes(ctx, sh, source, func(h digest) error {
		if of[h] {
			out[h]++
		}
		return nil
	})
	return out, err
}

// hashes streams the digests of a whole table.
func (r *run) hashes(ctx context.Context, sh *shape, source bool, f func(digest) error) error {
	return r.whole(ctx, sh, source, "", 1, func(x row) error {
		h, err := digestOf(x[0])
		if err != nil {
			return err
		}
		return f(h)
	})
}

func digestOf(b []byte) (h digest, err error) {
	if len(b) != 32 {
		return h, errors.New("a row is too large to be hashed: raise max_allowed_packet")
	}
	copy(h[:], b)
	return h, nil
}

// whole streams a table's digests, and with them what else is selected.
func (r *run) whole(ctx context.Context, sh *shape, source bool, also string, fields int, f func(row) error) error {
	side, name := r.cfg.Target, "target"
	if source {
		side, name = r.cfg.Source, "source"
	}
	return wrap(name, query(ctx, side, "SELECT UNHEX("+sh.digest(source)+")"+also+" FROM "+sh.table(source), fields, f))
}

var errEnough = errors.New("enough")

// nameRows reads the side that has more of them once more, to show what differing
// rows hold.
func (r *run) nameRows(ctx context.Context, sh *shape, found map[digest]int64, rep *TableReport) error {
	shown := map[digest]string{}
	for _, source := range []bool{true, false} {
		want := map[digest]bool{}
		for h, n := range found {
			if (n > 0) == source && len(want) < r.cfg.KeysMax {
				want[h] = true
			}
		}
		if len(want) == 0 {
			continue
		}
		err := r.whole(ctx, sh, source, ", "+sh.list(source), 1+len(sh.columns), func(x row) error {
			h, err := digestOf(x[0])
			if err != nil {
				return err
			}
			if want[h] {
				shown[h] = sh.printableRow(x[1:])
				if delete(want, h); len(want) == 0 {
					return errEnough
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
	}
	report := func(h digest) {
		n := found[h]
		d := Difference{Kind: Missing, Count: n, Key: shown[h]}
		if n < 0 {
			d.Kind, d.Count = Extra, -n
		}
		r.add(rep, d, d.Count)
		delete(found, h)
	}
	for h := range shown {
		report(h)
	}
	for h := range found {
		report(h)
	}
	return nil
}
