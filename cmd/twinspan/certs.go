package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/certs"
	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
)

func (a *app) certsCommand() *cobra.Command {
	return group("certs", "Make and look at certificates for the log's connections",
		`  twinspan certs make --out lab-tls -c twinspan.yaml
  twinspan certs show lab-tls/*.crt`,
		a.certsMake(), a.certsShow())
}

func (a *app) certsMake() *cobra.Command {
	var out, valid, authority string
	var nodes, clients []string
	var force, dry bool
	c := &cobra.Command{
		Use:   "make",
		Short: "Make an authority and certificates for a lab",
		Long: `Makes an authority and, signed by it, a certificate for each node and for each
process that only connects to nodes. Nodes come from node.cluster of the
configuration, or from --node; a node's certificate has all names and addresses it
is reached by. Others are producer, consumer and ops, or those of --client; they
can't be used by a server, so whoever steals one can't pose as a node.

An authority that is in the directory already signs the new certificates: that is
how a node is added. Nothing is replaced without --force, the authority never.
Keys can be read by their owner only. Keep ca.key away from the machines: whoever
has it can make certificates that every node accepts.`,
		Example: `  twinspan certs make --out lab-tls -c twinspan.yaml --dry-run
  twinspan certs make --out lab-tls --node a1@a=10.1.0.1,a1.example --node b1@b=10.2.0.1
  twinspan certs make --out lab-tls --node b2@b=10.2.0.2 --client none     one more node
  twinspan certs make --out lab-tls --client consumer --valid 90d --force  a new one for the old`,
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			o := certs.Order{Dir: out, Force: force, Now: time.Now()}
			if o.Valid, err = span("--valid", valid); err != nil {
				return err
			}
			if o.AuthorityOf, err = span("--authority-valid", authority); err != nil {
				return err
			}
			if o.Subjects, err = a.subjects(nodes, clients); err != nil {
				return err
			}
			made, err := certs.Make(o, dry)
			switch {
			case errors.Is(err, certs.ErrExists):
				return cli.Fail(cli.ExitUnsafe, err, "nothing was written; --force replaces certificates, another --out makes a new set")
			case errors.Is(err, fs.ErrPermission):
				return cli.Fail(cli.ExitError, err, "choose a directory that you can write with --out")
			case err != nil:
				return cli.Fail(cli.ExitUsage, err, "twinspan certs make --help shows how it is used")
			}
			result := struct {
				Dir    string       `json:"dir"`
				DryRun bool         `json:"dry_run"`
				Files  []certs.Made `json:"files"`
			}{out, dry, made}
			return p.Print(result, func() error { printMade(p, out, made, dry); return nil })
		},
	}
	f := c.Flags()
	f.StringVar(&out, "out", "twinspan-tls", "directory of the set; made if it is not there")
	f.StringArrayVar(&nodes, "node", nil, "a node: name@city=host[,host…], names or addresses it is reached by (repeatable)")
	f.StringArrayVar(&clients, "client", nil, "a process that only connects: name or name@city (repeatable); none for none")
	f.StringVar(&valid, "valid", "365d", "how long the certificates are valid, such as 90d or 12h")
	f.StringVar(&authority, "authority-valid", "3650d", "how long a new authority is valid")
	f.BoolVar(&force, "force", false, "replace certificates that are there; never the authority")
	f.BoolVar(&dry, "dry-run", false, "only say what would be made")
	return c
}

// span reads a duration, whole days included.
func span(flag, text string) (time.Duration, error) {
	var d config.Duration
	if err := d.UnmarshalText([]byte(text)); err != nil || d == 0 {
		return 0, cli.Usage("%s %q is not a time: write it like 90d or 12h", flag, text)
	}
	return d.Std(), nil
}

// subjects are those of the flags; without nodes there those of the configuration.
func (a *app) subjects(nodes, clients []string) ([]certs.Subject, error) {
	var out []certs.Subject
	for _, text := range nodes {
		place, hosts, ok := strings.Cut(text, "=")
		name, city, _ := strings.Cut(place, "@")
		if !ok || hosts == "" {
			return nil, cli.Usage("--node %q: write it as name@city=host[,host…], such as a1@a=10.1.0.1,a1.example", text)
		}
		out = append(out, certs.Subject{Name: name, City: city, Node: true, Hosts: strings.Split(hosts, ",")})
	}
	if len(nodes) == 0 && len(clients) == 0 {
		if a.path() == "" {
			return nil, cli.Fail(cli.ExitUsage, errors.New("no nodes are named and no configuration was found"), "name nodes with --node, or a configuration with node.cluster with -c")
		}
		l, err := a.load(true)
		if err != nil {
			return nil, err
		}
		out = clusterSubjects(l.Config)
	}
	if len(clients) == 0 {
		clients = []string{"producer", "consumer", "ops"}
	}
	for _, text := range clients {
		if text == "none" {
			continue
		}
		name, city, _ := strings.Cut(text, "@")
		out = append(out, certs.Subject{Name: name, City: city})
	}
	return out, nil
}

