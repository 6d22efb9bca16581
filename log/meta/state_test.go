package meta

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

var epochZero = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world is a State with helpers that fail the test.
type world struct {
	t interface {
		Helper()
		Fatalf(string, ...any)
	}
	s   *State
	now time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, s: NewState(), now: epochZero}
	for _, n := range []Node{
		{Name: "a1", City: "a"}, {Name: "a2", City: "a"}, {Name: "b1", City: "b"}, {Name: "b2", City: "b"}, {Name: "w", City: "c", Witness: true},
	} {
		n.UUID, n.Address = "id-"+n.Name, n.Name+":1"
		w.do(Command{Register: &Register{n}})
	}
	return w
}

func (w *world) do(c Command) Result {
	w.t.Helper()
	w.now = w.now.Add(time.Second)
	c.Now = w.now
	r, err := w.s.Apply(c)
	if err != nil {
		w.t.Fatalf("%+v: %v", c, err)
	}
	return r
}

func (w *world) fails(want error, c Command) {
	w.t.Helper()
	before := w.save()
	c.Now = w.now
	if _, err := w.s.Apply(c); !errors.Is(err, want) {
		w.t.Fatalf("%+v: %v, want %v", c, err, want)
	}
	if !bytes.Equal(before, w.save()) {
		w.t.Fatalf("%+v failed, and left a change", c)
	}
}

func (w *world) save() []byte {
	var b bytes.Buffer
	if err := w.s.View().Save(&b); err != nil {
		w.t.Fatalf("save: %v", err)
	}
	return b.Bytes()
}

func (w *world) stream(name string) Stream {
	st, ok := w.s.View().Stream(name)
	if !ok {
		w.t.Fatalf("no stream %q", name)
	}
	return st
}

func members(names ...string) []quorum.Member {
	var out []quorum.Member
	for _, n := range names {
		out = append(out, quorum.Member{Node: n, UUID: "id-" + n, City: n[:1]})
	}
	return out
}

var bothCities = quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}}

// opened is the next segment of the stream.
func (w *world) opened(stream string, protected bool, names ...string) *quorum.Descriptor {
	st := w.stream(stream)
	d := &quorum.Descriptor{
		Stream: stream, Segment: st.NextSegment, First: st.NextFirst, FirstLSO: st.NextLSO, Epoch: st.Epoch, Generation: st.Generation,
		Members: members(names...), Rule: bothCities, Protected: protected,
	}
	if !protected {
		d.Rule = quorum.NodeRule{Total: 1}
	}
	return d
}

func (w *world) open(stream string, protected bool, names ...string) {
	w.t.Helper()
	d := w.opened(stream, protected, names...)
	w.do(Command{Advance: &Advance{Stream: stream, Epoch: d.Epoch, Open: d}})
}

func (w *world) create(stream string, loss Loss) {
	w.t.Helper()
	w.do(Command{Create: &Create{Stream: stream, Policy: Policy{Rule: bothCities, Loss: loss}}})
	w.do(Command{Own: &Own{Stream: stream, Owner: "p"}})
}

// roll closes the open segment after n more entries and opens the next one.
func (w *world) roll(stream string, n int, holders []string, protected bool, names ...string) {
	w.t.Helper()
	w.do(Command{Advance: w.rolled(stream, n, holders, protected, names...)})
}

func (w *world) rolled(stream string, n int, holders []string, protected bool, names ...string) *Advance {
	st := w.stream(stream)
	s := st.Segments[len(st.Segments)-1]
	last := s.First + log.Offset(n) - 1
	lso := last
	if n == 0 {
		lso = s.FirstLSO
	}
	d := w.opened(stream, protected, names...)
	d.First, d.FirstLSO = last+1, lso
	return &Advance{
		Stream: stream, Epoch: st.Epoch, Close: &Close{Segment: s.Segment, Last: last, LSO: lso, Bytes: int64(n), Holders: members(holders...)}, Open: d,
	}
}

