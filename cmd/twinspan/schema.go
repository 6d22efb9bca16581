package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/inspect"
	"github.com/twinspan/twinspan/schema"
)

func (a *app) schemaCommand() *cobra.Command {
	return group("schema", "Look at the table versions that the log has published",
		`  twinspan schema list
  twinspan schema show shop.orders
  twinspan schema diff shop.orders`,
		a.schemaList(), a.schemaShow(), a.schemaDiff())
}

// versions reads the schema topic.
func (a *app) versions(c *cobra.Command) ([]*inspect.Version, error) {
	l, eng, err := a.reach()
	if err != nil {
		return nil, err
	}
	defer eng.Close()
	vs, err := inspect.Versions(c.Context(), eng, l.Stream)
	return vs, logError(err)
}

func (a *app) schemaList() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:     "list",
		Short:   "List tables and their current version",
		Example: "  twinspan schema list\n  twinspan schema list --all -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			vs, err := a.versions(c)
			if err != nil {
				return err
			}
			if !all {
				vs = newest(vs)
			}
			return p.Print(vs, func() error {
				var rows [][]string
				for _, v := range vs {
					rows = append(rows, []string{v.Table, v.Fingerprint[:12], fmt.Sprint(v.Offset), fmt.Sprint(len(v.Columns)),
						strings.Join(v.PrimaryKey, ", "), v.PublishedAt.UTC().Format(time.DateTime), v.GTID})
				}
				p.Rows([]string{"table", "version", "offset", "columns", "primary key", "published", "first gtid"}, rows)
				return nil
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every version, not only the current ones")
	return c
}

// newest keeps the last version of each table, sorted by name.
func newest(vs []*inspect.Version) []*inspect.Version {
	last := map[string]*inspect.Version{}
	for _, v := range vs {
		last[v.Table] = v
	}
	out := []*inspect.Version{}
	for _, v := range last {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b *inspect.Version) int { return strings.Compare(a.Table, b.Table) })
	return out
}

// pick finds a version by table (its current one), table@fingerprint, or
// fingerprint; a fingerprint may be cut short.
func pick(vs []*inspect.Version, name string) (*inspect.Version, error) {
	table, print, at := strings.Cut(name, "@")
	var found []*inspect.Version
	for _, v := range vs {
		switch {
		case v.Table == name, at && v.Table == table && strings.HasPrefix(v.Fingerprint, strings.ToLower(print)):
			found = append(found, v)
		case len(name) >= 6 && strings.HasPrefix(v.Fingerprint, strings.ToLower(name)):
			found = append(found, v)
		}
	}
	if len(found) == 0 {
		return nil, cli.Fail(cli.ExitError, fmt.Errorf("no table version %q", name),
			"name a table as schema.table, or a version by the first six or more digits of its fingerprint: twinspan schema list --all")
	}
	last := found[len(found)-1]
	for _, v := range found {
		if v.Table != name && v.Fingerprint != last.Fingerprint {
			return nil, cli.Usage("%q is the beginning of several fingerprints: write more of it", name)
		}
	}
	return last, nil
}

func (a *app) schemaShow() *cobra.Command {
	var avro, descriptor bool
	c := &cobra.Command{
		Use:   "show <table|fingerprint>",
		Short: "Show one table version",
		Example: `  twinspan schema show shop.orders
  twinspan schema show 3fa94c01d2b7 --avro       the Avro schema of its rows
  twinspan schema show shop.orders --descriptor  what the fingerprint is made from`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			vs, err := a.versions(c)
			if err != nil {
				return err
			}
			v, err := pick(vs, names[0])
			if err != nil {
				return err
			}
			switch {
			case avro:
				p.Printf("%s\n", v.Definition.AvroSchema)
				return nil
			case descriptor:
				b, err := json.MarshalIndent(v.Definition.Table, "", "  ")
				if err == nil {
					p.Printf("%s\n", b)
				}
				return err
			}
			return p.Print(v, func() error {
				p.Printf("%s\nfingerprint %s\npublished at offset %d, %s, for %s\n\n", v.Table, v.Fingerprint, v.Offset,
					v.PublishedAt.UTC().Format(time.RFC3339), v.GTID)
				var rows [][]string
				for _, c := range v.Columns {
					key := ""
					if c.Key {
						key = "primary key"
					}
					rows = append(rows, []string{c.Name, c.Type, key})
				}
				p.Rows([]string{"column", "type", ""}, rows)
				return nil
			})
		},
	}
	c.Flags().BoolVar(&avro, "avro", false, "print the Avro schema instead")
	c.Flags().BoolVar(&descriptor, "descriptor", false, "print the table's descriptor instead")
	c.MarkFlagsMutuallyExclusive("avro", "descriptor")
	return c
}

func (a *app) schemaDiff() *cobra.Command {
	return &cobra.Command{
		Use:   "diff <table|fingerprint> [fingerprint]",
		Short: "Say what makes one table version another than an earlier one",
		Long: `Compares two versions; with one table named, its current version with the one
before. Exit code 0 when they are the same, 3 when they differ.`,
		Example: `  twinspan schema diff shop.orders
  twinspan schema diff 3fa94c01d2b7 90aa17c03e55`,
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, names []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			vs, err := a.versions(c)
			if err != nil {
				return err
			}
			before, err := pick(vs, names[0])
			if err != nil {
				return err
			}
			after := before
			if len(names) == 2 {
				if after, err = pick(vs, names[1]); err != nil {
					return err
				}
			} else {
				before = nil
				for _, v := range vs {
					if v.Table == after.Table && v.Offset < after.Offset {
						before = v
					}
				}
				if before == nil {
					p.Printf("%s has one version only\n", after.Table)
					return nil
				}
			}
			changes := schema.Diff(before.Definition.Table, after.Definition.Table)
			if changes == nil {
				changes = []schema.Change{}
			}
			err = p.Print(changes, func() error {
				p.Printf("%s %s (offset %d) -> %s %s (offset %d)\n", before.Table, before.Fingerprint[:12], before.Offset,
					after.Table, after.Fingerprint[:12], after.Offset)
				for _, c := range changes {
					p.Printf("  %s\n", c)
				}
				return nil
			})
			if err == nil && len(changes) > 0 {
				err = cli.Exit(cli.ExitDifferences)
			}
			return err
		},
	}
}
