package doctor

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
)

// grants are an account's privileges as SHOW GRANTS prints them, those of its
// active roles included.
type grants struct {
	account string // 'user'@'host', quoted
	// on maps a scope, "*.*" or "schema.*", to the privileges there. Table
	// and column grants are left out: they are never enough for us.
	on map[string][]string
}

// readGrants asks the server for the privileges of the connected account.
func readGrants(ctx context.Context, db *sql.DB, flavor server.Flavor) (*grants, error) {
	var user string
	if err := db.QueryRowContext(ctx, "SELECT CURRENT_USER()").Scan(&user); err != nil {
		return nil, err
	}
	g := &grants{account: quoteAccount(user), on: map[string][]string{}}
	statement := "SHOW GRANTS"
	if flavor == server.MySQL {
		var roles string
		if err := db.QueryRowContext(ctx, "SELECT CURRENT_ROLE()").Scan(&roles); err != nil {
			return nil, err
		}
		if roles != "NONE" && roles != "" {
			statement = "SHOW GRANTS FOR CURRENT_USER() USING " + roles
		}
	}
	rows, err := db.QueryContext(ctx, statement)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		g.add(line)
	}
	return g, rows.Err()
}

// grantShape takes a line of SHOW GRANTS apart: privileges, scope.
var grantShape = regexp.MustCompile("^GRANT (.+?) ON ((?:`(?:[^`]|``)*`|\\*)\\.(?:`(?:[^`]|``)*`|\\*)) TO ")

func (g *grants) add(line string) {
	m := grantShape.FindStringSubmatch(line)
	if m == nil {
		return // GRANT role TO user, GRANT PROXY, table and routine grants
	}
	scope := strings.ReplaceAll(m[2], "`", "")
	if !strings.HasSuffix(scope, ".*") {
		return
	}
	for _, p := range strings.Split(m[1], ",") {
		if p = strings.ToUpper(strings.TrimSpace(p)); !strings.ContainsAny(p, "()") {
			g.on[scope] = append(g.on[scope], p)
		}
	}
}

// static are the privileges that GRANT ALL includes on every version; the
// dynamic ones are listed by name beside it on MySQL and are part of it on
// MariaDB.
var mysqlDynamic = []string{
	"CONNECTION_ADMIN", "SESSION_VARIABLES_ADMIN", "SYSTEM_VARIABLES_ADMIN", "SYSTEM_USER", "SET_ANY_DEFINER",
	"SET_USER_ID", "ALLOW_NONEXISTENT_DEFINER", "REPLICATION_APPLIER", "REPLICATION_SLAVE_ADMIN",
}

// has tells whether the privilege is held for all of scope. A schema may be
// granted by a pattern.
func (g *grants) has(privilege, scope string) bool {
	for granted, privileges := range g.on {
		if granted != "*.*" && granted != scope && !patternCovers(granted, scope) {
			continue
		}
		if slices.Contains(privileges, privilege) {
			return true
		}
		all := slices.Contains(privileges, "ALL PRIVILEGES") || slices.Contains(privileges, "ALL")
		if all && !slices.Contains(mysqlDynamic, privilege) {
			return true
		}
	}
	return false
}

// patternCovers matches a schema against a granted pattern with % and _.
func patternCovers(granted, scope string) bool {
	p, ok := strings.CutSuffix(granted, ".*")
	if !ok || scope == "*.*" || p == "*" {
		return false
	}
	var b strings.Builder
	b.WriteString("(?s)^")
	escaped := false
	for _, r := range p {
		switch {
		case escaped:
			b.WriteString(regexp.QuoteMeta(string(r)))
			escaped = false
		case r == '\\':
			escaped = true
		case r == '%':
			b.WriteString(".*")
		case r == '_':
			b.WriteString(".")
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	ok, err := regexp.MatchString(b.String()+"$", strings.TrimSuffix(scope, ".*"))
	return err == nil && ok
}

// missing are those of the privileges that are not held for scope.
func (g *grants) missing(scope string, privileges ...string) []string {
	var out []string
	for _, p := range privileges {
		if !g.has(p, scope) {
			out = append(out, p)
		}
	}
	return out
}

// statement grants privileges to the account.
func (g *grants) statement(scope string, privileges []string) string {
	if s, ok := strings.CutSuffix(scope, ".*"); ok && s != "*" {
		scope = server.QuoteName(s) + ".*"
	}
	return fmt.Sprintf("GRANT %s ON %s TO %s", strings.Join(privileges, ", "), scope, g.account)
}

// quoteAccount quotes user@host; the host is what follows the last @.
func quoteAccount(s string) string {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return quoteText(s)
	}
	return quoteText(s[:i]) + "@" + quoteText(s[i+1:])
}

func quoteText(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'"
}
