package main

import (
	"context"
	"errors"
	"time"

	"github.com/twinspan/twinspan/internal/wan"
	"github.com/twinspan/twinspan/test/chaos/history"
)

// lose says that from here on nothing can be stored in the city; regain that it
// may be again. What is called protected in between is a lie.
func (r *run) lose(city string) {
	r.record.Put(history.Record{Kind: history.Cut, City: city})
}

func (r *run) regain(city string) {
	r.record.Put(history.Record{Kind: history.Mend, City: city})
}

// cuts alternate between a line that is dead and one that resets.
func (r *run) cut(i int) wan.Cut { return []wan.Cut{wan.Hold, wan.Reset}[i%2] }

// partition separates the cities from each other, both ways.
func partition(ctx context.Context, r *run) error {
	i := r.random.IntN(2)
	return r.repeat(ctx, func() error {
		i++
		city, cut := r.Cities()[r.random.IntN(2)], r.cut(i)
		r.say("city %s is cut off (%s)", city, cut)
		if err := r.CutOff(city, cut); err != nil {
			return err
		}
		r.lose(city)
		err := r.sleep(ctx, 0.1+0.2*r.random.Float64())
		r.regain(city)
		r.say("city %s is connected", city)
		return errors.Join(err, r.Heal(), r.sleep(ctx, 0.1))
	})
}

// oneWay lets nothing through in one direction.
func oneWay(ctx context.Context, r *run) error {
	from := r.random.IntN(2)
	return r.repeat(ctx, func() error {
		from++
		a, b := r.Cities()[from%2], r.Cities()[(from+1)%2]
		r.say("nothing gets from city %s to city %s", a, b)
		err := errors.Join(r.CutOneWay(a, b, wan.Hold), r.sleep(ctx, 0.1+0.15*r.random.Float64()))
		r.say("city %s reaches city %s", a, b)
		return errors.Join(err, r.Heal(), r.sleep(ctx, 0.1))
	})
}

// isolateNode separates one node from everybody.
func isolateNode(ctx context.Context, r *run) error {
	i := r.random.IntN(2)
	return r.repeat(ctx, func() error {
		i++
		name := pick(r, r.In())
		r.say("node %s is cut off (%s)", name, r.cut(i))
		err := errors.Join(r.Isolate(name, r.cut(i)), r.sleep(ctx, 0.1+0.2*r.random.Float64()))
		r.say("node %s is connected", name)
		return errors.Join(err, r.Heal())
	})
}

// slowLink makes the line between the cities slow and thin.
func slowLink(ctx context.Context, r *run) error {
	return r.repeat(ctx, func() error {
		delay := time.Duration(20+r.random.IntN(150)) * time.Millisecond
		rate := int64(100+r.random.IntN(900)) << 10
		r.say("the line takes %v longer and %d bytes a second", delay, rate)
		err := errors.Join(r.Slow(delay, delay/2, rate), r.sleep(ctx, 0.1+0.2*r.random.Float64()))
		r.say("the line is good")
		return errors.Join(err, r.Heal())
	})
}
