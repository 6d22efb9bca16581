package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/log"
)

// Dial is how a connection to host:port is made.
type Dial func(ctx context.Context, address string) (net.Conn, error)

// Over puts TLS on top of a Dial; a nil Source leaves it as it is. The server's
// certificate is checked before the connection is returned; a server that refuses
// this side's says so at the first Read.
func (s *Source) Over(next Dial) Dial {
	if s == nil {
		return next
	}
	return func(ctx context.Context, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		raw, err := next(ctx, address)
		if err != nil {
			return nil, err
		}
		c := s.client(raw, host)
		if err := c.HandshakeContext(ctx); err != nil {
			_ = raw.Close() // it never was of use
			if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
				err = fmt.Errorf("%s ends the connection in the handshake: does it speak TLS?: %w", c.peer, err)
			}
			return nil, c.explain(err)
		}
		return c, nil
	}
}

// client is the dialling side of raw.
func (s *Source) client(raw net.Conn, host string) *conn {
	pair, pool := s.current()
	t := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: host, RootCAs: pool}
	// Without this the connection would be made without any certificate when the
	// node's list of authorities lacks ours, and the node could not say whom it
	// refuses.
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if pair == nil {
			return &tls.Certificate{}, nil
		}
		return pair, nil
	}
	return &conn{Conn: tls.Client(raw, t), mine: pair, peer: "node " + raw.RemoteAddr().String()}
}

// Accepted is the serving side of raw; a nil Source returns raw. The handshake
// runs with the first Read or Write, whose error says what was wrong.
func (s *Source) Accepted(raw net.Conn) net.Conn {
	if s == nil {
		return raw
	}
	pair, pool := s.current()
	t := &tls.Config{MinVersion: tls.VersionTLS13}
	if pair != nil {
		t.Certificates = []tls.Certificate{*pair}
	}
	if pool != nil {
		t.ClientAuth, t.ClientCAs = tls.RequireAndVerifyClientCert, pool
	}
	return &conn{Conn: tls.Server(raw, t), mine: pair, peer: "client " + raw.RemoteAddr().String()}
}

// conn says in words why a handshake failed.
type conn struct {
	*tls.Conn
	mine *tls.Certificate // nil: none
	peer string
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		err = c.explain(err)
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil {
		err = c.explain(err)
	}
	return n, err
}

// ErrRefused is a handshake that one of the sides would not complete.
var ErrRefused = log.ErrRefused

// explain adds who refused whose certificate, and what to do. Other errors stay
// as they are.
func (c *conn) explain(err error) error {
	var verify *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	var remote *net.OpError
	switch {
	case errors.As(err, &verify):
		return fmt.Errorf("%w: the one of %s %s: %w", ErrRefused, c.peer, describe(verify.UnverifiedCertificates), verify.Err)
	case errors.As(err, &plain):
		return fmt.Errorf("%s does not speak TLS: set its certificate, or take this side's away: %w", c.peer, err)
	case errors.As(err, &remote) && remote.Op == "remote error":
		return fmt.Errorf("%w: %s refuses %s: %w", ErrRefused, c.peer, c.own(remote.Err.Error()), err)
	case strings.Contains(err.Error(), "client didn't provide a certificate"):
		return fmt.Errorf("%w: %s shows none: set log.tls.cert and log.tls.key there: %w", ErrRefused, c.peer, err)
	}
	return err
}

// own is this side's certificate as the alert of the other side speaks of it.
func (c *conn) own(alert string) string {
	if c.mine == nil || c.mine.Leaf == nil {
		return "a connection without a certificate; set log.tls.cert and log.tls.key"
	}
	leaf := c.mine.Leaf
	what := fmt.Sprintf("this side's, %s", describe([]*x509.Certificate{leaf}))
	now := time.Now()
	switch {
	case now.After(leaf.NotAfter):
		return what + ", which has expired on " + leaf.NotAfter.UTC().Format(time.RFC3339)
	case now.Before(leaf.NotBefore):
		return what + ", which is not valid before " + leaf.NotBefore.UTC().Format(time.RFC3339)
	case strings.Contains(alert, "unknown certificate authority"):
		return what + ", whose authority it does not know"
	case strings.Contains(alert, "expired certificate"):
		return what + ", which has expired or is not yet valid by its clock"
	case strings.Contains(alert, "bad certificate"):
		return what + "; it may not know its authority, expect another name, or it is not meant for this: the other side's error says which"
	}
	return what
}

// describe names the first certificate of a chain.
func describe(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return "(none)"
	}
	return fmt.Sprintf("(%s, issued by %s)", name(chain[0]), text(chain[0].Issuer.CommonName))
}

// name of a certificate for people.
func name(c *x509.Certificate) string { return text(c.Subject.CommonName) }

// text bounds and cleans what a stranger wrote into a certificate.
func text(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 64 {
		s = string(r[:64])
	}
	if s == "" {
		return "without a name"
	}
	return s
}
