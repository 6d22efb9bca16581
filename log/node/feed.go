package node

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/segment"
)

// feed reads one stream for one reader, across the segments that this node holds.
type feed struct {
	node *Node
	row  *row
	q    segment.Query // From moves

	entries []segment.Stored
	buf     []byte
	promise time.Time // since when the next segment is expected here
}

// promisePatience is how long a reader waits here for a segment that metadata
// gives to this node and whose writer has not come yet. Then it may look elsewhere.
const promisePatience = time.Second

// read returns the next entries, and moves on. No entries and an offset that did
// not move: there is nothing to see yet. Errors: log.ErrElsewhere when the entry
// is in a segment that is not here, log.ErrTrimmed, log.ErrSuspect, the store's.
func (f *feed) read() ([]segment.Stored, error) {
	for {
		s, ok := f.row.at(f.q.From)
		if ok {
			q := f.q
			if upto, cut := f.cut(s); cut {
				switch {
				case f.ended():
					return nil, nil
				case f.q.From > upto:
					return nil, fmt.Errorf("stream %q: entry %d is lost, segment %d ends with %d: %w", f.row.stream, f.q.From, s.number, upto, log.ErrElsewhere)
				}
				if q.Committed = false; q.To == 0 || q.To > upto+1 {
					q.To = upto + 1
				}
			} else if q.Committed && f.overtaken(s) {
				q.Committed = false
			}
			entries, buf, next, err := s.rep.Read(q, f.entries, f.buf)
			f.entries, f.buf = entries, buf
			if errors.Is(err, log.ErrElsewhere) {
				if again, there := f.row.at(f.q.From); there && again.rep != s.rep {
					continue // it was dropped, or renewed by a repair
				}
			}
			if err != nil {
				f.node.doubt(f.row.stream, err)
				return nil, err
			}
			if len(entries) > 0 || next > f.q.From {
				f.q.From, f.promise = next, time.Time{}
				return entries, nil
			}
			st, _, err := s.rep.State()
			if err != nil && !errors.Is(err, log.ErrElsewhere) {
				return nil, err
			}
			if f.ended() || !st.Closed || f.q.From <= st.Last {
				return nil, nil
			}
			if again, _ := f.row.at(f.q.From); again.rep != s.rep {
				continue
			}
		}
		moved, err := f.beyond(s, ok)
		if err != nil || !moved {
			return nil, err
		}
	}
}

// cut is where a segment ends for this reader whose newest entries are lost, whatever
// this node may still have of them.
func (f *feed) cut(s slot) (log.Offset, bool) {
	g, ok := f.node.view().Segment(f.row.stream, s.number)
	if !ok || g.LostTail == 0 {
		return 0, false
	}
	return g.Upto(f.q.Committed), true
}

// overtaken says that the transaction which was open at the end of a closed
// segment has ended in a later one, so that a reader of what is committed may have
// all of it.
func (f *feed) overtaken(s slot) bool {
	st, _, err := s.rep.State()
	if err != nil || !st.Closed || st.LSO >= st.Last {
		return false
	}
	if b, err := f.row.bounds(); err == nil && b.LSO > st.Last {
		return true
	}
	known, ok := f.node.view().Stream(f.row.stream)
	return ok && known.NextLSO > st.Last
}

// ended says that all the reader wanted is behind it.
func (f *feed) ended() bool { return f.q.To > 0 && f.q.From >= f.q.To }

// beyond decides what an offset means that no replica here holds: the tail of the
// stream, another node's segment, or a stretch that retention took. It may move
// the reader over such a stretch.
func (f *feed) beyond(s slot, have bool) (moved bool, err error) {
	view := f.node.view()
	g, ok := view.SegmentAt(f.row.stream, f.q.From)
	if !ok || have && g.Segment <= s.number {
		return false, nil // nothing newer is known
	}
	if g.First > f.q.From {
		if !keepsAll(f.q.Topics) {
			return false, fmt.Errorf("stream %q: read %d, the next one kept is %d: %w", f.row.stream, f.q.From, g.First, log.ErrTrimmed)
		}
		f.q.From = g.First
		if f.q.To > 0 {
			f.q.From = min(f.q.From, f.q.To)
		}
		return true, nil
	}
	if !g.Closed && f.node.memberOf(g) {
		if f.promise.IsZero() {
			f.promise = time.Now()
		}
		if time.Since(f.promise) < promisePatience {
			return false, nil
		}
	}
	return false, fmt.Errorf("stream %q: entry %d is in segment %d: %w", f.row.stream, f.q.From, g.Segment, log.ErrElsewhere)
}

// KeepTopics outlive retention: rows refer to table versions of any age.
var KeepTopics = []log.Topic{log.TopicSchema}

func keepsAll(topics []log.Topic) bool {
	return len(topics) > 0 && !slices.ContainsFunc(topics, func(t log.Topic) bool { return !slices.Contains(KeepTopics, t) })
}

// memberOf says whether this node is one of the segment's.
func (n *Node) memberOf(g *meta.Segment) bool { return g.Index(n.cfg.Name, n.store.UUID()) >= 0 }
