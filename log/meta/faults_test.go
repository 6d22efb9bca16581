package meta

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// TestAdvancesUnderFaults lets writers fight for one stream while leaders are
// killed, cut off, and their answers lost. Every Advance that was said to be done
// stands in the end as it was proposed; every one said to be refused, fenced or not
// sent at all does not, unless another attempt of the same is unknown.
func TestAdvancesUnderFaults(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("SEED=%d", seed)
	c := newCluster(t, "a1", "a2", "b1")
	c.register(c.client(), "a1", "a2", "b1")
	createOn(t, c.client(), "s")
	ctx, cancel := context.WithTimeout(context.Background(), soak())
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		done []*Advance
		tell = map[string]int{}
	)
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		tell[what]++
	}
	for w := range 2 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(w)))
			client := c.client()
			for ctx.Err() == nil {
				o, err := client.Do(within(t, 10*time.Second), Command{Own: &Own{Stream: "s", Owner: fmt.Sprint("w", w)}})
				if err != nil {
					note("own: " + kindOf(err))
					continue
				}
				st := o.Stream
				for range 1 + r.IntN(8) {
					a := nextAdvance(r, st)
					var x Result
					for unknown := false; ; unknown = true { // the same until it is known
						x, err = client.Do(within(t, 150*time.Millisecond+time.Duration(r.IntN(1000))*time.Millisecond), Command{Advance: a})
						if !errors.Is(err, log.ErrUnknown) && !(unknown && errors.Is(err, log.ErrUnavailable)) || errors.Is(err, log.ErrFenced) || ctx.Err() != nil {
							break
						}
						note("unknown")
					}
					if err != nil {
						note("advance: " + kindOf(err))
						break
					}
					note("done")
					mu.Lock()
					done = append(done, a)
					mu.Unlock()
					st = x.Stream
				}
			}
		})
	}
	wg.Go(func() {
		r := rand.New(rand.NewPCG(seed, 99))
		for ctx.Err() == nil {
			time.Sleep(time.Duration(100+r.IntN(400)) * time.Millisecond)
			name := []string{"a1", "a2", "b1"}[r.IntN(3)]
			switch r.IntN(3) {
			case 0:
				c.vanish(name)
				time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
				c.start(name)
			case 1:
				c.n.partition([]string{name}, c.others(name))
				time.Sleep(time.Duration(r.IntN(600)) * time.Millisecond)
				c.n.partition()
			case 2:
				c.n.mu.Lock()
				c.n.dropped[name] = true
				c.n.mu.Unlock()
				time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
				c.n.mu.Lock()
				clear(c.n.dropped)
				c.n.mu.Unlock()
			}
		}
	})
	wg.Wait()
	views(t, c)
	var segments []Segment
	for from := uint32(0); ; {
		page, err := c.client().Segments(within(t, 20*time.Second), "s", from, SegmentsPageMax)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		segments, from = append(segments, page...), page[len(page)-1].Segment+1
	}
	byNumber := map[uint32]Segment{}
	next := log.Offset(0)
	for _, s := range segments {
		if byNumber[s.Segment] = s; s.First != next {
			t.Fatalf("segment %d at %d, want %d", s.Segment, s.First, next)
		}
		next = s.Last + 1
	}
	t.Logf("%d segments, %v", len(segments), tell)
	for _, a := range done {
		if a.Close != nil && a.Close.Last >= 0 {
			if s, ok := byNumber[a.Close.Segment]; ok && (!s.Closed || s.Last != a.Close.Last) {
				t.Errorf("closed at %d, and now %+v", a.Close.Last, s)
			}
		}
		s, ok := byNumber[a.Open.Segment]
		if !ok { // closed while empty: the next one starts where it did
			continue
		}
		if !sameDescriptor(&s.Descriptor, a.Open) {
			t.Errorf("opened %+v, and now it is %+v", a.Open, s.Descriptor)
		}
	}
	if tell["done"] < 5 {
		t.Error("too few to mean anything")
	}
}

// soak is how long faults are made.
func soak() time.Duration {
	if testing.Short() {
		return 3 * time.Second
	}
	return 10 * time.Second
}

func kindOf(err error) string {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.name
		}
	}
	return err.Error()
}

// nextAdvance is a roll, or the first segment.
func nextAdvance(r *rand.Rand, st *Stream) *Advance {
	node := []string{"a1", "a2", "b1"}[r.IntN(3)]
	m := []quorum.Member{{Node: node, UUID: "id-" + node, City: node[:1]}}
	d := &quorum.Descriptor{
		Stream: "s", Segment: st.NextSegment, First: st.NextFirst, FirstLSO: st.NextLSO, Epoch: st.Epoch, Generation: st.Generation,
		Members: m, Rule: st.Policy.Rule, Protected: true,
	}
	a := &Advance{Stream: "s", Epoch: st.Epoch, Open: d}
	if n := len(st.Segments); n > 0 && !st.Segments[n-1].Closed {
		s := st.Segments[n-1]
		a.Close = &Close{Segment: s.Segment, Last: s.First + log.Offset(r.IntN(5)) - 1, LSO: s.FirstLSO, Holders: s.Members}
		if a.Close.Last >= s.First {
			a.Close.LSO = a.Close.Last
		}
		d.First, d.FirstLSO = a.Close.Last+1, a.Close.LSO
	}
	return a
}
