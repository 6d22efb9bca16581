package segment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/vfs"
)

// settled is a store that is open and does nothing by itself, with six closed
// segments in its journal.
func settled(t *testing.T) *Store {
	t.Helper()
	disk := vfs.NewDisk()
	c := Config{Dir: "/log", Name: "a1", FileBytes: 64 << 10, GroupBytes: 16 << 10, JournalBytes: 64 << 20, BlockBytes: 4 << 10, FS: disk, Logger: zerolog.Nop()}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(t.Context()) }()
	ctx, next := context.Background(), log.Offset(0)
	for n := range uint32(6) {
		d := quorum.Descriptor{Stream: "s", Segment: n + 1, First: next, FirstLSO: next - 1, Epoch: 1, Members: []quorum.Member{{Node: "a1", City: "a"}}, Rule: quorum.NodeRule{Total: 1}}
		r, _, err := s.Attach(ctx, d, 1)
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			p := bytes.Repeat(fmt.Appendf(nil, "entry %d;", next), 200)
			if err := r.Append(ctx, &Append{Epoch: 1, Offset: next, LAC: next - 1, Ends: true, Topic: log.TopicData, Checksum: Checksum(p), Payload: p}); err != nil {
				t.Fatal(err)
			}
			next++
		}
		for r.Info().Held < next-1 {
			_, changed, err := r.Progress(1)
			if err != nil {
				t.Fatal(err)
			}
			if r.Info().Held < next-1 {
				<-changed
			}
		}
		if err := r.Close(ctx, next-1, next-1); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Close(), <-ran); err != nil {
		t.Fatal(err)
	}
	c.FS = disk.Restart()
	if s, err = Open(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *Store) chosen() (Range, bool) {
	r, w, ok := s.untidy(map[*Replica]bool{})
	if !ok {
		return Range{}, false
	}
	return Range{r.desc.First, w.upto}, true
}

// TestWhatLeaves: while something is appended the journal may keep what fits, and
// when nothing is, closed segments leave until there is room for a burst.
func TestWhatLeaves(t *testing.T) {
	s := settled(t)
	bytes := s.Stats().JournalBytes
	busy := func(is bool) {
		s.written.Store(0)
		if is {
			s.written.Store(time.Now().Add(time.Hour).UnixNano())
		}
	}
	oldest := Range{0, 39}
	for _, c := range []struct {
		name  string
		limit int64
		busy  bool
		want  bool
	}{
		{"small, quiet", 4 * bytes, false, false},
		{"small, busy", 4 * bytes, true, false},
		{"within its limit, quiet", 2 * bytes, false, true},
		{"within its limit, busy", 2 * bytes, true, false},
		{"too large, quiet", bytes - 1, false, true},
		{"too large, busy", bytes - 1, true, true},
	} {
		s.cfg.JournalBytes = c.limit
		busy(c.busy)
		if got, ok := s.chosen(); ok != c.want || ok && got != oldest {
			t.Errorf("%s: %v leaves: %v, want %v: %v", c.name, got, ok, oldest, c.want)
		}
	}
	s.cfg.JournalBytes, s.cfg.ClosedMax = 4*bytes, 5
	busy(true)
	if got, ok := s.chosen(); !ok || got != oldest {
		t.Errorf("too many closed segments: %v leaves: %v", got, ok)
	}
}

// TestPressure: archiving rests less the fuller the journal is, and beyond its
// limit it is the appends that wait, but only as long as something leaves.
func TestPressure(t *testing.T) {
	s := settled(t)
	bytes := s.Stats().JournalBytes
	pressure := func(limit int64) float64 {
		s.cfg.JournalBytes = limit
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.pressureLocked()
	}
	s.cfg.FileBytes = 1
	if p := pressure(bytes); p != 0 {
		t.Errorf("at its limit: %v", p)
	}
	if p := pressure(bytes * 2 / 3); p < 0.4 || p > 0.6 {
		t.Errorf("half as much again: %v", p)
	}
	if p := pressure(bytes / 3); p != 1 {
		t.Errorf("three times: %v", p)
	}
	s.hold(1 << 20)
	if h := s.Stats().Held; h != 0 {
		t.Errorf("held for %v, although nothing leaves", h)
	}
	s.moving = true
	s.hold(64 << 10)
	if h := s.Stats().Held; h <= 0 {
		t.Error("not held")
	}
	before := s.Stats().Held
	s.cfg.JournalBytes = bytes
	s.hold(1 << 30)
	if h := s.Stats().Held; h != before {
		t.Errorf("held for %v within its limit", h-before)
	}
	s.closedCount, s.cfg.ClosedMax = 100, 10
	if p := pressure(2 * bytes); p != 1 {
		t.Errorf("ten times the closed segments: %v", p)
	}
}

// TestRestEnds: neither archiving nor appends wait for ever.
func TestRestEnds(t *testing.T) {
	s := settled(t)
	s.written.Store(time.Now().Add(time.Hour).UnixNano()) // something is appended all the time
	r := s.replicas[ID{"s", 1}]
	for name, end := range map[string]func(){
		"the appends stop":    func() { s.written.Store(0) },
		"somebody waits":      func() { r.wanted.Add(1) },
		"the journal is full": func() { s.mu.Lock(); s.closedCount = 1 << 30; s.mu.Unlock() },
		"the store closes":    func() { s.mu.Lock(); s.closing = true; s.mu.Unlock() },
	} {
		done := make(chan struct{}) // closed by the goroutine below
		go func() {
			defer close(done)
			s.rest(r, time.Hour)
		}()
		end()
		select {
		case <-done:
		case <-time.After(15 * time.Second):
			t.Fatalf("it goes on although %s", name)
		}
		s.written.Store(time.Now().Add(time.Hour).UnixNano())
		r.wanted.Store(0)
		s.mu.Lock()
		s.closedCount, s.closing = 0, false
		s.mu.Unlock()
	}
	s.mu.Lock()
	s.cfg.JournalBytes, s.cfg.FileBytes, s.moving, s.closing = 1, 1, true, true
	s.mu.Unlock()
	s.hold(1 << 40) // hours, but for the end of the store
	s.mu.Lock()
	s.closing = false
	s.mu.Unlock()
}