func TestIdentities(t *testing.T) {
	w := newWorld(t)
	w.fails(log.ErrIdentity, Command{Register: &Register{Node{Name: "a1", UUID: "other", City: "a", Address: "x"}}})
	w.fails(log.ErrIdentity, Command{Register: &Register{Node{Name: "a3", UUID: "id-a1", City: "a", Address: "x"}}})
	w.fails(log.ErrIdentity, Command{Register: &Register{Node{Name: "a1", UUID: "id-a1", City: "b", Address: "x"}}})
	w.fails(log.ErrProtocol, Command{Register: &Register{Node{Name: "a4", City: "b", Address: "x"}}})
	w.fails(log.ErrProtocol, Command{})
	w.fails(log.ErrProtocol, Command{Drain: &Drain{Node: "a1"}, Release: &Release{}})
	w.do(Command{Drain: &Drain{Node: "a1", Drained: true}})
	w.do(Command{Register: &Register{Node{Name: "a1", UUID: "id-a1", City: "a", Address: "new:1"}}})
	if n, _ := w.s.View().Node("a1"); !n.Drained || n.Address != "new:1" {
		t.Fatalf("renewed: %+v", n)
	}
	w.create("s", LossBlock)
	w.fails(log.ErrStale, Command{Advance: &Advance{Stream: "s", Epoch: 1, Open: w.opened("s", true, "a1", "b1")}})
	w.fails(log.ErrStale, Command{Advance: &Advance{Stream: "s", Epoch: 1, Open: w.opened("s", true, "a2", "b1", "w")}})
	w.fails(log.ErrProtocol, Command{Advance: &Advance{Stream: "s", Epoch: 1, Open: w.opened("s", true, "a2")}})
	w.open("s", true, "a2", "b1")
	w.roll("s", 5, []string{"a2", "b1"}, true, "a2", "b2")

	v := w.s.View()
	for _, x := range []struct {
		node, uuid string
		generation uint64
		want       error
	}{{"a2", "id-a2", 1, nil}, {"a2", "id-a2", 0, nil}, {"a2", "wiped", 1, log.ErrIdentity}, {"new", "new", 0, nil}} {
		if err := v.Admit(x.node, x.uuid, x.generation); !errors.Is(err, x.want) {
			t.Fatalf("%+v: %v", x, err)
		}
	}
	w.do(Command{Forget: &Forget{Node: "a2", UUID: "id-a2"}})
	w.do(Command{Forget: &Forget{Node: "a2", UUID: "id-a2"}}) // repeated
	w.fails(log.ErrProtocol, Command{Forget: &Forget{Node: "b1", UUID: "id-b1"}})
	w.fails(log.ErrIdentity, Command{Register: &Register{Node{Name: "a2", UUID: "id-a2", City: "a", Address: "x"}}})
	if err := w.s.View().Admit("a2", "id-a2", 1); !errors.Is(err, log.ErrIdentity) {
		t.Fatalf("forgotten: %v", err)
	}
	w.do(Command{Register: &Register{Node{Name: "a2", UUID: "fresh", City: "a", Address: "x"}}})
	segments, _ := w.s.View().Segments("s", 0, 10)
	if h := segments[0].Holders; len(h) != 1 || h[0].Node != "b1" || len(segments[0].Members) != 2 {
		t.Fatalf("after forgetting: %+v", segments[0])
	}
	if st := w.stream("s"); st.Short != 1 || len(w.s.View().Short("s", 0, 5)) != 1 {
		t.Fatalf("short: %d", st.Short)
	}
	w.do(Command{Generation: &Generation{Generation: 2, Lost: []string{"b1", "nobody"}, Reason: "flood"}})
	w.do(Command{Generation: &Generation{Generation: 2, Lost: []string{"b1", "nobody"}, Reason: "flood"}})
	w.fails(log.ErrProtocol, Command{Generation: &Generation{Generation: 4}})
	if err := w.s.View().Admit("b1", "id-b1", 1); !errors.Is(err, log.ErrGeneration) {
		t.Fatalf("old generation: %v", err)
	}
	if err := w.s.View().Admit("b2", "id-b2", 1); !errors.Is(err, log.ErrGeneration) {
		t.Fatalf("old generation: %v", err)
	}
	if err := w.s.View().Admit("b2", "id-b2", 2); err != nil {
		t.Fatal(err)
	}
	if got := w.s.View().Takeovers(); len(got) != 1 || got[0].Reason != "flood" {
		t.Fatalf("takeovers: %+v", got)
	}
}

