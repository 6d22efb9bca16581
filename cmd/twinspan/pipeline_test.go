package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

func TestMain(m *testing.M) {
	mysqltest.Main(m, func() error {
		http.DefaultClient.CloseIdleConnections()
		// glog comes with the collations and flushes for ever.
		return goleak.Find(goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
	})
}

// buffer is a bytes.Buffer that may be written and read at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// twinspan runs one command line in this process.
func twinspan(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var o, e buffer
	a := &app{in: strings.NewReader(""), out: &o, err: &e, env: nil}
	code = a.execute(ctx, args)
	return code, o.String(), e.String()
}

// installation is a configuration file and, while start is in effect, a process.
type installation struct {
	file  string
	admin string
	args  []string // more of them for run
	log   *buffer
	stop  func()
	code  int // with which run is to end
}

func install(t *testing.T, source, target *mysqltest.Server, more string) *installation {
	t.Helper()
	dir := t.TempDir()
	ports := make([]int, 2)
	for i := range ports {
		var err error
		if ports[i], err = mysqltest.FreePort(); err != nil {
			t.Fatal(err)
		}
	}
	in := &installation{file: filepath.Join(dir, "twinspan.yaml"), admin: fmt.Sprintf("127.0.0.1:%d", ports[0]), log: &buffer{}}
	text := fmt.Sprintf(`stream: payments
city: a
roles: [producer, node, consumer]
data_dir: %s
admin: {listen: "%s"}
node: {listen: "127.0.0.1:%d", journal_file_bytes: 4MiB}
source: {address: "%s", user: root}
target: {address: "%s", user: root}
producer: {start: earliest}
%s`, dir, in.admin, ports[1], source.Address, target.Address, more)
	if err := os.WriteFile(in.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return in
}

// start runs the process until the test ends or stop is called.
func (in *installation) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int, 1) // the exit code; owner: the goroutine below; never closed
	go func() {
		a := &app{in: strings.NewReader(""), out: io.Discard, err: in.log}
		done <- a.execute(ctx, append([]string{"run", "-c", in.file, "--log-level", "debug"}, in.args...))
	}()
	var once sync.Once
	in.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case code := <-done:
				if code != in.code {
					t.Errorf("run ended with %d\n%s", code, in.log)
				}
			case <-time.After(30 * time.Second):
				t.Errorf("run does not end\n%s", in.log)
			}
		})
	}
	t.Cleanup(func() {
		in.stop()
		if t.Failed() {
			t.Log(in.log)
		}
	})
}