// clusterSubjects are the configuration's nodes, reached by their addresses; one
// on this machine by loopback as well.
func clusterSubjects(c *config.Config) []certs.Subject {
	host := func(address string) []string {
		h, _, err := net.SplitHostPort(address) // the validator checked it
		if err != nil || h == "" {
			return nil
		}
		if ip := net.ParseIP(h); ip != nil && ip.IsUnspecified() {
			return nil
		}
		return []string{h}
	}
	var out []certs.Subject
	for _, n := range c.Node.Cluster {
		hosts := host(n.Address)
		if n.Name == c.Node.Name {
			for _, h := range host(c.Node.Listen) {
				if !slices.Contains(hosts, h) {
					hosts = append(hosts, h)
				}
			}
		}
		out = append(out, certs.Subject{Name: n.Name, City: n.City, Node: true, Hosts: hosts})
	}
	if len(c.Node.Cluster) == 0 {
		hosts := append(host(c.Node.Listen), "localhost")
		if !slices.Contains(hosts, "127.0.0.1") {
			hosts = append(hosts, "127.0.0.1")
		}
		out = append(out, certs.Subject{Name: c.Node.Name, City: c.City, Node: true, Hosts: hosts})
	}
	return out
}

func printMade(p *cli.Printer, dir string, made []certs.Made, dry bool) {
	var rows [][]string
	example := map[bool]string{} // a node's, another's
	for i, m := range made {
		what := "new"
		switch {
		case m.Kept:
			what = "kept"
		case m.Replaced:
			what = "replaced"
		}
		goes := "to " + m.Subject + " alone"
		if i < 2 {
			goes = "to every machine"
			if m.Private {
				goes = "nowhere: keep it safe"
			}
		} else if node := len(m.Hosts) > 0; example[node] == "" {
			example[node] = m.Subject
		}
		rows = append(rows, []string{m.Path, what, m.NotAfter.Format(time.DateOnly), strings.Join(m.Hosts, ","), goes})
	}
	p.Rows([]string{"file", "", "until", "reached by", "goes"}, rows)
	at := func(name string) string { return filepath.Join("/etc/twinspan/tls", name) }
	if n := example[true]; n != "" {
		p.Printf("\nOn node %s, in its configuration:\n  node:\n    tls: {cert: %s, key: %s, ca: %s}\n", n, at(n+".crt"), at(n+".key"), at("ca.crt"))
	}
	if n := example[false]; n != "" {
		p.Printf("\nFor %s, which only connects:\n  log:\n    tls: {ca: %s, cert: %s, key: %s}\n", n, at("ca.crt"), at(n+".crt"), at(n+".key"))
	}
	if dry {
		p.Printf("\nNothing was written.\n")
	} else {
		p.Printf("\nWritten to %s. Files that are replaced later are read for new connections, without a restart.\n", dir)
	}
}

// shownCertificate is what certs show says of one.
type shownCertificate struct {
	File      string    `json:"file"`
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Authority bool      `json:"authority"`
	Node      bool      `json:"node"` // may be dialled
	City      string    `json:"city,omitempty"`
	Hosts     []string  `json:"hosts"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DaysLeft  float64   `json:"days_left"`
	Valid     bool      `json:"valid"` // by this machine's clock
}

func (a *app) certsShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE…",
		Short: "Say what certificates are good for, and until when",
		Long: `Shows the certificates in the files. Exit code 0 when all are valid now, by this
machine's clock, and 3 when one is not.`,
		Example: "  twinspan certs show lab-tls/*.crt\n  twinspan certs show /etc/twinspan/tls/a1.crt -o json",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, files []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			now, bad := time.Now(), false
			out := []shownCertificate{}
			for _, f := range files {
				all, err := certs.ReadPEM(f)
				if err != nil {
					return cli.Fail(cli.ExitUsage, err, "name files that hold certificates in PEM form")
				}
				for _, c := range all {
					s := shown(f, c, now)
					bad = bad || !s.Valid
					out = append(out, s)
				}
			}
			err = p.Print(out, func() error {
				var rows [][]string
				for _, s := range out {
					left := fmt.Sprintf("%.0f days", s.DaysLeft)
					switch {
					case !s.Valid && s.DaysLeft < 0:
						left = p.Paint("red", "expired")
					case !s.Valid:
						left = p.Paint("red", "not yet valid")
					case s.DaysLeft < 14:
						left = p.Paint("yellow", left)
					}
					use := "connects"
					if s.Node {
						use = "node"
					}
					if s.Authority {
						use = "authority"
					}
					rows = append(rows, []string{s.File, s.Subject, s.Issuer, use, strings.Join(s.Hosts, ","), s.NotAfter.Format(time.DateOnly), left})
				}
				p.Rows([]string{"file", "subject", "issuer", "use", "reached by", "until", "left"}, rows)
				return nil
			})
			if err == nil && bad {
				err = cli.Exit(cli.ExitDifferences)
			}
			return err
		},
	}
}

func shown(file string, c *x509.Certificate, now time.Time) shownCertificate {
	s := shownCertificate{
		File: file, Subject: cli.OneLine(c.Subject.CommonName), Issuer: cli.OneLine(c.Issuer.CommonName), Authority: c.IsCA,
		Node: slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth), Hosts: []string{},
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), DaysLeft: c.NotAfter.Sub(now).Hours() / 24,
		Valid: !now.Before(c.NotBefore) && !now.After(c.NotAfter),
	}
	if len(c.Subject.Locality) > 0 {
		s.City = cli.OneLine(c.Subject.Locality[0])
	}
	for _, h := range c.DNSNames {
		s.Hosts = append(s.Hosts, cli.OneLine(h))
	}
	for _, ip := range c.IPAddresses {
		s.Hosts = append(s.Hosts, ip.String())
	}
	return s
}
