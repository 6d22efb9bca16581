package schema_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/linkedin/goavro/v2"
	"pgregory.net/rapid"

	"github.com/twinspan/twinspan/schema"
)

func orders() *schema.Table {
	return &schema.Table{
		Name: schema.Name{Schema: "shop", Table: "订单-1"},
		Columns: []schema.Column{
			{Name: "id", Type: schema.BigInt, Unsigned: true},
			{Name: "name", Type: schema.VarChar, Length: 80, Charset: "utf8mb4", Collation: "utf8mb4_0900_ai_ci", Nullable: true},
			{Name: "state", Type: schema.Enum, Members: []string{"new", "it's"}, Charset: "utf8mb4", Collation: "utf8mb4_bin"},
			{Name: "amount", Type: schema.Decimal, Precision: 12, Scale: 2, Unsigned: true},
			{Name: "at", Type: schema.DateTime, Scale: 6},
			{Name: "where", Type: schema.Geometry, Geometry: "point", Nullable: true},
			{Name: "doc", Type: schema.JSON, Nullable: true, Invisible: true},
			{Name: "vec", Type: schema.Vector, Length: 3},
		},
		PrimaryKey: []schema.KeyPart{{Column: 0}, {Column: 1, Prefix: 3}},
	}
}

// The fingerprint and the JSON are stored formats: a change here breaks logs that
// exist.
func TestStoredFormats(t *testing.T) {
	tab := orders()
	const want = "63ea11680ddc340febd5eab2af1e9ca1da5c0a6415dd471a7748589e8aa3a7d3"
	if got := schema.FingerprintOf(tab).String(); got != want {
		t.Errorf("fingerprint %s, want %s", got, want)
	}
	b, err := json.Marshal(tab)
	if err != nil {
		t.Fatal(err)
	}
	const text = `{"name":{"schema":"shop","table":"订单-1"},"columns":[{"name":"id","type":"bigint","unsigned":true},{"name":"name","type":"varchar","nullable":true,"length":80,"charset":"utf8mb4","collation":"utf8mb4_0900_ai_ci"},{"name":"state","type":"enum","charset":"utf8mb4","collation":"utf8mb4_bin","members":["new","it's"]},{"name":"amount","type":"decimal","unsigned":true,"precision":12,"scale":2},{"name":"at","type":"datetime","scale":6},{"name":"where","type":"geometry","nullable":true,"geometry":"point"},{"name":"doc","type":"json","nullable":true,"invisible":true},{"name":"vec","type":"vector","length":3}],"primary_key":[{"column":0},{"column":1,"prefix":3}]}`
	if string(b) != text {
		t.Errorf("descriptor %s\nwant       %s", b, text)
	}
	f, err := schema.ParseFingerprint(want)
	if err != nil || f != schema.FingerprintOf(tab) {
		t.Errorf("parsed %s, %v", f, err)
	}
	for _, bad := range []string{"", want[1:], want + "0", strings.Repeat("g", 64)} {
		if _, err := schema.ParseFingerprint(bad); err == nil {
			t.Errorf("fingerprint %q was taken", bad)
		}
	}
}

// Each attribute of a table is in its fingerprint, and in the diff.
func TestEveryAttributeCounts(t *testing.T) {
	for name, change := range map[string]func(*schema.Table){
		"schema":       func(t *schema.Table) { t.Name.Schema = "s" },
		"table":        func(t *schema.Table) { t.Name.Table = "s" },
		"dot moves":    func(t *schema.Table) { t.Name = schema.Name{Schema: "shop.订单-1", Table: "x"} },
		"column name":  func(t *schema.Table) { t.Columns[1].Name = "Name" },
		"type":         func(t *schema.Table) { t.Columns[0].Type = schema.Int },
		"nullable":     func(t *schema.Table) { t.Columns[0].Nullable = true },
		"unsigned":     func(t *schema.Table) { t.Columns[0].Unsigned = false },
		"length":       func(t *schema.Table) { t.Columns[1].Length++ }, // not a character more
		"vector":       func(t *schema.Table) { t.Columns[7].Length++ },
		"precision":    func(t *schema.Table) { t.Columns[3].Precision++ },
		"scale":        func(t *schema.Table) { t.Columns[3].Scale++ },
		"fraction":     func(t *schema.Table) { t.Columns[4].Scale = 0 },
		"charset":      func(t *schema.Table) { t.Columns[1].Charset = "utf8mb3" },
		"collation":    func(t *schema.Table) { t.Columns[1].Collation = "utf8mb4_bin" },
		"member":       func(t *schema.Table) { t.Columns[2].Members[1] = "its" },
		"member added": func(t *schema.Table) { t.Columns[2].Members = append(t.Columns[2].Members, "x") },
		"geometry":     func(t *schema.Table) { t.Columns[5].Geometry = "polygon" },
		"invisible":    func(t *schema.Table) { t.Columns[6].Invisible = false },
		"column gone":  func(t *schema.Table) { t.Columns = t.Columns[:7] },
		"column more":  func(t *schema.Table) { t.Columns = append(t.Columns, schema.Column{Name: "z", Type: schema.Date}) },
		"order":        func(t *schema.Table) { t.Columns[4], t.Columns[5] = t.Columns[5], t.Columns[4] },
		"no key":       func(t *schema.Table) { t.PrimaryKey = nil },
		"key prefix":   func(t *schema.Table) { t.PrimaryKey[1].Prefix = 4 },
		"key order":    func(t *schema.Table) { p := t.PrimaryKey; p[0], p[1] = p[1], p[0] },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := orders(), orders()
			if schema.FingerprintOf(a) != schema.FingerprintOf(b) || len(schema.Diff(a, b)) > 0 {
				t.Fatal("equal tables differ")
			}
			change(b)
			if err := b.Validate(); err != nil {
				t.Fatal(err)
			}
			if schema.FingerprintOf(a) == schema.FingerprintOf(b) {
				t.Error("the fingerprint is the same")
			}
			if len(schema.Diff(a, b)) == 0 || len(schema.Diff(b, a)) == 0 {
				t.Error("the diff is empty")
			}
		})
	}
}

