package meta

import (
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/twinspan/twinspan/log"
)

// Bounds of the state. What would pass one of them fails with log.ErrFull.
const (
	NodesMax       = 128
	StreamsMax     = 4096
	SegmentsMax    = 1 << 20 // of a stream
	CursorsMax     = 1024    // of a stream
	CursorBytesMax = 4 << 20 // names and GTID sets of a stream's cursors
	LeasesMax      = 8192
	NameBytesMax   = 255 // of nodes, cities, streams, groups, leases

	forgottenMax   = 4096
	takeoversMax   = 1024
	windowsMax     = 1024 // of a stream; the oldest are dropped, or joined when they are not restored
	reasonBytesMax = 1024
	lostMax        = 1024 // of a stream; the oldest are dropped
	leaseMax       = 24 * time.Hour
)

// State is the metadata. It is pure: the same commands give the same state on
// every node. It is not safe for concurrent use; its Views are.
type State struct{ v *View }

// NewState is an empty one, of generation 1.
func NewState() *State { return &State{v: &View{generation: 1}} }

// View of the present. It costs nothing and never changes.
func (s *State) View() *View { return s.v }

// Apply makes one change, or none: on error the state is as it was.
func (s *State) Apply(c Command) (Result, error) {
	next := *s.v // everything behind it is copied where it changes
	if c.Now.After(next.now) {
		next.now = c.Now.UTC().Round(0)
	}
	if next.now.IsZero() {
		next.now = time.Unix(0, 0).UTC() // zero stands for "not yet" in windows
	}
	r, err := next.apply(&c)
	if err != nil {
		return Result{}, err
	}
	r.Generation = next.generation
	s.v = &next
	return r, nil
}

func (v *View) apply(c *Command) (Result, error) {
	var (
		r   Result
		err error
		set int
	)
	do := func(present bool, f func() error) {
		if present {
			if set++; set == 1 {
				err = f()
			}
		}
	}
	onStream := func(name, what string, f func(*stream) (bool, error)) func() error {
		return func() error {
			st, changed := v.streams.get(name)
			if !changed {
				return fmt.Errorf("stream %q: %s: %w", name, what, log.ErrNoStream)
			}
			next := *st
			changed, err := f(&next)
			if err != nil {
				return fmt.Errorf("stream %q: %s: %w", name, what, err)
			}
			if changed {
				next.Version++
				v.streams.put(name, &next)
			}
			if c.Cursor == nil {
				out := next.out(v)
				out.Cursors, out.Windows, out.Lost, out.Gaps = nil, nil, nil, nil
				r.Stream = &out
			}
			return nil
		}
	}
	do(c.Register != nil, func() error { return v.register(c.Register.Node) })
	do(c.Forget != nil, func() error { return v.forget(c.Forget, c.Reason, c.By) })
	do(c.Drain != nil, func() error { return v.drain(c.Drain) })
	do(c.Create != nil, func() error {
		if err := v.create(c.Create); err != nil {
			return fmt.Errorf("stream %q: create: %w", c.Create.Stream, err)
		}
		return onStream(c.Create.Stream, "create", func(*stream) (bool, error) { return false, nil })()
	})
	if x := c.SetPolicy; x != nil {
		do(true, onStream(x.Stream, "set policy", func(st *stream) (bool, error) { return st.setPolicy(v, x.Policy) }))
	}
	if x := c.Own; x != nil {
		do(true, onStream(x.Stream, "own", func(st *stream) (bool, error) { return st.own(x) }))
	}
	if x := c.Advance; x != nil {
		do(true, onStream(x.Stream, "advance", func(st *stream) (bool, error) { return st.advance(v, x) }))
	}
	if x := c.Degrade; x != nil {
		do(true, onStream(x.Stream, "degrade", func(st *stream) (bool, error) { return st.degrade(x) }))
	}
	if x := c.Held; x != nil {
		do(true, onStream(x.Stream, "held", func(st *stream) (bool, error) { return st.held(v, x) }))
	}
	if x := c.Trim; x != nil {
		do(true, onStream(x.Stream, "trim", func(st *stream) (bool, error) { return st.trim(v, x) }))
	}
	if x := c.Cursor; x != nil {
		do(true, onStream(x.Stream, fmt.Sprintf("cursor %q at %d", x.Cursor.Group, x.Cursor.Offset),
			func(st *stream) (bool, error) { return st.putCursor(v, x) }))
	}
	do(c.Lease != nil, func() (err error) { r.Lease, err = v.takeLease(c.Lease); return err })
	do(c.Release != nil, func() error { v.release(c.Release); return nil })
	do(c.Generation != nil, func() error { return v.succeed(c.Generation) })
	if set != 1 {
		return Result{}, fmt.Errorf("command with %d verbs, want 1: %w", set, log.ErrProtocol)
	}
	return r, err
}

