package check

import (
	"cmp"
	"slices"

	"github.com/twinspan/twinspan/test/chaos/history"
)

// check looks at one stream. The log at its end is what the final readings found;
// they, and everything that was read before, agree on it or have been found to
// differ by then.
func (s *stream) check(r *Report, h *whole, o Options) {
	r.Reads += s.reads
	for _, m := range s.changed {
		r.breach(&r.Changed, "stream %s: %s", s.name, m)
	}
	for _, m := range s.gaps {
		r.breach(&r.Reordered, "stream %s: %s", s.name, m)
	}
	end := s.end(r)
	s.place(r, end)
	s.confirmed(r, h, o)
	s.fences(r)
	s.told(r, end, o)
}

// end is the number of entries at the end.
func (s *stream) end(r *Report) int64 {
	if len(s.finals) == 0 {
		r.breach(&r.Unreadable, "stream %s: no final reading", s.name)
		s.unread = true
		return 0
	}
	end := s.finals[0].Offset
	for _, f := range s.finals {
		if f.Err != "" {
			r.breach(&r.Unreadable, "stream %s: final reading by way of %s: %s", s.name, f.Via, f.Err)
			s.unread = true
		}
		if f.Offset != end {
			r.breach(&r.Lost, "stream %s: %d entries at the end by way of %s, %d by way of %s", s.name, end, s.finals[0].Via, f.Offset, f.Via)
			end = max(end, f.Offset)
		}
	}
	return end
}

// place finds each entry's places, and those of nobody.
func (s *stream) place(r *Report, end int64) {
	r.Entries += int(end)
	epoch := uint64(0)
	next := map[*writer]int{}
	for o := int64(0); o < end; o++ {
		seen, ok := s.seen[o]
		if !ok {
			if !s.unread { // else it may just not have been reached
				r.breach(&r.Lost, "stream %s: entry %d was never delivered to anybody", s.name, o)
			}
			continue
		}
		if seen.Epoch < epoch {
			r.breach(&r.Reordered, "stream %s: entry %d of epoch %d behind one of epoch %d", s.name, o, seen.Epoch, epoch)
		}
		epoch = max(epoch, seen.Epoch)
		e := s.entries[seen.ID]
		if e == nil {
			r.breach(&r.Foreign, "stream %s: entry %d (%q) was written by nobody", s.name, o, seen.ID)
			continue
		}
		if seen.At < e.invoked {
			r.breach(&r.Foreign, "stream %s: entry %d (%s) was read before it was written", s.name, o, e.id)
		}
		if seen.Sum != e.sum {
			r.breach(&r.Changed, "stream %s: entry %d (%s) has sum %016x, written with %016x", s.name, o, e.id, seen.Sum, e.sum)
		}
		if seen.Epoch != e.writer.epoch {
			r.breach(&r.Reordered, "stream %s: entry %d (%s) bears epoch %d, its writer's was %d", s.name, o, e.id, seen.Epoch, e.writer.epoch)
		}
		if e.number < next[e.writer] {
			r.breach(&r.Reordered, "stream %s: entry %d (%s) is number %d of its writer, behind number %d", s.name, o, e.id, e.number, next[e.writer]-1)
		} else if e.number > next[e.writer] {
			r.breach(&r.Reordered, "stream %s: entry %d (%s) is number %d of its writer, but number %d is missing", s.name, o, e.id, e.number, next[e.writer])
		}
		next[e.writer] = e.number + 1
		e.places = append(e.places, o)
	}
	for o, seen := range s.seen {
		if o >= end && !s.unread {
			r.breach(&r.Lost, "stream %s: entry %d (%s) was read by %s, the log ends before it", s.name, o, seen.ID, seen.by)
		}
	}
}

// confirmed holds each entry against what its writer was told.
func (s *stream) confirmed(r *Report, h *whole, o Options) {
	for _, e := range s.order {
		if len(e.places) > 1 {
			r.breach(&r.Duplicated, "stream %s: %s is at %v", s.name, e.id, e.places)
		}
		if len(e.places) > 0 && e.queued != none && e.places[0] != e.queued {
			r.breach(&r.Reordered, "stream %s: %s was given offset %d and is at %d", s.name, e.id, e.queued, e.places[0])
		}
		if e.confirmed == never {
			r.Unknown++
			if len(e.places) > 0 {
				r.Survived++
			}
			continue
		}
		r.Acknowledged++
		if !e.protected {
			r.Unprotected++
		}
		seen, there := s.seen[e.offset]
		switch {
		case len(e.places) == 0 && !there && s.unread: // which was counted
		case len(e.places) == 0:
			there := "nothing"
			if seen.ID != "" {
				there = seen.ID
			}
			r.breach(&r.Lost, "stream %s: %s was confirmed at %d, where %s is", s.name, e.id, e.offset, there)
		case !slices.Contains(e.places, e.offset):
			r.breach(&r.Reordered, "stream %s: %s was confirmed at %d and is at %d", s.name, e.id, e.offset, e.places[0])
		}
		if e.protected {
			for _, city := range o.Cities {
				for _, cut := range h.cuts[city] {
					if e.invoked > cut.from && e.confirmed < cut.to {
						r.breach(&r.Lies, "stream %s: %s was called protected while nothing could be stored in city %s", s.name, e.id, city)
					}
				}
			}
		}
	}
}

