package quorum

// CopyTo is for the exhaustive search: the copy goes its own way. It uses the space
// that to has.
func (w *Writer) CopyTo(to *Writer) {
	win, members, spans, penalties := to.window, to.members, to.spans, to.judge.penalties
	if win == nil {
		win = &Window{}
	}
	marks, pending := win.marks, win.pending
	*win = *w.window
	win.marks, win.pending = append(marks[:0], w.window.marks...), append(pending[:0], w.window.pending...)
	*to = *w
	to.window, to.members, to.spans = win, append(members[:0], w.members...), append(spans[:0], w.spans...)
	to.judge.penalties = append(penalties[:0], w.judge.penalties...)
}

// CopyTo is for the exhaustive search.
func (r *Recovery) CopyTo(to *Recovery) {
	members := to.members
	*to = *r
	to.members = append(members[:0], r.members...)
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
