package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/wan"
)

// wanCommand is for labs and demos: it is not in the list of commands.
func (a *app) wanCommand() *cobra.Command {
	var file, control string
	c := &cobra.Command{
		Use:    "wan",
		Short:  "Stand between the cities of a lab: delay, limit and cut",
		Hidden: true,
		Long: `Runs a network between cities on one machine, for demos and tests: gates in front
of nodes, which delay what comes from another city, told by its source address
(log.bind). FILE is JSON: {"gates": [{"name", "city", "listen", "target"}],
"cities": [{"prefix", "city"}], "ways": [{"from", "to", "delay" (ns), "jitter",
"rate", "cut" ("hold", "reset")}]}. The control is HTTP: GET /gates, /ways and
/flows, POST /way with one of "ways".`,
		Example: `  twinspan wan --file wan.json --control 127.0.0.1:9040
  curl -d '{"from":"a","to":"b","cut":"hold"}' 127.0.0.1:9040/way`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := os.ReadFile(file)
			if err != nil {
				return cli.Fail(cli.ExitUsage, err, "name the file with --file")
			}
			var cfg wan.Config
			d := json.NewDecoder(bytes.NewReader(b))
			d.DisallowUnknownFields()
			if err := d.Decode(&cfg); err != nil {
				return cli.Fail(cli.ExitUsage, fmt.Errorf("%s: %w", file, err), c.CommandPath()+" --help shows what stands in it")
			}
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return a.runWAN(ctx, cfg, control)
		},
	}
	c.Flags().StringVar(&file, "file", "", "the network, JSON")
	c.Flags().StringVar(&control, "control", "127.0.0.1:0", "where the control listens: loopback only")
	return c
}

func (a *app) runWAN(ctx context.Context, cfg wan.Config, control string) error {
	cfg.Logger = zerolog.New(a.err).With().Timestamp().Logger()
	host, _, err := net.SplitHostPort(control)
	if err != nil || !net.ParseIP(host).IsLoopback() {
		return cli.Usage("--control %q: it obeys everybody, so it listens on loopback only", control)
	}
	n, err := wan.New(cfg)
	if err != nil {
		return cli.Fail(cli.ExitError, err, "another process uses the address")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := new(errgroup.Group)
	g.Go(func() error { return n.Run(ctx) })
	l, err := net.Listen("tcp", control)
	if err != nil {
		cancel()
		return cli.Fail(cli.ExitError, errors.Join(err, g.Wait()), "another process uses the address")
	}
	fmt.Fprintf(a.out, "control http://%s\n", l.Addr())
	s := &http.Server{Handler: n.Handler(), ReadHeaderTimeout: 5 * time.Second}
	g.Go(func() error {
		defer cancel()
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return s.Close()
	})
	return g.Wait()
}
