package segment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twinspan/twinspan/log"
)

// keepsAll says whether every wanted topic outlives retention.
func (s *Store) keepsAll(topics []log.Topic) bool {
	for _, t := range topics {
		if !slices.Contains(s.cfg.KeepTopics, t) {
			return false
		}
	}
	return len(topics) > 0
}

// Trim applies retention once. An entry goes only at or below every cursor; a
// stream without any cursor keeps all, because its readers may not have come yet.
// The newest entries of a stream stay in any case, so that a writer finds its
// place. It works file by file, from the oldest, so that on a full disk what must
// be copied from one file finds room before the next: copies what topics keep to
// the journal's end, makes the new first offsets durable, releases the file.
func (s *Store) Trim() error {
	if s.cfg.Retention == (Retention{}) {
		return nil
	}
	s.mu.Lock()
	goals := map[*Stream]log.Offset{}
	for _, st := range s.streams {
		if to := st.trimPoint(s.cfg.Retention, s.cfg.Now(), s.cfg.FileBytes); to > st.first {
			goals[st] = to
		}
	}
	files := slices.Clone(s.files)
	s.mu.Unlock()
	for _, f := range files {
		firsts, err := s.prepareTrim(f, goals)
		if err != nil {
			return err
		}
		if len(firsts) == 0 {
			continue
		}
		if err := s.finishTrim(firsts); err != nil {
			return err
		}
	}
	for _, f := range files {
		s.mu.Lock()
		live, bytes := f.liveKeeps()
		sparse := f.sealed && !f.gone && !s.neededLocked(f) && bytes <= f.end/keptShare
		s.mu.Unlock()
		if !sparse {
			continue
		}
		if err := s.copyForward(live); errors.Is(err, log.ErrSuspect) {
			continue // a damaged one keeps its file
		} else if err != nil {
			return err
		}
		if err := s.finishTrim(nil); err != nil {
			return err
		}
	}
	return nil
}

// prepareTrim chooses how far the streams of one file can go, and copies what
// they have to keep. goals are where they may go at most; a stream that can't get
// over a damaged entry loses its goal.
func (s *Store) prepareTrim(f *file, goals map[*Stream]log.Offset) (map[*Stream]log.Offset, error) {
	s.mu.Lock()
	firsts := map[*Stream]log.Offset{}
	for _, r := range f.runs {
		if to := r.stream.wholeUpTo(min(r.last()+1, goals[r.stream])); to > r.stream.first {
			firsts[r.stream] = to
		}
	}
	s.mu.Unlock()
	for st, to := range firsts {
		keep, err := st.keptBelow(to)
		if err != nil {
			return nil, err
		}
		if err := s.copyForward(keep); errors.Is(err, log.ErrSuspect) {
			s.log.Error().Err(err).Str("stream", st.name).Msg("retention stops at a damaged entry that has to be kept")
			delete(firsts, st)
			delete(goals, st)
		} else if err != nil {
			return nil, err
		}
	}
	return firsts, nil
}

// finishTrim moves the first offsets, durably, and recycles the files of which
// nothing is wanted any more.
func (s *Store) finishTrim(firsts map[*Stream]log.Offset) error {
	s.mu.Lock()
	for st, to := range firsts {
		s.counts.trimmed += int64(to - st.first)
		st.advanceLocked(to)
	}
	for _, f := range s.files {
		if live, _ := f.liveKeeps(); f.sealed && len(live) == 0 && !s.neededLocked(f) {
			s.unloadLocked(f)
			f.gone = true
			s.deferred = append(s.deferred, f)
		}
	}
	s.files = slices.DeleteFunc(s.files, func(f *file) bool { return f.gone })
	s.mu.Unlock()
	if err := s.persist(); err != nil {
		return err // the meta on disk still lists them: they wait for the next write
	}
	s.mu.Lock()
	for _, f := range s.deferred {
		if f.handle != nil {
			s.opened--
		}
	}
	s.released = append(s.released, s.deferred...)
	s.deferred = nil
	s.mu.Unlock()
	s.recycle()
	signal(s.supply)
	return nil
}

// neededLocked says whether a stream still needs entries of the file.
func (s *Store) neededLocked(f *file) bool {
	for _, r := range f.runs {
		if r.last() >= r.stream.first {
			return true
		}
	}
	return false
}

// trimPoint is the first offset the stream has to keep.
func (st *Stream) trimPoint(r Retention, now time.Time, tailBytes int64) log.Offset {
	if len(st.cursors) == 0 || len(st.runs) == 0 {
		return st.first
	}
	limit := st.lso
	for _, c := range st.cursors {
		limit = min(limit, c.Offset)
	}
	var total int64
	for _, x := range st.runs {
		total += x.bytes
	}
	to, behind := st.first, total
	for i, x := range st.runs {
		behind -= x.bytes
		old := r.AgeMax > 0 && x.newest < now.Add(-r.AgeMax).UnixMicro()
		large := r.BytesMax > 0 && behind >= r.BytesMax
		sealed := x.file == nil || x.file.sealed
		if i == len(st.runs)-1 || !sealed || behind < tailBytes || x.last() > limit || !old && !large {
			break
		}
		to = x.last() + 1
	}
	return st.wholeUpTo(to)
}

