package log

import "context"

// Gaps is a Log that tells which stretches of a stream are lost, as far as they are
// on record; ascending.
type Gaps interface {
	Gaps(ctx context.Context, stream string) ([]LostError, error)
}

// Behind is how many entries there are behind an offset, up to end. Offsets of gaps
// are none, where the log knows of them.
func Behind(ctx context.Context, l Log, stream string, at, end Offset) int64 {
	if at >= end {
		return 0
	}
	n := int64(end - at)
	knows, ok := l.(Gaps)
	if !ok {
		return n
	}
	gaps, err := knows.Gaps(ctx, stream)
	if err != nil {
		return n // too many is said rather than too few
	}
	for i := range gaps {
		n -= max(0, int64(min(gaps[i].To, end)-max(gaps[i].From-1, at)))
	}
	return max(0, n)
}
