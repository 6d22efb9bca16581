package harness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linkedin/goavro/v2"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// Audit is what a log holds against what a source committed.
type Audit struct {
	Transactions int64 // complete ones in the log
	Rows         int64 // row changes in them
	Lost         []string
	Doubled      []string
	Disorder     []string // not where the source's binlog has it
	Unknown      []string // in the log, but never committed by the source
}

// Equal: the log has every transaction once and in order.
func (a Audit) Equal() bool {
	return len(a.Lost)+len(a.Doubled)+len(a.Disorder)+len(a.Unknown) == 0
}

// AuditLog reads the whole data topic with nothing but an Avro library, and
// compares the GTIDs in it with executed, the source's own GTID set as text, and
// with the order of the source's binlog.
func AuditLog(ctx context.Context, l log.Log, stream string, mariadb bool, executed string, order []string) (Audit, error) {
	var a Audit
	want, err := enumerate(executed, mariadb)
	if err != nil {
		return a, err
	}
	codec, err := goavro.NewCodec(schema.BatchSchema)
	if err != nil {
		return a, err
	}
	bounds, err := l.Bounds(ctx, stream)
	if err != nil {
		return a, err
	}
	if bounds.First != 0 {
		return a, fmt.Errorf("the log begins at %d: what was before cannot be audited", bounds.First)
	}
	reader, err := l.OpenReader(ctx, stream, log.ReaderOptions{Topics: []log.Topic{log.TopicData}, Committed: true})
	if err != nil {
		return a, err
	}
	seen := map[string]int{}
	place := make(map[string]int, len(order))
	for i, id := range order {
		place[id] = i
	}
	last := -1
	var open string // the transaction whose later parts are still to come
	var openRows int64
	for at := log.None; at < bounds.LSO; {
		// The last data entry may stand before the LSO: schema entries come between.
		e, err := nextBefore(ctx, reader, bounds.LSO)
		if errors.Is(err, errEnd) {
			break
		}
		if err != nil {
			return a, errors.Join(err, reader.Close())
		}
		at = e.Offset
		native, rest, err := codec.NativeFromBinary(e.Payload)
		if err != nil || len(rest) > 0 {
			return a, errors.Join(fmt.Errorf("entry %d: %d bytes left over: %w", e.Offset, len(rest), err), reader.Close())
		}
		for _, v := range native.(map[string]any)["transactions"].([]any) {
			t := v.(map[string]any)
			id, rows := t["gtid"].(string), int64(len(t["rows"].([]any)))
			if t["continues"].(bool) {
				if id != open {
					a.Disorder = append(a.Disorder, fmt.Sprintf("entry %d continues %s while %q is open", e.Offset, id, open))
				}
				rows += openRows
			}
			// A part that was never completed is void: its writer died.
			open, openRows = "", 0
			if t["continued"].(bool) {
				open, openRows = id, rows
				continue
			}
			a.Transactions++
			a.Rows += rows
			seen[id]++
			if seen[id] == 2 {
				a.Doubled = append(a.Doubled, id)
			}
			if !want[id] {
				a.Unknown = append(a.Unknown, id)
			}
			if at, ok := place[id]; !ok {
				a.Disorder = append(a.Disorder, id+" is not in the binlog")
			} else {
				if at < last && seen[id] == 1 {
					a.Disorder = append(a.Disorder, id+" after "+order[last])
				}
				last = at
			}
		}
	}
	if err := reader.Close(); err != nil {
		return a, err
	}
	for id := range want {
		if seen[id] == 0 {
			a.Lost = append(a.Lost, id)
		}
	}
	slices.Sort(a.Lost)
	return a, nil
}

// auditPatience is how long the end of the log may stay silent.
const auditPatience = 3 * time.Second

var errEnd = errors.New("no more entries")

// nextBefore waits for no entry beyond what was confirmed when the audit began.
func nextBefore(ctx context.Context, r log.Reader, lso log.Offset) (log.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, auditPatience)
	defer cancel()
	e, err := r.Next(ctx)
	if errors.Is(err, context.DeadlineExceeded) || err == nil && e.Offset > lso {
		return e, errEnd
	}
	return e, err
}

// enumerate lists the GTIDs of a set. A MariaDB position names the last one of a
// domain: those before it are taken to be the same server's.
func enumerate(text string, mariadb bool) (map[string]bool, error) {
	all := map[string]bool{}
	add := func(source, cut string, from, to uint64) {
		for n := from; n <= to; n++ {
			all[source+cut+strconv.FormatUint(n, 10)] = true
		}
	}
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' || r == ' ' }) {
		if mariadb {
			i := strings.LastIndex(part, "-")
			n, err := strconv.ParseUint(part[i+1:], 10, 64)
			if i < 0 || err != nil {
				return nil, fmt.Errorf("GTID position %q", part)
			}
			add(part[:i], "-", 1, n)
			continue
		}
		fields := strings.Split(part, ":")
		source := fields[0]
		for _, f := range fields[1:] {
			first, lastOf, isRange := strings.Cut(f, "-")
			from, err := strconv.ParseUint(first, 10, 64)
			if err != nil { // a tag: the intervals behind it are the tag's
				source = fields[0] + ":" + f
				continue
			}
			to := from
			if isRange {
				if to, err = strconv.ParseUint(lastOf, 10, 64); err != nil {
					return nil, fmt.Errorf("GTID set %q: %w", part, err)
				}
			}
			add(source, ":", from, to)
		}
	}
	return all, nil
}
