package causality

import "github.com/twinspan/twinspan/change"

// Group is rows that follow each other in the log and are dispatched as one item:
// they share lane and table. Its place is that of its last row.
type Group[K comparable] struct {
	Table K
	First change.Place
	Rows  int
	Cost  int64

	home     uint64
	lane     int
	from, to int // the touches of all its rows
}

// Last is the place of the last row.
func (g *Group[K]) Last() change.Place {
	return change.Place{Offset: g.First.Offset, Index: g.First.Index + int32(g.Rows) - 1}
}

// Groups puts rows together for dispatch; K tells tables apart. It belongs to one
// goroutine and keeps its memory from one use to the next. The zero value is ready for
// Begin.
type Groups[K comparable] struct {
	lanes   int
	limits  Limits
	alone   change.Place
	groups  []Group[K]
	touches []uint64
}

// Begin starts anew, for rows in log order without a gap between their places. No
// group exceeds the limits, unless a single row does. Rows at or before alone are not
// joined by others: what an owner before may have applied has to be told row by row,
// since a lane may stand anywhere within it.
func (s *Groups[K]) Begin(lanes int, limits Limits, alone change.Place) {
	s.lanes, s.limits, s.alone = lanes, limits, alone
	s.groups, s.touches = s.groups[:0], s.touches[:0]
}

// Scratch is what the next row's Footprint appends its touches to.
func (s *Groups[K]) Scratch() []uint64 { return s.touches }

// Row takes in the next row, with its footprint over Scratch.
func (s *Groups[K]) Row(p change.Place, f Footprint, table K, cost int64) {
	from := len(s.touches)
	if f.Touches != nil {
		s.touches = f.Touches
	}
	lane := LaneOf(f, s.lanes)
	if n := len(s.groups) - 1; n >= 0 {
		g := &s.groups[n]
		if g.Table == table && g.lane == lane && g.First.Compare(s.alone) > 0 &&
			g.Rows < s.limits.Rows && g.Cost+cost <= s.limits.Cost {
			g.Rows, g.Cost, g.to = g.Rows+1, g.Cost+cost, len(s.touches)
			return
		}
	}
	s.groups = append(s.groups, Group[K]{Table: table, First: p, Rows: 1, Cost: cost,
		home: f.Home, lane: lane, from: from, to: len(s.touches)})
}

// All are the groups since Begin, until the next.
func (s *Groups[K]) All() []Group[K] { return s.groups }

// Footprint of all rows of one of the groups.
func (s *Groups[K]) Footprint(g *Group[K]) Footprint {
	return Footprint{Home: g.home, Touches: s.touches[g.from:g.to]}
}
