package workload

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/server"
)

// scenario is a sequence of definitions with rows before, between and after.
// {t} and {u} become two fresh table names, {n} a fresh number.
type scenario struct {
	name       string
	statements []string
	only       server.Flavor // "": both
	fails      bool          // single statements may fail: that is the point
}

const (
	simple = "CREATE TABLE {t} (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(20))"
	fill   = "INSERT INTO {t} (a, b) VALUES (1,'one'),(2,'two'),(3,'three'),(NULL,NULL)"
	more   = "INSERT INTO {t} (a, b) VALUES (7,'seven')"
	touch  = "UPDATE {t} SET a = COALESCE(a,0) + 10 WHERE id % 2 = 0"
	less   = "DELETE FROM {t} WHERE id = 1"
)

// alters runs each alteration of the simple table between row changes.
func alters(name string, all ...string) scenario {
	s := scenario{name: name, statements: []string{simple, fill}}
	for _, a := range all {
		s.statements = append(s.statements, a, more, touch)
	}
	s.statements = append(s.statements, less)
	return s
}

var scenarios = []scenario{
	alters("columns",
		"ALTER TABLE {t} ADD COLUMN c INT", "ALTER TABLE {t} ADD COLUMN d VARCHAR(30) NOT NULL DEFAULT 'd' FIRST",
		"ALTER TABLE {t} ADD COLUMN e DATETIME(3) NULL DEFAULT '2024-01-01 00:00:00' AFTER a, ADD COLUMN f JSON",
		"ALTER TABLE {t} DROP COLUMN c", "ALTER TABLE {t} MODIFY COLUMN d VARCHAR(30) NOT NULL DEFAULT 'd2' AFTER b",
		"ALTER TABLE {t} ALTER COLUMN d SET DEFAULT 'd3'", "ALTER TABLE {t} ALTER COLUMN d DROP DEFAULT, DROP COLUMN e",
	),
	alters("types",
		"ALTER TABLE {t} MODIFY a BIGINT", "ALTER TABLE {t} MODIFY b VARCHAR(300) CHARACTER SET gbk", "ALTER TABLE {t} MODIFY b TEXT CHARACTER SET utf8mb4",
		"ALTER TABLE {t} MODIFY a DECIMAL(20,4)", "ALTER TABLE {t} CONVERT TO CHARACTER SET latin1", "ALTER TABLE {t} DEFAULT CHARACTER SET utf8mb4",
		"ALTER TABLE {t} MODIFY a VARCHAR(40)", "ALTER TABLE {t} MODIFY b ENUM('one','two','three','seven')", "ALTER TABLE {t} MODIFY b ENUM('zero','one','two','three','seven','more')",
	),
	{name: "rename-column", statements: []string{
		simple, fill, "ALTER TABLE {t} CHANGE COLUMN b `new name` VARCHAR(25)", "INSERT INTO {t} (a, `new name`) VALUES (5,'five')",
		"ALTER TABLE {t} RENAME COLUMN `new name` TO `order`", "UPDATE {t} SET `order` = 'x' WHERE a = 5", "ALTER TABLE {t} RENAME COLUMN `order` TO b", more,
	}},
	alters("indexes",
		"CREATE INDEX ia ON {t} (a)", "ALTER TABLE {t} ADD UNIQUE KEY ub (b, id)", "CREATE UNIQUE INDEX uid ON {t} (id, a)", "ALTER TABLE {t} RENAME INDEX ia TO ia2",
		"DROP INDEX ub ON {t}", "ALTER TABLE {t} DROP INDEX uid, ADD INDEX (b(3))", "ALTER TABLE {t} ADD FULLTEXT INDEX ft (b)",
	),
	{name: "primary-key", statements: []string{
		"CREATE TABLE {t} (id INT NOT NULL, a INT NOT NULL, b VARCHAR(20))", "INSERT INTO {t} VALUES (1,1,'x'),(2,2,'y'),(3,3,'y')",
		"ALTER TABLE {t} ADD PRIMARY KEY (id)", "UPDATE {t} SET id = 20 WHERE id = 2", "ALTER TABLE {t} DROP PRIMARY KEY, ADD PRIMARY KEY (id, a)", "INSERT INTO {t} VALUES (1,2,'z')",
		"ALTER TABLE {t} DROP PRIMARY KEY", "INSERT INTO {t} VALUES (1,2,'z'),(1,2,'z')", "DELETE FROM {t} WHERE a = 2 LIMIT 1",
		"ALTER TABLE {t} ADD COLUMN k BIGINT AUTO_INCREMENT PRIMARY KEY FIRST", "INSERT INTO {t} (id,a,b) VALUES (9,9,'nine')",
	}},
	alters("options",
		"ALTER TABLE {t} ENGINE = InnoDB", "ALTER TABLE {t} COMMENT = 'it''s a `comment`; -- no'", "ALTER TABLE {t} AUTO_INCREMENT = 1000", "ALTER TABLE {t} ROW_FORMAT = COMPACT",
		"OPTIMIZE TABLE {t}", "ANALYZE TABLE {t}", "ALTER TABLE {t} FORCE", "ALTER TABLE {t} ORDER BY b",
	),
	alters("generated",
		"ALTER TABLE {t} ADD COLUMN g INT GENERATED ALWAYS AS (a * 2) VIRTUAL", "ALTER TABLE {t} ADD COLUMN s VARCHAR(50) GENERATED ALWAYS AS (CONCAT(b, '!')) STORED",
		"CREATE INDEX ig ON {t} (g)", "ALTER TABLE {t} DROP COLUMN s", "ALTER TABLE {t} ADD COLUMN i INT INVISIBLE DEFAULT 3",
	),
	alters("checks", "ALTER TABLE {t} ADD CONSTRAINT c{n} CHECK (a > -100)", "ALTER TABLE {t} DROP CONSTRAINT c{n}"),
	{name: "algorithms", statements: []string{
		simple, fill, "ALTER TABLE {t} ADD COLUMN c INT DEFAULT 4, ALGORITHM=INSTANT", more, "ALTER TABLE {t} ADD INDEX (a), ALGORITHM=INPLACE, LOCK=NONE", touch,
		"ALTER TABLE {t} MODIFY b CHAR(40), ALGORITHM=COPY", more, "ALTER TABLE {t} DROP COLUMN c", touch,
	}},
	{name: "foreign-keys", statements: []string{
		simple, fill, "CREATE TABLE {u} (id INT PRIMARY KEY, t_id INT, KEY (t_id))", "INSERT INTO {u} VALUES (1,1),(2,2),(3,2),(4,NULL)",
		"ALTER TABLE {u} ADD CONSTRAINT f{n} FOREIGN KEY (t_id) REFERENCES {t} (id) ON DELETE CASCADE ON UPDATE CASCADE", "DELETE FROM {t} WHERE id = 2", "UPDATE {t} SET id = 50 WHERE id = 1",
		"ALTER TABLE {u} DROP FOREIGN KEY f{n}", "DELETE FROM {t} WHERE id = 50", "SET foreign_key_checks = 0", "ALTER TABLE {u} ADD CONSTRAINT g{n} FOREIGN KEY (t_id) REFERENCES {t} (id) ON DELETE SET NULL",
		"INSERT INTO {u} VALUES (9, 999)", "SET foreign_key_checks = 1", "DELETE FROM {t} WHERE id = 3", "DROP TABLE {u}",
	}},
	{name: "rename", statements: []string{
		simple, fill, "RENAME TABLE {t} TO {u}", "INSERT INTO {u} (a, b) VALUES (8,'eight')", "CREATE TABLE {t} LIKE {u}", "INSERT INTO {t} SELECT * FROM {u} WHERE a > 1",
		"RENAME TABLE {t} TO {t}_tmp, {u} TO {t}, {t}_tmp TO {u}", more, "UPDATE {u} SET b = 'swapped'", "ALTER TABLE {u} RENAME TO {u}_2", "INSERT INTO {u}_2 (a) VALUES (99)", "RENAME TABLE {u}_2 TO " + Schema + ".{u}", "UPDATE " + Schema + ".{u} SET a = a + 1", "DROP TABLE " + Schema + ".{u}",
	}},
	{name: "truncate-and-drop", statements: []string{
		simple, fill, "TRUNCATE TABLE {t}", more, "TRUNCATE {t}", fill, "DROP TABLE {t}", "CREATE TABLE {t} (x VARCHAR(9) PRIMARY KEY, y DOUBLE)", "INSERT INTO {t} VALUES ('k', 0.1)",
		"CREATE TABLE IF NOT EXISTS {t} (other INT)", "DROP TABLE IF EXISTS {u}, {t}", "DROP TABLE IF EXISTS {t}", simple, fill,
	}},
	{name: "create-select", statements: []string{
		simple, fill, "CREATE TABLE {u} AS SELECT id, a * 2 AS doubled, b FROM {t}", "INSERT INTO {u} VALUES (77, 1, 'x')", "CREATE TABLE {u}_k (PRIMARY KEY (id)) SELECT * FROM {t}", "UPDATE {u}_k SET b = 'ctas'",
		"CREATE TABLE {u}_e SELECT * FROM {t} WHERE 1 = 0", "INSERT INTO {u}_e SELECT * FROM {t}", "DROP TABLE {u}, {u}_k",
	}},
	{name: "partitions", statements: []string{
		"CREATE TABLE {t} (id INT PRIMARY KEY, v VARCHAR(20)) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))", "INSERT INTO {t} VALUES (1,'a'),(5,'b'),(15,'c')",
		"ALTER TABLE {t} ADD PARTITION (PARTITION p2 VALUES LESS THAN (30))", "INSERT INTO {t} VALUES (25,'d')", "CREATE TABLE {u} (id INT PRIMARY KEY, v VARCHAR(20))", "INSERT INTO {u} VALUES (2,'x'),(3,'y')",
		"ALTER TABLE {t} EXCHANGE PARTITION p0 WITH TABLE {u}", "UPDATE {t} SET v = 'after exchange' WHERE id < 10", "UPDATE {u} SET v = 'came out'", "INSERT INTO {u} VALUES (100,'z')",
		"ALTER TABLE {t} TRUNCATE PARTITION p1", "INSERT INTO {t} VALUES (16,'again')", "ALTER TABLE {t} REORGANIZE PARTITION p1, p2 INTO (PARTITION p12 VALUES LESS THAN (30), PARTITION p3 VALUES LESS THAN MAXVALUE)",
		"INSERT INTO {t} VALUES (1000,'max')", "UPDATE {t} SET id = 500 WHERE id = 16", "ALTER TABLE {t} DROP PARTITION p0", "ALTER TABLE {t} REBUILD PARTITION p12", "ALTER TABLE {t} REMOVE PARTITIONING", "INSERT INTO {t} VALUES (7,'free')",
		"ALTER TABLE {t} PARTITION BY HASH (id) PARTITIONS 3", "INSERT INTO {t} VALUES (8,'hash')", "ALTER TABLE {t} COALESCE PARTITION 1", "DELETE FROM {t} WHERE id = 7",
		"ALTER TABLE {t} PARTITION BY KEY (id) PARTITIONS 2", "INSERT INTO {t} VALUES (9,'key')", "ALTER TABLE {t} PARTITION BY LIST (id) (PARTITION l0 VALUES IN (8,9,25), PARTITION l1 VALUES IN (500,1000))", "UPDATE {t} SET v = 'list'",
	}},
	{name: "views", statements: []string{
		simple, fill, "CREATE VIEW v{n} AS SELECT id, b FROM {t} WHERE a > 0", "INSERT INTO v{n} (b) VALUES ('through a view')", "CREATE OR REPLACE ALGORITHM=MERGE VIEW v{n} AS SELECT id, a FROM {t}", "ALTER VIEW v{n} AS SELECT * FROM {t}",
		"UPDATE v{n} SET b = 'v' WHERE id = 2", "DROP VIEW IF EXISTS v{n}, no_such_view", "CREATE SQL SECURITY INVOKER VIEW w{n} AS SELECT COUNT(*) AS n FROM {t}", more,
	}},
	{name: "triggers", statements: []string{
		simple, "CREATE TABLE {u} (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(40))",
		"CREATE TRIGGER g{n}_i AFTER INSERT ON {t} FOR EACH ROW INSERT INTO {u} (what) VALUES (CONCAT('insert ', NEW.id))",
		"CREATE TRIGGER g{n}_u BEFORE UPDATE ON {t} FOR EACH ROW BEGIN\n  SET NEW.b = CONCAT(LEFT(NEW.b, 10), '+');\n  INSERT INTO {u} (what) VALUES ('update; with a semicolon');\nEND",
		fill, touch, "CREATE TRIGGER g{n}_d AFTER DELETE ON {t} FOR EACH ROW DELETE FROM {u} WHERE id = OLD.id", less, "DROP TRIGGER g{n}_u", touch, "DROP TRIGGER IF EXISTS g{n}_d", more,
	}},
	{name: "routines", statements: []string{
		simple, fill, "CREATE PROCEDURE p{n} (IN x INT) MODIFIES SQL DATA\nBEGIN\n  DECLARE i INT DEFAULT 0;\n  WHILE i < x DO\n    INSERT INTO {t} (a, b) VALUES (i, 'called');\n    SET i = i + 1;\n  END WHILE;\nEND",
		"CALL p{n}(3)", "CREATE FUNCTION f{n} (s VARCHAR(20)) RETURNS VARCHAR(30) DETERMINISTIC RETURN CONCAT('[', s, ']')", "UPDATE {t} SET b = f{n}(a)", "ALTER PROCEDURE p{n} COMMENT 'changed'",
		"DROP FUNCTION f{n}", "CREATE EVENT e{n} ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM {t}", "ALTER EVENT e{n} COMMENT 'never runs'", "DROP EVENT e{n}", more, "DROP PROCEDURE IF EXISTS p{n}",
	}},
	{name: "sessions", statements: []string{
		"SET SESSION sql_mode = 'ANSI_QUOTES'", "CREATE TABLE {t} (\"id\" INT AUTO_INCREMENT PRIMARY KEY, \"a\" INT, \"b\" VARCHAR(20) DEFAULT 'quo\"te')", "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'", fill,
		"SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'", "ALTER TABLE {t} COMMENT 'a\\b'", "SET SESSION sql_mode = ''", "ALTER TABLE {t} ADD COLUMN z DATE NOT NULL DEFAULT '0000-00-00'", more,
		"SET SESSION sql_mode = 'ALLOW_INVALID_DATES'", "SET SESSION time_zone = '+09:00'", "ALTER TABLE {t} ADD COLUMN ts TIMESTAMP NOT NULL DEFAULT '2024-06-01 12:00:00'", more,
		"ALTER TABLE {t} ADD COLUMN now1 DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)", more, "SET SESSION time_zone = '+00:00'",
		"USE " + Schema, "ALTER TABLE " + ddlSchema + ".{t} ADD COLUMN far INT", "USE " + ddlSchema, touch,
		"/* a comment first */ ALTER TABLE {t} -- and one behind\n ADD COLUMN c1 INT COMMENT '-- ; /* */'", "# another kind\nALTER TABLE {t} DROP COLUMN c1", more,
		"/*!50000 ALTER TABLE {t} ADD COLUMN c2 INT */", touch,
	}},
	{name: "charsets", statements: []string{
		"CREATE TABLE {t} (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(20) COMMENT '备注', `列` INT DEFAULT 1) DEFAULT CHARSET=gbk COMMENT='订单表'", fill, "ALTER TABLE {t} CHANGE `列` `欄` BIGINT", more,
		"ALTER TABLE {t} MODIFY b VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT 'ß'", "INSERT INTO {t} (a) VALUES (1)", "CREATE TABLE `{u} é` (`é` ENUM('ä','ö') CHARACTER SET latin1)", "INSERT INTO `{u} é` VALUES ('ö')", "DROP TABLE `{u} é`",
	}},
	{name: "databases", statements: []string{
		"CREATE DATABASE load_tmp_{n} CHARACTER SET latin1", "CREATE TABLE load_tmp_{n}.x (id INT PRIMARY KEY, s VARCHAR(9))", "INSERT INTO load_tmp_{n}.x VALUES (1,'ä')", "ALTER DATABASE load_tmp_{n} CHARACTER SET utf8mb4",
		"CREATE TABLE load_tmp_{n}.y (s VARCHAR(9))", "INSERT INTO load_tmp_{n}.y VALUES ('订')", "DROP DATABASE load_tmp_{n}", simple, fill,
	}},
	{name: "temporary", statements: []string{
		"CREATE TEMPORARY TABLE {u} (id INT)", "INSERT INTO {u} VALUES (1),(2)", simple, "INSERT INTO {t} (a) SELECT id FROM {u}", "ALTER TABLE {u} ADD COLUMN x INT", "DROP TEMPORARY TABLE {u}", touch,
	}},
	{name: "failing", fails: true, statements: []string{
		simple, fill, "ALTER TABLE {t} ADD UNIQUE KEY (no_such_column)", "CREATE TABLE {t} (x INT)", "DROP TABLE no_such_table_{n}", "ALTER TABLE {t} ADD PRIMARY KEY (a)", more,
		"INSERT INTO {t} (a, b) VALUES (1,'one'),(1,'dup')", "ALTER TABLE {t} ADD UNIQUE KEY (a)", touch, "DROP TABLE no_such_table_{n}, {t}",
	}},
	{name: "large-object", statements: []string{
		"CREATE TABLE {t} (id INT PRIMARY KEY, b LONGBLOB, j JSON)", "INSERT INTO {t} VALUES (1, REPEAT(0x00ff, 1000000), '[]')", "UPDATE {t} SET j = '{\"a\": 1}'", "UPDATE {t} SET b = REPEAT(0x41, 3000000)", "DELETE FROM {t}", "INSERT INTO {t} VALUES (2, '', NULL)",
	}},
	{name: "shared-tables", statements: []string{
		// While other clients write to them.
		"ALTER TABLE " + Schema + ".account ADD COLUMN x{n} INT DEFAULT 1", "UPDATE " + Schema + ".account SET x{n} = id WHERE id < 10", "ALTER TABLE " + Schema + ".account DROP COLUMN x{n}",
		"CREATE INDEX i{n} ON " + Schema + ".orders (total)", "DROP INDEX i{n} ON " + Schema + ".orders", "ALTER TABLE " + Schema + ".seat ADD COLUMN note VARCHAR(9) INVISIBLE", "UPDATE " + Schema + ".seat SET note = 'n' WHERE id < 5", "ALTER TABLE " + Schema + ".seat DROP COLUMN note",
		"ALTER TABLE " + Schema + ".key_unique ADD UNIQUE KEY un{n} (id, u)", "ALTER TABLE " + Schema + ".key_unique DROP KEY un{n}",
	}},
	{name: "mysql-only", only: server.MySQL, statements: []string{
		simple, fill, "ALTER TABLE {t} ADD INDEX ix (a) INVISIBLE, ADD INDEX iy (b)", more, "ALTER TABLE {t} ALTER INDEX ix VISIBLE, ALTER INDEX iy INVISIBLE", more, "ALTER TABLE {t} ADD INDEX fx ((a + 1))", touch, "ALTER TABLE {t} ADD COLUMN ex VARCHAR(40) DEFAULT (CONCAT('x', 'y'))", more,
		"ALTER TABLE {t} MODIFY b VARCHAR(20) INVISIBLE", "INSERT INTO {t} (a, b) VALUES (3, 'hidden')", "ALTER TABLE {t} ADD COLUMN p POINT SRID 0", touch, "ALTER TABLE {t} DROP INDEX fx", "ALTER TABLE {t} RENAME COLUMN a TO a2, RENAME COLUMN ex TO a", "UPDATE {t} SET a = 'swapped names'",
		"SET SESSION sql_generate_invisible_primary_key = ON", "CREATE TABLE {u} (x INT)", "INSERT INTO {u} VALUES (1),(1),(2)", "SET SESSION sql_generate_invisible_primary_key = OFF", "UPDATE {u} SET x = 5 WHERE x = 2", "ALTER TABLE {u} ALTER COLUMN my_row_id SET VISIBLE", "DELETE FROM {u} WHERE x = 1 LIMIT 1",
	}},
	{name: "mariadb-only", only: server.MariaDB, statements: []string{
		simple, fill, "CREATE OR REPLACE TABLE {t} (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(20), u UUID DEFAULT UUID())", more, "ALTER TABLE IF EXISTS {t} ADD COLUMN IF NOT EXISTS c INT, DROP COLUMN IF EXISTS no_such", touch,
		"CREATE TABLE {u} (a INT CHECK (a > 0), b INT AS (a * 2) PERSISTENT)", "INSERT INTO {u} (a) VALUES (1)", "ALTER TABLE {t} ADD INDEX IF NOT EXISTS ia (a)", more, "DROP INDEX IF EXISTS ia ON {t}", "CREATE OR REPLACE VIEW v{n} AS SELECT 1 AS one", "DROP VIEW v{n}",
		"CREATE TABLE {u}_p (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))", "INSERT INTO {u}_p VALUES (1), (11)", "ALTER TABLE {u}_p CONVERT PARTITION p0 TO TABLE {u}_q", "INSERT INTO {u}_q VALUES (2)",
	}},
}

