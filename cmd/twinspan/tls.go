package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/twinspan/twinspan/internal/config"
)

// nodeTLS is the listener's side of the log's connections; nil: plain. The
// certificate is read for every connection, so that a new one needs no restart.
func nodeTLS(c config.NodeTLS) (*tls.Config, error) {
	if c.Cert == "" {
		return nil, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("node.tls: %w", err)
		}
		return &pair, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return load() }}
	if c.CA != "" {
		pool, err := authority("node.tls.ca", c.CA)
		if err != nil {
			return nil, err
		}
		t.ClientAuth, t.ClientCAs = tls.RequireAndVerifyClientCert, pool
	}
	return t, nil
}

// logTLS is the client's side; nil: plain.
func logTLS(c config.LogTLS) (*tls.Config, error) {
	if c.CA == "" {
		return nil, nil
	}
	pool, err := authority("log.tls.ca", c.CA)
	if err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}
	if c.Cert != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
			if err != nil {
				return nil, fmt.Errorf("log.tls: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return t, nil
}

func authority(key, path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: %s holds no PEM certificate", key, path)
	}
	return pool, nil
}
