package gtid

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// position is a MariaDB GTID, and everything of its domain up to it.
type position struct {
	domain, server uint32
	sequence       uint64
}

func parsePosition(s string) (p position, err error) {
	domain, rest, ok1 := strings.Cut(s, "-")
	srv, seq, ok2 := strings.Cut(rest, "-")
	if !ok1 || !ok2 {
		return p, fmt.Errorf("%w: %q: want domain-server-sequence", ErrInvalid, clip(s))
	}
	for _, f := range []struct {
		name, text string
		bits       int
	}{{"domain", domain, 32}, {"server", srv, 32}, {"sequence", seq, 64}} {
		n, ok := parseDigits(f.text, f.bits)
		if !ok {
			return p, fmt.Errorf("%w: %q: %s %q is not a number of %d bits", ErrInvalid, clip(s), f.name, clip(f.text), f.bits)
		}
		switch f.name {
		case "domain":
			p.domain = uint32(n)
		case "server":
			p.server = uint32(n)
		default:
			p.sequence = n
		}
	}
	if p.sequence == 0 {
		return p, fmt.Errorf("%w: %q: sequence numbers start at 1", ErrInvalid, clip(s))
	}
	return p, nil
}

// parseDigits is ParseUint for decimal digits only: no sign, no error to allocate.
func parseDigits(s string, bits int) (uint64, bool) {
	if s == "" {
		return 0, false
	}
	limit := ^uint64(0) >> (64 - bits)
	var n uint64
	for i := range len(s) {
		d := uint64(s[i] - '0')
		if d > 9 || n > (limit-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

func parseMariaDB(text string) (Set, error) {
	s := Set{flavor: MariaDB}
	if strings.TrimSpace(text) == "" {
		return s, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		p, err := parsePosition(strings.TrimSpace(part))
		if err != nil {
			return Set{}, fmt.Errorf("GTID position: %w", err)
		}
		s.domains = append(s.domains, p)
	}
	slices.SortFunc(s.domains, func(a, b position) int {
		switch {
		case a.domain < b.domain:
			return -1
		case a.domain > b.domain:
			return 1
		}
		return 0
	})
	for i := 1; i < len(s.domains); i++ {
		if a, b := s.domains[i-1], s.domains[i]; a.domain == b.domain {
			return Set{}, fmt.Errorf("GTID position: %w: %s and %s are in one domain", ErrInvalid, a, b)
		}
	}
	return s, nil
}

func (p position) String() string { return string(p.append(nil)) }

func (p position) append(dst []byte) []byte {
	dst = strconv.AppendUint(dst, uint64(p.domain), 10)
	dst = strconv.AppendUint(append(dst, '-'), uint64(p.server), 10)
	return strconv.AppendUint(append(dst, '-'), p.sequence, 10)
}

func (s *Set) findDomain(domain uint32) (int, bool) {
	lo, hi := 0, len(s.domains)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s.domains[mid].domain < domain {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < len(s.domains) && s.domains[lo].domain == domain
}

// raise moves a domain to p when p is ahead.
func (s *Set) raise(p position) {
	i, ok := s.findDomain(p.domain)
	switch {
	case !ok:
		s.domains = slices.Insert(s.domains, i, p)
	case p.sequence > s.domains[i].sequence:
		s.domains[i] = p
	}
}

func (s *Set) addMariaDB(text string) error {
	p, err := parsePosition(text)
	if err != nil {
		return err
	}
	s.raise(p)
	return nil
}

// sequence is the domain's position, 0 for none.
func (s *Set) sequence(domain uint32) uint64 {
	if i, ok := s.findDomain(domain); ok {
		return s.domains[i].sequence
	}
	return 0
}

func (s *Set) containsMariaDB(text string) (bool, error) {
	p, err := parsePosition(text)
	return err == nil && s.sequence(p.domain) >= p.sequence, err
}

func (s *Set) followsMariaDB(text string) (bool, error) {
	p, err := parsePosition(text)
	return err == nil && s.sequence(p.domain) == p.sequence-1, err
}

func (s *Set) lastMariaDB(text string) uint64 {
	n, ok := parseDigits(text, 32)
	if !ok {
		return 0
	}
	return s.sequence(uint32(n))
}

func (s *Set) containsSetMariaDB(o Set) bool {
	for _, p := range o.domains {
		if s.sequence(p.domain) < p.sequence {
			return false
		}
	}
	return true
}

func (s *Set) equalMariaDB(o Set) bool { return slices.Equal(s.domains, o.domains) }

func (s *Set) unionMariaDB(o Set) {
	for _, p := range o.domains {
		s.raise(p)
	}
}

func (s *Set) minusMariaDB(o Set) Set {
	d := Set{flavor: MariaDB}
	for _, p := range s.domains {
		if o.sequence(p.domain) < p.sequence {
			d.domains = append(d.domains, p)
		}
	}
	return d
}

func (s *Set) appendMariaDB(dst []byte) []byte {
	for i, p := range s.domains {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = p.append(dst)
	}
	return dst
}
