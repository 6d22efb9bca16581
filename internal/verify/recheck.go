package verify

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// recheckRows is how many candidates are read again with one statement.
const recheckRows = 100

// stoodNeeded is how often in a row a candidate must differ while the source's
// side of it stands still, with a catch-up between. Once is not enough: a row may
// be changed and changed back, and MySQL shows a row a moment before its GTID is
// in gtid_executed.
const stoodNeeded = 2

func (r *run) stoodNeeded() int {
	if r.cfg.Settle == nil {
		return 1
	}
	return stoodNeeded
}

// pause waits between two looks, longer each time.
func (r *run) pause(ctx context.Context, attempt int) error {
	if r.cfg.Settle == nil {
		return nil
	}
	select {
	case <-time.After(min(time.Duration(attempt+1)*100*time.Millisecond, 2*time.Second)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// candidate is a row that may differ.
type candidate struct {
	key keyValues
	id  string // of the key
}

func (sh *shape) candidate(x row) candidate {
	k := sh.keyOf(x)
	return candidate{k, k.id()}
}

// recheck reads candidates again until each is equal, has stood still and
// differs, or has moved too often.
func (r *run) recheck(ctx context.Context, sh *shape, open []candidate, rep *TableReport) error {
	stood := map[string]int{}
	look := func(source bool) (map[string]row, error) {
		rows, err := r.read(ctx, sh, source, sh.among(open), 0)
		out := make(map[string]row, len(rows))
		for _, x := range rows {
			out[sh.keyOf(x).id()] = x
		}
		return out, err
	}
	for attempt := 0; ; attempt++ {
		before, err := look(true)
		if err != nil {
			return wrap("source", err)
		}
		if err := r.settle(ctx); err != nil {
			return err
		}
		there, err := look(false)
		if err != nil {
			return wrap("target", err)
		}
		after, err := look(true)
		if err != nil {
			return wrap("source", err)
		}
		var still []candidate
		for _, c := range open {
			s1, ok1 := before[c.id]
			s2, ok2 := after[c.id]
			t, okT := there[c.id]
			switch {
			case ok1 != ok2 || ok1 && !s1.equal(s2):
				stood[c.id] = 0 // moved meanwhile
			case ok1 == okT && (!ok1 || s1.equal(t)):
				continue
			default:
				stood[c.id]++
			}
			switch {
			case stood[c.id] >= r.stoodNeeded():
				r.add(rep, sh.difference(c.key, s1, ok1, t, okT), 1)
			case attempt+1 >= r.cfg.Attempts:
				r.unsettled(rep, Difference{Kind: Unsettled, Key: sh.printableKey(c.key)}, 1)
			default:
				still = append(still, c)
			}
		}
		if open = still; len(open) == 0 {
			return nil
		}
		if err := r.pause(ctx, attempt); err != nil {
			return err
		}
	}
}

func (sh *shape) difference(key keyValues, s row, okS bool, t row, okT bool) Difference {
	d := Difference{Kind: Different, Key: sh.printableKey(key)}
	switch {
	case !okT:
		d.Kind = Missing
	case !okS:
		d.Kind = Extra
	default:
		for i, f := range sh.columns {
			if (s[i] == nil) != (t[i] == nil) || !bytes.Equal(s[i], t[i]) {
				d.Columns = append(d.Columns, Column{Name: f.name, Source: f.printable(s[i]), Target: f.printable(t[i])})
			}
		}
	}
	return d
}

func (sh *shape) printableKey(key keyValues) string {
	var out []string
	for i, k := range sh.key {
		out = append(out, sh.columns[k.at].name+"="+printable(key[i]))
	}
	return strings.Join(out, ", ")
}

func (sh *shape) printableRow(x row) string {
	var out []string
	for i, f := range sh.columns {
		out = append(out, f.name+"="+f.printable(x[i]))
	}
	return strings.Join(out, ", ")
}

// printable shortens a value for people, without what marks a wide one.
func (f field) printable(b []byte) string {
	if f.wide && len(b) > 0 {
		b = b[1:]
	}
	return printable(b)
}

func printable(b []byte) string {
	if b == nil {
		return "NULL"
	}
	const most = 96 // a digest fits
	text := utf8.Valid(b)
	for _, c := range b {
		if c < ' ' && c != '\n' {
			text = false
		}
	}
	if !text {
		s := "0x" + hex.EncodeToString(b[:min(len(b), most/2)])
		if len(b) > most/2 {
			s += fmt.Sprintf("… (%d bytes)", len(b))
		}
		return s
	}
	if len(b) > most {
		return string(bytes.ToValidUTF8(b[:most], nil)) + fmt.Sprintf("… (%d bytes)", len(b))
	}
	return string(b)
}
