package check

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/test/chaos/history"
)

// never is later than everything.
const never = math.MaxInt64

// none is the offset of what has none.
const none = -1

// entry is one append.
type entry struct {
	id        string
	writer    *writer
	number    int // in its writer
	invoked   int64
	queued    int64 // the offset its writer was promised; none
	confirmed int64 // when; never
	offset    int64 // it was confirmed at
	protected bool
	sum       uint64
	places    []int64 // where it is in the log at the end
}

// writer is one opening of a stream.
type writer struct {
	process string
	session int64
	invoked int64
	opened  int64 // never: it failed, or nobody knows
	epoch   uint64
	tail    int64
	entries int
}

// reader is one reading.
type reader struct {
	name string
	next int64
}

// sight is an entry as it was seen first.
type sight struct {
	history.Seen
	by string
}

type stream struct {
	name    string
	entries map[string]*entry
	order   []*entry // by invocation
	writers []*writer
	bounds  []history.Record // those that ended OK, with From as the time of their start
	seen    map[int64]sight
	reads   int
	finals  []history.Record
	unread  bool // not everything was read at the end
	trying  []*attempt
	// What the gathering itself finds, to be counted by check.
	changed, gaps []string
}

type span struct{ from, to int64 }

// attempt is the time in which a writer was asking for something.
type attempt struct {
	span
	process string
}

type whole struct {
	streams map[string]*stream
	cuts    map[string][]span // by city
	last    map[string]int64  // the time of a process's last sign
}

func (h *whole) sorted() []*stream {
	var out []*stream
	for _, s := range h.streams {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *stream) int { return strings.Compare(a.name, b.name) })
	return out
}

type opKey struct {
	process string
	op      int64
}

type sessionKey struct {
	process string
	session int64
}

type sightKey struct {
	process string
	stream  string
	offset  int64
}

// gatherer takes the records one by one.
type gatherer struct {
	whole
	appends  map[opKey]*entry
	opens    map[opKey]*writer
	writers  map[sessionKey]*writer
	readers  map[sessionKey]*reader
	asked    map[opKey]int64
	memories map[sightKey]history.Seen
	attempts map[opKey]*attempt
	failures map[[2]string]*attempt // the newest failed one of a process and stream
}

func gather(records []history.Record) (*whole, error) {
	g := &gatherer{
		whole:   whole{streams: map[string]*stream{}, cuts: map[string][]span{}, last: map[string]int64{}},
		appends: map[opKey]*entry{}, opens: map[opKey]*writer{}, writers: map[sessionKey]*writer{},
		readers: map[sessionKey]*reader{}, asked: map[opKey]int64{}, memories: map[sightKey]history.Seen{}, attempts: map[opKey]*attempt{}, failures: map[[2]string]*attempt{},
	}
	for i, r := range records {
		if i > 0 && r.At < records[i-1].At {
			return nil, fmt.Errorf("history goes back in time at record %d", i)
		}
		g.last[r.Process] = r.At
		if r.Kind == history.Open || r.Kind == history.Append {
			g.attempt(r)
		}
		if err := g.take(r); err != nil {
			return nil, fmt.Errorf("history of %s, operation %d (%s %s): %w", r.Process, r.Op, r.Kind, r.Phase, err)
		}
	}
	return &g.whole, nil
}

func (g *gatherer) stream(name string) *stream {
	s := g.streams[name]
	if s == nil {
		s = &stream{name: name, entries: map[string]*entry{}, seen: map[int64]sight{}}
		g.streams[name] = s
	}
	return s
}

func (g *gatherer) attempt(r history.Record) {
	key := opKey{r.Process, r.Op}
	switch a := g.attempts[key]; {
	case r.Phase == history.Invoke:
		a = &attempt{span{r.At, never}, r.Process}
		g.attempts[key] = a
		s := g.stream(r.Stream)
		s.trying = append(s.trying, a)
		// Between two attempts that fail at once it is trying, too.
		before := [2]string{r.Process, r.Stream}
		if f := g.failures[before]; f != nil && r.At-f.to < int64(time.Second) {
			f.to = r.At
		}
		delete(g.failures, before)
	case a != nil && r.Phase != history.Queued:
		a.to = r.At
		if r.Phase == history.Failed {
			g.failures[[2]string{r.Process, r.Stream}] = a
		}
	}
}

