package target

import (
	"regexp"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
)

// grants are an account's privileges: upper case words by scope, "*.*" or a
// schema's pattern as GRANT writes it.
type grants struct {
	account string // quoted, for GRANT
	scopes  map[string][]string
	all     map[string]bool
}

var grantLine = regexp.MustCompile("^GRANT (.+) ON (\\*\\.\\*|(?:`(?:[^`]|``)+`|[^ .]+)\\.\\*) TO (\\S+)")

// parseGrants reads the lines of SHOW GRANTS. Grants on single tables and columns
// do not count: DDL makes new ones.
func parseGrants(lines []string) grants {
	g := grants{scopes: map[string][]string{}, all: map[string]bool{}}
	for _, l := range lines {
		m := grantLine.FindStringSubmatch(l)
		if m == nil || strings.Contains(m[1], "(") {
			continue
		}
		if g.account == "" {
			g.account = m[3]
		}
		scope := m[2]
		if scope != "*.*" {
			scope = strings.ReplaceAll(strings.Trim(strings.TrimSuffix(scope, ".*"), "`"), "``", "`")
		}
		for _, w := range strings.Split(m[1], ",") {
			w = strings.ToUpper(strings.TrimSpace(w))
			if w == "ALL" || w == "ALL PRIVILEGES" {
				g.all[scope] = true
			}
			g.scopes[scope] = append(g.scopes[scope], w)
		}
	}
	return g
}

// global tells whether the account has any of the privileges everywhere.
func (g grants) global(any ...string) bool {
	if g.all["*.*"] {
		return true
	}
	return slices.ContainsFunc(any, func(w string) bool { return slices.Contains(g.scopes["*.*"], w) })
}

// on tells whether the account has a privilege on a schema.
func (g grants) on(name, privilege string) bool {
	if g.global(privilege) {
		return true
	}
	for scope, have := range g.scopes {
		if scope != "*.*" && likeMatches(scope, name) && (g.all[scope] || slices.Contains(have, privilege)) {
			return true
		}
	}
	return false
}

// likeMatches is LIKE with % and _ and the escape \.
func likeMatches(pattern, s string) bool {
	var re strings.Builder
	re.WriteString("^(?s)")
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\' && i+1 < len(pattern):
			i++
			re.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		case c == '%':
			re.WriteString(".*")
		case c == '_':
			re.WriteString(".")
		case c >= 0x80:
			re.WriteByte(c)
		default:
			re.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	re.WriteString("$")
	ok, err := regexp.MatchString(re.String(), s)
	return err == nil && ok
}

// What the applier does on the schemas it applies, and on its own.
var (
	rowPrivileges        = []string{"SELECT", "INSERT", "UPDATE", "DELETE"}
	definitionPrivileges = []string{"CREATE", "DROP", "ALTER", "INDEX", "REFERENCES", "CREATE VIEW", "SHOW VIEW", "CREATE ROUTINE", "ALTER ROUTINE", "TRIGGER", "EVENT"}
)

func (p *preflight) loadGrants() error {
	if p.grants.scopes != nil {
		return nil
	}
	lines, err := firstColumn(p.ctx, p.q, "SHOW GRANTS")
	if err != nil {
		return err
	}
	p.grants = parseGrants(lines)
	return nil
}

