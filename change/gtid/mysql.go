package gtid

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxNumber is the highest transaction number of MySQL, 2^63-2 (GNO_END - 1).
const maxNumber = 1<<63 - 2

// maxTag is the longest tag, in bytes.
const maxTag = 32

type uuid [16]byte

// source is one uuid and tag with the numbers it has: intervals that ascend, do
// not overlap, and do not touch.
type source struct {
	uuid      uuid
	tag       string // lower case, empty for none
	intervals []interval
}

// interval is first..last, both in it.
type interval struct{ first, last int64 }

// one is a parsed GTID. Its tag may share memory with the text it came from.
type one struct {
	uuid   uuid
	tag    string
	number int64
}

// parseUUID reads the 36 characters that servers write.
func parseUUID(s string) (u uuid, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, false
	}
	j := 0
	for i := range u {
		if j == 8 || j == 13 || j == 18 || j == 23 {
			j++
		}
		hi, lo := hexValue[s[j]], hexValue[s[j+1]]
		if hi > 15 || lo > 15 {
			return u, false
		}
		u[i] = hi<<4 | lo
		j += 2
	}
	return u, true
}

// hexValue is 255 for what is not a digit.
var hexValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 255
	}
	for i := byte(0); i < 10; i++ {
		t['0'+i] = i
	}
	for i := byte(0); i < 6; i++ {
		t['a'+i], t['A'+i] = 10+i, 10+i
	}
	return t
}()

func appendUUID(dst []byte, u uuid) []byte {
	const digits = "0123456789abcdef"
	for i, b := range u {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, digits[b>>4], digits[b&15])
	}
	return dst
}

// parseTag gives the tag in lower case, as the server stores it.
func parseTag(s string) (string, bool) {
	if s == "" || len(s) > maxTag {
		return "", false
	}
	upper := false
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c == '_':
		case c >= 'A' && c <= 'Z':
			upper = true
		case c >= '0' && c <= '9' && i > 0:
		default:
			return "", false
		}
	}
	if upper {
		s = strings.ToLower(s)
	}
	return s, true
}

// parseNumber reads decimal digits in 1..maxNumber.
func parseNumber(s string) (int64, error) {
	if s == "" {
		return 0, fmt.Errorf("%w: a number is missing", ErrInvalid)
	}
	var n uint64
	for i := range len(s) {
		d := s[i] - '0'
		if d > 9 {
			return 0, fmt.Errorf("%w: %q is not a number", ErrInvalid, clip(s))
		}
		if n = n*10 + uint64(d); n > maxNumber {
			return 0, fmt.Errorf("%w: number %s is above %d", ErrInvalid, clip(s), int64(maxNumber))
		}
	}
	if n == 0 {
		return 0, fmt.Errorf("%w: numbers start at 1", ErrInvalid)
	}
	return int64(n), nil
}

// parseOne reads "uuid:n" or "uuid:tag:n". It allocates only for a tag that is
// not in lower case, and for errors.
func parseOne(s string) (g one, err error) {
	head, rest, found := strings.Cut(s, ":")
	u, ok := parseUUID(head)
	if !ok || !found {
		return g, fmt.Errorf("%w: %q: want uuid:number or uuid:tag:number", ErrInvalid, clip(s))
	}
	g.uuid = u
	if tag, number, tagged := strings.Cut(rest, ":"); tagged {
		if g.tag, ok = parseTag(tag); !ok {
			return g, fmt.Errorf("%w: %q: %q is not a tag", ErrInvalid, clip(s), clip(tag))
		}
		rest = number
	}
	if g.number, err = parseNumber(rest); err != nil {
		return g, fmt.Errorf("%q: %w", clip(s), err)
	}
	return g, nil
}

// clip keeps what goes into an error message short.
func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}

func parseMySQL(text string) (Set, error) {
	var all []piece
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue // the server allows it, too
		}
		var err error
		if all, err = parsePart(all, part); err != nil {
			return Set{}, fmt.Errorf("GTID set at %q: %w", clip(part), err)
		}
	}
	return fromPieces(all), nil
}

// piece is one interval of one source, before they are sorted together.
type piece struct {
	uuid uuid
	tag  string
	interval
}

