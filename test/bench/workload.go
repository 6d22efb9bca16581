package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
)

// workload is a kind of backlog.
type workload struct {
	name, title           string
	rows                  int     // row changes a round, at scale 1
	rounds                int     // unless told
	target, targetMariaDB float64 // times native replication's best
	// merges: so many changes become one that the target hardly works. What our
	// CPU is a part of is then native's mysqld's, which does all of them.
	merges  bool
	prepare func(ctx context.Context, db *sql.DB, scale float64) error
	load    func(ctx context.Context, l *loader, rng *rand.Rand, rows int) (changes int, err error)
}

var workloads = []workload{
	{"a", "OLTP writes: 8 tables of 100k rows, transactions of two updates, a delete and an insert", 60_000, 1, 5, 3, false, prepareOLTP(""), loadOLTP},
	{"b", "bulk inserts of 200 B rows in transactions of 1,000", 1_000_000, 3, 1, 0, false, prepareBulk, loadBulk},
	{"c", "updates over 100 hot rows", 200_000, 1, 20, 10, true, prepareHot, loadHot},
	{"d", "one UPDATE of all rows", 1_000_000, 3, 1, 0, false, prepareWide, loadWide},
	{"e", "as a, with a secondary unique key and a foreign key", 60_000, 1, 2, 0, false, prepareLinked, loadLinked},
	{transactionMode, "as a, whole transactions in the source's order", 60_000, 1, 2, 0, false, prepareOLTP(""), loadOLTP},
}

// transactionMode is the workload that our side applies with atomicity transaction.
const transactionMode = "f"

const oltpTables = 8

// oltpRows is the size of each table of the last prepareOLTP.
var oltpRows int

func execAll(ctx context.Context, db *sql.DB, statements ...string) error {
	for _, q := range statements {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("%.80s: %w", q, err)
		}
	}
	return nil
}

// fill inserts rows from 1 to n, a thousand a statement; row renders one.
func fill(ctx context.Context, db *sql.DB, table string, n int, row func(b *strings.Builder, id int)) error {
	for from := 1; from <= n; from += 1000 {
		var b strings.Builder
		fmt.Fprintf(&b, "INSERT INTO %s VALUES ", table)
		for id := from; id < from+1000 && id <= n; id++ {
			if id > from {
				b.WriteByte(',')
			}
			row(&b, id)
		}
		if _, err := db.ExecContext(ctx, b.String()); err != nil {
			return err
		}
	}
	return nil
}

func prepareOLTP(more string) func(context.Context, *sql.DB, float64) error {
	return func(ctx context.Context, db *sql.DB, scale float64) error {
		oltpRows = max(1000, int(100_000*scale))
		if err := execAll(ctx, db, "CREATE DATABASE bench"); err != nil {
			return err
		}
		for t := range oltpTables {
			table := fmt.Sprintf("bench.sbtest%d", t)
			if err := execAll(ctx, db, "CREATE TABLE "+table+" (id INT PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, KEY k (k)"+more+")"); err != nil {
				return err
			}
			if err := fill(ctx, db, table, oltpRows, func(b *strings.Builder, id int) {
				fmt.Fprintf(b, "(%d,%d,REPEAT('%c',119),REPEAT('p',59))", id, id%997, 'a'+rune(id%26))
			}); err != nil {
				return err
			}
		}
		return nil
	}
}

// loader is one connection that sends a whole transaction at a time, so that a
// backlog is made faster than anyone applies it.
type loader struct {
	db   *sql.DB
	conn *sql.Conn
}

func newLoader(ctx context.Context, srv *mysqltest.Server) (*loader, error) {
	db, err := server.Open(srv.Endpoint(), server.Options{MultiStatements: true})
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &loader{db, conn}, nil
}

