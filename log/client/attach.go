package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/wire"
)

var (
	errNotThere = errors.New("there is no segment for the next entry yet")
	errStuck    = errors.New("the node was left behind")
	errHome     = errors.New("a node of the own city serves again")
)

// shunned is a node that a reader leaves alone for a while.
type shunned struct {
	until time.Time
	err   error
}

func (r *reader) shun(node string, err error, d time.Duration) {
	r.avoid[node] = shunned{time.Now().Add(d), err}
	r.client.stats.shunned.Add(1)
	r.client.cfg.Logger.Warn().Err(err).Str("stream", r.stream).Str("node", node).Msg("log reader leaves a node")
}

// kept says that all topics wanted outlive retention.
func (r *reader) kept() bool {
	return len(r.options.Topics) > 0 && !slices.ContainsFunc(r.options.Topics, func(t log.Topic) bool { return t != log.TopicSchema })
}

// openPatiently is open for a while: a node that was just restarted, or given its
// copies, serves soon.
func (r *reader) openPatiently(ctx context.Context) (*session, error) {
	bounded, cancel := context.WithTimeout(ctx, r.client.cfg.OpenFor)
	defer cancel()
	pause := newPause()
	for {
		s, err := r.open(bounded)
		var final *finalError
		if err == nil || errors.As(err, &final) || errors.Is(err, log.ErrRefused) {
			return s, err
		}
		if !errors.Is(err, log.ErrUnavailable) || pause.wait(bounded) != nil {
			return nil, r.client.ranOut(ctx, bounded, err)
		}
	}
}

// open attaches for the first time, and makes sure that From lies in the stream.
// nil: there is nothing to attach to yet.
func (r *reader) open(ctx context.Context) (*session, error) {
	from := r.options.From
	if from < 0 {
		return nil, fmt.Errorf("read from %d: %w", from, log.ErrProtocol)
	}
	st, seg, ok, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	r.bounds = metaBounds(&st)
	if from < st.First && !r.kept() {
		return nil, r.trimmed(&st)
	}
	if !ok {
		if from > st.NextFirst {
			return nil, r.ahead(st.NextFirst - 1)
		}
		return nil, nil
	}
	s, err := r.attach(ctx)
	if errors.Is(err, errNotThere) {
		return nil, nil
	}
	var last log.Offset
	switch known := r.Bounds().LAC; {
	case seg.Closed || from <= known+1:
		return s, err
	default:
		var endErr error
		if last, endErr = r.client.end(ctx, &seg); endErr != nil {
			if s != nil {
				s.close()
			}
			return nil, cmpErr(err, endErr)
		}
	}
	if from > last+1 {
		if s != nil {
			s.close()
		}
		return nil, r.ahead(last)
	}
	return s, err
}

func cmpErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

func metaBounds(st *meta.Stream) log.Bounds {
	b := log.Bounds{First: st.First, LAC: st.NextFirst - 1, LSO: st.NextLSO, Epoch: st.Epoch}
	return b
}

func (r *reader) ahead(last log.Offset) error {
	return fmt.Errorf("read from %d, but the last entry is %d: this is not the log that was read before, or it lost entries: %w",
		r.options.From, last, log.ErrSuspect)
}

func (r *reader) trimmed(st *meta.Stream) error {
	return &finalError{fmt.Errorf("stream %q: read from %d, the oldest entry that is kept is %d: %w", r.stream, r.next, st.First, log.ErrTrimmed)}
}

