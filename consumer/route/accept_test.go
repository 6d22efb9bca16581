package route

import "testing"

// TestParseStored: what is recorded is read as what it was, or not at all.
func TestParseStored(t *testing.T) {
	for _, c := range []Config{
		{},
		{Include: []string{"b.*", "a.`x y`"}, Exclude: []string{"a.b"}, SkipInsert: []string{"a.c"}, SkipUpdate: []string{"a.d"}, SkipDelete: []string{"a.e"}, SkipDDL: []string{"a.f"},
			Routes: []string{"a.b->c.d", " x.* ->  y.*"}},
	} {
		got, ok := parseStored(Stored{Digest: c.Digest(), Text: c.String()})
		if !ok || got.String() != c.String() || got.Stamp() != c.Stamp() || !got.narrowedTo(c) || !c.narrowedTo(got) {
			t.Errorf("%+v: %t %+v", c, ok, got)
		}
	}
	for _, s := range []Stored{{Text: "include a.b\n"}, {Digest: "7"}, {Text: "only a.b\n", Digest: Config{Include: []string{"a.b"}}.Digest()}} {
		if got, ok := parseStored(s); ok {
			t.Errorf("%+v: %+v", s, got)
		}
	}
}
