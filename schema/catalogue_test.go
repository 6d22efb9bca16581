package schema_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

func eachFlavor(t *testing.T, f func(t *testing.T, s *mysqltest.Server, db string)) {
	for _, flavor := range mysqltest.Flavors() {
		t.Run(string(flavor), func(t *testing.T) {
			s, db := mysqltest.Shared(t, flavor)
			f(t, s, db)
		})
	}
}

func TestCatalogueRefuses(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *mysqltest.Server, db string) {
		ctx := context.Background()
		info, err := server.Detect(ctx, s.DB())
		if err != nil {
			t.Fatal(err)
		}
		cols, err := schema.LoadCollations(ctx, s.DB())
		if err != nil {
			t.Fatal(err)
		}
		s.Exec(t, "USE "+db, "CREATE TABLE t (a INT)", "CREATE TABLE T (b INT)", "CREATE VIEW v AS SELECT 1 a")
		want := map[string]error{"no": schema.ErrNoTable, "v": schema.ErrNoTable, "t": nil, "T": nil}
		if s.Flavor.IsMariaDB() {
			s.Exec(t, "USE "+db, "CREATE TABLE sv (a INT) WITH SYSTEM VERSIONING")
			want["sv"] = schema.ErrUnsupported
		}
		for name, is := range want {
			got, err := schema.FromCatalogue(ctx, s.DB(), info, cols, schema.Name{Schema: db, Table: name})
			if !errors.Is(err, is) {
				t.Errorf("%s: got %v, want %v", name, err, is)
			}
			if err == nil && (got.Name.Table != name || len(got.Columns) != 1) {
				t.Errorf("%s: got %+v", name, got)
			}
		}
		_, err = schema.AllFromCatalogue(ctx, s.DB(), info, cols, func(n schema.Name) bool { return n.Schema != db })
		if s.Flavor.IsMariaDB() != errors.Is(err, schema.ErrUnsupported) {
			t.Errorf("all: %v", err)
		}
	})
}

// MySQL may hide generated keys from information_schema; the session's setting is
// as it was afterwards.
func TestHiddenKeys(t *testing.T) {
	s, db := mysqltest.Shared(t, mysqltest.MySQL97)
	ctx := context.Background()
	info, err := server.Detect(ctx, s.DB())
	if err != nil {
		t.Fatal(err)
	}
	cols, err := schema.LoadCollations(ctx, s.DB())
	if err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "SET sql_generate_invisible_primary_key=1", "CREATE TABLE "+db+".t (a INT)")
	conn, err := s.DB().Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, shown := range []string{"OFF", "ON"} {
		const variable = "show_gipk_in_create_table_and_information_schema"
		if _, err := conn.ExecContext(ctx, "SET SESSION "+variable+" = "+shown); err != nil {
			t.Fatal(err)
		}
		got, err := schema.FromCatalogue(ctx, conn, info, cols, schema.Name{Schema: db, Table: "t"})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Columns) != 2 || !got.Columns[0].Invisible || strings.Join(got.KeyColumns(), ",") != "my_row_id" {
			t.Errorf("with %s %s: %+v", variable, shown, got)
		}
		var now bool
		if err := conn.QueryRowContext(ctx, "SELECT @@SESSION."+variable).Scan(&now); err != nil || now != (shown == "ON") {
			t.Errorf("%s was %s, is %v, %v", variable, shown, now, err)
		}
	}
}

func TestCollations(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *mysqltest.Server, _ string) {
		cols, err := schema.LoadCollations(context.Background(), s.DB())
		if err != nil {
			t.Fatal(err)
		}
		want := []schema.Collation{{ID: 63, Name: "binary", Charset: "binary", MaxLen: 1}, {ID: 8, Name: "latin1_swedish_ci", Charset: "latin1", MaxLen: 1},
			{ID: 46, Name: "utf8mb4_bin", Charset: "utf8mb4", MaxLen: 4}, {ID: 28, Name: "gbk_chinese_ci", Charset: "gbk", MaxLen: 2}}
		if s.Flavor.IsMariaDB() {
			want = append(want, schema.Collation{ID: 2304, Name: "utf8mb4_uca1400_ai_ci", Charset: "utf8mb4", MaxLen: 4},
				schema.Collation{ID: 2560, Name: "ucs2_uca1400_ai_ci", Charset: "ucs2", MaxLen: 2})
		} else {
			want = append(want, schema.Collation{ID: 255, Name: "utf8mb4_0900_ai_ci", Charset: "utf8mb4", MaxLen: 4})
		}
		for _, w := range want {
			if got := cols[w.ID]; got != w {
				t.Errorf("collation %d is %+v, want %+v", w.ID, got, w)
			}
			if got, ok := cols.ByName(w.Name); !ok || got != w {
				t.Errorf("collation %s is %+v", w.Name, got)
			}
		}
		for id, c := range cols {
			if c.MaxLen != schema.CharsetMaxLen(c.Charset) {
				t.Errorf("collation %d: %d bytes for a character of %s, this program thinks %d", id, c.MaxLen, c.Charset, schema.CharsetMaxLen(c.Charset))
			}
		}
	})
}
