package schema

import (
	"unicode/utf8"

	"vitess.io/vitess/go/mysql/collations"
	"vitess.io/vitess/go/mysql/collations/charset"
	"vitess.io/vitess/go/mysql/collations/colldata"
)

// ToUTF8 converts text of a character set as the servers do. It is false where
// we do not know exactly how (gbk, big5, the Japanese and Korean sets, beyond
// ASCII), or the text is not valid.
func ToUTF8(b []byte, name string) (string, bool) {
	if IsUTF8(name) || name == "binary" {
		return string(b), utf8.Valid(b)
	}
	if asciiCompatible(name) && isASCII(b) {
		return string(b), true
	}
	cs := charsetOf(name)
	if cs == nil {
		return "", false
	}
	var out []byte
	for len(b) > 0 {
		r, n := cs.DecodeRune(b)
		if r == utf8.RuneError || n <= 0 {
			return "", false
		}
		out = utf8.AppendRune(out, r)
		b = b[n:]
	}
	return string(out), true
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// asciiCompatible names the character sets in which a byte below 0x80 at the
// start of a character is that ASCII character. swe7 and the wide ones are not.
func asciiCompatible(name string) bool {
	switch name {
	case "latin1", "latin2", "latin5", "latin7", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852", "cp866",
		"greek", "hebrew", "armscii8", "geostd8", "keybcs2", "koi8r", "koi8u", "macce", "macroman", "dec8", "hp8",
		"tis620", "gbk", "gb2312", "gb18030", "big5", "sjis", "cp932", "ujis", "eucjpms", "euckr":
		return true
	}
	return false
}

// charsetOf is the conversion table of a character set, nil where there is none.
func charsetOf(name string) charset.Charset {
	switch name {
	case "latin1":
		return charset.Charset_latin1{}
	case "ucs2":
		return charset.Charset_ucs2{}
	case "utf16":
		return charset.Charset_utf16{}
	case "utf16le":
		return charset.Charset_utf16le{}
	case "utf32":
		return charset.Charset_utf32{}
	}
	id, ok := eightBit[name]
	if !ok {
		return nil
	}
	c := colldata.Lookup(id)
	if c == nil {
		return nil
	}
	return c.Charset()
}

// eightBit has one collation of each character set with a table of 256 runes.
// The ids are the servers' own and never change.
var eightBit = map[string]collations.ID{
	"dec8": 3, "cp850": 4, "hp8": 6, "koi8r": 7, "latin2": 9, "swe7": 10, "hebrew": 16, "koi8u": 22, "greek": 25,
	"cp1250": 26, "latin5": 30, "armscii8": 32, "cp866": 36, "keybcs2": 37, "macce": 38, "macroman": 39, "cp852": 40,
	"latin7": 41, "cp1251": 51, "cp1256": 57, "cp1257": 59, "geostd8": 92,
}
