package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

// decodeShape is a kind of table whose changes the decode part reads.
type decodeShape struct {
	name    string
	share   int    // of the part's rows, one in share
	columns string // after "id INT PRIMARY KEY"
	values  func(id int) string
	set     string // of the updates
	updates int    // of each row
	single  bool   // one row change is one transaction
	judged  bool   // the part fails where this one misses its bounds
}

var decodeShapes = []decodeShape{
	{
		// Images of about 388 bytes a change: an insert has one of about 211,
		// an update two.
		name: "mixed types", share: 1, judged: true, updates: 5, set: "b=b+1, j=id",
		columns: `a BIGINT UNSIGNED, b DECIMAL(18,4), c DATETIME(6), d DATE, e VARCHAR(64), f CHAR(60), g VARBINARY(40), h ENUM('new','paid','void'),
			i DOUBLE, j INT NULL, k TIMESTAMP(3), l SMALLINT, m TINYINT UNSIGNED, n VARCHAR(20) NULL`,
		values: func(id int) string {
			return fmt.Sprintf("%d,%d.%04d,'2026-01-02 03:04:05.%06d','2026-02-03','customer-%035d',REPEAT('f',58),REPEAT('g',38),'paid',%d.5,NULL,"+
				"'2026-01-02 03:04:05.123',%d,%d,'note-%d'", uint64(id)<<32, id, id%10000, id%1000000, id, id, id%30000, id%200, id)
		},
	},
	{
		name: "narrow integers", share: 2, updates: 3, set: "a=a+1, c=c+7",
		columns: "a INT NOT NULL, b SMALLINT NOT NULL, c BIGINT NOT NULL, d TINYINT UNSIGNED NOT NULL",
		values:  func(id int) string { return fmt.Sprintf("%d,%d,%d,%d", id*3, id%30000, int64(id)<<30, id%200) },
	},
	{
		name: "wide strings", share: 8, updates: 2, set: "b=CONCAT(b,'x')",
		columns: "a VARCHAR(2000), b TEXT, c VARCHAR(200), d VARCHAR(500) CHARACTER SET latin1",
		values: func(id int) string {
			return fmt.Sprintf("REPEAT('wide ü ',100),REPEAT('text of row %d ',60),REPEAT('c',150),REPEAT('é',300)", id)
		},
	},
	{
		name: "JSON", share: 8, updates: 2, set: "n=n+1, a=JSON_SET(a,'$.n',n)",
		columns: "n INT, a JSON",
		values: func(id int) string {
			return fmt.Sprintf(`%d,'{"n": %d, "name": "customer %d", "tags": ["new", "paid", "north"], "address": {"street": "a street of usual length", "zip": "%05d", "geo": [12.5, %d.25]}, "active": true, "note": null}'`,
				id, id, id, id%100000, id%90)
		},
	},
	{
		name: "60 columns, most NULL", share: 8, updates: 2, set: "c7=IFNULL(c7,0)+1, c32='changed'",
		columns: nullable(60),
		values:  func(id int) string { return fmt.Sprintf("%d,'a name'", id) + strings.Repeat(",NULL", 58) },
	},
	{
		name: "one row a transaction", share: 3, updates: 2, set: "a=a+1", single: true,
		columns: "a INT NOT NULL, b VARCHAR(40), c DATETIME(3)",
		values:  func(id int) string { return fmt.Sprintf("%d,'name %d','2026-01-02 03:04:05.678'", id, id) },
	},
}

// nullable is columns c1 to cn that may be NULL, of two types in turn.
func nullable(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("c%d %s", i+1, [...]string{"BIGINT", "VARCHAR(100)"}[i%2])
	}
	return strings.Join(list, ", ")
}

// load writes about rows row changes of the shape and returns how many they are
// and how many bytes of binlog.
func (d decodeShape) load(ctx context.Context, source *mysqltest.Server, rows int) (changes int, bytes int64, err error) {
	db := source.DB()
	exec := func(q string, args ...any) (affected int) {
		if err != nil {
			return 0
		}
		var done sql.Result
		if done, err = db.ExecContext(ctx, q, args...); err != nil {
			return 0
		}
		var n int64
		n, err = done.RowsAffected()
		return int(n)
	}
	exec("CREATE DATABASE bench")
	exec("CREATE TABLE bench.d (id INT PRIMARY KEY, " + d.columns + ")")
	exec("CREATE PROCEDURE bench.each_row(id_from INT, id_end INT) BEGIN WHILE id_from < id_end DO UPDATE bench.d SET " + d.set +
		" WHERE id=id_from; SET id_from=id_from+1; END WHILE; END")
	const step = 1000
	for from := 0; changes < rows && err == nil; from += step {
		list := make([]string, step)
		for i := range list {
			list[i] = fmt.Sprintf("(%d,%s)", from+i, d.values(from+i))
		}
		changes += exec("INSERT INTO bench.d VALUES " + strings.Join(list, ","))
		for range d.updates {
			if d.single {
				exec("CALL bench.each_row(?,?)", from, from+step)
				changes += step
			} else {
				changes += exec("UPDATE bench.d SET "+d.set+" WHERE id>=? AND id<?", from, from+step)
			}
		}
	}
	if err != nil {
		return 0, 0, err
	}
	logs, err := db.QueryContext(ctx, "SHOW BINARY LOGS")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = logs.Close() }() // read only
	columns, err := logs.Columns()
	if err != nil {
		return 0, 0, err
	}
	row := make([]any, len(columns)) // the file, its size, and more with MySQL
	for i := range row {
		row[i] = new(any)
	}
	var size int64
	row[1] = &size
	for logs.Next() {
		if err := logs.Scan(row...); err != nil {
			return 0, 0, err
		}
		bytes += size
	}
	return changes, bytes, logs.Err()
}
