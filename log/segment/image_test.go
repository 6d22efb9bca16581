package segment_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
)

var (
	imageSeed = flag.Uint64("image.seed", 0, "replay one seed of the crash-image test")
	imageRuns = flag.Int("image.runs", 40, "seeds of the crash-image test")
)

// promise is what has been promised to callers: it must hold in every image taken
// later.
type promise struct {
	mu      sync.Mutex
	acked   map[string]log.Offset
	epoch   map[string]log.Epoch
	cursors map[string]log.Offset
	history map[string][]map[string]bool // payloads ever appended at an offset
}

func newPromise() *promise {
	return &promise{acked: map[string]log.Offset{}, epoch: map[string]log.Epoch{}, cursors: map[string]log.Offset{}, history: map[string][]map[string]bool{}}
}

func (p *promise) copy() *promise {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := newPromise()
	for k, v := range p.acked {
		q.acked[k] = v
	}
	for k, v := range p.epoch {
		q.epoch[k] = v
	}
	for k, v := range p.cursors {
		q.cursors[k] = v
	}
	for k, v := range p.history {
		q.history[k] = append([]map[string]bool(nil), v...)
	}
	return q
}

// tried notes that the payload was appended at an offset; until one is confirmed
// several may have been.
func (p *promise) tried(stream string, o log.Offset, payload string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.history[stream]
	for len(h) <= int(o) {
		h = append(h, nil)
	}
	m := map[string]bool{payload: true}
	for k := range h[o] {
		m[k] = true
	}
	h[o] = m
	p.history[stream] = h
}

// image is a disk a crash could leave, with what had been promised by then.
type image struct {
	disk    *vfs.Disk
	promise *promise
	op      vfs.Op
}

func imageConfig(d *vfs.Disk) segment.Config {
	return segment.Config{
		Dir: "/log", Name: "a1", FileBytes: 64 << 10, GroupBytes: 16 << 10, SegmentBytes: 48 << 10, IdleCommit: time.Millisecond,
		RetentionEvery: 3 * time.Millisecond, Retention: segment.Retention{BytesMax: 1}, RetryEvery: 5 * time.Millisecond,
		FS: d, Logger: zerolog.Nop(),
	}
}

// TestCrashImages runs a random load over a disk in memory and takes, before and
// after operations of every kind, images of the disk as a power cut could leave
// it. Each image must open, keep every promise made before it was taken, and take
// new entries; half of them are crashed once more while they do.
func TestCrashImages(t *testing.T) {
	runs := *imageRuns
	if testing.Short() {
		runs = 8
	}
	base := uint64(time.Now().UnixNano())
	if *imageSeed != 0 {
		base, runs = *imageSeed, 1
	}
	images := 0
	for i := range runs {
		seed := base + uint64(i)
		n, err := crashRun(seed)
		images += n
		if err != nil {
			t.Fatalf("seed %d (go test -run TestCrashImages -image.seed %d): %v", seed, seed, err)
		}
	}
	t.Logf("0 failures in %d images of %d seeds from %d", images, runs, base)
}

func crashRun(seed uint64) (int, error) {
	r := rand.New(rand.NewPCG(seed, 7))
	disk, p := vfs.NewDisk(), newPromise()
	taken := 0
	for depth := range 4 {
		images, err := load(r, disk, p)
		if err != nil {
			return taken, fmt.Errorf("depth %d: %w", depth, err)
		}
		taken += len(images)
		for _, im := range images {
			if err := verify(im); err != nil {
				return taken, fmt.Errorf("depth %d, image at op %d (%s %s): %w", depth, im.op.Seq, im.op.Kind, im.op.Name, err)
			}
		}
		if len(images) == 0 {
			return taken, nil
		}
		next := images[r.IntN(len(images))]
		disk, p = next.disk, next.promise
	}
	return taken, nil
}

