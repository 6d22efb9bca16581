package applier

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/change"
)

// relaning calls before and after each try to replace the lanes.
type relaning struct {
	*client
	before, after func()
}

func (w *relaning) relane(ctx context.Context, epoch uint64, lanes int, m causality.Mode, p change.Place) error {
	w.before()
	defer w.after()
	return w.client.relane(ctx, epoch, lanes, m, p)
}

// TestSaveWhileLanesAreReplaced: who stores the floor while the target has other
// lanes already, or may have, finds nothing wrong with that.
func TestSaveWhileLanesAreReplaced(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	h := newHostile(1, 0)
	saves := 0
	var s *shell
	s = newShell(ctx, t, Config{ProgressInterval: time.Millisecond}, h, func(c *client) backend {
		save := func() {
			saves++
			if err := s.a.saveProgress(ctx, true); err != nil {
				t.Errorf("save: %v", err)
			}
		}
		return &relaning{c, save, save}
	})
	s.feed(s.inserts(shellTable))
	if err := s.a.SetLanes(5); err != nil {
		t.Fatal(err)
	}
	for len(s.a.Status().Lanes) != 5 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	s.feed(s.inserts(shellTable))
	s.settled() // it is stored again
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if saves != 2 {
		t.Errorf("%d saves", saves)
	}
}

// TestTargetLosesFloorWhileLanesAreReplaced: a target that went back since the floor
// was stored is not given lanes that stand there.
func TestTargetLosesFloorWhileLanesAreReplaced(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	h := newHostile(1, 0)
	s := newShell(ctx, t, Config{ProgressInterval: time.Millisecond}, h, func(c *client) backend {
		lose := func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.regress()
		}
		return &relaning{c, lose, func() {}}
	})
	s.feed(s.inserts(shellTable))
	s.settled()
	h.mu.Lock()
	h.snapshot()
	h.mu.Unlock()
	s.feed(s.inserts(shellTable))
	s.settled()
	if err := s.a.SetLanes(5); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.a.ended:
	case <-ctx.Done():
	}
	if err := s.end(); !errors.Is(err, ErrRegressed) {
		t.Errorf("Run: %v", err)
	}
	if len(h.lanes) != 2 || len(h.rows) != 1 {
		t.Errorf("lanes %v, rows %v", h.lanes, h.rows)
	}
}

// TestTargetLosesChangeOfLanes: a target that lost the change itself, whether it was of
// their number or of their rules alone, is not written to by what it does not know of.
func TestTargetLosesChangeOfLanes(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, *shell, *hostile){
		"number": func(t *testing.T, s *shell, h *hostile) {
			if err := s.a.SetLanes(5); err != nil {
				t.Fatal(err)
			}
			for len(s.a.Status().Lanes) != 5 && s.ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
		},
		"rules": func(t *testing.T, s *shell, h *hostile) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.saved.routing-- // the places are the same
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			h := newHostile(1, 0)
			s := newShell(ctx, t, Config{ProgressInterval: time.Millisecond}, h, func(c *client) backend { return c })
			s.feed(s.inserts(shellTable))
			s.settled()
			h.mu.Lock()
			h.snapshot()
			h.mu.Unlock()
			lose(t, s, h)
			h.mu.Lock()
			h.regress()
			h.mu.Unlock()
			_ = s.part(false, s.inserts(shellTable)) // fails where the applier has noticed already
			select {
			case <-s.a.ended:
			case <-ctx.Done():
			}
			if err := s.end(); !errors.Is(err, ErrRegressed) {
				t.Errorf("Run: %v", err)
			}
			if len(h.rows) != 1 {
				t.Errorf("rows %v", h.rows)
			}
		})
	}
}
