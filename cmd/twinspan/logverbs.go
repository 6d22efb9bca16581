package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/ops"
	"github.com/twinspan/twinspan/log"
)

func (a *app) logCommand() *cobra.Command {
	return group("log", "Look after the log: nodes, segments, protection, repair",
		`  twinspan log status
  twinspan log nodes
  twinspan log verify
  twinspan log degrade payments --without b`,
		a.logStatus(), a.logSegments(), a.logNodes(), a.logRepair(), a.logRead(), a.logVerify(), a.logTakeover(),
		a.logDegrade(false), a.logDegrade(true))
}

// operate loads the configuration and makes a client for the verbs that ask the
// cluster itself.
func (a *app) operate() (*config.Loaded, *ops.Client, error) {
	l, err := a.load(true)
	if err != nil {
		return nil, nil, err
	}
	if l.Log.Engine != config.EngineTwinspan {
		return nil, nil, cli.Fail(cli.ExitUsage, fmt.Errorf("the log's engine is %s, and this asks twinspan's own nodes", l.Log.Engine), "ask the NATS servers with their own tools")
	}
	s, err := openSecurity(l.Config)
	if err != nil {
		return nil, nil, err
	}
	return l, ops.New(ops.Config{
		Seeds: logNodes(l.Config), City: l.City, Name: fmt.Sprintf("twinspan/%d", os.Getpid()), Dial: dialer(l.Config, s.log),
	}), nil
}

// consent is how a change that is not undone by itself is agreed to.
type consent struct {
	yes    bool
	reason string
}

func (c *consent) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.yes, "yes", false, "carry it out; without it nothing is changed")
	cmd.Flags().StringVar(&c.reason, "reason", "", "why; every node's log has it, with who asked")
}

// check refuses half of it.
func (c *consent) check() error {
	if c.yes && strings.TrimSpace(c.reason) == "" {
		return cli.Fail(cli.ExitUsage, errors.New("--yes needs a --reason"), `say why in a few words: --reason "city b has no power"`)
	}
	return nil
}

// again tells how to carry out what was previewed.
func (c *consent) again(p *cli.Printer) {
	p.Printf("\nNothing was changed. With --yes --reason \"…\" it is carried out.\n")
}

// opsError gives an error of the cluster its exit code and a hint.
func opsError(err error) error {
	var e *cli.Error
	var unknown *ops.UnknownNode
	var lost *log.LostError
	switch {
	case err == nil, errors.As(err, &e):
		return err
	case errors.As(err, &unknown):
		return cli.Fail(cli.ExitUsage, err, "twinspan log nodes lists them")
	case errors.Is(err, log.ErrNoStream):
		return cli.Fail(cli.ExitError, err, "twinspan log status lists the streams there are")
	case errors.As(err, &lost):
		return cli.Fail(cli.ExitError, err, fmt.Sprintf("twinspan log status says why; --from %d is behind it", lost.To+1))
	case errors.Is(err, log.ErrTrimmed):
		return cli.Fail(cli.ExitError, err, "twinspan log segments shows what is kept")
	case errors.Is(err, log.ErrElsewhere):
		return cli.Fail(cli.ExitError, err, "twinspan log segments shows which nodes hold a segment")
	case errors.Is(err, log.ErrUnknown):
		return cli.Fail(cli.ExitUnreachable, err, "it may or may not have been done: twinspan log status shows it; the command may be repeated")
	case errors.Is(err, log.ErrGeneration):
		return cli.Fail(cli.ExitUnsafe, err, "the cluster was taken over without this node: twinspan log nodes shows it, log nodes rejoin takes it in again")
	case errors.Is(err, log.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		if refused(err) {
			return unreachable(err)
		}
		return cli.Fail(cli.ExitUnreachable, err, "is a majority of the nodes running? twinspan log nodes asks each of them; log.nodes names some of them")
	case errors.Is(err, log.ErrProtocol):
		// The cluster's refusals are of this kind, and their words say why.
		return cli.Fail(cli.ExitUnsafe, errors.New(strings.TrimSuffix(err.Error(), ": "+log.ErrProtocol.Error())), "nothing was changed")
	case errors.Is(err, log.ErrCursorBehind), errors.Is(err, log.ErrIdentity), errors.Is(err, log.ErrFenced):
		return cli.Fail(cli.ExitUnsafe, err, "nothing was changed")
	}
	return err
}
