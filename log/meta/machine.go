package meta

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"
)

// machine is the State behind Raft. Raft calls it from one goroutine; anyone may
// ask for the published view.
type machine struct {
	log    zerolog.Logger
	state  *State // of Raft's goroutine
	latest atomic.Pointer[published]

	mu    sync.Mutex
	fault error         // why it no longer follows
	broke chan struct{} // closed with fault; owner: the machine
}

// published is a view and the channel that is closed when it is no longer the latest.
type published struct {
	view *View
	next chan struct{} // owner: the machine
}

// applied is what a command came to.
type applied struct {
	result Result
	err    error
}

func newMachine(log zerolog.Logger) *machine {
	m := &machine{log: log, state: NewState(), broke: make(chan struct{})}
	m.latest.Store(&published{m.state.v, make(chan struct{})})
	return m
}

func (m *machine) publish() {
	old := m.latest.Swap(&published{m.state.v, make(chan struct{})})
	close(old.next)
}

// stop ends the machine: it can't follow any further, and must not pretend to.
func (m *machine) stop(err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault == nil {
		m.fault = err
		close(m.broke)
	}
	return m.fault
}

func (m *machine) stopped() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fault
}

func (m *machine) apply(l *raft.Log) any {
	if err := m.stopped(); err != nil {
		return applied{err: err}
	}
	if l.Type != raft.LogCommand {
		return nil
	}
	var c Command
	if err := decodeStrictly(l.Data, &c); err != nil {
		// A newer leader wrote it. To pass over it would be to diverge.
		return applied{err: m.stop(fmt.Errorf("metadata entry %d: this program is older than the leader's: %w", l.Index, err))}
	}
	r, err := m.state.Apply(c)
	if c.By != "" {
		m.log.Warn().Uint64("index", l.Index).Str("by", c.By).Str("reason", c.Reason).RawJSON("command", l.Data).AnErr("refused", err).Msg("an operator changed the metadata")
	}
	v := *m.state.v
	v.index = l.Index
	m.state.v = &v
	return applied{r, err}
}

// Apply is part of raft.FSM.
func (m *machine) Apply(l *raft.Log) any {
	out := m.apply(l)
	m.publish()
	return out
}

// ApplyBatch is part of raft.BatchingFSM.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	for i, l := range logs {
		out[i] = m.apply(l)
	}
	m.publish()
	return out
}

// Snapshot is part of raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.stopped(); err != nil {
		return nil, err
	}
	return snapshot{m.state.v}, nil
}

// Restore is part of raft.FSM.
func (m *machine) Restore(r io.ReadCloser) error {
	s, err := Load(r)
	if err != nil {
		return err
	}
	m.state = s
	m.publish()
	return r.Close()
}

type snapshot struct{ view *View }

// Persist is part of raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.view.Save(sink); err != nil {
		if cancel := sink.Cancel(); cancel != nil {
			return fmt.Errorf("%w; cancel: %w", err, cancel)
		}
		return err
	}
	return sink.Close()
}

// Release is part of raft.FSMSnapshot.
func (snapshot) Release() {}

// encodeCommand is how a command stands in Raft's log.
func encodeCommand(c *Command) ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("metadata command: %w", err)
	}
	return b, nil
}
