package meta

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// A forced takeover, when the majority of the voters is gone for good:
//
//  1. The operator attests that none of the lost nodes runs.
//  2. Every survivor stops its Server, so that nothing changes any more, and
//     reads its Export. Its store says what Replicas it has.
//  3. One of them makes the Seed of the next generation from all of these.
//  4. Every survivor makes the new generation durable in its store, installs the
//     seed, and starts a Server again, with the survivors as voters.
//
// All survivors start from the same bytes, index and term, so it does not matter
// in which order, or how often, the last step is done.

// Export is what one survivor's directory knows.
type Export struct {
	Node       string `json:"node"`
	UUID       string `json:"uuid"` // of its directory of entries; empty: not known
	Generation uint64 `json:"generation"`
	Index      uint64 `json:"index"`       // of its newest entry
	Term       uint64 `json:"term"`        // of its newest entry
	TermSeen   uint64 `json:"term_seen"`   // the newest that it took part in
	State      []byte `json:"state"`       // with every entry applied, committed or not
	StateIndex uint64 `json:"state_index"` // of the newest command in it
}

// Seed is the metadata that a new generation starts with, the same for all survivors.
type Seed struct {
	Generation uint64 `json:"generation"`
	Index      uint64 `json:"index"`
	Term       uint64 `json:"term"`
	Voters     []Peer `json:"voters"`
	State      []byte `json:"state"`
}

var ( // raft's names for them
	keyCurrentTerm  = []byte("CurrentTerm")
	keyLastVoteTerm = []byte("LastVoteTerm")
)

// ReadExport reads the directory of a Server that is not running. Entries that
// were not known to be committed count: a majority that is gone may have
// confirmed them.
func ReadExport(dir, node string) (out Export, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("metadata of node %q in %s: %w", node, dir, err)
		}
	}()
	if _, err := os.Stat(filepath.Join(dir, "raft.db")); err != nil {
		return Export{}, err
	}
	d, err := openDisk(dir)
	if err != nil {
		return Export{}, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	snaps, err := openSnapshots(dir, zerolog.Nop())
	if err != nil {
		return Export{}, err
	}
	return exportOf(d, snaps, node)
}

// Export is what a node that runs knows, for a preview: its view may lag behind its
// directory.
func (v *View) Export(node string) (Export, error) {
	var b bytes.Buffer
	if err := v.Save(&b); err != nil {
		return Export{}, fmt.Errorf("metadata of node %q: %w", node, err)
	}
	return Export{Node: node, Generation: v.generation, Index: v.index, State: b.Bytes(), StateIndex: v.index}, nil
}

func exportOf(d *disk, snaps raft.SnapshotStore, node string) (Export, error) {
	v, index, term, err := replay(d, snaps)
	if err != nil {
		return Export{}, err
	}
	if index == 0 {
		return Export{}, fmt.Errorf("it was never part of a cluster: %w", log.ErrUnavailable)
	}
	seen, err := d.GetUint64(keyCurrentTerm)
	if err != nil {
		return Export{}, err
	}
	var b bytes.Buffer
	if err := v.Save(&b); err != nil {
		return Export{}, err
	}
	return Export{Node: node, Generation: v.generation, Index: index, Term: term, TermSeen: seen, State: b.Bytes(), StateIndex: v.index}, nil
}

// replay applies everything that a directory holds, committed or not. index and
// term are those of its newest entry; 0: it holds nothing.
func replay(d *disk, snaps raft.SnapshotStore) (v *View, index, term uint64, err error) {
	m := newMachine(zerolog.Nop())
	list, err := snaps.List()
	if err != nil {
		return nil, 0, 0, err
	}
	for _, meta := range list { // newest first; an older one will do when a newer one is damaged
		_, r, err := snaps.Open(meta.ID)
		if err != nil {
			continue
		}
		if err := m.Restore(r); err != nil {
			_ = r.Close() // only read
			continue
		}
		index, term = meta.Index, meta.Term
		break
	}
	if len(list) > 0 && index == 0 {
		return nil, 0, 0, fmt.Errorf("none of %d snapshots can be read: %w", len(list), log.ErrSuspect)
	}
	last, err := d.LastIndex()
	if err != nil {
		return nil, 0, 0, err
	}
	for i := index + 1; i <= last; i++ {
		var l raft.Log
		if err := d.GetLog(i, &l); err != nil {
			return nil, 0, 0, fmt.Errorf("entry %d: %w", i, err)
		}
		m.apply(&l)
		if err := m.stopped(); err != nil {
			return nil, 0, 0, err
		}
		index, term = l.Index, l.Term
	}
	return m.state.v, index, term, nil
}

// Succession is what the metadata of the next generation is made from.
type Succession struct {
	Exports  []Export  // of all survivors
	Replicas []Replica // theirs
	Voters   []Peer    // the survivors
	// Lost are those that are given up, as the cluster's list has them: name, city,
	// witness. The exports may not have heard of all of them.
	Lost   []Node
	Reason string
	Now    time.Time
	// Pass is how many offsets a stream passes over of which the lost may have
	// confirmed entries by themselves; 0: LostEntries.
	Pass log.Offset
}

