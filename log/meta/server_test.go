package meta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

func createOn(t testing.TB, s Store, stream string) {
	t.Helper()
	p := Policy{Rule: quorum.NodeRule{Total: 1}, Loss: LossBlock}
	must(t)(s.Do(within(t, 20*time.Second), Command{Create: &Create{Stream: stream, Policy: p}}))
}

func cursorAt(stream, group string, o log.Offset) Command {
	return Command{Cursor: &PutCursor{Stream: stream, Cursor: log.Cursor{Group: group, Offset: o}}}
}

// openOn owns the stream and opens its first segment on the members.
func openOn(t testing.TB, s Store, stream string, members ...quorum.Member) {
	t.Helper()
	r := must(t)(s.Do(within(t, 20*time.Second), Command{Own: &Own{Stream: stream, Owner: "p"}}))
	d := &quorum.Descriptor{
		Stream: stream, Segment: r.Stream.NextSegment, First: r.Stream.NextFirst, FirstLSO: r.Stream.NextLSO, Epoch: r.Stream.Epoch,
		Generation: r.Generation, Members: members, Rule: r.Stream.Policy.Rule, Protected: true,
	}
	must(t)(s.Do(within(t, 20*time.Second), Command{Advance: &Advance{Stream: stream, Epoch: d.Epoch, Open: d}}))
}

func TestSingleNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a1")
	for round := range 3 {
		began := time.Now()
		createOn(t, c.nodes["a1"].server, fmt.Sprintf("s%d", round))
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("round %d: it took %v to lead", round, d)
		}
		names, err := c.nodes["a1"].server.Streams(within(t, 10*time.Second))
		if err != nil || len(names) != round+1 {
			t.Fatalf("round %d: %v, %v", round, names, err)
		}
		c.stop("a1")
		if _, err := c.nodes["a1"].server.propose(within(t, time.Second), cursorAt("s0", "g", 1)); !errors.Is(err, log.ErrUnavailable) {
			t.Fatalf("after the end: %v", err)
		}
		c.start("a1")
	}
}

func TestElections(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a1", "a2", "b1", "b2", "w1")
	client := c.client()
	c.register(client, "a1", "a2", "b1", "b2", "w1")
	createOn(t, client, "s")
	if _, err := client.Stream(within(t, 10*time.Second), "none"); !errors.Is(err, log.ErrNoStream) {
		t.Fatalf("no such stream: %v", err)
	}
	at := log.Offset(0)
	openOn(t, client, "s", quorum.Member{Node: "a1", UUID: "id-a1", City: "a"})
	for range 2 {
		leader := c.leader()
		c.vanish(leader)
		began := time.Now()
		at++
		must(t)(client.Do(within(t, 20*time.Second), cursorAt("s", "g", at)))
		t.Logf("leader %s killed: %v until the next command was done", leader, time.Since(began).Round(time.Millisecond))
		c.start(leader)
	}
	// A node that knows nothing of the leader's whereabouts still finds it, and
	// what was done is read everywhere.
	for name, node := range c.nodes {
		st, err := node.server.Stream(within(t, 20*time.Second), "s")
		if err != nil || len(st.Cursors) != 1 || st.Cursors[0].Offset != at {
			t.Fatalf("on %s: %+v, %v", name, st.Cursors, err)
		}
		eventually(t, "the local view of "+name, func() error {
			v, _ := node.server.Local()
			if st, ok := v.Stream("s"); !ok || len(st.Cursors) != 1 || st.Cursors[0].Offset != at {
				return fmt.Errorf("%+v", st.Cursors)
			}
			return nil
		})
	}
	// All at once.
	for name := range c.nodes {
		c.stop(name)
	}
	for name := range c.nodes {
		c.start(name)
	}
	segments, err := client.Segments(within(t, 20*time.Second), "s", 0, 10)
	if err != nil || len(segments) != 1 {
		t.Fatalf("after a restart of all: %+v, %v", segments, err)
	}
	// It is what w1 itself has applied so far, and w1 has only just begun.
	eventually(t, "the status of w1", func() error {
		status, err := client.Status(within(t, 10*time.Second), "w1")
		if err == nil && (len(status.Voters) != 5 || status.Streams != 1 || status.Nodes != 5) {
			err = fmt.Errorf("%+v", status)
		}
		return err
	})
}

func TestHandOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a1", "a2", "b1")
	client := c.client()
	createOn(t, client, "s")
	leader := c.leader()
	c.stop(leader)
	began := time.Now()
	createOn(t, client, "t")
	if d := time.Since(began); d > 2*testHeartbeat {
		t.Logf("slow machine? %v without a leader after it said farewell", d)
	}
}

// TestStopBesideFrozenNodes stops a leader while a follower answers nothing, and
// one that has been left alone.
func TestStopBesideFrozenNodes(t *testing.T) {
	t.Parallel()
	for _, alone := range []bool{false, true} {
		c := newCluster(t, "a1", "a2", "b1")
		createOn(t, c.client(), "s")
		leader := c.leader()
		frozen := c.others(leader)[0]
		if alone {
			frozen = leader // to it, the others are
		}
		c.n.frozen.Store(frozen)
		ctx, cancel := context.WithTimeout(context.Background(), 2*testHeartbeat)
		_, err := c.nodes[leader].server.propose(ctx, cursorAt("s", "g", log.None))
		cancel()
		if alone && err == nil {
			t.Fatal("done by a leader that nobody hears")
		}
		began := time.Now()
		c.stop(leader)
		if d := time.Since(began); d > 8*time.Second {
			t.Errorf("alone %t: it took %v to stop", alone, d)
		}
		c.n.frozen.Store("")
	}
}

