package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/wan"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// The bounds of the memory part, in bytes.
const (
	memoryWindow = 16 << 20 // of the writer: appended and not confirmed
	memoryRetain = 16 << 20 // of the writer: kept for members that lag
	memoryRead   = 2 << 20  // of each reader: received and not taken
	memorySlack  = 1 << 20  // a frame, or a chunk, more
	// A node's own: two groups, indexes, a buffer for each connection, and as much
	// again for the garbage collector.
	memoryNode = 256 << 20
	// This process: the ring twice, its readers, and what the bench itself keeps.
	memorySelf = 2*(memoryWindow+memoryRetain) + stoppedReaders*2*memoryRead + 192<<20
)

// stoppedReaders take nothing of what they asked for.
const stoppedReaders = 16

// memory drives the log into the three troubles in which something has to wait: a
// reader that takes nothing, a node that stands still, and a link that is slower
// than the writer. Everything that queues must keep its bound meanwhile.
func memory(ctx context.Context, s logSettings, r *results) error {
	own, err := threeNodes(ctx, s, "memory")
	if err != nil {
		return err
	}
	err = errors.Join(stoppedReader(ctx, s, r, own), stoppedNode(ctx, s, r, own))
	if err = errors.Join(err, own.stop()); err != nil {
		return err
	}
	return slowLink(ctx, s, r)
}

func memoryClient(own *ownSide, city, bind string, rule quorum.NodeRule) (*client.Client, appender, error) {
	cfg := client.Config{
		City: city, Policy: &meta.Policy{Rule: rule, Loss: meta.LossBlock}, WindowBytes: memoryWindow, RetainBytes: memoryRetain,
		ReadWindowBytes: memoryRead, SegmentBytes: 64 << 30, Dial: dialFrom(bind),
	}
	c, err := own.client(cfg)
	if err != nil {
		return nil, nil, err
	}
	a, err := open(context.Background(), c, "memory-"+city+bind)
	return c, a, err
}

func stoppedReader(ctx context.Context, s logSettings, r *results, own *ownSide) error {
	c, a, err := memoryClient(own, "a", "", quorum.NodeRule{Total: 2})
	if err != nil {
		return err
	}
	for range stoppedReaders {
		rd, err := c.OpenReader(ctx, "memory-a", log.ReaderOptions{})
		if err != nil {
			return err
		}
		defer func() { _ = rd.Close() }() // it took nothing
	}
	return watched(ctx, r, "reader", fmt.Sprintf("%d readers that take nothing", stoppedReaders), own, c, func() (measured, error) {
		return load(ctx, []appender{a}, 1<<16, s.spell, nil)
	})
}

func stoppedNode(ctx context.Context, s logSettings, r *results, own *ownSide) error {
	c, err := own.client(client.Config{
		City: "a", Policy: &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}, WindowBytes: memoryWindow, RetainBytes: memoryRetain,
		// It is not left out, so that what it misses has to be dealt with.
		RollAfter: time.Minute, SegmentBytes: 64 << 30,
	})
	if err != nil {
		return err
	}
	a, err := open(ctx, c, "memory-node")
	if err != nil {
		return err
	}
	if _, err := load(ctx, []appender{a}, 1024, time.Second, nil); err != nil {
		return err
	}
	frozen := own.processes[2]
	if err := frozen.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err = watched(ctx, r, "node", "a node that stands still", own, c, func() (measured, error) {
		return load(ctx, []appender{a}, 1<<16, s.spell, nil)
	})
	return errors.Join(err, frozen.Signal(syscall.SIGCONT))
}

// memoryLink is what the slow link carries, in bytes a second.
const memoryLink = 8 << 20

func slowLink(ctx context.Context, s logSettings, r *results) error {
	network, places, err := cityPlaces(s, wan.Way{Delay: between / 2, Rate: memoryLink})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1) // owner: the goroutine below; one value
	go func() { ended <- network.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}()
	own, err := startOwn(ctx, s.binary, filepath.Join(s.dir, "link"), places)
	if err != nil {
		return err
	}
	defer stopping(own)
	c, a, err := memoryClient(own, "a", "127.0.1.9", quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}})
	if err != nil {
		return err
	}
	return watched(ctx, r, "link", fmt.Sprintf("a link of %d MiB/s to the city that is required", memoryLink>>20), own, c, func() (measured, error) {
		return load(ctx, []appender{a}, 1<<16, s.spell, nil)
	})
}

// peaks are the largest values seen.
type peaks struct{ ring, flight, held, node, self int64 }

func (p *peaks) look(own *ownSide, c *client.Client) {
	st := c.Stats()
	for _, w := range st.Writers {
		p.ring, p.flight = max(p.ring, w.RingBytes), max(p.flight, w.InFlightBytes)
	}
	for _, rd := range st.Readers {
		p.held = max(p.held, rd.HeldBytes)
	}
	for _, pid := range own.pids() {
		p.node = max(p.node, resident(pid))
	}
	p.self = max(p.self, resident(os.Getpid()))
}

// resident is a process's memory, in bytes; 0 when it is gone.
func resident(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// watched runs a load and compares what queued up during it with its bounds.
func watched(ctx context.Context, r *results, key, name string, own *ownSide, c *client.Client, run func() (measured, error)) error {
	var p peaks
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for ctx.Err() == nil {
			p.look(own, c)
			time.Sleep(20 * time.Millisecond)
		}
	})
	m, err := run()
	cancel()
	watch.Wait()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	mib := func(n int64) float64 { return float64(n) / (1 << 20) }
	fmt.Printf("log: %s: %.0f /s; in flight up to %.1f MiB of %d, in the writer's ring %.1f of %d, with a reader %.1f of %d; a node took %.0f of %d, this process %.0f of %d\n", name, m.rate(),
		mib(p.flight), memoryWindow>>20, mib(p.ring), (memoryWindow+memoryRetain)>>20, mib(p.held), memoryRead>>20, mib(p.node), memoryNode>>20, mib(p.self), memorySelf>>20)
	for _, x := range []struct {
		what, key  string
		got, bound int64
	}{
		{"bytes in flight", "in_flight", p.flight, memoryWindow}, {"bytes in the writer's ring", "ring", p.ring, memoryWindow + memoryRetain},
		{"bytes with a reader", "held", p.held, memoryRead}, {"bytes of a node's memory", "node", p.node, memoryNode}, {"bytes of the client's memory", "self", p.self, memorySelf},
	} {
		r.add("memory_"+key+"_"+x.key+"_mib", "%.1f", mib(x.got))
		r.want(x.got <= x.bound+memorySlack, fmt.Sprintf("%s: %.1f MiB %s, at most %.0f are allowed", name, mib(x.got), x.what, mib(x.bound)))
	}
	r.want(m.entries > 0, name+": nothing was confirmed")
	// What has to wait did: without that nothing above could have failed.
	for _, x := range []struct {
		key, what  string
		got, least int64
	}{
		{"reader", "bytes with a reader", p.held, memoryRead / 2},
		{"node", "bytes in the writer's ring", p.ring, memoryRetain / 2},
		{"link", "bytes in flight", p.flight, memoryWindow / 2},
	} {
		r.want(x.key != key || x.got >= x.least, fmt.Sprintf("%s: only %.1f MiB %s, so nothing was put to the test", name, mib(x.got), x.what))
	}
	return nil
}
