package segment

import "time"

// counts are the store's own figures since Open, guarded by its lock.
type counts struct {
	appends, bytes int64
	groups, syncs  int64
	groupTime      time.Duration
	syncTime       time.Duration
	metaWrites     int64
	metaTime       time.Duration
	trimmed        int64
	archived       int64
	held           time.Duration
	groupSizes     [groupBuckets]int64
}

// groupBuckets counts groups of up to 1, 2, 4 … records; the last one the rest.
const groupBuckets = 14

func (c *counts) group(records int, took time.Duration) {
	c.groups++
	c.groupTime += took
	b := 0
	for n := records - 1; n > 0 && b < groupBuckets-1; n >>= 1 {
		b++
	}
	c.groupSizes[b]++
}

// Stats is a picture of the store. Counters start at Open.
type Stats struct {
	Appends      int64         // entries made durable
	AppendBytes  int64         // their records' bytes
	Groups       int64         // group commits
	GroupSizes   []int64       // groups of up to 1, 2, 4 … records; the last one the rest
	Syncs        int64         // fdatasyncs of the journal
	SyncTime     time.Duration // all of them together
	MetaWrites   int64
	Streams      int // with a replica here
	Replicas     int
	Archived     int // of them, wholly in their own files
	Files        int // journal files, spares apart
	Spares       int
	JournalBytes int64         // of the journal files
	Held         time.Duration // appends were slowed, because segments don't leave the journal fast enough
	DiskBytes    int64         // of journal files, spares, and replicas' own files
	OwnBytes     int64         // of replicas' own files
	OwnRatio     float64       // bytes of the records in them, as in the journal, for each byte of the files; 0: no file
	Archivings   int64         // files written
	EntryBytes   int64         // records in the journal that are needed
	Trimmed      int64         // entries given up, with their replica or by compaction
	Suspect      int           // replicas in which damage is known
	Full         bool          // no room for the next journal file
	Fault        string
}

// Stats is the present picture.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.counts
	out := Stats{
		Appends: c.appends, AppendBytes: c.bytes, Groups: c.groups, GroupSizes: append([]int64(nil), c.groupSizes[:]...),
		Syncs: c.syncs, SyncTime: c.syncTime, MetaWrites: c.metaWrites, Files: len(s.files), Spares: len(s.spares),
		Trimmed: c.trimmed, Full: s.full != nil, Archivings: c.archived, OwnBytes: s.stored, DiskBytes: s.stored,
	}
	if s.stored > 0 {
		out.OwnRatio = float64(s.raw) / float64(s.stored)
	}
	if s.fault != nil {
		out.Fault = s.fault.Error()
	}
	out.JournalBytes, out.Held = s.journalLocked(), c.held
	out.DiskBytes += out.JournalBytes
	for _, f := range s.spares {
		out.DiskBytes += f.size
	}
	if s.reserve != nil {
		out.DiskBytes += s.reserve.size
	}
	streams := map[string]struct{}{}
	for _, r := range s.replicas {
		if !r.created {
			continue
		}
		streams[r.id.Stream] = struct{}{}
		out.Replicas++
		if r.shelved {
			out.Archived++
		}
		if r.suspectLocked() {
			out.Suspect++
		}
		for _, x := range r.runs {
			out.EntryBytes += x.bytes
		}
	}
	out.Streams = len(streams)
	return out
}
