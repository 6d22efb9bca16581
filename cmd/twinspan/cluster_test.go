package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/certs"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/ops"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
)

// lab is a cluster of nodes in this process: a1, a2 in a; b1, b2 in b; w1, which is
// a witness, in c unless it is said otherwise.
type lab struct {
	labOptions
	t     *testing.T
	dir   string
	nodes map[string]*installation
	at    map[string]string // addresses
	log   *client.Client
}

type labOptions struct {
	secure  bool   // nobody talks to anybody without a certificate
	stream  string // of the configurations
	witness string // the city of w1
}

// newLab starts one.
func newLab(t *testing.T, secure bool) *lab {
	t.Helper()
	return newLabOf(t, labOptions{secure: secure, stream: "s", witness: "c"})
}

func newLabOf(t *testing.T, opts labOptions) *lab {
	t.Helper()
	l := &lab{labOptions: opts, t: t, dir: t.TempDir(), nodes: map[string]*installation{}, at: map[string]string{}}
	names := []string{"a1", "a2", "b1", "b2", "w1"}
	if l.secure {
		o := certs.Order{Dir: filepath.Join(l.dir, "tls"), Now: time.Now(), Valid: day, AuthorityOf: day, Subjects: []certs.Subject{{Name: "producer"}, {Name: "ops"}}}
		for _, name := range names {
			o.Subjects = append(o.Subjects, certs.Subject{Name: name, City: l.cityOf(name), Node: true, Hosts: []string{"127.0.0.1"}})
		}
		if _, err := certs.Make(o, false); err != nil {
			t.Fatal(err)
		}
	}
	var cluster, seeds []string
	for _, name := range names {
		port, err := mysqltest.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		l.at[name] = fmt.Sprintf("127.0.0.1:%d", port)
		cluster = append(cluster, fmt.Sprintf("    - {name: %s, city: %s, address: '%s', witness: %v}", name, l.cityOf(name), l.at[name], name == "w1"))
		seeds = append(seeds, "'"+l.at[name]+"'")
	}
	for _, name := range names {
		port, err := mysqltest.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		in := &installation{file: filepath.Join(l.dir, name+".yaml"), admin: fmt.Sprintf("127.0.0.1:%d", port), log: &buffer{}}
		text := fmt.Sprintf("stream: %s\ncity: %s\ndata_dir: %s\nadmin: {listen: '%s'}\nroles: [node]\nnode:\n  name: %s\n  listen: '%s'\n  dir: %s\n  journal_file_bytes: 4MiB\n  cluster:\n%s\n",
			l.stream, l.cityOf(name), l.dir, in.admin, name, l.at[name], filepath.Join(l.dir, "log-"+name), strings.Join(cluster, "\n"))
		if l.secure {
			text += "  " + l.certificate(name, "cert", "key", "ca") + "\n"
		}
		l.write(in.file, text)
		l.nodes[name] = in
		in.start(t)
	}
	text := fmt.Sprintf("stream: %s\ncity: b\nlog:\n  nodes: [%s]\n", l.stream, strings.Join(seeds, ", "))
	if l.secure {
		text += "  " + l.certificate("ops", "cert", "key", "ca") + "\n"
	}
	l.write(filepath.Join(l.dir, "ops.yaml"), text)
	for _, name := range names {
		l.nodes[name].await(t, name+" runs", func(d *admin.Document) bool { return d.Ready })
	}
	var err error
	if l.log, err = client.New(l.clientConfig("a1", "b1")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.log.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// clientConfig is a producer's that knows some nodes.
func (l *lab) clientConfig(nodes ...string) client.Config {
	l.t.Helper()
	cfg := client.Config{City: l.cityOf(nodes[0]), RollEvery: time.Second, Logger: zerolog.Nop()}
	for _, name := range nodes {
		cfg.Nodes = append(cfg.Nodes, l.at[name])
	}
	if l.secure {
		s, err := certs.Open(certs.Files{Cert: l.file("producer.crt"), Key: l.file("producer.key"), CA: l.file("ca.crt")})
		if err != nil {
			l.t.Fatal(err)
		}
		cfg.Dial = s.Over(func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		})
	}
	return cfg
}

func (l *lab) file(name string) string { return filepath.Join(l.dir, "tls", name) }

// certificate is a line of configuration.
func (l *lab) certificate(name, cert, key, ca string) string {
	return fmt.Sprintf("tls: {%s: %s, %s: %s, %s: %s}", cert, l.file(name+".crt"), key, l.file(name+".key"), ca, l.file("ca.crt"))
}

func (l *lab) cityOf(node string) string {
	if node == "w1" {
		return l.witness
	}
	return node[:1]
}

func (l *lab) write(file, text string) {
	l.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// run is a command of an operator, which must end with the code.
func (l *lab) run(code int, words string) string {
	l.t.Helper()
	got, out, errOut := twinspan(l.t, append(split2(words), "-c", filepath.Join(l.dir, "ops.yaml"))...)
	if got != code {
		l.t.Errorf("twinspan %s: exit code %d, not %d\n%s%s", words, got, code, out, errOut)
	}
	return out + errOut
}

// split2 splits words, those in quotes kept together.
func split2(s string) []string {
	var out []string
	for i, part := range strings.Split(s, `"`) {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return out
}

func (l *lab) overview() *ops.Overview {
	l.t.Helper()
	var o ops.Overview
	if err := json.Unmarshal([]byte(l.run(0, "log status -o json")), &o); err != nil {
		l.t.Fatal(err)
	}
	return &o
}

// until waits until the cluster is as wanted.
func (l *lab) until(what string, wanted func(*ops.Overview) bool) {
	l.t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		o := l.overview()
		if wanted(o) {
			return
		}
		if time.Now().After(end) {
			l.t.Fatalf("%s: not in time\n%s", what, l.run(0, "log status"))
		}
	}
}

// add appends n entries and waits for them.
func (l *lab) add(w log.Writer, n int) []log.Ack {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 30*time.Second)
	defer cancel()
	var acks []log.Ack
	for i := range n {
		o, err := w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: fmt.Appendf(nil, "entry %d %s", i, strings.Repeat("x", 200))})
		if err != nil {
			l.t.Fatal(err)
		}
		ack, err := w.Wait(ctx, o)
		if err != nil {
			l.t.Fatal(err)
		}
		acks = append(acks, ack)
	}
	return acks
}

