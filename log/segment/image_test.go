package segment_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
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
	imageRuns = flag.Int("image.runs", 30, "seeds of the crash-image test")
)

// image is a disk a crash could leave, with what had been promised by then.
type image struct {
	disk    *vfs.Disk
	promise *promise
	op      vfs.Op
}

func imageConfig(d *vfs.Disk) segment.Config {
	return segment.Config{
		Dir: "/log", Name: "a1", FileBytes: 64 << 10, GroupBytes: 16 << 10, IdleCommit: time.Millisecond,
		TidyEvery: 3 * time.Millisecond, RetryEvery: 5 * time.Millisecond, BlockBytes: 4 << 10,
		FS: d, Logger: zerolog.Nop(),
	}
}

// crashConfig makes replicas leave the journal early and often.
func crashConfig(d *vfs.Disk) segment.Config {
	c := imageConfig(d)
	c.JournalBytes = 192 << 10
	c.ClosedMax = 1
	c.OpenFilesMax = 3
	return c
}

// TestCrashImages runs a random load over a disk in memory (appends, seals,
// closes, archiving, repairs, compactions, drops) and takes, before and after
// operations of every kind, images of the disk as a power cut could leave it. Each
// image must open, keep every promise made before it was taken, and take new
// entries; half of them are crashed once more while they do.
func TestCrashImages(t *testing.T) {
	runs := *imageRuns
	if testing.Short() {
		runs = 4
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
	chance := r.IntN(20) + 2
	rr := rand.New(rand.NewPCG(r.Uint64(), 3)) // guarded by mu
	take := func(op vfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		if len(images) < 40 && rr.IntN(chance) == 0 {
			// Facts first, intents last: what is promised after the image was
			// taken may be missing in it, what was begun before may be there.
			q := p.copy()
			d := disk.Image(rr)
			q.intents = p.copy().intents
			images = append(images, image{d, q, op})
		}
	}
	disk.SetHook(func(op vfs.Op) vfs.Fault { take(op); return vfs.Fault{} })
	disk.SetAfter(take)
	c := crashConfig(disk)
	c.Compression = segment.Compression(r.IntN(3))
	s, err := segment.Open(c)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.Background()) }()
	for range 1 + r.IntN(4) {
		if err = work(r, s, p); err != nil {
			break
		}
	}
	closeErr := s.Close()
	disk.SetHook(nil)
	disk.SetAfter(nil)
	// The last image: everything was closed.
	mu.Lock()
	defer mu.Unlock()
	images = append(images, image{disk.Image(rr), p.copy(), vfs.Op{Kind: "closed"}})
	return images, errors.Join(err, closeErr, <-ran)
}

// verify opens an image, which it leaves as it is, and checks every promise.
func verify(im image) error {
	d := im.disk.Restart() // the image itself may be loaded on
	s, err := segment.Open(crashConfig(d))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.Background()) }()
	err = holds(s, im.promise)
	return errors.Join(err, s.Close(), <-ran)
}

// TestFailedWrites lets each operation of a load fail once, without effect and
// after taking effect: the journal must be dead for good, and what was promised
// must survive, in the same boot and after a power cut.
func TestFailedWrites(t *testing.T) {
	kinds := []vfs.OpKind{vfs.OpWrite, vfs.OpSync, vfs.OpRename, vfs.OpSyncDir, vfs.OpCreate, vfs.OpMkdir, vfs.OpRemove}
	fired := 0
	for _, kind := range kinds {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/took effect %v", kind, done), func(t *testing.T) {
				times := 12
				if testing.Short() {
					times = 2
				}
				for nth := range times {
					if failOnce(t, kind, nth*nth/2, done) {
						fired++
					}
				}
			})
		}
	}
	if fired == 0 {
		t.Fatal("nothing ever failed")
	}
}

func failOnce(t *testing.T, kind vfs.OpKind, nth int, done bool) bool {
	t.Helper()
	disk, p := vfs.NewDisk(), newPromise()
	s, err := segment.Open(crashConfig(disk))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen, fired, victim := 0, false, ""
	disk.SetHook(func(op vfs.Op) vfs.Fault {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind == kind && (kind != vfs.OpRemove || disk.Bytes(op.Name) != nil) {
			if seen++; seen == nth+1 {
				fired, victim = true, op.Name
				return vfs.Fault{Err: syscall.EIO, Done: done}
			}
		}
		return vfs.Fault{}
	})
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.Background()) }()
	r := rand.New(rand.NewPCG(uint64(nth), 11))
	var workErr error
	for range 6 {
		if workErr = work(r, s, p); workErr != nil {
			break
		}
	}
	if s.Fault() != nil { // never tried again: nothing is taken after the failure was noticed
		d := describe("a", 999, 1e6, 0, 1e6, 1)
		if _, _, err := s.Attach(context.Background(), d, 1e6); !errors.Is(err, log.ErrUnavailable) {
			t.Fatalf("%d. %s: attach on a dead journal: %v", nth, kind, err)
		}
	}
	closeErr := s.Close()
	runErr := <-ran
	mu.Lock()
	failed := fired
	mu.Unlock()
	if (s.Fault() != nil) != (runErr != nil) || closeErr != nil {
		t.Fatalf("%d. %s: fault %v, Run %v, Close %v", nth, kind, s.Fault(), runErr, closeErr)
	}
	if failed && runErr == nil {
		t.Fatalf("%d. %s failed (%s), but the journal lives on (%v)", nth, kind, victim, workErr)
	}
	if runErr != nil && !errors.Is(runErr, syscall.EIO) {
		t.Fatalf("%d. %s: Run ends with %v", nth, kind, runErr)
	}
	disk.SetHook(nil)
	cuts := 3
	if testing.Short() {
		cuts = 1
	}
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
		for i := range cuts {
			if err := verify(image{disk: after.Image(rand.New(rand.NewPCG(uint64(i), 1))), promise: q}); err != nil {
				t.Fatalf("%d. %s, power cut after %s: %v", nth, kind, name, err)
			}
		}
	}
	return failed
}
