package check

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/twinspan/twinspan/test/chaos/history"
)

// script makes histories: two writers that take turns, and two readers, of a log
// that is a slice. Every call takes 10 ns.
type script struct {
	now     int64
	ops     map[string]int64
	records []history.Record
	log     []history.Seen // the truth
	epoch   uint64
	seq     map[string]int64
	known   map[string]map[int64]history.Seen
	session map[string]int64
}

func newScript() *script {
	return &script{
		now: 1000, ops: map[string]int64{}, seq: map[string]int64{}, known: map[string]map[int64]history.Seen{}, session: map[string]int64{},
	}
}

func (s *script) put(r history.Record) {
	s.now += 10
	r.At, r.Stream = s.now, "s"
	s.records = append(s.records, r)
}

func (s *script) op(p string) int64 { s.ops[p]++; return s.ops[p] }

func (s *script) open(p string) {
	op := s.op(p)
	s.session[p]++
	s.put(history.Record{Process: p, Op: op, Kind: history.Open, Phase: history.Invoke, Session: s.session[p]})
	s.epoch++
	s.put(history.Record{Process: p, Op: op, Kind: history.Open, Phase: history.OK, Session: s.session[p], Epoch: s.epoch, Offset: int64(len(s.log)) - 1})
}

// append says what its writer is told (ok), and whether it really happens.
func (s *script) append(p string, epoch uint64, ok, happens bool) string {
	op := s.op(p)
	id := history.ID(p, s.seq[p])
	s.seq[p]++
	o, sum := int64(len(s.log)), history.Sum([]byte(id))
	s.put(history.Record{Process: p, Op: op, Kind: history.Append, Phase: history.Invoke, Session: s.session[p], ID: id, Sum: sum})
	s.put(history.Record{Process: p, Op: op, Kind: history.Append, Phase: history.Queued, Offset: o})
	if happens {
		s.log = append(s.log, history.Seen{Offset: o, Epoch: epoch, ID: id, Sum: sum, Rest: 7})
	}
	if ok {
		s.put(history.Record{Process: p, Op: op, Kind: history.Append, Phase: history.OK, Offset: o, Protected: true})
	} else {
		s.put(history.Record{Process: p, Op: op, Kind: history.Append, Phase: history.Failed, Err: "unknown"})
	}
	return id
}

func (s *script) read(p string, from int64) {
	if s.known[p] == nil {
		s.known[p] = map[int64]history.Seen{}
	}
	s.session[p]++
	s.put(history.Record{Process: p, Kind: history.Attach, Phase: history.OK, Session: s.session[p], Offset: from})
	r := history.Record{Process: p, Kind: history.Read, Phase: history.OK, Session: s.session[p], From: from, To: int64(len(s.log))}
	for _, e := range s.log[from:] {
		if _, ok := s.known[p][e.Offset]; !ok {
			s.now++
			e.At = s.now
			s.known[p][e.Offset] = e
			r.Seen = append(r.Seen, e)
		}
	}
	s.put(r)
}

func (s *script) bounds(p string) {
	op := s.op(p)
	s.put(history.Record{Process: p, Op: op, Kind: history.Bounds, Phase: history.Invoke})
	s.put(history.Record{Process: p, Op: op, Kind: history.Bounds, Phase: history.OK, Offset: int64(len(s.log)) - 1, Epoch: s.epoch})
}

func (s *script) end() []history.Record {
	for _, p := range []string{"final-a", "final-b"} {
		s.read(p, 0)
		s.put(history.Record{Process: p, Kind: history.Final, Phase: history.OK, Offset: int64(len(s.log)), Via: p})
	}
	return s.records
}