func contains(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in\n%s", w, text)
		}
	}
}

// Every verb of the log, cursors and policies on a real cluster.
func TestClusterVerbs(t *testing.T) {
	l := newLab(t, true)
	out := l.run(2, "topic create --cities a=x")
	contains(t, out, "write it as city=number")
	contains(t, l.run(4, "topic create --cities a=1,b=3"), "can't satisfy")
	contains(t, l.run(0, "topic create --bytes-max 1GiB"), "was made", "1 in a, 1 in b", "1.0 GiB")
	contains(t, l.run(0, "topic create --bytes-max 2GiB"), "left as it is", "1.0 GiB")
	contains(t, l.run(0, "topic policy --age-max 7d"), "no limit → 7d", "Nothing was changed")
	contains(t, l.run(2, "topic policy --age-max 7d --yes"), "--yes needs a --reason")
	contains(t, l.run(0, `topic policy --age-max 7d --yes --reason "test"`), "Done")
	contains(t, l.run(0, "topic policy"), "7d")
	contains(t, l.run(1, "topic policy nothing"), "no such stream", "topic create makes it")

	w, err := l.log.OpenWriter(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }() // it is fenced or closed below
	for _, a := range l.add(w, 20) {
		if !a.Protected {
			t.Fatalf("%+v", a)
		}
	}
	if err := l.log.StoreCursor(t.Context(), "s", log.Cursor{Group: "city-b", Offset: 9}); err != nil {
		t.Fatal(err)
	}
	o := l.overview()
	if len(o.Nodes) != 5 || len(o.Streams) != 1 || o.Leader == "" || o.Generation != 1 || o.Stale || len(o.Problems) != 0 {
		t.Errorf("%+v", o)
	}
	if s := o.Streams[0]; !s.Open || !s.Protected || s.LAC != 19 || len(s.Members) != 4 || s.Policy.AgeMax != 7*24*time.Hour || len(s.Cursors) != 1 {
		t.Errorf("%+v", s)
	}
	contains(t, l.run(0, "log status --strict"), "protected", "offsets 0 to 19", "member  b2 (b) has 19", "city-b needs entries from 10 on, 10 of them are here")
	contains(t, l.run(0, "log nodes"), "a1", "serving", "witness", "leader", "follower")
	contains(t, l.run(0, "log segments s"), "1 in a, 1 in b", "a1 a2 b1 b2", "open")
	contains(t, l.run(1, "log segments nothing"), "no such stream")
	contains(t, l.run(0, "log repair status"), "nothing is missing")
	contains(t, l.run(0, "log repair now"), "copied 0 replicas")
	if lines := strings.Count(l.run(0, "log read s --from 5 --limit 3 --node b2"), `"node":"b2"`); lines != 3 {
		t.Errorf("%d lines", lines)
	}
	contains(t, l.run(0, "log read s --from 19 --payload"), `"offset":19`, `"topic":"data"`, fmt.Sprintf("%x", "entry 19"))
	contains(t, l.run(2, "log read s --node x9"), "there is no node")
	contains(t, l.run(0, "log verify"), "1 segment, 20 entries", "0 replicas differ")
	none := []string{"log", "status", "-c", filepath.Join(l.dir, "ops.yaml"), "--set", "log.tls.cert=", "--set", "log.tls.key="}
	if code, _, errOut := twinspan(t, none...); code != 5 {
		t.Errorf("without a certificate: %d %s", code, errOut)
	} else {
		contains(t, errOut, "refuses a connection without a certificate", "twinspan certs show")
	}

	for words, want := range map[string]string{
		"log segments ": "close\tEnd an open segment of which too many members lost their disks\ns\n", "log nodes drain ": "a1\na2\nb1\nb2\nw1\n", "cursor seek ": "city-b\n",
		"log degrade s --without ": "a\nb\nc\n", "topic policy --loss ": "block\ndegrade-manual\ndegrade-after\n", "topic create ": "", "log read s ": "", "log status -o ": "table\njson\nyaml\n",
	} {
		args := append([]string{"__complete", "-c", filepath.Join(l.dir, "ops.yaml")}, strings.Fields(words)...)
		if code, out, _ := twinspan(t, append(args, "")...); code != 0 || out != want+":4\n" {
			t.Errorf("completion of %q: %d %q", words, code, out)
		}
	}

	// Cursors.
	contains(t, l.run(0, "cursor list"), "city-b", "9")
	contains(t, l.run(0, "cursor seek city-b --to 15"), "from 9 forward to 15", "6 entries are no longer kept for it", "Nothing was changed")
	contains(t, l.run(4, "cursor seek city-b --to 99"), "beyond the last confirmed entry, 19")
	contains(t, l.run(2, "cursor seek city-b"), "--to or --remove")
	contains(t, l.run(0, `cursor seek city-b --to 3 --yes --reason "again"`), "from 9 back to 3", "Done")
	contains(t, l.run(0, `cursor seek new --to 4 --yes --reason "report"`), "a new cursor at 4")
	contains(t, l.run(0, `cursor seek new --remove --yes --reason "report is done"`), "would be removed", "Done")
	var cursors []streamCursor
	if err := json.Unmarshal([]byte(l.run(0, "cursor list --all -o json")), &cursors); err != nil || len(cursors) != 1 || cursors[0].Offset != 3 || cursors[0].Behind != 16 {
		t.Errorf("%+v %v", cursors, err)
	}

	// A node is drained, and comes back.
	contains(t, l.run(0, "log nodes drain a2"), "is a member of the open segment of s", "Nothing was changed")
	contains(t, l.run(2, "log nodes drain x9"), "the cluster has a1, a2, b1, b2, w1")
	contains(t, l.run(0, `log nodes drain a2 --yes --reason "disk"`), "Done")
	l.until("a2 left the open segment", func(o *ops.Overview) bool { return len(o.Streams[0].Members) == 3 })
	l.add(w, 5)
	contains(t, l.run(3, "log status --strict"), "node a2 is drained")
	contains(t, l.run(0, "doctor log"), "log.cluster", "node a2 is drained")
	l.run(0, `log nodes undrain a2 --yes --reason "done"`)
	l.until("a2 is a member again", func(o *ops.Overview) bool { return len(o.Streams[0].Members) == 4 })
	l.add(w, 5)
	contains(t, l.run(4, "log nodes forget b1"), "node b1 answers")
	contains(t, l.run(4, "log nodes rejoin b1"), "not quarantined")
	contains(t, l.run(2, "log nodes rejoin x9"), "the cluster has a1, a2, b1, b2, w1")

	// A city goes away: the stream waits, until it is told to go on.
	contains(t, l.run(4, "log degrade s --without b"), "policy is to block")
	contains(t, l.run(0, `topic policy --loss degrade-manual --yes --reason "test"`), "block → degrade manual")
	contains(t, l.run(4, "log restore s --without b"), "it is not done without")
	contains(t, l.run(4, "log degrade s --without x"), "no node in city")
	contains(t, l.run(0, "log degrade s --without b"), "the full rule can be met now", "nodes of b answer: [b1 b2]", "Nothing was changed")
	contains(t, l.run(4, "log takeover --attest-fenced b"), "the metadata has a leader")
	contains(t, l.run(2, "log takeover"), "--attest-fenced is missing")
	l.nodes["b1"].stop()
	l.nodes["b2"].stop()
	contains(t, l.run(0, "log degrade s --without b"), "b1 (b) does not answer", "1 in a, 1 in b → 1 nodes, 1 in a")
	contains(t, l.run(0, `log degrade s --without b --yes --reason "no power in b"`), "Done")
	for _, a := range l.add(w, 5) {
		if a.Protected {
			t.Errorf("%+v claims to be protected", a)
		}
	}
	contains(t, l.run(3, "log status --strict"), "NOT PROTECTED", "UNPROTECTED", "stream s does without b", "node b1 does not answer")
	contains(t, l.run(4, "log degrade s --without b"), "it is done without already")
	l.nodes["b1"].start(t)
	l.nodes["b2"].start(t)
	contains(t, l.run(0, `log restore s --without b --yes --reason "power"`), "Done")
	l.until("all is whole again", func(o *ops.Overview) bool { return len(o.Problems) == 0 && o.Streams[0].Protected })
	for _, a := range l.add(w, 3) {
		if !a.Protected {
			t.Errorf("%+v", a)
		}
	}
	contains(t, l.run(0, "log status"), "unprotected from")
	contains(t, l.nodes["a1"].log.String(), `"reason":"no power in b"`, "an operator changed the metadata")

	// A node's disk is gone: forgotten, it comes again as another one.
	l.nodes["b2"].stop()
	contains(t, l.run(0, "log nodes forget b2"), "its directory would never be let in again", "Nothing was changed")
	contains(t, l.run(0, `log nodes forget b2 --yes --reason "disk broken"`), "Done")
	if err := os.Rename(filepath.Join(l.dir, "log-b2"), filepath.Join(l.dir, "broken")); err != nil {
		t.Fatal(err)
	}
	l.nodes["b2"].start(t)
	l.until("b2 is back, and whole", func(o *ops.Overview) bool {
		return len(o.Problems) == 0 && len(o.Nodes) == 5 && len(o.Streams[0].Members) == 4
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		var page struct{ Segments []meta.Segment }
		if err := json.Unmarshal([]byte(l.run(0, "log segments s -o json")), &page); err != nil || len(page.Segments) == 0 {
			t.Fatal(err)
		}
		if len(page.Segments[0].Holders) == 4 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the first segment was not copied to the new b2: %+v", page.Segments[0])
		}
	}
	contains(t, l.run(0, "log verify"), "0 replicas differ", "0 not reachable")
}