// startOver comes between two rounds, so that tables do not pile up.
var startOver = scenario{name: "start-over", statements: []string{"DROP DATABASE IF EXISTS " + ddlSchema, "CREATE DATABASE " + ddlSchema}}

// ScenarioNames lists the DDL scenarios of a server family.
func ScenarioNames(f server.Flavor) []string {
	var names []string
	for _, s := range scenarios {
		if s.only == "" || s.only == f {
			names = append(names, s.name)
		}
	}
	return names
}

// Scenario runs one DDL scenario by name, each run on fresh tables.
func (w *Workload) Scenario(ctx context.Context, name string) error {
	for _, s := range scenarios {
		if s.name == name {
			c, err := w.connect(ctx, w.random(1<<33), true)
			if err != nil {
				return err
			}
			defer c.close()
			return w.play(ctx, c, s, 0)
		}
	}
	return fmt.Errorf("workload: no DDL scenario %q", name)
}

// definitions plays the scenarios in random order until the context ends; each
// comes once before any comes again.
func (w *Workload) definitions(ctx context.Context) error {
	r := w.random(1 << 34)
	for round := 0; ; round++ {
		order := r.Perm(len(scenarios))
		if round > 0 {
			order = append([]int{-1}, order...)
		}
		for _, k := range order {
			s := startOver
			if k >= 0 {
				s = scenarios[k]
			}
			if s.only != "" && s.only != w.info.Flavor {
				continue
			}
			c, err := w.connect(ctx, r, true)
			if err != nil {
				return unlessDone(ctx, err)
			}
			w.cfg.Log.Debug().Str("scenario", s.name).Msg("definitions")
			err = w.settle(w.play(ctx, c, s, w.cfg.DDLEvery))
			c.close()
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the load is over
			}
			if err != nil {
				w.reconnects.Add(1)
			}
		}
	}
}

func (w *Workload) play(ctx context.Context, c *client, s scenario, pause time.Duration) error {
	number := strconv.FormatInt(w.played.Add(1), 10)
	names := strings.NewReplacer("{t}", "t"+number, "{u}", "u"+number, "{n}", number)
	if err := c.exec(ctx, "USE "+ddlSchema); err != nil && server.ErrorNumber(err) != 1049 { // startOver was cut short
		return err
	}
	for _, q := range s.statements {
		c.rows = 0
		q = names.Replace(q)
		err := c.exec(ctx, q)
		if err != nil && s.fails && server.ErrorNumber(err) != 0 && !goesAway(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("scenario %s: %w", s.name, err)
		}
		if rowStatement(q) {
			w.transactions.Add(1)
			w.rows.Add(c.rows)
		} else {
			w.ddl.Add(1)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
	return nil
}

func rowStatement(q string) bool {
	for _, v := range []string{"INSERT", "UPDATE", "DELETE", "CALL"} {
		if strings.HasPrefix(q, v) {
			return true
		}
	}
	return false
}
