// Command twinspan replicates a MySQL set to another city. Everything is in this
// one binary: the daemon that plays any mix of roles, and the verbs to look at it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
)

func main() {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Environ()}
	os.Exit(a.execute(context.Background(), os.Args[1:]))
}

// app is what the verbs share: where they read and write, and the flags that all
// of them have.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      []string

	configPath string
	set        []string
	output     string
}

// execute runs one command line and returns its exit code.
func (a *app) execute(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	return cli.Report(a.err, root.ExecuteContext(ctx))
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "twinspan",
		Short: "Replicates MySQL and MariaDB between cities, exactly",
		Long: `Twinspan moves every committed transaction of a MySQL or MariaDB set to another
city: a producer reads a standby's binlog into an ordered, durable log; appliers
write it to the target. What can't be replicated exactly halts with a name and a
remedy.

Exit codes: 0 ok, 1 error, 2 usage or configuration, 3 differences found,
4 refused as unsafe, 5 unreachable.`,
		Example: `  twinspan config example > twinspan.yaml     a file with every key explained
  twinspan doctor -c twinspan.yaml            what must be different, and the SQL for it
  twinspan run -c twinspan.yaml               run the roles named in the file
  twinspan status -c twinspan.yaml            ask the running process`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          subcommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return cli.Fail(cli.ExitUsage, wrongFlag(err), c.CommandPath()+" --help shows the flags")
	})
	f := root.PersistentFlags()
	f.StringVarP(&a.configPath, "config", "c", "", "configuration file, - for standard input (default $TWINSPAN_CONFIG, ./twinspan.yaml or /etc/twinspan/twinspan.yaml)")
	f.StringArrayVar(&a.set, "set", nil, "override one key of the configuration, such as logging.level=debug (repeatable)")
	f.StringVarP(&a.output, "output", "o", "table", "output format: table, json or yaml")
	root.AddCommand(
		a.runCommand(), a.doctorCommand(), a.statusCommand(), a.configCommand(), a.topicCommand(), a.logCommand(), a.cursorCommand(),
		a.conflictsCommand(), a.exceptionsCommand(), a.schemaCommand(), a.lanesCommand(), a.filtersCommand(), a.verifyCommand(), a.certsCommand(), a.versionCommand(), a.wanCommand(),
	)
	a.completions(root)
	return root
}

// group makes a command that only holds others.
func group(use, short, example string, sub ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: example, Args: subcommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(sub...)
	return c
}

// subcommand refuses a word that is no command of c, and says which was meant.
func subcommand(c *cobra.Command, words []string) error {
	if len(words) == 0 {
		return nil
	}
	c.SuggestionsMinimumDistance = 2
	hint := c.CommandPath() + " --help lists the commands"
	if near := c.SuggestionsFor(words[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return cli.Fail(cli.ExitUsage, fmt.Errorf("%s has no command %q", c.CommandPath(), words[0]), hint)
}

// args makes a complaint about arguments a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, a []string) error {
		if err := check(c, a); err != nil {
			return cli.Fail(cli.ExitUsage, wrongArgs(c, a, err), c.CommandPath()+" --help shows how it is used")
		}
		return nil
	}
}

// wrongArgs says which argument is missing, or one too many.
func wrongArgs(c *cobra.Command, given []string, err error) error {
	if want := placeholder(c, len(given)); want != "" && want[0] != '[' {
		return fmt.Errorf("%s: %s is missing", c.CommandPath(), want)
	}
	for i, word := range given {
		if placeholder(c, i) == "" {
			return fmt.Errorf("%s: %q is one argument too many", c.CommandPath(), word)
		}
	}
	return err
}

// placeholder is what the command's usage calls its i-th argument, "" if it has none.
func placeholder(c *cobra.Command, i int) string {
	for _, w := range strings.Fields(c.Use)[1:] {
		if strings.HasPrefix(w, "-") {
			return ""
		}
		if i--; i < 0 {
			return w
		}
	}
	return ""
}

// wrongFlag says in words what a flag takes.
func wrongFlag(err error) error {
	var number *strconv.NumError
	if !errors.As(err, &number) {
		return err
	}
	text, _, _ := strings.Cut(err.Error(), ": strconv.")
	what := map[string]string{"ParseInt": "a whole number", "ParseUint": "a whole number that is not negative", "ParseFloat": "a number", "ParseBool": "true or false"}[number.Func]
	if errors.Is(err, strconv.ErrRange) {
		what = "a smaller number"
	}
	return fmt.Errorf("%s: it takes %s", text, what)
}

// words takes up to most of the command's ValidArgs.
func words(most int) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if len(given) > most {
			return cli.Fail(cli.ExitUsage, fmt.Errorf("%s takes at most %d words, not %d", c.CommandPath(), most, len(given)), c.CommandPath()+" --help shows how it is used")
		}
		for _, w := range given {
			if !slices.Contains(c.ValidArgs, w) {
				return cli.Fail(cli.ExitUsage, fmt.Errorf("%s does not know %q", c.CommandPath(), w), "use "+strings.Join(c.ValidArgs, ", "))
			}
		}
		return nil
	}
}

// printer writes results in the format that was asked for.
func (a *app) printer() (*cli.Printer, error) {
	f, err := cli.ParseFormat(a.output)
	if err != nil {
		return nil, err
	}
	return cli.NewPrinter(a.out, f), nil
}

// path is the configuration file to read: the flag's, the environment's, or the
// first of the usual places that exists; "" when there is none.
func (a *app) path() string {
	if a.configPath != "" {
		return a.configPath
	}
	for _, e := range a.env {
		if v, ok := strings.CutPrefix(e, config.FileVariable+"="); ok && v != "" {
			return v
		}
	}
	for _, p := range []string{"twinspan.yaml", "/etc/twinspan/twinspan.yaml"} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return ""
}

// load reads the configuration; its problems are printed, one in a line.
func (a *app) load(tool bool) (*config.Loaded, error) {
	l, err := config.Load(config.Input{Path: a.path(), Env: a.env, Flags: a.set, Tool: tool})
	var invalid *config.Invalid
	switch {
	case errors.As(err, &invalid) && a.path() == "" && len(a.set) == 0:
		return nil, cli.Fail(cli.ExitUsage, errors.New("no configuration file was found"),
			"name one with -c, or make one: twinspan config example > twinspan.yaml")
	case errors.As(err, &invalid):
		for _, p := range invalid.Problems {
			cli.Report(a.err, errors.New(p.String()))
		}
		return nil, cli.Exit(cli.ExitUsage)
	case err != nil:
		return nil, cli.Fail(cli.ExitUsage, err, "name the file with -c, or make one: twinspan config example > twinspan.yaml")
	}
	return l, nil
}
