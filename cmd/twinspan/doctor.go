package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/doctor"
	"github.com/twinspan/twinspan/internal/inspect"
	"github.com/twinspan/twinspan/internal/ops"
	"github.com/twinspan/twinspan/internal/server"
)

// doctorTimeout bounds the looking at one subject.
const doctorTimeout = 60 * time.Second

func (a *app) doctorCommand() *cobra.Command {
	var fixSQL, strict bool
	c := &cobra.Command{
		Use:   "doctor [source] [target] [log] [node] [process]",
		Short: "Say what must be different before replication is exact",
		Long: `Looks at the source, the target, the log, this machine's disk and files, as far as
the configuration names them, and changes nothing. What is mandatory stops a role
at start; what is advisory makes trouble likely.

Exit code 0 when no mandatory check fails (with --strict: no check at all),
3 when one does, 5 when a subject can't be reached.`,
		Example: `  twinspan doctor -c twinspan.yaml
  twinspan doctor source -o json
  twinspan doctor source --fix-sql | mysql -h 10.1.0.12 -u admin -p`,
		ValidArgs: []string{"source", "target", "log", "node", "process"},
		Args:      words(5),
		RunE: func(c *cobra.Command, subjects []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			l, err := a.load(true)
			if err != nil {
				return err
			}
			reports, err := examine(c.Context(), l.Config, subjects)
			if err != nil {
				return err
			}
			if fixSQL {
				p.Printf("%s", doctor.Script(reports...))
			} else if err := p.Print(reports, func() error { printReports(p, reports); return nil }); err != nil {
				return err
			}
			return verdict(reports, strict)
		},
	}
	c.Flags().BoolVar(&fixSQL, "fix-sql", false, "print only the statements that repair what was found")
	c.Flags().BoolVar(&strict, "strict", false, "advisory findings count as well")
	return c
}