// wholeUpTo is the greatest first offset up to limit that starts both a run and a
// transaction: a reader must not begin in the middle of one.
func (st *Stream) wholeUpTo(limit log.Offset) log.Offset {
	to := st.first
	for _, x := range st.runs {
		if x.last() >= limit {
			break
		}
		if x.ends == x.last() {
			to = x.last() + 1
		}
	}
	return to
}

// keptBelow lists the entries of kept topics that a trim to that offset would
// take away.
func (st *Stream) keptBelow(to log.Offset) ([]*kept, error) {
	s := st.store
	var out []*kept
	mask := classMask(s.cfg.KeepTopics)
	if len(s.cfg.KeepTopics) == 0 {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range st.runs {
		if r.first >= to || r.file == nil {
			continue
		}
		if r.index == nil {
			if _, err := s.acquireLocked(r.file); err != nil {
				return nil, err
			}
			s.mu.Unlock()
			index, err := s.loadElements(r)
			s.mu.Lock()
			s.releaseLocked(r.file)
			if err != nil {
				return nil, err
			}
			s.cacheLocked(r, index)
		}
		for i, e := range r.index {
			if indexPlace(e) > 0 && mask>>indexClass(e)&1 == 1 && r.first+log.Offset(i) >= st.first {
				out = append(out, &kept{stream: st, offset: r.first + log.Offset(i), file: r.file, entry: e})
			}
		}
	}
	return out, nil
}

func (st *Stream) currentKept(k *kept) bool {
	i, found := slices.BinarySearchFunc(st.keeps, k, func(a, b *kept) int { return cmp.Compare(a.offset, b.offset) })
	return found && st.keeps[i] == k
}

// keptShare: a file in which only kept entries are still wanted is given up when
// they are at most this part of it. Dense ones stay where they are, or the same
// entries would be copied for ever.
const keptShare = 4

// liveKeeps are the kept entries whose newest copy is in f, and their bytes.
func (f *file) liveKeeps() (live []*kept, bytes int64) {
	for _, k := range f.keeps {
		if k.stream.currentKept(k) {
			live = append(live, k)
			bytes += int64(k.size)
		}
	}
	return live, bytes
}

// copyForward appends kept entries to the journal again and waits until they are
// durable there.
func (s *Store) copyForward(copies []*kept) error {
	var errs []error
	done := make(chan error, len(copies)) // told by the committer, once for each that is queued
	queued := 0
	for _, k := range copies {
		switch wait, err := s.copyOne(k, done); {
		case err != nil:
			errs = append(errs, fmt.Errorf("stream %q: keep entry %d: %w", k.stream.name, k.offset, err))
		case wait:
			queued++
		}
	}
	for range queued {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}

// copyOne queues a copy; false when the entry need not be kept.
func (s *Store) copyOne(k *kept, done chan<- error) (bool, error) {
	st := k.stream
	s.mu.Lock()
	handle, err := s.acquireLocked(k.file)
	s.mu.Unlock()
	if err != nil {
		return false, err
	}
	defer s.release(k.file)
	p := plan{file: k.file, handle: handle, places: []int64{indexPlace(k.entry)}, offsets: []log.Offset{k.offset}}
	entries, _, _, err := p.read(st, Query{BytesMax: log.MaxPayload}, nil, nil)
	if errors.Is(err, log.ErrSuspect) {
		return false, err
	}
	if err != nil || len(entries) != 1 {
		return false, errors.Join(err, errFormat)
	}
	e := entries[0]
	if !slices.Contains(s.cfg.KeepTopics, e.Topic) {
		return false, nil // shares the class of a kept topic, no more
	}
	s.mu.Lock()
	segment := st.segmentOf(e.Offset)
	s.mu.Unlock()
	r := record{
		Kind: kindKept, Length: uint32(len(e.Payload)), PayloadCRC: e.Checksum, Stream: st.id, Segment: segment,
		Offset: e.Offset, Epoch: e.Epoch, LAC: e.Offset, LSO: e.Offset, Time: e.AppendedAt.UnixMicro(), Topic: e.Topic,
	}
	if e.EndsTransaction {
		r.Flags |= flagEnds
	}
	return true, s.enqueue(context.Background(), st, &r, e.Payload, done)
}

// enqueue adds a record that is not an append to the filling group.
func (s *Store) enqueue(ctx context.Context, st *Stream, r *record, payload []byte, done chan<- error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := s.aliveLocked(); err != nil {
			return err
		}
		if s.filling.room(recordSize(len(payload)), s.cfg.GroupBytes) {
			break
		}
		wake := s.room
		s.mu.Unlock()
		select {
		case <-wake:
			s.mu.Lock()
		case <-ctx.Done():
			s.mu.Lock()
			return ctx.Err()
		}
	}
	wasEmpty := s.filling.empty()
	s.filling.add(st, r, payload)
	s.filling.waiters = append(s.filling.waiters, done)
	if wasEmpty {
		signal(s.work)
	}
	return nil
}

// advanceLocked moves the stream's first offset.
func (st *Stream) advanceLocked(to log.Offset) {
	st.first = to
	st.runs = slices.DeleteFunc(st.runs, func(r *run) bool { return r.last() < to })
	n := 0
	for n+1 < len(st.segments) && st.segments[n+1].First <= to {
		n++
	}
	st.segments = slices.Delete(st.segments, 0, n)
	st.notify()
}
