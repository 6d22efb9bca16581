package consumer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
)

// standing is a sink that stands at a place with a set.
type standing struct {
	*sink
	set string
}

func (s standing) Durable() (change.Place, string) { return s.resume, s.set }

func anchorOf(t *testing.T, l log.Log, p change.Place, set string) error {
	t.Helper()
	s := newSink()
	s.resume = p
	c, err := New(Config{Stream: "s", Group: "g"}, l, standing{s, set}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return c.anchor(context.Background())
}

// A log and every place in it at which a sink may stand, with the set there.
type stand struct {
	place change.Place
	set   string
}

func randomLog(t *testing.T, r *rand.Rand, l *memlog, before string, transactions int) []stand {
	t.Helper()
	set := gtid.New(gtid.MySQL)
	if before != "" {
		var err error
		if set, err = gtid.Parse(gtid.MySQL, before); err != nil {
			t.Fatal(err)
		}
	}
	l.schema(t)
	b, err := change.AppendBatch(nil, &change.Batch{GTIDSet: set.String(), Source: change.Source{Flavor: "mysql"}})
	if err != nil {
		t.Fatal(err)
	}
	l.add(log.TopicData, 1, true, b)
	var stands []stand
	next := 1000
	for n := 0; n < transactions; {
		var ts []change.Transaction
		var here []stand
		index := int32(0)
		for range 1 + r.IntN(4) {
			rows := r.IntN(4)
			x := tx(next, next*10, rows)
			if r.IntN(6) == 0 && rows > 1 { // over two entries
				ts = append(ts, part(x, 0, 1))
				l.batch(t, 1, "", ts...)
				stands = append(stands, here...)
				ts, here, index = []change.Transaction{part(x, 1, rows)}, nil, int32(rows-1)
			} else {
				ts = append(ts, x)
				index += int32(rows)
			}
			if err := set.Add(gtidOf(next)); err != nil {
				t.Fatal(err)
			}
			here = append(here, stand{change.Place{Index: index}, set.String()})
			index++
			next++
			n++
		}
		text := ""
		if r.IntN(8) == 0 {
			text = set.String()
		}
		o := l.batch(t, 1, text, ts...)
		for i := range here {
			here[i].place.Offset = o
		}
		stands = append(stands, here...)
		if r.IntN(5) == 0 {
			l.schema(t)
		}
	}
	// Parts that went into an entry of their own stand at that entry.
	for i := range stands {
		if stands[i].place.Offset == 0 {
			stands[i].set = ""
		}
	}
	return stands
}

func TestAnchorKnowsItsLog(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for range 30 {
		l, other := newMemlog(), newMemlog()
		before := ""
		if r.IntN(2) == 0 {
			before = uuid + ":1-900"
		}
		stands := randomLog(t, r, l, before, 60)
		// The same transactions, in other entries.
		randomLog(t, r, other, before, 60)
		for _, s := range stands {
			if s.set == "" {
				continue
			}
			if err := anchorOf(t, l, s.place, s.set); err != nil {
				t.Fatalf("seed %d: at %+v: %v", seed, s, err)
			}
			// In the other log the place is right only where it happens to
			// mean the same.
			err := anchorOf(t, other, s.place, s.set)
			if err == nil {
				if !endsThere(t, other, s) {
					t.Fatalf("seed %d: %+v is taken for a place of another log", seed, s)
				}
			} else if !errors.Is(err, errOther) {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
}

// endsThere tells whether the log holds exactly the set once some transaction of
// the entry has ended.
func endsThere(t *testing.T, l *memlog, s stand) bool {
	t.Helper()
	var set gtid.Set
	for o := log.Offset(0); o <= s.place.Offset; o++ {
		e := l.entries[o]
		if e.Topic != log.TopicData {
			continue
		}
		ids, text, err := ends(e.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if o == s.place.Offset && set.String() == s.set {
			return true
		}
		if text != "" && len(ids) == 0 {
			if set, err = gtid.Parse(gtid.MySQL, text); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range ids {
			if set.Flavor() == "" {
				set = gtid.New(gtid.MySQL)
			}
			if err := set.Add(id); err != nil {
				t.Fatal(err)
			}
			if o == s.place.Offset && set.String() == s.set {
				return true
			}
		}
	}
	return false
}

func TestAnchorRefusesOtherLogs(t *testing.T) {
	fill := func(l *memlog, first, n int, before string) {
		l.schema(t)
		set := before
		for i := range n {
			if i > 0 {
				set = ""
			}
			if i == n-1 {
				set = before + fmt.Sprintf(":%d-%d", first, first+i)
			}
			l.batch(t, 1, set, tx(first+i, i, 1))
		}
	}
	for name, c := range map[string]struct {
		build func(*memlog)
		place change.Place
		set   string
	}{
		"shorter":                    {func(l *memlog) { fill(l, 1, 10, uuid) }, change.Place{Offset: 40, Index: 1}, uuid + ":1-40"},
		"made anew, grown past":      {func(l *memlog) { fill(l, 41, 80, uuid) }, change.Place{Offset: 40, Index: 1}, uuid + ":1-40"},
		"made anew, later":           {func(l *memlog) { fill(l, 100, 80, uuid+":1-99") }, change.Place{Offset: 40, Index: 1}, uuid + ":1-40"},
		"made anew, earlier":         {func(l *memlog) { fill(l, 20, 80, uuid+":1-19") }, change.Place{Offset: 40, Index: 1}, uuid + ":1-40"},
		"of another source":          {func(l *memlog) { fill(l, 1, 80, uuid) }, change.Place{Offset: 40, Index: 1}, "11111111-71ca-11e1-9e33-c80aa9429562:1-40"},
		"of another flavour":         {func(l *memlog) { fill(l, 1, 80, uuid) }, change.Place{Offset: 40, Index: 1}, "0-1-40"},
		"the entry holds no changes": {func(l *memlog) { fill(l, 1, 80, uuid) }, change.Place{Offset: 0, Index: 1}, uuid + ":1"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newMemlog()
			c.build(l)
			if err := anchorOf(t, l, c.place, c.set); !errors.Is(err, errOther) {
				t.Errorf("%v", err)
			}
		})
	}
	l := newMemlog()
	fill(l, 1, 80, uuid)
	l.first = 41
	if err := anchorOf(t, l, change.Place{Offset: 40, Index: 1}, uuid+":1-40"); !errors.Is(err, log.ErrTrimmed) || errors.Is(err, errOther) {
		t.Errorf("its place is trimmed: %v", err)
	}
	if err := anchorOf(t, newMemlog(), change.Place{Offset: -1}, ""); err != nil {
		t.Error(err)
	}
}
