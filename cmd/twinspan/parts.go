package main

import (
	"fmt"
	"net"
	"os"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier"
	"github.com/twinspan/twinspan/applier/conflicts"
	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/producer"
	"github.com/twinspan/twinspan/producer/binlog"
)

func producerConfig(c *config.Config) producer.Config {
	out := producer.Config{
		Stream: c.Stream,
		Binlog: binlog.Config{Server: c.Source, ServerID: uint32(c.Producer.ServerID), Skip: c.Producer.Skip, AllowGaps: c.Producer.AllowGaps},
		Start:  c.Producer.Start, BatchBytesMax: int(c.Producer.BatchBytesMax), BatchDelay: c.Producer.BatchDelay.Std(),
		TransactionChunkBytes: int(c.Producer.TransactionChunkBytes),
	}
	if c.Primary.Address != "" {
		primary := c.Primary
		out.Binlog.Primary = &primary
	}
	return out
}

func applierConfig(c *config.Config) applier.Config {
	a := &c.Applier
	return applier.Config{
		Stream: c.Stream, Target: c.Target, Lanes: a.Lanes, BatchRows: a.BatchRows,
		BatchBytes: int64(a.BatchBytes), BatchDelay: a.BatchDelay.Std(), BatchTime: a.BatchTime.Std(),
		Atomicity: applier.Atomicity(a.Atomicity), AnyOrder: !a.CommitOrder, Throttle: throttleOf(a.Throttle),
		Conflicts: conflictPolicies(a), Exceptions: exceptionRules(a),
		Rules: a.Rules().Stamp(), Owner: fmt.Sprintf("%s:%d", hostName(), os.Getpid()),
	}
}

func conflictPolicies(a *config.Applier) conflicts.Policies {
	p := conflicts.Policies{Policy: conflicts.Policy(a.Conflicts.Policy), Images: a.Conflicts.Compare == "images"}
	for table, policy := range a.Conflicts.Tables {
		if p.Tables == nil {
			p.Tables = map[string]conflicts.Policy{}
		}
		p.Tables[table] = conflicts.Policy(policy)
	}
	return p
}

func exceptionRules(a *config.Applier) applier.Exceptions {
	e := a.Exceptions
	out := applier.Exceptions{Wait: e.Followers == "wait", Max: e.Max, Retry: exceptions.Retry{First: e.Retry.First.Std(), Max: e.Retry.Max.Std()}}
	for _, cause := range e.On {
		out.On = append(out.On, exceptions.Cause(cause))
	}
	return out
}

// compressionOf a name that was validated.
func compressionOf(name string) segment.Compression {
	c, err := segment.ParseCompression(name)
	if err != nil {
		panic("node.compression was not validated: " + err.Error()) // a caller's bug, not an input
	}
	return c
}

func nodeConfig(c *config.Config, s security, logger zerolog.Logger) node.Config {
	var cluster []node.ClusterNode
	for _, n := range c.Node.Cluster {
		cluster = append(cluster, node.ClusterNode{Name: n.Name, City: n.City, Address: n.Address, Witness: n.Witness})
	}
	policy := policyOf(c.Log.Policy)
	if policy.Rule.Total == 0 && len(policy.Rule.Cities) == 0 {
		policy.Rule = node.DefaultPolicy(cluster).Rule
	}
	return node.Config{
		Name: c.Node.Name, City: c.City, Dir: c.Node.Dir, Listen: c.Node.Listen, Cluster: cluster, Accepted: s.node.Accepted, Dial: dialer(c, s.node),
		FileBytes: int64(c.Node.JournalFileBytes), JournalBytes: int64(c.Node.JournalBytes), Compression: compressionOf(c.Node.Compression), Policy: &policy, RepairBytesPerSecond: int64(c.Node.RepairRate), Version: version,
		Logger: logger.With().Str("role", string(config.RoleNode)).Logger(),
	}
}

// reach loads the configuration and connects to the log it names.
func (a *app) reach() (*config.Loaded, log.Log, error) {
	l, err := a.load(true)
	if err != nil {
		return nil, nil, err
	}
	s, err := openSecurity(l.Config)
	if err != nil {
		return nil, nil, err
	}
	eng, err := openLog(l.Config, s, zerolog.Nop())
	if err != nil {
		return nil, nil, err
	}
	return l, eng, nil
}

// logNodes are addresses of nodes to begin with: those of log.nodes, or for a
// process with the node role its own, and then the others of its cluster.
func logNodes(c *config.Config) []string {
	if c.Log.Engine == config.EngineJetStream {
		return c.Log.JetStream.Servers
	}
	if !c.Has(config.RoleNode) {
		return c.Log.Nodes
	}
	if len(c.Node.Cluster) == 0 {
		host, port, err := net.SplitHostPort(c.Node.Listen) // the validator checked it
		if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
			return []string{net.JoinHostPort("127.0.0.1", port)}
		}
		return []string{c.Node.Listen}
	}
	var own, others []string
	for _, n := range c.Node.Cluster {
		if n.Name == c.Node.Name {
			own = append(own, n.Address)
		} else {
			others = append(others, n.Address)
		}
	}
	return append(own, others...)
}

func throttleOf(t config.Throttle) applier.Throttle {
	return applier.Throttle{RowsPerSecond: t.RowsPerSecond, ReplicaLag: t.ReplicaLag.Std(), Replicas: t.Replicas, ThreadsRunning: t.ThreadsRunning}
}