func (p *preflight) privileges() error {
	if err := p.loadGrants(); err != nil {
		return err
	}
	g := p.grants
	if g.account == "" {
		g.account = "CURRENT_USER()"
	}
	schemas, err := firstColumn(p.ctx, p.q, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA ORDER BY 1")
	if err != nil {
		return err
	}
	check := []string{StateSchema}
	for _, s := range schemas {
		if p.replicated(s) {
			check = append(check, s)
		}
	}
	var lacking []string
	missing := map[string]bool{}
	for _, s := range check {
		for _, w := range append(slices.Clone(rowPrivileges), definitionPrivileges...) {
			if !g.on(s, w) && !(s == StateSchema && slices.Contains(definitionPrivileges[5:], w)) {
				missing[w] = true
				if !slices.Contains(lacking, server.QuoteName(s)) {
					lacking = append(lacking, server.QuoteName(s))
				}
			}
		}
	}
	if len(lacking) > 0 {
		var words []string
		for _, w := range append(slices.Clone(rowPrivileges), definitionPrivileges...) {
			if missing[w] {
				words = append(words, w)
			}
		}
		p.add(Mandatory, "privileges", "GRANT "+strings.Join(words, ", ")+" ON *.* TO "+g.account,
			"the account lacks %s on %s", strings.Join(words, ", "), list(lacking))
	}
	if !g.global("PROCESS", "SUPER") {
		p.add(Mandatory, "privileges", "GRANT PROCESS ON *.* TO "+g.account, "the account lacks PROCESS: after a crash nobody could tell whether a TRUNCATE or EXCHANGE PARTITION took effect")
	}
	trusted, _, err := p.variable("log_bin_trust_function_creators")
	if err != nil {
		return err
	}
	logs, _, err := p.variable("log_bin")
	if err != nil {
		return err
	}
	if is("1", "ON")(logs) && !is("1", "ON")(trusted) && !g.global("SUPER") {
		p.add(Advisory, "functions", "SET GLOBAL log_bin_trust_function_creators = ON", "stored functions can't be created by an account without SUPER")
	}
	words, fix := []string{"REPLICATION_APPLIER", "BINLOG_ADMIN", "SUPER"}, "REPLICATION_APPLIER"
	if p.info.Flavor == server.MariaDB {
		words, fix = []string{"BINLOG REPLAY", "SUPER"}, "BINLOG REPLAY"
	}
	if !g.global(words...) {
		p.add(Advisory, "privileges", "GRANT "+fix+" ON *.* TO "+g.account,
			"the account lacks %s: rows are written as SQL statements, which costs the target up to twice the time of row events", fix)
	}
	if p.info.Flavor == server.MySQL {
		if !g.global("SESSION_VARIABLES_ADMIN", "SYSTEM_VARIABLES_ADMIN", "SUPER") {
			p.add(Mandatory, "privileges", "GRANT SESSION_VARIABLES_ADMIN ON *.* TO "+g.account, "the account lacks SESSION_VARIABLES_ADMIN: DDL can't run under the session settings it had on the source")
		}
		if !g.global("SET_ANY_DEFINER", "SET_USER_ID", "SUPER") {
			p.add(Advisory, "privileges", "GRANT SET_ANY_DEFINER, ALLOW_NONEXISTENT_DEFINER ON *.* TO "+g.account, "the account lacks SET_ANY_DEFINER: views and routines with another definer can't be created")
		}
	} else if !g.global("SET USER", "SUPER") {
		p.add(Advisory, "privileges", "GRANT SET USER ON *.* TO "+g.account, "the account lacks SET USER: views and routines with another definer can't be created")
	}
	return nil
}

// readOnly: a target is read_only for everyone but the applier.
func (p *preflight) readOnly() error {
	if err := p.loadGrants(); err != nil {
		return err
	}
	if v, known, err := p.variable("super_read_only"); err != nil {
		return err
	} else if known && is("1", "ON")(v) {
		p.add(Mandatory, "read_only", "SET GLOBAL super_read_only = OFF", "super_read_only stops the applier, too: read_only is enough")
		return nil
	}
	v, _, err := p.variable("read_only")
	if err != nil {
		return err
	}
	on := v != "0" && !strings.EqualFold(v, "OFF")
	words, fix := []string{"CONNECTION_ADMIN", "SUPER"}, "CONNECTION_ADMIN"
	if p.info.Flavor == server.MariaDB {
		words, fix = []string{"READ_ONLY ADMIN", "READ ONLY ADMIN", "SUPER"}, "READ_ONLY ADMIN"
		if !p.info.AtLeast(10, 11) {
			words = append(words, "SUPER")
		}
	}
	account := p.grants.account
	if account == "" {
		account = "CURRENT_USER()"
	}
	grant := ""
	if !p.grants.global(words...) {
		grant = "GRANT " + fix + " ON *.* TO " + account
	}
	switch {
	case on && grant != "":
		p.add(Mandatory, "read_only", grant, "the target is read-only, and the account lacks %s", fix)
	case !on:
		// The grant comes first: else this very statement would stop the applier.
		p.add(Advisory, "read_only", strings.TrimPrefix(grant+"\nSET GLOBAL read_only = ON", "\n"),
			"anyone may write to the target: rows written here and there conflict")
	}
	return nil
}
