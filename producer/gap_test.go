package producer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/node/nodetest"
	"github.com/twinspan/twinspan/producer/binlog"
)

// half is a cluster of which a2 and b1 hear nothing since a moment: what came after
// it is on a1 and b2 only.
type half struct {
	*nodetest.Cluster
	t      *testing.T
	writer log.Writer
	own    *client.Client
}

func newHalf(t *testing.T) *half {
	t.Helper()
	return newHalfRolled(t, time.Minute)
}

// newHalfRolled has a writer that goes on without who does not answer for so long.
func newHalfRolled(t *testing.T, after time.Duration) *half {
	t.Helper()
	h := &half{t: t, Cluster: nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2", "cw"}})}
	h.own = h.Client("a", func(c *client.Config) { c.RollAfter, c.RollEvery = after, after })
	var err error
	if h.writer, err = h.own.OpenWriter(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *half) add(d log.Draft) log.Offset {
	h.t.Helper()
	o, err := h.writer.Append(h.t.Context(), d)
	if err == nil {
		_, err = h.writer.Wait(h.t.Context(), o)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return o
}

// transaction appends one, or a part of it that is not its end.
func (h *half) transaction(n int, set string, ends bool) log.Offset {
	h.t.Helper()
	b := change.NewBatchWriter(0)
	b.Begin(fmt.Sprintf("%s:%d", tailUUID, n), time.Now(), 1, false)
	b.End(!ends)
	return h.add(log.Draft{Topic: log.TopicData, EndsTransaction: ends, Payload: b.Finish(set, change.Source{Flavor: gtid.MySQL})})
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

func tailOf(t *testing.T, l log.Log, b log.Bounds, want string) gtid.Set {
	t.Helper()
	set, err := readTail(t.Context(), l, "s", b, gtid.MySQL)
	if err != nil || set.String() != want {
		t.Fatalf("the tail of %+v tells %s, want %s: %v", b, set, want, err)
	}
	return set
}

// TestTailBehindGap: what a log lost is not in the set from which its next producer
// reads on, so it is shipped again; once it was, the tail behind the gap tells all.
func TestTailBehindGap(t *testing.T) {
	h := newHalf(t)
	h.transaction(1, tailUUID+":1", true)
	lso := h.transaction(2, "", true)
	kept := h.transaction(3, "", false) // a part, whose end is lost
	h.split(kept)
	h.transaction(4, "", true)
	h.transaction(5, tailUUID+":1-5", true)
	f := h.lose()
	if f.Last != kept {
		t.Fatalf("%+v, kept should be up to %d", f, kept)
	}

	l := h.Client("a", nil)
	w, err := l.OpenWriter(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	if b := w.Bounds(); b.LSO != lso || b.LAC != f.LostTo {
		t.Fatalf("%+v", b)
	}
	set := tailOf(t, l, w.Bounds(), tailUUID+":1-2")
	// A producer that dies having written table versions only leaves the same tail.
	h.writer = w
	h.add(log.Draft{Topic: log.TopicSchema, Payload: []byte("a table version")})
	tailOf(t, l, w.Bounds(), tailUUID+":1-2")

	// What the next one ships, in a part of a transaction first.
	ctx, cancel := context.WithCancel(t.Context())
	batch := newBatcher(ctx, gtid.MySQL, 1<<10, 2<<10)
	pipe := &pipeline{writer: w, batch: batch, delay: time.Millisecond, held: set.Clone(), setFirst: true,
		sent: func(time.Time) {}, note: func(flight, log.Ack) {}}
	done := make(chan error, 1)
	go func() { done <- pipe.run(ctx) }()
	if err := feed(batch, 2, []plan{{rows: []int{900, 3000, 900}}, {rows: []int{10}}, {}}); err != nil {
		t.Fatal(err)
	}
	h.Until("all is shipped again", func() bool {
		b := w.Bounds()
		if b.LSO <= f.LostTo {
			return false
		}
		set, err := readTail(t.Context(), l, "s", b, gtid.MySQL)
		return err == nil && set.String() == tailUUID+":1-5"
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// burn closes the first segment on a1 and b2, without a2 and b1, and takes those two
// their disks. The operator gives up what only they had.
func (h *half) burn() (upto, lostTo log.Offset) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), nodetest.Patience)
	defer cancel()
	h.Until("the writer has gone on without a2 and b1", func() bool {
		st, err := h.own.Metadata().Stream(ctx, "s")
		return err == nil && len(st.Segments) == 2
	})
	_ = h.own.Close() // the writer dies with its client
	h.Stop("a1")
	h.Stop("b2")
	h.Rejoin("a2")
	h.Rejoin("b1")
	l := h.Client("a", nil)
	for _, name := range []string{"a1", "b2"} {
		h.Until(name+" is given up", func() bool {
			nodes, err := l.Metadata().Nodes(ctx)
			if err != nil {
				return false
			}
			lose := meta.Losing{Stream: "s", Segment: 1}
			for _, left := range []string{"a2", "b1"} {
				a, err := h.Node(left).Left(ctx, node.LeftQuestion{Stream: "s", Segments: []uint32{1}})
				if err != nil {
					return false
				}
				for _, x := range a.Segments {
					lose.Left = append(lose.Left, x.Left)
				}
			}
			i := slices.IndexFunc(nodes, func(n meta.Node) bool { return n.Name == name })
			if i < 0 {
				return true // done before, and not known
			}
			_, err = l.Metadata().Do(ctx, meta.Command{Forget: &meta.Forget{Node: name, UUID: nodes[i].UUID, Lose: []meta.Losing{lose}}, By: "test", Reason: "burnt"})
			return err == nil
		})
	}
	f, err := l.ForceClose(ctx, "s", client.Force{By: "test", Reason: "burnt"})
	if err != nil {
		h.t.Fatal(err)
	}
	page, err := l.Metadata().Segments(ctx, "s", 1, 1)
	if err != nil || len(page) != 1 {
		h.t.Fatalf("%+v, %v", page, err)
	}
	return page[0].Left(), f.LostTo
}

// TestTailInAGap: the newest transaction that the log ever held is in what it lost.
// Its next producer reads on from the set before that.
func TestTailInAGap(t *testing.T) {
	for name, kept := range map[string]func(*half) (last log.Offset, set string){
		"a whole transaction and a part of one are left": func(h *half) (last log.Offset, set string) {
			h.transaction(1, tailUUID+":1", true)
			for range 40 { // more than are read at first
				last = h.transaction(2, "", false)
			}
			return last, tailUUID + ":1"
		},
		"nothing is left": func(*half) (log.Offset, string) { return log.None, "" },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHalfRolled(t, 2*time.Second)
			last, set := kept(h)
			if last == log.None {
				h.Isolate("a2")
				h.Isolate("b1")
			} else {
				h.split(last)
			}
			for n := range 20 {
				h.transaction(3+n, "", true)
			}
			upto, to := h.burn()
			if upto != last {
				t.Fatalf("left is what is up to %d, not %d", upto, last)
			}
			l := h.Client("b", nil)
			b, err := l.Bounds(t.Context(), "s")
			if err != nil || b.LSO <= upto || b.LSO > to {
				t.Fatalf("%+v, %v: its newest end of a transaction should be lost", b, err)
			}
			if last == log.None {
				if _, err := readTail(t.Context(), l, "s", b, gtid.MySQL); !errors.Is(err, errNoTail) {
					t.Fatalf("the tail of a log that lost all: %v", err)
				}
				return
			}
			tailOf(t, l, b, set)
			if h.writer, err = l.OpenWriter(t.Context(), "s"); err != nil {
				t.Fatal(err)
			}
			tailOf(t, l, h.writer.Bounds(), set)
			h.transaction(7, tailUUID+":1-7", true)
			tailOf(t, l, h.writer.Bounds(), tailUUID+":1-7")
		})
	}
}

// TestTailAllLost: a stream that lost its first entry does not say any more where it
// began. Only a start that means the same again is taken.
func TestTailAllLost(t *testing.T) {
	h := newHalf(t)
	h.Isolate("a2")
	h.Isolate("b1")
	h.transaction(1, tailUUID+":1", true)
	f := h.lose()
	b, err := h.Client("a", nil).Bounds(t.Context(), "s")
	if err != nil || b.LSO != log.None || b.LAC != f.LostTo {
		t.Fatalf("%+v, %v", b, err)
	}
	for start, want := range map[string]bool{StartCurrent: false, StartEarliest: true, tailUUID + ":1-7": true} {
		err := beginAgain(start)
		if h := binlog.AsHalt(err); want != (err == nil) || err != nil && (h == nil || h.Code != binlog.HaltGap || h.Remedy == "") {
			t.Errorf("start %s: %v", start, err)
		}
	}
}
