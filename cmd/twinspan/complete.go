package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/ops"
)

// completeFor is how long a shell waits for the cluster's names.
const completeFor = 2 * time.Second

// lister finds names in the cluster, for the shell's completion.
type lister func(context.Context, *ops.Client) ([]string, error)

func streamNames(ctx context.Context, c *ops.Client) ([]string, error) {
	return c.Metadata().Streams(ctx)
}

func nodeNames(ctx context.Context, c *ops.Client) (out []string, err error) {
	nodes, err := c.Metadata().Nodes(ctx)
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return out, err
}

func cityNames(ctx context.Context, c *ops.Client) (out []string, err error) {
	nodes, err := c.Metadata().Nodes(ctx)
	for _, n := range nodes {
		if !slices.Contains(out, n.City) {
			out = append(out, n.City)
		}
	}
	return out, err
}

// offer makes a completion of what the cluster knows; a cluster that does not answer
// offers nothing, and never file names.
func (a *app) offer(what lister) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		_, client, err := a.operate()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completeFor)
		defer cancel()
		found, err := what(ctx, client)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// first completes the first argument only.
func first(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(c, given, begun)
	}
}

// groupNames are the readers of the configured stream.
func (a *app) groupNames() lister {
	return func(ctx context.Context, client *ops.Client) (out []string, err error) {
		l, err := a.load(true)
		if err != nil {
			return nil, err
		}
		st, err := client.Metadata().Stream(ctx, l.Stream)
		for _, x := range st.Cursors {
			out = append(out, x.Group)
		}
		return out, err
	}
}

// completions gives the verbs of the log their completion: what an argument stands
// for is in the command's usage, what a flag stands for in its name.
func (a *app) completions(root *cobra.Command) {
	arguments := map[string]lister{"STREAM": streamNames, "[STREAM]": streamNames, "NODE": nodeNames, "GROUP": a.groupNames()}
	flags := map[string]cobra.CompletionFunc{
		"node": a.offer(nodeNames), "give-up": a.offer(nodeNames), "without": a.offer(cityNames), "attest-fenced": a.offer(cityNames),
		"loss": cobra.FixedCompletions([]string{"block", "degrade-manual", "degrade-after"}, cobra.ShellCompDirectiveNoFileComp),
	}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if what := arguments[placeholder(c, 0)]; what != nil {
			if c.ValidArgsFunction = first(a.offer(what)); c.Name() == "create" {
				c.ValidArgsFunction = cobra.NoFileCompletions // it makes one that is not there
			}
		}
		for name, f := range flags {
			if c.Flags().Lookup(name) != nil && c.Parent() != nil && c.Parent().Name() != "certs" {
				_ = c.RegisterFlagCompletionFunc(name, f) // it fails for a flag that is not there, or was done
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)) // as above
}
