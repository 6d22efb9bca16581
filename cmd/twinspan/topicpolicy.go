package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// policyOf is the configured policy of a stream. An empty rule is completed by
// whoever knows the nodes.
func policyOf(p config.Policy) meta.Policy {
	out := meta.Policy{
		Rule: quorum.NodeRule{Total: p.Rule.Total, Cities: maps.Clone(map[string]int(p.Rule.Cities))}, Loss: meta.Loss(p.Loss),
		BytesMax: int64(p.BytesMax), AgeMax: p.AgeMax.Std(), BytesCap: int64(p.BytesCap),
	}
	if out.Loss == meta.LossDegradeAfter {
		out.After = p.After.Std()
	}
	return out
}

// policyFlags change a policy.
type policyFlags struct {
	total                    int
	cities                   string
	loss, after              string
	bytesMax, ageMax, capped string
}

func (f *policyFlags) add(c *cobra.Command) {
	c.Flags().IntVar(&f.total, "total", 0, "how many nodes must have an entry, in all; 0: as many as the cities ask for")
	c.Flags().StringVar(&f.cities, "cities", "", "how many in each city, such as a=1,b=1")
	c.Flags().StringVar(&f.loss, "loss", "", "when a city is gone: block, degrade-manual or degrade-after")
	c.Flags().StringVar(&f.after, "after", "", "for degrade-after: how long it must have been gone, such as 30s")
	c.Flags().StringVar(&f.bytesMax, "bytes-max", "", "what is kept behind all readers, such as 10GiB; 0: no limit")
	c.Flags().StringVar(&f.ageMax, "age-max", "", "how old entries behind all readers get, such as 7d; 0: no limit")
	c.Flags().StringVar(&f.capped, "bytes-cap", "", "beyond this, entries go that a reader still needs; 0: never")
}

// apply changes p by the flags that were given; false: none was.
func (f *policyFlags) apply(c *cobra.Command, p *meta.Policy) (bool, error) {
	changed := false
	given := func(name string) bool {
		is := c.Flags().Changed(name)
		changed = changed || is
		return is
	}
	size := func(name, text string, into *int64) error {
		var b config.Bytes
		if !given(name) {
			return nil
		}
		if err := b.UnmarshalText([]byte(text)); err != nil {
			return cli.Usage("--%s: %v", name, err)
		}
		*into = int64(b)
		return nil
	}
	span := func(name, text string, into *time.Duration) error {
		var d config.Duration
		if !given(name) {
			return nil
		}
		if err := d.UnmarshalText([]byte(text)); err != nil {
			return cli.Usage("--%s: %v", name, err)
		}
		*into = d.Std()
		return nil
	}
	if given("cities") {
		var s config.Shares
		if err := s.UnmarshalText([]byte(f.cities)); err != nil {
			return false, cli.Usage("--cities: %v", err)
		}
		p.Rule.Cities = s
		if !c.Flags().Changed("total") {
			p.Rule.Total = 0
		}
	}
	if given("total") {
		p.Rule.Total = f.total
	}
	if given("loss") {
		p.Loss = meta.Loss(f.loss)
		if !slices.Contains([]meta.Loss{meta.LossBlock, meta.LossDegradeManual, meta.LossDegradeAfter}, p.Loss) {
			return false, cli.Usage("--loss %q: use block, degrade-manual or degrade-after", f.loss)
		}
		if p.Loss != meta.LossDegradeAfter {
			p.After = 0
		} else if p.After == 0 {
			p.After = config.Default().Log.Policy.After.Std()
		}
	}
	err := errors.Join(span("after", f.after, &p.After), size("bytes-max", f.bytesMax, &p.BytesMax), span("age-max", f.ageMax, &p.AgeMax), size("bytes-cap", f.capped, &p.BytesCap))
	return changed, err
}

// checkPolicy holds a policy against the nodes there are.
func checkPolicy(p meta.Policy, nodes []meta.Node) error {
	var all []quorum.Member
	for _, n := range nodes {
		if !n.Witness {
			all = append(all, quorum.Member{Node: n.Name, UUID: n.UUID, City: n.City})
		}
	}
	if _, err := p.Rule.Of(all); err != nil {
		return cli.Fail(cli.ExitUnsafe, fmt.Errorf("the nodes of the cluster can't satisfy %q: %w", p.Rule, err), "twinspan log nodes lists them; nothing was changed")
	}
	if p.Loss == meta.LossDegradeAfter && p.After < time.Second {
		return cli.Usage("--after %s: at least 1s", p.After)
	}
	return nil
}