// The majority dies with its city: the survivors take over, the others stand aside
// when they return, export what only they had, and are taken in again.
func TestTakeoverAndReturn(t *testing.T) {
	l := newLab(t, false)
	l.run(0, "topic create --loss degrade-manual")
	w, err := l.log.OpenWriter(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	l.add(w, 10)
	contains(t, l.run(4, "log takeover --attest-fenced a --attest-fenced c"), "the metadata has a leader")
	for _, name := range []string{"a1", "a2", "w1"} {
		l.nodes[name].stop()
	}
	_ = w.Close() // its fate is not known, which is why there are survivors to ask

	if o := l.overview(); !o.Stale || len(o.Problems) == 0 {
		t.Errorf("%+v", o)
	}
	contains(t, l.run(4, "log takeover --attest-fenced a --attest-fenced b"), "node b1 of city b answers")
	contains(t, l.run(4, "log takeover --attest-fenced x"), `no node in city "x"`)
	contains(t, l.run(5, "log degrade s --without a"), "is a majority of the nodes running?")
	out := l.run(0, "log takeover --attest-fenced a --attest-fenced c")
	contains(t, out, "generation 2 would begin with b1, b2; given up: a1, a2, w1", "MAY BE LOST", "passed over: 10 to ", "Nothing was changed")
	out = l.run(0, `log takeover --attest-fenced a --attest-fenced c --yes --reason "a burnt down"`)
	contains(t, out, "generation 2 begins with b1, b2")
	l.until("the survivors lead themselves", func(o *ops.Overview) bool { return o.Leader != "" && o.Generation == 2 && !o.Stale })
	l.run(0, `log degrade s --without a --yes --reason "a burnt down"`)

	after, err := client.New(client.Config{Nodes: []string{l.at["b1"]}, City: "b", Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	w2, err := after.OpenWriter(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w2.Close() }()                  // all that was appended is confirmed
	if b := w2.Bounds(); b.LAC != 9+meta.LostEntries { // a's operators may have gone on without b, for all that b knows
		t.Errorf("bounds after the takeover: %+v", b)
	}
	for _, a := range l.add(w2, 5) {
		if a.Protected {
			t.Errorf("%+v", a)
		}
	}

	// The lost nodes return.
	for _, name := range []string{"a1", "a2", "w1"} {
		l.nodes[name].start(t)
	}
	for _, name := range []string{"a1", "a2", "w1"} {
		d := l.nodes[name].await(t, name+" stands aside", func(d *admin.Document) bool { return len(d.Roles[0].Halts) > 0 })
		if h := d.Roles[0].Halts[0]; h.Code != "QUARANTINED" || !strings.Contains(h.Remedy, "log nodes rejoin "+name) {
			t.Errorf("%+v", h)
		}
	}
	for _, name := range []string{"a1", "a2", "w1"} {
		var out string
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			if out = l.run(0, "log nodes rejoin "+name+" --address "+l.at[name]); strings.Contains(out, "exported to") && !strings.Contains(out, `"exported":false`) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s does not export\n%s", name, out)
			}
		}
		contains(t, out, "is quarantined", "generation 2 was begun without it", "Nothing was changed")
		l.nodes[name].code = 1 // it ends by itself, to be started again
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
			code, out, errOut := twinspan(t, "log", "nodes", "rejoin", name, "--address", l.at[name], "--yes", "--reason", "a is rebuilt", "-c", filepath.Join(l.dir, "ops.yaml"))
			if code == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %d %s%s", name, code, out, errOut)
			}
		}
		for end := time.Now().Add(20 * time.Second); !strings.Contains(l.nodes[name].log.String(), "told to rejoin"); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s does not end", name)
			}
		}
		l.nodes[name].stop()
		l.nodes[name].code = 0
		l.nodes[name].start(t)
	}
	l.run(0, `log restore s --without a --yes --reason "a is rebuilt"`)
	l.until("all is whole again", func(o *ops.Overview) bool { return len(o.Problems) == 0 && len(o.Nodes) == 5 && o.Streams[0].Protected })
	l.add(w2, 3)
	contains(t, l.run(0, "log verify"), "0 replicas differ", "0 not reachable")
	if kept, err := filepath.Glob(filepath.Join(l.dir, "log-a1.before-*")); err != nil || len(kept) != 1 {
		t.Errorf("the old directory of a1: %v %v", kept, err)
	}
}
