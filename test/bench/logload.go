package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/twinspan/twinspan/log"
)

// entryBytes is the payload of every entry of bench-log.
const entryBytes = 1 << 10

// appender is one writer of either side. Appends come from one goroutine, waits
// from another, in the order of the appends.
type appender interface {
	append(ctx context.Context, payload []byte) (ticket, error)
	wait(ctx context.Context, t ticket) error
	close() error
}

// ticket stands for an entry on its way.
type ticket struct {
	offset log.Offset
	future jetstream.PubAckFuture
	began  time.Time
}

// ours appends to a log.Log, as a producer does.
type ours struct{ w log.Writer }

func (o ours) append(ctx context.Context, payload []byte) (ticket, error) {
	n, err := o.w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: payload})
	return ticket{offset: n}, err
}

func (o ours) wait(ctx context.Context, t ticket) error {
	_, err := o.w.Wait(ctx, t.offset)
	return err
}
func (o ours) close() error { return o.w.Close() }

// theirs publishes to JetStream in the way its own client recommends for speed:
// asynchronously, without conditions that the servers would have to check.
type theirs struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	subject string
}

func (j theirs) append(_ context.Context, payload []byte) (ticket, error) {
	f, err := j.js.PublishAsync(j.subject, payload, jetstream.WithRetryAttempts(0))
	return ticket{future: f}, err
}

func (theirs) wait(ctx context.Context, t ticket) error {
	select {
	case <-t.future.Ok():
		return nil
	case err := <-t.future.Err():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (j theirs) close() error {
	j.nc.Close()
	return nil
}

// measured is what one spell of load came to.
type measured struct {
	entries   int
	took      time.Duration
	cpu       float64 // seconds of all processes, this one included
	own       float64 // of cpu, what this process spent: the writer
	flushes   flushes // of all nodes, where they are told
	machine   float64 // cores of the machine that were busy, with whatever
	latencies []time.Duration
}

func (m measured) rate() float64 { return float64(m.entries) / m.took.Seconds() }
func (m measured) cpuEach() float64 { // microseconds
	return m.cpu * 1e6 / float64(m.entries)
}

// perFlush is how many entries of a node shared one; three nodes flushed them.
func (m measured) perFlush() float64 { return 3 * float64(m.entries) / max(m.flushes.count, 1) }

// and is both spells as if they were one.
func (m measured) and(o measured) measured {
	took := m.took + o.took
	sum := measured{
		entries: m.entries + o.entries, took: took, cpu: m.cpu + o.cpu, own: m.own + o.own,
		flushes:   flushes{m.flushes.count + o.flushes.count, m.flushes.seconds + o.flushes.seconds},
		machine:   (m.machine*m.took.Seconds() + o.machine*o.took.Seconds()) / took.Seconds(),
		latencies: slices.Concat(m.latencies, o.latencies),
	}
	sortLatencies(&sum)
	return sum
}

// quantile of the latencies; they are sorted.
func (m measured) quantile(q float64) time.Duration {
	if len(m.latencies) == 0 {
		return 0
	}
	return m.latencies[min(len(m.latencies)-1, int(q*float64(len(m.latencies))))]
}

// sortLatencies makes them ready for quantile.
func sortLatencies(m *measured) { slices.Sort(m.latencies) }

// payloads are like rows of text and numbers: they compress to about half.
var payloads = func() [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([][]byte, 4096)
	for i := range out {
		b := make([]byte, 0, entryBytes+64)
		for len(b) < entryBytes {
			b = fmt.Appendf(b, "customer-%016x|%d|paid|2026-01-%02d 10:%02d:%02d.%06d|", r.Uint64(), r.IntN(1e9), 1+r.IntN(28), r.IntN(60), r.IntN(60), r.IntN(1e6))
			b = binary.LittleEndian.AppendUint64(b, r.Uint64())
		}
		out[i] = b[:entryBytes]
	}
	return out
}()

// load keeps window entries in flight for a while and waits for all of them. It
// counts what the processes of pids, and this one, spent meanwhile.
func load(ctx context.Context, all []appender, window int, spell time.Duration, pids []int) (measured, error) {
	each := max(1, window/len(all))
	results := make([]measured, len(all))
	errs := make([]error, len(all))
	before, own := cpuOf(pids), cpuOf(nil)
	began := time.Now()
	var running sync.WaitGroup
	for i, a := range all {
		running.Go(func() { results[i], errs[i] = loadOne(ctx, a, each, began.Add(spell)) })
	}
	running.Wait()
	m := measured{took: time.Since(began), cpu: cpuOf(pids) - before, own: cpuOf(nil) - own}
	for _, r := range results {
		m.entries += r.entries
		m.latencies = append(m.latencies, r.latencies...)
	}
	sortLatencies(&m)
	return m, errors.Join(errs...)
}

func loadOne(ctx context.Context, a appender, window int, until time.Time) (m measured, err error) {
	// Owner: this goroutine, which closes it; the waiter takes. Its bound is the
	// window, with the one that the waiter holds.
	flying := make(chan ticket, max(window-1, 0))
	var waiter sync.WaitGroup
	var waited error
	m.latencies = make([]time.Duration, 0, 1<<16)
	waiter.Go(func() {
		for t := range flying {
			if waited != nil {
				continue
			}
			if waited = a.wait(ctx, t); waited == nil {
				m.latencies = append(m.latencies, time.Since(t.began))
			}
		}
	})
	for i := 0; err == nil; i++ {
		began := time.Now()
		if !began.Before(until) {
			break
		}
		var t ticket
		t, err = a.append(ctx, payloads[i%len(payloads)])
		t.began = began
		if err == nil && window == 1 {
			if err = a.wait(ctx, t); err == nil {
				m.latencies = append(m.latencies, time.Since(began))
			}
		} else if err == nil {
			flying <- t
		}
	}
	close(flying)
	waiter.Wait()
	m.entries = len(m.latencies)
	return m, errors.Join(err, waited)
}

// cpuOf is user and system time of this process and the others, in seconds.
func cpuOf(pids []int) float64 {
	var u syscall.Rusage
	total := 0.0
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err == nil {
		total = float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
	}
	for _, p := range pids {
		total += cpuSeconds(p)
	}
	return total
}
