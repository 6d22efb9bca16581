package check

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/twinspan/twinspan/test/chaos/history"
)

// Verdict of Linearizable on one stream.
type Verdict struct {
	Stream     string
	Operations int
	Took       time.Duration
	// Result is porcupine.Unknown when the time was not enough.
	Result porcupine.CheckResult
}

// The operations of the model. A stream is a list of entries and the epoch of its
// newest writer.
type (
	modelOpen struct {
		epoch uint64
		tail  int64
	}
	modelAppend struct {
		id     string
		epoch  uint64
		offset int64
	}
	modelRead struct {
		id     string
		offset int64
	}
	// modelBounds tells the end; if atLeast, something that was the end once.
	modelBounds struct {
		last    int64
		atLeast bool
	}
)

// modelState is immutable. Its entries are a list from the newest to the oldest;
// two states are equal when length, epoch and the sum over all entries are.
type modelState struct {
	epoch  uint64
	length int64
	sum    uint64
	newest *link
}

type link struct {
	id     string
	before *link
	// skip is the entry skipBy places before this one, so that an old one is
	// found without walking over all of them.
	skip *link
}

const skipBy = 64

func (s modelState) at(offset int64) (string, bool) {
	if offset < 0 || offset >= s.length {
		return "", false
	}
	l := s.newest
	for back := s.length - 1 - offset; back > 0; {
		if back >= skipBy && l.skip != nil {
			l, back = l.skip, back-skipBy
		} else {
			l, back = l.before, back-1
		}
	}
	return l.id, true
}

func (s modelState) with(id string) modelState {
	l := &link{id: id, before: s.newest}
	if s.length >= skipBy {
		l.skip = s.newest
		for range skipBy - 1 {
			l.skip = l.skip.before
		}
	}
	return modelState{epoch: s.epoch, length: s.length + 1, sum: s.sum*1099511628211 + history.Sum([]byte(id)), newest: l}
}

// model of one stream.
var model = porcupine.Model{
	Init: func() any { return modelState{} },
	Step: func(state, input, _ any) (bool, any) {
		s := state.(modelState)
		switch op := input.(type) {
		case modelOpen:
			if op.epoch <= s.epoch || op.tail != s.length-1 {
				return false, s
			}
			s.epoch = op.epoch
			return true, s
		case modelAppend:
			if op.epoch != s.epoch || op.offset != s.length {
				return false, s
			}
			return true, s.with(op.id)
		case modelRead:
			id, ok := s.at(op.offset)
			return ok && id == op.id, s
		case modelBounds:
			return op.last == s.length-1 || op.atLeast && op.last < s.length, s
		default:
			panic(fmt.Sprintf("%T in a history", input)) // operations below makes no other
		}
	},
	Equal: func(a, b any) bool {
		x, y := a.(modelState), b.(modelState)
		return x.epoch == y.epoch && x.length == y.length && x.sum == y.sum
	},
	Hash:              func(state any) uint64 { s := state.(modelState); return s.sum ^ s.epoch<<32 ^ uint64(s.length) },
	DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%T%+v", input, input) },
	DescribeState: func(state any) string {
		s := state.(modelState)
		return fmt.Sprintf("epoch %d, %d entries", s.epoch, s.length)
	},
}

// Linearizable looks, for each stream of up to operationsMax operations, for one
// order of all of them that explains what everybody was told, and gives up after
// timeout. Longer ones are left out of the answer.
func Linearizable(records []history.Record, o Options, operationsMax int, timeout time.Duration) ([]Verdict, error) {
	h, err := gather(records)
	if err != nil {
		return nil, err
	}
	var out []Verdict
	for _, s := range h.sorted() {
		ops := s.operations(records, o)
		if len(ops) == 0 || len(ops) > operationsMax {
			continue
		}
		began := time.Now()
		result := porcupine.CheckOperationsTimeout(model, ops, timeout)
		out = append(out, Verdict{Stream: s.name, Operations: len(ops), Took: time.Since(began), Result: result})
	}
	return out, nil
}

// operations makes porcupine's history. An append of unknown outcome that no
// reader ever saw had no effect that anybody could tell, so it is left out; one
// that was seen took place before it was, at the offset where it was seen. An
// opening that failed may have fenced others, which only ever makes less happen.
func (s *stream) operations(records []history.Record, o Options) []porcupine.Operation {
	var ops []porcupine.Operation
	clients := map[string]int{}
	add := func(process string, call, back int64, input any) {
		if _, ok := clients[process]; !ok {
			clients[process] = len(clients)
		}
		ops = append(ops, porcupine.Operation{ClientId: clients[process], Input: input, Call: call, Return: back})
	}
	for _, w := range s.writers {
		if w.opened != never {
			add(w.process, w.invoked, w.opened, modelOpen{w.epoch, w.tail})
		}
	}
	seen := map[string]history.Seen{}
	for _, v := range s.seen {
		if first, ok := seen[v.ID]; !ok || v.At < first.At {
			seen[v.ID] = v.Seen
		}
	}
	for _, e := range s.order {
		v, ok := seen[e.id]
		switch {
		case e.confirmed != never && ok:
			add(e.writer.process, e.invoked, max(e.invoked, min(e.confirmed, v.At)), modelAppend{e.id, e.writer.epoch, e.offset})
		case e.confirmed != never:
			add(e.writer.process, e.invoked, e.confirmed, modelAppend{e.id, e.writer.epoch, e.offset})
		case ok:
			add(e.writer.process, e.invoked, max(e.invoked, v.At), modelAppend{e.id, e.writer.epoch, v.Offset})
		}
	}
	for _, b := range s.bounds {
		add(b.Process, b.From, b.At, modelBounds{b.Offset, !o.StrongBounds})
	}
	for _, f := range s.finals {
		if f.Err == "" {
			add(f.Process, f.At, f.At, modelBounds{last: f.Offset - 1})
		}
	}
	for _, r := range records {
		if r.Kind != history.Read || r.Stream != s.name {
			continue
		}
		for _, e := range r.Seen {
			add(r.Process, e.At, e.At, modelRead{e.ID, e.Offset})
		}
	}
	slices.SortStableFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	return ops
}
