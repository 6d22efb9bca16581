package verify

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twinspan/twinspan/internal/server"
)

// row is the select list's fields; nil is NULL.
type row [][]byte

func (a row) equal(b row) bool {
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) || !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// chunkBytes is what one read should hold at most, by the table's average row.
const chunkBytes = 8 << 20

// recheckRows is how many candidates are read again with one statement.
const recheckRows = 100

// keyed compares a table with a key, chunk by chunk in the source's key order.
// The chunk's bounds come from the source; the target is asked for the same
// interval, so rows that only the target has are seen too.
func (r *run) keyed(ctx context.Context, sh *shape, estimate int64, rep *TableReport) error {
	n := r.cfg.ChunkRows
	if sh.width > 0 {
		n = max(16, min(n, int(chunkBytes/sh.width)))
	}
	var after row
	for {
		src, err := r.read(ctx, r.cfg.Source, sh, sh.interval(after, nil), n)
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		var upto row
		if len(src) == n {
			upto = src[n-1]
		}
		// The target's interval may hold more rows than n; it is read to its end.
		tgt, err := r.read(ctx, r.cfg.Target, sh, sh.interval(after, upto), 0)
		if err != nil {
			return fmt.Errorf("target: %w", err)
		}
		rep.Rows += int64(len(src))
		r.report(func(p *Progress) { p.RowsDone += int64(len(src)) })
		cands := sh.candidates(src, tgt)
		for len(cands) > 0 {
			k := min(recheckRows, len(cands))
			if err := r.recheck(ctx, sh, cands[:k], rep); err != nil {
				return err
			}
			cands = cands[k:]
		}
		if upto == nil {
			return nil
		}
		after = upto
	}
}

// candidates are the keys at which the two chunks differ, one row each to name
// the key by.
func (sh *shape) candidates(src, tgt []row) []row {
	have := make(map[string]row, len(tgt))
	for _, t := range tgt {
		have[sh.keyOf(t)] = t
	}
	var out []row
	for _, s := range src {
		k := sh.keyOf(s)
		if t, ok := have[k]; !ok || !s.equal(t) {
			out = append(out, s)
		}
		delete(have, k)
	}
	for _, t := range have {
		out = append(out, t)
	}
	return out
}

// keyOf is an unambiguous string of the key's bytes.
func (sh *shape) keyOf(x row) string {
	var b []byte
	for _, k := range sh.key {
		b = strconv.AppendInt(b, int64(len(x[k.at])), 10)
		b = append(append(b, ':'), x[k.at]...)
	}
	return string(b)
}