// await polls the status until it is as wanted.
func (in *installation) await(t *testing.T, what string, want func(*admin.Document) bool) *admin.Document {
	t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	var last *admin.Document
	for time.Now().Before(deadline) {
		if d, err := askStatus(context.Background(), in.admin); err == nil {
			if last = d; want(d) {
				return d
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	text, err := json.MarshalIndent(last, "", " ")
	t.Fatalf("%s: not in time\n%s %v", what, text, err)
	return nil
}

func (in *installation) verify(t *testing.T) {
	t.Helper()
	if code, out, errOut := twinspan(t, "verify", "-c", in.file); code != 0 {
		t.Fatalf("verify ends with %d\n%s%s", code, out, errOut)
	}
}

// lines decodes JSON lines.
func lines(t *testing.T, out string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for l := range strings.Lines(out) {
		m := map[string]any{}
		d := json.NewDecoder(strings.NewReader(l))
		d.UseNumber()
		if err := d.Decode(&m); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		all = append(all, m)
	}
	return all
}

func TestPipeline(t *testing.T) {
	for _, pair := range [][2]mysqltest.Flavor{
		{mysqltest.MySQL97, mysqltest.MySQL97},
		{mysqltest.MariaDB1011, mysqltest.MariaDB1011},
		{mysqltest.MariaDB1011, mysqltest.MariaDB118},
		{mysqltest.MySQL97, mysqltest.MariaDB118},
	} {
		t.Run(fmt.Sprintf("%s to %s", pair[0], pair[1]), func(t *testing.T) {
			source, target := mysqltest.Start(t, pair[0]), mysqltest.Start(t, pair[1])
			in := install(t, source, target, "")
			in.start(t)
			in.await(t, "the roles run", func(d *admin.Document) bool { return d.Ready })
			source.Exec(t, "CREATE DATABASE shop CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
				"CREATE TABLE shop.orders (id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, name VARCHAR(50), amount DECIMAL(12,2), data VARBINARY(20), kind ENUM('x','y'), UNIQUE (name))",
				"INSERT INTO shop.orders (name, amount, data, kind) VALUES ('a', 1.5, x'00ff', 'x'), ('b', 2, NULL, 'y'), ('c', NULL, '', NULL)",
				"UPDATE shop.orders SET amount = amount + 1",
				"DELETE FROM shop.orders WHERE name = 'c'",
				"CREATE TABLE shop.keyless (a INT, b TEXT)",
				"INSERT INTO shop.keyless VALUES (1, 'x'), (1, 'x'), (2, NULL)",
				"ALTER TABLE shop.orders ADD COLUMN extra INT NOT NULL DEFAULT 7 AFTER name",
				"INSERT INTO shop.orders (name, amount, extra) VALUES ('d', 9, 1)",
			)
			in.verify(t)
			d := in.await(t, "nothing is on its way", func(d *admin.Document) bool {
				return d.Ready && d.Lag.EndToEnd != nil && *d.Lag.EndToEnd == 0 && d.Applier.Offset == d.Log.LSO
			})
			if d.Producer.GTIDSet == "" || d.Applier.GTIDSet != d.Producer.GTIDSet {
				t.Errorf("in the log %q, applied %q", d.Producer.GTIDSet, d.Applier.GTIDSet)
			}

			code, out, errOut := twinspan(t, "topic", "read", "-c", in.file, "--table", "shop.orders", "--key", "name=a")
			rows := lines(t, out)
			if code != 0 || len(rows) != 2 || rows[0]["op"] != "insert" || rows[1]["op"] != "update" {
				t.Fatalf("topic read ends with %d: %s\n%s", code, errOut, out)
			}
			after := rows[1]["after"].(map[string]any)
			if after["amount"] != "2.50" || after["id"] != "1" || after["kind"] != "x" || fmt.Sprint(after["data"]) != "map[base64:AP8=]" {
				t.Errorf("%v", after)
			}
			gtid := rows[1]["gtid"].(string)
			if code, out, _ = twinspan(t, "topic", "read", "-c", in.file, "--gtid", gtid); code != 0 || len(lines(t, out)) != 2 {
				t.Errorf("one transaction: %d\n%s", code, out)
			}
			if code, out, _ = twinspan(t, "topic", "read", "-c", in.file, "--last", "1"); code != 0 || !strings.Contains(out, `"name":"d","extra":1`) {
				t.Errorf("the last entry: %d\n%s", code, out)
			}
			if code, out, _ = twinspan(t, "topic", "read", "-c", in.file, "--since", "1h", "-n", "3"); code != 0 || len(lines(t, out)) != 3 {
				t.Errorf("by time: %d\n%s", code, out)
			}
			if code, out, _ = twinspan(t, "topic", "read", "schema", "-c", in.file); code != 0 || len(lines(t, out)) != 3 {
				t.Errorf("schema topic: %d\n%s", code, out)
			}
			if code, out, _ = twinspan(t, "schema", "diff", "shop.orders", "-c", in.file); code != 3 || !strings.Contains(out, "column added extra") {
				t.Errorf("schema diff: %d\n%s", code, out)
			}
			if code, out, _ = twinspan(t, "schema", "show", "shop.orders", "-c", in.file, "--avro"); code != 0 || !json.Valid([]byte(out)) {
				t.Errorf("schema show: %d\n%s", code, out)
			}
			in.await(t, "the cursor is stored", func(d *admin.Document) bool { return len(d.Log.Cursors) == 1 })
			if code, out, _ = twinspan(t, "topic", "list", "-c", in.file); code != 0 || !strings.Contains(out, "payments") || !strings.Contains(out, "city-a needs ") {
				t.Errorf("topic list: %d\n%s", code, out)
			}
			if code, out, errOut = twinspan(t, "doctor", "-c", in.file); code != 0 {
				t.Errorf("doctor: %d\n%s%s", code, out, errOut)
			}
			if code, out, errOut = twinspan(t, "status", "-c", in.file); code != 0 || !strings.Contains(out, "end to end 0.000 s") {
				t.Errorf("status: %d\n%s%s", code, out, errOut)
			}
			metrics := get(t, in.admin, "/metrics", http.StatusOK)
			for _, m := range []string{`twinspan_lag_seconds{path="source_to_target",stream="payments"} 0`, `twinspan_role_state{role="node",state="running"} 1`,
				"twinspan_producer_transactions_total", "twinspan_consumer_next_offset", "twinspan_log_appends_total", "twinspan_build_info"} {
				if !strings.Contains(metrics, m) {
					t.Errorf("no %s in the metrics", m)
				}
			}

			// A new process goes on where the old one was.
			in.stop()
			source.Exec(t, "INSERT INTO shop.orders (name) VALUES ('e')", "DELETE FROM shop.keyless WHERE a = 1 LIMIT 1")
			in.start(t)
			in.await(t, "the roles run again", func(d *admin.Document) bool { return d.Ready })
			in.verify(t)

			// A difference is found and named.
			target.Exec(t, "UPDATE shop.orders SET amount = 77 WHERE name = 'a'")
			code, out, _ = twinspan(t, "verify", "-c", in.file, "-o", "json", "--attempts", "2")
			if code != 3 || !strings.Contains(out, `"differences": 1`) || !strings.Contains(out, "77") {
				t.Errorf("verify: %d\n%s", code, out)
			}
		})
	}
}

func get(t *testing.T, address, path string, want int) string {
	t.Helper()
	res, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != want {
		t.Fatalf("%s: %s %v\n%s", path, res.Status, err, b)
	}
	return string(b)
}

// A role that can't start says why, the process stays up, and the role goes on
// once the reason is gone.
func TestHaltIsLoudAndPasses(t *testing.T) {
	source := mysqltest.Start(t, mysqltest.MySQL97, mysqltest.With("binlog-row-image", "MINIMAL"))
	target := mysqltest.Start(t, mysqltest.MySQL97)
	in := install(t, source, target, "")
	in.start(t)
	d := in.await(t, "the producer halts", func(d *admin.Document) bool { return len(d.Roles[1].Halts) > 0 })
	h := d.Roles[1].Halts[0]
	if h.Code != "PREFLIGHT" || !strings.Contains(h.Detail, "binlog_row_image is MINIMAL") || h.Remedy == "" || d.Ready {
		t.Errorf("%+v", h)
	}
	get(t, in.admin, "/livez", http.StatusOK)
	if s := get(t, in.admin, "/readyz", http.StatusServiceUnavailable); !strings.Contains(s, "producer: halt PREFLIGHT") {
		t.Error(s)
	}
	if s := get(t, in.admin, "/metrics", http.StatusOK); !strings.Contains(s, `twinspan_halted{code="PREFLIGHT",role="producer"} 1`) {
		t.Error("the halt is not in the metrics")
	}
	code, out, _ := twinspan(t, "status", "-c", in.file)
	if code != 0 || !strings.Contains(out, "HALT producer PREFLIGHT") || !strings.Contains(out, "→ ") {
		t.Errorf("%d\n%s", code, out)
	}
	code, out, _ = twinspan(t, "doctor", "source", "-c", in.file, "--fix-sql")
	if code != 3 || !strings.Contains(out, "SET PERSIST binlog_row_image = FULL;") {
		t.Errorf("%d\n%s", code, out)
	}
	source.Exec(t, "SET GLOBAL binlog_row_image = FULL")
	in.await(t, "the producer goes on", func(d *admin.Document) bool { return d.Ready })
}

func TestCommandsAgainstNothing(t *testing.T) {
	port, err := mysqltest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "t.yaml")
	text := fmt.Sprintf("stream: s\nlog: {nodes: ['127.0.0.1:%d']}\nadmin: {listen: '127.0.0.1:%d'}\nsource: {address: '127.0.0.1:%d', user: u}\ntarget: {address: '127.0.0.2:%d', user: u}\n", port, port, port, port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"topic", "list"}, {"topic", "read"}, {"schema", "list"}, {"status"}, {"verify"}, {"doctor", "source"}, {"doctor", "log"}} {
		code, out, errOut := twinspan(t, append(args, "-c", file)...)
		if code != 5 {
			t.Errorf("%v ends with %d\n%s%s", args, code, out, errOut)
		}
		if n := strings.Count(errOut, "\n"); n > 2 {
			t.Errorf("%v says more than a line and a hint:\n%s", args, errOut)
		}
	}
}
