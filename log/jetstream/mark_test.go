package jetstream

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
)

func FuzzMark(f *testing.F) {
	now := time.UnixMicro(1_700_000_000_000_001).UTC()
	for _, m := range []mark{
		{fence: true, epoch: 1, offset: -1, lso: -1, lac: -1, time: now, nonce: "abc"},
		{epoch: 7, offset: 100, lso: 99, lac: 50, opened: 12, topic: 2, ends: true, time: now, last: map[log.Topic]log.Offset{1: 90, 2: 100}},
	} {
		f.Add(m.encode([]byte("payload")), []byte("payload"))
	}
	f.Fuzz(func(t *testing.T, text string, payload []byte) {
		m, err := parseMark(text, payload, true)
		if err != nil {
			return
		}
		again, err := parseMark(m.encode(payload), payload, true)
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%q is %+v, then %+v: %v", text, m, again, err)
		}
	})
}

// TestMarkDamage: no single byte of a mark or its payload changes unnoticed.
func TestMarkDamage(t *testing.T) {
	m := mark{epoch: 7, offset: 100, lso: 99, lac: 50, opened: 12, topic: 2, ends: true, time: time.Now(), last: map[log.Topic]log.Offset{1: 90, 2: 100}}
	payload := []byte("payload")
	text := m.encode(payload)
	if got, err := parseMark(text, payload, true); err != nil || got.offset != 100 || got.last[1] != 90 || !got.ends {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range text {
		for _, c := range "0 9:,-x" {
			if damaged := text[:i] + string(c) + text[i+1:]; damaged != text {
				if _, err := parseMark(damaged, payload, true); err == nil {
					t.Errorf("%q passes for %q", damaged, text)
				}
			}
		}
		if _, err := parseMark(text[:i], payload, true); err == nil {
			t.Errorf("%q passes", text[:i])
		}
	}
	for i := range payload {
		p := append([]byte{}, payload...)
		p[i] ^= 1
		if _, err := parseMark(text, p, true); err == nil {
			t.Errorf("payload %q passes", p)
		}
	}
}

func TestTokens(t *testing.T) {
	seen := map[string]string{}
	for _, s := range []string{"a", "A-9", "a.b", "a_b", "a b", "ä", "*", ">", "_2e", "a/b\\c", strings.Repeat("x", 150)} {
		k, err := token(s)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(k, ". *>/\\\t") || seen[k] != "" {
			t.Errorf("%q becomes %q (also of %q)", s, k, seen[k])
		}
		seen[k] = s
		if back, err := untoken(k); err != nil || back != s {
			t.Errorf("%q becomes %q, and back %q: %v", s, k, back, err)
		}
	}
	for _, s := range []string{"", "\xff", strings.Repeat("ä", 100)} {
		if k, err := token(s); err == nil {
			t.Errorf("%q becomes %q", s, k)
		}
	}
	for _, k := range []string{"_", "_z1", "a_2"} {
		if s, err := untoken(k); err == nil {
			t.Errorf("%q becomes %q", k, s)
		}
	}
}
