package causality

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

func text(s string) change.Value { return change.TextOf([]byte(s)) }
func raw(s string) change.Value  { return change.BytesOf([]byte(s)) }

func oneColumn(c schema.Column, prefix int) *target.Table {
	c.Name = "k"
	return &target.Table{
		Table: schema.Table{Name: schema.Name{Schema: "s", Table: "t"}, Columns: []schema.Column{c}},
		Keys:  []target.Key{{Name: "PRIMARY", Primary: true, Parts: []schema.KeyPart{{Prefix: prefix}}}},
	}
}

func footprint(t *testing.T, r *Routing, v change.Value) Footprint {
	t.Helper()
	f, err := r.Footprint(Rows, nil, &change.Row{Op: change.Insert, After: []change.Value{v}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestEquality: values that the target calls equal share lane and key; what it
// tells apart does not, where nothing is gained by being coarse.
func TestEquality(t *testing.T) {
	utf8 := func(typ schema.Type, collation string) schema.Column {
		return schema.Column{Type: typ, Length: 80, Charset: "utf8mb4", Collation: collation}
	}
	enum := schema.Column{Type: schema.Enum, Members: []string{"a", "b"}, Charset: "utf8mb4", Collation: "utf8mb4_general_ci"}
	for _, c := range []struct {
		name   string
		column schema.Column
		prefix int
		a, b   change.Value
		equal  bool
	}{
		{"integers", schema.Column{Type: schema.Int}, 0, change.IntegerOf(7), change.IntegerOf(7), true},
		{"sign", schema.Column{Type: schema.BigInt}, 0, change.IntegerOf(-1), text("18446744073709551615"), false},
		{"digits and number", schema.Column{Type: schema.BigInt, Unsigned: true}, 0, text("5"), change.IntegerOf(5), true},
		{"decimal zeros", schema.Column{Type: schema.Decimal, Scale: 2}, 0, text("007.50"), text("7.50"), true},
		{"decimal zero's sign", schema.Column{Type: schema.Decimal, Scale: 2}, 0, text("-0.00"), text("0.00"), true},
		{"decimal sign", schema.Column{Type: schema.Decimal, Scale: 2}, 0, text("-1.00"), text("1.00"), false},
		{"case", utf8(schema.VarChar, "utf8mb4_general_ci"), 0, text("a"), text("A"), true},
		{"case counts", utf8(schema.VarChar, "utf8mb4_bin"), 0, text("a"), text("A"), false},
		{"padding", utf8(schema.VarChar, "utf8mb4_bin"), 0, text("a"), text("a  "), true},
		{"sharp s", utf8(schema.VarChar, "utf8mb4_0900_ai_ci"), 0, text("ß"), text("SS"), true},
		{"prefix in characters", utf8(schema.VarChar, "utf8mb4_bin"), 3, text("äöüx"), text("äöüy"), true},
		{"prefix ends before", utf8(schema.VarChar, "utf8mb4_bin"), 3, text("äöx"), text("äöy"), false},
		{"prefix in bytes", schema.Column{Type: schema.VarBinary}, 2, raw("abc"), raw("abd"), true},
		{"binary spaces", schema.Column{Type: schema.VarBinary}, 0, raw("a"), raw("a "), false},
		{"binary zeros count", schema.Column{Type: schema.VarBinary}, 0, raw("a"), raw("a\x00"), false},
		{"fixed binary padding", schema.Column{Type: schema.Binary}, 0, raw("a"), raw("a\x00\x00"), true},
		{"bit", schema.Column{Type: schema.Bit}, 0, raw("\x00\x05"), raw("\x05"), true},
		{"time zero's sign", schema.Column{Type: schema.Time}, 0, text("-00:00:00"), text("00:00:00"), true},
		{"time sign", schema.Column{Type: schema.Time}, 0, text("-00:00:01"), text("00:00:01"), false},
		{"enum", enum, 0, text("a"), text("b"), false},
		{"enum's error value", enum, 0, text(""), change.OrdinalOf(0), false},
		{"latin1", schema.Column{Type: schema.VarChar, Charset: "latin1", Collation: "latin1_swedish_ci"}, 0, raw("\xe9"), raw("E"), true},
		{"year", schema.Column{Type: schema.Year}, 0, change.IntegerOf(1999), change.IntegerOf(1999), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			tab := oneColumn(c.column, c.prefix)
			r := NewRouting(server.MySQL, &tab.Table, tab, schema.Name{}, false)
			if r.Serial() != "" {
				t.Fatalf("serial: %s", r.Serial())
			}
			a, b := footprint(t, r, c.a), footprint(t, r, c.b)
			if (a.Home == b.Home) != c.equal || (a.Touches[0] == b.Touches[0]) != c.equal {
				t.Errorf("%v and %v: want equal %v", a, b, c.equal)
			}
		})
	}
}

// TestSerial: wherever the target's equality can't be told, one lane has the
// whole table.
func TestSerial(t *testing.T) {
	vc := schema.Column{Type: schema.VarChar, Charset: "utf8mb4", Collation: "utf8mb4_general_ci"}
	change1 := func(c schema.Column, f func(*schema.Column)) schema.Column { f(&c); return c }
	for _, c := range []struct {
		name           string
		flavor         server.Flavor
		source, target schema.Column
	}{
		{"float", server.MySQL, schema.Column{Type: schema.Float}, schema.Column{Type: schema.Float}},
		{"double", server.MySQL, schema.Column{Type: schema.Double}, schema.Column{Type: schema.Double}},
		{"json", server.MySQL, schema.Column{Type: schema.JSON}, schema.Column{Type: schema.JSON}},
		{"unknown collation", server.MariaDB, vc, change1(vc, func(c *schema.Column) { c.Collation = "utf8mb4_uca1400_ai_ci" })},
		{"0900 on MariaDB", server.MariaDB, vc, change1(vc, func(c *schema.Column) { c.Collation = "utf8mb4_0900_ai_ci" })},
		{"char and varchar", server.MySQL, vc, change1(vc, func(c *schema.Column) { c.Type = schema.Char })},
		{"charsets", server.MySQL, vc, change1(vc, func(c *schema.Column) { c.Charset, c.Collation = "latin1", "latin1_swedish_ci" })},
		{"number and text", server.MySQL, schema.Column{Type: schema.Int}, vc},
		{"rounding", server.MySQL, schema.Column{Type: schema.Decimal, Scale: 4}, schema.Column{Type: schema.Decimal, Scale: 2}},
		{"fractions of time", server.MySQL, schema.Column{Type: schema.DateTime, Scale: 6}, schema.Column{Type: schema.DateTime}},
		{"time zones", server.MySQL, schema.Column{Type: schema.DateTime}, schema.Column{Type: schema.Timestamp}},
		{"members", server.MySQL, schema.Column{Type: schema.Enum, Members: []string{"a"}}, schema.Column{Type: schema.Enum, Members: []string{"A"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, tab := oneColumn(c.source, 0), oneColumn(c.target, 0)
			if r := NewRouting(c.flavor, &s.Table, tab, schema.Name{}, false); r.Serial() == "" {
				t.Error("not serial")
			}
		})
	}
	t.Run("structure", func(t *testing.T) {
		tab := oneColumn(schema.Column{Type: schema.Int}, 0)
		bare := *tab
		bare.Identity = -1
		other := tab.Table
		other.Columns = []schema.Column{{Name: "x", Type: schema.Int}}
		functional := *tab
		functional.Keys = append(functional.Keys[:1:1], target.Key{Name: "f", Functional: true})
		rep := schema.Name{Schema: "s", Table: "parent"}
		for name, r := range map[string]*Routing{
			"no key":      NewRouting(server.MySQL, &tab.Table, &bare, schema.Name{}, false),
			"no column":   NewRouting(server.MySQL, &other, tab, schema.Name{}, false),
			"functional":  NewRouting(server.MySQL, &tab.Table, &functional, schema.Name{}, false),
			"foreign key": NewRouting(server.MySQL, &tab.Table, tab, rep, true),
		} {
			if r.Serial() == "" {
				t.Errorf("%s: not serial", name)
			}
		}
		parent := *tab
		parent.Name = rep
		a := NewRouting(server.MySQL, &tab.Table, tab, rep, true)
		b := NewRouting(server.MySQL, &parent.Table, &parent, rep, true)
		if footprint(t, a, change.IntegerOf(1)).Home != footprint(t, b, change.IntegerOf(2)).Home {
			t.Error("tables of one component have different lanes")
		}
	})
}

// TestAcrossFlavors: flavours may differ, the target's equality counts.
func TestAcrossFlavors(t *testing.T) {
	s := oneColumn(schema.Column{Type: schema.VarChar, Charset: "utf8mb4", Collation: "utf8mb4_0900_ai_ci"}, 0)
	tab := oneColumn(schema.Column{Type: schema.VarChar, Charset: "utf8mb3", Collation: "utf8mb3_general_ci"}, 0)
	r := NewRouting(server.MariaDB, &s.Table, tab, schema.Name{}, false)
	if r.Serial() != "" {
		t.Fatalf("serial: %s", r.Serial())
	}
	if footprint(t, r, text("a")).Home != footprint(t, r, text("A ")).Home {
		t.Error("the target's collation was not asked")
	}
}

func TestFootprintOfUpdate(t *testing.T) {
	tab := &target.Table{
		Table: schema.Table{Name: schema.Name{Schema: "s", Table: "t"}, Columns: []schema.Column{
			{Name: "id", Type: schema.Int}, {Name: "u", Type: schema.Int, Nullable: true}, {Name: "v", Type: schema.Int}}},
		Keys: []target.Key{{Name: "PRIMARY", Parts: []schema.KeyPart{{Column: 0}}}, {Name: "u", Parts: []schema.KeyPart{{Column: 1}}}},
	}
	r := NewRouting(server.MySQL, &tab.Table, tab, schema.Name{}, false)
	row := func(vs ...int64) []change.Value {
		var out []change.Value
		for _, v := range vs {
			if v < 0 {
				out = append(out, change.Value{})
			} else {
				out = append(out, change.IntegerOf(v))
			}
		}
		return out
	}
	for _, c := range []struct {
		name          string
		before, after []change.Value
		touches       int
	}{
		{"other column", row(1, 1, 1), row(1, 1, 2), 2},
		{"unique key", row(1, 1, 1), row(1, 2, 1), 3},
		{"both", row(1, 1, 1), row(2, 2, 1), 4},
		{"null has no key", row(1, -1, 1), row(1, -1, 2), 1},
		{"from null", row(1, -1, 1), row(1, 3, 1), 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := r.Footprint(Rows, []uint64{99}, &change.Row{Op: change.Update, Before: c.before, After: c.after})
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Touches)-1 != c.touches || f.Touches[0] != 99 {
				t.Errorf("%d touches, want %d", len(f.Touches)-1, c.touches)
			}
			if before, _ := r.Footprint(Rows, nil, &change.Row{Op: change.Delete, Before: c.before}); before.Home != f.Home {
				t.Error("the before image does not choose the lane")
			}
		})
	}
	for name, bad := range map[string]*change.Row{
		"kind":     {Op: change.Insert, After: []change.Value{text("x"), {}, {}}},
		"no image": {Op: change.Insert},
		"short":    {Op: change.Insert, After: row(1)},
		"null id":  {Op: change.Insert, After: row(-1, 1, 1)},
	} {
		if _, err := r.Footprint(Rows, nil, bad); !errors.Is(err, ErrValue) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNumberKey: the short way to the hash of a key of one number is the way of all
// keys, whose lanes are stored.
func TestNumberKey(t *testing.T) {
	tab := oneColumn(schema.Column{Type: schema.BigInt, Unsigned: true}, 0)
	r := NewRouting(server.MySQL, &tab.Table, tab, schema.Name{}, false)
	k := r.keys[0]
	if !k.single {
		t.Fatal("a key of one number is not known as one")
	}
	k.single = false
	for _, v := range []change.Value{
		change.IntegerOf(0), change.IntegerOf(-1), change.IntegerOf(63), change.IntegerOf(64), change.IntegerOf(1 << 40),
		text("18446744073709551615"), text("7"), text("x"), change.RealOf(1), {},
	} {
		h, home, ok, err := r.keys[0].hash(Rows.blockBits(), []change.Value{v})
		h2, home2, ok2, err2 := k.hash(Rows.blockBits(), []change.Value{v})
		if h != h2 || home != home2 || ok != ok2 || (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
			t.Errorf("%v: %x %x %v %v, and as any key %x %x %v %v", v, h, home, ok, err, h2, home2, ok2, err2)
		}
	}
	// As the versions have it since they exist.
	for m, home := range map[Mode]uint64{rows2: 0x20a85afc9c8e50b6, transactions2: 0x20a85afc9c8e50b6, Rows: 0xba9c05e00fdaeb7c, Transactions: 0xba9c05e00fdaeb7c} {
		if h, got, _, _ := r.keys[0].hash(m.blockBits(), []change.Value{change.IntegerOf(12345)}); h != 0x139e9fa906492cc5 || got != home {
			t.Errorf("%s, version %d: %#x, %#x", m, m.Version(), h, got)
		}
		if known, ok := ModeOf(m.Version()); !ok || known != m || m.ByRow() != (m == Rows || m == rows2) {
			t.Errorf("version %d: %v, %v", m.Version(), known, ok)
		}
	}
}

// TestLatest: it holds what a map holds, as long as that matters to anyone.
func TestLatest(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var l latest
	want, done := map[uint64]uint64{}, uint64(0)
	pending := func(v uint64) bool { return v > done }
	most := 0
	for n := uint64(1); n < 300_000; n++ {
		key := rng.Uint64N(60_000) << rng.IntN(40) // neighbours, and what has its low bits empty
		if old := l.swap(key, n, pending); old != want[key] && (pending(want[key]) || old != 0) {
			t.Fatalf("%d: %d, not %d", key, old, want[key])
		}
		want[key] = n
		if rng.IntN(5000) == 0 {
			done += rng.Uint64N(n - done)
		}
		if rng.IntN(100_000) == 0 {
			done = n
		}
		most = max(most, len(l.slots))
	}
	if most <= minSlots || most > 1<<20 {
		t.Errorf("%d slots", most)
	}
}

// TestDigest: it changes with what decides the lane, and only with that.
func TestDigest(t *testing.T) {
	base := func() *target.Table {
		tab := oneColumn(schema.Column{Type: schema.VarChar, Charset: "utf8mb4", Collation: "utf8mb4_general_ci"}, 0)
		tab.Columns = append(tab.Columns, schema.Column{Name: "u", Type: schema.Int})
		return tab
	}
	digest := func(f func(*target.Table)) uint64 {
		tab := base()
		f(tab)
		return NewRouting(server.MySQL, &tab.Table, tab, schema.Name{}, false).Digest()
	}
	same := digest(func(*target.Table) {})
	for name, c := range map[string]struct {
		f       func(*target.Table)
		changes bool
	}{
		"nothing":      {func(*target.Table) {}, false},
		"another key":  {func(t *target.Table) { t.Keys = append(t.Keys, target.Key{Parts: []schema.KeyPart{{Column: 1}}}) }, false},
		"more columns": {func(t *target.Table) { t.Columns = append(t.Columns, schema.Column{Name: "z"}) }, false},
		"collation":    {func(t *target.Table) { t.Columns[0].Collation = "utf8mb4_bin" }, true},
		"prefix":       {func(t *target.Table) { t.Keys[0].Parts[0].Prefix = 3 }, true},
		"column":       {func(t *target.Table) { t.Keys[0].Parts[0].Column = 1 }, true},
		"becomes serial": {func(t *target.Table) {
			t.Keys = append(t.Keys, target.Key{Functional: true})
		}, true},
	} {
		if got := digest(c.f); (got != same) != c.changes {
			t.Errorf("%s: digest changes: %v, want %v", name, got != same, c.changes)
		}
	}
}

func BenchmarkFootprint(b *testing.B) {
	tab := oneColumn(schema.Column{Type: schema.VarChar, Charset: "utf8mb4", Collation: "utf8mb4_0900_ai_ci"}, 0)
	tab.Columns = append(tab.Columns, schema.Column{Name: "id", Type: schema.BigInt})
	tab.Keys = append(tab.Keys, target.Key{Name: "id", Parts: []schema.KeyPart{{Column: 1}}})
	r := NewRouting(server.MySQL, &tab.Table, tab, schema.Name{}, false)
	row := &change.Row{Op: change.Update, Before: []change.Value{text("customer-0001234"), change.IntegerOf(1234)},
		After: []change.Value{text("customer-0001234"), change.IntegerOf(1234)}}
	var scratch []uint64
	b.ReportAllocs()
	for b.Loop() {
		f, err := r.Footprint(Rows, scratch[:0], row)
		if err != nil {
			b.Fatal(err)
		}
		scratch = f.Touches
	}
}
