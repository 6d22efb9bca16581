package producer

import (
	"context"
	"errors"
	"fmt"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/producer/binlog"
)

var (
	// errNoSet: the entries that are kept do not say what the log holds.
	errNoSet = errors.New("no entry that is kept tells the log's GTID set")
	// errNoTail: there is a tail no more, and nothing that says where the log began.
	errNoTail = errors.New("the log lost everything that it held")
)

// tailFirst is how many entries are read at first when looking for the set.
const tailFirst = 16

// readTail finds which transactions the log holds in full: the newest set that
// a batch tells, and what came after it. It reads entries up to the LSO only;
// beyond it there are parts of a transaction whose writer died, which readers
// discard.
//
// Where the newest transactions are lost it is what the log holds before the gap: they
// are shipped again, behind it.
//
// It reads forwards from ever further back, so what it reads in all is at most a
// small multiple of the distance to the newest set, which the writer bounds (see
// setShare).
func readTail(ctx context.Context, l log.Log, stream string, b log.Bounds, flavor server.Flavor) (gtid.Set, error) {
	if b.LSO == log.None {
		return gtid.New(string(flavor)), nil
	}
	for back := log.Offset(tailFirst); ; back *= 4 {
		from := max(b.First, b.LSO-back+1)
		set, found, err := readRange(ctx, l, stream, from, b.LSO, flavor)
		var lost *log.LostError
		switch {
		case errors.As(err, &lost) && lost.To < b.LSO:
			b.First = lost.To + 1 // what was written behind a gap began with a whole set
			continue
		case lost != nil && lost.From == 0:
			return gtid.Set{}, errNoTail
		case lost != nil && lost.From > b.First:
			b.LSO, back = lost.From-1, tailFirst/4
			continue
		case lost != nil:
			return gtid.Set{}, fmt.Errorf("%s lost its newest entries from %d on, and the ones before are no longer kept: %w", stream, lost.From, errNoSet)
		}
		if err != nil {
			return gtid.Set{}, fmt.Errorf("read the tail of %s from %d: %w", stream, from, err)
		}
		if found || from == 0 {
			return set, nil
		}
		if from <= b.First {
			return gtid.Set{}, fmt.Errorf("%s from %d to %d: %w", stream, b.First, b.LSO, errNoSet)
		}
	}
}

// readRange collects the GTIDs of entries from and to included, or up to the newest
// whole transaction before a loss that begins behind to. found tells that one of them
// had a whole set.
func readRange(ctx context.Context, l log.Log, stream string, from, to log.Offset, flavor server.Flavor) (set gtid.Set, found bool, err error) {
	set = gtid.New(string(flavor))
	if from > to {
		return set, false, nil
	}
	r, err := l.OpenReader(ctx, stream, log.ReaderOptions{From: from, Committed: true})
	if endsBehind(err, to) {
		return set, false, nil
	}
	if err != nil {
		return set, false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		e, err := r.Next(ctx)
		if endsBehind(err, to) {
			return set, found, nil
		}
		if err != nil {
			return set, false, err
		}
		if e.Topic == log.TopicData {
			here, err := addBatch(&set, e.Payload, flavor)
			if err != nil {
				return set, false, fmt.Errorf("entry %d: %w", e.Offset, err)
			}
			found = found || here
		}
		if e.Offset >= to {
			return set, found, nil
		}
	}
}

// endsBehind says that a reader came to a loss which begins behind an offset: of a
// transaction whose end is in it nothing is read.
func endsBehind(err error, to log.Offset) bool {
	var lost *log.LostError
	return errors.As(err, &lost) && lost.From > to
}

// addBatch adds a batch's whole transactions; where the batch tells a set, that
// replaces what was gathered.
func addBatch(set *gtid.Set, payload []byte, flavor server.Flavor) (told bool, err error) {
	b, err := change.NewBatchReader(payload, nil)
	if err != nil {
		return false, err
	}
	if f := b.Source().Flavor; f != "" && f != string(flavor) {
		return false, fmt.Errorf("the log is of a %s set, and the server is %s", f, flavor)
	}
	if text := b.GTIDSet(); text != "" {
		*set, err = gtid.Parse(string(flavor), text)
		return true, err
	}
	for {
		var t change.Transaction
		more, err := b.Next(&t)
		if err != nil || !more {
			return false, err
		}
		// A last part follows its first parts without anything between, so
		// the transaction is whole.
		if !t.Continued {
			if err := set.Add(t.GTID); err != nil {
				return false, err
			}
		}
	}
}

// startSet is the set to begin an empty log with.
func startSet(start string, st binlog.State) (gtid.Set, error) {
	switch start {
	case StartCurrent:
		return st.Executed.Clone(), nil
	case StartEarliest:
		return st.Earliest()
	}
	set, err := gtid.Parse(string(st.Flavor), start)
	if err != nil {
		return set, &Halt{Code: binlog.HaltGap, Detail: fmt.Sprintf("start %q is no GTID set of %s", start, st.Flavor),
			Remedy: "give the set in the server's own spelling", Cause: err}
	}
	return set, nil
}

// beginAgain is an error when start means another place now than it did when the
// stream began, the record of which was lost: what lies between would be left out.
// A set is a set, and StartEarliest halts by itself where the server has not all.
func beginAgain(start string) error {
	if start != StartCurrent {
		return nil
	}
	return &Halt{Code: binlog.HaltGap, Detail: "the log lost its first entry, which said where it begins, and all that followed",
		Remedy: "producer.start is \"current\", which now is another place: set it to the GTID set that the target has applied, or was seeded at, and start the producer again"}
}
