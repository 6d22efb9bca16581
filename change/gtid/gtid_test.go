package gtid

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/mysql"
	"pgregory.net/rapid"
)

const (
	u1 = "aaaaaaaa-0000-0000-0000-000000000001"
	u2 = "0aaaaaaa-0000-0000-0000-000000000001"
)

func parse(t testing.TB, flavor, text string) Set {
	t.Helper()
	s, err := Parse(flavor, text)
	if err != nil {
		t.Fatalf("parse %q: %v", text, err)
	}
	return s
}

// The right column is what MySQL 9.7.4 and MariaDB 10.11 print for the left one.
func TestParseGivesTheServersSpelling(t *testing.T) {
	for _, c := range []struct{ name, flavor, in, want string }{
		{"empty", MySQL, " \n", ""},
		{"order of uuids and tags, case, joined intervals", MySQL,
			strings.ToUpper(u1) + ":B_x:7:1-3:5-6:a:1:_z:4, " + u2 + ":9:1-2",
			u2 + ":1-2:9," + u1 + ":_z:4:a:1:b_x:1-3:5-7"},
		{"the same uuid in several parts", MySQL,
			u1 + ":1," + u1 + ":b:1," + u2 + ":b:3," + u2 + ":3:1",
			u2 + ":1:3:b:3," + u1 + ":1:b:1"},
		{"empty parts and new lines", MySQL, ",," + u1 + ":1,\n" + u1 + ":2,,", u1 + ":1-2"},
		{"spaces", MySQL, u1 + ": 1 - 5 : 7 ", u1 + ":1-5:7"},
		{"the highest number", MySQL, u1 + ":9223372036854775806", u1 + ":9223372036854775806"},
		{"leading zeros", MySQL, u1 + ":00001", u1 + ":1"},
		{"the longest tag", MySQL, u1 + ":abcdefghijklmnopqrstuvwxyz012345:1", u1 + ":abcdefghijklmnopqrstuvwxyz012345:1"},
		{"overlapping intervals", MySQL, u1 + ":5-9:1-6:3", u1 + ":1-9"},
		{"one uuid, bare and tagged", MySQL, u1 + ":tag:1:3," + u1 + ":2", u1 + ":2:tag:1:3"},
		{"MariaDB empty", MariaDB, "", ""},
		{"MariaDB domains in numeric order", MariaDB, "10-1-30,2-4294967295-18446744073709551615, 3-4-5",
			"2-4294967295-18446744073709551615,3-4-5,10-1-30"},
		{"MariaDB leading zeros", MariaDB, "00-01-05", "0-1-5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := parse(t, c.flavor, c.in)
			if s.String() != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
			if again := parse(t, c.flavor, s.String()); !again.Equal(s) {
				t.Errorf("%q parses to %q", s, again)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ flavor, in, says string }{
		{"postgres", "", "use mysql or mariadb"},
		{MySQL, "x", "not a uuid"},
		{MySQL, u1, "no numbers after the uuid"},
		{MySQL, u1 + ":", "a number is missing"},
		{MySQL, u1 + ":0", "start at 1"},
		{MySQL, u1 + ":5-3", "runs backwards"},
		{MySQL, u1 + ":1-", "a number is missing"},
		{MySQL, u1 + ":-1", "where a number or tag should be"},
		{MySQL, u1 + ":1-2-3", "not a number"},
		{MySQL, u1 + ":9223372036854775807", "above 9223372036854775806"},
		{MySQL, u1 + ":99999999999999999999999999", "above"},
		{MySQL, u1 + ":b", "no numbers after tag"},
		{MySQL, u1 + ":b:", "a number is missing"},
		{MySQL, u1 + ":b:c:1", "where a number or tag should be"},
		{MySQL, u1 + ":abcdefghijklmnopqrstuvwxyz0123456:1", "where a number or tag should be"},
		{MySQL, u1 + ":tä:1", "where a number or tag should be"},
		{MySQL, strings.ReplaceAll(u1, "-", "") + ":1", "not a uuid"},
		{MySQL, strings.Replace(u1, "a", "g", 1) + ":1", "not a uuid"},
		{MariaDB, "0-1", "want domain-server-sequence"},
		{MariaDB, "0-1-0", "start at 1"},
		{MariaDB, "0-1-5,", "want domain-server-sequence"},
		{MariaDB, "0-1-5-6", "sequence \"5-6\""},
		{MariaDB, "4294967296-1-1", "domain"},
		{MariaDB, "1-4294967296-1", "server"},
		{MariaDB, "1-1-18446744073709551616", "sequence"},
		{MariaDB, "+1-1-1", "domain"},
		{MariaDB, "10-1-30,10-2-33", "in one domain"},
	} {
		t.Run(c.in, func(t *testing.T) {
			_, err := Parse(c.flavor, c.in)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q: got %v, want an error with %q", c.in, err, c.says)
			}
		})
	}
}

func TestAddAndFollow(t *testing.T) {
	s := New(MySQL)
	for _, step := range []struct {
		gtid    string
		follows bool
		want    string
	}{
		{u1 + ":1", true, u1 + ":1"},
		{u1 + ":2", true, u1 + ":1-2"},
		{u1 + ":2", false, u1 + ":1-2"},
		{u1 + ":5", false, u1 + ":1-2:5"},
		{u1 + ":3", true, u1 + ":1-3:5"},
		{u1 + ":4", true, u1 + ":1-5"},
		{u1 + ":T:7", false, u1 + ":1-5:t:7"},
		{u1 + ":t:6", false, u1 + ":1-5:t:6-7"},
		{u2 + ":1", true, u2 + ":1," + u1 + ":1-5:t:6-7"},
		{u1 + ":6", true, u2 + ":1," + u1 + ":1-6:t:6-7"},
	} {
		if f, err := s.Follows(step.gtid); err != nil || f != step.follows {
			t.Errorf("%s after %s: follows is %v, %v", step.gtid, s, f, err)
		}
		if err := s.Add(step.gtid); err != nil {
			t.Fatal(err)
		}
		if in, err := s.ContainsGTID(step.gtid); err != nil || !in {
			t.Errorf("%s is not in %s: %v", step.gtid, s, err)
		}
		if s.String() != step.want {
			t.Fatalf("after %s: %s, want %s", step.gtid, s, step.want)
		}
	}
	for source, want := range map[string]uint64{u1: 6, u1 + ":T": 7, u2: 1, u2 + ":t": 0, "x": 0, "": 0} {
		if got := s.Last(source); got != want {
			t.Errorf("last of %q is %d, want %d", source, got, want)
		}
	}

	m := New(MariaDB)
	for _, step := range []struct {
		gtid    string
		follows bool
		want    string
	}{
		{"7-1-1", true, "7-1-1"},
		{"7-2-2", true, "7-2-2"},
		{"7-1-2", false, "7-2-2"},
		{"7-1-4", false, "7-1-4"},
		{"7-2-3", false, "7-1-4"},
		{"0-9-3", false, "0-9-3,7-1-4"},
	} {
		if f, err := m.Follows(step.gtid); err != nil || f != step.follows {
			t.Errorf("%s after %s: follows is %v, %v", step.gtid, m, f, err)
		}
		if err := m.Add(step.gtid); err != nil {
			t.Fatal(err)
		}
		if m.String() != step.want {
			t.Fatalf("after %s: %s, want %s", step.gtid, m, step.want)
		}
	}
	if m.Last("7") != 4 || m.Last("1") != 0 {
		t.Errorf("last: %d, %d", m.Last("7"), m.Last("1"))
	}
}

func TestFlavoursDoNotMix(t *testing.T) {
	a, b := parse(t, MySQL, u1+":1"), parse(t, MariaDB, "0-1-1")
	if a.Contains(b) || a.Equal(b) || !a.Minus(b).Equal(a) {
		t.Error("a MySQL set has something to do with a MariaDB one")
	}
	if err := a.Union(b); !errors.Is(err, ErrFlavor) {
		t.Errorf("union: %v", err)
	}
	if err := a.Add("0-1-1"); !errors.Is(err, ErrInvalid) {
		t.Errorf("add: %v", err)
	}
	var zero Set
	if !zero.IsEmpty() || zero.String() != "" || !a.Contains(zero) || !zero.Equal(New(MySQL)) || zero.Last(u1) != 0 {
		t.Error("the zero set is not empty")
	}
	if err := zero.Add(u1 + ":1"); !errors.Is(err, ErrFlavor) {
		t.Errorf("add to the zero set: %v", err)
	}
	if err := zero.Union(a); err != nil || !zero.Equal(a) || zero.Flavor() != MySQL {
		t.Errorf("union into the zero set: %s, %v", zero, err)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	a := parse(t, MySQL, u1+":1-5:9,"+u2+":x:3")
	b := a.Clone()
	for _, g := range []string{u1 + ":6", u1 + ":8", u2 + ":x:2", u2 + ":1"} {
		if err := b.Add(g); err != nil {
			t.Fatal(err)
		}
	}
	if a.String() != u2+":x:3,"+u1+":1-5:9" {
		t.Errorf("the original became %s", a)
	}
}

// model is the dumb second implementation: every GTID by itself.
type model map[string]bool

func drawGTIDs(t *rapid.T, label string) []string {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
		s := rapid.SampledFrom([]string{u1, u2}).Draw(t, "uuid")
		if tag := rapid.SampledFrom([]string{"", "a", "b_1"}).Draw(t, "tag"); tag != "" {
			s += ":" + tag
		}
		return s + ":" + rapid.SampledFrom(strings.Split("1 2 3 4 5 6 7 8 9 10 11 12 9223372036854775805 9223372036854775806", " ")).Draw(t, "n")
	}), 0, 40).Draw(t, label)
}

