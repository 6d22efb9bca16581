package node

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// This file decides what the keeper does, as pure functions of the metadata.

// copyTask is one replica to make: of a closed segment, on a node that lacks it.
type copyTask struct {
	Stream  string
	Segment meta.Segment
	Target  meta.Node
	Sources []meta.Node // registered holders, those of the target's city first
	// Unprotected: without this copy the stream's rule does not hold.
	Unprotected bool
}

func memberOf(n meta.Node) quorum.Member {
	return quorum.Member{Node: n.Name, UUID: n.UUID, City: n.City}
}

// missingCopies lists what closed segments lack, the unprotected ones first: each
// registered member that is not a holder, a replacement in the same city for
// each member that was forgotten, and whatever else the stream's rule asks for.
// live says which nodes can take a copy now; a copy for one that cannot is not
// listed, unless the rule needs it and nobody else can be found.
func missingCopies(st *meta.Stream, nodes []meta.Node, live func(meta.Node) bool) []copyTask {
	var out []copyTask
	load := map[string]int{} // copies per node, so that replacements spread
	for _, g := range st.Segments {
		for _, h := range g.Holders {
			load[h.UUID]++
		}
	}
	byID := map[quorum.Member]meta.Node{}
	for _, n := range nodes {
		if !n.Witness {
			byID[memberOf(n)] = n
		}
	}
	for _, g := range st.Segments {
		if !g.Closed || g.Last < g.First || g.Lost {
			continue
		}
		holders, city := holdersOf(g, byID)
		var targets []meta.Node
		want := map[string]int{} // copies a city should have: as many as it had members
		for _, m := range g.Members {
			want[m.City]++
			n, known := byID[m]
			if known && !slices.Contains(holders, n) && live(n) {
				targets = append(targets, n)
			}
		}
		spare := func(in string) bool {
			var best []meta.Node
			for _, n := range nodes {
				if (in == "" || n.City == in) && !n.Witness && !n.Drained && live(n) && !slices.Contains(holders, n) && !slices.Contains(targets, n) {
					best = append(best, n)
				}
			}
			if len(best) == 0 {
				return false
			}
			n := slices.MinFunc(best, func(a, b meta.Node) int {
				return cmp.Or(cmp.Compare(load[a.UUID], load[b.UUID]), cmp.Compare(a.Name, b.Name))
			})
			targets = append(targets, n)
			load[n.UUID]++
			return true
		}
		planned := func(in string) int {
			n := city[in]
			for _, t := range targets {
				if t.City == in {
					n++
				}
			}
			return n
		}
		rule := st.Policy.Rule
		for c, least := range rule.Cities {
			want[c] = max(want[c], least)
		}
		cities := sortedKeys(want)
		for _, c := range cities {
			for planned(c) < want[c] && spare(c) {
			}
		}
		for len(holders)+len(targets) < max(rule.Total, 1) && spare("") {
		}
		short := !satisfied(rule, holders)
		for _, t := range targets {
			out = append(out, copyTask{
				Stream: st.Name, Segment: g, Target: t, Sources: nearFirst(holders, t.City),
				Unprotected: short && helps(rule, holders, t),
			})
		}
	}
	slices.SortStableFunc(out, func(a, b copyTask) int {
		if a.Unprotected != b.Unprotected {
			if a.Unprotected {
				return -1
			}
			return 1
		}
		return 0
	})
	return out
}

// holdersOf are the registered nodes that hold all of the segment, and how many
// of them each city has.
func holdersOf(g meta.Segment, byID map[quorum.Member]meta.Node) ([]meta.Node, map[string]int) {
	var holders []meta.Node
	city := map[string]int{}
	for _, h := range g.Holders {
		if n, ok := byID[h]; ok {
			holders = append(holders, n)
			city[n.City]++
		}
	}
	return holders, city
}

// satisfied says whether these nodes together satisfy the rule.
func satisfied(rule quorum.NodeRule, nodes []meta.Node) bool {
	members := make([]quorum.Member, 0, len(nodes))
	for _, n := range nodes {
		members = append(members, memberOf(n))
	}
	_, err := rule.Of(members)
	return err == nil
}

// helps says whether the rule, which holders do not satisfy, needs a node of the
// target's city.
func helps(rule quorum.NodeRule, holders []meta.Node, t meta.Node) bool {
	in := 0
	for _, h := range holders {
		if h.City == t.City {
			in++
		}
	}
	return in < rule.Cities[t.City] || len(holders) < max(rule.Total, 1)
}

func nearFirst(nodes []meta.Node, city string) []meta.Node {
	out := slices.Clone(nodes)
	far := func(n meta.Node) int {
		if n.City == city {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(out, func(a, b meta.Node) int { return far(a) - far(b) })
	return out
}

// trimming is what retention gives up of a stream.
type trimming struct {
	Before   log.Offset
	Segments []meta.Segment // that go, ascending
	Evict    bool           // above a cursor: the cap forces it
}

// trimOf decides how far the stream can be trimmed; false: not at all. Whole
// closed segments go, from the oldest, when they are below every cursor, beyond
// the size or the age of the policy, fully protected, and end with a transaction.
// The newest closed segment stays, because the producer finds its place in it. A
// stream without cursors keeps everything: its readers may not have come yet.
// Above BytesCap the cursors, and what protection lacks, are passed over.
func trimOf(st *meta.Stream, now time.Time) (trimming, bool) {
	p := st.Policy
	limit := log.None
	for i, c := range st.Cursors {
		if i == 0 || c.Offset < limit {
			limit = c.Offset
		}
	}
	var live []meta.Segment
	var behind int64
	for _, g := range st.Segments {
		if g.Closed && !g.Compacted {
			live = append(live, g)
			behind += g.Bytes
		}
	}
	var t trimming
	whole, evict := 0, false // segments that may go: a transaction ends there
	newest := len(live) - 1
	for newest > 0 && live[newest].Barren() {
		newest--
	}
	for i := 0; i < newest; i++ {
		g := &live[i]
		capped := p.BytesCap > 0 && behind > p.BytesCap
		behind -= g.Bytes
		large := p.BytesMax > 0 && behind >= p.BytesMax
		old := p.AgeMax > 0 && g.ClosedAt.Before(now.Add(-p.AgeMax))
		needed := len(st.Cursors) == 0 || g.Last > limit || underRepair(st, *g)
		if !capped && (needed || !large && !old) {
			break
		}
		evict = evict || needed
		if g.LSO == g.Last {
			whole, t.Evict = i+1, evict
		}
	}
	if whole == 0 {
		return trimming{}, false
	}
	t.Segments, t.Before = live[:whole], live[whole-1].Last+1
	return t, true
}

// underRepair says that the segment lies in a stretch that is not protected yet.
func underRepair(st *meta.Stream, g meta.Segment) bool {
	for _, w := range st.Windows {
		if w.RestoredAt.IsZero() && g.Last >= w.From && (w.To == log.None || g.First <= w.To) {
			return true
		}
	}
	return false
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
