package main

import (
	"fmt"
	"os"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/segment/single"
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
	return applier.Config{
		Stream: c.Stream, Target: c.Target, Lanes: c.Applier.Lanes, BatchRows: c.Applier.BatchRows,
		BatchBytes: int64(c.Applier.BatchBytes), BatchDelay: c.Applier.BatchDelay.Std(),
		Owner: fmt.Sprintf("%s:%d", hostName(), os.Getpid()),
	}
}

func nodeConfig(c *config.Config, s security, logger zerolog.Logger) node.Config {
	return node.Config{
		Name: c.Node.Name, Dir: c.Node.Dir, Listen: c.Node.Listen, Accepted: s.node.Accepted, Dial: dialer(c, s.node), FileBytes: int64(c.Node.JournalFileBytes),
		Retention: segment.Retention{BytesMax: int64(c.Log.Policy.BytesMax), AgeMax: c.Log.Policy.AgeMax.Std()},
		Logger:    logger.With().Str("role", string(config.RoleNode)).Logger(),
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

// logNodes are the addresses that tools use: those that are named, else the one
// that this process's own node would have.
func logNodes(c *config.Config) []string {
	if c.Has(config.RoleNode) {
		return []string{c.Node.Listen}
	}
	return c.Log.Nodes
}
