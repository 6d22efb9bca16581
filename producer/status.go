package producer

import (
	"sync"
	"time"

	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/producer/binlog"
)

// The states of a producer.
const (
	StateStarting = "starting" // looking at the server and at the log
	StateRunning  = "running"
	StateHalted   = "halted"  // see Status.Halt
	StateTrouble  = "trouble" // the server or the log can't be reached; see Status.LastError
	StateStopped  = "stopped"
)

// Status is what a producer says of itself.
type Status struct {
	Stream string `json:"stream"`
	State  string `json:"state"`
	// Halt is why it stands still; nil while it does not.
	Halt      *HaltStatus `json:"halt,omitempty"`
	LastError string      `json:"last_error,omitempty"` // of the binlog connection or the log, while there is trouble

	Server        string `json:"server"` // address
	ServerVersion string `json:"server_version,omitempty"`
	Flavor        string `json:"flavor,omitempty"`
	ServerUUID    string `json:"server_uuid,omitempty"` // or server id for MariaDB
	Connected     bool   `json:"connected"`             // to the binlog
	File          string `json:"file,omitempty"`        // where the newest confirmed transaction was read
	Position      uint64 `json:"position,omitempty"`

	Epoch     log.Epoch  `json:"epoch"`
	Offset    log.Offset `json:"offset"`    // newest confirmed data entry
	Protected bool       `json:"protected"` // it has its full ack rule
	GTIDSet   string     `json:"gtid_set"`  // confirmed in the log

	// CommitTime is that of the newest confirmed transaction; LagSeconds how
	// long the oldest one that was read and is not confirmed has been
	// committed, 0 when there is none.
	CommitTime *time.Time `json:"commit_time,omitempty"`
	LagSeconds float64    `json:"lag_seconds"`
}

// HaltStatus is a halt as a status shows it.
type HaltStatus struct {
	Code   string    `json:"code"`
	GTID   string    `json:"gtid,omitempty"`
	Detail string    `json:"detail"`
	Remedy string    `json:"remedy"`
	Since  time.Time `json:"since"`
}

// board collects what Status and the metrics show.
type board struct {
	mu     sync.Mutex
	s      Status
	set    gtid.Set
	flying []time.Time // commit times of the first transactions of entries on their way; at most flightsMax
	batch  *batcher    // nil when no writer is open
	beats  func() int64
	halted int64 // heartbeats when the halt was noted

	transactions, rows, bytes, entries int64 // confirmed
	halts                              map[string]int64
	latency                            histogram
}

func (b *board) init(cfg Config, beats func() int64) {
	b.s = Status{Stream: cfg.Stream, State: StateStarting, Server: cfg.Binlog.Server.Address, Offset: log.None}
	b.halts = map[string]int64{}
	b.beats = beats
}

func (b *board) took(e log.Epoch, st binlog.State, from gtid.Set) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Epoch, b.s.Flavor, b.s.ServerUUID, b.s.ServerVersion = e, string(st.Flavor), st.Source().ServerUUID, st.Version
	b.set = from.Clone()
	b.s.State, b.s.Halt, b.s.LastError = StateRunning, nil, ""
}

func (b *board) follow(batch *batcher) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.batch, b.flying = batch, nil
}

// confirmed is the pipeline's note of an entry.
func (b *board) confirmed(f flight, ack log.Ack) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	// Flavours can't differ: the set began with the flavour of the batches.
	if err := b.set.Union(f.whole); err != nil {
		b.s.LastError = err.Error()
	}
	b.s.Offset, b.s.Protected = ack.Offset, ack.Protected
	if f.count > 0 {
		b.s.File, b.s.Position = f.source.File, f.source.Position
		at := f.last
		b.s.CommitTime = &at
		b.latency.observe(now.Sub(f.last).Seconds())
	}
	b.transactions += int64(f.count)
	b.rows += int64(f.rows)
	b.bytes += int64(f.bytes)
	b.entries++
	if len(b.flying) > 0 {
		b.flying = b.flying[1:]
	}
}

// sent notes an entry that was appended.
func (b *board) sent(first time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flying = append(b.flying, first)
}

// halt shows a halt, and tells whether it is a new one.
func (b *board) halt(h *Halt) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	detail := h.Detail
	if h.Cause != nil {
		detail += ": " + h.Cause.Error()
	}
	same := b.s.Halt != nil && b.s.Halt.Code == string(h.Code) && b.s.Halt.GTID == h.GTID && b.s.Halt.Detail == detail
	b.halted = b.beats()
	if same {
		return false
	}
	b.s.State = StateHalted
	b.s.Halt = &HaltStatus{Code: string(h.Code), GTID: h.GTID, Detail: detail, Remedy: h.Remedy, Since: time.Now().UTC()}
	b.halts[string(h.Code)]++
	return true
}

// goesOn: a transaction was handed over, so a halt is over.
func (b *board) goesOn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.s.State == StateHalted {
		b.s.State, b.s.Halt = StateRunning, nil
	}
}

func (b *board) trouble(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.State, b.s.LastError = StateTrouble, err.Error()
	b.s.Halt = nil
}

func (b *board) stopped(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.s.State, b.s.Halt = StateStopped, nil
	}
}

func (b *board) appended() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.entries
}

// Status is safe for concurrent use.
func (p *Producer) Status() Status {
	connected, text := p.stream.Connected()
	b := &p.board
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.s.State == StateHalted && connected && b.beats() > b.halted {
		// The server has sent all it has since, and nothing of it halted.
		b.s.State, b.s.Halt = StateRunning, nil
	}
	s := b.s
	s.Connected, s.GTIDSet = connected, b.set.String()
	if s.Halt != nil {
		h := *s.Halt
		s.Halt = &h
	}
	if s.State == StateRunning && !connected && text != "" {
		s.State, s.LastError = StateTrouble, text
	}
	var oldest time.Time
	if len(b.flying) > 0 {
		oldest = b.flying[0]
	} else if b.batch != nil {
		oldest = b.batch.pending()
	}
	if !oldest.IsZero() {
		s.LagSeconds = max(0, time.Since(oldest).Seconds())
	}
	return s
}
