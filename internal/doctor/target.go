package doctor

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
)

// TargetOptions say what is known besides the server.
type TargetOptions struct {
	Address string
}

// Target looks at the server that is written. It only reads.
func Target(ctx context.Context, db *sql.DB, o TargetOptions) *Report {
	r := &Report{Subject: "target", Where: o.Address}
	p, err := newProbe(ctx, r, db)
	if err != nil {
		return r.unreachable(err)
	}
	p.targetVersion()
	p.targetPrivileges()
	p.writable()
	p.targetSettings()
	p.firing(ctx)
	p.foreignKeys(ctx)
	p.keys(ctx, Advisory)
	p.clock()
	p.tls(ctx)
	return r
}

func (p *probe) targetVersion() {
	oldest, good := "8.0", p.info.AtLeast(8, 0)
	if p.mariadb() {
		oldest, good = "10.5", p.info.AtLeast(10, 5)
	}
	if !good {
		p.add(Finding{Check: "version", Severity: Mandatory, Outcome: Failed, Detail: p.Server,
			Remedy: "upgrade to " + flavorName(p.info.Flavor) + " " + oldest + " or newer"})
		return
	}
	p.ok("version", Mandatory, "%s", p.Server)
}

// targetNeeds is what the applier does on its target: rows, and DDL in its
// original text, which may be any definition.
var targetNeeds = []string{
	"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "REFERENCES",
	"CREATE VIEW", "SHOW VIEW", "CREATE ROUTINE", "ALTER ROUTINE", "EXECUTE", "TRIGGER", "EVENT",
}

func (p *probe) targetPrivileges() {
	missing := p.grants.missing("*.*", targetNeeds...)
	if len(missing) == 0 {
		p.ok("privileges", Mandatory, "%s may write rows and definitions", p.grants.account)
	} else {
		// Rows and definitions may be limited to some schemas on purpose;
		// twinspan's own schema is needed in any case.
		own := p.grants.missing("twinspan.*", "SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX")
		f := Finding{Check: "privileges", Severity: Advisory, Outcome: Failed,
			Detail: fmt.Sprintf("%s lacks %s on *.*", p.grants.account, strings.Join(missing, ", ")),
			Remedy: "enough only if every replicated schema is granted by itself: rows and definitions are written through this account",
			SQL:    []string{p.grants.statement("*.*", missing)}}
		if len(own) > 0 {
			f.Severity = Mandatory
			f.Detail += fmt.Sprintf(", and %s on twinspan.*", strings.Join(own, ", "))
			f.Remedy = "grant what is missing: positions are kept in the schema twinspan"
		}
		p.add(f)
	}
}

// writable checks read_only: the target of replication is read only for
// everybody else, and the applier needs the privilege that passes it.
func (p *probe) writable() {
	if p.on("super_read_only") {
		p.add(Finding{Check: "read_only", Severity: Mandatory, Outcome: Failed, Detail: "super_read_only is ON: nobody can write, the applier included",
			Remedy: "use read_only, which lets the applier through", SQL: []string{"SET PERSIST super_read_only = OFF", "SET PERSIST read_only = ON"}})
		return
	}
	pass := []string{"CONNECTION_ADMIN"}
	if p.mariadb() {
		pass = []string{"READ_ONLY ADMIN"}
	}
	held := len(p.grants.missing("*.*", pass...)) == 0 || p.grants.has("SUPER", "*.*")
	switch {
	case p.on("read_only") && held:
		p.ok("read_only", Mandatory, "read_only is ON and %s may pass it", p.grants.account)
	case p.on("read_only"):
		p.add(Finding{Check: "read_only", Severity: Mandatory, Outcome: Failed,
			Detail: fmt.Sprintf("read_only is ON and %s lacks %s", p.grants.account, pass[0]),
			Remedy: "grant it, so that the applier may write", SQL: []string{p.grants.statement("*.*", pass)}})
	default:
		f := Finding{Check: "read_only", Severity: Advisory, Outcome: Failed, Detail: "the target accepts writes from anybody",
			Remedy: "make it read_only, so that nothing but the applier changes it"}
		if !held {
			f.SQL = append(f.SQL, p.grants.statement("*.*", pass))
		}
		f.SQL = append(f.SQL, p.set("read_only", "ON")...)
		p.add(f)
	}
}

