package client

import (
	"testing"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/wire"
)

// TestTallied: what comes on a tally counts for the connection it was asked for
// alone. An acknowledgement of what the node had queued may overtake Attached.
func TestTallied(t *testing.T) {
	core, err := quorum.NewWriter(quorum.Descriptor{
		Stream: "s", Segment: 1, FirstLSO: log.None, Epoch: 1, Generation: 1, Protected: true, Rule: quorum.NodeRule{Total: 1},
		Members: []quorum.Member{{Node: "a1", UUID: "1", City: "a"}},
	}, quorum.Settings{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{client: &Client{}, core: core, ring: newRing(0), told: log.None, look: make(chan struct{}, 1)}
	s := &seat{w: w, segment: *core.Descriptor(), lac: log.None}
	w.seats = []*seat{s}
	for range 10 {
		o := core.Append(100, true)
		w.ring.add(&wire.Append{Offset: o, LAC: log.None, Ends: true, Payload: []byte("x")})
	}
	w.armed = true // no announcement
	check := func(want log.Offset) {
		t.Helper()
		if got := core.Confirmed(); got != want {
			t.Fatalf("confirmed up to %d, want %d", got, want)
		}
	}
	attach := func(last log.Offset, c *counted) {
		t.Helper()
		if err := s.attach(c.session, last, c); err != nil {
			t.Fatal(err)
		}
	}
	first := &counted{seat: s, session: &session{}, early: log.None}
	attach(log.None, first)
	s.tallied(first, 3)
	check(3)
	s.session = nil
	core.Broken(0, 1, 0)
	s.tallied(first, 5) // of a connection that is gone: the node may have lost it since
	check(3)
	second := &counted{seat: s, session: &session{}, early: log.None}
	s.tallied(second, 6) // before Attached was read
	check(3)
	attach(4, second)
	check(6)
	s.tallied(first, 8)
	check(6)
	s.tallied(second, 9)
	check(9)
}
