package doctor

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/server"
)

// probe is one server being looked at: what it says of itself, read once.
type probe struct {
	*Report
	db     *sql.DB
	info   server.Info
	vars   map[string]string // global variables, names in lower case
	grants *grants
	// skew is the server's clock minus ours; rtt is how long the question took.
	skew, rtt time.Duration
}

// newProbe reads the server. An error means that it can't be talked to.
func newProbe(ctx context.Context, r *Report, db *sql.DB) (*probe, error) {
	p := &probe{Report: r, db: db, vars: map[string]string{}}
	var err error
	if p.info, err = server.Detect(ctx, db); err != nil {
		return nil, err
	}
	r.Server = fmt.Sprintf("%s %s", flavorName(p.info.Flavor), p.info.Version)
	rows, err := db.QueryContext(ctx, "SHOW GLOBAL VARIABLES")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		p.vars[strings.ToLower(name)] = value
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if p.grants, err = readGrants(ctx, db, p.info.Flavor); err != nil {
		return nil, err
	}
	// The second question travels on a warm connection: its time is the path's.
	for range 2 {
		var micros int64
		before := time.Now()
		err := db.QueryRowContext(ctx, "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)").Scan(&micros)
		if err != nil {
			return nil, err
		}
		p.rtt = time.Since(before)
		p.skew = time.UnixMicro(micros).Sub(before.Add(p.rtt / 2))
	}
	return p, nil
}

func flavorName(f server.Flavor) string {
	if f == server.MariaDB {
		return "MariaDB"
	}
	return "MySQL"
}

func (p *probe) mariadb() bool { return p.info.Flavor == server.MariaDB }

// on tells whether a switch is on, whichever way the server spells it.
func (p *probe) on(name string) bool {
	v := strings.ToUpper(p.vars[name])
	return v == "ON" || v == "1" || v == "YES" || v == "TRUE"
}

// number is a numeric variable; false when the server has none by that name.
func (p *probe) number(name string) (int64, bool) {
	n, err := strconv.ParseInt(p.vars[name], 10, 64)
	return n, err == nil
}

// first is the first of the names that the server knows.
func (p *probe) first(names ...string) string {
	for _, n := range names {
		if _, ok := p.vars[n]; ok {
			return n
		}
	}
	return names[0]
}

// set is the SQL that changes a variable so that it stays.
func (p *probe) set(name, value string) []string {
	if p.mariadb() {
		return []string{fmt.Sprintf("SET GLOBAL %s = %s", name, value),
			fmt.Sprintf("-- and %s = %s under [mariadbd] in the server's configuration file, so that it stays", name, strings.Trim(value, "'"))}
	}
	return []string{fmt.Sprintf("SET PERSIST %s = %s", name, value)}
}

// inFile is what to say of a variable that can't be changed while running.
func (p *probe) inFile(name, value string) []string {
	section := "[mysqld]"
	if p.mariadb() {
		section = "[mariadbd]"
	}
	return []string{fmt.Sprintf("-- %s = %s under %s in the server's configuration file, then restart it", name, value, section)}
}

// must checks that a variable has one of the wanted values (upper case).
func (p *probe) must(check, name string, s Severity, wanted []string, remedy string, sql []string) {
	value, known := p.vars[name]
	if !known {
		return // not on this version: its behaviour is the only one
	}
	for _, w := range wanted {
		if strings.EqualFold(value, w) {
			p.ok(check, s, "%s is %s", name, shown(value))
			return
		}
	}
	p.add(Finding{Check: check, Severity: s, Outcome: Failed,
		Detail: fmt.Sprintf("%s is %s", name, shown(value)), Remedy: remedy, SQL: sql})
}

func shown(v string) string {
	if v == "" {
		return "''"
	}
	return v
}

// names runs a query of one text column, at most limit+1 rows.
func (p *probe) names(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := p.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

// row reads the first row of a statement by column name; nil when it has none.
// SHOW statements differ in their columns between versions.
func (p *probe) row(ctx context.Context, query string) (map[string]string, error) {
	all, err := p.rows(ctx, query)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

func (p *probe) rows(ctx context.Context, query string) ([]map[string]string, error) {
	rows, err := p.db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var out []map[string]string
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		m := map[string]string{}
		for i, c := range columns {
			m[strings.ToLower(c)] = values[i].String
		}
		out = append(out, m)
	}
	return out, rows.Err()
}

// clock compares the server's clock with ours: commit times are the source's,
// lag is measured here.
func (p *probe) clock() {
	off := p.skew.Abs()
	if off < p.rtt {
		off = 0 // within what the path leaves open
	}
	switch {
	case off < time.Second:
		p.ok("clock", Advisory, "the server's clock is within %s of this machine's", max(off, p.rtt).Round(time.Millisecond))
	default:
		p.add(Finding{Check: "clock", Severity: Advisory, Outcome: Failed,
			Detail: fmt.Sprintf("the server's clock is %s off this machine's", p.skew.Round(time.Millisecond)),
			Remedy: "let NTP keep both: lag in seconds is wrong by this much"})
	}
}

// tls says whether the connection is encrypted and until when its certificate is
// good.
func (p *probe) tls(ctx context.Context) {
	rows, err := p.rows(ctx, "SHOW SESSION STATUS LIKE 'Ssl\\_%'")
	if err != nil {
		p.unknown("tls", Advisory, err)
		return
	}
	status := map[string]string{}
	for _, r := range rows {
		status[strings.ToLower(r["variable_name"])] = r["value"]
	}
	if status["ssl_cipher"] == "" {
		if local(p.Where) {
			p.ok("tls", Advisory, "not encrypted, and the server is on this machine")
			return
		}
		p.add(Finding{Check: "tls", Severity: Advisory, Outcome: Failed, Detail: "the connection is not encrypted",
			Remedy: "set tls.mode to required or verify for this server, and REQUIRE SSL on the account",
			SQL:    []string{fmt.Sprintf("ALTER USER %s REQUIRE SSL", p.grants.account)}})
		return
	}
	text := status["ssl_server_not_after"]
	until, err := time.Parse("Jan _2 15:04:05 2006 MST", text)
	if err != nil {
		p.ok("tls", Advisory, "encrypted with %s", status["ssl_cipher"])
		return
	}
	left := time.Until(until)
	if left < 14*24*time.Hour {
		detail := fmt.Sprintf("the server's certificate ends on %s", until.Format(time.DateOnly))
		if left < 0 {
			detail = fmt.Sprintf("the server's certificate ended on %s", until.Format(time.DateOnly))
		}
		p.add(Finding{Check: "tls", Severity: Advisory, Outcome: Failed, Detail: detail,
			Remedy: "give the server a new certificate, then ALTER INSTANCE RELOAD TLS (MySQL) or FLUSH SSL (MariaDB)"})
		return
	}
	p.ok("tls", Advisory, "encrypted with %s, certificate good until %s", status["ssl_cipher"], until.Format(time.DateOnly))
}

func local(address string) bool {
	return strings.HasPrefix(address, "/") || strings.HasPrefix(address, "127.") ||
		strings.HasPrefix(address, "localhost:") || strings.HasPrefix(address, "[::1]")
}