// story is a history in which nothing is wrong, unknown outcomes of both kinds
// among it.
func story() *script {
	s := newScript()
	s.open("w1")
	for range 4 {
		s.append("w1", 1, true, true)
	}
	s.read("ra", 0)
	s.bounds("ra")
	s.append("w1", 1, false, true)
	s.append("w1", 1, false, false) // 5 is given to w2
	s.open("w2")
	for range 3 {
		s.append("w2", 2, true, true)
	}
	s.read("rb", 0)
	s.read("ra", 2)
	s.read("rb", 0) // again
	s.open("w1")
	for range 3 {
		s.append("w1", 3, true, true)
	}
	s.bounds("rb")
	return s
}

func judge(t *testing.T, records []history.Record, o Options) *Report {
	t.Helper()
	r, err := Linear(records, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func legal(t *testing.T, records []history.Record, o Options) bool {
	t.Helper()
	v, err := Linearizable(records, o, 1e6, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range v {
		if v.Result == porcupine.Unknown {
			t.Fatalf("%d operations were not enough time", v.Operations)
		}
		if v.Result == porcupine.Illegal {
			return false
		}
	}
	return true
}

func TestGoodHistory(t *testing.T) {
	for _, strong := range []bool{false, true} {
		o := Options{Cities: []string{"a", "b"}, StrongBounds: strong}
		records := story().end()
		r := judge(t, records, o)
		if r.Failed() {
			t.Errorf("strong=%v: a good history: %+v", strong, r)
		}
		if r.Acknowledged != 10 || r.Unknown != 2 || r.Survived != 1 || r.Entries != 11 || r.Fenced != 3 {
			t.Errorf("counted %+v", r)
		}
		if !legal(t, records, o) {
			t.Errorf("strong=%v: porcupine finds no order for a good history", strong)
		}
	}
}

// edit changes the records of one process and kind, the last of them first, until
// f says it has done its work.
func edit(records []history.Record, p string, k history.Kind, f func(*history.Record) bool) {
	for i := len(records) - 1; i >= 0; i-- {
		if records[i].Process == p && records[i].Kind == k && f(&records[i]) {
			return
		}
	}
	panic("nothing to change in " + p)
}

// TestBadHistories breaks the good history in each way that matters. The linear
// checker must name it; porcupine must find no order, where order is what is
// wrong.
func TestBadHistories(t *testing.T) {
	tests := []struct {
		name    string
		options Options
		make    func() []history.Record
		want    func(*Report) int
		// silent: it is no matter of order, so porcupine has nothing to say.
		silent bool
	}{
		{name: "a confirmed entry is lost at the end", make: func() []history.Record {
			s := story()
			s.append("w1", 3, true, false)
			return s.end()
		}, want: func(r *Report) int { return r.Lost }},
		{name: "a confirmed entry is lost and its place given away", make: func() []history.Record {
			s := story()
			s.append("w1", 3, true, false)
			s.open("w2")
			s.append("w2", 4, true, true)
			return s.end()
		}, want: func(r *Report) int { return r.Lost }},
		{name: "an entry that a reader saw is gone", make: func() []history.Record {
			s := story()
			s.append("w1", 3, false, true)
			s.read("ra", 0)
			s.log = s.log[:len(s.log)-1]
			s.open("w2")
			s.append("w2", 4, true, true)
			return s.end()
		}, want: func(r *Report) int { return r.Lost }},
		{name: "the end a reader was told is gone", make: func() []history.Record {
			s := story()
			s.append("w1", 3, false, true)
			s.bounds("ra")
			s.log = s.log[:len(s.log)-1]
			return s.end()
		}, want: func(r *Report) int { return r.Lost }},
		{name: "a confirmed entry is there twice", make: func() []history.Record {
			s := story()
			e := s.log[len(s.log)-1]
			e.Offset++
			s.log = append(s.log, e)
			return s.end()
		}, want: func(r *Report) int { return r.Duplicated }},
		{name: "an unknown entry is there twice", make: func() []history.Record {
			s := story()
			s.append("w1", 3, false, true)
			e := s.log[len(s.log)-1]
			e.Offset++
			s.log = append(s.log, e)
			return s.end()
		}, want: func(r *Report) int { return r.Duplicated }},
		{name: "two entries change places", make: func() []history.Record {
			s := story()
			n := len(s.log)
			a, b := &s.log[n-1], &s.log[n-2]
			a.ID, b.ID, a.Sum, b.Sum = b.ID, a.ID, b.Sum, a.Sum
			return s.end()
		}, want: func(r *Report) int { return r.Reordered }},
		{name: "a hole in what one writer appended", make: func() []history.Record {
			s := story()
			s.append("w1", 3, false, false)
			s.append("w1", 3, false, true)
			records := s.end()
			edit(records, "w1", history.Append, func(r *history.Record) bool { r.Offset = -1; return r.Phase == history.Queued })
			return records
		}, want: func(r *Report) int { return r.Reordered }, silent: true},
		{name: "an old writer appends behind the fence", make: func() []history.Record {
			s := story()
			s.open("w2")
			s.append("w1", 3, true, true)
			return s.end()
		}, want: func(r *Report) int { return r.Reordered }},
		{name: "an old writer's unknown entry comes behind the fence", make: func() []history.Record {
			s := story()
			s.open("w2")
			s.append("w1", 3, false, true)
			return s.end()
		}, want: func(r *Report) int { return r.Reordered }},
		{name: "an epoch is given out twice", make: func() []history.Record {
			s := story()
			s.epoch--
			s.open("w2")
			return s.end()
		}, want: func(r *Report) int { return r.Reordered }},
		{name: "a writer is opened at a stale tail", make: func() []history.Record {
			s := story()
			s.open("w2")
			records := s.end()
			edit(records, "w2", history.Open, func(r *history.Record) bool { r.Offset--; return r.Phase == history.OK })
			return records
		}, want: func(r *Report) int { return r.Lost }},
		{name: "stale bounds where fresh ones are promised", options: Options{StrongBounds: true}, make: func() []history.Record {
			records := story().end()
			edit(records, "rb", history.Bounds, func(r *history.Record) bool { r.Offset--; return r.Phase == history.OK })
			return records
		}, want: func(r *Report) int { return r.Lost }},
		{name: "bounds beyond the end", make: func() []history.Record {
			records := story().end()
			edit(records, "rb", history.Bounds, func(r *history.Record) bool { r.Offset += 2; return r.Phase == history.OK })
			return records
		}, want: func(r *Report) int { return r.Lost }},
		{name: "bounds from the future", make: func() []history.Record {
			records := story().end()
			edit(records, "ra", history.Bounds, func(r *history.Record) bool { r.Offset = 8; return r.Phase == history.OK })
			return records
		}, want: func(r *Report) int { return r.Foreign }},
		{name: "one reader gets other bytes", make: func() []history.Record {
			records := story().end()
			edit(records, "final-b", history.Read, func(r *history.Record) bool { r.Seen[3].Sum++; return true })
			return records
		}, want: func(r *Report) int { return r.Changed }, silent: true},
		{name: "one reader gets another time stamp", make: func() []history.Record {
			records := story().end()
			edit(records, "final-b", history.Read, func(r *history.Record) bool { r.Seen[3].Rest++; return true })
			return records
		}, want: func(r *Report) int { return r.Changed }, silent: true},
		{name: "a reading again gets another entry", make: func() []history.Record {
			s := story()
			s.known["ra"] = nil
			s.log[2].Epoch = 2
			s.read("ra", 0)
			s.log[2].Epoch = 1
			return s.end()
		}, want: func(r *Report) int { return r.Changed }, silent: true},
		{name: "all readers get bytes that were not written", make: func() []history.Record {
			records := story().end()
			for i := range records {
				for j := range records[i].Seen {
					if records[i].Seen[j].Offset == 9 {
						records[i].Seen[j].Sum++
					}
				}
			}
			return records
		}, want: func(r *Report) int { return r.Changed }, silent: true},
		{name: "an entry of nobody", make: func() []history.Record {
			s := story()
			s.log = append(s.log, history.Seen{Offset: int64(len(s.log)), Epoch: 3, ID: "", Rest: 7})
			return s.end()
		}, want: func(r *Report) int { return r.Foreign }},
		{name: "an entry is read before it is written", make: func() []history.Record {
			records := story().end()
			at := records[0].At
			for i := range records {
				for j := range records[i].Seen {
					if records[i].Seen[j].Offset == 9 {
						records[i].Seen[j].At = at
					}
				}
			}
			return records
		}, want: func(r *Report) int { return r.Foreign }},
		{name: "a reader passes over an entry", make: func() []history.Record {
			records := story().end()
			edit(records, "final-b", history.Read, func(r *history.Record) bool { r.From++; r.Seen = r.Seen[1:]; return true })
			return records
		}, want: func(r *Report) int { return r.Reordered }, silent: true},
		{name: "two cities end differently", make: func() []history.Record {
			records := story().end()
			edit(records, "final-b", history.Final, func(r *history.Record) bool { r.Offset--; return true })
			return records
		}, want: func(r *Report) int { return r.Lost }},
		{name: "the end can't be read", make: func() []history.Record {
			records := story().end()
			edit(records, "final-b", history.Final, func(r *history.Record) bool { r.Err = "suspect"; return true })
			return records
		}, want: func(r *Report) int { return r.Unreadable }, silent: true},
		{name: "nobody read the end", make: func() []history.Record {
			return story().records
		}, want: func(r *Report) int { return r.Unreadable }, silent: true},
		{name: "protected without the other city", options: Options{Cities: []string{"a", "b"}}, make: func() []history.Record {
			s := story()
			s.put(history.Record{Process: "run", Kind: history.Cut, City: "b"})
			s.append("w1", 3, true, true)
			s.put(history.Record{Process: "run", Kind: history.Mend, City: "b"})
			return s.end()
		}, want: func(r *Report) int { return r.Lies }, silent: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			records := tt.make()
			r := judge(t, records, tt.options)
			if tt.want(r) == 0 {
				t.Errorf("the linear checker does not name it: %+v", r)
			}
			if len(r.Breaches) == 0 {
				t.Error("no message")
			}
			if ok := legal(t, records, tt.options); ok != tt.silent {
				t.Errorf("porcupine: legal=%v, want %v", ok, tt.silent)
			}
		})
	}
}

func TestProtectedAroundACut(t *testing.T) {
	s := story()
	s.append("w1", 3, true, true)
	s.put(history.Record{Process: "run", Kind: history.Cut, City: "b"})
	s.put(history.Record{Process: "run", Kind: history.Mend, City: "b"})
	s.append("w1", 3, true, true)
	if r := judge(t, s.end(), Options{Cities: []string{"a", "b"}}); r.Failed() {
		t.Errorf("%+v", r)
	}
}

func TestBrokenHistoryIsAnError(t *testing.T) {
	for name, f := range map[string]func([]history.Record) []history.Record{
		"time goes back":       func(r []history.Record) []history.Record { r[3].At = 0; return r },
		"a name used twice":    func(r []history.Record) []history.Record { r[5].ID = r[2].ID; return r },
		"append of no writer":  func(r []history.Record) []history.Record { return r[2:] },
		"the same as nothing":  func(r []history.Record) []history.Record { clearSeen(r); return r },
		"an answer to nothing": func(r []history.Record) []history.Record { return slices.Delete(r, 2, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := Linear(f(story().end()), Options{}); err == nil {
				t.Errorf("no error, but %+v", r)
			}
		})
	}
}

func clearSeen(records []history.Record) {
	for i := range records {
		records[i].Seen = nil
	}
}

func TestAvailability(t *testing.T) {
	s := newScript()
	s.open("w1")
	s.append("w1", 1, true, true)
	from := s.now
	s.now += int64(3 * time.Second) // nobody asks for anything
	op := s.op("w2")
	s.put(history.Record{Process: "w2", Op: op, Kind: history.Open, Phase: history.Invoke, Session: 9})
	s.now += int64(time.Second)
	s.put(history.Record{Process: "w2", Op: op, Kind: history.Open, Phase: history.Failed, Session: 9})
	s.append("w1", 1, true, true)
	op = s.op("w3")
	s.put(history.Record{Process: "w3", Op: op, Kind: history.Open, Phase: history.Invoke, Session: 9})
	s.now += int64(400 * time.Millisecond)
	s.put(history.Record{Process: "w3", Kind: history.Fault, Text: "a sign, then it dies"})
	s.now += int64(5 * time.Second)
	s.append("w1", 1, true, true)
	to := s.now
	r := judge(t, s.end(), Options{From: from, To: to})
	if r.UnavailableMax.Round(time.Millisecond) != time.Second || r.Unavailable.Round(time.Millisecond) != 1400*time.Millisecond {
		t.Errorf("unavailable for %v at most, %v in all", r.UnavailableMax, r.Unavailable)
	}
}

// TestPorcupineOnLongHistories: a few thousand operations of pipelining writers
// that fence each other take seconds, not hours.
func TestPorcupineOnLongHistories(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	records := busy(rand.New(rand.NewPCG(seed, 1)), 1500)
	if r := judge(t, records, Options{}); r.Failed() {
		t.Fatalf("%+v", r)
	}
	v, err := Linearizable(records, Options{}, 1e6, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range v {
		t.Logf("%d operations in %v: %v", v.Operations, v.Took, v.Result)
		if v.Result != porcupine.Ok {
			t.Errorf("%s: %v", v.Stream, v.Result)
		}
	}
}

// busy is a legal history with a window of 32 appends in flight, confirmed late,
// and readers in between.
func busy(r *rand.Rand, entries int) []history.Record {
	s := newScript()
	type pending struct {
		op     int64
		offset int64
		p      string
	}
	var waiting []pending
	confirm := func(n int) {
		for _, w := range waiting[:n] {
			s.put(history.Record{Process: w.p, Op: w.op, Kind: history.Append, Phase: history.OK, Offset: w.offset, Protected: true})
		}
		waiting = waiting[n:]
	}
	owner := "w1"
	s.open(owner)
	for len(s.log) < entries {
		switch n := r.IntN(40); {
		case n == 0:
			lost := 0
			if len(waiting) > 0 { // the newest are lost, or nobody is told
				lost = r.IntN(len(waiting))
			}
			s.log = s.log[:len(s.log)-lost]
			confirm(r.IntN(len(waiting) - lost + 1))
			waiting = nil
			owner = []string{"w1", "w2", "w3"}[r.IntN(3)]
			s.open(owner)
		case n == 1 && len(waiting) == 0:
			s.read([]string{"ra", "rb"}[r.IntN(2)], 0)
		case n < 4 || len(waiting) > 32:
			confirm(r.IntN(len(waiting) + 1))
		default:
			op := s.op(owner)
			id := history.ID(owner, s.seq[owner])
			s.seq[owner]++
			sum, o := history.Sum([]byte(id)), int64(len(s.log))
			s.put(history.Record{Process: owner, Op: op, Kind: history.Append, Phase: history.Invoke, Session: s.session[owner], ID: id, Sum: sum})
			s.put(history.Record{Process: owner, Op: op, Kind: history.Append, Phase: history.Queued, Offset: o})
			s.log = append(s.log, history.Seen{Offset: o, Epoch: s.epoch, ID: id, Sum: sum, Rest: 7})
			waiting = append(waiting, pending{op, o, owner})
		}
	}
	return s.end()
}

func TestBreachesAreBounded(t *testing.T) {
	s := newScript()
	s.open("w1")
	for range 3 * MessagesMax {
		s.append("w1", 1, true, false)
	}
	r := judge(t, s.end(), Options{})
	if r.Lost != 3*MessagesMax || len(r.Breaches) != MessagesMax || !strings.Contains(r.Breaches[0], "w1/0") {
		t.Errorf("lost %d, %d messages, the first %q", r.Lost, len(r.Breaches), fmt.Sprint(r.Breaches[:1]))
	}
}