func TestPartition(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a1", "a2", "b1")
	client := c.client()
	createOn(t, client, "s")
	openless := cursorAt("s", "g", log.None)
	must(t)(client.Do(within(t, 20*time.Second), openless))
	leader := c.leader()
	var others []string
	for name := range c.nodes {
		if name != leader {
			others = append(others, name)
		}
	}
	eventually(t, "the views", func() error {
		if v, _ := c.nodes[leader].server.Local(); v.streams.count != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	c.n.partition([]string{leader}, others)

	// The old leader must not confirm, nor answer as if it led.
	_, err := c.nodes[leader].server.Do(within(t, 3*time.Second), Command{Create: &Create{Stream: "minority", Policy: Policy{Loss: LossBlock}}})
	if !errors.Is(err, log.ErrUnknown) && !errors.Is(err, log.ErrUnavailable) {
		t.Fatalf("a minority did it: %v", err)
	}
	if _, err := c.nodes[leader].server.Streams(within(t, time.Second)); !errors.Is(err, log.ErrUnavailable) || errors.Is(err, log.ErrUnknown) {
		t.Fatalf("a minority read it: %v", err)
	}
	if v, _ := c.nodes[leader].server.Local(); v.streams.count != 1 {
		t.Fatal("the local view went away")
	}
	names, err := NewClient(caller{c.n, ""}, nil).Stale(leader).Streams(within(t, 10*time.Second))
	if err != nil || len(names) != 1 {
		t.Fatalf("stale: %v, %v", names, err)
	}
	next := c.leader(others...)
	must(t)(c.nodes[next].server.Do(within(t, 10*time.Second), Command{Own: &Own{Stream: "s", Owner: "majority"}}))
	c.n.partition()
	eventually(t, "the old leader's view", func() error {
		v, _ := c.nodes[leader].server.Local()
		if st, ok := v.Stream("s"); !ok || st.Owner != "majority" {
			return errors.New("not yet")
		}
		if _, ok := v.Stream("minority"); ok {
			t.Fatal("a command of the minority was applied")
		}
		return nil
	})
}

func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a1", "a2", "b1")
	client := c.client()
	c.register(client, "a1")
	createOn(t, client, "s")
	r := must(t)(client.Do(within(t, 20*time.Second), Command{Own: &Own{Stream: "s", Owner: "p"}}))
	advance := Command{Advance: &Advance{Stream: "s", Epoch: r.Stream.Epoch, Open: &quorum.Descriptor{
		Stream: "s", Segment: 1, FirstLSO: log.None, Epoch: r.Stream.Epoch, Generation: r.Generation,
		Members: []quorum.Member{{Node: "a1", UUID: "id-a1", City: "a"}}, Rule: quorum.NodeRule{Total: 1}, Protected: true,
	}}}
	c.n.mu.Lock()
	for name := range c.nodes {
		c.n.dropped[name] = true
	}
	c.n.mu.Unlock()
	if _, err := client.Do(within(t, time.Second), advance); !errors.Is(err, log.ErrUnknown) || errors.Is(err, log.ErrUnavailable) {
		t.Fatalf("the response was lost: %v", err)
	}
	if _, err := client.Stream(within(t, 300*time.Millisecond), "s"); !errors.Is(err, log.ErrUnavailable) || errors.Is(err, log.ErrUnknown) {
		t.Fatalf("a read is never unknown: %v", err)
	}
	c.n.mu.Lock()
	clear(c.n.dropped)
	c.n.mu.Unlock()
	again := must(t)(client.Do(within(t, 20*time.Second), advance))
	if len(again.Stream.Segments) != 1 || again.Stream.NextSegment != 2 {
		t.Fatalf("repeated: %+v", again.Stream)
	}
	// Nobody at all: it is known that nothing happened.
	c.n.partition([]string{""}, []string{"a1", "a2", "b1"})
	if _, err := client.Do(within(t, 300*time.Millisecond), advance); !errors.Is(err, log.ErrUnavailable) || errors.Is(err, log.ErrUnknown) {
		t.Fatalf("nothing was sent: %v", err)
	}
}

// TestLinearizable lets writers and readers race over leader changes: a read shows
// every cursor that was confirmed before it began, and none that fails as refused.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a1", "a2", "b1")
	c.register(c.client(), "a1")
	createOn(t, c.client(), "s")
	openOn(t, c.client(), "s", quorum.Member{Node: "a1", UUID: "id-a1", City: "a"})
	ctx, cancel := context.WithTimeout(context.Background(), soak())
	defer cancel()
	var (
		confirmed atomic.Int64
		wg        sync.WaitGroup
		reads     atomic.Int64
	)
	confirmed.Store(-1)
	wg.Go(func() {
		client := c.client()
		for at := log.Offset(0); ctx.Err() == nil; at++ {
			for ctx.Err() == nil {
				_, err := client.Do(within(t, 10*time.Second), cursorAt("s", "g", at))
				if err == nil {
					confirmed.Store(int64(at))
					break
				}
				if !errors.Is(err, log.ErrUnknown) && !errors.Is(err, log.ErrUnavailable) {
					t.Errorf("at %d: %v", at, err)
					return
				}
			}
		}
	})
	for range 3 {
		wg.Go(func() {
			client := c.client()
			for ctx.Err() == nil {
				least := confirmed.Load()
				st, err := client.Stream(within(t, 10*time.Second), "s")
				if err != nil {
					t.Error(err)
					return
				}
				if got := int64(log.None); least >= 0 {
					if len(st.Cursors) > 0 {
						got = int64(st.Cursors[0].Offset)
					}
					if got < least {
						t.Errorf("read %d after %d was confirmed", got, least)
						return
					}
				}
				reads.Add(1)
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(800 * time.Millisecond)
			for name, node := range c.nodes {
				if node.server.Status().Role == "leader" {
					if reads.Load()%2 == 0 {
						c.vanish(name)
						c.start(name)
					} else {
						c.n.partition([]string{name}, c.others(name))
						time.Sleep(3 * testHeartbeat)
						c.n.partition()
					}
					break
				}
			}
		}
	})
	wg.Wait()
	t.Logf("%d cursors confirmed, %d reads", confirmed.Load()+1, reads.Load())
	if confirmed.Load() < 3 || reads.Load() < 3 {
		t.Error("too few to mean anything")
	}
}

func (c *cluster) others(name string) (out []string) {
	for other := range c.nodes {
		if other != name {
			out = append(out, other)
		}
	}
	slices.Sort(out)
	return out
}

func TestSnapshots(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a1", "a2", "b1")
	client := c.client()
	c.register(client, "a1")
	createOn(t, client, "s")
	openOn(t, client, "s", quorum.Member{Node: "a1", UUID: "id-a1", City: "a"})
	leader := c.leader()
	behind := c.others(leader)[0]
	c.stop(behind)
	for i := range 30 {
		must(t)(client.Do(within(t, 10*time.Second), cursorAt("s", "g", log.Offset(i))))
	}
	for _, name := range c.others(behind) { // all that is in the log goes into the snapshot
		r := c.nodes[name].server.running()
		conf := r.ReloadableConfig()
		conf.TrailingLogs = 0
		if err := r.ReloadConfig(conf); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a snapshot", func() error { return r.Snapshot().Error() })
	}
	c.start(behind)
	eventually(t, "the snapshot's arrival", func() error {
		v, _ := c.nodes[behind].server.Local()
		if st, ok := v.Stream("s"); !ok || len(st.Cursors) != 1 || st.Cursors[0].Offset != 29 {
			return errors.New("not yet")
		}
		return nil
	})
	want := views(t, c)
	for name := range c.nodes {
		c.stop(name)
	}
	for name := range c.nodes {
		c.start(name)
	}
	must(t)(client.Do(within(t, 20*time.Second), cursorAt("s", "g", 29))) // only its time is another one
	st, err := client.Stream(within(t, 10*time.Second), "s")
	if err != nil || st.Cursors[0].Offset != 29 || st.Version != want+1 {
		t.Fatalf("after a restart: %+v, %v", st, err)
	}
	if s := c.nodes[behind].server.Status(); s.SnapshotIndex == 0 {
		t.Fatalf("status: %+v", s)
	}
}

// views waits until all nodes have the same state, byte for byte, and tells the
// version of stream s.
func views(t *testing.T, c *cluster) uint64 {
	t.Helper()
	var version uint64
	eventually(t, "equal views", func() error {
		var first []byte
		for name, node := range c.nodes {
			v, _ := node.server.Local()
			var b bytes.Buffer
			if err := v.Save(&b); err != nil {
				return err
			}
			if first == nil {
				first = b.Bytes()
			}
			if !bytes.Equal(first, b.Bytes()) {
				return fmt.Errorf("%s has\n%s\nand another\n%s", name, b.Bytes(), first)
			}
			st, _ := v.Stream("s")
			version = st.Version
		}
		return nil
	})
	return version
}

func TestLeaseOverLeaderChange(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a1", "a2", "b1")
	client := c.client()
	take := func(holder string) Lease {
		r := must(t)(client.Do(within(t, 10*time.Second), Command{Lease: &TakeLease{Name: "keeper", Holder: holder, TTL: 1500 * time.Millisecond}}))
		return *r.Lease
	}
	first := take("x")
	began := time.Now()
	c.vanish(c.leader())
	if l := take("y"); l.Holder == "y" && time.Since(began) < time.Second {
		t.Fatal("the lease went with the leader")
	}
	eventually(t, "the lease's end", func() error {
		if l := take("y"); l.Holder != "y" || l.Term <= first.Term {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	leases, err := client.Leases(within(t, 20*time.Second))
	if err != nil || len(leases) != 1 || leases[0].Holder != "y" {
		t.Fatalf("%+v, %v", leases, err)
	}
}

// TestDiskFails takes the disk away: Run says so, nobody is told that something is
// done, and what was done before is there after a new start.
func TestDiskFails(t *testing.T) {
	t.Parallel()
	for _, names := range [][]string{{"a1"}, {"a1", "a2", "b1"}} {
		c := newCluster(t, names...)
		client := c.client()
		createOn(t, client, "s")
		leader := c.leader()
		node := c.nodes[leader]
		if err := node.server.disk.db.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := node.server.propose(within(t, 10*time.Second), cursorAt("s", "g", 0))
		if err == nil {
			t.Fatal("done without a disk")
		}
		select {
		case err := <-node.done:
			if err == nil {
				t.Fatal("Run is content without a disk")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("Run goes on without a disk")
		}
		node.cancel = nil
		c.start(leader)
		if _, err := client.Stream(within(t, 20*time.Second), "s"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one := []Peer{{"a", "a:1"}}
	for name, cfg := range map[string]Config{
		"no directory":       {Node: "a", Cluster: one},
		"not in the list":    {Dir: dir, Node: "b", Cluster: one},
		"no list":            {Dir: dir, Node: "a"},
		"twice":              {Dir: dir, Node: "a", Cluster: []Peer{{"a", "a:1"}, {"b", "a:1"}}},
		"no way to the rest": {Dir: dir, Node: "a", Cluster: []Peer{{"a", "a:1"}, {"b", "b:1"}}},
	} {
		if _, err := New(cfg); !errors.Is(err, log.ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, err := New(Config{Dir: dir, Node: "a", Cluster: one})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Dir: dir, Node: "a", Cluster: one}); err == nil {
		t.Error("two servers in one directory")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); !errors.Is(err, log.ErrClosed) {
		t.Errorf("run after close: %v", err)
	}
}
