package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
)

// Held is the GTID set that the log holds up to its last whole transaction: the
// newest set that a batch carries, and what came after it. Empty: the log does
// not tell, or there is nothing in it.
func Held(ctx context.Context, l log.Log, stream string) (string, error) {
	b, err := l.Bounds(ctx, stream)
	if err != nil || b.LSO < b.First {
		return "", err
	}
	for step := log.Offset(8); ; step *= 8 {
		from := max(b.First, b.LSO+1-step)
		set, err := heldFrom(ctx, l, stream, from, b.LSO+1)
		if err != nil || set != "" || from == b.First {
			return set, err
		}
	}
}

func heldFrom(ctx context.Context, l log.Log, stream string, from, end log.Offset) (string, error) {
	r, err := l.OpenReader(ctx, stream, log.ReaderOptions{From: from, To: end, Topics: []log.Topic{log.TopicData}, Committed: true})
	if err != nil {
		return "", err
	}
	defer r.Close()
	var held gtid.Set
	known := false
	for {
		e, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			if !known {
				return "", nil
			}
			return held.String(), nil
		}
		if err != nil {
			return "", err
		}
		br, err := change.NewBatchReader(e.Payload, nil)
		if err != nil {
			return "", fmt.Errorf("entry %d: %w", e.Offset, err)
		}
		if s := br.GTIDSet(); s != "" {
			if held, err = gtid.Parse(br.Source().Flavor, s); err != nil {
				return "", fmt.Errorf("entry %d: %w", e.Offset, err)
			}
			known = true
			continue // it counts this batch's transactions
		}
		if !known {
			continue
		}
		var t change.Transaction
		for {
			more, err := br.Next(&t)
			if err != nil {
				return "", fmt.Errorf("entry %d: %w", e.Offset, err)
			}
			if !more {
				break
			}
			if !t.Continued && t.GTID != "" {
				if err := held.Add(t.GTID); err != nil {
					return "", fmt.Errorf("entry %d: %w", e.Offset, err)
				}
			}
		}
	}
}
