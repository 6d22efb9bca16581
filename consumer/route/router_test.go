package route

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// fed is a change as the sink saw it.
type fed struct {
	place change.Place
	what  string
}

// unfold lists the changes of a part with their places, as the applier counts them.
func unfold(first change.Place, t *change.Transaction) (out []fed) {
	if t.DDL != nil {
		out = append(out, fed{first, t.DDL.Text})
		first.Index++
	}
	for _, r := range t.Rows {
		out = append(out, fed{first, fmt.Sprintf("%s %s %d", r.Op, r.Table.Name, r.Position)})
		first.Index++
	}
	if !t.Continued {
		out = append(out, fed{first, "end-of-" + t.GTID})
	}
	return out
}

// TestPlaces feeds random transactions in random parts: what is left must come in
// order, each with the place it has in the log, and every end must come.
func TestPlaces(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	r := NewRouter(rules(t, Config{Exclude: []string{"s.x*"}, SkipDelete: []string{"s.b"}, Routes: []string{"s.c -> z.c"}}))
	var tables []*schema.Table
	for _, n := range []string{"a", "b", "c", "xa", "xb"} {
		tables = append(tables, &schema.Table{Name: schema.Name{Schema: "s", Table: n}})
	}
	left := int64(0)
	for k := range 3000 {
		var want, got []fed
		open := false // a part that continues was fed
		whole := change.Transaction{GTID: fmt.Sprintf("%s%d", mysqlID, k)}
		place := change.Place{Offset: log.Offset(k), Index: int32(rng.IntN(5))}
		if rng.IntN(4) == 0 {
			whole.DDL = &change.DDL{Text: []string{"ALTER TABLE a ADD x INT", "ALTER TABLE xa ADD x INT"}[rng.IntN(2)], DefaultSchema: "s"}
		}
		for i := range rng.IntN(12) {
			whole.Rows = append(whole.Rows, change.Row{Table: tables[rng.IntN(len(tables))], Op: change.Op(rng.IntN(3)), Position: int64(i)})
		}
		want = append(want, unfold(place, &whole)...)
		skip := 0
		want = slices.DeleteFunc(want, func(f fed) bool {
			var op, table string
			var n int
			if _, err := fmt.Sscanf(f.what, "%s %s %d", &op, &table, &n); err == nil && (table[2] == 'x' || table == "s.b" && op == "delete") {
				skip++
				return true
			}
			return f.what == "ALTER TABLE xa ADD x INT"
		})
		for i := range want {
			var op string
			var n int
			if _, err := fmt.Sscanf(want[i].what, "%s s.c %d", &op, &n); err == nil {
				want[i].what = fmt.Sprintf("%s z.c %d", op, n)
			}
		}
		left += int64(skip)
		rest := whole
		for {
			part := rest
			n := rng.IntN(len(rest.Rows) + 1)
			part.Rows = slices.Clone(rest.Rows[:n])
			rest.Rows = rest.Rows[n:]
			part.Continued = len(rest.Rows) > 0 || rng.IntN(3) == 0
			err := r.Feed(t.Context(), place, &part, "held", func(_ context.Context, first change.Place, p *change.Transaction, held string) error {
				if p.Continues != open {
					t.Errorf("a part with Continues=%t, %d rows", p.Continues, len(p.Rows))
				}
				if open = p.Continued; open == (held != "" && !part.Continued) {
					t.Errorf("the GTID set of the log comes with the last part, and only with it")
				}
				if p.Continued && p.DDL == nil && len(p.Rows) == 0 {
					t.Error("an empty part")
				}
				got = append(got, unfold(first, p)...)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			place.Index += int32(n)
			if part.DDL != nil {
				place.Index++
			}
			if !part.Continued {
				break
			}
			rest.DDL, rest.Continues = nil, true
		}
		if !slices.Equal(got, want) {
			t.Fatalf("transaction %d:\n got %v\nwant %v", k, got, want)
		}
	}
	if rows, _ := r.Counts(); rows != left {
		t.Errorf("%d rows left out, counted %d", left, rows)
	}
}

// TestRefusedRows: nothing of a part is handed on when one of its rows is refused.
func TestRefusedRows(t *testing.T) {
	r := NewRouter(rules(t, Config{Routes: []string{"a.* -> b.*"}}))
	rows := []change.Row{{Table: &schema.Table{Name: name("a.t")}}, {Table: &schema.Table{Name: name("b.t")}}}
	err := r.Feed(t.Context(), change.Place{}, &change.Transaction{GTID: mysqlID, Rows: rows}, "", func(context.Context, change.Place, *change.Transaction, string) error {
		t.Error("fed")
		return nil
	})
	var refused *Refusal
	if !errors.As(err, &refused) || refused.Code != CodeTaken || refused.Remedy == "" {
		t.Errorf("%v", err)
	}
}