func TestAdvance(t *testing.T) {
	w := newWorld(t)
	w.fails(log.ErrNoStream, Command{Own: &Own{Stream: "s"}})
	w.create("s", LossBlock)
	if st := w.stream("s"); st.Epoch != 1 || st.NextSegment != 1 || st.NextFirst != 0 || st.NextLSO != log.None || st.Generation != 1 {
		t.Fatalf("new stream: %+v", st)
	}
	first := w.opened("s", true, "a1", "b1")
	wrong := func(change func(*quorum.Descriptor), want error) {
		t.Helper()
		d := *first
		change(&d)
		w.fails(want, Command{Advance: &Advance{Stream: "s", Epoch: 1, Open: &d}})
	}
	wrong(func(d *quorum.Descriptor) { d.Segment = 2 }, log.ErrProtocol)
	wrong(func(d *quorum.Descriptor) { d.First = 1 }, log.ErrProtocol)
	wrong(func(d *quorum.Descriptor) { d.FirstLSO = 0 }, log.ErrProtocol)
	wrong(func(d *quorum.Descriptor) { d.Epoch = 2 }, log.ErrProtocol)
	wrong(func(d *quorum.Descriptor) { d.Generation = 2 }, log.ErrStale)
	wrong(func(d *quorum.Descriptor) { d.Rule = quorum.NodeRule{Total: 2} }, log.ErrStale)
	wrong(func(d *quorum.Descriptor) { d.Protected = false }, log.ErrStale)
	wrong(func(d *quorum.Descriptor) { d.Members = members("a1", "a1", "b1") }, log.ErrProtocol)
	w.fails(log.ErrProtocol, Command{Advance: &Advance{Stream: "s", Epoch: 2, Open: first}})
	w.fails(log.ErrProtocol, Command{Advance: &Advance{Stream: "s", Epoch: 1}})
	open := Command{Advance: &Advance{Stream: "s", Epoch: 1, Open: first}}
	w.do(open)
	w.do(open)
	if st := w.stream("s"); len(st.Segments) != 1 || st.NextSegment != 2 {
		t.Fatalf("opened twice: %+v", st)
	}
	wrong(func(d *quorum.Descriptor) { d.Members = members("a2", "b1") }, log.ErrProtocol)

	for _, c := range []Close{
		{Segment: 1, Last: -2, LSO: -1}, {Segment: 1, Last: 5, LSO: 6}, {Segment: 2, Last: 5, LSO: 5}, {Segment: 1, Last: 5, LSO: 5, Bytes: -1},
		{Segment: 1, Last: 5, LSO: -2},
	} {
		c.Holders = members("a1", "b1")
		w.fails(log.ErrProtocol, Command{Advance: &Advance{Stream: "s", Epoch: 1, Close: &c}})
	}
	w.fails(log.ErrStale, Command{Advance: &Advance{Stream: "s", Epoch: 1, Close: &Close{Segment: 1, Last: 5, LSO: 5, Holders: members("x1")}}})

	roll := Command{Advance: w.rolled("s", 6, []string{"a1", "b1", "w", "a1"}, true, "a2", "b1")}
	w.do(roll)
	w.do(roll)
	st := w.stream("s")
	if len(st.Segments) != 2 || st.Segments[0].Last != 5 || len(st.Segments[0].Holders) != 2 || st.Segments[1].First != 6 || st.NextFirst != 6 {
		t.Fatalf("rolled: %+v", st)
	}
	if len(st.Windows) != 0 || st.Short != 0 {
		t.Fatalf("a window for nothing: %+v", st.Windows)
	}
	other := *roll.Advance
	other.Close = &Close{Segment: 1, Last: 6, LSO: 6, Holders: members("a1", "b1")}
	w.fails(log.ErrProtocol, Command{Advance: &other})

	// An empty segment leaves no trace but its number; its close may be repeated.
	empty := Command{Advance: &Advance{Stream: "s", Epoch: 1, Close: &Close{Segment: 2, Last: 5, LSO: 5}}}
	w.do(empty)
	w.do(empty)
	if st := w.stream("s"); len(st.Segments) != 1 || st.NextSegment != 3 || st.NextFirst != 6 || st.NextLSO != 5 {
		t.Fatalf("after an empty one: %+v", st)
	}
	w.fails(log.ErrProtocol, Command{Advance: &Advance{Stream: "s", Epoch: 1, Close: &Close{Segment: 2, Last: 6, LSO: 6, Holders: members("a1")}}})

	w.do(Command{Own: &Own{Stream: "s", Owner: "q"}})
	w.fails(log.ErrFenced, roll)
	w.open("s", true, "a1", "b2")
	if st := w.stream("s"); st.Segments[1].Segment != 3 || st.Segments[1].Epoch != 2 {
		t.Fatalf("reopened: %+v", st.Segments[1])
	}
	if s, ok := w.s.View().SegmentAt("s", 3); !ok || s.Segment != 1 {
		t.Fatal("segment at 3")
	}
	if s, ok := w.s.View().SegmentAt("s", 1000); !ok || s.Segment != 3 {
		t.Fatal("segment at 1000")
	}
}

