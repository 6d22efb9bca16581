package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// pipeline is two processes of the built binary: the producer with its log node,
// and the consumer, which can be stopped while a backlog builds up.
type pipeline struct {
	upstream, consumer *exec.Cmd
	target             *mysqltest.Server
	config             string
	binary             string
	admin              string // address of the consumer's HTTP server
}

func startPipeline(ctx context.Context, binary, dir, atomicity string, source, target *mysqltest.Server) (*pipeline, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	node, admin1, admin2 := freeAddress(), freeAddress(), freeAddress()
	up := fmt.Sprintf("stream: bench\ncity: a\nroles: [producer, node]\ndata_dir: %s/a\nadmin: {listen: %s}\nnode: {listen: %s}\nlog: {nodes: [%s]}\n"+
		"source: {address: %s, user: root}\nproducer: {start: earliest}\n", dir, admin1, node, node, source.Address)
	down := fmt.Sprintf("stream: bench\ncity: b\nroles: [consumer]\ndata_dir: %s/b\nadmin: {listen: %s, pprof: true}\nlog: {nodes: [%s]}\n"+
		"target: {address: %s, user: root, tls: {mode: disabled}}\nconsumer: {group: city-b}\napply: {atomicity: %s}\n", dir, admin2, node, target.Address, atomicity)
	p := &pipeline{target: target, binary: binary, admin: admin2, config: filepath.Join(dir, "up.yaml")}
	if err := os.WriteFile(p.config, []byte(up), 0o600); err != nil {
		return nil, err
	}
	downFile := filepath.Join(dir, "down.yaml")
	if err := os.WriteFile(downFile, []byte(down), 0o600); err != nil {
		return nil, err
	}
	start := func(name, file string) (*exec.Cmd, error) {
		out, err := os.Create(filepath.Join(dir, name+".log"))
		if err != nil {
			return nil, err
		}
		defer func() { _ = out.Close() }() // the child has its own descriptor
		c := exec.CommandContext(ctx, binary, "run", "-c", file)
		c.Stdout, c.Stderr = out, out
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return c, c.Start()
	}
	if p.upstream, err = start("upstream", p.config); err != nil {
		return nil, err
	}
	if p.consumer, err = start("consumer", downFile); err != nil {
		return nil, err
	}
	return p, nil
}

func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // loopback without a free port
	}
	defer func() { _ = l.Close() }() // only the number was wanted
	return l.Addr().String()
}

func (p *pipeline) freeze() { _ = p.consumer.Process.Signal(syscall.SIGSTOP) }
func (p *pipeline) thaw()   { _ = p.consumer.Process.Signal(syscall.SIGCONT) }

func (p *pipeline) stop() {
	for _, c := range []*exec.Cmd{p.consumer, p.upstream} {
		_ = c.Process.Signal(syscall.SIGCONT)
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
	}
}

// awaitLogged waits until the log holds the set, by the producer's own status.
func (p *pipeline) awaitLogged(ctx context.Context, f mysqltest.Flavor, want string) error {
	return until(ctx, "producer", func() (bool, error) {
		out, err := exec.CommandContext(ctx, p.binary, "status", "-c", p.config, "-o", "json").Output()
		if err != nil {
			return false, nil //nolint:nilerr // not up yet
		}
		var d admin.Document
		if err := json.Unmarshal(out, &d); err != nil || d.Producer == nil {
			return false, err
		}
		return contains(f, d.Producer.GTIDSet, want)
	})
}

func (p *pipeline) await(ctx context.Context, f mysqltest.Flavor, want string) error {
	return until(ctx, "twinspan's target", func() (bool, error) {
		var text string
		err := p.target.DB().QueryRowContext(ctx, "SELECT gtid_set FROM twinspan.progress WHERE stream = 'bench'").Scan(&text)
		if err != nil {
			return false, nil //nolint:nilerr // not there yet
		}
		return contains(f, text, want)
	})
}
