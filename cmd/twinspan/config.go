package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
)

func (a *app) configCommand() *cobra.Command {
	return group("config", "Check, show and explain the configuration",
		`  twinspan config example > twinspan.yaml
  twinspan config check -c twinspan.yaml
  twinspan config show --origin --set producer.batch_delay=5ms`,
		a.configCheck(), a.configShow(), a.configExample())
}

func (a *app) configCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say what is wrong with the configuration, by line",
		Long: `Reads the configuration with all overrides and says what is wrong, one problem
in a line with its place. It looks at nothing but the configuration; doctor looks
at servers, files and disks. Exit code 0, or 2 when something is wrong.`,
		Example: `  twinspan config check -c twinspan.yaml
  twinspan config check -c twinspan.yaml -o json`,
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			path := a.path()
			if path == "" {
				return cli.Fail(cli.ExitUsage, errors.New("no configuration file was found"), "name one with -c")
			}
			l, err := config.Load(config.Input{Path: path, Env: a.env, Flags: a.set})
			var invalid *config.Invalid
			if err != nil && !errors.As(err, &invalid) {
				return cli.Fail(cli.ExitUsage, err, "name the file with -c")
			}
			result := struct {
				File     string   `json:"file"`
				Valid    bool     `json:"valid"`
				Problems []string `json:"problems"`
				Warnings []string `json:"warnings"`
			}{File: path, Valid: invalid == nil, Problems: []string{}, Warnings: []string{}}
			if invalid != nil {
				for _, p := range invalid.Problems {
					result.Problems = append(result.Problems, p.String())
				}
			}
			for _, w := range l.Warnings {
				result.Warnings = append(result.Warnings, w.String())
			}
			err = p.Print(result, func() error {
				for _, s := range result.Problems {
					fmt.Fprintln(a.err, s)
				}
				for _, s := range result.Warnings {
					fmt.Fprintln(a.err, "warning: "+s)
				}
				if invalid == nil {
					var roles []string
					for _, r := range l.Roles {
						roles = append(roles, string(r))
					}
					p.Printf("%s is valid: stream %s, roles %s\n", path, l.Stream, strings.Join(roles, ", "))
				}
				return nil
			})
			if err == nil && invalid != nil {
				err = cli.Exit(cli.ExitUsage)
			}
			return err
		},
	}
}

func (a *app) configShow() *cobra.Command {
	var origin bool
	c := &cobra.Command{
		Use:   "show",
		Short: "Show the effective configuration, secrets left out",
		Example: `  twinspan config show -c twinspan.yaml
  twinspan config show --origin                 where each value comes from
  TWINSPAN_APPLY_LANES=4 twinspan config show -o json`,
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			l, err := a.load(true)
			if err != nil {
				return err
			}
			if p.Format == cli.JSON {
				return p.Print(l.Settings(), nil)
			}
			text, err := l.YAML(origin)
			if err != nil {
				return err
			}
			p.Printf("%s", text)
			return nil
		},
	}
	c.Flags().BoolVar(&origin, "origin", false, "say behind each value where it was set")
	return c
}

func (a *app) configExample() *cobra.Command {
	return &cobra.Command{
		Use:     "example",
		Short:   "Print a complete configuration with every key explained",
		Example: "  twinspan config example > twinspan.yaml",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(a.out, config.Example())
			return err
		},
	}
}
