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
	// Gaps are the losses on record that were passed. What a producer ships again
	// behind one stands where the binlog has it; what it does not is Lost.
	Gaps []log.LostError
}

// Equal: the log has every transaction once and in order, whatever gaps it has.
func (a Audit) Equal() bool {
	return len(a.Lost)+len(a.Doubled)+len(a.Disorder)+len(a.Unknown) == 0
}

// AuditLog reads the whole data topic with nothing but an Avro library, and
// compares the GTIDs in it with executed, the source's own GTID set as text, and
// with the order of the source's binlog. Losses that the log has on record are
// passed, and told.
func AuditLog(ctx context.Context, l log.Log, stream string, mariadb bool, executed string, order []string) (Audit, error) {
	want, err := enumerate(executed, mariadb)
	if err != nil {
		return Audit{}, err
	}
	codec, err := goavro.NewCodec(schema.BatchSchema)
	if err != nil {
		return Audit{}, err
	}
	bounds, err := l.Bounds(ctx, stream)
	if err != nil {
		return Audit{}, err
	}
	if bounds.First != 0 {
		return Audit{}, fmt.Errorf("the log begins at %d: what was before cannot be audited", bounds.First)
	}
	o := auditor{codec: codec, want: want, order: order, place: make(map[string]int, len(order)), seen: map[string]int{}, last: -1}
	for i, id := range order {
		o.place[id] = i
	}
	for from := log.Offset(0); from <= bounds.LSO; {
		err := o.read(ctx, l, stream, from, bounds.LSO)
		var lost *log.LostError
		if errors.As(err, &lost) && lost.To >= from {
			o.Gaps = append(o.Gaps, *lost)
			from = lost.To + 1
			continue
		}
		if err != nil {
			return o.Audit, err
		}
		break
	}
	for id := range want {
		if o.seen[id] == 0 {
			o.Lost = append(o.Lost, id)
		}
	}
	slices.Sort(o.Lost)
	return o.Audit, nil
}

// auditor is an audit under way.
type auditor struct {
	Audit
	codec *goavro.Codec
	want  map[string]bool
	order []string       // of the binlog
	place map[string]int // in order
	seen  map[string]int // how often
	last  int            // the place of the newest one
	// open is the transaction whose later parts are still to come.
	open     string
	openRows int64
}

// read takes the entries from an offset up to the end; it stops with a log.LostError
// at a gap.
func (o *auditor) read(ctx context.Context, l log.Log, stream string, from, end log.Offset) error {
	reader, err := l.OpenReader(ctx, stream, log.ReaderOptions{From: from, Topics: []log.Topic{log.TopicData}, Committed: true})
	if err != nil {
		return err
	}
	for at := log.None; at < end; {
		// The last data entry may stand before the LSO: schema entries come between.
		e, err := nextBefore(ctx, reader, end)
		if errors.Is(err, errEnd) {
			break
		}
		if err == nil {
			at, err = e.Offset, o.entry(e)
		}
		if err != nil {
			return errors.Join(err, reader.Close())
		}
	}
	return reader.Close()
}

// entry audits one batch.
func (o *auditor) entry(e log.Entry) error {
	native, rest, err := o.codec.NativeFromBinary(e.Payload)
	if err != nil || len(rest) > 0 {
		return fmt.Errorf("entry %d: %d bytes left over: %w", e.Offset, len(rest), err)
	}
	for _, v := range native.(map[string]any)["transactions"].([]any) {
		t := v.(map[string]any)
		id, rows := t["gtid"].(string), int64(len(t["rows"].([]any)))
		if t["continues"].(bool) {
			if id != o.open {
				o.Disorder = append(o.Disorder, fmt.Sprintf("entry %d continues %s while %q is open", e.Offset, id, o.open))
			}
			rows += o.openRows
		}
		// A part that was never completed is void: its writer died.
		o.open, o.openRows = "", 0
		if t["continued"].(bool) {
			o.open, o.openRows = id, rows
			continue
		}
		o.transaction(id, rows)
	}
	return nil
}

// transaction audits a complete one.
func (o *auditor) transaction(id string, rows int64) {
	o.Transactions++
	o.Rows += rows
	o.seen[id]++
	if o.seen[id] == 2 {
		o.Doubled = append(o.Doubled, id)
	}
	if !o.want[id] {
		o.Unknown = append(o.Unknown, id)
	}
	at, ok := o.place[id]
	if !ok {
		o.Disorder = append(o.Disorder, id+" is not in the binlog")
		return
	}
	if at < o.last && o.seen[id] == 1 {
		o.Disorder = append(o.Disorder, id+" after "+o.order[o.last])
	}
	o.last = at
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
