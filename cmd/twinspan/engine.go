package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/jetstream"
)

// openLog makes a client of the log that the configuration names. It connects
// when it is used.
func openLog(c *config.Config, s security, logger zerolog.Logger) (log.Log, error) {
	if c.Log.Engine == config.EngineJetStream {
		return openJetStream(c, logger)
	}
	cfg := client.Config{
		Nodes: logNodes(c), City: c.City, Dial: dialer(c, s.log), Name: fmt.Sprintf("twinspan/%d", os.Getpid()), Owner: hostName(),
		Far: client.Far(c.Log.Far), WindowBytes: int64(c.Log.WindowBytes), Logger: logger,
	}
	if p := policyOf(c.Log.Policy); p.Rule.Total > 0 || len(p.Rule.Cities) > 0 {
		cfg.Policy = &p
	}
	l, err := client.New(cfg)
	if err != nil {
		return nil, cli.Fail(cli.ExitUsage, err, "set log.nodes to the address of a node")
	}
	return l, nil
}

// openJetStream is openLog on NATS servers.
func openJetStream(c *config.Config, logger zerolog.Logger) (log.Log, error) {
	j, t := c.Log.JetStream, c.Log.TLS
	cfg := jetstream.Config{
		Servers: j.Servers, Credentials: j.Credentials, Name: fmt.Sprintf("twinspan/%d", os.Getpid()), Prefix: j.Prefix, Replicas: j.Replicas,
		Cluster: j.Placement.Cluster, Tags: j.Placement.Tags, Monitors: j.Monitors, WindowBytes: int64(c.Log.WindowBytes),
		Retention: jetstream.Retention{BytesMax: int64(c.Log.Policy.BytesMax), AgeMax: c.Log.Policy.AgeMax.Std()}, Logger: logger,
	}
	if t.CA != "" {
		var err error
		if cfg.TLS, err = authority(t); err != nil {
			return nil, cli.Fail(cli.ExitUsage, err, "see log.tls in twinspan config example")
		}
	}
	l, err := jetstream.New(cfg)
	if err != nil {
		return nil, cli.Fail(cli.ExitUsage, err, "see log.jetstream in twinspan config example")
	}
	return l, nil
}

// authority is the TLS of a client that trusts one authority, read once.
func authority(t config.LogTLS) (*tls.Config, error) {
	pem, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, err
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !out.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", t.CA)
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, err
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
