package route

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pingcap/tidb/pkg/parser"
	"github.com/pingcap/tidb/pkg/parser/ast"
	_ "github.com/pingcap/tidb/pkg/parser/test_driver"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
	"github.com/twinspan/twinspan/schema/ddl"
)

const (
	mysqlID = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1"
	mariaID = "0-1-1"
)

// outcome is "=" for the statement itself, "-" for nothing, a code, or the new text.
func outcome(r *Router, gtid, home, text string) string {
	d := &change.DDL{Text: text, DefaultSchema: home}
	out, err := r.statement(&change.Transaction{GTID: gtid, DDL: d})
	var refused *Refusal
	switch {
	case errors.As(err, &refused):
		return string(refused.Code)
	case err != nil:
		return err.Error()
	case out == nil:
		return "-"
	case out == d:
		return "="
	}
	return out.Text
}

func TestStatements(t *testing.T) {
	part := Config{Include: []string{"shop.*", "crm.in*"}, Exclude: []string{"shop.x*"}}
	moved := Config{Include: []string{"shop.*"}, Routes: []string{"shop.* -> b.*"}}
	named := Config{Routes: []string{"shop.orders -> shop.o", "shop.t_* -> arch.*"}}
	for _, c := range []struct {
		what string
		cfg  Config
		sql  string
		want string
	}{
		{"included", part, "ALTER TABLE a ADD b INT", "="},
		{"left out", part, "ALTER TABLE xa ADD b INT", "-"},
		{"left out, of another schema", part, "CREATE TABLE hr.t (id INT)", "-"},
		{"truncate", part, "TRUNCATE xa", "-"},
		{"index", part, "CREATE INDEX i ON xa (a)", "-"},
		{"drop of both", part, "DROP TABLE IF EXISTS a, xa, `b`, shop.xb /* x */", "DROP TABLE IF EXISTS `shop`.`a`, `shop`.`b` /* x */"},
		{"drop, first left out", part, "DROP TABLE xa, xb, a", "DROP TABLE `shop`.`a`"},
		{"drop, middle left out", part, "DROP TABLE a, xb, b RESTRICT", "DROP TABLE `shop`.`a`, `shop`.`b` RESTRICT"},
		{"drop of what is left out", part, "DROP TABLE xa, xb", "-"},
		{"drop views", part, "DROP VIEW a, xb", "DROP VIEW `shop`.`a`"},
		{"rename inside", part, "RENAME TABLE a TO b", "="},
		{"rename outside", part, "RENAME TABLE xa TO xb", "-"},
		{"rename out", part, "RENAME TABLE a TO xa", "FILTER_RENAME"},
		{"rename in", part, "RENAME TABLE xa TO a", "FILTER_RENAME"},
		{"rename out to a schema", part, "RENAME TABLE a TO hr.a", "FILTER_RENAME"},
		{"rename a mix", part, "RENAME TABLE a TO b, xa TO xb", "RENAME TABLE `shop`.`a` TO `shop`.`b`"},
		{"rename a mix, first left out", part, "RENAME TABLE xa TO xb, a TO b", "RENAME TABLE `shop`.`a` TO `shop`.`b`"},
		{"swap through a name left out", part, "RENAME TABLE a TO x1, b TO a, x1 TO b", "="},
		{"swap of tables left out through a name inside", part, "RENAME TABLE xa TO q, xb TO xa, q TO xb", "-"},
		{"gh-ost's cut-over brings in a table", part, "RENAME TABLE a TO x_old, x_new TO a", "FILTER_RENAME"},
		{"alter rename out", part, "ALTER TABLE a RENAME TO xa, ADD c INT", "FILTER_RENAME"},
		{"alter rename in", part, "ALTER TABLE xa RENAME a", "FILTER_RENAME"},
		{"alter rename inside", part, "ALTER TABLE a RENAME b", "="},
		{"like a table left out", part, "CREATE TABLE a LIKE xa", "FILTER_REFERENCE"},
		{"left out, like one inside", part, "CREATE TABLE xa LIKE a", "-"},
		{"select from a table left out", part, "CREATE TABLE a AS SELECT * FROM b JOIN xa USING (id)", "FILTER_REFERENCE"},
		{"foreign key out", part, "CREATE TABLE a (id INT, FOREIGN KEY (id) REFERENCES xa (id))", "FILTER_REFERENCE"},
		{"foreign key added", part, "ALTER TABLE a ADD FOREIGN KEY (id) REFERENCES hr.p (id)", "FILTER_REFERENCE"},
		{"foreign key of a table left out", part, "CREATE TABLE xa (id INT, FOREIGN KEY (id) REFERENCES a (id))", "-"},
		{"exchange", part, "ALTER TABLE a EXCHANGE PARTITION p WITH TABLE xa", "FILTER_MIXED"},
		{"exchange inside", part, "ALTER TABLE a EXCHANGE PARTITION p WITH TABLE b", "="},
		{"exchange outside", part, "ALTER TABLE xa EXCHANGE PARTITION p WITH TABLE xb", "-"},
		{"view of a table left out", part, "CREATE VIEW v AS SELECT * FROM xa", "FILTER_REFERENCE"},
		{"view", part, "CREATE VIEW v AS SELECT * FROM a", "="},
		{"view of another schema", part, "CREATE VIEW hr.v AS SELECT * FROM shop.a", "-"},
		{"trigger", part, "CREATE TRIGGER tr AFTER INSERT ON a FOR EACH ROW INSERT INTO b VALUES (NEW.id)", "="},
		{"trigger on a table left out", part, "CREATE TRIGGER tr AFTER INSERT ON xa FOR EACH ROW INSERT INTO b VALUES (NEW.id)", "-"},
		{"trigger that writes a table left out", part, "CREATE TRIGGER tr AFTER INSERT ON a FOR EACH ROW INSERT INTO xlog VALUES (NEW.id)", "FILTER_DEFINITION"},
		{"trigger that writes another schema", part, "CREATE TRIGGER tr AFTER INSERT ON a FOR EACH ROW INSERT INTO crm.out1 VALUES (NEW.id)", "FILTER_DEFINITION"},
		{"drop trigger", part, "DROP TRIGGER shop.tr", "DROP TRIGGER IF EXISTS `shop`.`tr`"},
		{"procedure", part, "CREATE PROCEDURE p() SELECT * FROM xa", "FILTER_DEFINITION"},
		{"procedure left out", part, "CREATE PROCEDURE hr.p() SELECT 1", "-"},
		{"create database", part, "CREATE DATABASE shop", "="},
		{"create database left out", part, "CREATE DATABASE hr", "-"},
		{"drop database left out", part, "DROP DATABASE hr", "-"},
		{"drop database with a table whose DDL is left out", Config{SkipDDL: []string{"shop.audit"}}, "DROP DATABASE shop", "FILTER_MIXED"},
		{"drop database whose DDL is left out", Config{SkipDDL: []string{"shop.*"}}, "DROP DATABASE shop", "-"},
		{"drop another database", Config{SkipDDL: []string{"shop.audit"}}, "DROP DATABASE hr", "="},
		{"drop database in part", part, "DROP DATABASE shop", "FILTER_SCHEMA"},
		{"account", part, "CREATE USER a", "="},
		{"grant", part, "GRANT SELECT ON shop.xa TO a", "="},
		{"temporary", part, "CREATE TEMPORARY TABLE xa (id INT)", "="},
		{"rows as a statement", part, "INSERT INTO a SELECT 1", "="},
		{"rows of a table left out", part, "DELETE FROM xa", "-"},
		{"nonsense", part, "FROBNICATE TABLE a", "ROUTE_STATEMENT"},
		{"system", part, "CREATE TABLE mysql.x (id INT)", "="},
		{"MySQL's CREATE … SELECT", part, "CREATE TABLE `a` (`id` INT) START TRANSACTION", "="},

		{"moved", moved, "ALTER TABLE a ADD b INT", "ALTER TABLE `b`.`a` ADD b INT"},
		{"moved, qualified", moved, "ALTER TABLE shop . `a` ADD b INT", "ALTER TABLE `b`.`a` ADD b INT"},
		{"moved, with reference", moved, "CREATE TABLE a (id INT, CONSTRAINT fk FOREIGN KEY (id) REFERENCES shop.p (id) ON DELETE CASCADE) COMMENT 'shop.p'",
			"CREATE TABLE `b`.`a` (id INT, CONSTRAINT fk FOREIGN KEY (id) REFERENCES `b`.`p` (id) ON DELETE CASCADE) COMMENT 'shop.p'"},
		{"moved rename", moved, "RENAME TABLE a TO c, d TO a", "RENAME TABLE `b`.`a` TO `b`.`c`, `b`.`d` TO `b`.`a`"},
		{"moved view", moved, "CREATE VIEW v AS SELECT shop.t.id, u.x FROM t, shop.u WHERE shop.u.id = 'shop.t.id'",
			"CREATE VIEW `b`.`v` AS SELECT `b`.`t`.id, u.x FROM `b`.`t`, `b`.`u` WHERE `b`.`u`.id = 'shop.t.id'"},
		{"moved view with common tables", moved, "CREATE VIEW v AS WITH c AS (SELECT * FROM t) SELECT * FROM c", "CREATE VIEW `b`.`v` AS WITH c AS (SELECT * FROM `b`.`t`) SELECT * FROM c"},
		{"moved trigger", moved, "CREATE TRIGGER tr AFTER INSERT ON a FOR EACH ROW INSERT INTO c VALUES (NEW.id)",
			"CREATE TRIGGER `b`.`tr` AFTER INSERT ON `b`.`a` FOR EACH ROW INSERT INTO c VALUES (NEW.id)"},
		{"moved trigger that names the schema", moved, "CREATE TRIGGER tr AFTER INSERT ON a FOR EACH ROW INSERT INTO shop.c VALUES (NEW.id)", "FILTER_DEFINITION"},
		{"moved procedure", moved, "CREATE PROCEDURE p() SELECT * FROM c", "CREATE PROCEDURE `b`.`p`() SELECT * FROM c"},
		{"moved database", moved, "CREATE DATABASE IF NOT EXISTS shop CHARACTER SET utf8mb4", "CREATE DATABASE IF NOT EXISTS `b` CHARACTER SET utf8mb4"},
		{"moved database goes", moved, "DROP DATABASE shop", "DROP DATABASE `b`"},
		{"default database altered", moved, "ALTER DATABASE CHARACTER SET latin1", "ALTER DATABASE CHARACTER SET latin1"},

		{"other name", named, "ALTER TABLE orders ADD b INT", "ALTER TABLE `shop`.`o` ADD b INT"},
		{"the name is taken", named, "CREATE TABLE o (id INT)", "ROUTE_COLLISION"},
		{"renamed to another route", named, "RENAME TABLE orders TO t_orders", "RENAME TABLE `shop`.`o` TO `arch`.`orders`"},
		{"view of another name", named, "CREATE VIEW v AS SELECT * FROM orders", "ROUTE_STATEMENT"},
		{"column of another name, moved", Config{Routes: []string{"shop.orders -> shop.o", "shop.* -> b.*"}}, "CREATE VIEW v AS SELECT shop.orders.id FROM a", "ROUTE_STATEMENT"},
		{"procedure near another name", named, "CREATE PROCEDURE p() SELECT * FROM orders", "FILTER_DEFINITION"},
		{"procedure far from it", named, "CREATE PROCEDURE p() SELECT * FROM customers", "="},
		{"like", named, "CREATE TABLE t_1 LIKE orders", "CREATE TABLE `arch`.`1` LIKE `shop`.`o`"},
		{"drop database that is spread", named, "DROP DATABASE shop", "FILTER_SCHEMA"},
		{"drop database that was moved", Config{Routes: []string{"s1.* -> s2.*"}}, "DROP DATABASE s1", "DROP DATABASE `s2`"},
		{"drop database that another was moved to", Config{Routes: []string{"s1.* -> s2.*"}}, "DROP DATABASE s2", "FILTER_SCHEMA"},
		{"drop database that others go to", Config{Routes: []string{"s1.* -> s2.*", "s3.t -> s2.t"}}, "DROP DATABASE s1", "FILTER_SCHEMA"},
		{"too long", Config{Routes: []string{"shop.* -> shop." + strings.Repeat("p", 60) + "*"}}, "CREATE TABLE orders (id INT)", "ROUTE_NAME"},
		{"skipped", Config{SkipDDL: []string{"shop.a"}}, "DROP TABLE a", "-"},
		{"skipped in part", Config{SkipDDL: []string{"shop.a"}}, "DROP TABLE a, b", "FILTER_MIXED"},
		{"done by hand", Config{Done: []string{mysqlID}, Exclude: []string{"shop.x*"}}, "RENAME TABLE a TO xa", "-"},
	} {
		r := NewRouter(rules(t, c.cfg))
		if got := outcome(r, mysqlID, "shop", c.sql); got != c.want {
			t.Errorf("%s: %s\n got %s\nwant %s", c.what, c.sql, got, c.want)
		}
	}
}