// attach finds a node that has the next entry, and asks it. errNotThere: nobody
// can have it yet. A finalError: nobody has a better answer.
func (r *reader) attach(ctx context.Context) (*session, error) {
	ctx, done, err := r.client.bind(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	st, seg, ok, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	if r.next < st.First && !r.kept() {
		return nil, r.trimmed(&st)
	}
	r.mu.Lock()
	r.bounds.First = st.First
	r.learnLocked(metaBounds(&st))
	r.mu.Unlock()
	if !ok {
		return nil, errNotThere
	}
	lost := seg.Lost || seg.LostTail > 0 && r.next > seg.Upto(r.options.Committed)
	if lost && r.kept() { // what is kept for ever is published anew before the first row that needs it
		r.mu.Lock()
		r.next = seg.Last + 1
		if r.options.To > 0 && r.next >= r.options.To {
			r.next = r.options.To
			r.wakeLocked()
			r.mu.Unlock()
			return nil, errNotThere // and nothing has to be
		}
		r.mu.Unlock()
		return r.attach(ctx)
	}
	if lost {
		to, err := r.client.lostTo(ctx, &seg)
		if err != nil {
			return nil, err
		}
		return nil, &finalError{&log.LostError{Stream: r.stream, From: seg.Left() + 1, To: to}}
	}
	if seg.First > r.next {
		if !r.kept() {
			return nil, r.trimmed(&st)
		}
		r.mu.Lock()
		r.next = seg.First // retention took what was before
		r.mu.Unlock()
	}
	s, err := r.try(ctx, &seg)
	if err == nil {
		return s, nil
	}
	return nil, fmt.Errorf("entry %d in segment %d: %w", r.next, seg.Segment, err)
}

// lostTo is the end of the stretch that is lost with the newest entries of a segment:
// the next ones may have been lost, too, each with a record of its own.
func (c *Client) lostTo(ctx context.Context, seg *meta.Segment) (log.Offset, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	to := seg.Last
	for from := seg.Segment + 1; ; {
		page, err := c.meta.Segments(ctx, seg.Stream, from, 16)
		if err != nil {
			return 0, err
		}
		for i := range page {
			if s := &page[i]; !s.Lost || s.First != to+1 {
				return to, nil
			}
			to, from = page[i].Last, page[i].Segment+1
		}
		if len(page) == 0 {
			return to, nil
		}
	}
}

// look finds the segment of the next entry. A near node's view is good enough to
// choose by; the nodes themselves know what they have. Where it shows nothing, not
// even the stream, it may only lag, as that of a node that was just restarted
// does: then the metadata is asked, for everything, because an older view of the
// segments than of the stream shows holes where there are none.
func (r *reader) look(ctx context.Context) (st meta.Stream, seg meta.Segment, ok bool, err error) {
	b := &r.client.book
	_, err = near(ctx, b, func(ctx context.Context, s meta.Store) (_ struct{}, err error) {
		if st, err = s.Stream(ctx, r.stream); err == nil && shows(&st, r.next) {
			seg, ok, err = segmentAt(ctx, s, &st, r.next)
		}
		return struct{}{}, err
	})
	if err == nil && ok {
		return st, seg, ok, nil
	}
	if st, err = b.stream(ctx, r.stream); err != nil {
		return st, seg, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.client.cfg.RequestTimeout)
	defer cancel()
	seg, ok, err = segmentAt(ctx, r.client.meta, &st, r.next)
	return st, seg, ok, err
}

// shows says that a stream has a segment for the entry.
func shows(st *meta.Stream, o log.Offset) bool {
	n := len(st.Segments)
	return n > 0 && (!st.Segments[n-1].Closed || o <= st.Segments[n-1].Last)
}

// try asks the nodes that should have the segment, best first.
func (r *reader) try(ctx context.Context, seg *meta.Segment) (*session, error) {
	members := seg.Members
	if seg.Closed {
		members = seg.Holders
	}
	nodes, err := r.client.book.of(ctx, members)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(nodes, func(a, b meta.Node) int {
		return cmp.Or(cmp.Compare(far(r.client.cfg.City, a.City), far(r.client.cfg.City, b.City)),
			cmp.Compare(min(1, r.client.book.failures(a.Address)), min(1, r.client.book.failures(b.Address))),
			cmp.Compare(r.spread(a.Name), r.spread(b.Name)))
	})
	var errs []error
	suspects, absent, asked, nearby := 0, 0, 0, false
	for _, n := range nodes {
		away := far(r.client.cfg.City, n.City) == 1
		nearby = nearby || !away
		if away && !r.mayGo(nearby) {
			errs = append(errs, fmt.Errorf("node %s of city %s is not asked: %w", n.Name, n.City, log.ErrUnavailable))
			continue
		}
		asked++
		if x, ok := r.avoid[n.Name]; ok && time.Now().Before(x.until) {
			if errors.Is(x.err, log.ErrSuspect) {
				suspects++
			}
			errs = append(errs, x.err)
			continue
		}
		s, err := r.ask(ctx, n, seg)
		if err == nil {
			if !away {
				r.homeless = time.Time{}
			}
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), err)
		}
		if isReply(err) && errors.Is(err, log.ErrTrimmed) || isReply(err) && errors.Is(err, log.ErrProtocol) {
			return nil, &finalError{err}
		}
		if errors.Is(err, log.ErrElsewhere) {
			absent++
		}
		if errors.Is(err, log.ErrSuspect) {
			r.shun(n.Name, err, 30*time.Second)
			suspects++
		}
		errs = append(errs, fmt.Errorf("node %s: %w", n.Name, err))
	}
	if nearby && r.homeless.IsZero() {
		r.homeless = time.Now()
	}
	err = errors.Join(errs...)
	switch {
	case suspects > 0 && suspects == asked && asked == len(nodes):
		return nil, &finalError{err}
	case !seg.Closed && asked > 0 && absent == asked:
		return nil, fmt.Errorf("%w: %w", errNotThere, err) // its writer has not come to them yet
	case err == nil:
		err = errors.New("none of its nodes is registered")
	}
	return nil, fmt.Errorf("%w: %w", log.ErrUnavailable, err)
}

// spread gives each reader its own order of equal nodes.
func (r *reader) spread(node string) uint64 {
	h := r.turn
	for i := range len(node) {
		h = (h ^ uint64(node[i])) * 1099511628211
	}
	return h
}

