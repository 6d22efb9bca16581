package collate

import (
	"bytes"
	"testing"

	"github.com/twinspan/twinspan/internal/server"
)

func TestAppend(t *testing.T) {
	for _, c := range []struct {
		name, collation, a, b string
		prefix                int
		equal                 bool
	}{
		{"case", "utf8mb4_general_ci", "abc", "ABC", 0, true},
		{"case counts", "utf8mb4_bin", "abc", "ABC", 0, false},
		{"accent", "utf8mb4_0900_ai_ci", "café", "CAFE", 0, true},
		{"accent counts", "utf8mb4_0900_as_ci", "café", "CAFE", 0, false},
		{"sharp s", "utf8mb4_unicode_ci", "straße", "STRASSE", 0, true},
		{"trailing space", "utf8mb4_general_ci", "a", "a   ", 0, true},
		{"trailing space of a binary one", "utf8mb4_bin", "a", "a ", 0, true},
		{"trailing no-break space", "utf8mb4_unicode_ci", "a", "a\u00a0", 0, true},
		{"inner space", "utf8mb4_general_ci", "a b", "ab", 0, false},
		{"prefix", "utf8mb4_general_ci", "ämtlich", "Ämter", 3, true},
		{"prefix too short", "utf8mb4_general_ci", "abx", "aby", 3, false},
		{"prefix and padding", "utf8mb4_general_ci", "a  x", "a", 3, true},
		{"binary prefix", "binary", "abcd", "abxy", 2, true},
		{"binary", "binary", "a", "a ", 0, false},
		{"latin1", "latin1_swedish_ci", "\xe9", "E", 0, true},
		{"old name", "utf8_general_ci", "A", "a", 0, true},
		{"supplementary", "utf8mb4_general_ci", "😀", "😁", 0, true},
		{"wide", "utf16_general_ci", "\x00a\x00 ", "\x00A", 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, ok := Lookup(server.MySQL, c.collation)
			if !ok {
				t.Fatalf("%s is not usable", c.collation)
			}
			a, b := w.Append([]byte{1}, []byte(c.a), c.prefix), w.Append([]byte{1}, []byte(c.b), c.prefix)
			if bytes.Equal(a, b) != c.equal {
				t.Errorf("%q %x and %q %x: equal %v, want %v", c.a, a, c.b, b, !c.equal, c.equal)
			}
		})
	}
}

func TestLookupRefuses(t *testing.T) {
	for _, c := range []struct {
		flavor    server.Flavor
		collation string
	}{
		{server.MariaDB, "utf8mb4_uca1400_ai_ci"},
		{server.MariaDB, "uca1400_ai_ci"},
		{server.MariaDB, "utf8mb4_0900_ai_ci"},
		{server.MariaDB, "utf8mb4_croatian_ci"},
		{server.MariaDB, "utf8mb4_general_nopad_ci"},
		{server.MySQL, "gbk_chinese_ci"},
		{server.MySQL, "big5_chinese_ci"},
		{server.MySQL, ""},
		{server.MySQL, "no_such_ci"},
	} {
		if _, ok := Lookup(c.flavor, c.collation); ok {
			t.Errorf("%s %q is usable", c.flavor, c.collation)
		}
	}
}