// TestLowerCase: a server with lower_case_table_names=1 logs the statement as it was
// spelt, and everything else in lower case.
func TestLowerCase(t *testing.T) {
	r := NewRouter(rules(t, Config{Include: []string{"shop.*"}, Exclude: []string{"shop.audit"}}))
	for text, want := range map[string]bool{"ALTER TABLE Audit ADD x INT": false, "ALTER TABLE SHOP.Orders ADD x INT": true} {
		d := &change.DDL{Text: text, DefaultSchema: "shop", Tables: []schema.Name{{Schema: "shop", Table: strings.ToLower(strings.TrimPrefix(strings.Fields(text)[2], "SHOP."))}}}
		out, err := r.statement(&change.Transaction{GTID: mysqlID, DDL: d})
		if err != nil || (out != nil) != want {
			t.Errorf("%s: %v, %v", text, out, err)
		}
	}
}

func TestCharsets(t *testing.T) {
	r := NewRouter(rules(t, Config{Routes: []string{"shop.* -> größe.*"}}))
	for _, c := range []struct {
		id   uint16
		text string
		want string
	}{
		{45, "ALTER TABLE t ADD ö INT", "ALTER TABLE `größe`.`t` ADD ö INT"},
		{8, "ALTER TABLE t ADD x INT", string(CodeText)},
		{28, "ALTER TABLE t ADD \xc3\xb6 INT", string(CodeText)},
	} {
		d := &change.DDL{Text: c.text, DefaultSchema: "shop", CharsetClient: c.id}
		out, err := r.statement(&change.Transaction{GTID: mysqlID, DDL: d})
		got := ""
		var refused *Refusal
		if errors.As(err, &refused) {
			got = string(refused.Code)
		} else if out != nil {
			got = out.Text
		}
		if got != c.want {
			t.Errorf("%d %q: %q, want %q", c.id, c.text, got, c.want)
		}
	}
}

