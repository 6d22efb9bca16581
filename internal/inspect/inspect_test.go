package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/schema"
)

const uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562"

func gtidOf(n int) string { return fmt.Sprintf("%s:%d", uuid, n) }

var (
	first = &schema.Table{Name: schema.Name{Schema: "shop", Table: "orders"},
		Columns:    []schema.Column{{Name: "id", Type: schema.Int}, {Name: "name", Type: schema.VarChar, Length: 80, Charset: "utf8mb4", Collation: "utf8mb4_bin", Nullable: true}},
		PrimaryKey: []schema.KeyPart{{Column: 0}}}
	second = &schema.Table{Name: schema.Name{Schema: "shop", Table: "odd/name"},
		Columns: []schema.Column{{Name: "b", Type: schema.VarBinary, Length: 9}}}
)

// startNode runs a node of its own for the test.
func startNode(t *testing.T) log.Log {
	t.Helper()
	n, err := node.New(node.Config{Name: "n", Dir: t.TempDir(), FileBytes: 4 << 20, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1) // owner: the goroutine below; never closed
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n.Log()
}

type filler struct {
	t    *testing.T
	w    log.Writer
	last log.Offset
}

func (f *filler) add(topic log.Topic, ends bool, payload []byte) log.Offset {
	f.t.Helper()
	o, err := f.w.Append(f.t.Context(), log.Draft{Topic: topic, EndsTransaction: ends, Payload: payload})
	if err != nil {
		f.t.Fatal(err)
	}
	f.last = o
	return o
}

func (f *filler) version(tab *schema.Table, id string) {
	f.t.Helper()
	v, err := schema.NewTableVersion(tab, id)
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := v.Encode()
	if err != nil {
		f.t.Fatal(err)
	}
	f.add(log.TopicSchema, true, b)
}

func (f *filler) batch(set string, ts ...change.Transaction) log.Offset {
	f.t.Helper()
	b, err := change.AppendBatch(nil, &change.Batch{GTIDSet: set, Source: change.Source{Flavor: "mysql", File: "binlog.000001"}, Transactions: ts})
	if err != nil {
		f.t.Fatal(err)
	}
	return f.add(log.TopicData, !ts[len(ts)-1].Continued, b)
}

func (f *filler) wait() {
	f.t.Helper()
	if _, err := f.w.Wait(f.t.Context(), f.last); err != nil {
		f.t.Fatal(err)
	}
}

func tx(n int) change.Transaction {
	return change.Transaction{GTID: gtidOf(n), CommitTime: time.UnixMicro(int64(n) * 1e6).UTC(), ServerID: 1, Rows: []change.Row{
		{Table: first, Op: change.Insert, After: []change.Value{change.IntegerOf(int64(n)), change.TextOf(fmt.Appendf(nil, "name %d", n%7))}},
		{Table: second, Op: change.Delete, Position: 1, Before: []change.Value{change.BytesOf([]byte{byte(n), 0})}},
	}}
}

func collect(t *testing.T, l log.Log, q Query) []*Record {
	t.Helper()
	if q.Stream == "" {
		q.Stream = "s"
	}
	if q.Topic == 0 {
		q.Topic = log.TopicData
	}
	var out []*Record
	if err := Read(t.Context(), l, q, func(r *Record) error { out = append(out, r); return nil }); err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	return out
}

func TestReadChooses(t *testing.T) {
	l := startNode(t)
	w, err := l.OpenWriter(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	f := &filler{t: t, w: w}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 7))
	set := gtid.New(gtid.MySQL)
	f.version(first, gtidOf(1))
	f.version(second, gtidOf(1))
	const n = 400
	at := map[int]log.Offset{}
	for i := 1; i <= n; {
		var ts []change.Transaction
		for range 1 + r.IntN(3) {
			if i > n {
				break
			}
			ts = append(ts, tx(i))
			if err := set.Add(gtidOf(i)); err != nil {
				t.Fatal(err)
			}
			i++
		}
		text := ""
		if len(at) == 0 || r.IntN(10) == 0 {
			text = set.String()
		}
		o := f.batch(text, ts...)
		for k := range ts {
			at[i-len(ts)+k] = o
		}
	}
	f.wait()
	all := collect(t, l, Query{From: -1, To: -1})
	if len(all) != 2*n {
		t.Fatalf("seed %d: %d records", seed, len(all))
	}
	for _, i := range []int{1, 2, n / 2, n - 1, n} {
		got := collect(t, l, Query{From: -1, To: -1, GTID: gtidOf(i)})
		if len(got) != 2 || got[0].GTID != gtidOf(i) || got[0].Offset != at[i] {
			t.Errorf("seed %d: transaction %d: %+v", seed, i, got)
		}
	}
	for range 20 {
		i := 1 + r.IntN(n)
		if got := collect(t, l, Query{From: -1, To: -1, GTID: strings.ToUpper(gtidOf(i))}); len(got) != 2 {
			t.Errorf("seed %d: transaction %d: %+v", seed, i, got)
		}
	}
	if got := collect(t, l, Query{From: -1, To: -1, GTID: gtidOf(n + 1)}); len(got) != 0 {
		t.Errorf("a transaction that is not there: %+v", got)
	}
	for name, c := range map[string]struct {
		q    Query
		want int
	}{
		"table":         {Query{From: -1, To: -1, Table: "shop.orders"}, n},
		"pattern":       {Query{From: -1, To: -1, Table: "shop.*"}, 2 * n},
		"odd name":      {Query{From: -1, To: -1, Table: "shop.odd/name"}, n},
		"no such table": {Query{From: -1, To: -1, Table: "shop.other"}, 0},
		"key":           {Query{From: -1, To: -1, Key: map[string]string{"id": "17"}}, 1},
		"bytes key":     {Query{From: -1, To: -1, Key: map[string]string{"b": "0x1100"}}, 2}, // 17 and 273
		"two keys":      {Query{From: -1, To: -1, Key: map[string]string{"id": "17", "name": "name 3"}}, 1},
		"wrong key":     {Query{From: -1, To: -1, Key: map[string]string{"id": "17", "name": "x"}}, 0},
		"limit":         {Query{From: -1, To: -1, Limit: 5}, 5},
		"commit time":   {Query{From: -1, To: -1, Since: time.UnixMicro(100e6), Until: time.UnixMicro(200e6)}, 200},
		"offsets":       {Query{From: at[50], To: at[50]}, 2 * count(at, at[50])},
		"last":          {Query{From: -1, To: -1, Last: 1}, 2 * count(at, at[n])},
		"beyond":        {Query{From: at[n] + 1, To: -1}, 0},
		"entries":       {Query{From: 0, To: 1, Entries: true}, 0},
		"schema":        {Query{From: -1, To: -1, Topic: log.TopicSchema}, 2},
		"exceptions":    {Query{From: -1, To: -1, Topic: log.TopicExceptions}, 0},
	} {
		if got := collect(t, l, c.q); len(got) != c.want {
			t.Errorf("seed %d: %s: %d records, expected %d", seed, name, len(got), c.want)
		}
	}
	heads := collect(t, l, Query{From: -1, To: -1, Entries: true})
	transactions := 0
	for _, h := range heads {
		transactions += h.Entry.Transactions
	}
	if transactions != n || heads[0].Entry.File != "binlog.000001" {
		t.Errorf("seed %d: %d transactions in heads", seed, transactions)
	}
	if held, err := Held(t.Context(), l, "s"); err != nil || held != set.String() {
		t.Errorf("seed %d: the log holds %s, %v; it should be %s", seed, held, err, set)
	}
	vs, err := Versions(t.Context(), l, "s")
	if err != nil || len(vs) != 2 || vs[0].Table != "shop.orders" || vs[1].Offset != 1 {
		t.Errorf("%+v %v", vs, err)
	}
	if _, err := Versions(t.Context(), l, "other"); !errors.Is(err, log.ErrNoStream) {
		t.Error(err)
	}
}

