package main

import (
	"context"
	"errors"
	"syscall"
	"time"
)

func calm(ctx context.Context, r *run) error { return r.sleep(ctx, 0.7) }

// repeat does f with pauses until the scenario's time is over, three times at
// least.
func (r *run) repeat(ctx context.Context, f func() error) error {
	until := time.Now().Add(r.duration * 8 / 10)
	for i := 0; i < 3 || time.Now().Before(until); i++ {
		if err := errors.Join(r.sleep(ctx, 0.02+0.1*r.random.Float64()), f()); err != nil {
			return err
		}
	}
	return nil
}

func pick(r *run, names []string) string { return names[r.random.IntN(len(names))] }

func killNode(ctx context.Context, r *run) error {
	return r.repeat(ctx, func() error {
		name := pick(r, r.In())
		r.say("node %s is killed", name)
		err := errors.Join(r.Kill(name), r.sleep(ctx, 0.05*r.random.Float64()))
		r.say("node %s is started", name)
		return errors.Join(err, r.Start(ctx, name))
	})
}

func (r *run) killWorkers(ctx context.Context, names []string) error {
	return r.repeat(ctx, func() error {
		name := pick(r, names)
		r.say("worker %s is killed", name)
		return errors.Join(r.EndWorker(name, syscall.SIGKILL), r.hire(name))
	})
}

func killWriters(ctx context.Context, r *run) error {
	return r.killWorkers(ctx, []string{"w1", "w2", "w3"})
}

func killReaders(ctx context.Context, r *run) error { return r.killWorkers(ctx, []string{"r1", "r2"}) }

func freezeNode(ctx context.Context, r *run) error {
	return r.repeat(ctx, func() error {
		name := pick(r, r.In())
		r.say("node %s is frozen", name)
		err := errors.Join(r.Freeze(name), r.sleep(ctx, 0.1+0.2*r.random.Float64()))
		r.say("node %s goes on", name)
		return errors.Join(err, r.Thaw(name))
	})
}

// zombieWriter freezes writers in the midst of their appends until others have
// taken their streams over.
func zombieWriter(ctx context.Context, r *run) error {
	return r.repeat(ctx, func() error {
		name := pick(r, []string{"w1", "w2", "w3"})
		r.say("worker %s is frozen", name)
		err := errors.Join(r.SignalWorker(name, syscall.SIGSTOP), r.sleep(ctx, 0.2+0.1*r.random.Float64()))
		r.say("worker %s goes on", name)
		return errors.Join(err, r.SignalWorker(name, syscall.SIGCONT))
	})
}
