package main

import (
	"fmt"
	"os"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
)

// openLog makes a client of the log that the configuration names. It connects
// when it is used.
func openLog(c *config.Config, s security, logger zerolog.Logger) (log.Log, error) {
	cfg := client.Config{
		Nodes: logNodes(c), City: c.City, Dial: dialer(c, s.log), Name: fmt.Sprintf("twinspan/%d", os.Getpid()), Owner: hostName(),
		Far: client.Far(c.Log.Far), Logger: logger,
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
