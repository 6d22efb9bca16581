package binlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/server"
)

// sequence checks that every transaction of a dump is the next one of its
// source. The server does not: with a hole in a binlog file, or a file deleted
// by hand, it streams past the hole without an error.
//
// A number that was skipped is a hole only if the server has executed it and its
// binlog does not hold it further on. Sets have holes of right, too: numbers that
// were reserved in blocks, set by hand, or given back by a transaction that
// failed come later or never; and a parallel replica may write transactions that
// do not depend on each other in another order than their primary did. Its own
// order is a valid one, and is the one that is shipped.
type sequence struct {
	flavor server.Flavor
	seen   gtid.Set // everything that began in this dump or was in the log before
	// executed asks the server what it has committed.
	executed func(context.Context) (gtid.Set, error)
	// absent looks ahead for transactions, from a set on; see Stream.absent.
	absent func(ctx context.Context, from, wanted gtid.Set) (gtid.Set, error)
	// coming were skipped, and seen further on.
	coming gtid.Set
	// gapsAllowed accepts holes of a MariaDB domain, whose numbers need only
	// ascend.
	gapsAllowed bool
}

// next takes in the GTID of a transaction that begins: a *Halt when it is not
// the next of its source, or the error of asking the server.
func (q *sequence) next(ctx context.Context, id string) error {
	has, err := q.seen.ContainsGTID(id)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if has {
		return q.repeated(id)
	}
	source, n, err := splitGTID(q.flavor, id)
	if err != nil {
		return err
	}
	last := q.seen.Last(source)
	if q.flavor == server.MariaDB {
		if last != 0 && n != last+1 && !q.gapsAllowed {
			return &Halt{Code: HaltGap, GTID: id, Remedy: remedySnapshot + "; if the numbers were skipped on purpose " +
				"(gtid_seq_no was set, or a filter dropped transactions that the target must not have), allow gaps in the producer's configuration",
				Detail: fmt.Sprintf("%d transactions of domain %s are missing before it", n-last-1, source)}
		}
	} else if n != last+1 {
		if err := q.hole(ctx, id, source, n); err != nil {
			return err
		}
	}
	return q.seen.Add(id)
}

func (q *sequence) repeated(id string) error {
	h := &Halt{Code: HaltSplitBrain, GTID: id, Detail: "the binlog holds this GTID again, after it was read once"}
	h.Remedy = "two servers committed under one identity, or the binlog was edited: find out which content is right, and re-seed the other side"
	if q.flavor == server.MariaDB {
		h.Detail = "its number is not above its domain's last one"
		h.Remedy += "; set gtid_strict_mode=ON, which refuses such transactions"
	}
	return h
}

// hole looks at the numbers below n that are not there.
func (q *sequence) hole(ctx context.Context, id, source string, n uint64) error {
	if n == 1 {
		return nil
	}
	below, err := gtid.Parse(gtid.MySQL, source+":1-"+strconv.FormatUint(n-1, 10))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	missing := below.Minus(q.seen)
	if missing.IsEmpty() {
		return nil
	}
	done, err := q.executed(ctx)
	if err != nil {
		return fmt.Errorf("ask for gtid_executed: %w", err)
	}
	late := missing.Minus(missing.Minus(done)).Minus(q.coming)
	if late.IsEmpty() {
		return nil
	}
	lost, err := q.absent(ctx, q.seen, late)
	if err != nil {
		return err
	}
	if lost.IsEmpty() {
		return q.coming.Union(late)
	}
	return &Halt{
		Code: HaltGap, GTID: id,
		Detail: fmt.Sprintf("the server has executed %s, and its binlog goes on without them", clip(lost.String())),
		Remedy: remedySnapshot,
	}
}

// splitGTID gives the source and the number.
func splitGTID(f server.Flavor, id string) (source string, n uint64, err error) {
	if f == server.MariaDB {
		g, err := parseMariaGTID(id)
		return strconv.FormatUint(uint64(g.domain), 10), g.n, err
	}
	i := strings.LastIndexByte(id, ':')
	if i < 0 {
		return "", 0, fmt.Errorf("%q: %w", id, gtid.ErrInvalid)
	}
	n, err = strconv.ParseUint(id[i+1:], 10, 64)
	if err != nil || n == 0 {
		return "", 0, errors.Join(fmt.Errorf("%q: %w", id, gtid.ErrInvalid), err)
	}
	return id[:i], n, nil
}