func TestWindows(t *testing.T) {
	w := newWorld(t)
	w.create("s", LossDegradeManual)
	w.open("s", true, "a1", "b1")
	w.fails(log.ErrStale, Command{Advance: w.rolled("s", 10, []string{"a1"}, false, "a1", "a2")})
	w.do(Command{Degrade: &Degrade{Stream: "s", City: "b"}})
	w.do(Command{Degrade: &Degrade{Stream: "s", City: "b"}})
	w.roll("s", 10, []string{"a1"}, false, "a1", "a2") // closed PARTIAL, then degraded: one window
	if st := w.stream("s"); len(st.Windows) != 1 || st.Windows[0].From != 0 || st.Windows[0].To != log.None || st.Short != 1 {
		t.Fatalf("degraded: %+v", st.Windows)
	}
	w.roll("s", 5, []string{"a1", "a2"}, false, "a1", "a2")
	w.roll("s", 0, nil, false, "a1")
	w.do(Command{Degrade: &Degrade{Stream: "s", City: "b", Off: true}})
	w.roll("s", 5, []string{"a1"}, true, "a1", "b1")
	st := w.stream("s")
	if len(st.Windows) != 1 || st.Windows[0].To != 19 || !st.Windows[0].RestoredAt.IsZero() || st.Short != 3 {
		t.Fatalf("restored the rule: %+v, %d short", st.Windows, st.Short)
	}
	w.fails(log.ErrProtocol, Command{Held: &Held{Stream: "s", Segment: 1, Member: members("a1")[0], Lost: true}})
	w.fails(log.ErrStale, Command{Held: &Held{Stream: "s", Segment: 1, Member: members("w")[0]}})
	w.do(Command{Held: &Held{Stream: "s", Segment: 1, Member: members("a1")[0], Bytes: 77}})
	if page, _ := w.s.View().Segments("s", 1, 1); len(page[0].Holders) != 1 || page[0].Bytes == 0 {
		t.Fatalf("%+v", page[0])
	}
	w.fails(log.ErrProtocol, Command{Held: &Held{Stream: "s", Segment: 5, Member: members("b1")[0]}})
	w.fails(log.ErrProtocol, Command{Held: &Held{Stream: "s", Segment: 9, Member: members("b1")[0]}})
	for i, n := range []uint32{1, 2, 4} {
		if st := w.stream("s"); !st.Windows[0].RestoredAt.IsZero() {
			t.Fatalf("restored after %d of 3", i)
		}
		w.do(Command{Held: &Held{Stream: "s", Segment: n, Member: members("b2")[0]}})
		w.do(Command{Held: &Held{Stream: "s", Segment: n, Member: members("b2")[0]}})
	}
	if st := w.stream("s"); st.Windows[0].RestoredAt != w.now.Add(-time.Second) && st.Windows[0].RestoredAt != w.now || st.Short != 0 {
		t.Fatalf("not restored: %+v", st.Windows)
	}
	// A copy that is lost makes the segment short, but no window: its acks were true.
	w.do(Command{Held: &Held{Stream: "s", Segment: 1, Member: members("b2")[0], Lost: true}})
	if st := w.stream("s"); st.Short != 1 || len(st.Windows) != 1 {
		t.Fatalf("lost a copy: %+v", st)
	}

	// A degraded segment that stayed empty was no window.
	w.create("t", LossDegradeAfter)
	w.open("t", false, "a1")
	w.roll("t", 0, nil, true, "a1", "b1")
	if st := w.stream("t"); len(st.Windows) != 0 {
		t.Fatalf("empty: %+v", st.Windows)
	}
	// One that everybody has in the end is restored at once.
	w.roll("t", 3, []string{"a1", "b1"}, false, "a1")
	w.roll("t", 3, []string{"a1", "b1"}, true, "a1", "b1")
	if st := w.stream("t"); len(st.Windows) != 1 || st.Windows[0].From != 3 || st.Windows[0].To != 5 || st.Windows[0].RestoredAt.IsZero() {
		t.Fatalf("copied before its end: %+v", st.Windows)
	}
	w.create("u", LossBlock)
	w.fails(log.ErrProtocol, Command{Degrade: &Degrade{Stream: "u", City: "b"}})
}