func count(at map[int]log.Offset, o log.Offset) int {
	n := 0
	for _, v := range at {
		if v == o {
			n++
		}
	}
	return n
}

// Parts of a transaction are shown as they come; one that never ended is called so.
func TestUnfinishedTransaction(t *testing.T) {
	l := startNode(t)
	w, err := l.OpenWriter(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	f := &filler{t: t, w: w}
	f.version(first, "")
	f.version(second, "")
	part := tx(1)
	part.Continued = true
	f.batch("", part)
	f.wait()
	if got := collect(t, l, Query{From: -1, To: -1}); len(got) != 0 {
		t.Errorf("an open transaction is shown: %+v", got)
	}
	f.batch("", tx(1))
	statement := tx(2)
	statement.Rows, statement.DDL = nil, &change.DDL{Text: "ALTER TABLE orders …", DefaultSchema: "shop", Class: "alter_table", Tables: []schema.Name{first.Name}}
	f.batch("", statement)
	f.wait()
	var ops []string
	for _, r := range collect(t, l, Query{From: -1, To: -1}) {
		ops = append(ops, r.Op)
	}
	if want := []string{"insert", "delete", "abandoned", "insert", "delete", "ddl"}; !slices.Equal(ops, want) {
		t.Errorf("%v", ops)
	}
	if got := collect(t, l, Query{From: -1, To: -1, Table: "shop.orders"}); len(got) != 3 || got[2].DDL == nil {
		t.Errorf("%+v", got)
	}
}

func TestFollow(t *testing.T) {
	l := startNode(t)
	w, err := l.OpenWriter(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	f := &filler{t: t, w: w}
	f.version(first, "")
	f.version(second, "")
	f.batch("", tx(1))
	f.wait()
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan *Record) // owner: the reader below; unbuffered; never closed
	done := make(chan error, 1)
	go func() {
		done <- Read(ctx, l, Query{Stream: "s", Topic: log.TopicData, From: -1, To: -1, Follow: true, Table: "shop.orders"},
			func(r *Record) error { got <- r; return nil })
	}()
	if r := <-got; r.GTID != gtidOf(1) {
		t.Error(r.GTID)
	}
	f.batch("", tx(2))
	if r := <-got; r.GTID != gtidOf(2) {
		t.Error(r.GTID)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestImagesAsJSON(t *testing.T) {
	tab := &schema.Table{Name: schema.Name{Schema: "a", Table: "b"}}
	var values []change.Value
	for name, v := range map[string]change.Value{
		"null": {}, "int": change.IntegerOf(-9007199254740993), "single": change.SingleOf(0.1), "real": change.RealOf(1e300),
		"text": change.TextOf([]byte(`a"<b>` + "\u2028")), "bytes": change.BytesOf([]byte{0, 255}), "ordinal": change.OrdinalOf(0),
		"document": change.DocumentOf([]byte(`{"k": [1.50, "x"]}`), nil), "cut": change.DocumentOf([]byte(`{"k`), nil),
	} {
		tab.Columns = append(tab.Columns, schema.Column{Name: name})
		values = append(values, v)
	}
	b, err := json.Marshal(&Image{tab, values})
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	for name, want := range map[string]string{
		"null": "null", "int": "-9007199254740993", "single": "0.1", "real": "1e+300", "bytes": `{"base64":"AP8="}`,
		"ordinal": "0", "document": `{"k":[1.50,"x"]}`, "cut": `{"base64":"eyJr"}`,
	} {
		if string(m[name]) != want {
			t.Errorf("%s: %s, expected %s", name, m[name], want)
		}
	}
	var text string
	if err := json.Unmarshal(m["text"], &text); err != nil || text != `a"<b>`+"\u2028" {
		t.Errorf("%q %v", text, err)
	}
}
