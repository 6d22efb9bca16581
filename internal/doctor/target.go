package doctor

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/applier/target"
)

// TargetOptions say what is known besides the server.
type TargetOptions struct {
	Address string
	// Source, where it can be asked, for what depends on both servers; nil: not known.
	Source *sql.DB
}

// Target looks at the server that is written. It only reads. What rows and
// statements need there, the applier's own preflight knows.
func Target(ctx context.Context, db *sql.DB, o TargetOptions) *Report {
	r := &Report{Subject: "target", Where: o.Address}
	p, err := newProbe(ctx, r, db)
	if err != nil {
		return r.unreachable(err)
	}
	needs := target.PreflightOptions{LowerCaseTableNames: -1}
	if o.Source != nil {
		s, err := newProbe(ctx, &Report{Subject: "source"}, o.Source)
		if err != nil {
			p.unknown("pairing", Mandatory, err)
		} else {
			p.sameServer(s)
			p.versions(s)
			needs.Source = s.info.Flavor
			needs.MaxAllowedPacket, _ = s.number("max_allowed_packet")
			if n, err := strconv.Atoi(s.vars["lower_case_table_names"]); err == nil {
				needs.LowerCaseTableNames = n
			}
		}
	}
	p.applierNeeds(ctx, needs)
	p.clock()
	p.tls(ctx)
	return r
}

// applierNeeds is the applier's own preflight. It says only what is not well.
func (p *probe) applierNeeds(ctx context.Context, o target.PreflightOptions) {
	found, err := target.Preflight(ctx, p.db, o)
	if err != nil {
		p.unknown("applier", Mandatory, err)
		return
	}
	mandatory := 0
	for _, f := range found {
		severity := Advisory
		if f.Severity == target.Mandatory {
			severity = Mandatory
			mandatory++
		}
		remedy := "see twinspan doctor target --fix-sql"
		if len(f.FixSQL) == 0 {
			remedy = "change it in the server's configuration, or look at it and accept it"
		}
		p.add(Finding{Check: f.Check, Severity: severity, Outcome: Failed, Detail: f.Message, Remedy: remedy, SQL: p.careful(f.FixSQL)})
	}
	if mandatory == 0 {
		p.ok("applier", Mandatory, "%s may and can do all that the applier does", p.grants.account)
	}
}

// careful turns statements that destroy a definition into comments, and says of
// global variables what makes them stay.
func (p *probe) careful(statements []string) []string {
	var out []string
	for _, s := range statements {
		name, value, isVariable := strings.Cut(strings.TrimPrefix(s, "SET GLOBAL "), " = ")
		switch {
		case strings.HasPrefix(s, "DROP "):
			out = append(out, "-- keep its definition first (SHOW CREATE …), then: "+s+";")
		case isVariable && strings.HasPrefix(s, "SET GLOBAL "):
			out = append(out, p.set(name, value)...)
		default:
			out = append(out, s)
		}
	}
	return out
}

func (p *probe) sameServer(s *probe) {
	same := s.info.ServerUUID != "" && s.info.ServerUUID == p.info.ServerUUID
	if s.mariadb() && p.mariadb() {
		same = true
		for _, name := range []string{"server_uid", "hostname", "port", "socket", "datadir", "pid_file"} {
			same = same && s.vars[name] == p.vars[name]
		}
	}
	if same {
		p.add(Finding{Check: "pairing", Severity: Mandatory, Outcome: Failed, Detail: "source and target are the same server",
			Remedy: "point target.address at the server in the other city"})
		return
	}
	p.ok("pairing", Mandatory, "%s to %s", s.Server, p.Server)
}

// versions warns where the target is older or of another kind: values travel
// exactly where the types exist, statements may not be understood.
func (p *probe) versions(s *probe) {
	switch {
	case s.info.Flavor != p.info.Flavor:
		p.add(Finding{Check: "flavor", Severity: Advisory, Outcome: Failed, Detail: fmt.Sprintf("%s to %s", s.Server, p.Server),
			Remedy: "rows travel where the target has the types; DDL is replayed in its original text and halts where the target does not understand it"})
	case !p.info.AtLeast(s.info.Major, s.info.Minor):
		p.add(Finding{Check: "flavor", Severity: Advisory, Outcome: Failed, Detail: fmt.Sprintf("the target (%s) is older than the source (%s)", p.info.Version, s.info.Version),
			Remedy: "DDL that the target does not understand halts the applier: upgrade the target first, the source last"})
	default:
		p.ok("flavor", Advisory, "same kind, the target not older")
	}
}
