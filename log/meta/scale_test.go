package meta

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// longStream is a world whose stream has n closed segments and an open one.
func longStream(t testing.TB, n int) *world {
	w := &world{t: t, s: NewState(), now: epochZero}
	for _, name := range storing {
		w.do(Command{Register: &Register{Node{Name: name, UUID: "id-" + name, City: name[:1], Address: name + ":1"}}})
	}
	w.create("s", LossBlock)
	w.open("s", true, storing...)
	for range n {
		w.roll("s", 10, storing, true, storing...)
	}
	return w
}

// TestManySegments holds the bounds that a cold start and a roll depend on.
func TestManySegments(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	w := longStream(t, n)
	began := time.Now()
	const rolls = 200
	for range rolls {
		w.roll("s", 10, storing, true, storing...)
	}
	per := time.Since(began) / rolls
	began = time.Now()
	b := w.save()
	saved := time.Since(began)
	began = time.Now()
	loaded, err := Load(bytes.NewReader(b))
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("RESULT meta-segments segments=%d roll_us=%d save_ms=%d load_ms=%d snapshot_bytes=%d", n, per.Microseconds(), saved.Milliseconds(), took.Milliseconds(), len(b))
	most := time.Second
	if testing.Short() { // under the race detector, beside everything else
		most = time.Minute
	}
	if per > most/200 || took > most {
		t.Errorf("a roll takes %v, a load %v", per, took)
	}
	again := &world{t: t, s: loaded, now: w.now}
	again.roll("s", 10, storing, true, storing...)
	count := 0
	for from := uint32(0); ; {
		page, ok := loaded.View().Segments("s", from, SegmentsPageMax)
		if !ok || len(page) == 0 {
			break
		}
		count, from = count+len(page), page[len(page)-1].Segment+1
	}
	if count != n+rolls+2 {
		t.Fatalf("%d segments in pages", count)
	}
}

func BenchmarkRoll(b *testing.B) {
	for _, n := range []int{10, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := longStream(b, n)
			for b.Loop() {
				w.roll("s", 10, storing, true, storing...)
			}
		})
	}
}

func BenchmarkCursor(b *testing.B) {
	w := longStream(b, 10_000)
	at := log.Offset(0)
	for b.Loop() {
		at++
		w.do(cursorAt("s", "g", at))
	}
}

func BenchmarkHeldWhileShort(b *testing.B) {
	w := longStream(b, 0)
	for range 10_000 {
		w.roll("s", 10, []string{"a1"}, true, storing...)
	}
	n := uint32(0)
	for b.Loop() {
		w.do(Command{Held: &Held{Stream: "s", Segment: 1 + n%10_000, Member: members("b1")[0]}})
		n++
	}
}

// throughput stores cursors of many groups from many clients at once.
func throughput(t testing.TB, c *cluster, group string, clients, each int) (perSecond float64, p50, p99 time.Duration) {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		took []time.Duration
	)
	began := time.Now()
	for i := range clients {
		wg.Go(func() {
			client := c.client()
			for n := range each {
				at := time.Now()
				if _, err := client.Do(within(t, 30*time.Second), cursorAt("s", fmt.Sprintf("%s%d", group, i), log.Offset(n))); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(at))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	all := time.Since(began)
	slices.Sort(took)
	return float64(len(took)) / all.Seconds(), took[len(took)/2], took[len(took)*99/100]
}

// TestThroughput measures commits in one process, with every node's disk being the
// same one.
func TestThroughput(t *testing.T) {
	if testing.Short() {
		t.Skip("a measurement")
	}
	for _, x := range []struct {
		name  string
		nodes []string
		delay time.Duration
	}{
		{"alone", []string{"a1"}, 0},
		{"local", []string{"a1", "a2", "b1"}, 0},
		{"wan", []string{"a1", "b1", "w1"}, 15 * time.Millisecond},
	} {
		c := newCluster(t, x.nodes...)
		c.n.mu.Lock()
		c.n.delay = x.delay
		c.n.mu.Unlock()
		c.register(c.client(), "a1")
		createOn(t, c.client(), "s")
		openOn(t, c.client(), "s", quorum.Member{Node: "a1", UUID: "id-a1", City: "a"})
		_, one, _ := throughput(t, c, "one", 1, 100)
		leader := c.nodes[c.leader()].server
		var commits []time.Duration
		for i := range 60 {
			at := time.Now()
			must(t)(leader.Do(within(t, 10*time.Second), cursorAt("s", "leader", log.Offset(i))))
			commits = append(commits, time.Since(at))
		}
		slices.Sort(commits)
		rate, p50, p99 := throughput(t, c, "many", 128, 60)
		t.Logf("RESULT meta-commit cluster=%s one_way_ms=%d commit_p50_us=%d client_p50_us=%d stores_per_s=%.0f p50_ms=%.1f p99_ms=%.1f",
			x.name, x.delay.Milliseconds(), commits[len(commits)/2].Microseconds(), one.Microseconds(), rate, float64(p50.Microseconds())/1e3, float64(p99.Microseconds())/1e3)
		if rate < 1000 && x.delay == 0 {
			t.Errorf("%s: %.0f cursor stores a second", x.name, rate)
		}
		for _, name := range x.nodes {
			c.stop(name)
		}
	}
}

// TestFailover measures how long the metadata is away when its leader is killed, as
// it is configured by default.
func TestFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("a measurement")
	}
	c := newClusterOf(t, 0, "a1", "a2", "b1", "b2", "w1")
	c.n.mu.Lock()
	c.n.delay = 15 * time.Millisecond
	c.n.mu.Unlock()
	client := c.client()
	createOn(t, client, "s")
	var took []time.Duration
	for range 8 {
		leader := c.leader()
		c.vanish(leader)
		began := time.Now()
		must(t)(client.Do(within(t, 20*time.Second), Command{Own: &Own{Stream: "s"}}))
		took = append(took, time.Since(began))
		c.start(leader)
	}
	slices.Sort(took)
	t.Logf("RESULT meta-failover kills=%d p50_ms=%d max_ms=%d", len(took), took[len(took)/2].Milliseconds(), took[len(took)-1].Milliseconds())
}