// mayGo says whether the reader may leave its city. nearby: nodes there have what
// it wants.
func (r *reader) mayGo(nearby bool) bool {
	switch r.client.cfg.Far {
	case FarNever:
		return false
	case FarAnytime:
		return true
	}
	return !nearby || !r.homeless.IsZero() && time.Since(r.homeless) > r.client.cfg.FarAfter
}

// ask one node for the entries from next on.
func (r *reader) ask(ctx context.Context, n meta.Node, seg *meta.Segment) (*session, error) {
	s, err := r.client.dialMember(ctx, n.Address, quorum.Member{Node: n.Name, UUID: n.UUID, City: n.City})
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	from := r.next
	window := r.client.cfg.ReadWindowBytes
	credit := max(0, window-r.held)
	r.owed = min(0, window-r.held) // credit, owed and held always make up the window
	r.mu.Unlock()
	var reading wire.Reading
	err = r.client.within(ctx, s, func(ctx context.Context) error {
		if err := s.Send(&wire.Read{
			Stream: r.stream, From: from, To: r.options.To, Committed: r.options.Committed, Credit: uint64(credit), Topics: r.options.Topics,
		}); err != nil {
			return err
		}
		return s.Expect(ctx, &reading)
	})
	if err != nil {
		s.close()
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped() { // Close may have come while there was no session to close
		s.close()
		return nil, fmt.Errorf("reader of stream %q: %w", r.stream, log.ErrClosed)
	}
	r.session, r.heard = s, time.Now()
	r.learnLocked(reading.Bounds)
	r.grantLocked() // what was taken while there was no session
	return s, nil
}

// watch compares the node with what others know, when nothing new comes from it,
// and looks out for a node of the own city. It returns why the node has to be left.
func (r *reader) watch(ctx context.Context, s *session) error {
	c := r.client
	wait := c.cfg.StuckAfter
	away := far(c.cfg.City, s.hello.City) == 1
	for behind := 0; ; {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
		if away && r.nearServes(ctx) {
			return errHome
		}
		r.mu.Lock()
		next, quiet, full := r.next, time.Since(r.heard) >= c.cfg.StuckAfter, r.held >= c.cfg.ReadWindowBytes
		r.mu.Unlock()
		if !quiet || full {
			wait, behind = c.cfg.StuckAfter, 0
			continue
		}
		more, err := r.elsewhere(ctx, s, next)
		if err != nil {
			continue // nobody tells
		}
		r.mu.Lock()
		moved := r.next > next || time.Since(r.heard) < c.cfg.StuckAfter
		r.mu.Unlock()
		if more == "" || moved {
			behind = 0
			if !away {
				wait = min(2*wait, 8*c.cfg.StuckAfter)
			}
			continue
		}
		if behind++; behind > 1 { // it had a while to catch up
			return fmt.Errorf("node %s: %s: %w", s.hello.Node, more, errStuck)
		}
		wait = c.cfg.StuckAfter
	}
}

// elsewhere says why another node would have more to say about the entry; empty:
// none would.
func (r *reader) elsewhere(ctx context.Context, s *session, next log.Offset) (string, error) {
	c := r.client
	st, err := c.book.recent(ctx, r.stream, c.cfg.StuckAfter/2)
	if err != nil {
		return "", err
	}
	seg, ok, err := segmentAt(ctx, c.meta, &st, next)
	if err != nil || !ok {
		return "", err
	}
	if seg.Lost || seg.LostTail > 0 && next > seg.Upto(r.options.Committed) {
		return fmt.Sprintf("entries from %d on of segment %d are lost", seg.Left()+1, seg.Segment), nil
	}
	if seg.Closed {
		if len(seg.Holders) == 0 || r.options.Committed && seg.LSO < next {
			return "", nil
		}
		return fmt.Sprintf("segment %d is closed at %d, and nothing comes", seg.Segment, seg.Last), nil
	}
	if !slices.ContainsFunc(seg.Members, func(m quorum.Member) bool { return m.Node == s.hello.Node }) {
		return fmt.Sprintf("it is no member of segment %d", seg.Segment), nil
	}
	lac, lso, err := c.confirmed(ctx, &seg)
	if err != nil {
		return "", err
	}
	if r.options.Committed {
		lac = lso
	}
	if lac >= next {
		return fmt.Sprintf("another node shows entries up to %d", lac), nil
	}
	return "", nil
}

// nearServes says that a node of the own city has the next entry, and answers.
func (r *reader) nearServes(ctx context.Context) bool {
	c := r.client
	r.mu.Lock()
	next := r.next
	r.mu.Unlock()
	st, err := c.book.recent(ctx, r.stream, c.cfg.StuckAfter)
	if err != nil {
		return false
	}
	seg, ok, err := segmentAt(ctx, c.meta, &st, next)
	if err != nil || !ok {
		return false
	}
	members := seg.Members
	if seg.Closed {
		members = seg.Holders
	}
	nodes, err := c.book.of(ctx, members)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(c.inCity(nodes, true), func(n meta.Node) bool { return c.answers(ctx, n) })
}
