package binlog

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// Config of a stream. The zero value of everything but Server is usable.
type Config struct {
	Server server.Endpoint
	// ServerID the stream registers with; it must be no other replica's. 0
	// takes a random one in the upper half of the range.
	ServerID uint32
	// Heartbeat is how often an idle server says that it is alive; 0: 2 s.
	Heartbeat time.Duration
	// ReadTimeout is after how much silence the connection counts as dead; 0: 5
	// heartbeats. It must be above Heartbeat.
	ReadTimeout time.Duration
	// BackoffMax bounds the pause between attempts to connect; 0: 10 s.
	BackoffMax time.Duration
	// Skip lists GTIDs whose content is dropped, whatever it is: the operator's
	// last resort after a halt.
	Skip []string
	// AllowGaps accepts holes in the numbers of MariaDB domains.
	AllowGaps bool
	// XABytesMax bounds the changes of prepared XA transactions, in bytes of
	// row events; 0: 64 MiB.
	XABytesMax int
	// Primary, where given, is asked whether it knows the transactions that
	// began on Server itself. It is to be set when Server is a standby.
	Primary *server.Endpoint
}

// InternalSchemas are never shipped: they describe the server, not the data, or
// are twinspan's own. Their transactions count with their GTID.
var InternalSchemas = []string{"mysql", "information_schema", "performance_schema", "sys", "twinspan"}

// Stream reads one server's binlog. Run may be called again after it returned.
type Stream struct {
	cfg   Config
	log   zerolog.Logger
	db    *sql.DB
	first *sql.DB // of the primary; nil where not given
	uuid  string
	// scanUUID names the connections that look ahead: a server ends an older
	// dump of the same name.
	scanUUID string
	count    Counters

	connected atomic.Bool
	lastError atomic.Pointer[string]
}

// New checks the configuration. It does not connect.
func New(cfg Config, log zerolog.Logger) (*Stream, error) {
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 2 * time.Second
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = 5 * cfg.Heartbeat
	}
	if cfg.Heartbeat < 10*time.Millisecond || cfg.ReadTimeout <= cfg.Heartbeat {
		return nil, fmt.Errorf("binlog stream of %s: read timeout %s must be above heartbeat %s", cfg.Server.Address, cfg.ReadTimeout, cfg.Heartbeat)
	}
	skip := make([]string, len(cfg.Skip))
	for i, id := range cfg.Skip {
		id = strings.ToLower(strings.TrimSpace(id))
		if my := gtid.Valid(gtid.MySQL, id); my != nil && gtid.Valid(gtid.MariaDB, id) != nil {
			return nil, fmt.Errorf("skip %q: %w", id, my)
		}
		skip[i] = id
	}
	cfg.Skip = skip
	if cfg.BackoffMax == 0 {
		cfg.BackoffMax = 10 * time.Second
	}
	if cfg.XABytesMax == 0 {
		cfg.XABytesMax = 64 << 20
	}
	var b [20]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	if cfg.ServerID == 0 {
		cfg.ServerID = binary.LittleEndian.Uint32(b[16:]) | 1<<31
	}
	name := func() string { return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16]) }
	s := &Stream{cfg: cfg, log: log, uuid: name()}
	b[0] ^= 0xff
	s.scanUUID = name()
	o := server.Options{ReadTimeout: commandTimeout, WriteTimeout: commandTimeout}
	var err error
	if s.db, err = server.Open(cfg.Server, o); err != nil {
		return nil, err
	}
	s.db.SetMaxOpenConns(3)
	s.db.SetMaxIdleConns(2)
	if cfg.Primary != nil {
		if s.first, err = server.Open(*cfg.Primary, o); err != nil {
			return nil, errors.Join(err, s.db.Close())
		}
		s.first.SetMaxOpenConns(1)
	}
	return s, nil
}

// Close ends the stream's connections for questions. Run must have returned.
func (s *Stream) Close() error {
	if s.first == nil {
		return s.db.Close()
	}
	return errors.Join(s.db.Close(), s.first.Close())
}

// Counters are live.
func (s *Stream) Counters() *Counters { return &s.count }

// Connected tells whether a dump is running, and if not, why the last one ended.
func (s *Stream) Connected() (bool, string) {
	if s.connected.Load() {
		return true, ""
	}
	if p := s.lastError.Load(); p != nil {
		return false, *p
	}
	return false, ""
}

// State asks the server about its binlog. It fails with a *Halt when the server
// is not fit to be read from.
func (s *Stream) State(ctx context.Context) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	st, err := readState(ctx, s.db)
	if err != nil && AsHalt(err) == nil {
		err = fmt.Errorf("ask %s about its binlog: %w", s.cfg.Server.Address, err)
	}
	return st, err
}

// Executed is what the server has committed by now.
func (s *Stream) Executed(ctx context.Context, f server.Flavor) (gtid.Set, error) {
	// A server that does not answer is as gone as one that sends nothing.
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	set, err := executed(ctx, s.db, f)
	if err != nil {
		err = fmt.Errorf("ask %s what it has committed: %w", s.cfg.Server.Address, err)
	}
	return set, err
}

// damagedMax is how often an event may be unreadable without a transaction in
// between.
const damagedMax = 3

// damage says in which transaction an event was that can't be read.
type damage struct {
	gtid string
	err  error
}

