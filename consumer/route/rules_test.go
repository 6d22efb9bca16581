package route

import (
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/schema"
)

func name(s string) schema.Name {
	a, b, _ := strings.Cut(s, ".")
	return schema.Name{Schema: a, Table: b}
}

func rules(t testing.TB, c Config) *Rules {
	t.Helper()
	r, problems := New(c)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return r
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, yes, no string
	}{
		{"shop.*", "shop.orders shop.x", "shopping.orders sho.p"},
		{"*.tmp_*", "a.tmp_ b.tmp_x", "a.tmp b.xtmp_"},
		{"s?op.o*s", "shop.orders stop.os", "sop.orders shop.order"},
		{"*.*", "a.b", ""},
		{"a*b*c.t", "abc.t aXbYbc.t", "ab.t acb.t"},
		{"`a.b`.`c*`", "", "a.b axb.c"},
		{"d?.t", "dé.t", "d.t déé.t"},
	} {
		p, err := parsePattern(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		for _, s := range strings.Fields(c.yes) {
			if !p.matches(name(s)) {
				t.Errorf("%s does not match %s", c.pattern, s)
			}
		}
		for _, s := range strings.Fields(c.no) {
			if p.matches(name(s)) {
				t.Errorf("%s matches %s", c.pattern, s)
			}
		}
	}
	p, err := parsePattern("`a.b`.`c*```")
	if err != nil || !p.matches(schema.Name{Schema: "a.b", Table: "c*`"}) || p.matches(schema.Name{Schema: "a.b", Table: "cx`"}) {
		t.Errorf("quoted: %v %+v", err, p)
	}
}

func TestProblems(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Include: []string{"shop"}}, "include[0]: \"shop\": write it as schema.table"},
		{Config{Exclude: []string{"a.b", "`a.b"}}, "exclude[1]: \"`a.b\": a ` does not end"},
		{Config{Routes: []string{"a.* b.*"}}, "write it as schema.table -> schema.table"},
		{Config{Routes: []string{"a.* -> b.t"}}, "a * stands on one side only"},
		{Config{Routes: []string{"a.t -> b.*"}}, "a * stands on one side only"},
		{Config{Routes: []string{"a.x*y* -> b.x*y*"}}, "more than one *"},
		{Config{Routes: []string{"a.? -> b.?"}}, "? has no meaning"},
		{Config{Routes: []string{"a.* -> mysql.*"}}, "belongs to the server"},
		{Config{Routes: []string{"a.* -> twin*.*"}}, "a * stands on one side only"},
		{Config{Routes: []string{"a.* -> b.*", "a.* -> c.*"}}, "routed by routes[0] already"},
	} {
		_, problems := New(c.cfg)
		if len(problems) != 1 || !strings.Contains(problems[0].Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, problems, c.want)
		}
	}
}

func TestTables(t *testing.T) {
	r := rules(t, Config{
		Include:    []string{"shop*.*", "crm.*"},
		Exclude:    []string{"*.tmp_*", "crm.audit"},
		SkipDelete: []string{"crm.log"},
		Routes:     []string{"crm.old -> crm.new", "crm.c_* -> people.*", "shop1.* -> all.*", "shop2.* -> all.*"},
	})
	for _, c := range []struct{ table, want string }{
		{"shop.orders", "shop.orders"},
		{"other.t", "-"},
		{"shop.tmp_1", "-"},
		{"crm.audit", "-"},
		{"crm.log", "crm.log skips delete"},
		{"crm.old", "crm.new"},
		{"crm.new", "crm.new taken by crm.old"},
		{"crm.c_x", "people.x"},
		{"people.x", "-"}, // not included, so nothing collides
		{"shop1.t", "all.t"},
		{"shop2.t", "all.t taken by shop1.t"},
		{"shop2.tmp_t", "-"},
		{"mysql.user", "mysql.user"},
	} {
		w, got := r.Table(name(c.table)), "-"
		if w.Included {
			got = w.Target.String()
			if len(w.Skips) > 0 {
				got += " skips " + strings.Join(w.Skips, ",")
			}
			if w.Taken != (schema.Name{}) {
				got += " taken by " + w.Taken.String()
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.table, got, c.want)
		}
	}
}

// TestOwner: the name on the target leads back to one table, and only to one.
func TestOwner(t *testing.T) {
	parts := []string{"a", "b", "ab", "ba", "c"}
	var names []schema.Name
	for _, s := range parts {
		for _, x := range parts {
			names = append(names, schema.Name{Schema: s, Table: x})
		}
	}
	for _, c := range []Config{
		{},
		{Routes: []string{"a.* -> b.*"}},
		{Routes: []string{"a.a -> b.b", "b.* -> a.*"}},
		{Routes: []string{"*.a -> *.b", "a*.* -> b*.*"}},
		{Exclude: []string{"b.*"}, Routes: []string{"a.* -> b.*"}},
		{Include: []string{"a.*", "b.a"}, Routes: []string{"a.* -> c.a*", "a.b -> c.c"}},
	} {
		r := rules(t, c)
		owners := map[schema.Name]schema.Name{}
		for _, n := range names {
			w := r.Table(n)
			if !w.Included {
				continue
			}
			o, ok := r.Owner(w.Target)
			if !ok {
				t.Errorf("%v: %s goes to %s, which has no owner", c, n, w.Target)
			}
			if (o == n) != (w.Taken == schema.Name{}) {
				t.Errorf("%v: %s: owner %s, taken %s", c, n, o, w.Taken)
			}
			if w.Taken == (schema.Name{}) {
				if other, twice := owners[w.Target]; twice {
					t.Errorf("%v: %s and %s both become %s", c, n, other, w.Target)
				}
				owners[w.Target] = n
			}
		}
	}
}

func TestDigest(t *testing.T) {
	a := Config{Include: []string{"a.*", "b.*"}, Routes: []string{"a.*->x.*", "b.* -> y.*"}, Done: []string{"1-1-1"}}
	b := Config{Include: []string{"b.*", "a.*", "a.*"}, Routes: []string{"a.* -> x.*", "b.*  ->  y.*"}}
	if a.Digest() != b.Digest() || a.Digest() == "" {
		t.Errorf("the same rules: %s, %s", a.Digest(), b.Digest())
	}
	slices.Reverse(b.Routes)
	if a.Digest() == b.Digest() {
		t.Error("the order of routes counts")
	}
	if d := (Config{Done: []string{"1-1-1"}}).Digest(); d != "" {
		t.Errorf("no rules: %s", d)
	}
}