// examine looks at the subjects; none means all that the configuration names.
func examine(ctx context.Context, c *config.Config, subjects []string) ([]*doctor.Report, error) {
	all := len(subjects) == 0
	wants := func(subject string, configured bool) (bool, error) {
		if slices.Contains(subjects, subject) && !configured {
			return false, cli.Fail(cli.ExitUsage, fmt.Errorf("the configuration names no %s", subject), "see twinspan config example")
		}
		return all && configured || slices.Contains(subjects, subject), nil
	}
	var reports []*doctor.Report
	var source, target *sql.DB
	held := "" // the log's GTID set
	for _, s := range []struct {
		name       string
		configured bool
		look       func(context.Context) (*doctor.Report, error)
	}{
		{"process", true, func(context.Context) (*doctor.Report, error) { return doctor.Process(secrets(c)), nil }},
		{"node", c.Has(config.RoleNode), func(context.Context) (*doctor.Report, error) {
			return doctor.Node(c.Node.Dir, int64(c.Node.JournalFileBytes)), nil
		}},
		{"log", len(logNodes(c)) > 0, func(ctx context.Context) (*doctor.Report, error) {
			s, err := openSecurity(c)
			if err != nil {
				return nil, err
			}
			l, err := openLog(c, s, zerolog.Nop())
			if err != nil {
				return nil, err
			}
			defer l.Close()
			r := doctor.Log(ctx, l, strings.Join(logNodes(c), ","), c.Stream)
			if r.Err == nil {
				// Not known is fine: then the source is not compared with it.
				held, _ = inspect.Held(ctx, l, c.Stream)
				if c.Log.Engine != config.EngineTwinspan {
					return r, nil
				}
				o, err := ops.New(ops.Config{Seeds: logNodes(c), City: c.City, Name: "doctor", Dial: dialer(c, s.log)}).Overview(ctx)
				if err != nil {
					r.Cluster([]string{err.Error()})
				} else {
					r.Cluster(o.Problems)
				}
			}
			return r, nil
		}},
		{"source", c.Source.Address != "", func(ctx context.Context) (r *doctor.Report, err error) {
			if source, err = server.Open(c.Source, doctorOptions); err != nil {
				return nil, err
			}
			return doctor.Source(ctx, source, doctor.SourceOptions{Address: c.Source.Address, ServerID: uint32(c.Producer.ServerID), Logged: held}), nil
		}},
		{"target", c.Target.Address != "", func(ctx context.Context) (r *doctor.Report, err error) {
			if target, err = server.Open(c.Target, doctorOptions); err != nil {
				return nil, err
			}
			return doctor.Target(ctx, target, doctor.TargetOptions{Address: c.Target.Address, Source: source}), nil
		}},
	} {
		want, err := wants(s.name, s.configured)
		if err != nil {
			return nil, err
		}
		if !want {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
		r, err := s.look(ctx)
		cancel()
		if err != nil {
			r = &doctor.Report{Subject: s.name, Err: err, Error: cli.OneLine(err.Error())}
		}
		r.Accept(c.Doctor.Accept)
		reports = append(reports, r)
	}
	for _, db := range []*sql.DB{source, target} {
		if db != nil {
			db.Close()
		}
	}
	return reports, nil
}

var doctorOptions = server.Options{DialTimeout: 5 * time.Second, ReadTimeout: doctorTimeout}

// secrets are the files that the configuration names.
func secrets(c *config.Config) []doctor.Secret {
	var out []doctor.Secret
	for name, e := range map[string]server.Endpoint{"source": c.Source, "primary": c.Primary, "target": c.Target} {
		if e.Address == "" {
			continue
		}
		out = append(out, doctor.Secret{Key: name + ".password_file", Path: e.PasswordFile},
			doctor.Secret{Key: name + ".tls.key", Path: e.TLS.Key},
			doctor.Secret{Key: name + ".tls.cert", Path: e.TLS.Cert, Public: true},
			doctor.Secret{Key: name + ".tls.ca", Path: e.TLS.CA, Public: true})
	}
	out = append(out,
		doctor.Secret{Key: "log.tls.ca", Path: c.Log.TLS.CA, Public: true}, doctor.Secret{Key: "log.tls.cert", Path: c.Log.TLS.Cert, Public: true},
		doctor.Secret{Key: "log.tls.key", Path: c.Log.TLS.Key})
	if c.Has(config.RoleNode) {
		out = append(out, doctor.Secret{Key: "node.tls.ca", Path: c.Node.TLS.CA, Public: true},
			doctor.Secret{Key: "node.tls.cert", Path: c.Node.TLS.Cert, Public: true}, doctor.Secret{Key: "node.tls.key", Path: c.Node.TLS.Key})
	}
	slices.SortFunc(out, func(a, b doctor.Secret) int { return strings.Compare(a.Key, b.Key) })
	return out
}

func printReports(p *cli.Printer, reports []*doctor.Report) {
	for i, r := range reports {
		if i > 0 {
			p.Printf("\n")
		}
		title := strings.TrimSpace(r.Subject + " " + r.Where)
		if r.Server != "" {
			title += " (" + r.Server + ")"
		}
		p.Printf("%s\n", p.Paint("bold", title))
		if r.Error != "" {
			p.Printf("  %s %s\n", p.Paint("red", "unreachable"), r.Error)
		}
		for _, f := range r.Findings {
			word := p.Paint("green", "ok      ")
			switch {
			case f.Outcome == doctor.Unknown:
				word = p.Paint("faint", "unknown ")
			case f.Outcome == doctor.Failed && f.Severity == doctor.Mandatory:
				word = p.Paint("red", "FAILED  ")
			case f.Outcome == doctor.Failed:
				word = p.Paint("yellow", "advice  ")
			}
			p.Printf("  %s %-28s %s\n", word, f.Check, f.Detail)
			if f.Outcome == doctor.Failed {
				p.Printf("           %-28s %s\n", "", "→ "+f.Remedy)
			}
		}
	}
	n, advice := 0, 0
	for _, r := range reports {
		n += len(r.Failed(doctor.Mandatory))
		advice += len(r.Failed(doctor.Advisory))
	}
	p.Printf("\n%d mandatory, %d advisory", n, advice)
	if n+advice > 0 {
		p.Printf("; twinspan doctor --fix-sql prints the statements that help")
	}
	p.Printf("\n")
}

// verdict is the exit code of what was found.
func verdict(reports []*doctor.Report, strict bool) error {
	code := cli.ExitOK
	for _, r := range reports {
		switch {
		case r.Err != nil:
			code = max(code, cli.ExitUnreachable)
		case len(r.Failed(doctor.Mandatory)) > 0, strict && len(r.Failed(doctor.Advisory)) > 0:
			code = max(code, cli.ExitDifferences)
		}
	}
	if code == cli.ExitOK {
		return nil
	}
	return cli.Exit(code)
}

// errMandatory is wrapped by what stops a role at its start.
var errMandatory = errors.New("a mandatory check fails")
