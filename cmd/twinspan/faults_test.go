package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// split is one stream's roles in processes of their own, on one log.
func split(t *testing.T, roles map[string]string) map[string]*installation {
	t.Helper()
	dir := t.TempDir()
	node, err := mysqltest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*installation{}
	for name, text := range roles {
		port, err := mysqltest.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		in := &installation{file: filepath.Join(dir, name+".yaml"), admin: fmt.Sprintf("127.0.0.1:%d", port), log: &buffer{}}
		text = fmt.Sprintf("stream: payments\ncity: a\ndata_dir: %s\nadmin: {listen: '%s'}\nlog: {nodes: ['127.0.0.1:%d']}\n%s",
			dir, in.admin, node, strings.ReplaceAll(text, "NODE", fmt.Sprintf("127.0.0.1:%d", node)))
		if err := os.WriteFile(in.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out[name] = in
	}
	return out
}

const nodeRole = "roles: [node]\nnode: {listen: 'NODE', journal_file_bytes: 4MiB}\n"

// The second producer of a stream takes it over; the first says so, and leaves it
// alone until someone tells it to look again.
func TestTwoProducers(t *testing.T) {
	source := mysqltest.Start(t, mysqltest.MySQL97)
	role := fmt.Sprintf("roles: [producer]\nproducer: {start: earliest}\nsource: {address: '%s', user: root}\n", source.Address)
	all := split(t, map[string]string{"node": nodeRole, "first": role, "second": role})
	ready := func(d *admin.Document) bool { return d.Ready }
	all["node"].start(t)
	all["first"].start(t)
	all["first"].await(t, "the first producer runs", ready)
	all["second"].start(t)
	all["second"].await(t, "the second producer runs", ready)
	source.Exec(t, "CREATE DATABASE d")
	d := all["first"].await(t, "the first producer is fenced", func(d *admin.Document) bool { return len(d.Roles[0].Halts) > 0 })
	if h := d.Roles[0].Halts[0]; h.Code != "FENCED" || strings.HasPrefix(h.Detail, "halt") || !d.Roles[0].RetryAt.IsZero() {
		t.Errorf("%+v", d.Roles[0])
	}
	time.Sleep(500 * time.Millisecond)
	all["second"].await(t, "the second producer goes on", ready)
	all["second"].stop()
	all["first"].stop()
}

// The log and the target go away and come back; everybody says so meanwhile, and
// nothing is lost.
func TestServersComeAndGo(t *testing.T) {
	source, target := mysqltest.Start(t, mysqltest.MariaDB1011), mysqltest.Start(t, mysqltest.MariaDB1011)
	source.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)")
	all := split(t, map[string]string{
		"node":     nodeRole,
		"producer": fmt.Sprintf("roles: [producer]\nproducer: {start: earliest}\nsource: {address: '%s', user: root}\n", source.Address),
		"consumer": fmt.Sprintf("roles: [consumer]\ntarget: {address: '%s', user: root}\n", target.Address),
		"ops":      fmt.Sprintf("source: {address: '%s', user: root}\ntarget: {address: '%s', user: root}\n", source.Address, target.Address),
	})
	ready := func(d *admin.Document) bool { return d.Ready }
	notReady := func(d *admin.Document) bool { return !d.Ready }
	for _, name := range []string{"node", "producer", "consumer"} {
		all[name].start(t)
	}
	insert := func(from, to int) {
		for i := from; i < to; i++ {
			source.Exec(t, fmt.Sprintf("INSERT INTO d.t VALUES (%d, 0)", i))
		}
	}
	insert(0, 20)
	all["consumer"].await(t, "the consumer runs", ready)
	all["ops"].verify(t)

	all["node"].stop()
	insert(20, 40)
	all["producer"].await(t, "the producer misses the log", notReady)
	d := all["consumer"].await(t, "the consumer misses the log", notReady)
	if d.Lag.SourceToTarget != nil {
		t.Errorf("a lag of %f s is claimed while nobody can see the log", *d.Lag.SourceToTarget)
	}
	all["node"].start(t)
	all["ops"].verify(t)
	all["producer"].await(t, "the producer has the log again", ready)
	all["consumer"].await(t, "the consumer has the log again", ready)

	if err := target.Kill(); err != nil {
		t.Fatal(err)
	}
	insert(40, 60)
	all["consumer"].await(t, "the consumer misses the target", notReady)
	if err := target.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	all["ops"].verify(t)

	if err := source.Kill(); err != nil {
		t.Fatal(err)
	}
	all["producer"].await(t, "the producer misses the source", notReady)
	if err := source.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	insert(60, 80)
	all["ops"].verify(t)
	for _, name := range []string{"producer", "consumer"} {
		all[name].await(t, name+" is well again", ready)
	}
	// Without the log they still end when they are told to.
	all["node"].stop()
	insert(80, 90)
	for _, name := range []string{"producer", "consumer"} {
		began := time.Now()
		all[name].stop()
		t.Logf("%s ends %.1f s after it was told to, the log away", name, time.Since(began).Seconds())
	}
}

// A wrong password and a missing privilege are named; the role goes on once they
// are mended.
func TestAccounts(t *testing.T) {
	source, target := mysqltest.Start(t, mysqltest.MySQL97), mysqltest.Start(t, mysqltest.MySQL97)
	source.Exec(t, "CREATE USER repl@'%' IDENTIFIED BY 'right'")
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := install(t, source, target, "")
	text, err := os.ReadFile(in.file)
	if err != nil {
		t.Fatal(err)
	}
	account := fmt.Sprintf("source: {address: \"%s\", user: repl, password_file: %s, tls: {mode: required}}", source.Address, password)
	changed := strings.Replace(string(text), fmt.Sprintf("source: {address: \"%s\", user: root}", source.Address), account, 1)
	if err := os.WriteFile(in.file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	in.start(t)
	in.await(t, "the password is wrong", func(d *admin.Document) bool {
		return strings.Contains(d.Roles[1].Error, "Access denied for user 'repl'") && !d.Ready
	})
	if err := os.WriteFile(password, []byte("right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in.await(t, "a privilege is missing", func(d *admin.Document) bool {
		return len(d.Roles[1].Halts) > 0 && strings.Contains(d.Roles[1].Halts[0].Detail, "'repl'@'%' lacks REPLICATION SLAVE, REPLICATION CLIENT")
	})
	source.Exec(t, "GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO repl@'%'")
	in.await(t, "the producer goes on", func(d *admin.Document) bool { return d.Ready })
	source.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)")
	in.verify(t)
	if strings.Contains(in.log.String(), "right") && strings.Contains(in.log.String(), "\"right\"") {
		t.Error("the password is in the log")
	}
}

// systemd is told when the process works, that it lives, and that it stops.
func TestSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "300000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	in := split(t, map[string]string{"node": nodeRole})["node"]
	in.start(t)
	seen := map[string]bool{}
	b := make([]byte, 4096)
	for !seen["READY=1"] || !seen["WATCHDOG=1"] || !seen["STATUS=node running"] {
		if err := socket.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := socket.Read(b)
		if err != nil {
			t.Fatalf("%v %v", seen, err)
		}
		seen[string(b[:n])] = true
	}
}
