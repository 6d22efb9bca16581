package main

import (
	"context"
	"errors"
)

// killCity kills all nodes of a city at once, and starts them again.
func killCity(ctx context.Context, r *run) error {
	return r.repeat(ctx, func() error {
		city := pick(r, r.scenario.storing())
		r.say("all nodes of city %s are killed", city)
		if err := r.Kill(r.In(city)...); err != nil {
			return err
		}
		r.lose(city)
		err := r.sleep(ctx, 0.1+0.1*r.random.Float64())
		r.regain(city)
		r.say("the nodes of city %s are started", city)
		return errors.Join(err, r.Start(ctx, r.In(city)...), r.sleep(ctx, 0.1))
	})
}

// killAll kills every node at once, as a power cut of everything does.
func killAll(ctx context.Context, r *run) error {
	return r.repeat(ctx, func() error {
		r.say("all nodes are killed")
		return errors.Join(r.Kill(r.In()...), r.sleep(ctx, 0.03), r.Start(ctx, r.In()...), r.sleep(ctx, 0.2))
	})
}

// rollingRestart ends nodes in order and starts them again, one after the other.
func rollingRestart(ctx context.Context, r *run) error {
	for _, name := range r.In() {
		r.say("node %s is restarted", name)
		if err := errors.Join(r.Terminate(name), r.Start(ctx, name), r.sleep(ctx, 0.1)); err != nil {
			return err
		}
	}
	return nil
}

// wipedCity takes the disks of all nodes of a city away.
func wipedCity(ctx context.Context, r *run) error {
	city := pick(r, r.scenario.storing())
	names := r.In(city)
	r.say("all nodes of city %s are killed and wiped", city)
	if err := r.Kill(names...); err != nil {
		return err
	}
	r.lose(city)
	err := errors.Join(r.Wipe(names...), r.sleep(ctx, 0.2), r.forget(ctx, names...))
	r.regain(city)
	r.say("the nodes of city %s are started on empty disks", city)
	return errors.Join(err, r.Start(ctx, names...), r.sleep(ctx, 0.2), r.whole(ctx))
}

// degrade takes a city away for longer than the writers wait for it: by a line
// that is cut, and by all its nodes killed.
func degrade(ctx context.Context, r *run) error {
	for i, city := range r.scenario.storing() {
		r.say("city %s is gone", city)
		if err := errors.Join(r.CutOff(city, r.cut(i))); err != nil {
			return err
		}
		if i == 1 {
			if err := r.Kill(r.In(city)...); err != nil {
				return err
			}
		}
		r.lose(city)
		err := r.sleep(ctx, 0.5)
		r.regain(city)
		r.say("city %s is back", city)
		if err := errors.Join(err, r.Heal(), r.Start(ctx, r.In(city)...), r.sleep(ctx, 0.1), r.whole(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// mixed does any of the others' deeds.
func mixed(ctx context.Context, r *run) error {
	deeds := []func(context.Context, *run) error{killNode, killWriters, killReaders, freezeNode, zombieWriter, partition, oneWay, isolateNode, slowLink, killCity, rollingRestart}
	whole := r.duration
	defer func() { r.duration = whole }()
	r.duration = whole / 4
	for range 4 {
		if err := deeds[r.random.IntN(len(deeds))](ctx, r); err != nil {
			return err
		}
	}
	return nil
}