// parsePart reads uuid:interval[:interval]...[:tag:interval...]... and appends.
func parsePart(all []piece, part string) ([]piece, error) {
	head, rest, found := strings.Cut(part, ":")
	u, ok := parseUUID(strings.TrimSpace(head))
	if !ok {
		return nil, fmt.Errorf("%w: %q is not a uuid", ErrInvalid, clip(head))
	}
	if !found {
		return nil, fmt.Errorf("%w: no numbers after the uuid", ErrInvalid)
	}
	tag, bare := "", false // bare: a tag without numbers yet
	for field := range strings.SplitSeq(rest, ":") {
		field = strings.TrimSpace(field)
		if field != "" && (field[0] < '0' || field[0] > '9') {
			t, ok := parseTag(field)
			if !ok || bare {
				return nil, fmt.Errorf("%w: %q where a number or tag should be", ErrInvalid, clip(field))
			}
			tag, bare = strings.Clone(t), true
			continue
		}
		from, to, isRange := strings.Cut(field, "-")
		var iv interval
		var err error
		if iv.first, err = parseNumber(strings.TrimSpace(from)); err != nil {
			return nil, err
		}
		iv.last = iv.first
		if isRange {
			if iv.last, err = parseNumber(strings.TrimSpace(to)); err != nil {
				return nil, err
			}
			if iv.last < iv.first {
				return nil, fmt.Errorf("%w: interval %d-%d runs backwards", ErrInvalid, iv.first, iv.last)
			}
		}
		all, bare = append(all, piece{u, tag, iv}), false
	}
	if bare {
		return nil, fmt.Errorf("%w: no numbers after tag %q", ErrInvalid, tag)
	}
	return all, nil
}

func fromPieces(all []piece) Set {
	slices.SortFunc(all, func(a, b piece) int {
		if c := compareSource(a.uuid, a.tag, b.uuid, b.tag); c != 0 {
			return c
		}
		switch {
		case a.first < b.first:
			return -1
		case a.first > b.first:
			return 1
		}
		return 0
	})
	s := Set{flavor: MySQL}
	for _, p := range all {
		if n := len(s.sources); n == 0 || s.sources[n-1].uuid != p.uuid || s.sources[n-1].tag != p.tag {
			s.sources = append(s.sources, source{uuid: p.uuid, tag: p.tag})
		}
		src := &s.sources[len(s.sources)-1]
		src.intervals = appendInterval(src.intervals, p.interval)
	}
	return s
}

// appendInterval appends iv, which starts at or after the last one's start.
func appendInterval(ivs []interval, iv interval) []interval {
	if n := len(ivs); n > 0 && iv.first <= ivs[n-1].last+1 {
		ivs[n-1].last = max(ivs[n-1].last, iv.last)
		return ivs
	}
	return append(ivs, iv)
}

func compareSource(u uuid, tag string, v uuid, vtag string) int {
	if c := bytes.Compare(u[:], v[:]); c != 0 {
		return c
	}
	return strings.Compare(tag, vtag)
}

func (s *Set) find(u uuid, tag string) (int, bool) {
	if s.last < len(s.sources) && s.sources[s.last].uuid == u && s.sources[s.last].tag == tag {
		return s.last, true
	}
	lo, hi := 0, len(s.sources)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if compareSource(s.sources[mid].uuid, s.sources[mid].tag, u, tag) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < len(s.sources) && s.sources[lo].uuid == u && s.sources[lo].tag == tag
}

