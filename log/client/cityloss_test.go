package client_test

import (
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node/nodetest"
	"github.com/twinspan/twinspan/log/quorum"
)

// TestCityLost: a city loses power with its writer. What was acknowledged is in
// the other one, where the next writer goes on, without protection and saying so,
// until the city is back.
func TestCityLost(t *testing.T) {
	k := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2", "cw"}})
	policy := func(c *client.Config) {
		c.Policy = &meta.Policy{
			Rule: quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}}, Loss: meta.LossDegradeAfter, After: 500 * time.Millisecond,
		}
	}
	first := k.Client("a", policy)
	w := openWriter(t, first)
	const last = 2000
	put(t, w, 0, last)
	k.Kill("a1", "a2")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	l := k.Client("b", policy)
	w = openWriter(t, l)
	if b := w.Bounds(); b.LAC != last {
		t.Fatalf("bounds %+v, want LAC %d", b, last)
	}
	o, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: payload(last + 1)})
	if err != nil {
		t.Fatal(err)
	}
	ack, err := w.Wait(ctxOf(t), o)
	if err != nil || ack.Protected {
		t.Fatalf("%+v, %v: want an entry without protection", ack, err)
	}
	t.Logf("appends went on %v after the city was lost", time.Since(began).Round(time.Millisecond))
	readAll(t, l, 0, last+1)
	if far := l.Stats().Received["a"]; far != 0 {
		t.Errorf("%d bytes from a city without power", far)
	}

	k.Start("a1")
	k.Start("a2")
	next := log.Offset(last + 2)
	eventually(t, "protected again", func() bool {
		o, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: payload(next)})
		if err != nil || o != next {
			t.Fatalf("entry %d, want %d: %v", o, next, err)
		}
		next++
		ack, err := w.Wait(ctxOf(t), o)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		return ack.Protected
	})
	eventually(t, "the window ends", func() bool {
		st, err := l.Metadata().Stream(ctxOf(t), "s")
		if err != nil || len(st.Windows) == 0 {
			t.Fatalf("windows %+v, %v", st.Windows, err)
		}
		for _, w := range st.Windows {
			if w.RestoredAt.IsZero() {
				return false
			}
		}
		return true
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	home := k.Client("a", func(c *client.Config) { c.Far = client.FarNever })
	eventually(t, "city a has all of it", func() bool {
		st, err := home.Metadata().Stream(ctxOf(t), "s")
		return err == nil && st.Short == 0
	})
	readAll(t, home, 0, next-1)
}

// TestReadsWithoutMajority: the metadata's majority died with a city. Readers of
// the other one go on, those that are opened now, too.
func TestReadsWithoutMajority(t *testing.T) {
	k := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2", "aw"}})
	first := k.Client("a", nil)
	w := openWriter(t, first)
	put(t, w, 0, 500)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	k.Kill("a1", "a2", "aw")
	began := time.Now()
	readAll(t, k.Client("b", nil), 0, 500)
	t.Logf("read after %v", time.Since(began).Round(time.Millisecond))
}
