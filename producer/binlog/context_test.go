package binlog

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var fullContext = []byte{
	0, 0, 0, 0, 4, // flags2
	1, 0x20, 0, 0xa0, 0x55, 0, 0, 0, 0, // sql_mode
	6, 3, 's', 't', 'd', // catalog
	3, 2, 0, 1, 0, // auto increment
	4, 33, 0, 45, 0, 255, 0, // charsets
	5, 6, '+', '0', '0', ':', '0', '0',
	7, 110, 0,
	8, 8, 0,
	9, 1, 2, 3, 4, 5, 6, 7, 8,
	10, 1, 2, 3, 4,
	11, 1, 'u', 2, 'h', 'o',
	12, 2, 'a', 0, 'b', 'c', 0,
	13, 0x40, 0xe2, 0x01, // 123456
	16, 1,
	17, 1, 0, 0, 0, 0, 0, 0, 0,
	18, 255, 0,
	19, 1,
	20, 0,
	21, 1,
}

func TestParseContext(t *testing.T) {
	got, err := parseContext(fullContext)
	if err != nil {
		t.Fatal(err)
	}
	want := queryContext{
		Flags2: 0x04000000, SQLMode: 0x55a00020, CharsetClient: 33, CollationConnection: 45, CollationServer: 255,
		TimeZone: "+00:00", Microseconds: 123456, Schemas: []string{"a", "bc"}, InvokerUser: "u", InvokerHost: "ho",
		Variables: map[string]string{
			"auto_increment_increment": "2", "auto_increment_offset": "1", "lc_time_names": "110", "collation_database": "8",
			"explicit_defaults_for_timestamp": "1", "default_collation_for_utf8mb4": "255",
			"sql_require_primary_key": "1", "default_table_encryption": "0", "innodb_native_foreign_keys": "1",
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	for _, c := range []struct {
		name string
		in   []byte
		ok   func(queryContext) bool
	}{
		{"empty", nil, func(c queryContext) bool { return c.Variables == nil }},
		{"more schemas than listed", []byte{12, 254, 7, 1, 0}, func(c queryContext) bool { return c.Schemas == nil && c.Variables["lc_time_names"] == "1" }},
		{"MariaDB's microseconds", []byte{128, 1, 0, 0, 129, 1, 2, 3, 4, 5, 6, 7, 8}, func(c queryContext) bool { return c.Microseconds == 1 }},
		{"two-phase start", []byte{130, 2}, func(c queryContext) bool { return c.AlterPhase == alterStart }},
		{"two-phase commit", []byte{130, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4}, func(c queryContext) bool { return c.AlterPhase == alterCommit && c.Flags2 == 0x04000000 }},
		{"collations before charset", []byte{131, 2, 45, 0, 0x2b, 9, 8, 0, 8, 0, 4, 45, 0, 46, 0, 224, 0}, func(c queryContext) bool {
			return c.Variables["character_set_collations"] == "45=2347,8=8" && c.CharsetClient == 45
		}},
		{"catalog with its zero", []byte{2, 3, 's', 't', 'd', 0, 7, 2, 0}, func(c queryContext) bool { return c.Variables["lc_time_names"] == "2" }},
	} {
		got, err := parseContext(c.in)
		if err != nil || !c.ok(got) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestParseContextRefuses(t *testing.T) {
	for _, in := range [][]byte{{22}, {14, 0}, {127}, {132, 1}, {13, 0xff, 0xff, 0xff}} {
		if _, err := parseContext(in); !errors.Is(err, errContext) {
			t.Errorf("%v: %v", in, err)
		}
	}
	// Cut anywhere, it is either a shorter list of whole variables or an error.
	whole := 0
	for n := range fullContext {
		if _, err := parseContext(fullContext[:n]); err == nil {
			whole++
		} else if !errors.Is(err, errContext) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	if whole != 19 {
		t.Errorf("%d cuts between variables, want 19", whole)
	}
}

func FuzzParseContext(f *testing.F) {
	f.Add(fullContext)
	f.Add([]byte{131, 2, 45, 0, 0x2b, 9, 8, 0, 8, 0})
	f.Add([]byte{12, 3, 'a', 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseContext(b); err != nil && !errors.Is(err, errContext) {
			t.Fatal(err)
		}
	})
}
