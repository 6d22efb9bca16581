package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

func ctxOf(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func payload(o log.Offset) []byte {
	return append(fmt.Appendf(nil, "entry %d ", o), bytes.Repeat([]byte{byte(o)}, int(o)%200)...)
}

// load appends until it is stopped, and keeps what was acknowledged.
type load struct {
	w     log.Writer
	all   sync.WaitGroup
	stop  chan struct{} // closed by end
	acks  []log.Ack     // of offsets from 0 on
	worst time.Duration // longest wait for an acknowledgement
	err   error
}

func startLoad(t *testing.T, w log.Writer) *load {
	l := &load{w: w, stop: make(chan struct{})}
	next := w.Bounds().LAC + 1
	l.all.Go(func() {
		for {
			select {
			case <-l.stop:
				return
			default:
			}
			at := time.Now()
			o, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: payload(next)})
			if err == nil && o != next {
				err = fmt.Errorf("offset %d, want %d", o, next)
			}
			var a log.Ack
			if err == nil {
				a, err = w.Wait(ctxOf(t), o)
			}
			if err != nil {
				l.err = err
				return
			}
			l.worst = max(l.worst, time.Since(at))
			l.acks = append(l.acks, a)
			next++
			time.Sleep(time.Millisecond)
		}
	})
	return l
}

func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.all.Wait()
	if l.err != nil {
		t.Fatal(l.err)
	}
	if len(l.acks) == 0 {
		t.Fatal("nothing was acknowledged")
	}
}

// readAll checks entries up to the last one.
func readAll(t *testing.T, l log.Log, from, last log.Offset) {
	t.Helper()
	r, err := l.OpenReader(ctxOf(t), "s", log.ReaderOptions{From: from})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	for o := from; o <= last; o++ {
		e, err := r.Next(ctxOf(t))
		if err != nil {
			t.Fatalf("entry %d: %v", o, err)
		}
		if e.Offset != o || !bytes.Equal(e.Payload, payload(o)) {
			t.Fatalf("entry %d %q, want %d", e.Offset, e.Payload, o)
		}
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

func openWriter(t *testing.T, l log.Log) log.Writer {
	t.Helper()
	w, err := l.OpenWriter(ctxOf(t), "s")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestMembersComeAndGo breaks, freezes and stops members under load. Nothing is
// lost, and the writer goes on without waiting for long.
func TestMembersComeAndGo(t *testing.T) {
	for _, c := range []struct {
		name         string
		break_, mend func(n *memoryNode)
		rolls        bool // the break lasts long enough
		short        bool
	}{
		{"connections break", func(n *memoryNode) { n.cut() }, func(n *memoryNode) {}, false, true},
		{"frozen", func(n *memoryNode) { n.set(func(n *memoryNode) { n.frozen = true }) }, func(n *memoryNode) { n.set(func(n *memoryNode) { n.frozen = false }) }, true, false},
		{"slow", func(n *memoryNode) { n.set(func(n *memoryNode) { n.delay = 700 * time.Millisecond }) }, func(n *memoryNode) { n.set(func(n *memoryNode) { n.delay = 0 }) }, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := twoCities(t)
			l := k.client(nil)
			w := openWriter(t, l)
			load := startLoad(t, w)
			time.Sleep(50 * time.Millisecond)
			rolls := func() int64 { return l.Stats().Writers[0].Rolls }
			before := rolls()
			c.break_(k.node("b1"))
			if c.rolls {
				eventually(t, "roll", func() bool { return rolls() > before })
			} else {
				time.Sleep(200 * time.Millisecond)
			}
			c.mend(k.node("b1"))
			if !c.rolls {
				eventually(t, "resume", func() bool {
					s := l.Stats().Writers[0]
					for _, m := range s.Members {
						if m.State != "attached" {
							return false
						}
					}
					return s.Resumes > 0
				})
			}
			time.Sleep(100 * time.Millisecond)
			load.end(t)
			if load.worst > 5*time.Second {
				t.Errorf("an acknowledgement took %v", load.worst)
			}
			for _, a := range load.acks {
				if !a.Protected {
					t.Fatalf("entry %d is not protected", a.Offset)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			last := log.Offset(len(load.acks) - 1)
			readAll(t, l, 0, last)
			readAll(t, k.client(func(c *client.Config) { c.City = "b"; c.Name = "b" }), 0, last)
		})
	}
}

// TestCityGone stops both nodes of a city: the stream blocks, or goes on without
// protection and says so, and is protected again when the city is back.
func TestCityGone(t *testing.T) {
	freeze := func(k *cluster, f bool) {
		for _, n := range []string{"b1", "b2"} {
			k.node(n).set(func(n *memoryNode) { n.frozen = f })
		}
	}
	policy := func(loss meta.Loss) *meta.Policy {
		return &meta.Policy{Rule: quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}}, Loss: loss, After: 300 * time.Millisecond}
	}
	t.Run("block", func(t *testing.T) {
		k := twoCities(t)
		l := k.client(func(c *client.Config) { c.Policy = policy(meta.LossBlock) })
		w := openWriter(t, l)
		freezeAfter(t, w, func() { freeze(k, true) })
		o, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: payload(1)})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "blocked", func() bool { return l.Stats().Writers[0].Blocked != "" })
		short, cancel := context.WithTimeout(ctxOf(t), 500*time.Millisecond)
		defer cancel()
		if a, err := w.Wait(short, o); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%+v, %v without the other city", a, err)
		}
		freeze(k, false)
		if a, err := w.Wait(ctxOf(t), o); err != nil || !a.Protected {
			t.Fatalf("%+v, %v", a, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		readAll(t, l, 0, 1)
	})
	t.Run("degrade after", func(t *testing.T) {
		k := twoCities(t)
		l := k.client(func(c *client.Config) { c.Policy = policy(meta.LossDegradeAfter) })
		w := openWriter(t, l)
		freezeAfter(t, w, func() { freeze(k, true) })
		load := startLoad(t, w)
		eventually(t, "degraded", func() bool { s := l.Stats().Writers[0]; return !s.Protected && s.Blocked == "" })
		time.Sleep(200 * time.Millisecond)
		freeze(k, false)
		eventually(t, "restored", func() bool { return l.Stats().Writers[0].Protected })
		time.Sleep(50 * time.Millisecond)
		load.end(t)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		bare := 0
		for _, a := range load.acks {
			if !a.Protected {
				bare++
			}
		}
		if bare == 0 || !load.acks[len(load.acks)-1].Protected {
			t.Fatalf("%d of %d entries without protection", bare, len(load.acks))
		}
		st, err := l.Metadata().Stream(ctxOf(t), "s")
		if err != nil || len(st.Windows) == 0 {
			t.Fatalf("windows %+v, %v", st.Windows, err)
		}
		readAll(t, l, 0, log.Offset(len(load.acks)))
	})
}

