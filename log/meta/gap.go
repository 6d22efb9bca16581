package meta

import (
	"fmt"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// GapMax bounds what one forced close may pass over.
const GapMax = 1 << 50

// lose makes the offsets behind the segment that was just closed a gap. Where that
// segment stayed empty the gap begins with it.
func (st *stream) lose(v *View, c *Close, l *Lost) error {
	for _, x := range st.Cursors {
		if x.Offset > l.To {
			return fmt.Errorf("group %q stands at %d, behind the loss up to %d: %w", x.Group, x.Offset, l.To, log.ErrProtocol)
		}
	}
	switch {
	case l.To <= c.Last || l.To-c.Last > GapMax:
		return fmt.Errorf("a loss from %d to %d: %w", c.Last+1, l.To, log.ErrProtocol)
	case st.live.count+st.kept.count >= SegmentsMax:
		return fmt.Errorf("there are %d segments already: %w", SegmentsMax, log.ErrFull)
	}
	st.pass(v, quorum.Descriptor{Epoch: st.Epoch, Generation: v.generation, Rule: st.Policy.Rule}, l.To, st.NextLSO, l.Reason, l.By)
	return nil
}

// pass lists a segment that nobody has, from where the stream ends up to to, and
// records the gap. lso is where transactions end behind it.
func (st *stream) pass(v *View, d quorum.Descriptor, to, lso log.Offset, reason, by string) {
	d.Stream, d.Segment, d.First, d.FirstLSO, d.Protected = st.Name, st.NextSegment, st.NextFirst, st.NextLSO, false
	st.live.push(&Segment{Descriptor: d, Closed: true, Last: to, LSO: lso, ClosedAt: v.now, Lost: true})
	st.NextSegment, st.NextFirst, st.NextLSO = d.Segment+1, to+1, lso
	st.gap(v, d.First, to, reason, by)
}

// gapsMax of a stream are remembered; the oldest are dropped.
const gapsMax = 1024
