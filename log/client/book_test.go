package client

import (
	"context"
	"errors"
	"testing"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// viewStore answers from one view, as a node does that is cut off.
type viewStore struct {
	meta.Store
	view *meta.View
}

func (s viewStore) Segments(_ context.Context, stream string, from uint32, n int) ([]meta.Segment, error) {
	page, ok := s.view.Segments(stream, from, n)
	if !ok {
		return nil, log.ErrNoStream
	}
	return page, nil
}

// TestSegmentOfAnOlderView looks for every entry of a stream in every view that
// there was: an older one than the stream's may not have the segment, and says so
// instead of giving one behind it, which would be taken for a hole that retention
// left. A reader of what is kept for ever would pass over it.
func TestSegmentOfAnOlderView(t *testing.T) {
	const segments, each = 50, 10
	state := meta.NewState()
	apply := func(c meta.Command) *meta.Stream {
		t.Helper()
		r, err := state.Apply(c)
		if err != nil {
			t.Fatal(err)
		}
		return r.Stream
	}
	n := meta.Node{Name: "a1", UUID: "u", City: "a", Address: "a1:1"}
	member := quorum.Member{Node: n.Name, UUID: n.UUID, City: n.City}
	apply(meta.Command{Register: &meta.Register{Node: n}})
	rule := quorum.NodeRule{Total: 1}
	apply(meta.Command{Create: &meta.Create{Stream: "s", Policy: meta.Policy{Rule: rule, Loss: meta.LossBlock}}})
	st := apply(meta.Command{Own: &meta.Own{Stream: "s", Owner: "w"}})
	views := []*meta.View{meta.NewState().View(), state.View()}
	for i := range uint32(segments) {
		a := meta.Advance{Stream: "s", Epoch: st.Epoch, Open: &quorum.Descriptor{
			Stream: "s", Segment: i + 1, First: log.Offset(i) * each, FirstLSO: log.Offset(i)*each - 1, Epoch: st.Epoch, Generation: 1,
			Members: []quorum.Member{member}, Rule: rule, Protected: true,
		}}
		if i > 0 {
			last := a.Open.First - 1
			a.Close = &meta.Close{Segment: i, Last: last, LSO: last, Holders: []quorum.Member{member}}
		}
		st = apply(meta.Command{Advance: &a})
		views = append(views, state.View())
	}
	for k, v := range views {
		for o := range log.Offset(segments * each) {
			seg, ok, err := segmentAt(context.Background(), viewStore{view: v}, st, o)
			want := uint32(o/each) + 1
			switch {
			case err != nil && (v == state.View() || !errors.Is(err, log.ErrUnavailable) && !errors.Is(err, log.ErrNoStream)):
				t.Fatalf("view %d, entry %d: %v", k, o, err)
			case err == nil && (!ok || seg.Segment != want):
				t.Fatalf("view %d, entry %d: segment %d, %t, want %d", k, o, seg.Segment, ok, want)
			}
		}
	}
}
