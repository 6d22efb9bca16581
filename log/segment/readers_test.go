package segment_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
)

// TestReadersDuringMoves reads while segments leave the journal, their files are
// used again under the readers, and the oldest are compacted and given up: right
// bytes, or a plain answer that they are gone.
func TestReadersDuringMoves(t *testing.T) {
	c := crashConfig(vfs.NewDisk())
	c.IndexCacheBytes = 1
	c.OpenFilesMax = 2
	o := open(t, c)
	var mu sync.Mutex
	var live []*segment.Replica
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			var entries []segment.Stored
			var buf []byte
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				if len(live) == 0 {
					mu.Unlock()
					continue
				}
				rep := live[r.IntN(len(live))]
				mu.Unlock()
				info := rep.Info()
				from := info.First + log.Offset(r.Int64N(int64(info.LAC-info.First+2)))
				var next log.Offset
				var err error
				entries, buf, next, err = rep.Read(segment.Query{From: from}, entries, buf)
				if errors.Is(err, log.ErrElsewhere) || errors.Is(err, log.ErrTrimmed) {
					continue
				}
				if err != nil || next != from+log.Offset(len(entries)) || len(entries) == 0 && from <= info.LAC {
					t.Errorf("%s: read from %d of %+v: %d entries, next %d, %v", rep.ID(), from, info, len(entries), next, err)
					return
				}
				for j, e := range entries {
					if want := entryAt("s", from+log.Offset(j), 1); e.Offset != want.Offset || string(e.Payload) != string(want.Payload) {
						t.Errorf("%s: entry %d is not what was written", rep.ID(), e.Offset)
						return
					}
				}
			}
		})
	}
	first := log.Offset(0)
	segments := uint32(60)
	if testing.Short() {
		segments = 15
	}
	for n := range segments {
		w := o.attach(describe("s", n+1, first, first-1, 1, 1), 1)
		for range 40 {
			e := entryAt("s", w.next, 1)
			if err := w.append(e.Topic, e.EndsTransaction, e.Payload); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.wait(), w.r.Close(ctx, w.next-1, max(lsoAt(w.next-1), first-1))); err != nil {
			t.Fatal(err)
		}
		first = w.next
		mu.Lock()
		live = append(live, w.r)
		old := live[0]
		if len(live) > 8 {
			live = live[1:]
		}
		mu.Unlock()
		if n > 8 && n%2 == 0 {
			if err := old.Compact(ctx, []log.Topic{log.TopicSchema}, 0); err != nil {
				t.Fatal(err)
			}
		}
		if n > 8 {
			if err := old.Drop(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	all.Wait()
	if s := o.Stats(); s.Suspect > 0 || s.Archivings == 0 {
		t.Fatalf("%+v", s)
	}
}

// TestReadDuringRename opens a replica's own file in the moment between the rename
// that replaces it and the store's taking note: that is no damage.
func TestReadDuringRename(t *testing.T) {
	disk := vfs.NewDisk()
	c := imageConfig(disk)
	c.OpenFilesMax = 1
	o := open(t, c)
	for _, stream := range []string{"s", "t"} {
		w := o.attach(describe(stream, 1, 0, log.None, 1, 3), 1)
		fill(t, w, 50)
		if err := errors.Join(w.end(), w.r.Compact(ctx, []log.Topic{log.TopicSchema, log.TopicData}, 0)); err != nil {
			t.Fatal(err)
		}
	}
	s, other := o.replica("s", 1), o.replica("t", 1)
	both := []log.Topic{log.TopicSchema, log.TopicData}
	read := make(chan error, 1) // one value, by the goroutine below
	var once sync.Once
	disk.SetHook(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSyncDir && op.Name == "/log/segments/s" {
			once.Do(func() {
				// The other one's file pushes this one's out of those that are open.
				if _, _, _, err := other.Read(segment.Query{Topics: both}, nil, nil); err != nil {
					t.Error(err)
				}
				go func() {
					_, _, _, err := s.Read(segment.Query{Topics: both}, nil, nil)
					read <- err
				}()
				time.Sleep(20 * time.Millisecond)
			})
		}
		return vfs.Fault{}
	})
	if err := s.Compact(ctx, []log.Topic{log.TopicSchema}, 0); err != nil {
		t.Fatal(err)
	}
	disk.SetHook(nil)
	if err := <-read; err != nil && !errors.Is(err, log.ErrTrimmed) {
		t.Fatal(err)
	}
	if i := s.Info(); i.Suspect || !i.Complete {
		t.Fatalf("%+v", i)
	}
}
