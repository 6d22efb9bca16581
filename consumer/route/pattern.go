package route

import (
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/schema"
)

// pattern names tables: a schema and a table, each with * for anything and ? for
// one character. What stands between backquotes means itself.
type pattern struct {
	text          string
	schema, table glob
}

// glob is one half of a pattern.
type glob struct {
	parts []piece
}

// piece is literal text, or a star or a question mark.
type piece struct {
	literal string
	wild    byte // '*', '?' or 0
}

// parsePattern reads schema.table.
func parsePattern(text string) (pattern, error) {
	p := pattern{text: text}
	halves := [][]piece{nil}
	lit := func(s string) {
		at := len(halves) - 1
		if n := len(halves[at]); n > 0 && halves[at][n-1].wild == 0 {
			halves[at][n-1].literal += s
			return
		}
		halves[at] = append(halves[at], piece{literal: s})
	}
	for rest := text; rest != ""; {
		switch c := rest[0]; {
		case c == '`':
			var b strings.Builder
			i := 1
			for ; i < len(rest); i++ {
				if rest[i] == '`' {
					if i+1 < len(rest) && rest[i+1] == '`' {
						i++
					} else {
						break
					}
				}
				b.WriteByte(rest[i])
			}
			if i == len(rest) {
				return p, fmt.Errorf("%q: a ` does not end", text)
			}
			lit(b.String())
			rest = rest[i+1:]
			continue
		case c == '.' && len(halves) == 1:
			halves = append(halves, nil)
		case c == '*' || c == '?':
			at := len(halves) - 1
			if n := len(halves[at]); c != '*' || n == 0 || halves[at][n-1].wild != '*' {
				halves[at] = append(halves[at], piece{wild: c})
			}
		default:
			lit(rest[:1])
		}
		rest = rest[1:]
	}
	if len(halves) != 2 || len(halves[0]) == 0 || len(halves[1]) == 0 {
		return p, fmt.Errorf("%q: write it as schema.table; * stands for anything", text)
	}
	p.schema, p.table = glob{halves[0]}, glob{halves[1]}
	return p, nil
}

func (p pattern) matches(n schema.Name) bool {
	return p.schema.matches(n.Schema) && p.table.matches(n.Table)
}

// all tells whether any name matches.
func (g glob) all() bool { return len(g.parts) == 1 && g.parts[0].wild == '*' }

func (g glob) matches(s string) bool { return match(g.parts, s) }

func match(parts []piece, s string) bool {
	for i, p := range parts {
		switch p.wild {
		case '*':
			if i == len(parts)-1 {
				return true
			}
			for k := 0; k <= len(s); k++ {
				if match(parts[i+1:], s[k:]) {
					return true
				}
			}
			return false
		case '?':
			if s == "" {
				return false
			}
			n := 1 // a character of UTF-8
			for n < len(s) && s[n]&0xC0 == 0x80 {
				n++
			}
			s = s[n:]
		default:
			if !strings.HasPrefix(s, p.literal) {
				return false
			}
			s = s[len(p.literal):]
		}
	}
	return s == ""
}

// shift is one half of a route: prefix*suffix becomes prefix*suffix, or a name
// becomes a name. It can be turned back.
type shift struct {
	star       bool
	fromA, toA string // before the star, or the whole name
	fromB, toB string // behind it
}

func newShift(from, to glob) (shift, error) {
	a, aStar, err := around(from)
	if err != nil {
		return shift{}, err
	}
	b, bStar, err := around(to)
	if err != nil {
		return shift{}, err
	}
	if aStar != bStar {
		return shift{}, fmt.Errorf("a * stands on one side only: two names would become one, or one name many")
	}
	return shift{aStar, a[0], b[0], a[1], b[1]}, nil
}

// around is what stands before and behind the star.
func around(g glob) (out [2]string, star bool, err error) {
	for _, p := range g.parts {
		switch {
		case p.wild == '?':
			return out, star, fmt.Errorf("? has no meaning in a route: use one *")
		case p.wild == '*' && star:
			return out, star, fmt.Errorf("more than one * in a name: nobody could say what each stands for")
		case p.wild == '*':
			star = true
		case star:
			out[1] += p.literal
		default:
			out[0] += p.literal
		}
	}
	return out, star, nil
}

func (s shift) identity() bool { return s.fromA == s.toA && s.fromB == s.toB }

// forth answers with the new name.
func (s shift) forth(name string) (string, bool) {
	return replace(name, s.star, s.fromA, s.fromB, s.toA, s.toB)
}

// back answers with the name that becomes this one.
func (s shift) back(name string) (string, bool) {
	return replace(name, s.star, s.toA, s.toB, s.fromA, s.fromB)
}

func replace(name string, star bool, a, b, x, y string) (string, bool) {
	if !star {
		return x, name == a
	}
	if len(name) < len(a)+len(b) || !strings.HasPrefix(name, a) || !strings.HasSuffix(name, b) {
		return "", false
	}
	return x + name[len(a):len(name)-len(b)] + y, true
}
