package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/certs"
	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
)

// security is what the log's connections of this process are made with; nil: plain.
type security struct {
	node *certs.Source // of those that the node accepts, and makes to other nodes
	log  *certs.Source // of those that the process makes as a writer, a reader, a tool
}

// openSecurity reads the certificates that the configuration names.
func openSecurity(c *config.Config) (s security, err error) {
	fail := func(key string, err error) error {
		return cli.Fail(cli.ExitUsage, fmt.Errorf("%s: %w", key, err), "see "+key+" in twinspan config example; twinspan certs make makes a set for a lab")
	}
	n, l := c.Node.TLS, c.Log.TLS
	if c.Has(config.RoleNode) && n.Cert != "" {
		if s.node, err = certs.Open(certs.Files{Cert: n.Cert, Key: n.Key, CA: n.CA}); err != nil {
			return s, fail("node.tls", err)
		}
		s.log = s.node // unless it has one of its own
	}
	if l.CA != "" {
		if s.log, err = certs.Open(certs.Files{Cert: l.Cert, Key: l.Key, CA: l.CA}); err != nil {
			return s, fail("log.tls", err)
		}
	}
	return s, nil
}

// dialer makes connections to nodes, from the address that log.bind names.
func dialer(c *config.Config, s *certs.Source) certs.Dial {
	d := &net.Dialer{}
	if ip := net.ParseIP(c.Log.Bind); ip != nil {
		d.LocalAddr = &net.TCPAddr{IP: ip}
	}
	return s.Over(func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) })
}

// expiresSoon is when a certificate's end is worth a word.
const expiresSoon = 14 * 24 * time.Hour

// trouble is what is wrong with the certificates now; "" when nothing is.
func (s security) trouble() string {
	for _, x := range []*certs.Source{s.node, s.log} {
		if x == nil {
			continue
		}
		if err := x.Refresh(); err != nil {
			return "the certificates in use are not those in the files: " + err.Error()
		}
		for _, c := range x.Certificates() {
			if left := time.Until(c.NotAfter); left < 0 {
				return fmt.Sprintf("the certificate %s (%s) has expired on %s", c.File, c.Subject, c.NotAfter.Format(time.RFC3339))
			}
		}
	}
	return ""
}

// report logs which certificates are in use: at the start, and on SIGHUP.
func (s security) report(logger zerolog.Logger) {
	seen := map[string]bool{}
	for _, x := range []*certs.Source{s.node, s.log} {
		if x == nil {
			continue
		}
		if err := x.Refresh(); err != nil {
			logger.Error().Err(err).Msg("new certificates can't be used, the old ones stay in use")
		}
		for _, c := range x.Certificates() {
			if seen[c.File+c.Subject] {
				continue
			}
			seen[c.File+c.Subject] = true
			e := logger.Info()
			if time.Until(c.NotAfter) < expiresSoon {
				e = logger.Warn()
			}
			e.Str("file", c.File).Str("subject", c.Subject).Str("issuer", c.Issuer).Time("until", c.NotAfter).Msg("certificate in use")
		}
	}
}

// refused finds an error of certificates in err.
func refused(err error) bool { return errors.Is(err, certs.ErrRefused) }