// MakeSeed makes the metadata of the next generation: from the best of the
// survivors' exports, and the descriptors that their replicas keep. A registered
// node that is not among voters is given up: forgotten, with what only it held.
//
// What the replicas prove wins over what the export says, because an export may
// hold entries that were never committed, and miss some that were.
//
// A stream of which the lost nodes may have confirmed entries that no survivor has
// goes on behind a gap. Closed segments that no survivor has are lost, and say so.
func MakeSeed(x Succession) (Seed, error) {
	exports, replicas, voters, reason, now := x.Exports, x.Replicas, x.Voters, x.Reason, x.Now
	if x.Pass == 0 {
		x.Pass = LostEntries
	}
	if len(exports) == 0 || len(voters) == 0 {
		return Seed{}, fmt.Errorf("takeover with %d exports for %d voters: %w", len(exports), len(voters), log.ErrProtocol)
	}
	for _, p := range voters {
		if !slices.ContainsFunc(exports, func(e Export) bool { return e.Node == p.Name }) {
			return Seed{}, fmt.Errorf("takeover: no export of node %q: %w", p.Name, log.ErrProtocol)
		}
	}
	best := exports[0]
	seed := Seed{Voters: slices.Clone(voters)}
	for _, e := range exports {
		if newer(e, best) {
			best = e
		}
		seed.Index, seed.Term = max(seed.Index, e.Index+1), max(seed.Term, e.Term+1, e.TermSeen+1)
	}
	state, err := Load(bytes.NewReader(best.State))
	if err != nil {
		return Seed{}, fmt.Errorf("takeover: export of node %q: %w", best.Node, err)
	}
	seed.Generation = best.Generation + 1
	for _, r := range replicas {
		seed.Generation = max(seed.Generation, r.Descriptor.Generation+1)
	}
	v := *state.v
	if now.After(v.now) {
		v.now = now.UTC().Round(0)
	}
	if err := v.merge(replicas, voters); err != nil {
		return Seed{}, fmt.Errorf("takeover: %w", err)
	}
	var names []string
	var storing []quorum.Member // of the lost ones
	for _, n := range append(slices.Clone(v.nodes), x.Lost...) {
		if slices.ContainsFunc(voters, func(p Peer) bool { return p.Name == n.Name }) || slices.Contains(names, n.Name) {
			continue
		}
		if names = append(names, n.Name); !n.Witness {
			storing = append(storing, quorum.Member{Node: n.Name, UUID: n.UUID, City: n.City})
		}
	}
	v.generation = seed.Generation - 1 // replicas may know of generations that the exports missed
	if err := v.succeed(&Generation{Generation: seed.Generation, Lost: names, Reason: reason}); err != nil {
		return Seed{}, fmt.Errorf("takeover: %w", err)
	}
	var left []survivor
	for _, e := range exports {
		left = append(left, survivor{e.Node, e.UUID})
	}
	v.after(state.v, &x, left, storing)
	v.index = seed.Index
	var b bytes.Buffer
	if err := v.Save(&b); err != nil {
		return Seed{}, fmt.Errorf("takeover: %w", err)
	}
	seed.State = b.Bytes()
	return seed, nil
}

// newer says which of two logs has everything that was committed, if one of them
// has: Raft's own comparison, within the newest generation.
func newer(a, b Export) bool {
	switch {
	case a.Generation != b.Generation:
		return a.Generation > b.Generation
	case a.Term != b.Term:
		return a.Term > b.Term
	}
	return a.Index > b.Index
}

// Install replaces what the directory of a Server that is not running holds. It
// may be repeated, also after the new generation has gone on: then it does
// nothing. A seed of an older generation is refused with log.ErrGeneration.
func Install(dir, node string, s Seed) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("metadata of node %q in %s: install generation %d: %w", node, dir, s.Generation, err)
		}
	}()
	if !slices.ContainsFunc(s.Voters, func(p Peer) bool { return p.Name == node }) {
		return fmt.Errorf("the node is not among its voters: %w", log.ErrIdentity)
	}
	state, err := Load(bytes.NewReader(s.State))
	if err != nil {
		return err
	}
	if state.v.generation != s.Generation || s.Index == 0 || s.Term == 0 || state.v.index != s.Index {
		return fmt.Errorf("its state is of generation %d at %d, not %d: %w", state.v.generation, state.v.index, s.Index, log.ErrProtocol)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	d, err := openDisk(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	snaps, err := openSnapshots(dir, zerolog.Nop())
	if err != nil {
		return err
	}
	if had, err := exportOf(d, snaps, node); err == nil {
		if had.Generation == s.Generation {
			return nil
		}
		if had.Generation > s.Generation {
			return fmt.Errorf("it is at generation %d: %w", had.Generation, log.ErrGeneration)
		}
	}
	// In this order every step leaves what Raft can start from: its term is never
	// below its entries', and the snapshot is newer than all entries in the log.
	if err := d.store(keyCurrentTerm, s.Term); err != nil {
		return err
	}
	var conf raft.Configuration
	for _, p := range s.Voters {
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(p.Name), Address: raft.ServerAddress(p.Address)})
	}
	_, transport := raft.NewInmemTransport("")
	sink, err := snaps.Create(raft.SnapshotVersionMax, s.Index, s.Term, conf, s.Index, transport)
	if err != nil {
		return err
	}
	if _, err := io.Copy(sink, bytes.NewReader(s.State)); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	first, err := d.FirstIndex()
	if err != nil {
		return err
	}
	last, err := d.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	return d.DeleteRange(first, last)
}
