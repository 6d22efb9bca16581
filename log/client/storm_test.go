package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/node/nodetest"
)

// TestStorm runs writers and readers over real nodes in two cities and a witness,
// while nodes lose power, freeze, are cut off, the cities lose each other, and
// new writers take over. Whatever was acknowledged is there at the end, once, at
// its offset; and whatever a reader saw is what is there. The seed says which writers
// have their acknowledgements on tallies.
func TestStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("SEED=%d", seed)
	steps := 12
	if n, err := strconv.Atoi(os.Getenv("STEPS")); err == nil {
		steps = n
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	k := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2", "cw"}})
	st := &storm{t: t, cluster: k, acked: map[log.Offset]string{}, stop: make(chan struct{})}
	var all sync.WaitGroup
	clients := []*client.Client{k.Client("a", nil), k.Client("a", nil), k.Client("b", nil), k.Client("a", nil), k.Client("b", nil)}
	for i, c := range clients[:3] {
		if (seed>>i)&1 == 0 {
			client.TallyAlways(c)
		}
	}
	st.takeOver = make(chan struct{}, 1)
	all.Go(func() { st.write(clients[:3]) })
	seen := make([]map[log.Offset]string, 2)
	for i := range seen {
		seen[i] = map[log.Offset]string{}
		all.Go(func() { st.read(clients[3+i], seen[i]) })
	}
	for range steps {
		st.fault(rnd)
	}
	k.Heal()
	mended := st.count.Load()
	eventually(t, "appends go on", func() bool { return st.count.Load() > mended+50 })
	close(st.stop)
	all.Wait()
	if t.Failed() {
		return
	}

	l := k.Client("b", nil)
	w := openWriter(t, l)
	end := w.Bounds().LAC
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := l.OpenReader(ctxOf(t), "s", log.ReaderOptions{To: end + 1})
	if err != nil {
		t.Fatal(err)
	}
	there := map[log.Offset]string{}
	once := map[string]log.Offset{}
	for o := log.Offset(0); o <= end; o++ {
		e, err := r.Next(ctxOf(t))
		if err != nil || e.Offset != o {
			t.Fatalf("entry %d, want %d: %v", e.Offset, o, err)
		}
		there[o] = string(e.Payload)
		if before, ok := once[string(e.Payload)]; ok {
			t.Fatalf("entries %d and %d are the same", before, o)
		}
		once[string(e.Payload)] = o
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for o, p := range st.acked {
		if there[o] != p {
			t.Errorf("entry %d was acknowledged as %.40q and is %.40q", o, p, there[o])
		}
	}
	for i := range seen {
		for o, p := range seen[i] {
			if there[o] != p {
				t.Errorf("reader %d saw entry %d as %.40q, it is %.40q", i, o, p, there[o])
			}
		}
	}
	t.Logf("%d entries, %d acknowledged by %d writers, readers saw %d and %d, longest wait %v",
		end+1, len(st.acked), st.writers, len(seen[0]), len(seen[1]), st.worst)
}

type storm struct {
	t        *testing.T
	cluster  *nodetest.Cluster
	stop     chan struct{} // closed at the end
	takeOver chan struct{} // one token: another client opens a writer
	count    atomic.Int64  // acknowledged
	acked    map[log.Offset]string
	writers  int
	worst    time.Duration
}

func (s *storm) stopped() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// write opens writers, one after the other has died or was told to give way.
func (s *storm) write(clients []*client.Client) {
	for i := 0; !s.stopped(); i++ {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		w, err := clients[i%len(clients)].OpenWriter(ctx, "s")
		cancel()
		if err != nil {
			if !errors.Is(err, log.ErrUnavailable) && !errors.Is(err, log.ErrUnknown) && !errors.Is(err, log.ErrFenced) && !errors.Is(err, context.DeadlineExceeded) {
				s.t.Error(err)
				return
			}
			continue
		}
		s.writers++
		s.appendAll(w)
	}
}

func (s *storm) appendAll(w log.Writer) {
	type flight struct {
		o  log.Offset
		p  string
		at time.Time
	}
	var last flight
	flying := []flight{}
	patient := func(f func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return f(ctx)
	}
	for n := 0; ; n++ {
		giveWay := false
		select {
		case <-s.takeOver:
			giveWay = true
		case <-s.stop:
			if err := w.Close(); err != nil && !errors.Is(err, log.ErrUnknown) {
				s.t.Error(err)
			}
			giveWay = true
		default:
		}
		if giveWay {
			break // without Close, as a process that dies; its client closes it at the end
		}
		p := fmt.Sprintf("%d/%d/%0*d", w.Epoch(), n, 1+n%500, 0)
		var o log.Offset
		err := patient(func(ctx context.Context) (err error) {
			o, err = w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: n%2 == 0, Payload: []byte(p)})
			return err
		})
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				s.t.Error(err)
			}
			break
		}
		flying = append(flying, flight{o, p, time.Now()})
		if len(flying) < 20 {
			continue
		}
		last, flying = flying[0], flying[1:]
		err = patient(func(ctx context.Context) error {
			_, err := w.Wait(ctx, last.o)
			return err
		})
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				s.t.Error(err)
			}
			break
		}
		s.worst = max(s.worst, time.Since(last.at))
		s.acked[last.o] = last.p
		s.count.Add(1)
		time.Sleep(time.Millisecond)
	}
}