func (l *loader) close() {
	if l == nil {
		return
	}
	if err := errors.Join(l.conn.Close(), l.db.Close()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// exec runs statements as one transaction and says how many rows they changed.
func (l *loader) exec(ctx context.Context, statements []string) (changed int, err error) {
	text := statements[0]
	if len(statements) > 1 {
		text = "BEGIN;" + strings.Join(statements, ";") + ";COMMIT"
	}
	err = l.conn.Raw(func(d any) error {
		r, err := d.(driver.ExecerContext).ExecContext(ctx, text, nil)
		if err != nil {
			return fmt.Errorf("%.80s: %w", text, err)
		}
		for _, n := range r.(mysql.Result).AllRowsAffected() {
			changed += int(n)
		}
		return nil
	})
	return changed, err
}

// transactions runs what f makes, a transaction at a time, until there are enough
// changes.
func transactions(ctx context.Context, l *loader, rows int, f func(done int) []string) (int, error) {
	done := 0
	for done < rows {
		n, err := l.exec(ctx, f(done))
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// loadOLTP is the classic OLTP write mix: two updates, a delete, and an insert of
// the deleted row.
func loadOLTP(ctx context.Context, l *loader, rng *rand.Rand, rows int) (int, error) {
	return transactions(ctx, l, rows, func(done int) []string {
		t, a, b, d := rng.IntN(oltpTables), rng.IntN(oltpRows)+1, rng.IntN(oltpRows)+1, rng.IntN(oltpRows)+1
		return []string{
			fmt.Sprintf("UPDATE bench.sbtest%d SET k=k+1 WHERE id=%d", t, a),
			fmt.Sprintf("UPDATE bench.sbtest%d SET c=REPEAT('%c',%d) WHERE id=%d", t, 'a'+rune(rng.IntN(26)), 60+rng.IntN(60), b),
			fmt.Sprintf("DELETE FROM bench.sbtest%d WHERE id=%d", t, d),
			fmt.Sprintf("INSERT INTO bench.sbtest%d VALUES (%d,%d,REPEAT('n',119),REPEAT('q',59))", t, d, done),
		}
	})
}

func prepareBulk(ctx context.Context, db *sql.DB, _ float64) error {
	return execAll(ctx, db, "CREATE DATABASE bench",
		"CREATE TABLE bench.bulk (id BIGINT PRIMARY KEY AUTO_INCREMENT, k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL)")
}

func loadBulk(ctx context.Context, l *loader, _ *rand.Rand, rows int) (int, error) {
	return transactions(ctx, l, rows, func(done int) []string {
		var b strings.Builder
		b.WriteString("INSERT INTO bench.bulk (k, c, pad) VALUES ")
		for i := range 1000 {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "(%d,REPEAT('%c',119),REPEAT('p',59))", done+i, 'a'+rune(i%26))
		}
		return []string{b.String()}
	})
}

func prepareHot(ctx context.Context, db *sql.DB, _ float64) error {
	if err := execAll(ctx, db, "CREATE DATABASE bench",
		"CREATE TABLE bench.account (id INT PRIMARY KEY, balance DECIMAL(20,4) NOT NULL, changed DATETIME(6) NOT NULL, note VARCHAR(80) NOT NULL)"); err != nil {
		return err
	}
	return fill(ctx, db, "bench.account", 100, func(b *strings.Builder, id int) {
		fmt.Fprintf(b, "(%d,1000,NOW(6),REPEAT('n',60))", id)
	})
}

func loadHot(ctx context.Context, l *loader, rng *rand.Rand, rows int) (int, error) {
	return transactions(ctx, l, rows, func(int) []string {
		return []string{fmt.Sprintf("UPDATE bench.account SET balance = balance + %d.25, changed = NOW(6) WHERE id = %d", 1+rng.IntN(99), 1+rng.IntN(100))}
	})
}

func prepareWide(ctx context.Context, db *sql.DB, scale float64) error {
	if err := execAll(ctx, db, "CREATE DATABASE bench",
		"CREATE TABLE bench.wide (id INT PRIMARY KEY, n INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL)"); err != nil {
		return err
	}
	return fill(ctx, db, "bench.wide", max(1, int(1_000_000*scale)), func(b *strings.Builder, id int) {
		fmt.Fprintf(b, "(%d,%d,REPEAT('%c',119),REPEAT('p',59))", id, id, 'a'+rune(id%26))
	})
}

func loadWide(ctx context.Context, l *loader, _ *rand.Rand, rows int) (int, error) {
	return transactions(ctx, l, rows, func(int) []string { return []string{"UPDATE bench.wide SET n = n + 1"} })
}

const shops = 1000

func prepareLinked(ctx context.Context, db *sql.DB, scale float64) error {
	oltpRows = max(1000, int(100_000*scale))
	if err := execAll(ctx, db, "CREATE DATABASE bench", "CREATE TABLE bench.shop (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL)"); err != nil {
		return err
	}
	if err := fill(ctx, db, "bench.shop", shops, func(b *strings.Builder, id int) { fmt.Fprintf(b, "(%d,'shop %d')", id, id) }); err != nil {
		return err
	}
	for t := range oltpTables {
		table := fmt.Sprintf("bench.sbtest%d", t)
		if err := execAll(ctx, db, "CREATE TABLE "+table+` (id INT PRIMARY KEY, k INT NOT NULL, shop INT NOT NULL, u BIGINT NOT NULL, c CHAR(120) NOT NULL,
			pad CHAR(60) NOT NULL, KEY k (k), UNIQUE KEY u (u), FOREIGN KEY (shop) REFERENCES bench.shop (id))`); err != nil {
			return err
		}
		if err := fill(ctx, db, table, oltpRows, func(b *strings.Builder, id int) {
			fmt.Fprintf(b, "(%d,%d,%d,%d,REPEAT('%c',119),REPEAT('p',59))", id, id%997, 1+id%shops, id, 'a'+rune(id%26))
		}); err != nil {
			return err
		}
	}
	return nil
}

// nextUnique is a value of u that no row has had.
var nextUnique = 1 << 40

func loadLinked(ctx context.Context, l *loader, rng *rand.Rand, rows int) (int, error) {
	return transactions(ctx, l, rows, func(done int) []string {
		t, a, b, d := rng.IntN(oltpTables), rng.IntN(oltpRows)+1, rng.IntN(oltpRows)+1, rng.IntN(oltpRows)+1
		nextUnique += 2
		return []string{
			fmt.Sprintf("UPDATE bench.sbtest%d SET k=k+1 WHERE id=%d", t, a),
			fmt.Sprintf("UPDATE bench.sbtest%d SET c=REPEAT('%c',%d), u=%d WHERE id=%d", t, 'a'+rune(rng.IntN(26)), 60+rng.IntN(60), nextUnique, b),
			fmt.Sprintf("DELETE FROM bench.sbtest%d WHERE id=%d", t, d),
			fmt.Sprintf("INSERT INTO bench.sbtest%d VALUES (%d,%d,%d,%d,REPEAT('n',119),REPEAT('q',59))", t, d, done, 1+rng.IntN(shops), nextUnique+1),
		}
	})
}