func TestDiffSaysWhat(t *testing.T) {
	a, b := orders(), orders()
	b.Columns[1].Length = 120
	b.Columns = append(append([]schema.Column{}, b.Columns[:5]...), b.Columns[6:]...)
	b.Columns = append(b.Columns, schema.Column{Name: "z", Type: schema.Date})
	b.Columns[5], b.Columns[6] = b.Columns[6], b.Columns[5]
	b.PrimaryKey = b.PrimaryKey[:1]
	var got []string
	for _, c := range schema.Diff(a, b) {
		got = append(got, c.String())
	}
	want := []string{
		"column changed name: varchar(20) character set utf8mb4 collate utf8mb4_0900_ai_ci -> varchar(30) character set utf8mb4 collate utf8mb4_0900_ai_ci",
		"column dropped where: point",
		"column moved vec: position 8 -> position 6",
		"column added z: date not null",
		"primary key changed: (id, name(3)) -> (id)",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestValidateRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*schema.Table){
		"no schema":             func(t *schema.Table) { t.Name.Schema = "" },
		"name is not UTF-8":     func(t *schema.Table) { t.Name.Table = "\xff" },
		"no columns":            func(t *schema.Table) { t.Columns, t.PrimaryKey = nil, nil },
		"column twice":          func(t *schema.Table) { t.Columns[1].Name = "id" },
		"column without name":   func(t *schema.Table) { t.Columns[1].Name = "" },
		"no type":               func(t *schema.Table) { t.Columns[0].Type = 0 },
		"type of the future":    func(t *schema.Table) { t.Columns[0].Type = 200 },
		"negative length":       func(t *schema.Table) { t.Columns[1].Length = -1 },
		"length of a number":    func(t *schema.Table) { t.Columns[0].Length = 5 },
		"decimal(0)":            func(t *schema.Table) { t.Columns[3].Precision = 0 },
		"scale over precision":  func(t *schema.Table) { t.Columns[3].Scale = 13 },
		"fraction of 7":         func(t *schema.Table) { t.Columns[4].Scale = 7 },
		"unsigned date":         func(t *schema.Table) { t.Columns[4].Unsigned = true },
		"text without charset":  func(t *schema.Table) { t.Columns[1].Charset = "" },
		"number with collation": func(t *schema.Table) { t.Columns[0].Collation = "x" },
		"enum without members":  func(t *schema.Table) { t.Columns[2].Members = nil },
		"number with members":   func(t *schema.Table) { t.Columns[0].Members = []string{"x"} },
		"member is not UTF-8":   func(t *schema.Table) { t.Columns[2].Members[0] = "\xff" },
		"set of 65":             func(t *schema.Table) { c := &t.Columns[2]; c.Type, c.Members = schema.Set, make([]string, 65) },
		"geometry of no kind":   func(t *schema.Table) { t.Columns[5].Geometry = "" },
		"vector of none":        func(t *schema.Table) { t.Columns[7].Length = 0 },
		"key of no column":      func(t *schema.Table) { t.PrimaryKey[0].Column = 8 },
		"key column -1":         func(t *schema.Table) { t.PrimaryKey[0].Column = -1 },
		"key column twice":      func(t *schema.Table) { t.PrimaryKey[1].Column = 0 },
		"key prefix -1":         func(t *schema.Table) { t.PrimaryKey[1].Prefix = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			tab := orders()
			if err := tab.Validate(); err != nil {
				t.Fatal(err)
			}
			spoil(tab)
			if err := tab.Validate(); !errors.Is(err, schema.ErrInvalidTable) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestEscapeName(t *testing.T) {
	for in, want := range map[string]string{
		"user_id": "user_id", "a-b": "a__2d__b", "订单": "__8ba2____5355__", "1x": "__31__x", "_": "_", "__": "__5f____5f__",
		"a__b": "a__5f____5f__b", "a_-": "a__5f____2d__", "-_": "__2d____5f__", "_x": "_x", "x_": "x_", "😀": "__1f600__", "x1": "x1",
	} {
		if got := schema.EscapeName(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
	for _, bad := range []string{"a__", "a__zz__", "__110000__", "__41__", "1a", "a-b", "____", "__d800__", "__2D__"} {
		if s, err := schema.UnescapeName(bad); err == nil {
			t.Errorf("%q was taken as %q", bad, s)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.StringMatching(`[_a2x\-]{0,8}`)).Draw(t, "name")
		e := schema.EscapeName(s)
		if strings.Trim(e, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || e != "" && e[0] <= '9' {
			t.Fatalf("%q is %q: no Avro name", s, e)
		}
		if back, err := schema.UnescapeName(e); err != nil || back != s {
			t.Fatalf("%q is %q and came back as %q, %v", s, e, back, err)
		}
	})
}

func TestTableVersionsComeBack(t *testing.T) {
	oracle, err := goavro.NewCodec(schema.TableVersionSchema)
	if err != nil {
		t.Fatal(err)
	}
	v, err := schema.NewTableVersion(orders(), "0-1-7")
	if err != nil {
		t.Fatal(err)
	}
	b, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	descriptor, err := json.Marshal(v.Table)
	if err != nil {
		t.Fatal(err)
	}
	native := map[string]any{"table_name": "shop.订单-1", "fingerprint": v.Fingerprint[:], "avro_schema": v.AvroSchema,
		"descriptor": string(descriptor), "gtid": "0-1-7"}
	if theirs, err := oracle.BinaryFromNative(nil, native); err != nil || string(theirs) != string(b) {
		t.Fatalf("goavro's bytes differ: %v", err)
	}
	got, err := schema.DecodeTableVersion(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(v, got); d != "" {
		t.Error(d)
	}
	if _, err := goavro.NewCodec(got.AvroSchema); err != nil {
		t.Error(err)
	}
	for cut := range b {
		if _, err := schema.DecodeTableVersion(b[:cut]); !errors.Is(err, schema.ErrVersion) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	for i := range b {
		x := append([]byte(nil), b...)
		x[i] ^= 4
		if got, err := schema.DecodeTableVersion(x); err == nil && schema.FingerprintOf(got.Table) != v.Fingerprint {
			t.Fatalf("byte %d changed and another table was taken", i)
		}
	}
}

func FuzzDecodeTableVersion(f *testing.F) {
	tab := orders()
	tab.Columns, tab.PrimaryKey = tab.Columns[2:4], tab.PrimaryKey[:1]
	v, err := schema.NewTableVersion(tab, "0-1-7")
	if err != nil {
		f.Fatal(err)
	}
	v.AvroSchema = "{}" // what is longer the fuzzer spends its time on minimising
	b, err := v.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := schema.DecodeTableVersion(b)
		if err != nil {
			if !errors.Is(err, schema.ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		if _, err := v.Encode(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRegistry(t *testing.T) {
	r := schema.NewRegistry(2)
	version := func(change func(*schema.Table)) schema.TableVersion {
		tab := orders()
		change(tab)
		v, err := schema.NewTableVersion(tab, "")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	a := version(func(*schema.Table) {})
	b := version(func(t *schema.Table) { t.Columns = t.Columns[:7] })
	c := version(func(t *schema.Table) { t.Name.Table = "c" })
	for i, want := range []bool{true, false} {
		if isNew, err := r.Add(a); err != nil || isNew != want {
			t.Errorf("add %d: %v, %v", i, isNew, err)
		}
	}
	payload, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.AddEntry(payload); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Add(c); !errors.Is(err, schema.ErrRegistryFull) {
		t.Errorf("a third of two: %v", err)
	}
	if _, err := r.Table(c.Fingerprint); !errors.Is(err, schema.ErrUnknownVersion) || r.Has(c.Fingerprint) {
		t.Errorf("unpublished: %v", err)
	}
	if got, err := r.Table(b.Fingerprint); err != nil || schema.FingerprintOf(got) != b.Fingerprint || !r.Has(b.Fingerprint) {
		t.Errorf("published: %v", err)
	}
	if got, err := r.Find(a.Fingerprint.Short()); err != nil || got != a.Table {
		t.Errorf("by prefix: %v", err)
	}
	if _, err := r.Find(""); !errors.Is(err, schema.ErrUnknownVersion) {
		t.Errorf("by no prefix: %v", err)
	}
	if v := r.Versions(a.Table.Name); len(v) != 2 || v[0].Fingerprint != a.Fingerprint || v[0].AvroSchema != a.AvroSchema {
		t.Errorf("versions: %v", v)
	}
	if d := cmp.Diff([]schema.Name{a.Table.Name}, r.Names()); d != "" || r.Len() != 2 {
		t.Error(d)
	}
}

func TestSQLType(t *testing.T) {
	var got []string
	tab := orders()
	for i := range tab.Columns {
		got = append(got, tab.Columns[i].SQLType())
	}
	want := []string{
		"bigint unsigned not null", "varchar(20) character set utf8mb4 collate utf8mb4_0900_ai_ci",
		"enum('new','it''s') character set utf8mb4 collate utf8mb4_bin not null", "decimal(12,2) unsigned not null",
		"datetime(6) not null", "point", "json invisible", "vector(3) not null",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
