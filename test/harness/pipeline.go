// Package harness runs the built twinspan binary between real servers, one
// process per role, for the demo and the end-to-end tests: it starts, kills and
// watches the processes, and checks what they did by its own means. The log is one
// node, or a cluster over cities with a network between them.
package harness

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/child"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/jetstream"
)

// Role is what one twinspan process does.
type Role string

// The roles, in the order they are started. With Config.Cities the nodes are roles
// by their names instead.
const (
	Node     Role = "node"
	Producer Role = "producer"
	Consumer Role = "consumer"
)

// Roles are all roles in the order they are started.
func Roles() []Role { return []Role{Node, Producer, Consumer} }

// Config of a pipeline.
type Config struct {
	Binary string // the built twinspan
	Dir    string // configuration, logs, and the journal
	Stream string
	Source *mysqltest.Server // whose binlog is read
	Target *mysqltest.Server
	// Set overrides keys of a role's configuration: "apply.lanes=4".
	Set    map[Role][]string
	Detach bool // the processes outlive this one
	// Cities makes the log a cluster; nil: one node.
	Cities *Cities
	// JetStream puts the log on NATS servers, and there is no node; nil: it is ours.
	JetStream *JetStream
}

// JetStream is a cluster of NATS servers.
type JetStream struct {
	Servers, Monitors []string // URLs
}

// Pipeline is the twinspan processes of one stream: three, or more with cities. Its methods may be called from several
// goroutines, those that start and kill one role only one at a time.
type Pipeline struct {
	cfg   Config
	ports map[string]int // of admin listeners by role; of the log by "log" and the node's name

	mu      sync.Mutex
	procs   map[Role]*child.Process
	started map[Role]time.Time
	kills   int
}

// New writes the configuration of every process. Nothing runs yet.
func New(cfg Config) (*Pipeline, error) {
	var err error
	// The processes run in Dir.
	for _, path := range []*string{&cfg.Binary, &cfg.Dir} {
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
	}
	p := &Pipeline{cfg: cfg, ports: map[string]int{}, procs: map[Role]*child.Process{}, started: map[Role]time.Time{}}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := p.takePorts(); err != nil {
		return nil, err
	}
	source := fmt.Sprintf("source:\n  address: %s\n  user: root\n  tls: {mode: disabled}\nproducer:\n  start: earliest\n", cfg.Source.Address)
	target := fmt.Sprintf("target:\n  address: %s\n  user: root\n  tls: {mode: disabled}\n", cfg.Target.Address)
	if cfg.Cities != nil {
		return p, p.writeCities(source, target)
	}
	reach := fmt.Sprintf("log:\n  nodes: [%s]\n  policy: {bytes_max: 0}\n", p.NodeAddress())
	if j := cfg.JetStream; j != nil {
		reach = fmt.Sprintf("log:\n  engine: jetstream\n  policy: {bytes_max: 0}\n  jetstream: {servers: [\"%s\"], monitors: [\"%s\"]}\n",
			strings.Join(j.Servers, `", "`), strings.Join(j.Monitors, `", "`))
	}
	store := fmt.Sprintf("node:\n  listen: %s\n  dir: %s\nlog: {policy: {bytes_max: 0}}\n", p.NodeAddress(), p.JournalDir())
	for role, text := range map[Role]string{
		Node:     "city: a\n" + store,
		Producer: "city: a\n" + reach + source,
		Consumer: "city: b\n" + reach + target,
	} {
		if err := p.write(role, fmt.Sprintf("roles: [%s]\n", role)+text); err != nil {
			return nil, err
		}
	}
	// What an operator's commands use: it knows everything and runs nothing.
	return p, p.write(Ops, "city: b\nroles: [producer, consumer]\n"+reach+source+target)
}

// takePorts finds free ones for every listener.
func (p *Pipeline) takePorts() error {
	names := []string{"log"}
	for _, r := range p.Roles() {
		names = append(names, string(r))
	}
	if p.cfg.Cities != nil {
		for _, n := range p.cfg.Cities.nodes() {
			names = append(names, gatePort(n.Name), listenPort(n.Name))
		}
		names = append(names, controlPort)
	}
	for _, name := range names {
		port, err := mysqltest.FreePort()
		if err != nil {
			return err
		}
		p.ports[name] = port
	}
	return nil
}

// Roles of this pipeline in the order they are started.
func (p *Pipeline) Roles() []Role {
	if p.cfg.JetStream != nil {
		return []Role{Producer, Consumer}
	}
	if p.cfg.Cities == nil {
		return Roles()
	}
	return append(p.Nodes(), Producer, Consumer)
}

