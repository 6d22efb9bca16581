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
	l, err := client.New(client.Config{Nodes: logNodes(c), Dial: dialer(c, s.log), Name: fmt.Sprintf("twinspan/%d", os.Getpid()), Logger: logger})
	if err != nil {
		return nil, cli.Fail(cli.ExitUsage, err, "set log.nodes to the address of a node")
	}
	return l, nil
}