func (a *app) topicCreate() *cobra.Command {
	var flags policyFlags
	c := &cobra.Command{
		Use:   "create [STREAM]",
		Short: "Make a stream with its policy, before its first producer does",
		Long: `Makes the stream named in the configuration, or STREAM, with the policy of
log.policy as changed by the flags. Without a rule an entry is confirmed when a
node in each city that stores entries has it. A stream that exists is left as it is.`,
		Example: "  twinspan topic create\n  twinspan topic create payments --cities a=1,b=1 --loss degrade-manual",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			l, client, err := a.operate()
			if err != nil {
				return err
			}
			name := l.Stream
			if len(names) > 0 {
				name = names[0]
			}
			policy := policyOf(l.Log.Policy)
			if _, err := flags.apply(c, &policy); err != nil {
				return err
			}
			if policy, err = client.Policy(c.Context(), policy); err != nil {
				return opsError(err)
			}
			nodes, err := client.Metadata().Nodes(c.Context())
			if err != nil {
				return opsError(err)
			}
			if err := checkPolicy(policy, nodes); err != nil {
				return err
			}
			created, policy, err := client.Create(c.Context(), name, policy)
			if err != nil {
				return opsError(err)
			}
			r := struct {
				Stream  string      `json:"stream"`
				Created bool        `json:"created"`
				Policy  meta.Policy `json:"policy"`
			}{name, created, policy}
			return p.Print(r, func() error {
				if created {
					p.Printf("stream %s was made\n", name)
				} else {
					p.Printf("stream %s was there already, and was left as it is\n", name)
				}
				printPolicy(p, policy, nil)
				return nil
			})
		},
	}
	flags.add(c)
	return c
}

func (a *app) topicPolicy() *cobra.Command {
	var flags policyFlags
	var agreed consent
	c := &cobra.Command{
		Use:   "policy [STREAM]",
		Short: "Show a stream's policy, or change it",
		Long: `Without flags it shows the policy of the stream named in the configuration, or of
STREAM. With flags it says what would change; --yes --reason changes it. A new rule
holds from the next segment on; the stream's writer opens one soon.`,
		Example: "  twinspan topic policy\n  twinspan topic policy payments --loss degrade-after --after 1m\n  twinspan topic policy payments --bytes-max 50GiB --yes --reason \"larger disks\"",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			if err := agreed.check(); err != nil {
				return err
			}
			l, client, err := a.operate()
			if err != nil {
				return err
			}
			name := l.Stream
			if len(names) > 0 {
				name = names[0]
			}
			st, err := client.Metadata().Stream(c.Context(), name)
			if errors.Is(err, log.ErrNoStream) {
				return cli.Fail(cli.ExitError, err, "twinspan topic create makes it")
			}
			if err != nil {
				return opsError(err)
			}
			next := st.Policy
			next.Rule.Cities = maps.Clone(st.Policy.Rule.Cities)
			wanted, err := flags.apply(c, &next)
			if err != nil {
				return err
			}
			r := struct {
				Stream  string       `json:"stream"`
				Policy  meta.Policy  `json:"policy"`
				Next    *meta.Policy `json:"next,omitempty"`
				Changed bool         `json:"changed"`
			}{Stream: name, Policy: st.Policy}
			if wanted {
				nodes, err := client.Metadata().Nodes(c.Context())
				if err != nil {
					return opsError(err)
				}
				if err := checkPolicy(next, nodes); err != nil {
					return err
				}
				r.Next = &next
				if agreed.yes {
					set := &meta.SetPolicy{Stream: name, Policy: next}
					if err := client.Change(c.Context(), meta.Command{SetPolicy: set}, operator(), agreed.reason); err != nil {
						return opsError(err)
					}
					r.Changed = true
				}
			}
			return p.Print(r, func() error {
				p.Printf("stream %s\n", name)
				printPolicy(p, st.Policy, r.Next)
				switch {
				case r.Changed:
					p.Printf("\nDone.\n")
				case wanted:
					agreed.again(p)
				}
				return nil
			})
		},
	}
	flags.add(c)
	agreed.flags(c)
	return c
}

// printPolicy shows a policy, and what it would become.
func printPolicy(p *cli.Printer, now meta.Policy, next *meta.Policy) {
	lines := func(x meta.Policy) [][2]string {
		limit := func(n int64) string {
			if n == 0 {
				return "no limit"
			}
			return size(n)
		}
		age := "no limit"
		if x.AgeMax > 0 {
			age = config.Duration(x.AgeMax).String()
		}
		capped := "never"
		if x.BytesCap > 0 {
			capped = "above " + size(x.BytesCap)
		}
		return [][2]string{
			{"confirmed by", x.Rule.String()}, {"without that", loss(x)}, {"bytes kept", limit(x.BytesMax)}, {"age kept", age},
			{"evicts", capped},
		}
	}
	before, after := lines(now), lines(now)
	if next != nil {
		after = lines(*next)
	}
	for i, l := range before {
		if after[i] != l {
			p.Printf("  %-13s %s → %s\n", l[0], l[1], p.Paint("bold", after[i][1]))
			continue
		}
		p.Printf("  %-13s %s\n", l[0], l[1])
	}
}