// Nodes are the roles that store the log.
func (p *Pipeline) Nodes() []Role {
	if p.cfg.Cities == nil {
		return []Role{Node}
	}
	var out []Role
	for _, n := range p.cfg.Cities.nodes() {
		out = append(out, Role(n.Name))
	}
	return out
}

func (p *Pipeline) write(r Role, text string) error {
	head := fmt.Sprintf("stream: %s\ndata_dir: %s\nlogging: {format: json}\n", p.cfg.Stream, filepath.Join(p.cfg.Dir, "data"))
	if port, ok := p.ports[string(r)]; ok {
		head += fmt.Sprintf("admin: {listen: 127.0.0.1:%d}\n", port)
	}
	return os.WriteFile(p.ConfigFile(r), []byte(head+text), 0o600)
}

// Ops is the configuration for commands that look at the whole pipeline.
const Ops Role = "ops"

// ConfigFile of a role, or of Ops.
func (p *Pipeline) ConfigFile(r Role) string { return filepath.Join(p.cfg.Dir, string(r)+".yaml") }

// LogFile is what a role's processes said.
func (p *Pipeline) LogFile(r Role) string { return filepath.Join(p.cfg.Dir, string(r)+".log") }

// NodeAddress is where the log is; with cities that of a node in a.
func (p *Pipeline) NodeAddress() string {
	if p.cfg.Cities != nil {
		return p.gate(p.cfg.Cities.nodes()[0].Name)
	}
	return fmt.Sprintf("127.0.0.1:%d", p.ports["log"])
}

// JournalDir is where the node keeps the log.
func (p *Pipeline) JournalDir() string { return filepath.Join(p.cfg.Dir, "journal") }

// AdminURL of a role, without a path.
func (p *Pipeline) AdminURL(r Role) string {
	return fmt.Sprintf("http://127.0.0.1:%d", p.ports[string(r)])
}