// fences checks that each opening saw all that was confirmed before, and kept
// every older writer out from then on.
func (s *stream) fences(r *Report) {
	var opened []*writer
	for _, w := range s.writers {
		if w.opened != never {
			opened = append(opened, w)
		}
	}
	r.Fenced += len(opened)
	s.tails(r, opened)

	// Epochs follow time: everything that was opened before the invocation of w
	// has a lower one.
	byInvoke := slices.SortedFunc(slices.Values(opened), func(a, b *writer) int { return cmp.Compare(a.invoked, b.invoked) })
	byOpened := slices.SortedFunc(slices.Values(opened), func(a, b *writer) int { return cmp.Compare(a.opened, b.opened) })
	i, newest := 0, (*writer)(nil)
	for _, w := range byInvoke {
		for ; i < len(byOpened) && byOpened[i].opened < w.invoked; i++ {
			if newest == nil || byOpened[i].epoch > newest.epoch {
				newest = byOpened[i]
			}
		}
		if newest != nil && w.epoch <= newest.epoch {
			r.breach(&r.Reordered, "stream %s: %s opened epoch %d after %s had opened epoch %d", s.name, w.process, w.epoch, newest.process, newest.epoch)
		}
	}
	owners := map[uint64]*writer{}
	for _, w := range opened {
		if other := owners[w.epoch]; other != nil {
			r.breach(&r.Reordered, "stream %s: epoch %d belongs to %s and to %s", s.name, w.epoch, other.process, w.process)
		}
		owners[w.epoch] = w
		// What an older epoch has in the log stands at or before the tail.
		if seen, ok := s.seen[w.tail+1]; ok && seen.Epoch < w.epoch {
			r.breach(&r.Reordered, "stream %s: %s opened epoch %d at tail %d, behind which is entry %s of epoch %d", s.name, w.process, w.epoch, w.tail, seen.ID, seen.Epoch)
		}
		if seen, ok := s.seen[w.tail]; ok && w.tail >= 0 && seen.Epoch >= w.epoch {
			r.breach(&r.Reordered, "stream %s: %s opened epoch %d at tail %d, which is of epoch %d", s.name, w.process, w.epoch, w.tail, seen.Epoch)
		}
	}
}

// tails: what was confirmed to anybody, or shown to a reader, before a writer was
// asked for is at or below the tail it finds.
func (s *stream) tails(r *Report, opened []*writer) {
	known := s.known()
	i, highest := 0, int64(none)
	for _, w := range slices.SortedFunc(slices.Values(opened), func(a, b *writer) int { return cmp.Compare(a.invoked, b.invoked) }) {
		for ; i < len(known) && known[i].at < w.invoked; i++ {
			highest = max(highest, known[i].offset)
		}
		if w.tail < highest {
			r.breach(&r.Lost, "stream %s: %s opened epoch %d at tail %d, entry %d had been confirmed before", s.name, w.process, w.epoch, w.tail, highest)
		}
	}
}

type fact struct{ at, offset int64 }

// known is what was known to be in the log, by time: confirmed to a writer, or
// read.
func (s *stream) known() []fact {
	var out []fact
	for _, e := range s.order {
		if e.confirmed != never {
			out = append(out, fact{e.confirmed, e.offset})
		}
	}
	for o, seen := range s.seen {
		out = append(out, fact{seen.At, o})
	}
	slices.SortFunc(out, func(a, b fact) int { return cmp.Compare(a.at, b.at) })
	return out
}

// told checks what the askers for bounds were told.
func (s *stream) told(r *Report, end int64, o Options) {
	slices.SortFunc(s.bounds, func(a, b history.Record) int { return cmp.Compare(a.From, b.From) })
	var known []fact
	if o.StrongBounds {
		known = s.known()
	}
	i, highest := 0, int64(none)
	for _, b := range s.bounds {
		if b.Offset >= end && s.unread {
			continue
		}
		if b.Offset >= end {
			r.breach(&r.Lost, "stream %s: %s was told that entry %d is confirmed, the log ends with %d", s.name, b.Process, b.Offset, end-1)
			continue
		}
		if seen, ok := s.seen[b.Offset]; ok {
			if e := s.entries[seen.ID]; e != nil && b.At < e.invoked {
				r.breach(&r.Foreign, "stream %s: %s was told that entry %d is confirmed before it was written", s.name, b.Process, b.Offset)
			}
		}
		for ; i < len(known) && known[i].at < b.From; i++ {
			highest = max(highest, known[i].offset)
		}
		if b.Offset < highest {
			r.breach(&r.Lost, "stream %s: %s was told that the log ends with %d, entry %d had been confirmed before", s.name, b.Process, b.Offset, highest)
		}
	}
}
