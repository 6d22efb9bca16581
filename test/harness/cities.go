package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/child"
	"github.com/twinspan/twinspan/internal/wan"
)

// Cities is a cluster of two cities with two nodes each, and a witness in a third.
// The producer is in a, the consumer in b.
type Cities struct {
	// RoundTrip between any two cities.
	RoundTrip time.Duration
	// Policy is YAML for log.policy, such as {loss: degrade-manual}.
	Policy string
}

// place is a process of the cluster; its number tells its source address.
type place struct {
	Name, City string
	Witness    bool
	number     int
}

func (*Cities) nodes() []place {
	return []place{
		{"a1", "a", false, 1}, {"a2", "a", false, 2}, {"b1", "b", false, 1}, {"b2", "b", false, 2}, {"w1", "c", true, 1},
	}
}

// others are the processes that only connect.
func (*Cities) others() []place {
	return []place{{string(Producer), "a", false, 10}, {string(Consumer), "b", false, 10}, {string(Ops), "a", false, 20}}
}

var cityNames = []string{"a", "b", "c"}

// source is the address that a process's connections come from.
func (p place) source() string {
	return fmt.Sprintf("127.0.%d.%d", slices.Index(cityNames, p.City)+1, p.number)
}

// network is the role of the process between the cities.
const network Role = "wan"

// controlPort is the network's own listener in Pipeline.ports.
const controlPort = "wan-control"

func gatePort(node string) string   { return "gate-" + node }
func listenPort(node string) string { return "listen-" + node }

// gate is the address of a node as everybody knows it, which is the network's.
func (p *Pipeline) gate(node string) string {
	return fmt.Sprintf("127.0.0.1:%d", p.ports[gatePort(node)])
}

// In are the nodes of a city.
func (p *Pipeline) In(city string) []Role {
	var out []Role
	for _, n := range p.cfg.Cities.nodes() {
		if n.City == city {
			out = append(out, Role(n.Name))
		}
	}
	return out
}

// writeCities writes the configuration of every process and of the network.
func (p *Pipeline) writeCities(source, target string) error {
	var cluster strings.Builder
	cfg := wan.Config{Seed: 1}
	for i, c := range cityNames {
		prefix, err := netip.ParsePrefix(fmt.Sprintf("127.0.%d.0/24", i+1))
		if err != nil {
			return err
		}
		cfg.Cities = append(cfg.Cities, wan.Place{Prefix: prefix, City: c})
		for _, other := range cityNames {
			if c != other {
				cfg.Ways = append(cfg.Ways, wan.Between{From: c, To: other, Way: wan.Way{Delay: p.cfg.Cities.RoundTrip / 2}})
			}
		}
	}
	for _, n := range p.cfg.Cities.nodes() {
		cfg.Gates = append(cfg.Gates, wan.Gate{
			Name: n.Name, City: n.City, Listen: p.gate(n.Name), Target: fmt.Sprintf("127.0.0.1:%d", p.ports[listenPort(n.Name)]),
		})
		fmt.Fprintf(&cluster, "    - {name: %s, city: %s, address: '%s', witness: %v}\n", n.Name, n.City, p.gate(n.Name), n.Witness)
	}
	b, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.networkFile(), b, 0o600); err != nil {
		return err
	}
	policy := p.cfg.Cities.Policy
	if policy == "" {
		policy = "{bytes_max: 0}"
	}
	reach := func(x place) string {
		// Begins with the nodes of its own city; it learns of the others.
		seeds := make([]string, 0, 2)
		for _, n := range p.cfg.Cities.nodes() {
			if n.City == x.City || x.Name == string(Ops) {
				seeds = append(seeds, "'"+p.gate(n.Name)+"'")
			}
		}
		return fmt.Sprintf("log:\n  nodes: [%s]\n  bind: %s\n  policy: %s\n", strings.Join(seeds, ", "), x.source(), policy)
	}
	for _, n := range p.cfg.Cities.nodes() {
		text := fmt.Sprintf("city: %s\nroles: [node]\nnode:\n  name: %s\n  listen: 127.0.0.1:%d\n  dir: %s\n  journal_file_bytes: 16MiB\n  cluster:\n%s%s",
			n.City, n.Name, p.ports[listenPort(n.Name)], p.NodeDir(Role(n.Name)), cluster.String(), reach(n))
		if err := p.write(Role(n.Name), text); err != nil {
			return err
		}
	}
	for _, x := range p.cfg.Cities.others() {
		text := map[Role]string{
			Producer: "roles: [producer]\n" + source, Consumer: "roles: [consumer]\n" + target, Ops: "roles: [producer, consumer]\n" + source + target,
		}[Role(x.Name)]
		if err := p.write(Role(x.Name), fmt.Sprintf("city: %s\n", x.City)+text+reach(x)); err != nil {
			return err
		}
	}
	return nil
}