// Start starts a role and returns when its process answers /livez. Running
// already: nothing happens.
func (p *Pipeline) Start(ctx context.Context, r Role) error {
	p.mu.Lock()
	if old := p.procs[r]; old != nil && old.Running() {
		p.mu.Unlock()
		return nil
	}
	p.mu.Unlock()
	out, err := os.OpenFile(p.LogFile(r), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // the child has its own descriptor
	args := []string{"run", "-c", p.ConfigFile(r)}
	for _, kv := range p.set(r) {
		args = append(args, "--set", kv)
	}
	c := exec.Command(p.cfg.Binary, args...)
	c.Stdout, c.Stderr, c.Dir = out, out, p.cfg.Dir
	proc, err := child.Start(c, p.cfg.Detach)
	if err != nil {
		return fmt.Errorf("start %s: %w", r, err)
	}
	p.mu.Lock()
	p.procs[r], p.started[r] = proc, time.Now()
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if answers(ctx, p.AdminURL(r)+"/livez") {
			return nil
		}
		select {
		case <-proc.Done():
			return fmt.Errorf("the %s process ended at its start (%w)\n%s", r, proc.Err(), p.Log(r, 15))
		case <-ctx.Done():
			return fmt.Errorf("the %s process does not answer: %w\n%s", r, ctx.Err(), p.Log(r, 15))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// set are the overrides of a role; those of Node are for every node.
func (p *Pipeline) set(r Role) []string {
	if r != Node && slices.Contains(p.Nodes(), r) {
		return append(slices.Clone(p.cfg.Set[Node]), p.cfg.Set[r]...)
	}
	return p.cfg.Set[r]
}

func answers(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, res.Body) // for the connection to be used again
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// StartAll starts every role.
func (p *Pipeline) StartAll(ctx context.Context) error {
	if err := p.startNetwork(ctx); err != nil {
		return err
	}
	for _, r := range p.Roles() {
		if err := p.Start(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// Kill ends a role's process with SIGKILL.
func (p *Pipeline) Kill(r Role) error {
	p.mu.Lock()
	proc := p.procs[r]
	p.mu.Unlock()
	if proc == nil || !proc.Running() {
		return p.died(r)
	}
	p.mu.Lock()
	p.kills++
	delete(p.procs, r)
	p.mu.Unlock()
	return proc.Kill()
}

// Kills counts the processes that Kill ended.
func (p *Pipeline) Kills() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kills
}

// Process tells the pid of a role, 0 when it is down, and since when it runs.
func (p *Pipeline) Process(r Role) (pid int, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if proc := p.procs[r]; proc != nil && proc.Running() {
		return proc.PID, p.started[r]
	}
	return 0, time.Time{}
}

// died is an error when a role's process ended without being told to.
func (p *Pipeline) died(r Role) error {
	p.mu.Lock()
	proc := p.procs[r]
	p.mu.Unlock()
	if proc == nil || proc.Running() {
		return nil
	}
	return fmt.Errorf("the %s process ended by itself (%v)\n%s", r, proc.Err(), p.Log(r, 15)) //nolint:errorlint // nil is as bad as an error here
}

// Healthy is an error when any process ended without being told to, or halted.
func (p *Pipeline) Healthy() error {
	var errs []error
	for _, r := range p.Roles() {
		errs = append(errs, p.died(r))
		h, err := p.Halted(r)
		errs = append(errs, err)
		if h != nil {
			errs = append(errs, fmt.Errorf("%s: %v", r, h))
		}
	}
	return errors.Join(errs...)
}

// Stop ends every process cleanly, consumer first.
func (p *Pipeline) Stop() error {
	var errs []error
	order := p.Roles()
	slices.Reverse(order)
	for _, r := range append(order, network) {
		p.mu.Lock()
		proc := p.procs[r]
		delete(p.procs, r)
		p.mu.Unlock()
		if proc == nil {
			continue
		}
		if !proc.Running() {
			errs = append(errs, fmt.Errorf("the %s process ended by itself (%v)\n%s", r, proc.Err(), p.Log(r, 15))) //nolint:errorlint // nil is as bad as an error here
			continue
		}
		errs = append(errs, proc.Terminate(20*time.Second))
	}
	return errors.Join(errs...)
}

// Log is the end of what a role's processes said.
func (p *Pipeline) Log(r Role, lines int) string {
	b, err := os.ReadFile(p.LogFile(r))
	if err != nil {
		return ""
	}
	l := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(l[max(0, len(l)-lines):], "\n")
}

// Applied is the GTID set up to which the target has everything, as the
// applier stored it there.
func (p *Pipeline) Applied(ctx context.Context) (gtid.Set, error) {
	flavor := string(p.cfg.Source.Flavor.Server())
	var text string
	err := p.cfg.Target.DB().QueryRowContext(ctx, "SELECT gtid_set FROM twinspan.progress WHERE stream = ?", p.cfg.Stream).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return gtid.New(flavor), nil
	}
	if err != nil {
		return gtid.New(flavor), err
	}
	return gtid.Parse(flavor, text)
}

// WaitApplied returns when the target has every transaction of the set. It
// fails when a process ends meanwhile, or when nothing moves for patience.
func (p *Pipeline) WaitApplied(ctx context.Context, text string, patience time.Duration) error {
	want, err := gtid.Parse(string(p.cfg.Source.Flavor.Server()), text)
	if err != nil {
		return err
	}
	last, moved, looked := "", time.Now(), time.Now()
	for {
		have, err := p.Applied(ctx)
		if err == nil && have.Contains(want) {
			return nil
		}
		if s := have.String(); err == nil && s != last {
			last, moved = s, time.Now()
		}
		if time.Since(looked) > 500*time.Millisecond {
			if err := p.Healthy(); err != nil {
				return fmt.Errorf("the target stands at %s, wanted %s: %w", last, want, err)
			}
			looked = time.Now()
		}
		if time.Since(moved) > patience {
			stuck := fmt.Errorf("the target stands at %s since %s, wanted %s\nproducer:\n%s\nconsumer:\n%s",
				last, patience, want, p.Log(Producer, 8), p.Log(Consumer, 8))
			return errors.Join(stuck, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the target is at %s, wanted %s: %w", last, want, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Audit compares the log with executed, the source's own GTID set as text.
func (p *Pipeline) Audit(ctx context.Context, executed string) (a Audit, err error) {
	l, err := p.client()
	if err != nil {
		return Audit{}, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	order, err := BinlogOrder(ctx, p.cfg.Source)
	if err != nil {
		return Audit{}, fmt.Errorf("order of the binlog of %s: %w", p.cfg.Source.Address, err)
	}
	return AuditLog(ctx, l, p.cfg.Stream, p.cfg.Source.Flavor.IsMariaDB(), executed, order)
}

// client reads the log as a tool in city a.
func (p *Pipeline) client() (log.Log, error) {
	if j := p.cfg.JetStream; j != nil {
		return jetstream.New(jetstream.Config{Servers: j.Servers, Logger: zerolog.Nop()})
	}
	return client.New(client.Config{Nodes: []string{p.NodeAddress()}, City: "a", Name: "audit", Logger: zerolog.Nop()})
}

// Command prepares an operator's command with the Ops configuration, such as
// "verify", "-o", "json".
func (p *Pipeline) Command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, p.cfg.Binary, append(args, "-c", p.ConfigFile(Ops))...)
	c.Dir = p.cfg.Dir
	return c
}