// at is the index of the first interval that ends at n or later.
func (src *source) at(n int64) int {
	ivs := src.intervals
	if k := len(ivs); k == 0 || ivs[k-1].last < n {
		return k
	}
	lo, hi := 0, len(ivs)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if ivs[mid].last < n {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (src *source) has(n int64) bool {
	i := src.at(n)
	return i < len(src.intervals) && src.intervals[i].first <= n
}

func (src *source) add(n int64) {
	i := src.at(n)
	ivs := src.intervals
	if i < len(ivs) && ivs[i].first <= n {
		return
	}
	left := i > 0 && ivs[i-1].last == n-1
	right := i < len(ivs) && ivs[i].first == n+1
	switch {
	case left && right:
		ivs[i-1].last = ivs[i].last
		src.intervals = slices.Delete(ivs, i, i+1)
	case left:
		ivs[i-1].last = n
	case right:
		ivs[i].first = n
	default:
		src.intervals = slices.Insert(ivs, i, interval{n, n})
	}
}

func (s *Set) addMySQL(text string) error {
	g, err := parseOne(text)
	if err != nil {
		return err
	}
	i, ok := s.find(g.uuid, g.tag)
	if !ok {
		s.sources = slices.Insert(s.sources, i, source{uuid: g.uuid, tag: strings.Clone(g.tag)})
	}
	s.sources[i].add(g.number)
	s.last = i
	return nil
}

func (s *Set) containsMySQL(text string) (bool, error) {
	g, err := parseOne(text)
	if err != nil {
		return false, err
	}
	i, ok := s.find(g.uuid, g.tag)
	return ok && s.sources[i].has(g.number), nil
}

func (s *Set) followsMySQL(text string) (bool, error) {
	g, err := parseOne(text)
	if err != nil {
		return false, err
	}
	i, ok := s.find(g.uuid, g.tag)
	if !ok {
		return g.number == 1, nil
	}
	src := &s.sources[i]
	return !src.has(g.number) && (g.number == 1 || src.has(g.number-1)), nil
}

func (s *Set) lastMySQL(text string) uint64 {
	head, tag, tagged := strings.Cut(text, ":")
	u, ok := parseUUID(head)
	if tagged && ok {
		tag, ok = parseTag(tag)
	}
	if !ok {
		return 0
	}
	i, ok := s.find(u, tag)
	if !ok {
		return 0
	}
	ivs := s.sources[i].intervals
	return uint64(ivs[len(ivs)-1].last)
}

func (s *Set) containsSetMySQL(o Set) bool {
	for _, src := range o.sources {
		i, ok := s.find(src.uuid, src.tag)
		if !ok {
			return false
		}
		mine := &s.sources[i]
		for _, iv := range src.intervals {
			k := mine.at(iv.last)
			if k == len(mine.intervals) || mine.intervals[k].first > iv.first {
				return false
			}
		}
	}
	return true
}

func (s *Set) equalMySQL(o Set) bool {
	return slices.EqualFunc(s.sources, o.sources, func(a, b source) bool {
		return a.uuid == b.uuid && a.tag == b.tag && slices.Equal(a.intervals, b.intervals)
	})
}

func (s *Set) unionMySQL(o Set) {
	var all []piece
	for _, set := range []*Set{s, &o} {
		for _, src := range set.sources {
			for _, iv := range src.intervals {
				all = append(all, piece{src.uuid, src.tag, iv})
			}
		}
	}
	*s = fromPieces(all)
}

func (s *Set) minusMySQL(o Set) Set {
	d := Set{flavor: MySQL}
	for _, src := range s.sources {
		left := slices.Clone(src.intervals)
		if i, ok := o.find(src.uuid, src.tag); ok {
			left = minus(src.intervals, o.sources[i].intervals)
		}
		if len(left) > 0 {
			d.sources = append(d.sources, source{src.uuid, src.tag, left})
		}
	}
	return d
}

// minus walks both lists once.
func minus(a, b []interval) []interval {
	var out []interval
	for _, iv := range a {
		for len(b) > 0 && b[0].last < iv.first {
			b = b[1:]
		}
		from := iv.first
		for _, hole := range b {
			if hole.first > iv.last {
				break
			}
			if hole.first > from {
				out = append(out, interval{from, hole.first - 1})
			}
			from = hole.last + 1
		}
		if from <= iv.last {
			out = append(out, interval{from, iv.last})
		}
	}
	return out
}

func (s *Set) appendMySQL(dst []byte) []byte {
	for i, src := range s.sources {
		if i == 0 || s.sources[i-1].uuid != src.uuid {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendUUID(dst, src.uuid)
		}
		if src.tag != "" {
			dst = append(append(dst, ':'), src.tag...)
		}
		for _, iv := range src.intervals {
			dst = strconv.AppendInt(append(dst, ':'), iv.first, 10)
			if iv.last != iv.first {
				dst = strconv.AppendInt(append(dst, '-'), iv.last, 10)
			}
		}
	}
	return dst
}
