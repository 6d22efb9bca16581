package applier

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// sqlBackend is a target server. Its state is in the target's schema twinspan.
type sqlBackend struct {
	cfg Config
	log zerolog.Logger
	db  *sql.DB

	mu      sync.Mutex
	catalog *target.Catalog // made at the first connection
	flavor  server.Flavor
	missing map[*schema.Table]*route // tables that the target has not, of the feeding goroutine
	planned []schema.Name            // tables that were given a plan, as the target spells them; under mu

	guard *guard

	ddlDB   *sql.DB
	runners map[server.Flavor]*target.DDLRunner // by source; of the feeding goroutine

	ownMu sync.Mutex
	owner *sql.Conn // holds the stream's named lock; nil: not held
}

func newSQLBackend(cfg Config, logger zerolog.Logger) (*sqlBackend, error) {
	lease := cfg.leaseSeconds()
	// What the server's own defaults must not decide. Silent connections end
	// with the lease, and with them the locks of an owner that stands still.
	session := map[string]string{
		"autocommit": "1", "time_zone": "'+00:00'",
		"wait_timeout": strconv.Itoa(lease), "net_write_timeout": strconv.Itoa(lease),
	}
	db, err := server.Open(cfg.Target, server.Options{FoundRows: true, MultiStatements: true, Session: session}) // FoundRows as target.Open
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(2)
	db.SetConnMaxIdleTime(cfg.Lease / 2)
	b := &sqlBackend{cfg: cfg, log: logger, db: db, runners: map[server.Flavor]*target.DDLRunner{},
		missing: map[*schema.Table]*route{}, guard: newGuard(cfg, logger)}
	if b.ddlDB, err = server.Open(cfg.Target, server.Options{Session: session}); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	b.ddlDB.SetConnMaxIdleTime(cfg.Lease / 2)
	b.ddlDB.SetMaxIdleConns(1)
	return b, nil
}

func (b *sqlBackend) close() error {
	b.disown()
	return errors.Join(b.ddlDB.Close(), b.db.Close())
}

// inTx runs f in a transaction of its own.
func (b *sqlBackend) inTx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := b.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		// The connection is of no use to anyone when this fails, too.
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	return tx.Commit()
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) || errors.Is(err, sql.ErrConnDone) {
		return nil
	}
	return err
}

