package main

import (
	"context"
	"errors"
)

// fullDisk fills a node's disk, with and without a restart in between.
func fullDisk(ctx context.Context, r *run) error {
	return r.repeat(ctx, func() error {
		name := pick(r, r.small())
		r.say("the disk of node %s is full", name)
		err := errors.Join(r.Fill(name), r.sleep(ctx, 0.1+0.1*r.random.Float64()))
		if r.random.IntN(2) == 0 {
			r.say("node %s is killed and started with a full disk", name)
			err = errors.Join(err, r.Kill(name), r.Start(ctx, name), r.sleep(ctx, 0.05))
		}
		r.say("the disk of node %s has room again", name)
		return errors.Join(err, r.Empty(name), r.sleep(ctx, 0.1))
	})
}

// small are the nodes with a small disk.
func (r *run) small() []string {
	var out []string
	for _, n := range r.scenario.nodes {
		if n.DiskBytes > 0 {
			out = append(out, n.Name)
		}
	}
	return out
}

// wipedNode takes a node's disk away and brings it back empty, one in each city.
func wipedNode(ctx context.Context, r *run) error {
	for _, city := range r.scenario.storing() {
		name := pick(r, r.Storing(city))
		r.say("node %s is killed and wiped", name)
		if err := errors.Join(r.Kill(name), r.Wipe(name), r.sleep(ctx, 0.1), r.forget(ctx, name)); err != nil {
			return err
		}
		r.say("node %s is started on an empty disk", name)
		// Before the next one goes the cluster has to say that this loss is repaired:
		// what it held is copied, and no open segment counts on it any more. The rule
		// bears one disk lost in each city only if they are not lost together.
		err := errors.Join(r.Start(ctx, name), r.sleep(ctx, 0.1))
		if err == nil {
			err = r.soon(ctx)
		}
		if errors.Is(err, errNotWhole) {
			return nil // it is in the report; another loss would be one too many
		}
		if err != nil {
			return err
		}
	}
	return r.sleep(ctx, 0.1)
}

// damagedNode changes bytes in a stopped node's files.
func damagedNode(ctx context.Context, r *run) error {
	names := r.Storing()
	for i := range 3 {
		if err := r.sleep(ctx, 0.1); err != nil {
			return err
		}
		name := names[(i*len(names)/2+r.random.IntN(len(names)))%len(names)]
		if err := r.Kill(name); err != nil {
			return err
		}
		where, err := r.Damage(name, 1+r.random.IntN(4), r.random)
		r.say("node %s was killed and has damage at %v", name, where)
		if err := errors.Join(err, r.Start(ctx, name), r.sleep(ctx, 0.1), r.whole(ctx)); err != nil {
			return err
		}
	}
	return r.sleep(ctx, 0.05)
}
