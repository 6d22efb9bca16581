package ddl

import (
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
)

// tokenKind tells tokens apart as far as the classifier cares.
type tokenKind uint8

const (
	word   tokenKind = iota + 1 // keyword or bare identifier
	quoted                      // quoted identifier, quotes undone
	text                        // string, or number with a point
	symbol                      // one character
	at                          // @variable, @@variable, or the @host of an account
)

type token struct {
	kind tokenKind
	s    string // word as written, identifier, or the symbol
	up   string // a word in upper case; empty for others
	// from and to are its bytes in the text: text[from:to].
	from, to int
}

// is tells whether the token is that keyword. Quoted identifiers never are.
func (t token) is(keyword string) bool { return t.kind == word && t.up == keyword }

func (t token) in(keywords ...string) bool {
	for _, k := range keywords {
		if t.is(k) {
			return true
		}
	}
	return false
}

func (t token) sym(c byte) bool { return t.kind == symbol && t.s[0] == c }

// SQL modes that change what a character means, as bits of sql_mode.
const (
	modeANSIQuotes         = 1 << 2
	modeNoBackslashEscapes = 1 << 20
)

// lexer cuts a statement into tokens the way the servers do. Comments are
// dropped, executable ones unwrapped.
type lexer struct {
	src      string
	pos      int
	dialect  Dialect
	unwrap   bool // within an executable comment
	wideTail bool
	out      []token
}

func lex(src string, d Dialect) ([]token, error) {
	l := lexer{src: src, dialect: d, wideTail: hasASCIITails(d.Charset), out: make([]token, 0, 16+len(src)/6)}
	for {
		from, n := l.pos, len(l.out)
		more, err := l.next()
		if err != nil {
			return nil, err
		}
		if len(l.out) > n {
			l.out[n].from, l.out[n].to = from, l.pos
		}
		if !more {
			break
		}
	}
	if l.unwrap {
		return nil, fmt.Errorf("a comment does not end")
	}
	return l.out, nil
}

// hasASCIITails tells whether the second byte of a character can look like
// ASCII: like a backslash, a quote or a letter.
func hasASCIITails(charset string) bool {
	switch charset {
	case "gbk", "gb18030", "big5", "sjis", "cp932":
		return true
	}
	return false
}