// read follows the stream from the beginning, and opens another reader when one
// gives up.
func (s *storm) read(l *client.Client, seen map[log.Offset]string) {
	next := log.Offset(0)
	for !s.stopped() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		r, err := l.OpenReader(ctx, "s", log.ReaderOptions{From: next})
		cancel()
		if err != nil {
			if !errors.Is(err, log.ErrUnavailable) && !errors.Is(err, log.ErrNoStream) && !errors.Is(err, context.DeadlineExceeded) {
				s.t.Error(err)
				return
			}
			time.Sleep(20 * time.Millisecond)
			continue
		}
		for !s.stopped() {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			e, err := r.Next(ctx)
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				continue
			}
			if err != nil {
				if !errors.Is(err, log.ErrUnavailable) {
					s.t.Errorf("reader at %d: %v", next, err)
				}
				break
			}
			if e.Offset != next {
				s.t.Errorf("entry %d, want %d", e.Offset, next)
			}
			seen[e.Offset] = string(e.Payload)
			next = e.Offset + 1
		}
		if err := r.Close(); err != nil {
			s.t.Error(err)
		}
	}
}

// fault does something to the cluster, and undoes it.
func (s *storm) fault(rnd *rand.Rand) {
	name := []string{"a1", "a2", "b1", "b2"}[rnd.IntN(4)]
	hold := time.Duration(100+rnd.IntN(1500)) * time.Millisecond
	kind := rnd.IntN(7)
	s.t.Logf("%s: %d on %s for %v, %d acknowledged", time.Now().Format("15:04:05.000"), kind, name, hold, s.count.Load())
	switch kind {
	case 0:
		s.cluster.Kill(name)
		time.Sleep(hold)
		s.cluster.Start(name)
	case 1:
		s.cluster.Freeze(name)
		time.Sleep(hold)
		s.cluster.Rejoin(name)
	case 2:
		s.cluster.Isolate(name)
		time.Sleep(hold)
		s.cluster.Rejoin(name)
	case 3:
		s.cluster.Partition("a", "b")
		time.Sleep(hold)
		s.cluster.Heal()
	case 4:
		s.cluster.OneWay("a", "b")
		time.Sleep(hold)
		s.cluster.Heal()
	case 5:
		select {
		case s.takeOver <- struct{}{}:
		default:
		}
	case 6:
		s.cluster.Kill("b1", "b2")
		time.Sleep(hold)
		s.cluster.Start("b1")
		s.cluster.Start("b2")
	}
	time.Sleep(300 * time.Millisecond)
}