func TestTrim(t *testing.T) {
	w := newWorld(t)
	w.create("s", LossBlock)
	w.open("s", true, "a1", "b1")
	for range 5 {
		w.roll("s", 10, []string{"a1", "b1"}, true, "a1", "b1")
	}
	trim := func(before log.Offset, keep ...uint32) Command {
		return Command{Trim: &Trim{Stream: "s", Before: before, Keep: keep}}
	}
	w.fails(log.ErrCursorBehind, trim(20))
	cursor := func(g string, o log.Offset) Command {
		return Command{Cursor: &PutCursor{Stream: "s", Cursor: log.Cursor{Group: g, Offset: o}}}
	}
	w.do(cursor("near", 100))
	w.do(cursor("far", 25))
	w.do(cursor("far", 25))
	w.fails(log.ErrCursorBehind, cursor("far", 24))
	w.fails(log.ErrCursorBehind, trim(30))
	w.do(trim(29, 1)) // segments 1 and 2; 1 is compacted
	w.do(trim(29, 1))
	numbers := func() (out []string) {
		segments, _ := w.s.View().Segments("s", 0, 100)
		for _, s := range segments {
			mark := ""
			if s.Compacted {
				mark = "c"
			}
			out = append(out, fmt.Sprint(s.Segment, mark))
		}
		return out
	}
	if got := numbers(); !slices.Equal(got, []string{"1c", "3", "4", "5", "6"}) {
		t.Fatalf("trimmed: %v", got)
	}
	if st := w.stream("s"); st.First != 20 {
		t.Fatalf("first: %d", st.First)
	}
	w.fails(log.ErrTrimmed, Command{Held: &Held{Stream: "s", Segment: 2, Member: members("b2")[0]}})
	w.do(Command{Held: &Held{Stream: "s", Segment: 1, Member: members("b2")[0]}})
	if s, ok := w.s.View().SegmentAt("s", 12); !ok || s.Segment != 3 {
		t.Fatal("behind what was compacted")
	}
	w.do(Command{Trim: &Trim{Stream: "s", Before: 1000, Evict: true}})
	if got := numbers(); !slices.Equal(got, []string{"1c", "5", "6"}) { // the newest closed one stays
		t.Fatalf("evicted: %v", got)
	}
	if st := w.stream("s"); len(st.Lost) != 1 || st.Lost[0].Group != "far" || st.Lost[0].From != 26 || st.Lost[0].To != 39 {
		t.Fatalf("lost: %+v", st.Lost)
	}
	w.do(Command{Cursor: &PutCursor{Stream: "s", Cursor: log.Cursor{Group: "far", Offset: 3}, Seek: true}})
	w.do(Command{Cursor: &PutCursor{Stream: "s", Cursor: log.Cursor{Group: "far"}, Remove: true}})
	if st := w.stream("s"); len(st.Cursors) != 1 {
		t.Fatalf("cursors: %+v", st.Cursors)
	}

	// No cut inside a transaction.
	w.create("t", LossBlock)
	w.open("t", true, "a1", "b1")
	for i := range 4 {
		a := w.rolled("t", 10, []string{"a1", "b1"}, true, "a1", "b1")
		if i == 1 {
			a.Close.LSO, a.Open.FirstLSO = 9, 9
		}
		w.do(Command{Advance: a})
	}
	w.do(Command{Cursor: &PutCursor{Stream: "t", Cursor: log.Cursor{Group: "g", Offset: 39}}})
	w.do(Command{Trim: &Trim{Stream: "t", Before: 20}})
	if st := w.stream("t"); st.First != 10 {
		t.Fatalf("cut at %d", st.First)
	}
	w.do(Command{Trim: &Trim{Stream: "t", Before: 30}})
	if st := w.stream("t"); st.First != 30 {
		t.Fatalf("cut at %d", st.First)
	}
}

