// Package certs is who may talk to the log: certificates and the authority that
// signed them, read from files, looked at again for every connection, so that new
// ones need no restart; and the making of a set of them for a lab.
//
// All of it is TLS 1.3. With an authority, both sides of a connection must show a
// certificate that it signed; the one that was dialled must besides bear the name
// or address it was dialled by, and be meant for a server. What is wrong with a
// certificate is said in words, on both sides.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Files of one side of a connection, as paths. An empty one is not there.
type Files struct {
	Cert string // this side's certificate, PEM, with those between it and the authority behind it
	Key  string // its private key, PEM
	CA   string // the authority of the other side's certificates, PEM; several may stand in it
}

// Source gives the files' content for connections. It is safe for concurrent use.
type Source struct {
	files Files

	mu      sync.Mutex
	seen    [3]mark // of the files, when they were read last
	pair    *tls.Certificate
	pool    *x509.CertPool
	certs   []Certificate
	trouble error // why what is in the files now is not in use
}

// mark is how a file's content is known to be the same without reading it.
type mark struct {
	modified time.Time
	size     int64
	err      string
}

// Certificate is one of a Source that is in use.
type Certificate struct {
	File      string    `json:"file"`
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Open reads the files. At least one of CA and Cert must be set, Cert and Key
// only together.
func Open(f Files) (*Source, error) {
	s := &Source{files: f}
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("a certificate and its key belong together: set both or none")
	}
	if f.Cert == "" && f.CA == "" {
		return nil, errors.New("neither a certificate nor an authority is named")
	}
	s.seen = s.look()
	if err := s.read(); err != nil {
		return nil, err
	}
	return s, nil
}

// Refresh takes over files that changed. What can't be used (half of a new pair
// may be in place, say) leaves the old content in use; the error then says why,
// until the files change again.
func (s *Source) Refresh() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.look()
	if now == s.seen {
		return s.trouble
	}
	// A file that changes while it is read has a later mark next time.
	s.trouble = s.read()
	s.seen = now
	return s.trouble
}

func (s *Source) look() [3]mark {
	var out [3]mark
	for i, path := range []string{s.files.Cert, s.files.Key, s.files.CA} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			out[i].err = err.Error()
			continue
		}
		out[i] = mark{modified: info.ModTime(), size: info.Size()}
	}
	return out
}

// read takes the files' content over, all or nothing. mu is held, or s is new.
func (s *Source) read() error {
	var pair *tls.Certificate
	var pool *x509.CertPool
	var certs []Certificate
	if s.files.Cert != "" {
		p, err := tls.LoadX509KeyPair(s.files.Cert, s.files.Key)
		if err != nil {
			return fmt.Errorf("certificate %s with key %s: %w", s.files.Cert, s.files.Key, err)
		}
		pair = &p
		certs = append(certs, certificate(s.files.Cert, p.Leaf))
	}
	if s.files.CA != "" {
		all, err := ReadPEM(s.files.CA)
		if err != nil {
			return err
		}
		pool = x509.NewCertPool()
		for _, c := range all {
			pool.AddCert(c)
			certs = append(certs, certificate(s.files.CA, c))
		}
	}
	s.pair, s.pool, s.certs = pair, pool, certs
	return nil
}

func certificate(file string, c *x509.Certificate) Certificate {
	return Certificate{File: file, Subject: name(c), Issuer: c.Issuer.CommonName, NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC()}
}

// Certificates are those in use, this side's first.
func (s *Source) Certificates() []Certificate {
	_ = s.Refresh() // what can't be read leaves the old ones in use
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Certificate(nil), s.certs...)
}

// current is the content to use for a connection that is being made.
func (s *Source) current() (*tls.Certificate, *x509.CertPool) {
	_ = s.Refresh() // as above; doctor and the process's log say so
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pair, s.pool
}

// bytesMax bounds a file of certificates.
const bytesMax = 1 << 20

// ReadPEM reads all certificates of a file; there must be one.
func ReadPEM(path string) ([]*x509.Certificate, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > bytesMax {
		return nil, fmt.Errorf("%s: larger than 1 MiB, this can't be certificates", path)
	}
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no PEM certificate", path)
	}
	return out, nil
}