// corpus are the statements of package ddl.
func corpus(t testing.TB) (out [][2]string) {
	t.Helper()
	b, err := os.ReadFile("../../schema/ddl/testdata/statements.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		part := strings.SplitN(line, "|", 4)
		if len(part) != 4 || line[0] == '#' {
			continue
		}
		gtid := mysqlID
		if strings.TrimSpace(part[0]) == "a" {
			gtid = mariaID
		}
		out = append(out, [2]string{gtid, strings.NewReplacer(`\\`, `\`, `\n`, "\n").Replace(strings.TrimPrefix(part[3], " "))})
	}
	return out
}

// TestAgainstAParser moves every schema and asks a full parser what the statements
// name then, as far as it understands them.
func TestAgainstAParser(t *testing.T) {
	r := NewRouter(rules(t, Config{Routes: []string{"*.* -> to_*.*"}}))
	p := parser.New()
	rewritten, understood := 0, 0
	for _, c := range corpus(t) {
		got := outcome(r, c[0], "d", c[1])
		if got == "=" || got == "-" || !strings.Contains(got, " ") {
			continue
		}
		rewritten++
		flavor := server.MySQL
		if c[0] == mariaID {
			flavor = server.MariaDB
		}
		before, err := ddl.Classify(c[1], "d", ddl.Dialect{Flavor: flavor})
		if err != nil {
			t.Fatal(err)
		}
		after, err := ddl.Classify(got, "to_d", ddl.Dialect{Flavor: flavor})
		if err != nil {
			t.Errorf("%s: %v", got, err)
			continue
		}
		want := slices.Clone(before.Tables)
		for i := range want {
			if !system(want[i].Schema) {
				want[i].Schema = "to_" + want[i].Schema
			}
		}
		if !slices.Equal(after.Tables, want) || after.Class != before.Class || len(after.Changed) != len(before.Changed) {
			t.Errorf("%s\n%s\nnames %v, want %v", c[1], got, after.Tables, want)
		}
		if after.Class == ddl.Trigger || after.Class == ddl.Routine || after.Class == ddl.Event {
			continue
		}
		nodes, _, err := p.Parse(got, "", "")
		if err != nil || len(nodes) != 1 {
			continue
		}
		understood++
		v := &tableNames{}
		nodes[0].Accept(v)
		for _, n := range v.names {
			if !strings.HasPrefix(n.Schema, "to_") && !system(n.Schema) && !strings.Contains(got, "WITH ") {
				t.Errorf("%s: the parser still sees %s", got, n)
			}
		}
	}
	t.Logf("%d rewritten, %d of them understood by the parser", rewritten, understood)
	if rewritten < 100 || understood < 50 {
		t.Error("too few to be a check")
	}
}

type tableNames struct{ names []schema.Name }

func (v *tableNames) Enter(n ast.Node) (ast.Node, bool) {
	if t, ok := n.(*ast.TableName); ok && t.Name.O != "" {
		v.names = append(v.names, schema.Name{Schema: t.Schema.O, Table: t.Name.O})
	}
	return n, false
}

func (v *tableNames) Leave(n ast.Node) (ast.Node, bool) { return n, true }

// FuzzStatement: whatever the text, what comes out names what the rules want, or
// is refused.
func FuzzStatement(f *testing.F) {
	for _, c := range corpus(f) {
		f.Add(c[1], c[0] == mariaID)
	}
	r := NewRouter(rules(f, Config{Exclude: []string{"*.x*"}, Routes: []string{"d.r* -> e.q*", "*.* -> to_*.*"}}))
	f.Fuzz(func(t *testing.T, text string, maria bool) {
		gtid, flavor := mysqlID, server.MySQL
		if maria {
			gtid, flavor = mariaID, server.MariaDB
		}
		d := &change.DDL{Text: text, DefaultSchema: "d"}
		out, err := r.statement(&change.Transaction{GTID: gtid, DDL: d})
		if err != nil || out == nil || out == d {
			return
		}
		before, err := ddl.Classify(text, "d", ddl.Dialect{Flavor: flavor})
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		after, err := ddl.Classify(out.Text, out.DefaultSchema, ddl.Dialect{Flavor: flavor})
		if err != nil {
			t.Fatalf("%q became %q: %v", text, out.Text, err)
		}
		if before.Class == ddl.RenameTable || before.Verb == "DROP" || before.Class == ddl.Trigger {
			return // names may be fewer
		}
		var want []schema.Name
		for _, n := range before.Tables {
			if w := r.rules.Table(n); !slices.Contains(want, w.Target) {
				want = append(want, w.Target)
			}
		}
		if !slices.Equal(after.Tables, want) {
			t.Fatalf("%q became %q, which names %v, want %v", text, out.Text, after.Tables, want)
		}
	})
}
