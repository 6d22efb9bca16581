package config

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

// The engines of the log.
const (
	EngineTwinspan  = "twinspan"
	EngineJetStream = "jetstream"
)

// JetStream is the log on a NATS JetStream cluster, where log.engine says so.
type JetStream struct {
	// Servers are some of the cluster's servers; the others are learned from them.
	Servers []string `yaml:"servers"`
	// Credentials is a file with a user's JWT and key.
	Credentials string `yaml:"credentials"`
	// Prefix is in front of everything this log has on the servers.
	Prefix string `yaml:"prefix"`
	// Replicas of each stream.
	Replicas  int       `yaml:"replicas"`
	Placement Placement `yaml:"placement"`
	// Monitors are the servers' monitoring ports, asked whether they sync.
	Monitors []string `yaml:"monitors"`
}

// Placement says which servers may hold a stream.
type Placement struct {
	Cluster string   `yaml:"cluster"`
	Tags    []string `yaml:"tags"`
}

func (v *validator) engine() {
	l := v.c.Log
	switch l.Engine {
	case EngineTwinspan:
		return
	case EngineJetStream:
	default:
		hint := "use " + EngineTwinspan + " or " + EngineJetStream
		if n := nearest(l.Engine, []string{EngineTwinspan, EngineJetStream}); n != "" {
			hint = "did you mean " + n + "?"
		}
		v.problem("log.engine", "unknown engine %q; %s", l.Engine, hint)
		return
	}
	j := l.JetStream
	if v.c.Has(RoleNode) {
		v.problem("log.engine", "the role node stores the log of the engine %s; leave one of them out", EngineTwinspan)
	}
	if len(j.Servers) == 0 {
		v.problem("log.jetstream.servers", "missing: where are the NATS servers?")
	}
	at := func(key string, i int) string {
		if path := fmt.Sprintf("log.jetstream.%s[%d]", key, i); v.origins[path] != "" {
			return path
		}
		return "log.jetstream." + key
	}
	for i, s := range j.Servers {
		host := s
		for _, scheme := range []string{"nats://", "tls://"} {
			host = strings.TrimPrefix(host, scheme)
		}
		if _, _, err := net.SplitHostPort(host); err != nil {
			v.problem(at("servers", i), "%q is not host:port", s)
		}
	}
	for i, m := range j.Monitors {
		if u, err := url.Parse(m); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			v.problem(at("monitors", i), "%q is not http://host:port", m)
		}
	}
	if len(j.Monitors) == 0 {
		v.warn("log.jetstream.monitors", "missing: nobody looks whether the servers sync before they confirm (sync_interval: always)")
	}
	v.files("log.jetstream", map[string]string{"credentials": j.Credentials})
	if j.Prefix == "" || len(j.Prefix) > 64 || strings.Trim(j.Prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
		v.problem("log.jetstream.prefix", "%q: use up to 64 letters, digits and hyphens", j.Prefix)
	}
	if j.Replicas != 1 && j.Replicas != 3 && j.Replicas != 5 {
		v.problem("log.jetstream.replicas", "%d: use 3 or 5, or 1 for a test", j.Replicas)
	}
}