func fill(t *rapid.T, gtids []string) (Set, model) {
	s, m := New(MySQL), model{}
	for _, g := range gtids {
		if err := s.Add(g); err != nil {
			t.Fatal(err)
		}
		m[g] = true
	}
	return s, m
}

func (m model) set(t *rapid.T) Set {
	list := make([]string, 0, len(m))
	for g := range m {
		list = append(list, g)
	}
	s, err := Parse(MySQL, strings.Join(list, ","))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSetsAgainstAModelAndGoMySQL(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, ma := fill(t, drawGTIDs(t, "a"))
		b, mb := fill(t, drawGTIDs(t, "b"))
		if !a.Equal(ma.set(t)) || a.String() != ma.set(t).String() {
			t.Fatalf("added one by one: %s, parsed: %s", a, ma.set(t))
		}
		contains, diff, union := true, model{}, model{}
		for g := range ma {
			union[g] = true
			if !mb[g] {
				diff[g] = true
			}
		}
		for g := range mb {
			union[g] = true
			contains = contains && ma[g]
			if in, err := a.ContainsGTID(g); err != nil || in != ma[g] {
				t.Fatalf("%s in %s: %v, %v", g, a, in, err)
			}
		}
		if a.Contains(b) != contains {
			t.Fatalf("%s contains %s: %v", a, b, !contains)
		}
		if d := a.Minus(b); d.String() != diff.set(t).String() {
			t.Fatalf("%s minus %s: %s, want %s", a, b, d, diff.set(t))
		}
		u := a.Clone()
		if err := u.Union(b); err != nil || u.String() != union.set(t).String() {
			t.Fatalf("%s and %s: %s, want %s", a, b, u, union.set(t))
		}

		oracle, err := mysql.ParseMysqlGTIDSet(a.String())
		if err != nil {
			t.Fatal(err)
		}
		other, err := mysql.ParseMysqlGTIDSet(b.String())
		if err != nil {
			t.Fatal(err)
		}
		if oracle.String() != a.String() || oracle.Contain(other) != contains || oracle.Equal(other) != a.Equal(b) {
			t.Fatalf("go-mysql differs on %s and %s", a, b)
		}
		if err := oracle.Update(b.String()); err != nil {
			t.Fatal(err)
		}
		if oracle.String() != u.String() {
			t.Fatalf("union: go-mysql has %s, we %s", oracle, u)
		}
	})
}

