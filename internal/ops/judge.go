package ops

import (
	"fmt"
	"strings"
	"time"

	"github.com/twinspan/twinspan/log/quorum"
)

// judge says in words what is not as it should be.
func (o *Overview) judge() {
	say := func(format string, args ...any) { o.Problems = append(o.Problems, fmt.Sprintf(format, args...)) }
	if o.Stale {
		say("the metadata has no leader: nothing can be opened, closed or changed; this is what %s knew last", o.StaleFrom)
	}
	for _, s := range o.Streams {
		if !s.Protected {
			say("stream %s is confirmed without its full rule (%s instead of %s)", s.Name, s.Rule, s.Policy.Rule)
		}
		for _, m := range s.Members {
			if s.Open && m.Gone {
				say("stream %s: segment %d is open, and what %s held of it is gone; until a writer has opened the next one, do not lose another node", s.Name, s.Segment, m.Node)
			}
		}
		for _, w := range s.Windows {
			if w.RestoredAt.IsZero() {
				to := "now"
				if w.To >= 0 {
					to = fmt.Sprint(w.To)
				}
				say("stream %s: entries %d to %s were confirmed without the full rule since %s: %s", s.Name, w.From, to, w.Since.UTC().Format(time.RFC3339), w.Reason)
			}
		}
		switch {
		case s.Short == 1:
			say("stream %s: 1 closed segment lacks copies", s.Name)
		case s.Short > 1:
			say("stream %s: %d closed segments lack copies", s.Name, s.Short)
		}
		for _, l := range s.Lost {
			say("stream %s: group %s lost entries %d to %d to the cap on %s", s.Name, l.Group, l.From, l.To, l.At.UTC().Format(time.RFC3339))
		}
		for i, g := range s.Gaps {
			var before []string
			for _, c := range s.Cursors {
				if c.Offset < g.To {
					before = append(before, c.Group)
				}
			}
			to := g.To
			for _, next := range s.Gaps[i+1:] { // one step leads over gaps that touch
				if next.From == to+1 {
					to = next.To
				}
			}
			if len(before) > 0 {
				say("stream %s: entries %d to %d were given up on %s (%s), and %s has to be moved behind them: twinspan cursor seek GROUP --to %d",
					s.Name, g.From, g.To, g.At.UTC().Format(time.RFC3339), g.Reason, strings.Join(before, ", "), to)
			}
		}
		if s.Open && !s.covered() {
			say("stream %s: segment %d can't be ended any more, too many of its members lost their disks: twinspan log segments close %s --force says what is left",
				s.Name, s.Segment, s.Name)
		}
		if len(s.Degraded) > 0 {
			say("stream %s does without %s", s.Name, strings.Join(s.Degraded, ", "))
		}
	}
	for _, n := range o.Nodes {
		switch {
		case n.Quarantine != nil:
			say("node %s is quarantined since %s: it missed a takeover; twinspan log nodes rejoin %s takes it in again", n.Name, n.Quarantine.Since.UTC().Format(time.RFC3339), n.Name)
		case !n.Reachable:
			say("node %s does not answer: %s", n.Name, n.Error)
		case n.Error != "":
			say("node %s: %s", n.Name, n.Error)
		case n.Drained:
			say("node %s is drained: it takes part in no new segment", n.Name)
		}
		if n.Suspect > 0 {
			say("node %s holds %d damaged replicas", n.Name, n.Suspect)
		}
	}
}

// covered says that the members whose directories are still there know of all that
// was confirmed.
func (s *StreamView) covered() bool {
	var all, left []quorum.Member
	for _, m := range s.Members {
		x := quorum.Member{Node: m.Node, City: m.City}
		if all = append(all, x); m.Gone {
			left = append(left, x)
		}
	}
	if _, err := s.NodeRule.Of(all); err != nil {
		return true
	}
	if len(left) == 0 {
		return true
	}
	_, err := s.NodeRule.Of(left) // those who are gone could not have confirmed anything by themselves
	return err != nil
}