// claim: every place a lane can write carries the epoch, and every transaction
// that writes one begins with a statement that asks for it. Raising all of them
// needs the locks of all of them, so it waits for transactions that are still
// open, and what comes later finds another epoch and nothing to update.
func (b *sqlBackend) claim(ctx context.Context) (c claimed, err error) {
	if err := b.connect(ctx); err != nil {
		return c, err
	}
	if err := b.own(ctx); err != nil {
		return c, err
	}
	return c, b.inTx(ctx, func(tx *sql.Tx) error {
		c = claimed{digests: map[schema.Name]uint64{}}
		s := b.cfg.Stream
		if _, err := tx.ExecContext(ctx, `INSERT IGNORE INTO twinspan.stream (stream, epoch, owner, lanes, routing_version) VALUES (?, 0, '', 0, ?)`,
			s, causality.RoutingVersion); err != nil {
			return err
		}
		var lanes int
		if err := tx.QueryRowContext(ctx, `SELECT epoch, lanes, routing_version FROM twinspan.stream WHERE stream = ? FOR UPDATE`, s).
			Scan(&c.epoch, &lanes, &c.routing); err != nil {
			return err
		}
		// Never a number that was used before, not even where the target lost
		// the memory of it in a crash while its user lives on.
		c.epoch = max(c.epoch+1, uint64(time.Now().UnixMicro()))
		if lanes == 0 {
			lanes = b.cfg.Lanes
			if err := insertLanes(ctx, tx, s, c.epoch, lanes, causality.Start); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO twinspan.progress (stream, epoch, log_offset, log_index, gtid_set) VALUES (?, ?, ?, ?, '')`,
				s, c.epoch, causality.Start.Offset, causality.Start.Index); err != nil {
				return err
			}
		}
		for _, q := range []string{
			`UPDATE twinspan.lane_position SET epoch = ? WHERE stream = ?`,
			`UPDATE twinspan.progress SET epoch = ? WHERE stream = ?`,
		} {
			if _, err := tx.ExecContext(ctx, q, c.epoch, s); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `UPDATE twinspan.stream SET epoch = ?, owner = ?, lanes = ?, claimed_at = UTC_TIMESTAMP(6) WHERE stream = ?`,
			c.epoch, b.cfg.Owner, lanes, s); err != nil {
			return err
		}
		return b.readState(ctx, tx, lanes, &c)
	})
}

func (b *sqlBackend) readState(ctx context.Context, tx *sql.Tx, lanes int, c *claimed) error {
	var err error
	if c.lanes, err = readPlaces(ctx, tx, b.cfg.Stream); err != nil {
		return err
	}
	if len(c.lanes) != lanes {
		return fmt.Errorf("%d places are stored for %d lanes: %w", len(c.lanes), lanes, errPlace)
	}
	var newest sql.NullTime
	p := &c.progress
	err = tx.QueryRowContext(ctx, `SELECT log_offset, log_index, gtid_set, commit_time FROM twinspan.progress WHERE stream = ?`, b.cfg.Stream).
		Scan(&p.place.Offset, &p.place.Index, &p.gtidSet, scanTime{&newest})
	if err != nil {
		return fmt.Errorf("stored progress: %w", err)
	}
	p.newest = newest.Time
	digests, err := tx.QueryContext(ctx, `SELECT table_schema, table_name, digest FROM twinspan.routing WHERE stream = ?`, b.cfg.Stream)
	if err != nil {
		return err
	}
	defer digests.Close()
	for digests.Next() {
		var n schema.Name
		var d uint64
		if err := digests.Scan(&n.Schema, &n.Table, &d); err != nil {
			return err
		}
		c.digests[n] = d
	}
	return digests.Err()
}

// scanTime reads the text of a DATETIME(6) in UTC.
type scanTime struct{ into *sql.NullTime }

const timeLayout = "2006-01-02 15:04:05.000000"

// Scan implements sql.Scanner.
func (s scanTime) Scan(v any) error {
	var text string
	switch v := v.(type) {
	case nil:
		*s.into = sql.NullTime{}
		return nil
	case []byte:
		text = string(v)
	case string:
		text = v
	default:
		return fmt.Errorf("time as %T", v)
	}
	t, err := time.Parse(timeLayout, text)
	*s.into = sql.NullTime{Time: t, Valid: err == nil}
	return err
}

func insertLanes(ctx context.Context, tx *sql.Tx, stream string, epoch uint64, lanes int, p change.Place) error {
	for i := range lanes {
		if _, err := tx.ExecContext(ctx, `INSERT INTO twinspan.lane_position (stream, lane, epoch, log_offset, log_index) VALUES (?, ?, ?, ?, ?)`,
			stream, i, epoch, p.Offset, p.Index); err != nil {
			return err
		}
	}
	return nil
}

func (b *sqlBackend) relane(ctx context.Context, epoch uint64, lanes int, m causality.Mode, p change.Place) error {
	return b.inTx(ctx, func(tx *sql.Tx) error {
		if err := b.mine(ctx, tx, epoch); err != nil {
			return err
		}
		var floor change.Place
		if err := tx.QueryRowContext(ctx, `SELECT log_offset, log_index FROM twinspan.progress WHERE stream = ? FOR UPDATE`, b.cfg.Stream).
			Scan(&floor.Offset, &floor.Index); err != nil {
			return lost(err)
		}
		if err := sameFloor(floor, p); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM twinspan.lane_position WHERE stream = ?`, b.cfg.Stream); err != nil {
			return err
		}
		if err := insertLanes(ctx, tx, b.cfg.Stream, epoch, lanes, p); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE twinspan.stream SET lanes = ?, routing_version = ? WHERE stream = ?`,
			lanes, m.Version(), b.cfg.Stream)
		return err
	})
}

// sameFloor: the target still has the floor that was stored last, and with it all
// that was written before. If it lost that, lanes that began at the floor would skip
// what is gone.
func sameFloor(stored, p change.Place) error {
	if stored != p {
		return fmt.Errorf("the floor is %d/%d and had been stored as %d/%d: %w", stored.Offset, stored.Index, p.Offset, p.Index, ErrRegressed)
	}
	return nil
}

// mine fails with ErrFenced unless the epoch is the stream's, and keeps it so
// until the transaction ends.
func (b *sqlBackend) mine(ctx context.Context, tx *sql.Tx, epoch uint64) error {
	var now uint64
	var owner string
	if err := tx.QueryRowContext(ctx, `SELECT epoch, owner FROM twinspan.stream WHERE stream = ? FOR UPDATE`, b.cfg.Stream).Scan(&now, &owner); err != nil {
		return lost(err)
	}
	return sameEpoch(now, epoch, owner)
}

// sameEpoch compares the stored epoch with the owner's. A lower one was stored
// before the owner took over: the target lost that.
func sameEpoch(stored, own uint64, by string) error {
	switch {
	case stored == own:
		return nil
	case stored < own:
		return fmt.Errorf("epoch %d was lost, %d is stored: %w", own, stored, ErrRegressed)
	}
	return fmt.Errorf("epoch %d, by %s at epoch %d: %w", own, by, stored, ErrFenced)
}

// lost: state that an owner wrote is not there.
func lost(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("the stream's state is gone: %w", ErrRegressed)
	}
	return err
}

// saveProgress: a floor above what the target really holds would make a restart
// skip changes for good, so the lanes' places are read in the same transaction.
func (b *sqlBackend) saveProgress(ctx context.Context, epoch uint64, p progress, believed standing) error {
	return b.inTx(ctx, func(tx *sql.Tx) error {
		var now uint64
		if err := tx.QueryRowContext(ctx, `SELECT epoch FROM twinspan.progress WHERE stream = ? FOR UPDATE`, b.cfg.Stream).Scan(&now); err != nil {
			return lost(err)
		}
		if err := sameEpoch(now, epoch, "a newer owner"); err != nil {
			return err
		}
		stand, err := readStanding(ctx, tx, b.cfg.Stream)
		if err != nil {
			return err
		}
		if err := notBehind(believed, stand); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE twinspan.progress SET log_offset = ?, log_index = ?, gtid_set = ?, commit_time = ?, pending_since = ?,
			updated_at = UTC_TIMESTAMP(6) WHERE stream = ?`,
			p.place.Offset, p.place.Index, p.gtidSet, sqlTime(p.newest), sqlTime(p.pending), b.cfg.Stream)
		return err
	})
}

