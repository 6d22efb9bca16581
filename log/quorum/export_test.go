package quorum

import "slices"

// Clone is for the exhaustive search: the copies go their own ways.
func (w *Writer) Clone() *Writer {
	c := *w
	win := *w.window
	win.marks, win.pending = slices.Clone(win.marks), slices.Clone(win.pending)
	c.window, c.members, c.spans = &win, slices.Clone(w.members), slices.Clone(w.spans)
	c.judge.penalties = slices.Clone(w.judge.penalties)
	return &c
}

// Clone is for the exhaustive search.
func (r *Recovery) Clone() *Recovery {
	c := *r
	c.members = slices.Clone(r.members)
	return &c
}

// FingerprintMember is what the writer holds of a member.
func (w *Writer) FingerprintMember(b []byte, i int) []byte {
	return append(b, byte(w.window.marks[i]), byte(w.members[i].state))
}

// Fingerprint is what else it holds.
func (w *Writer) Fingerprint(b []byte) []byte {
	return append(b, byte(w.desc.Segment), byte(w.window.next), byte(w.window.confirmed),
		flags(w.roll != nil, w.unknown, w.err != nil, w.window.frozen))
}

// FingerprintMember is what the recovery holds of a member.
func (r *Recovery) FingerprintMember(b []byte, i int) []byte {
	return append(b, byte(r.members[i].Last), byte(r.members[i].state))
}

// Fingerprint is what else it holds.
func (r *Recovery) Fingerprint(b []byte) []byte {
	b = append(b, flags(r.open != nil, r.unknown, r.done, r.err != nil))
	if r.open != nil {
		b = append(b, byte(r.open.Close.Last))
	}
	return b
}

func flags(set ...bool) (b byte) {
	for i, s := range set {
		if s {
			b |= 1 << i
		}
	}
	return b
}

// Fingerprint is all there is of a replica in the small scope.
func (r *Replica) Fingerprint(b []byte) []byte {
	return append(b, byte(r.fence), byte(r.sealing), byte(r.queued), byte(r.durable), byte(r.lac))
}