// recheck reads the candidates again until each is equal, has stood still and
// differs, or has moved too often. A row that stood still twice over two
// catch-ups and differs both times is a difference: one catch-up alone could
// show an intermediate state of a row that was changed and changed back.
func (r *run) recheck(ctx context.Context, sh *shape, cands []row, rep *TableReport) error {
	type state struct {
		last  *row // the source's row at the previous look; nil: was absent
		stood int
	}
	open := map[string]row{}
	states := map[string]*state{}
	for _, c := range cands {
		open[sh.keyOf(c)] = c
		states[sh.keyOf(c)] = &state{}
	}
	need := 2
	if r.cfg.Settle == nil {
		need = 1
	}
	look := func(s Side) (map[string]row, error) {
		rows, err := r.read(ctx, s, sh, sh.among(open), 0)
		out := map[string]row{}
		for _, x := range rows {
			out[sh.keyOf(x)] = x
		}
		return out, err
	}
	for attempt := 0; len(open) > 0; attempt++ {
		before, err := look(r.cfg.Source)
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		if err := r.settle(ctx); err != nil {
			return err
		}
		there, err := look(r.cfg.Target)
		if err != nil {
			return fmt.Errorf("target: %w", err)
		}
		after, err := look(r.cfg.Source)
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		for k, c := range open {
			s1, ok1 := before[k]
			s2, ok2 := after[k]
			t, okT := there[k]
			st := states[k]
			switch {
			case ok1 != ok2 || ok1 && !s1.equal(s2):
				st.stood = 0 // moved meanwhile
			case ok1 == okT && (!ok1 || s1.equal(t)):
				delete(open, k)
				continue
			default:
				st.stood++
			}
			if st.stood >= need {
				r.add(rep, sh.difference(c, s1, ok1, t, okT), 1)
				delete(open, k)
			} else if attempt+1 >= r.cfg.Attempts {
				rep.Unsettled++
				delete(open, k)
			}
		}
		if len(open) > 0 && attempt > 0 {
			select {
			case <-time.After(time.Duration(attempt) * 100 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

func (sh *shape) difference(c, s row, okS bool, t row, okT bool) Difference {
	d := Difference{Kind: Different}
	var key []string
	for _, k := range sh.key {
		key = append(key, sh.columns[k.at]+"="+printable(c[k.at]))
	}
	d.Key = strings.Join(key, ", ")
	switch {
	case !okT:
		d.Kind = Missing
	case !okS:
		d.Kind = Extra
	default:
		for i, n := range sh.columns {
			if (s[i] == nil) != (t[i] == nil) || !bytes.Equal(s[i], t[i]) {
				d.Columns = append(d.Columns, Column{Name: n, Source: printable(s[i]), Target: printable(t[i])})
			}
		}
	}
	return d
}

// printable shortens a value for people.
func printable(b []byte) string {
	if b == nil {
		return "NULL"
	}
	const most = 64
	text := utf8.Valid(b)
	for _, c := range b {
		if c < ' ' {
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

// read runs one select. limit 0: all rows of the condition.
func (r *run) read(ctx context.Context, s Side, sh *shape, where string, limit int) ([]row, error) {
	q := "SELECT " + sh.list + " FROM " + sh.table()
	if where != "" {
		q += " WHERE " + where
	}
	if len(sh.key) > 0 {
		q += " ORDER BY " + sh.order()
	}
	if limit > 0 {
		q += " LIMIT " + strconv.Itoa(limit)
	}
	rows, err := s.DB.QueryContext(ctx, q)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []row
	for rows.Next() {
		x, err := scan(rows, sh.fields)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, rows.Err()
}

func scan(rows *sql.Rows, n int) (row, error) {
	x := make(row, n)
	into := make([]any, n)
	for i := range x {
		into[i] = &x[i]
	}
	return x, rows.Scan(into...)
}

func (sh *shape) table() string {
	return server.QuoteName(sh.name.Schema) + "." + server.QuoteName(sh.name.Table)
}

func (sh *shape) order() string {
	var o []string
	for _, k := range sh.key {
		o = append(o, k.order)
	}
	return strings.Join(o, ", ")
}

// interval is the condition after < key <= upto; nil bounds are open.
func (sh *shape) interval(after, upto row) string {
	var parts []string
	if after != nil {
		parts = append(parts, sh.beyond(after, ">", ">"))
	}
	if upto != nil {
		parts = append(parts, sh.beyond(upto, "<", "<="))
	}
	return strings.Join(parts, " AND ")
}

// beyond compares the key lexicographically, spelt out so that an index serves:
// a > x AND (a > x OR b > y …). The first comparison is the loose one, which
// bounds the index range.
func (sh *shape) beyond(x row, strict, last string) string {
	var or []string
	for i := range sh.key {
		var and []string
		for j := range i {
			and = append(and, sh.key[j].order+" = "+sh.literal(j, x))
		}
		op := strict
		if i == len(sh.key)-1 {
			op = last
		}
		and = append(and, sh.key[i].order+" "+op+" "+sh.literal(i, x))
		or = append(or, "("+strings.Join(and, " AND ")+")")
	}
	cond := "(" + strings.Join(or, " OR ") + ")"
	if len(sh.key) > 1 {
		cond = sh.key[0].order + " " + strict + "= " + sh.literal(0, x) + " AND " + cond
	}
	return cond
}

// among is the condition for a set of keys.
func (sh *shape) among(keys map[string]row) string {
	var or []string
	for _, x := range keys {
		var and []string
		for j := range sh.key {
			and = append(and, sh.key[j].order+" = "+sh.literal(j, x))
		}
		or = append(or, "("+strings.Join(and, " AND ")+")")
	}
	return strings.Join(or, " OR ")
}

// literal renders key column i of x for a comparison.
func (sh *shape) literal(i int, x row) string {
	k := sh.key[i]
	v := x[k.at]
	switch k.style {
	case quoted:
		return "'" + string(v) + "'" // the server's own text of a date or time
	case hexed:
		if len(v) == 0 {
			return k.set + "''"
		}
		return k.set + " x'" + hex.EncodeToString(v) + "'"
	}
	switch sh.types[k.at] {
	case "bit":
		n, _ := strconv.ParseUint(string(v), 16, 64) // HEX() of at most 64 bits
		return strconv.FormatUint(n, 10)
	case "enum", "set":
		n, _, _ := strings.Cut(string(v), ":")
		return n
	}
	return string(v) // the server's own digits
}
