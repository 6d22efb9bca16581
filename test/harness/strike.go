package harness

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

// Strike kills something at random with SIGKILL, one process as a rule, several, or
// one of the two servers, and starts it again. It leaves everything running.
func (p *Pipeline) Strike(r *rand.Rand, standby, target *mysqltest.Server) error {
	// What was killed is started again even when a test is over.
	ctx := context.Background()
	roles := p.Roles()
	r.Shuffle(len(roles), func(i, j int) { roles[i], roles[j] = roles[j], roles[i] })
	switch n := r.IntN(20); {
	case n < 12:
		roles = roles[:1]
	case n < 15:
		roles = roles[:2]
	case n < 16:
	case n < 18:
		if err := standby.Kill(); err != nil {
			return err
		}
		return standby.Restart(ctx)
	default:
		if err := target.Kill(); err != nil {
			return err
		}
		time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
		return target.Restart(ctx)
	}
	for _, role := range roles {
		if err := p.Kill(role); err != nil {
			return err
		}
	}
	time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
	for _, role := range roles {
		if err := p.Start(ctx, role); err != nil {
			return err
		}
	}
	return nil
}

// StrikeUntil strikes every now and then until the context ends; it answers with the
// first strike that failed.
func (p *Pipeline) StrikeUntil(ctx context.Context, r *rand.Rand, standby, target *mysqltest.Server) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(50+r.IntN(1500)) * time.Millisecond):
		}
		if err := p.Strike(r, standby, target); err != nil {
			return err
		}
	}
}
