package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Twinspan is the engine that this program is for.
type Twinspan struct {
	Binary string // the built twinspan
	// More is appended to each node's configuration.
	More string
}

// Configure writes node.yaml.
func (t Twinspan) Configure(l *Lab, n *Node) error {
	var b strings.Builder
	fmt.Fprintf(&b, "stream: chaos\ncity: %s\nroles: [node]\ndata_dir: %s\n", n.City, n.Home)
	fmt.Fprintf(&b, "admin: {listen: %s}\nlogging: {format: json, level: debug}\n", n.Admin)
	fmt.Fprintf(&b, "node:\n  name: %s\n  listen: %s\n  dir: %s\n  journal_file_bytes: 2MiB\n", n.Name, n.Listen, n.Dir)
	if len(l.nodes) > 1 {
		b.WriteString("  cluster:\n")
		for _, m := range l.nodes {
			fmt.Fprintf(&b, "    - {name: %s, city: %s, address: %q, witness: %v}\n", m.Name, m.City, m.Address, m.Witness)
		}
	}
	fmt.Fprintf(&b, "log:\n  nodes: [%q]\n  bind: %s\n%s", n.Address, n.Source, t.More)
	return os.WriteFile(t.config(n), []byte(b.String()), 0o600)
}

func (t Twinspan) config(n *Node) string { return filepath.Join(n.Home, "node.yaml") }

// Command is twinspan run.
func (t Twinspan) Command(n *Node) []string { return []string{t.Binary, "run", "-c", t.config(n)} }

// Tool is a twinspan command with the node's configuration.
func (t Twinspan) Tool(n *Node, args ...string) []string {
	return append(append([]string{t.Binary}, args...), "-c", t.config(n))
}

// Ready connects.
func (t Twinspan) Ready(ctx context.Context, n *Node) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", n.Listen)
	if err != nil {
		return err
	}
	return c.Close()
}