// readStanding reads how a stream's lanes stand. The caller holds a lock that a change
// of the lanes waits for, so that both statements see the same ones.
func readStanding(ctx context.Context, q server.Querier, stream string) (s standing, err error) {
	if err := q.QueryRowContext(ctx, `SELECT routing_version FROM twinspan.stream WHERE stream = ?`, stream).Scan(&s.routing); err != nil {
		return s, lost(err)
	}
	s.lanes, err = readPlaces(ctx, q, stream)
	return s, err
}

// readPlaces reads the lanes' stored places, in order.
func readPlaces(ctx context.Context, q server.Querier, stream string) ([]change.Place, error) {
	rows, err := q.QueryContext(ctx, `SELECT lane, log_offset, log_index FROM twinspan.lane_position WHERE stream = ? ORDER BY lane`, stream)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []change.Place
	for rows.Next() {
		var lane int
		var p change.Place
		if err := rows.Scan(&lane, &p.Offset, &p.Index); err != nil {
			return nil, err
		}
		if lane != len(out) {
			return nil, fmt.Errorf("lane %d has no stored place: %w", len(out), errPlace)
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// sqlTime is text, so that no time zone of any session comes into it.
func sqlTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(timeLayout)
}

func (b *sqlBackend) saveDigest(ctx context.Context, epoch uint64, n schema.Name, digest uint64) error {
	return b.inTx(ctx, func(tx *sql.Tx) error {
		if err := b.mine(ctx, tx, epoch); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO twinspan.routing (stream, table_schema, table_name, digest) VALUES (?, ?, ?, ?)
			ON DUPLICATE KEY UPDATE digest = ?`, b.cfg.Stream, n.Schema, n.Table, digest, digest)
		return err
	})
}

// connect learns who the target is, and makes the state tables.
func (b *sqlBackend) connect(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.catalog != nil {
		return nil
	}
	info, err := server.Detect(ctx, b.db)
	if err != nil {
		return fmt.Errorf("target %s: %w", b.cfg.Target.Address, err)
	}
	collations, err := schema.LoadCollations(ctx, b.db)
	if err != nil {
		return fmt.Errorf("target %s: %w", b.cfg.Target.Address, err)
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if err := b.guard.prepare(ctx, b.db); err != nil {
		return err
	}
	b.flavor = info.Flavor
	b.catalog = target.NewCatalog(info, collations)
	return nil
}

func (b *sqlBackend) route(ctx context.Context, source *schema.Table) (*route, error) {
	t, err := b.catalog.Table(ctx, b.db, source.Name)
	if errors.Is(err, target.ErrNoTable) && b.guard.on(exceptions.MissingTable) {
		return b.missingRoute(source), nil
	}
	if err != nil {
		return nil, err
	}
	if len(t.Triggers) > 0 {
		return nil, fmt.Errorf("table %s: %w: %v", source.Name, errTriggers, t.Triggers)
	}
	plan, err := target.NewPlan(source, t)
	if err != nil {
		return nil, err
	}
	rep, in, err := b.catalog.Component(ctx, b.db, source.Name)
	if err != nil {
		return nil, err
	}
	rt := &route{
		source: source, plan: plan, free: !in,
		routing: causality.NewRouting(b.flavor, source, t, rep, in),
	}
	rt.shape = rt.routing.Shape(source, t)
	delete(b.missing, source)
	b.mu.Lock()
	if !slices.Contains(b.planned, t.Name) {
		b.planned = append(b.planned, t.Name)
	}
	b.mu.Unlock()
	return rt, b.guard.admit(ctx, b.db, rt)
}

func (b *sqlBackend) forget() { b.catalog.ForgetAll() }

func (b *sqlBackend) changed(d *change.DDL) (names []schema.Name, all bool) {
	return b.catalog.Changed(d)
}

// ddl: who owned the stream before and is still running the statement, or about
// to, holds the statement's lock, which the runner waits for; its record then
// tells whether there is anything left to do.
func (b *sqlBackend) ddl(ctx context.Context, epoch uint64, p change.Place, d *change.DDL, source server.Flavor) error {
	if err := b.inTx(ctx, func(tx *sql.Tx) error { return b.mine(ctx, tx, epoch) }); err != nil {
		return err
	}
	if err := b.guard.mayDDL(ctx, b.db, d); err != nil {
		return err
	}
	r := b.runners[source]
	if r == nil {
		r = target.NewDDLRunner(target.DDLOptions{DB: b.ddlDB, Stream: b.cfg.Stream, Source: source, Logger: b.log})
		b.runners[source] = r
	}
	return r.Run(ctx, p, d)
}
