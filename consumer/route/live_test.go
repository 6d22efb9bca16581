package route

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

// TestLook asks real servers: foreign keys whose effects a source does not log are
// told before anything starts.
func TestLook(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			s := mysqltest.Start(t, f)
			s.Exec(t, "CREATE DATABASE d", "USE d", "CREATE TABLE p (id INT PRIMARY KEY)", "CREATE TABLE q (id INT PRIMARY KEY)",
				"CREATE TABLE c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE)",
				"CREATE TABLE r (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES p (id))",
				"CREATE TABLE e (id INT PRIMARY KEY, q INT, FOREIGN KEY (q) REFERENCES q (id) ON UPDATE CASCADE)",
				"CREATE VIEW v AS SELECT * FROM c", "CREATE TABLE x (id INT)", "CREATE TABLE y (id INT)")
			info, err := server.Detect(t.Context(), s.DB())
			if err != nil {
				t.Fatal(err)
			}
			r := rules(t, Config{Exclude: []string{"d.p"}, SkipUpdate: []string{"d.q"}, Routes: []string{"d.x -> d.y"}})
			survey, err := r.Look(t.Context(), s.DB(), info)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, x := range survey.Troubles {
				if x.Detail == "" || x.Remedy == "" {
					t.Errorf("%+v", x)
				}
				got = append(got, fmt.Sprint(x.Code, " ", x.Table))
			}
			want := "ROUTE_COLLISION d.y"
			if f.IsMariaDB() {
				want += ",FILTER_REFERENCE d.c,FILTER_REFERENCE d.e"
			}
			if strings.Join(got, ",") != want {
				t.Errorf("%v, want %s", got, want)
			}
			if len(survey.Tables) != 8 {
				t.Errorf("%d tables: %+v", len(survey.Tables), survey.Tables)
			}
			troubles, err := r.LookAtTarget(t.Context(), s.DB())
			if err != nil || len(troubles) != 2 { // c and r: their parent is nobody's
				t.Errorf("%v %+v", err, troubles)
			}
		})
	}
}

// TestAgree: rules may change freely until something was applied, and not after.
func TestAgree(t *testing.T) {
	s := mysqltest.Start(t, mysqltest.MariaDB118)
	ctx, db := t.Context(), s.DB()
	a, b := Config{Exclude: []string{"d.a"}}, Config{Exclude: []string{"d.b"}}
	for _, c := range []Config{{}, a, b, b} {
		if err := Agree(ctx, db, "s", c); err != nil {
			t.Fatal(err)
		}
	}
	s.Exec(t, "CREATE TABLE twinspan.progress (stream VARCHAR(190) PRIMARY KEY, log_offset BIGINT)", "INSERT INTO twinspan.progress VALUES ('s', -1), ('old', 7)",
		"CREATE TABLE twinspan.lane_position (stream VARCHAR(190), lane INT, log_offset BIGINT, PRIMARY KEY (stream, lane))", "INSERT INTO twinspan.lane_position VALUES ('s', 0, -1)")
	if err := Agree(ctx, db, "s", a); err != nil {
		t.Errorf("nothing was applied: %v", err)
	}
	s.Exec(t, "UPDATE twinspan.lane_position SET log_offset = 3")
	if err := Agree(ctx, db, "s", b); !errors.Is(err, ErrChanged) {
		t.Errorf("a lane is ahead: %v", err)
	}
	if err := Agree(ctx, db, "s", Config{}); !errors.Is(err, ErrChanged) {
		t.Errorf("no rules any more: %v", err)
	}
	if err := Agree(ctx, db, "old", a); !errors.Is(err, ErrChanged) {
		t.Errorf("filled without rules: %v", err)
	}
	if err := Agree(ctx, db, "old", Config{}); err != nil {
		t.Errorf("still without rules: %v", err)
	}
	a.Done = []string{"0-1-7"}
	if err := Agree(ctx, db, "s", a); err != nil {
		t.Errorf("done by hand is no change: %v", err)
	}
	if _, err := Accept(ctx, db, "s", b, nil); err != nil {
		t.Fatal(err)
	}
	if err := Agree(ctx, db, "s", b); err != nil {
		t.Errorf("accepted: %v", err)
	}
}
