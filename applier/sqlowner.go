package applier

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twinspan/twinspan/applier/target"
)

// errWaiting: another applier is alive and owns the stream.
var errWaiting = errors.New("another applier owns the stream; waiting for it to end")

// lockName is the stream's named lock; MySQL takes at most 64 characters.
func lockName(kind, stream string) string {
	sum := sha256.Sum256([]byte(stream))
	return "twinspan." + kind + "." + hex.EncodeToString(sum[:16])
}

// leaseSeconds is what the owner's connections may be silent for.
func (c Config) leaseSeconds() int { return max(2, int(c.Lease/time.Second)) }

// own takes the stream's named lock, on a connection that is kept for it. The
// lock only keeps two appliers from taking the stream from each other for ever:
// the epoch is what fences.
func (b *sqlBackend) own(ctx context.Context) error {
	b.ownMu.Lock()
	defer b.ownMu.Unlock()
	if b.owner != nil {
		return nil
	}
	conn, err := b.db.Conn(ctx)
	if err != nil {
		return err
	}
	var got sql.NullInt64
	err = conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, 1)", lockName("owner", b.cfg.Stream)).Scan(&got)
	if err == nil && got.Int64 != 1 {
		err = fmt.Errorf("stream %s on %s: %w", b.cfg.Stream, b.cfg.Target.Address, errWaiting)
	}
	if err != nil {
		target.Discard(conn)
		return err
	}
	b.owner = conn
	return nil
}

// disown gives the lock up.
func (b *sqlBackend) disown() {
	b.ownMu.Lock()
	defer b.ownMu.Unlock()
	if b.owner != nil {
		target.Discard(b.owner)
		b.owner = nil
	}
}

// hold keeps the lock's connection busy within the lease. Without it (the
// target was restarted, the network was cut) it takes the lock again; that
// another applier has it now is no reason to stop writing before the epoch says so.
func (b *sqlBackend) hold(ctx context.Context, epoch uint64) error {
	defer b.disown()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	changed := make(chan error, 1) // owner: watch; bound 1; never closed
	wg.Add(2)
	go func() {
		defer wg.Done()
		b.guard.tend(ctx, b.db, b.cfg.Owner)
	}()
	go func() {
		defer wg.Done()
		if err := b.watch(ctx); err != nil {
			changed <- err
		}
	}()
	defer wg.Wait()
	defer cancel()
	tick := time.NewTicker(time.Duration(b.cfg.leaseSeconds()) * time.Second / 5)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-changed:
			return err
		case <-tick.C:
		}
		if err := b.ping(ctx, epoch); err != nil {
			if final(err) {
				return err
			}
			if ctx.Err() == nil {
				b.log.Debug().Err(err).Msg("ownership not confirmed")
			}
			b.disown()
		}
	}
}

func (b *sqlBackend) ping(ctx context.Context, epoch uint64) error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Lease/2+time.Second)
	defer cancel()
	if err := b.own(ctx); err != nil && !errors.Is(err, errWaiting) {
		return err
	}
	b.ownMu.Lock()
	conn := b.owner
	b.ownMu.Unlock()
	var now uint64
	var owner string
	const q = `SELECT epoch, owner FROM twinspan.stream WHERE stream = ?`
	var row *sql.Row
	if conn != nil {
		row = conn.QueryRowContext(ctx, q, b.cfg.Stream)
	} else {
		row = b.db.QueryRowContext(ctx, q, b.cfg.Stream)
	}
	if err := row.Scan(&now, &owner); err != nil {
		return lost(err)
	}
	return sameEpoch(now, epoch, owner)
}