// width is how many bytes the character at i takes, as far as it matters: a
// second byte that could be mistaken is taken with the first.
func (l *lexer) width(i int) int {
	if l.wideTail && l.src[i] >= 0x80 && i+1 < len(l.src) {
		// sjis and cp932 have characters of one byte there.
		if c := l.src[i]; (l.dialect.Charset == "sjis" || l.dialect.Charset == "cp932") && (c == 0x80 || c >= 0xa0 && c <= 0xdf) {
			return 1
		}
		if l.src[i+1] >= 0x30 {
			return 2
		}
	}
	return 1
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

func (l *lexer) rest() string { return l.src[l.pos:] }

func (l *lexer) next() (bool, error) {
	if l.pos >= len(l.src) {
		return false, nil
	}
	c := l.src[l.pos]
	switch {
	case isSpace(c):
		l.pos++
	case c == 0 && l.pos == len(l.src)-1:
		l.pos++ // a text with its terminator
	case c == '#', strings.HasPrefix(l.rest(), "--") && (len(l.rest()) == 2 || l.src[l.pos+2] <= ' ' || l.src[l.pos+2] == 0x7f):
		if n := strings.IndexByte(l.rest(), '\n'); n >= 0 {
			l.pos += n + 1
		} else {
			l.pos = len(l.src)
		}
	case strings.HasPrefix(l.rest(), "/*"):
		return true, l.comment()
	case l.unwrap && strings.HasPrefix(l.rest(), "*/"):
		l.unwrap = false
		l.pos += 2
	case c == '`', c == '"' && l.dialect.SQLMode&modeANSIQuotes != 0:
		s, err := l.enclosed(c, false)
		if err != nil {
			return false, err
		}
		l.out = append(l.out, token{kind: quoted, s: s})
	case c == '\'' || c == '"':
		s, err := l.enclosed(c, l.dialect.SQLMode&modeNoBackslashEscapes == 0)
		if err != nil {
			return false, err
		}
		l.out = append(l.out, token{kind: text, s: s})
	case c == '@':
		return true, l.variable()
	case c == '$' && l.dollarQuoted():
	case isWord(c):
		l.word()
	default:
		l.out = append(l.out, token{kind: symbol, s: l.src[l.pos : l.pos+1]})
		l.pos++
	}
	return true, nil
}

func (l *lexer) run(in func(byte) bool) string {
	from := l.pos
	for l.pos < len(l.src) && in(l.src[l.pos]) {
		l.pos += l.width(l.pos)
	}
	return l.src[from:l.pos]
}

// word reads a keyword, a bare identifier or a number. 1.5 is one token, since
// what stands behind a point is otherwise a name.
func (l *lexer) word() {
	s := l.run(isWord)
	if !l.afterPoint() && l.pos < len(l.src) && l.src[l.pos] == '.' && strings.Trim(s, "0123456789") == "" {
		l.pos++
		l.run(func(c byte) bool { return c >= '0' && c <= '9' })
		l.out = append(l.out, token{kind: text, s: s})
		return
	}
	l.out = append(l.out, token{kind: word, s: s, up: strings.ToUpper(s)})
}

func (l *lexer) afterPoint() bool { return len(l.out) > 0 && l.out[len(l.out)-1].sym('.') }

// dollarQuoted reads $$ … $$ or $tag$ … $tag$, as MySQL 9 writes bodies in other
// languages. It is false, and reads nothing, for a name that begins with $.
func (l *lexer) dollarQuoted() bool {
	if l.dialect.Flavor == server.MariaDB || l.dialect.Version != 0 && l.dialect.Version < 90000 || l.afterPoint() {
		return false
	}
	rest := l.rest()
	n := 1
	for n < len(rest) && isWord(rest[n]) && rest[n] != '$' {
		n++
	}
	if n == len(rest) || rest[n] != '$' {
		return false
	}
	n++
	end := strings.Index(rest[n:], rest[:n])
	if end < 0 {
		return false
	}
	l.out = append(l.out, token{kind: text, s: rest[n : n+end]})
	l.pos += n + end + n
	return true
}

// enclosed reads what stands between quotes; a doubled quote is one.
func (l *lexer) enclosed(quote byte, escapes bool) (string, error) {
	var b strings.Builder
	l.pos++
	for l.pos < len(l.src) {
		c := l.src[l.pos]
		switch {
		case c == '\\' && escapes && l.pos+1 < len(l.src):
			l.pos++
			n := l.width(l.pos)
			b.WriteString(l.src[l.pos : l.pos+n])
			l.pos += n
		case c == quote && l.pos+1 < len(l.src) && l.src[l.pos+1] == quote:
			b.WriteByte(quote)
			l.pos += 2
		case c == quote:
			l.pos++
			return b.String(), nil
		default:
			n := l.width(l.pos)
			b.WriteString(l.src[l.pos : l.pos+n])
			l.pos += n
		}
	}
	return "", fmt.Errorf("a %c does not end", quote)
}

// variable reads @name, @'name', @@scope.name, and the host of an account.
func (l *lexer) variable() error {
	l.pos++
	for l.pos < len(l.src) && l.src[l.pos] == '@' {
		l.pos++
	}
	if l.pos < len(l.src) {
		switch c := l.src[l.pos]; c {
		case '`', '"', '\'':
			if _, err := l.enclosed(c, c != '`' && l.dialect.SQLMode&modeNoBackslashEscapes == 0); err != nil {
				return err
			}
		default:
			l.run(func(c byte) bool { return isWord(c) || c == '.' })
		}
	}
	l.out = append(l.out, token{kind: at, s: "@"})
	return nil
}

// comment drops a comment, or enters an executable one that this server runs:
// /*! … */, /*!50003 … */ from that version on, MariaDB's /*M! … */.
func (l *lexer) comment() error {
	body := l.src[l.pos+2:]
	mark := 0
	switch {
	case strings.HasPrefix(body, "!"):
		mark = 1
	case strings.HasPrefix(body, "M!") && l.dialect.Flavor == server.MariaDB:
		mark = 2
	}
	if mark > 0 {
		digits, version := 0, 0
		for digits < 6 && mark+digits < len(body) && body[mark+digits] >= '0' && body[mark+digits] <= '9' {
			version = version*10 + int(body[mark+digits]-'0')
			digits++
		}
		if digits < 5 {
			digits, version = 0, 0 // not a version: part of the statement
		}
		if l.runs(version, mark == 2) {
			l.unwrap = true
			l.pos += 2 + mark + digits
			return nil
		}
	}
	// A plain comment ends at the first end mark, one that is skipped for its
	// version may hold plain ones. Either ends an executable one around it.
	l.unwrap = false
	i, depth := l.pos+2, 1
	for i < len(l.src) {
		switch {
		case strings.HasPrefix(l.src[i:], "*/"):
			i += 2
			if depth--; depth == 0 {
				l.pos = i
				return nil
			}
		case mark > 0 && strings.HasPrefix(l.src[i:], "/*"):
			i += 2
			depth++
		default:
			i += l.width(i)
		}
	}
	return fmt.Errorf("a comment does not end")
}

// runs tells whether the server executes a comment of that version; 0 is none.
func (l *lexer) runs(version int, maria bool) bool {
	have := l.dialect.Version
	if l.dialect.Flavor == server.MariaDB {
		// MySQL's versions from 5.7 on mean nothing to MariaDB.
		if !maria && version >= 50700 && version <= 99999 {
			return false
		}
		if have == 0 {
			have = 129999
		}
	} else if have == 0 {
		have = 99999
	}
	return version <= have
}
