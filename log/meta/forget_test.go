package meta

import (
	"errors"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// TestForgetTheLastHolder: what only the node held is lost by name or not at all, and
// the record says who accepted it.
func TestForgetTheLastHolder(t *testing.T) {
	w := newWorld(t)
	w.create("s", LossDegradeAfter)
	w.open("s", true, "a1", "b1")
	w.roll("s", 10, []string{"a1"}, true, "a1", "b1")
	w.roll("s", 10, []string{"a1"}, true, "a1", "b1")
	w.roll("s", 10, []string{"a1", "b1"}, true, "b1", "a2")
	forget := func(lose ...Losing) Command {
		return Command{Forget: &Forget{Node: "a1", UUID: "id-a1", Lose: lose}, By: "ann", Reason: "both disks are gone"}
	}
	w.fails(log.ErrProtocol, forget())
	w.fails(log.ErrProtocol, forget(Losing{"s", 1}))                 // and 2
	w.fails(log.ErrProtocol, forget(Losing{"s", 1}, Losing{"t", 2})) // of another stream
	w.do(forget(Losing{"s", 1}, Losing{"s", 2}, Losing{"s", 3}))     // the third is held by b1 as well
	st := w.stream("s")
	if len(st.Gaps) != 2 || st.Gaps[0].From != 0 || st.Gaps[0].To != 9 || st.Gaps[1].From != 10 || st.Gaps[1].To != 19 ||
		st.Gaps[0].By != "ann" || st.Gaps[0].Reason != "node a1 was forgotten: both disks are gone" {
		t.Fatalf("gaps %+v", st.Gaps)
	}
	for n, lost := range map[uint32]bool{1: true, 2: true, 3: false} {
		if s, ok := w.s.View().Segment("s", n); !ok || s.Lost != lost || len(s.Holders) != map[bool]int{true: 0, false: 1}[lost] {
			t.Fatalf("segment %d: %+v", n, s)
		}
	}
	for _, x := range st.Windows {
		if x.From <= 19 && !x.Trimmed {
			t.Fatalf("a window of what is lost ends as if it had been copied: %+v", x)
		}
	}
	w.do(forget()) // it is repeated
	w.fails(log.ErrTrimmed, Command{Held: &Held{Stream: "s", Segment: 1, Member: quorum.Member{Node: "b1", UUID: "id-b1", City: "b"}}})
}

// TestForgetByForceIsRefused: nobody can orphan segments without naming them.
func TestForgetByForceIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a1")
	client := c.client()
	c.register(client, "a1")
	_, err := client.Do(within(t, 20*time.Second), Command{Forget: &Forget{Node: "a1", UUID: "id-a1", Force: true}})
	if !errors.Is(err, log.ErrProtocol) {
		t.Fatalf("forgotten by force: %v", err)
	}
}
