package consumer

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node/nodetest"
)

// half is a real log in two cities, of which a2 and b1 hear nothing since a moment:
// what was confirmed after it is on a1 and b2 only, and lost with their disks.
type half struct {
	*nodetest.Cluster
	t      *testing.T
	writer log.Writer
	own    *client.Client
}

func newHalf(t *testing.T) *half {
	t.Helper()
	h := &half{t: t, Cluster: nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2", "cw"}})}
	h.own = h.Client("a", func(c *client.Config) { c.RollAfter, c.RollEvery = time.Minute, time.Minute })
	h.open(h.own)
	var m memlog
	m.grew = make(chan struct{})
	m.schema(t)
	h.add(log.TopicSchema, true, m.entries[0].Payload)
	return h
}

func (h *half) open(l log.Log) {
	h.t.Helper()
	var err error
	if h.writer, err = l.OpenWriter(h.t.Context(), "s"); err != nil {
		h.t.Fatal(err)
	}
}

func (h *half) add(topic log.Topic, ends bool, payload []byte) log.Offset {
	h.t.Helper()
	o, err := h.writer.Append(h.t.Context(), log.Draft{Topic: topic, EndsTransaction: ends, Payload: payload})
	if err == nil {
		_, err = h.writer.Wait(h.t.Context(), o)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return o
}

func (h *half) batch(set string, ts ...change.Transaction) log.Offset {
	h.t.Helper()
	b, err := change.AppendBatch(nil, &change.Batch{GTIDSet: set, Source: change.Source{Flavor: gtid.MySQL}, Transactions: ts})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.add(log.TopicData, !ts[len(ts)-1].Continued, b)
}

// split waits until all nodes have the offset, and lets a2 and b1 hear no more.
func (h *half) split(o log.Offset) {
	h.t.Helper()
	h.Until("all have it", func() bool {
		for _, name := range []string{"a1", "a2", "b1", "b2"} {
			if r := h.Node(name).Status().Replicas; len(r) != 1 || r[0].Last < o {
				return false
			}
		}
		return true
	})
	h.Isolate("a2")
	h.Isolate("b1")
}

// lose takes a1 and b2 their disks, and the operator accepts that.
func (h *half) lose() *client.Forced {
	h.t.Helper()
	_ = h.own.Close() // the writer dies with its client
	h.Rejoin("a2")
	h.Rejoin("b1")
	h.LoseDisks("a1", "b2")
	f, err := h.Client("a", nil).ForceClose(h.t.Context(), "s", client.Force{By: "test", Reason: "two disks"})
	if err != nil {
		h.t.Fatal(err)
	}
	if !f.Lost {
		h.t.Fatalf("nothing was lost: %+v", f)
	}
	return f
}

// seek is what an operator's cursor seek does.
func (h *half) seek(l log.Log, o log.Offset) {
	h.t.Helper()
	if err := l.StoreCursor(h.t.Context(), "s", log.Cursor{Group: "g", Offset: o}); err != nil {
		h.t.Fatal(err)
	}
}

// target is a sink that knows what it has, as an applier does.
type target struct {
	*sink
	at  change.Place
	set gtid.Set
}

func newTarget() *target {
	return &target{sink: newSink(), at: change.Place{Offset: log.None}, set: gtid.New(gtid.MySQL)}
}

func (s *target) Apply(ctx context.Context, first change.Place, t *change.Transaction, held string) error {
	if err := s.sink.Apply(ctx, first, t, held); err != nil || t.Continued {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	first.Index += int32(len(t.Rows))
	if first.Compare(s.at) <= 0 {
		return nil
	}
	s.at = first
	return s.set.Add(t.GTID)
}

func (s *target) Durable() (change.Place, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at, s.set.String()
}

// again is the target as its next consumer finds it.
func (s *target) again() *target {
	next := newTarget()
	next.at, next.set, next.resume = s.at, s.set.Clone(), s.at
	return next
}

func (s *target) numbers() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.ReplaceAll(strings.Join(s.ends, " "), uuid+":", "")
}

// reading is a consumer that runs.
type reading struct {
	t    *testing.T
	c    *Consumer
	stop func()
}

func read(t *testing.T, l log.Log, s Sink) *reading {
	t.Helper()
	c, err := New(Config{Stream: "s", Group: "g", CursorInterval: 20 * time.Millisecond, RetryMax: 50 * time.Millisecond}, l, s, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stopped := false
	r := &reading{t: t, c: c, stop: func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}}
	t.Cleanup(r.stop)
	return r
}

func (r *reading) until(what string, holds func(Status) bool) {
	r.t.Helper()
	for end := time.Now().Add(nodetest.Patience); ; time.Sleep(5 * time.Millisecond) {
		st := r.c.Status(r.t.Context())
		if holds(st) {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("still not so: %s: %+v, halt %+v", what, st, st.Halt)
		}
	}
}

func (r *reading) halts(code Code, remedy ...string) {
	r.t.Helper()
	r.until("it halts with "+string(code), func(s Status) bool { return s.Halt != nil && s.Halt.Code == code && s.Halt.Tries > 2 })
	h := r.c.Status(r.t.Context()).Halt
	for _, want := range remedy {
		if !strings.Contains(h.Remedy, want) {
			r.t.Errorf("%q is missing in the remedy: %s", want, h.Remedy)
		}
	}
}

// TestGap: a consumer that has applied nothing of what the log lost stops before the
// gap, tells what to do, and takes what is shipped again once that was done.
func TestGap(t *testing.T) {
	h := newHalf(t)
	h.batch(uuid+":1", tx(1, 0, 2))
	h.batch("", tx(2, 2, 2), part(tx(3, 4, 3), 0, 1))
	// The last entry that is left is of a topic that a consumer does not read.
	kept := h.add(log.TopicExceptions, false, []byte("parked"))
	h.split(kept)
	h.batch("", part(tx(3, 4, 3), 1, 3))
	h.batch(uuid+":1-4", tx(4, 7, 1))
	f := h.lose()
	if f.Last != kept {
		t.Fatalf("%+v, kept should be up to %d", f, kept)
	}
	l := h.Client("b", nil)
	s := newTarget()
	r := read(t, l, s)
	// Nothing behind the gap yet: the part before it is not known to be void.
	h.open(h.Client("a", nil))
	again := h.batch(uuid+":1-3", tx(3, 4, 3))
	h.batch("", tx(4, 7, 1))
	if again != f.LostTo+1 {
		t.Fatalf("entry %d behind the gap up to %d", again, f.LostTo)
	}
	r.halts(CodeLost, fmt.Sprintf("twinspan cursor seek g --to %d", f.LostTo), "--yes --reason")
	if got := s.numbers(); got != "1 2" {
		t.Errorf("before the gap: %s", got)
	}
	if st := r.c.Status(t.Context()); st.Behind != int64(kept-st.Next)+1+2 { // two are behind the gap
		t.Errorf("%d behind: it stands at %d, before a gap from %d to %d, and the log ends at %d", st.Behind, st.Next, kept+1, f.LostTo, st.LSO)
	}
	// Not behind all of it: that is no word.
	h.seek(l, f.LostTo-1)
	tries := r.c.Status(t.Context()).Halt.Tries
	r.until("it has looked again", func(st Status) bool { return st.Halt != nil && st.Halt.Tries > tries+1 })
	// And after a restart it stands there again.
	r.stop()
	s = s.again()
	r = read(t, l, s)
	r.halts(CodeLost)
	h.seek(l, f.LostTo)
	r.until("it goes on", func(st Status) bool { return st.Halt == nil && s.numbers() == "3 4" })
	r.stop()
	// Behind the gap a consumer knows its place as anywhere.
	s = s.again()
	r = read(t, l, s)
	h.batch("", tx(5, 8, 1))
	r.until("it goes on behind", func(st Status) bool { return st.Halt == nil && s.numbers() == "5" })
	r.stop()
	if s.problem != nil {
		t.Error(s.problem)
	}
}

// TestGapHides: what was lost and is not shipped again is found missing behind the
// gap, also by a consumer that was started just before it and met no set.
func TestGapHides(t *testing.T) {
	h := newHalf(t)
	h.batch(uuid+":1", tx(1, 0, 2))
	kept := h.batch("", tx(2, 2, 2))
	s := newTarget()
	r := read(t, h.Client("b", nil), s)
	r.until("it has read all", func(Status) bool { return s.numbers() == "1 2" })
	r.stop()
	h.split(kept)
	h.batch("", tx(3, 7, 1))
	f := h.lose()
	h.open(h.Client("a", nil))
	h.batch(uuid+":1-4", tx(4, 8, 1)) // without 3
	l := h.Client("b", nil)
	s = s.again()
	r = read(t, l, s)
	r.halts(CodeLost)
	h.seek(l, f.LostTo)
	r.halts(CodeMismatch)
	if got := s.numbers(); got != "" {
		t.Errorf("applied: %s", got)
	}
}

// TestGapBegun: a target that has something of what the log lost would be given it
// twice. Nobody's word leads over that gap.
func TestGapBegun(t *testing.T) {
	for name, last := range map[string]func(*half){
		"whole transactions": func(h *half) { h.batch("", tx(3, 4, 1)) },
		"a transaction whose end was lost too": func(h *half) {
			h.batch("", part(tx(3, 4, 3), 1, 2))
			h.batch("", part(tx(3, 4, 3), 2, 3))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHalf(t)
			h.batch(uuid+":1", tx(1, 0, 2))
			kept := h.batch("", tx(2, 2, 2))
			if strings.Contains(name, "end") {
				kept = h.batch("", part(tx(3, 4, 3), 0, 1))
			}
			h.split(kept)
			last(h)
			l := h.Client("b", nil)
			s := newTarget()
			r := read(t, l, s)
			r.until("it has read all", func(Status) bool { return s.numbers() == "1 2 3" })
			f := h.lose()
			h.seek(l, f.LostTo)
			r.halts(CodeLost, "begin a new stream", "producer.start")
			// After a restart too, whether or not something stands behind the gap.
			r.stop()
			s = s.again()
			r = read(t, l, s)
			r.halts(CodeLost, "begin a new stream")
			r.stop()
			h.open(h.Client("a", nil))
			h.batch(uuid+":1-3", tx(3, 4, 3))
			s = s.again()
			r = read(t, l, s)
			r.halts(CodeLost, "begin a new stream")
			r.stop()
			if got := s.numbers(); got != "" {
				t.Errorf("applied again: %s", got)
			}
		})
	}
}

// TestGapBreaks: behind the gap stands the end of a transaction whose beginning was
// lost. A consumer that has read nothing since it was started must not take it for one
// that the target has the beginning of.
func TestGapBreaks(t *testing.T) {
	h := newHalf(t)
	h.split(0) // a table version
	h.batch("", part(tx(1, 0, 3), 0, 2))
	f := h.lose()
	h.open(h.Client("a", nil))
	h.batch("", part(tx(1, 0, 3), 2, 3))
	l := h.Client("b", nil)
	s := newTarget()
	r := read(t, l, s)
	r.halts(CodeLost)
	h.seek(l, f.LostTo)
	r.halts(CodeRun)
	r.stop()
	if len(s.order) > 0 {
		t.Errorf("applied: %v", s.order)
	}
}

// TestGapTrimmed: the loss is accepted while the consumer is stopped, and retention
// takes all that is before the cursor, with the entry at which the target stands. It
// is told so, whether the log begins with the gap or behind it: it is the log that
// the target was fed from, and what is missing can't be known any more.
func TestGapTrimmed(t *testing.T) {
	h := newHalf(t)
	h.batch(uuid+":1", tx(1, 0, 2))
	kept := h.batch("", tx(2, 2, 2))
	s := newTarget()
	r := read(t, h.Client("b", nil), s)
	r.until("it has read all", func(Status) bool { return s.numbers() == "1 2" })
	r.stop()
	h.split(kept)
	h.batch("", tx(3, 7, 1))
	f := h.lose()
	l := h.Client("b", nil)
	trimmed := func(before, first log.Offset) {
		t.Helper()
		h.seek(l, before-1)
		h.Until("retention", func() bool {
			_, err := l.Metadata().Do(t.Context(), meta.Command{Trim: &meta.Trim{Stream: "s", Before: before}, Now: time.Now().UTC()})
			st, readErr := l.Metadata().Stream(t.Context(), "s")
			return err == nil && readErr == nil && st.First == first
		})
		s = s.again()
		r = read(t, l, s)
		r.halts(CodeTrimmed, "log.nodes", "cursor of g", fmt.Sprintf("behind entry %d", kept), "seed the target anew", "producer.start")
		r.stop()
		if got := s.numbers(); got != "" {
			t.Errorf("applied: %s", got)
		}
	}
	var last log.Offset
	for i, set := range []string{uuid + ":1-3", uuid + ":1-4", uuid + ":1-5"} { // each closes the segment before
		own := h.Client("a", nil)
		h.open(own)
		o := h.batch(set, tx(3+i, 7+i, 1))
		if i == 0 {
			last = o
		}
		if i < 2 {
			_ = own.Close() // its successor fences it
		}
	}
	trimmed(f.LostTo+1, kept+1)
	trimmed(last+1, last+1)
}