// load runs a store on the disk for a while and returns images taken meanwhile.
// The images are copies: what verify does to one does not matter to the others.
func load(r *rand.Rand, disk *vfs.Disk, p *promise) ([]image, error) {
	var mu sync.Mutex
	var images []image
	chance := r.IntN(6) + 2
	rr := rand.New(rand.NewPCG(r.Uint64(), 3)) // guarded by mu
	take := func(op vfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		if len(images) < 40 && rr.IntN(chance) == 0 {
			// The promise first: what is promised after it may be missing.
			q := p.copy()
			images = append(images, image{disk.Image(rr), q, op})
		}
	}
	disk.SetHook(func(op vfs.Op) vfs.Fault { take(op); return vfs.Fault{} })
	disk.SetAfter(take)
	s, err := segment.Open(imageConfig(disk))
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.Background()) }()
	err = work(r, s, p)
	closeErr := s.Close()
	disk.SetHook(nil)
	disk.SetAfter(nil)
	// The last image: everything was closed.
	mu.Lock()
	defer mu.Unlock()
	images = append(images, image{disk.Image(rr), p.copy(), vfs.Op{Kind: "closed"}})
	return images, errors.Join(err, closeErr, <-ran)
}

func work(r *rand.Rand, s *segment.Store, p *promise) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, name := range []string{"a", "b", "c"}[:1+r.IntN(3)] {
		st, status, err := s.Fence(ctx, name, 0, true)
		if err != nil {
			return err
		}
		p.mu.Lock()
		acked, known := p.acked[name]
		epoch := p.epoch[name]
		p.epoch[name] = status.Epoch
		p.mu.Unlock()
		if known && status.Last < acked {
			return fmt.Errorf("stream %s: last %d, but %d was confirmed", name, status.Last, acked)
		}
		if status.Epoch <= epoch {
			return fmt.Errorf("stream %s: epoch %d after %d", name, status.Epoch, epoch)
		}
		o := status.Last + 1
		for range r.IntN(30) {
			n := 1 + r.IntN(20)
			for range n {
				b := make([]byte, 1+r.IntN(1<<r.IntN(14)))
				for i := range b {
					b[i] = byte(r.Uint32())
				}
				topic := log.TopicData
				if r.IntN(10) == 0 {
					topic = log.TopicSchema
				}
				p.tried(name, o, string(b))
				err := st.Append(ctx, &segment.Append{
					Epoch: status.Epoch, Offset: o, LAC: log.None, Topic: topic, Ends: r.IntN(3) > 0,
					Time: time.Now().UnixMicro(), Checksum: segment.Checksum(b), Payload: b,
				})
				if err != nil {
					return err
				}
				o++
			}
			if r.IntN(2) == 0 {
				if err := durable(ctx, st, o-1); err != nil {
					return err
				}
				p.mu.Lock()
				p.acked[name] = o - 1
				p.mu.Unlock()
				if r.IntN(3) == 0 {
					if err := st.StoreCursor(log.Cursor{Group: "g", Offset: o - 1}); err != nil {
						return err
					}
					p.mu.Lock()
					p.cursors[name] = o - 1
					p.mu.Unlock()
				}
			}
			if r.IntN(8) == 0 {
				time.Sleep(2 * time.Millisecond) // an idle commit, retention
			}
		}
	}
	return nil
}