// freezeAfter appends one entry, then does something.
func freezeAfter(t *testing.T, w log.Writer, f func()) {
	t.Helper()
	o, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: payload(0)})
	if err == nil {
		_, err = w.Wait(ctxOf(t), o)
	}
	if err != nil {
		t.Fatal(err)
	}
	f()
}

// TestBoundedMemory: a member that takes nothing is left out once the ring is
// full, long before it counts as slow, and comes back later.
func TestBoundedMemory(t *testing.T) {
	k := newCluster(t, place{"a1", "a"}, place{"a2", "a"}, place{"a3", "a"})
	const window, retain = 1 << 20, 2 << 20
	l := k.client(func(c *client.Config) {
		c.Policy = &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}
		c.WindowBytes, c.RetainBytes, c.RollAfter, c.RollEvery = window, retain, time.Minute, 10*time.Millisecond
		c.DialTimeout = 300 * time.Millisecond
	})
	w := openWriter(t, l)
	put(t, w, 0, 9)
	k.node("a3").set(func(n *memoryNode) { n.frozen = true })
	p := bytes.Repeat([]byte("x"), 64<<10)
	most := int64(0)
	var last log.Offset
	for range 800 {
		o, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: p})
		if err != nil {
			t.Fatal(err)
		}
		last = o
		most = max(most, l.Stats().Writers[0].RingBytes)
	}
	if _, err := w.Wait(ctxOf(t), last); err != nil {
		t.Fatal(err)
	}
	if bound := int64(window + retain + 256<<10); most > bound {
		t.Errorf("the ring took %d bytes, at most %d are wanted", most, bound)
	}
	eventually(t, "left out", func() bool { return len(l.Stats().Writers[0].Members) == 2 })
	k.node("a3").set(func(n *memoryNode) { n.frozen = false })
	eventually(t, "back", func() bool { return len(l.Stats().Writers[0].Members) == 3 })
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