func (d *damage) Error() string { return d.err.Error() }
func (d *damage) Unwrap() error { return d.err }

// Run hands over every transaction of the server that is not in from, in binlog
// order, and follows the binlog until ctx ends. Broken connections are made
// again, from where the last complete transaction was handed over. It returns
// ctx's error, the sink's, or a *Halt.
func (s *Stream) Run(ctx context.Context, from gtid.Set, sink Sink) error {
	done := from.Clone()
	backoff, damaged := backoffFirst, 0
	for {
		before := s.count.Transactions.Load()
		err := s.dump(ctx, &done, sink)
		s.connected.Store(false)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		text := err.Error()
		s.lastError.Store(&text)
		var fs sinkError
		if errors.As(err, &fs) {
			return fs.error
		}
		if AsHalt(err) != nil {
			return err
		}
		if s.count.Transactions.Load() != before {
			backoff, damaged = backoffFirst, 0
		}
		if errors.Is(err, ErrDamaged) {
			// Once may be the way here; at the same place again it is
			// the binlog.
			if damaged++; damaged >= damagedMax {
				h := haltf(HaltDecode, remedyDamaged, "an event can't be read after %d attempts", damaged).because(err)
				var d *damage
				if errors.As(err, &d) {
					h.GTID = d.gtid
				}
				return h
			}
		}
		s.count.Reconnects.Add(1)
		pause := backoff/2 + mathrand.N(backoff/2)
		s.log.Warn().Err(err).Str("server", s.cfg.Server.Address).Dur("pause", pause).Msg("binlog connection lost")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		backoff = min(2*backoff, s.cfg.BackoffMax)
	}
}

const backoffFirst = 100 * time.Millisecond

// dump runs one connection until it ends. It never returns nil.
func (s *Stream) dump(ctx context.Context, done *gtid.Set, sink Sink) error {
	st, err := s.State(ctx)
	if err != nil {
		return err
	}
	if done.Flavor() != string(st.Flavor) {
		if !done.IsEmpty() {
			return haltf(HaltLogAhead, "point the producer at a server of the set", "the log is of a %s set, and the server is %s", done.Flavor(), st.Flavor)
		}
		*done = gtid.New(string(st.Flavor))
	}
	if err := st.Check(*done); err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	collations, err := schema.LoadCollations(asking, s.db)
	cancel()
	if err != nil {
		return fmt.Errorf("collations of %s: %w", s.cfg.Server.Address, err)
	}
	d, err := openDump(ctx, s.cfg.Server, dumpOptions{
		flavor: st.Flavor, from: *done, serverID: s.cfg.ServerID, uuid: s.uuid, heartbeat: s.cfg.Heartbeat, timeout: s.cfg.ReadTimeout,
	})
	if err != nil {
		if h := refusal(err); h != nil {
			return h
		}
		return err
	}
	defer d.close()
	stop := context.AfterFunc(ctx, d.close)
	defer stop()
	s.connected.Store(true)
	s.log.Info().Str("server", s.cfg.Server.Address).Str("version", st.Version).Stringer("from", *done).Msg("reading the binlog")

	r := newEventReader(st.Flavor, d.crc)
	defer r.close()
	a := s.assembler(st, r, done, collations, sink)
	take := func(e *event) error { return a.event(ctx, e) }
	for {
		raw, err := d.next()
		if err != nil {
			if h := refusal(err); h != nil {
				return h
			}
			return err
		}
		if err := r.read(raw, take); err != nil {
			if errors.Is(err, ErrDamaged) {
				return &damage{gtid: a.tx.id, err: err}
			}
			return err
		}
	}
}

func (s *Stream) assembler(st State, r *eventReader, done *gtid.Set, collations schema.Collations, sink Sink) *assembler {
	internal := map[string]bool{}
	for _, n := range InternalSchemas {
		internal[n] = true
	}
	ask := func(ctx context.Context) (gtid.Set, error) { return s.Executed(ctx, st.Flavor) }
	absent := func(ctx context.Context, from, wanted gtid.Set) (gtid.Set, error) {
		return s.absent(ctx, st.Flavor, from, wanted)
	}
	a := &assembler{
		flavor: st.Flavor, reader: r, sink: sink, done: done, count: &s.count, skip: map[string]bool{},
		order: &sequence{
			flavor: st.Flavor, seen: done.Clone(), gapsAllowed: s.cfg.AllowGaps, executed: ask, absent: absent, coming: gtid.New(string(st.Flavor)),
		},
		tables: &tables{collations: collations, internal: internal},
		judge: &judge{
			flavor: st.Flavor, version: st.Major*10000 + st.Minor*100 + st.Patch, collations: collations, internal: internal, lower: st.LowerNames,
			convert: s.convertText,
		},
		own:    s.errantCheck(st),
		source: st.Source(),
		xa:     prepared{bytesMax: s.cfg.XABytesMax},
	}
	if st.Flavor == server.MySQL {
		a.committed = &commitGate{known: st.Executed, executed: ask}
	}
	for _, id := range s.cfg.Skip {
		a.skip[id] = true
	}
	c := &catalogue{stream: s, state: st, collations: collations, judge: a.judge, assembler: a, scanned: done.Clone()}
	a.tables.catalogue = c.find
	a.tables.convert = func(ctx context.Context) converter { return convertByServer(ctx, s.db) }
	a.tables.reset()
	a.xa.reset()
	return a
}