func (p *probe) targetSettings() {
	const wanted = 64 << 20
	if n, ok := p.number("max_allowed_packet"); ok && n < wanted {
		p.add(Finding{Check: "max_allowed_packet", Severity: Advisory, Outcome: Failed,
			Detail: fmt.Sprintf("max_allowed_packet is %d bytes", n),
			Remedy: "a row that is larger can't be written; make it at least the source's",
			SQL:    p.set("max_allowed_packet", fmt.Sprint(wanted))})
	} else {
		p.ok("max_allowed_packet", Advisory, "max_allowed_packet is %s bytes", p.vars["max_allowed_packet"])
	}
	// Everything the applier does depends on a rolled back transaction
	// leaving nothing behind.
	p.must("engine", "default_storage_engine", Mandatory, []string{"InnoDB"},
		"positions and rows must be written in one transaction", p.set("default_storage_engine", "InnoDB"))
	if p.vars["innodb_flush_log_at_trx_commit"] != "1" {
		p.add(Finding{Check: "durability", Severity: Advisory, Outcome: Failed,
			Detail: "innodb_flush_log_at_trx_commit = " + p.vars["innodb_flush_log_at_trx_commit"],
			Remedy: "after a power failure the target goes back in time; the applier notices and repeats what was lost, as long as the log still has it",
			SQL:    p.set("innodb_flush_log_at_trx_commit", "1")})
	} else {
		p.ok("durability", Advisory, "a commit is on disk before it is answered")
	}
}

// Pair compares source and target where replication between them depends on
// both. Findings are added to the target's report.
func Pair(ctx context.Context, source, target *sql.DB, r *Report) {
	s, err := newProbe(ctx, &Report{Subject: "source"}, source)
	if err != nil {
		r.unknown("pairing", Mandatory, err)
		return
	}
	t, err := newProbe(ctx, r, target)
	if err != nil {
		r.unknown("pairing", Mandatory, err)
		return
	}
	t.sameServer(s)
	t.tableNames(s)
	t.versions(s)
	t.packet(s)
}

func (t *probe) sameServer(s *probe) {
	same := s.info.ServerUUID != "" && s.info.ServerUUID == t.info.ServerUUID
	if s.mariadb() && t.mariadb() {
		same = s.vars["server_uid"] != "" && s.vars["server_uid"] == t.vars["server_uid"] &&
			s.vars["pid_file"] == t.vars["pid_file"] && s.vars["port"] == t.vars["port"] && s.vars["socket"] == t.vars["socket"] &&
			s.vars["hostname"] == t.vars["hostname"] && s.vars["datadir"] == t.vars["datadir"]
	}
	if same {
		t.add(Finding{Check: "pairing", Severity: Mandatory, Outcome: Failed, Detail: "source and target are the same server",
			Remedy: "point target.address at the server in the other city"})
		return
	}
	t.ok("pairing", Mandatory, "%s to %s", s.Server, t.Server)
}

func (t *probe) tableNames(s *probe) {
	a, b := s.vars["lower_case_table_names"], t.vars["lower_case_table_names"]
	if a != b {
		t.add(Finding{Check: "table_names", Severity: Mandatory, Outcome: Failed,
			Detail: fmt.Sprintf("lower_case_table_names is %s on the source and %s on the target", a, b),
			Remedy: "two tables there could be one here: initialise the target with the source's setting"})
		return
	}
	t.ok("table_names", Mandatory, "lower_case_table_names is %s on both", a)
}

// versions warns where the target is older or of another kind: values travel
// exactly where the types exist, statements may not be understood.
func (t *probe) versions(s *probe) {
	switch {
	case s.info.Flavor != t.info.Flavor:
		t.add(Finding{Check: "flavor", Severity: Advisory, Outcome: Failed, Detail: fmt.Sprintf("%s to %s", s.Server, t.Server),
			Remedy: "rows travel where the target has the types; DDL is replayed in its original text and halts where the target does not understand it"})
	case !t.info.AtLeast(s.info.Major, s.info.Minor):
		t.add(Finding{Check: "flavor", Severity: Advisory, Outcome: Failed, Detail: fmt.Sprintf("the target (%s) is older than the source (%s)", t.info.Version, s.info.Version),
			Remedy: "DDL that the target does not understand halts the applier: upgrade the target first, the source last"})
	default:
		t.ok("flavor", Advisory, "same kind, the target not older")
	}
}

func (t *probe) packet(s *probe) {
	a, okA := s.number("max_allowed_packet")
	b, okB := t.number("max_allowed_packet")
	if okA && okB && b < a {
		t.add(Finding{Check: "packet_pair", Severity: Advisory, Outcome: Failed,
			Detail: fmt.Sprintf("max_allowed_packet is %d on the source and %d on the target", a, b),
			Remedy: "a row may be too large to be written", SQL: t.set("max_allowed_packet", fmt.Sprint(a))})
	}
}

func quote(name string) string { return server.QuoteName(name) }
