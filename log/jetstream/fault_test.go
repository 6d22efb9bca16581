package jetstream

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/natstest"
	"github.com/twinspan/twinspan/log"
)

// TestLeaderGoes kills, and in another round freezes, the server that leads the
// stream while a writer appends. The writer may die; what it saw confirmed is
// there, once and in order, and a reader that was open goes on by itself.
func TestLeaderGoes(t *testing.T) {
	c := natstest.Start(t, natstest.Options{})
	l := lab(t, c, func(c *Config) { c.AckTimeout = 3 * time.Second })
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	w, err := l.OpenWriter(ctx, "s")
	check(t, err)
	r, err := l.OpenReader(ctx, "s", log.ReaderOptions{})
	check(t, err)
	defer func() { check(t, r.Close()) }()
	n, err := l.cfg.names("s")
	check(t, err)
	acked := log.None
	read := log.None
	for round, fault := range []func(*natstest.Server) error{(*natstest.Server).Kill, (*natstest.Server).Freeze} {
		info, err := l.info(ctx, n)
		check(t, err)
		var leader *natstest.Server
		for _, s := range c.Servers {
			if s.Name == info.Cluster.Leader {
				leader = s
			}
		}
		if leader == nil {
			t.Fatalf("no leader: %+v", info.Cluster)
		}
		gone := make(chan error, 1) // owner: the goroutine below; one value
		go func() {
			time.Sleep(150 * time.Millisecond)
			gone <- fault(leader)
		}()
		var died error
		for began := time.Now(); died == nil && time.Since(began) < 10*time.Second; {
			var o log.Offset
			if o, died = w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: fmt.Appendf(nil, "%d", w.Bounds().Epoch)}); died == nil && o%32 == 0 {
				if _, died = w.Wait(ctx, o); died == nil {
					acked = o
				}
			}
		}
		check(t, <-gone)
		acked = max(acked, w.Bounds().LAC)
		if died == nil {
			t.Fatalf("round %d: the writer outlived the leader of its stream by 10 s", round)
		}
		if errors.Is(died, log.ErrFenced) {
			t.Fatalf("round %d: nobody fenced it, and it says %v", round, died)
		}
		_ = w.Close() // it died
		began := time.Now()
		for {
			if w, err = l.OpenWriter(ctx, "s"); err == nil {
				break
			}
			if ctx.Err() != nil || !errors.Is(err, log.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		t.Logf("round %d: the writer died of %v; a new one after %v", round, died, time.Since(began))
		if b := w.Bounds(); b.LAC < acked {
			t.Fatalf("round %d: the stream ends at %d, and %d was confirmed", round, b.LAC, acked)
		}
		o := put(t, w, log.TopicData, true, "next")
		for read < o {
			e, err := r.Next(ctx)
			check(t, err)
			if e.Offset != read+1 {
				t.Fatalf("round %d: entry %d behind %d", round, e.Offset, read)
			}
			read = e.Offset
		}
		if round == 0 {
			check(t, leader.Start())
		} else {
			check(t, leader.Thaw())
		}
		check(t, c.Ready(ctx))
	}
	check(t, w.Close())
}