func (g *gatherer) take(r history.Record) error {
	switch r.Kind {
	case history.Cut:
		g.cuts[r.City] = append(g.cuts[r.City], span{r.At, never})
		return nil
	case history.Mend:
		if c := g.cuts[r.City]; len(c) > 0 && c[len(c)-1].to == never {
			c[len(c)-1].to = r.At
		}
		return nil
	case history.Fault, history.Close, history.Gap:
		return nil
	}
	if r.Stream == "" {
		return fmt.Errorf("no stream")
	}
	switch r.Kind {
	case history.Open:
		return g.open(r)
	case history.Append:
		return g.append(r)
	case history.Bounds:
		return g.boundsOf(r)
	case history.Attach:
		if r.Phase == history.OK {
			g.readers[sessionKey{r.Process, r.Session}] = &reader{r.Process, r.Offset}
		}
		return nil
	case history.Read:
		return g.read(r)
	case history.Final:
		s := g.stream(r.Stream)
		s.finals = append(s.finals, r)
		return nil
	default:
		return fmt.Errorf("unknown kind")
	}
}

func (g *gatherer) open(r history.Record) error {
	s, key := g.stream(r.Stream), opKey{r.Process, r.Op}
	switch r.Phase {
	case history.Invoke:
		w := &writer{process: r.Process, session: r.Session, invoked: r.At, opened: never}
		g.opens[key] = w
		g.writers[sessionKey{r.Process, r.Session}] = w
		s.writers = append(s.writers, w)
	case history.OK:
		w := g.opens[key]
		if w == nil {
			return fmt.Errorf("was never started")
		}
		w.opened, w.epoch, w.tail = r.At, r.Epoch, r.Offset
	}
	return nil
}

func (g *gatherer) append(r history.Record) error {
	s, key := g.stream(r.Stream), opKey{r.Process, r.Op}
	if r.Phase == history.Invoke {
		w := g.writers[sessionKey{r.Process, r.Session}]
		if w == nil || w.opened == never {
			return fmt.Errorf("without an open writer")
		}
		if s.entries[r.ID] != nil {
			return fmt.Errorf("name %q is used twice", r.ID)
		}
		e := &entry{id: r.ID, writer: w, number: w.entries, invoked: r.At, queued: none, confirmed: never, sum: r.Sum}
		w.entries++
		s.entries[r.ID] = e
		s.order = append(s.order, e)
		g.appends[key] = e
		return nil
	}
	e := g.appends[key]
	if e == nil {
		return fmt.Errorf("was never started")
	}
	switch r.Phase {
	case history.Queued:
		e.queued = r.Offset
	case history.OK:
		e.confirmed, e.offset, e.protected = r.At, r.Offset, r.Protected
	}
	return nil
}

func (g *gatherer) boundsOf(r history.Record) error {
	key := opKey{r.Process, r.Op}
	switch r.Phase {
	case history.Invoke:
		g.asked[key] = r.At
	case history.OK:
		at, ok := g.asked[key]
		if !ok {
			return fmt.Errorf("was never started")
		}
		r.From = at
		s := g.stream(r.Stream)
		s.bounds = append(s.bounds, r)
	}
	return nil
}

func (g *gatherer) read(r history.Record) error {
	s := g.stream(r.Stream)
	rd := g.readers[sessionKey{r.Process, r.Session}]
	if rd == nil {
		return fmt.Errorf("without an open reader")
	}
	if r.From != rd.next || r.To < r.From {
		s.gaps = append(s.gaps, fmt.Sprintf("reader %s session %d got entries [%d,%d) where %d had to come", r.Process, r.Session, r.From, r.To, rd.next))
	}
	rd.next = r.To
	s.reads += int(r.To - r.From)
	fresh := map[int64]bool{}
	for _, e := range r.Seen {
		if e.Offset < r.From || e.Offset >= r.To {
			return fmt.Errorf("entry %d outside of [%d,%d)", e.Offset, r.From, r.To)
		}
		fresh[e.Offset] = true
		g.memories[sightKey{r.Process, r.Stream, e.Offset}] = e
		first, ok := s.seen[e.Offset]
		if !ok {
			s.seen[e.Offset] = sight{e, r.Process}
			continue
		}
		if first.ID != e.ID || first.Sum != e.Sum || first.Epoch != e.Epoch || first.Rest != e.Rest {
			s.changed = append(s.changed, fmt.Sprintf("entry %d was %q (epoch %d, sum %016x, rest %016x) to %s and %q (epoch %d, sum %016x, rest %016x) to %s",
				e.Offset, first.ID, first.Epoch, first.Sum, first.Rest, first.by, e.ID, e.Epoch, e.Sum, e.Rest, r.Process))
		}
		if e.At < first.At {
			first.At = e.At
			s.seen[e.Offset] = first
		}
	}
	for o := r.From; o < r.To; o++ {
		if fresh[o] {
			continue
		}
		if _, ok := g.memories[sightKey{r.Process, r.Stream, o}]; !ok {
			return fmt.Errorf("entry %d is said to be the same, but was never seen before", o)
		}
	}
	return nil
}
