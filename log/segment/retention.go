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

// Trim applies retention once: it copies forward what topics keep, makes the new
// first offsets durable, and releases the files that hold nothing else. An entry
// goes only at or below every cursor; a stream without any cursor keeps all,
// because its readers may not have come yet. The newest run of a stream that ends
// a transaction stays in any case, so that a writer finds its place.
func (s *Store) Trim() error {
	if s.cfg.Retention == (Retention{}) {
		return nil
	}
	s.mu.Lock()
	firsts := map[*Stream]log.Offset{}
	for _, id := range sortedKeys(s.streams) {
		st := s.streams[id]
		if to := st.trimPoint(s.cfg.Retention, s.cfg.Now(), s.cfg.FileBytes); to > st.first {
			firsts[st] = to
		}
	}
	s.mu.Unlock()
	for st, to := range firsts {
		more, err := st.keptBelow(to)
		if err != nil {
			return err
		}
		if err := s.copyForward(more); errors.Is(err, log.ErrSuspect) {
			s.log.Error().Err(err).Str("stream", st.name).Msg("retention stops at a damaged entry that has to be kept")
			delete(firsts, st)
		} else if err != nil {
			return err
		}
	}
	s.mu.Lock()
	var copies []*kept // in files that hold little else
	for _, f := range s.releasableLocked(firsts) {
		live, bytes := f.liveKeeps()
		if bytes <= f.end/keptShare {
			copies = append(copies, live...)
		}
	}
	s.mu.Unlock()
	if err := s.copyForward(copies); err != nil && !errors.Is(err, log.ErrSuspect) {
		return err // a damaged one keeps its file
	}
	s.mu.Lock()
	for st, to := range firsts {
		s.counts.trimmed += int64(to - st.first)
		st.advanceLocked(to)
	}
	gone := s.releasableLocked(nil)
	for _, f := range gone {
		s.unloadLocked(f)
		f.gone = true
	}
	s.files = slices.DeleteFunc(s.files, func(f *file) bool { return f.gone })
	s.mu.Unlock()
	if len(firsts) == 0 && len(gone) == 0 {
		return nil
	}
	if err := s.persist(); err != nil {
		s.mu.Lock() // still listed on disk: they are recycled after the next write
		s.deferred = append(s.deferred, gone...)
		s.mu.Unlock()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	gone = append(gone, s.deferred...)
	s.deferred = nil
	for _, f := range gone {
		if f.handle != nil {
			s.opened--
		}
	}
	s.released = append(s.released, gone...)
	signal(s.supply)
	return nil
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
		// The next run must start a transaction, or its readers would begin
		// in the middle of one.
		whole := x.ends == x.last()
		if i == len(st.runs)-1 || !sealed || behind < tailBytes || x.last() > limit || !old && !large {
			break
		}
		if whole {
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
	r := record{
		Kind: kindKept, Length: uint32(len(e.Payload)), PayloadCRC: e.Checksum, Stream: st.id, Segment: st.segmentOf(e.Offset),
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

// releasableLocked lists the sealed files of which no stream needs anything any
// more, given these first offsets.
func (s *Store) releasableLocked(firsts map[*Stream]log.Offset) []*file {
	var out []*file
	for _, f := range s.files {
		needed := !f.sealed
		for _, r := range f.runs {
			first := max(r.stream.first, firsts[r.stream])
			needed = needed || r.last() >= first
		}
		if firsts == nil {
			for _, k := range f.keeps {
				needed = needed || k.stream.currentKept(k)
			}
		}
		if !needed {
			out = append(out, f)
		}
	}
	return out
}
