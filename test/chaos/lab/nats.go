package lab

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// JetStream is a cluster of NATS servers that sync every write. Clients reach
// them through the network; among themselves they talk directly, so that only
// their processes and disks can be harmed, not the lines between them.
type JetStream struct {
	Binary string // nats-server
}

// Configure writes server.conf.
func (j JetStream) Configure(l *Lab, n *Node) error {
	var routes []string
	for _, m := range l.nodes {
		routes = append(routes, "nats://"+m.Peers)
	}
	text := fmt.Sprintf("server_name: %s\nlisten: %s\nclient_advertise: %q\nhttp: %s\nmax_payload: %d\n"+
		"jetstream { store_dir: %q, sync_interval: always, max_file_store: 4G, max_memory_store: 64M }\n"+
		"cluster { name: chaos, listen: %s, routes: [%s] }\n",
		n.Name, n.Listen, n.Address, n.Admin, 33<<20, n.Dir, n.Peers, strings.Join(routes, ", "))
	return os.WriteFile(j.config(n), []byte(text), 0o600)
}

func (j JetStream) config(n *Node) string { return filepath.Join(n.Home, "server.conf") }

// Command is nats-server.
func (j JetStream) Command(n *Node) []string { return []string{j.Binary, "-c", j.config(n)} }

// Ready asks the server whether it is healthy.
func (j JetStream) Ready(ctx context.Context, n *Node) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Admin+"/healthz?js-enabled-only=true", nil)
	if err != nil {
		return err
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close() // its status is all that counts
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("nats-server %s: %s", n.Name, res.Status)
	}
	return nil
}