func TestLeases(t *testing.T) {
	w := newWorld(t)
	take := func(holder string, ttl time.Duration) Lease {
		r := w.do(Command{Lease: &TakeLease{Name: "keeper", Holder: holder, TTL: ttl}})
		return *r.Lease
	}
	a := take("a", 10*time.Second)
	if b := take("b", 10*time.Second); b.Holder != "a" || b.Term != a.Term {
		t.Fatalf("taken: %+v", b)
	}
	if again := take("a", 10*time.Second); again.Term != a.Term || !again.Expires.After(a.Expires) {
		t.Fatalf("renewed: %+v", again)
	}
	w.now = w.now.Add(20 * time.Second)
	b := take("b", 10*time.Second)
	if b.Holder != "b" || b.Term <= a.Term {
		t.Fatalf("expired: %+v", b)
	}
	w.do(Command{Release: &Release{Name: "keeper", Holder: "a"}})
	if l, ok := w.s.View().Lease("keeper"); !ok || l.Holder != "b" {
		t.Fatalf("released by another: %+v", l)
	}
	w.do(Command{Release: &Release{Name: "keeper", Holder: "b"}})
	if c := take("c", time.Second); c.Term <= b.Term {
		t.Fatalf("after a release: %+v", c)
	}
	// A proposer whose clock is behind does not turn time back.
	r, err := w.s.Apply(Command{Now: epochZero, Lease: &TakeLease{Name: "keeper", Holder: "d", TTL: time.Second}})
	if err != nil || r.Lease.Holder != "c" {
		t.Fatalf("%+v, %v", r.Lease, err)
	}
	w.fails(log.ErrProtocol, Command{Lease: &TakeLease{Name: "keeper", Holder: "c"}})
}

func TestBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("s", LossDegradeAfter)
	w.open("s", true, "a1", "b1")
	for range windowsMax + 10 { // each its own window, none of them ever restored
		w.roll("s", 2, []string{"a1", "b1"}, false, "a1")
		w.roll("s", 2, []string{"a1"}, true, "a1", "b1")
	}
	st := w.stream("s")
	if len(st.Windows) != windowsMax || st.Windows[0].From != 2 || st.Windows[0].To < 20 || st.Short != windowsMax+10 {
		t.Fatalf("%d windows, the first %+v, %d short", len(st.Windows), st.Windows[0], st.Short)
	}
	// Retention takes what was never copied: the windows end, and say so.
	w.do(Command{Cursor: &PutCursor{Stream: "s", Cursor: log.Cursor{Group: "g", Offset: 1 << 30}}})
	w.do(Command{Trim: &Trim{Stream: "s", Before: st.Windows[0].To + 1}})
	if first := w.stream("s").Windows[0]; !first.Trimmed || first.RestoredAt.IsZero() {
		t.Fatalf("%+v", first)
	}

	for i := range CursorsMax - 1 {
		w.do(Command{Cursor: &PutCursor{Stream: "s", Cursor: log.Cursor{Group: fmt.Sprint("more", i), Offset: 1}}})
	}
	w.fails(log.ErrFull, Command{Cursor: &PutCursor{Stream: "s", Cursor: log.Cursor{Group: "one too many", Offset: 1}}})
	w.fails(log.ErrTooLarge, Command{Cursor: &PutCursor{Stream: "s", Cursor: log.Cursor{Group: "g", Offset: 1 << 31, GTIDSet: string(make([]byte, CursorBytesMax))}}})

	for i := range LeasesMax {
		w.do(Command{Lease: &TakeLease{Name: fmt.Sprint("l", i), Holder: "h", TTL: leaseMax}})
	}
	w.fails(log.ErrFull, Command{Lease: &TakeLease{Name: "one too many", Holder: "h", TTL: time.Second}})
	w.now = w.now.Add(2 * leaseMax)
	w.do(Command{Lease: &TakeLease{Name: "one too many", Holder: "h", TTL: time.Second}})
	if n := len(w.s.View().Leases()); n != 1 {
		t.Fatalf("%d leases", n)
	}

	for i := w.s.View().streams.count; i < StreamsMax; i++ {
		w.do(Command{Create: &Create{Stream: fmt.Sprint("stream", i), Policy: Policy{Loss: LossBlock}}})
	}
	w.fails(log.ErrFull, Command{Create: &Create{Stream: "one too many", Policy: Policy{Loss: LossBlock}}})
	old := w.s.View()
	w.do(Command{Own: &Own{Stream: "stream17"}})
	if got := w.s.View().Changed(old); !slices.Equal(got, []string{"stream17"}) {
		t.Fatalf("changed: %v", got)
	}
	if got := old.Changed(NewState().View()); len(got) != StreamsMax {
		t.Fatalf("%d changed", len(got))
	}
}