func durable(ctx context.Context, st *segment.Stream, o log.Offset) error {
	for {
		status, changed, err := st.Status()
		if err != nil {
			return err
		}
		if status.Last >= o {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// verify opens an image, which it uses up, and checks every promise.
func verify(im image) error {
	d := im.disk.Restart() // the image itself may be loaded on
	s, err := segment.Open(imageConfig(d))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.Background()) }()
	err = holds(s, im.promise)
	return errors.Join(err, s.Close(), <-ran)
}

func holds(s *segment.Store, p *promise) error {
	for name, acked := range p.acked {
		st, err := s.Stream(name)
		if err != nil {
			return err
		}
		status, _, err := st.Status()
		if err != nil {
			return err
		}
		if status.Last < acked || status.Suspect {
			return fmt.Errorf("stream %s: last %d, suspect %v, but %d was confirmed", name, status.Last, status.Suspect, acked)
		}
		if status.Epoch < p.epoch[name] {
			return fmt.Errorf("stream %s: epoch %d, was %d", name, status.Epoch, p.epoch[name])
		}
		if c, ok := p.cursors[name]; ok {
			if got := st.Cursors(); len(got) != 1 || got[0].Offset < c {
				return fmt.Errorf("stream %s: cursors %+v, want at least %d", name, got, c)
			}
			if status.First > st.Cursors()[0].Offset+1 {
				return fmt.Errorf("stream %s: trimmed to %d beyond the cursor %d", name, status.First, st.Cursors()[0].Offset)
			}
		} else if status.First > 0 && len(st.Cursors()) == 0 {
			return fmt.Errorf("stream %s: trimmed to %d without a cursor", name, status.First)
		}
		// The first offset may move on while we read; then start again there.
		for {
			first := st.Bounds().First
			entries, err := readAll(st, segment.Query{From: first})
			if errors.Is(err, log.ErrTrimmed) || errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if len(entries) > 0 && entries[0].Offset != first && first <= status.Last {
				return fmt.Errorf("stream %s: first entry %d, want %d", name, entries[0].Offset, first)
			}
			for i, e := range entries {
				if e.Offset != first+log.Offset(i) || !p.history[name][e.Offset][string(e.Payload)] {
					return fmt.Errorf("stream %s: entry %d (the %d. from %d) was never appended there", name, e.Offset, i, first)
				}
			}
			if len(entries) < int(acked-first+1) {
				return fmt.Errorf("stream %s: %d entries from %d, but %d was confirmed", name, len(entries), first, acked)
			}
			break
		}
		// What the schema topic held is readable from the beginning.
		if _, err := readAll(st, segment.Query{Topics: []log.Topic{log.TopicSchema}}); err != nil {
			return fmt.Errorf("stream %s: schema topic: %w", name, err)
		}
	}
	return nil
}

// TestFailedWrites lets each operation of a load fail once, without effect and
// after taking effect: the journal must be dead for good, and what was confirmed
// must survive, in the same boot and after a power cut.
func TestFailedWrites(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpWrite, vfs.OpSync, vfs.OpRename, vfs.OpSyncDir, vfs.OpCreate} {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/took effect %v", kind, done), func(t *testing.T) {
				times := 12
				if testing.Short() {
					times = 3
				}
				for nth := range times {
					failOnce(t, kind, nth, done)
				}
			})
		}
	}
}

func failOnce(t *testing.T, kind vfs.OpKind, nth int, done bool) {
	t.Helper()
	disk, p := vfs.NewDisk(), newPromise()
	s, err := segment.Open(imageConfig(disk))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen, fired := 0, false
	disk.SetHook(func(op vfs.Op) vfs.Fault {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind == kind {
			if seen++; seen == nth+1 {
				fired = true
				return vfs.Fault{Err: syscall.EIO, Done: done}
			}
		}
		return vfs.Fault{}
	})
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.Background()) }()
	r := rand.New(rand.NewPCG(uint64(nth), 11))
	var workErr error
	for range 3 {
		if workErr = work(r, s, p); workErr != nil {
			break
		}
	}
	mu.Lock()
	failed := fired
	mu.Unlock()
	if failed {
		// Never tried again: nothing is taken after the failure was noticed.
		if s.Fault() != nil {
			if _, _, err := s.Fence(context.Background(), "a", 0, true); !errors.Is(err, log.ErrUnavailable) {
				t.Fatalf("%d. %s: fence on a dead journal: %v", nth, kind, err)
			}
		}
	}
	closeErr := s.Close()
	runErr := <-ran
	if (s.Fault() != nil) != (runErr != nil) || closeErr != nil {
		t.Fatalf("%d. %s: fault %v, Run %v, Close %v", nth, kind, s.Fault(), runErr, closeErr)
	}
	if failed && runErr == nil {
		t.Fatalf("%d. %s failed, but the journal lives on (%v)", nth, kind, workErr)
	}
	if runErr != nil && !errors.Is(runErr, syscall.EIO) {
		t.Fatalf("%d. %s: Run ends with %v", nth, kind, runErr)
	}
	disk.SetHook(nil)
	for name, d := range map[string]*vfs.Disk{
		"same boot": disk.Restart(), "power cut": disk.Image(rand.New(rand.NewPCG(uint64(nth), 5))),
	} {
		if err := verify(image{disk: d, promise: p.copy()}); err != nil {
			t.Fatalf("%d. %s, %s: %v", nth, kind, name, err)
		}
		// The same boot goes on and then loses power: what was confirmed must
		// not hang on bytes that only the page cache has.
		after := d.Restart()
		q := p.copy()
		if _, err := load(rand.New(rand.NewPCG(9, 9)), after, q); err != nil {
			t.Fatalf("%d. %s, %s: %v", nth, kind, name, err)
		}
		for i := range 3 {
			if err := verify(image{disk: after.Image(rand.New(rand.NewPCG(uint64(i), 1))), promise: q}); err != nil {
				t.Fatalf("%d. %s, power cut after %s: %v", nth, kind, name, err)
			}
		}
	}
}
