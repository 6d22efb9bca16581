package ops

import (
	"errors"
	"hash/crc32"
	"hash/maphash"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/wire"
)

// One changed field of one entry is seen, and so is one that is missing or too many.
func TestFingerprints(t *testing.T) {
	seed := maphash.MakeSeed()
	at := time.UnixMicro(1_700_000_000_000_000).UTC()
	entries := func(change func([]wire.Stored) []wire.Stored) []wire.Stored {
		var out []wire.Stored
		for o := log.Offset(10); o < 20; o++ {
			topic := log.TopicData
			if o%5 == 0 {
				topic = log.TopicSchema
			}
			e := wire.Stored{Entry: log.Entry{Offset: o, Epoch: 3, Topic: topic, AppendedAt: at, EndsTransaction: o%2 == 0, Payload: []byte{byte(o), 1, 2}}}
			e.Checksum = crc32.Checksum(e.Payload, castagnoli)
			out = append(out, e)
		}
		if change != nil {
			out = change(out)
		}
		return out
	}
	read := func(all []wire.Stored, against *fingerprints, compacted bool) (*fingerprints, error) {
		f := &fingerprints{seed: seed, first: 10, schemaOnly: compacted, against: against}
		for i := range all {
			if err := f.add(&all[i]); err != nil {
				return f, err
			}
		}
		return f, f.end(19)
	}
	first, err := read(entries(nil), nil, false)
	if err != nil || first.entries != 10 || first.bytes != 30 {
		t.Fatal(first, err)
	}
	seal := func(e *wire.Stored) { e.Checksum = crc32.Checksum(e.Payload, castagnoli) }
	for name, c := range map[string]struct {
		change  func([]wire.Stored) []wire.Stored
		verdict Verdict // empty: equal
		at      log.Offset
	}{
		"equal":        {nil, "", 0},
		"payload":      {func(e []wire.Stored) []wire.Stored { e[4].Payload = []byte{9}; seal(&e[4]); return e }, Different, 14},
		"epoch":        {func(e []wire.Stored) []wire.Stored { e[4].Epoch++; return e }, Different, 14},
		"time":         {func(e []wire.Stored) []wire.Stored { e[4].AppendedAt = at.Add(time.Microsecond); return e }, Different, 14},
		"topic":        {func(e []wire.Stored) []wire.Stored { e[4].Topic = log.TopicExceptions; return e }, Different, 14},
		"end":          {func(e []wire.Stored) []wire.Stored { e[4].EndsTransaction = false; return e }, Different, 14},
		"checksum":     {func(e []wire.Stored) []wire.Stored { e[4].Payload = []byte{9}; return e }, Damaged, 14},
		"hole":         {func(e []wire.Stored) []wire.Stored { return append(e[:4], e[5:]...) }, Missing, 14},
		"starts later": {func(e []wire.Stored) []wire.Stored { return e[1:] }, Missing, 10},
		"ends early":   {func(e []wire.Stored) []wire.Stored { return e[:9] }, Missing, 19},
		"empty":        {func(e []wire.Stored) []wire.Stored { return nil }, Missing, 10},
	} {
		_, err := read(entries(c.change), first, false)
		var d *difference
		switch {
		case c.verdict == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.verdict != "" && (!errors.As(err, &d) || d.verdict != c.verdict || d.at != c.at):
			t.Errorf("%s: %+v, not %s at %d", name, err, c.verdict, c.at)
		}
	}

	// Of a compacted segment only the schema topic counts: one node has dropped the
	// rest, another not yet.
	kept := func(e []wire.Stored) []wire.Stored { return []wire.Stored{e[0], e[5]} }
	whole, err := read(entries(nil), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read(entries(kept), whole, true); err != nil {
		t.Error(err)
	}
	var d *difference
	if _, err := read(entries(func(e []wire.Stored) []wire.Stored { return e[:1] }), whole, true); !errors.As(err, &d) || d.verdict != Missing || d.at != 15 {
		t.Errorf("a schema that is missing: %v", err)
	}
	few, err := read(entries(func(e []wire.Stored) []wire.Stored { return e[:1] }), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read(entries(kept), few, true); !errors.As(err, &d) || d.verdict != Different || d.at != 15 {
		t.Errorf("a schema too many: %v", err)
	}
}