// NodeDir is where a node of the cluster keeps its part.
func (p *Pipeline) NodeDir(r Role) string { return filepath.Join(p.cfg.Dir, "log-"+string(r)) }

func (p *Pipeline) networkFile() string { return filepath.Join(p.cfg.Dir, "wan.json") }

// startNetwork starts what stands between the cities; without cities nothing does.
func (p *Pipeline) startNetwork(ctx context.Context) error {
	if p.cfg.Cities == nil {
		return nil
	}
	p.mu.Lock()
	old := p.procs[network]
	p.mu.Unlock()
	if old != nil && old.Running() {
		return nil
	}
	out, err := os.OpenFile(p.LogFile(network), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // the child has its own descriptor
	c := exec.Command(p.cfg.Binary, "wan", "--file", p.networkFile(), "--control", fmt.Sprintf("127.0.0.1:%d", p.ports[controlPort]))
	c.Stdout, c.Stderr, c.Dir = out, out, p.cfg.Dir
	proc, err := child.Start(c, p.cfg.Detach)
	if err != nil {
		return fmt.Errorf("start the network: %w", err)
	}
	p.mu.Lock()
	p.procs[network], p.started[network] = proc, time.Now()
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		if _, err := p.WAN().Gates(ctx); err == nil {
			return nil
		}
		select {
		case <-proc.Done():
			return fmt.Errorf("the network ended at its start: %w\n%s", proc.Err(), p.Log(network, 5))
		case <-ctx.Done():
			return fmt.Errorf("the network does not answer: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// WAN controls the network between the cities.
func (p *Pipeline) WAN() wan.Remote {
	return wan.Remote{URL: fmt.Sprintf("http://127.0.0.1:%d", p.ports[controlPort])}
}

// NetworkPID is the process between the cities; 0: there is none.
func (p *Pipeline) NetworkPID() int {
	pid, _ := p.Process(network)
	return pid
}

// Partition cuts two cities from each other, in both directions, or heals them.
func (p *Pipeline) Partition(ctx context.Context, x, y string, c wan.Cut) error {
	w := wan.Way{Delay: p.cfg.Cities.RoundTrip / 2, Cut: c}
	return errors.Join(p.WAN().Set(ctx, x, y, w), p.WAN().Set(ctx, y, x, w))
}

// Crossing is what a process exchanged with the nodes of another city.
type Crossing struct {
	Who      string // a role
	From, To string // cities
	Sent     int64  // bytes to the nodes there
	Received int64  // bytes from them
}

// Crossings of every process that had any, by role and city.
func (p *Pipeline) Crossings(ctx context.Context) ([]Crossing, error) {
	flows, err := p.WAN().Flows(ctx)
	if err != nil {
		return nil, err
	}
	who := map[string]string{}
	for _, x := range append(p.cfg.Cities.nodes(), p.cfg.Cities.others()...) {
		who[x.source()] = x.Name
	}
	sums := map[[2]string]*Crossing{}
	var out []*Crossing
	for _, f := range flows {
		if f.City == f.GateCity || f.City == "" {
			continue
		}
		key := [2]string{f.Source, f.GateCity}
		if sums[key] == nil {
			sums[key] = &Crossing{Who: who[f.Source], From: f.City, To: f.GateCity}
			out = append(out, sums[key])
		}
		sums[key].Sent += f.Sent
		sums[key].Received += f.Received
	}
	slices.SortFunc(out, func(x, y *Crossing) int { return strings.Compare(x.Who+x.To, y.Who+y.To) })
	all := make([]Crossing, len(out))
	for i, x := range out {
		all[i] = *x
	}
	return all, nil
}
