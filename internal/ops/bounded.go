package ops

import (
	"context"
	"time"

	"github.com/twinspan/twinspan/log/meta"
)

// bounded is a Store whose every call ends: without a leader the metadata's client
// asks again until its context does, and an operator wants to know.
type bounded struct {
	meta.Store
	after time.Duration
}

func within[T any](ctx context.Context, d time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return f(ctx)
}

func (b bounded) Do(ctx context.Context, c meta.Command) (meta.Result, error) {
	return within(ctx, b.after, func(ctx context.Context) (meta.Result, error) { return b.Store.Do(ctx, c) })
}

func (b bounded) Stream(ctx context.Context, name string) (meta.Stream, error) {
	return within(ctx, b.after, func(ctx context.Context) (meta.Stream, error) { return b.Store.Stream(ctx, name) })
}

func (b bounded) Streams(ctx context.Context) ([]string, error) {
	return within(ctx, b.after, b.Store.Streams)
}

func (b bounded) Nodes(ctx context.Context) ([]meta.Node, error) {
	return within(ctx, b.after, b.Store.Nodes)
}

func (b bounded) Segments(ctx context.Context, stream string, from uint32, n int) ([]meta.Segment, error) {
	return within(ctx, b.after, func(ctx context.Context) ([]meta.Segment, error) { return b.Store.Segments(ctx, stream, from, n) })
}

func (b bounded) Leases(ctx context.Context) ([]meta.Lease, error) {
	return within(ctx, b.after, b.Store.Leases)
}