func checkName(what, name string) error {
	if name == "" || len(name) > NameBytesMax || !utf8.ValidString(name) {
		return fmt.Errorf("%s %q: want 1 to %d bytes of UTF-8: %w", what, name, NameBytesMax, log.ErrProtocol)
	}
	return nil
}

func checkNames(pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if err := checkName(pairs[i], pairs[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (v *View) register(n Node) error {
	if err := checkNames("node", n.Name, "directory", n.UUID, "city", n.City, "address", n.Address); err != nil {
		return err
	}
	if len(n.Version) > NameBytesMax {
		return fmt.Errorf("node %q: a version of %d bytes: %w", n.Name, len(n.Version), log.ErrProtocol)
	}
	if v.wasForgotten(n.UUID) {
		return fmt.Errorf("node %q: directory %s was forgotten, it needs a new identity: %w", n.Name, n.UUID, log.ErrIdentity)
	}
	for _, o := range v.nodes {
		if o.UUID == n.UUID && o.Name != n.Name {
			return fmt.Errorf("node %q: directory %s is that of node %q: %w", n.Name, n.UUID, o.Name, log.ErrIdentity)
		}
	}
	i, known := v.findNode(n.Name)
	if !known {
		if len(v.nodes) >= NodesMax {
			return fmt.Errorf("node %q: there are %d nodes already: %w", n.Name, NodesMax, log.ErrFull)
		}
		n.Drained = false
		v.nodes = slices.Insert(slices.Clone(v.nodes), i, n)
		return nil
	}
	old := v.nodes[i]
	switch {
	case old.UUID != n.UUID:
		return fmt.Errorf("node %q is registered with directory %s, not %s: forget the old one first: %w", n.Name, old.UUID, n.UUID, log.ErrIdentity)
	case old.City != n.City || old.Witness != n.Witness:
		return fmt.Errorf("node %q is registered in city %q, witness %t: %w", n.Name, old.City, old.Witness, log.ErrIdentity)
	}
	n.Drained = old.Drained
	v.nodes = slices.Clone(v.nodes)
	v.nodes[i] = n
	return nil
}

func (v *View) forget(f *Forget, reason, by string) error {
	if err := checkNames("node", f.Node, "directory", f.UUID); err != nil {
		return fmt.Errorf("forget: %w", err)
	}
	if v.wasForgotten(f.UUID) {
		return nil
	}
	i, known := v.findNode(f.Node)
	if !known || v.nodes[i].UUID != f.UUID {
		return fmt.Errorf("forget: node %q with directory %s is not registered: %w", f.Node, f.UUID, log.ErrIdentity)
	}
	if len(v.forgotten) >= forgottenMax {
		return fmt.Errorf("forget: %d nodes were forgotten already: %w", forgottenMax, log.ErrFull)
	}
	for _, name := range v.streams.keys() {
		st, _ := v.streams.get(name)
		next := *st
		changed, orphans := next.disown(v, f.Node)
		for _, n := range orphans {
			i := slices.IndexFunc(f.Lose, func(l Losing) bool { return l.Stream == name && l.Segment == n })
			switch {
			case i >= 0:
				left := slices.DeleteFunc(slices.Clone(f.Lose[i].Left), func(l Left) bool { return l.Node == f.Node })
				lost := next.salvage(v, n, left, fmt.Sprintf("node %s was forgotten: %s", f.Node, reason), by)
				if most := f.Lose[i].Most; most != nil && lost > *most {
					return fmt.Errorf("forget: node %q: segment %d of stream %q would lose %d entries, and %d were accepted: %w", f.Node, n, name, lost, *most, log.ErrStale)
				}
			case !f.Force:
				return fmt.Errorf("forget: node %q is the last that holds segment %d of stream %q: %w", f.Node, n, name, log.ErrProtocol)
			}
		}
		if len(orphans) > 0 {
			next.settle(v)
		}
		if changed {
			next.Version++
			v.streams.put(name, &next)
		}
	}
	v.nodes = slices.Delete(slices.Clone(v.nodes), i, i+1)
	v.forgotten = append(slices.Clip(v.forgotten), identity{f.Node, f.UUID})
	return nil
}

func (v *View) drain(d *Drain) error {
	i, known := v.findNode(d.Node)
	if !known {
		return fmt.Errorf("drain: node %q is not registered: %w", d.Node, log.ErrIdentity)
	}
	v.nodes = slices.Clone(v.nodes)
	v.nodes[i].Drained = d.Drained
	return nil
}

func (v *View) takeLease(t *TakeLease) (*Lease, error) {
	if err := checkNames("lease", t.Name, "holder", t.Holder); err != nil {
		return nil, err
	}
	if t.TTL <= 0 || t.TTL > leaseMax {
		return nil, fmt.Errorf("lease %q for %v: want up to %v: %w", t.Name, t.TTL, leaseMax, log.ErrProtocol)
	}
	l, known := v.leases.get(t.Name)
	if known && l.Holder != t.Holder && l.Expires.After(v.now) {
		return &l, nil
	}
	if !known && v.leases.count >= LeasesMax {
		for _, name := range v.leases.keys() {
			if _, held := v.Lease(name); !held {
				v.leases.remove(name)
			}
		}
		if v.leases.count >= LeasesMax {
			return nil, fmt.Errorf("lease %q: %d are held already: %w", t.Name, LeasesMax, log.ErrFull)
		}
	}
	if !known || l.Holder != t.Holder {
		v.terms++
		l = Lease{Name: t.Name, Holder: t.Holder, Term: v.terms}
	}
	if e := v.now.Add(t.TTL); e.After(l.Expires) {
		l.Expires = e
	}
	v.leases.put(t.Name, l)
	return &l, nil
}

func (v *View) release(r *Release) {
	if l, known := v.leases.get(r.Name); known && l.Holder == r.Holder {
		v.leases.remove(r.Name)
	}
}

func (v *View) succeed(g *Generation) error {
	if n := len(v.takeovers); n > 0 && g.Generation == v.generation {
		if last := v.takeovers[n-1]; last.Generation == g.Generation && last.Reason == g.Reason && slices.Equal(last.Lost, g.Lost) {
			return nil // it is repeated
		}
	}
	switch {
	case g.Generation != v.generation+1:
		return fmt.Errorf("generation %d after %d: %w", g.Generation, v.generation, log.ErrProtocol)
	case len(v.takeovers) >= takeoversMax || len(g.Lost) > NodesMax:
		return fmt.Errorf("generation %d: %w", g.Generation, log.ErrFull)
	}
	for _, name := range g.Lost {
		if n, known := v.Node(name); known {
			if err := v.forget(&Forget{Node: name, UUID: n.UUID, Force: true}, "", ""); err != nil {
				return fmt.Errorf("generation %d: %w", g.Generation, err)
			}
		}
	}
	v.generation = g.Generation
	v.takeovers = append(slices.Clip(v.takeovers), Takeover{Generation: g.Generation, Lost: slices.Clone(g.Lost), Reason: g.Reason, At: v.now})
	return nil
}
