// Package oracle runs random histories through the real schedules of package
// causality, in every order that lanes can take and with crashes anywhere, over a
// target in memory, and compares with applying the log serially. It has no
// goroutines and no clock: a seed repeats all of a history.
package oracle

import (
	"slices"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/internal/history"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// Bug is a rule that is turned off. The zero Bug is none.
type Bug struct {
	Name string
	mode *causality.Mode // the only one in which it shows; nil: Rows

	faults    causality.Faults
	table     func(history.Table) history.Table // how the keys are seen
	footprint func(causality.Footprint, *change.Row) causality.Footprint
	relane    bool // lanes are replaced without a drain
	noFloor   bool // the floor is stored without regard to the watermark
	lenient   bool // surprises of the target are no errors, conflicts remove the holder; only the end counts
	// mergeMoves: an UPDATE that moves the key is merged like any other.
	mergeMoves bool

	joint joint

	half   bool // a transaction is dispatched in two halves
	apart  bool // the place is stored before the rows, in a transaction of its own
	behind bool // the place is stored after the rows, in a transaction of its own
	blind  bool // after a crash each lane skips by its own place, though any lane may have had it
}

// joint are faults in how rows that follow each other are dispatched together.
type joint struct {
	alone   func(replay change.Place) change.Place // rows up to where are told one by one
	place   bool                                   // they have the place of their first
	touches bool                                   // they have the touches of their first
	tables  bool                                   // they may be of several tables
	lanes   bool                                   // they may belong to several lanes
}

// Stats tell how hard the histories were.
type Stats struct {
	Waits   int // a lane had to wait for another
	Skips   int // changes, or whole transactions, that were durable already
	Crashes int
	Batches int // committed
	Groups  int // of several transactions
	Joined  int // rows that were dispatched together with the one before
}

// Add sums up.
func (s *Stats) Add(o Stats) {
	s.Waits += o.Waits
	s.Skips += o.Skips
	s.Crashes += o.Crashes
	s.Batches += o.Batches
	s.Groups += o.Groups
	s.Joined += o.Joined
}

// Play runs one history in a mode. The error is a violation.
func Play(seed uint64, mode causality.Mode, b Bug, stats *Stats) error {
	if mode == causality.Rows {
		return playRows(seed, b, stats)
	}
	return playWhole(seed, mode, b, stats)
}

// Modes are those that histories run in.
func Modes() []causality.Mode {
	return []causality.Mode{causality.Rows, causality.Transactions, causality.Ordered}
}

// Mode in which the bug shows.
func (b Bug) Mode() causality.Mode {
	if b.mode != nil {
		return *b.mode
	}
	return causality.Rows
}

func bytesAreKeys(t history.Table) history.Table {
	def := *t.Def
	def.Columns = slices.Clone(def.Columns)
	for i := range def.Columns {
		if c := &def.Columns[i]; c.Collation != "" {
			c.Collation = "utf8mb4_0900_bin"
		}
	}
	t.Def = &def
	return t
}

func noPrefixes(t history.Table) history.Table {
	def := *t.Def
	def.Keys = slices.Clone(def.Keys)
	for i := range def.Keys {
		k := &def.Keys[i]
		k.Parts = slices.Clone(k.Parts)
		for j := range k.Parts {
			k.Parts[j].Prefix = 0
		}
	}
	t.Def = &def
	return t
}

func primaryOnly(t history.Table) history.Table {
	def := *t.Def
	if len(def.Keys) > 1 {
		def.Keys = def.Keys[:1]
	}
	t.Def = &def
	return t
}

// lastToo leaves the last durable row out of those that stay alone.
func lastToo(replay change.Place) change.Place {
	replay.Index--
	return replay
}

// Bugs are all seeded ones: each rule is there because leaving it out goes wrong.
func Bugs() []Bug {
	any, ordered := causality.Transactions, causality.Ordered
	return []Bug{
		{Name: "naive hashing", faults: causality.Faults{NoWaits: true}},
		{Name: "naive hashing, by the end state alone", faults: causality.Faults{NoWaits: true}, lenient: true},
		{Name: "independent lane checkpoints: lanes replay below their place", faults: causality.Faults{NoSkip: true}},
		{Name: "independent lane checkpoints, by the end state alone", faults: causality.Faults{NoSkip: true}, lenient: true},
		{Name: "bytes are equality", table: bytesAreKeys},
		{Name: "prefixes ignored", table: noPrefixes},
		{Name: "only the primary key", table: primaryOnly},
		{Name: "blind delete of a secondary key's holder", table: primaryOnly, lenient: true},
		{Name: "merge across a key change", mergeMoves: true},
		{Name: "foreign keys ignored: a cascade's order is lost", table: func(t history.Table) history.Table { t.Rep = schema.Name{}; return t }},
		{Name: "before images ignored", footprint: func(f causality.Footprint, r *change.Row) causality.Footprint {
			if r.Op == change.Update {
				f.Touches = f.Touches[len(f.Touches)/2:]
			}
			return f
		}},
		{Name: "lanes replaced without a drain", relane: true},
		{Name: "floor above the watermark", noFloor: true},
		{Name: "rows that are durable are dispatched together", joint: joint{alone: func(change.Place) change.Place { return causality.Start }}},
		{Name: "the last durable row is dispatched together with the next", joint: joint{alone: lastToo}},
		{Name: "the last durable row is dispatched together with the next, by the end state alone", joint: joint{alone: lastToo}, lenient: true},
		{Name: "the place of rows dispatched together is the first's", joint: joint{place: true}},
		{Name: "the keys of rows dispatched together are the first's", joint: joint{touches: true}},
		{Name: "rows of several tables are dispatched together", joint: joint{tables: true}},
		{Name: "rows of several lanes are dispatched together", joint: joint{lanes: true}},
		{Name: "commits in any order", mode: &ordered, faults: causality.Faults{NoOrder: true}},
		{Name: "keys ignored", mode: &ordered, faults: causality.Faults{NoWaits: true}},
		{Name: "keys ignored, any order", mode: &any, faults: causality.Faults{NoWaits: true}},
		{Name: "only the newest wait kept", mode: &ordered, faults: causality.Faults{Newest: true}},
		{Name: "half a transaction visible", mode: &ordered, half: true},
		{Name: "place stored before the rows", mode: &ordered, apart: true},
		{Name: "place stored before the rows, any order", mode: &any, apart: true},
		{Name: "place stored after the rows", mode: &ordered, behind: true},
		{Name: "place stored after the rows, any order", mode: &any, behind: true},
		{Name: "what is durable applied again", mode: &ordered, faults: causality.Faults{NoSkip: true}},
		{Name: "lanes skip by their own places", mode: &ordered, blind: true},
	}
}