func TestPositionsAgainstGoMySQL(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) Set {
			s := New(MariaDB)
			for _, d := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"0", "1", "2", "10"}), rapid.ID).Draw(t, label) {
				g := d + "-" + rapid.SampledFrom([]string{"1", "2"}).Draw(t, "server") + "-" + rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "n")
				if err := s.Add(g); err != nil {
					t.Fatal(err)
				}
			}
			return s
		}
		a, b := draw("a"), draw("b")
		oa, err := mysql.ParseMariadbGTIDSet(a.String())
		if err != nil {
			t.Fatal(err)
		}
		ob, err := mysql.ParseMariadbGTIDSet(b.String())
		if err != nil {
			t.Fatal(err)
		}
		if oa.Contain(ob) != a.Contains(b) || oa.Equal(ob) != a.Equal(b) {
			t.Fatalf("go-mysql differs on %s and %s", a, b)
		}
		if d := a.Minus(b); d.IsEmpty() != b.Contains(a) {
			t.Fatalf("%s minus %s is %s", a, b, d)
		}
		u := a.Clone()
		if err := u.Union(b); err != nil || !u.Contains(a) || !u.Contains(b) {
			t.Fatalf("union of %s and %s is %s, %v", a, b, u, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", u1 + ":1-3:5:tag:9", u1 + ":1,\n" + u2 + ":2-4", "0-1-2,3-4-5", "x:1", u1 + ":9223372036854775806"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, flavor := range []string{MySQL, MariaDB} {
			s, err := Parse(flavor, text)
			if err != nil {
				if !errors.Is(err, ErrInvalid) {
					t.Fatalf("%q: error of no class: %v", text, err)
				}
				continue
			}
			again, err := Parse(flavor, s.String())
			if err != nil || !again.Equal(s) || again.String() != s.String() {
				t.Fatalf("%q: %q came back as %q, %v", text, s, again, err)
			}
			if flavor == MySQL {
				o, err := mysql.ParseMysqlGTIDSet(s.String())
				if err != nil || o.String() != s.String() {
					t.Fatalf("go-mysql reads %q as %v, %v", s, o, err)
				}
			}
			set := New(flavor)
			if Valid(flavor, text) == nil {
				if err := set.Add(text); err != nil || !set.Equal(s) {
					t.Fatalf("adding %q gives %q, %v", text, set, err)
				}
			}
		}
	})
}

func TestAddDoesNotAllocate(t *testing.T) {
	s := New(MySQL)
	text := []byte(u1 + ":tag:100")
	if err := s.Add(string(text)); err != nil {
		t.Fatal(err)
	}
	gtids := make([]string, 50)
	for i := range gtids {
		text[len(text)-2], text[len(text)-1] = byte('0'+i/10), byte('0'+i%10)
		gtids[i] = string(text)
	}
	i := 0
	if n := testing.AllocsPerRun(len(gtids)-1, func() { _ = s.Add(gtids[i]); i++ }); n != 0 {
		t.Errorf("%v allocations for each GTID", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	gtids := make([]string, 1<<16)
	for i := range gtids {
		gtids[i] = u1 + ":" + strconv.Itoa(i+1)
	}
	s := New(MySQL)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_ = s.Add(gtids[i&(1<<16-1)])
	}
}
