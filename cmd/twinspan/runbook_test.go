package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/ops"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
)

// runbookBlocks are the fenced blocks of the runbook by section, each as its lines
// without comments.
func runbookBlocks(t *testing.T) map[string][][]string {
	t.Helper()
	b, err := os.ReadFile("../../deploy/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][][]string{}
	for _, section := range strings.Split(string(b), "\n## ")[1:] {
		name, text, _ := strings.Cut(section, "\n")
		for i, block := range strings.Split(text, "```") {
			if i%2 == 0 {
				continue
			}
			var lines []string
			for line := range strings.Lines(block) {
				line, _, _ = strings.Cut(line, "  #")
				if line = strings.TrimSpace(line); line != "" {
					lines = append(lines, line)
				}
			}
			out[name] = append(out[name], lines)
		}
	}
	return out
}

// runbookParts says who plays a section's blocks: a test of this file, or nobody,
// because they are about databases, and what they say is tried elsewhere.
var runbookParts = map[string]string{
	"halted": "", "down": "", "role-not-running": "", "lag": "", "lag-unknown": "", "target-changed": "",
	"log-out-of-space": "disks", "log-damaged": "disks", "log-node-away": "disks", "log-repair": "disks",
	"log-waits": "disks", "unprotected": "disks", "certificate": "disks",
	"log-no-leader": "takeover", "log-quarantined": "takeover",
}

// The commands of the runbook are commands of this program.
func TestRunbookCommandsAreReal(t *testing.T) {
	n := 0
	for name, blocks := range runbookBlocks(t) {
		if _, ok := runbookParts[name]; !ok {
			t.Errorf("nobody plays %s", name)
		}
		for _, line := range slices.Concat(blocks...) {
			words := split2(line)
			if words[0] != "twinspan" {
				continue
			}
			n++
			// --help stops before anything is done, but after flags were read.
			if code, _, errOut := twinspan(t, append(words[1:], "--help")...); code != 0 {
				t.Errorf("%s: %s", line, errOut)
			}
		}
	}
	if n < 8 {
		t.Errorf("only %d commands were found", n)
	}
}

// runbook plays the blocks of the runbook on a lab, as an operator on b1 would.
type runbook struct {
	*lab
	blocks map[string][][]string // those that were not played yet
	// service is what systemctl does to the log's node.
	service func()
	// replace are words that stand for what only the moment tells.
	replace map[string]string
}

// next plays the next block of a section, whose commands all must succeed, and
// answers with what they print. A repair may still have work to do.
func (b *runbook) next(section string) string {
	b.t.Helper()
	if len(b.blocks[section]) == 0 {
		b.t.Fatalf("the runbook has no more blocks in %s", section)
	}
	var said strings.Builder
	for _, line := range b.blocks[section][0] {
		words := split2(line)
		for i, w := range words {
			for from, to := range b.replace {
				w = strings.ReplaceAll(w, from, to)
			}
			words[i] = w
		}
		switch {
		case words[0] == "systemctl":
			b.service()
		case words[0] == "journalctl", strings.HasPrefix(line, "twinspan doctor source"):
			// They ask the machine, and a database.
		case words[0] != "twinspan":
			b.t.Errorf("%s: what is %q?", section, line)
		default:
			code, out, errOut := twinspan(b.t, unglob(b.t, words[1:])...)
			if code != 0 && (code != 3 || !strings.HasPrefix(line, "twinspan log repair status")) {
				b.t.Errorf("%s: %s: exit code %d\n%s%s", section, line, code, out, errOut)
			}
			said.WriteString(out + errOut)
		}
	}
	b.blocks[section] = b.blocks[section][1:]
	return said.String()
}

// unglob does what the shell does with patterns.
func unglob(t *testing.T, words []string) (out []string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(w, "*") {
			out = append(out, w)
			continue
		}
		found, err := filepath.Glob(w)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %d files", w, err, len(found))
		}
		out = append(out, found...)
	}
	return out
}

// lose ends a node and takes its disk away.
func (b *runbook) lose(names ...string) {
	b.t.Helper()
	for _, name := range names {
		b.nodes[name].stop()
		if err := os.RemoveAll(filepath.Join(b.dir, "log-"+name)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// whole waits for what the checks of the runbook ask.
func (b *runbook) whole() {
	b.t.Helper()
	b.until("all is whole", func(o *ops.Overview) bool { return len(o.Problems) == 0 && o.Streams[0].Protected })
	b.run(0, "log status --strict")
}

// newRunbook starts a lab for a part of the runbook, with a writer and a reader.
func newRunbook(t *testing.T, part string) (*runbook, log.Writer) {
	t.Helper()
	l := newLabOf(t, labOptions{secure: true, stream: "payments", witness: "a"})
	b := &runbook{lab: l, blocks: runbookBlocks(t), replace: map[string]string{
		"/etc/twinspan/twinspan.yaml": l.nodes["b1"].file, "/etc/twinspan/tls": filepath.Join(l.dir, "tls"), "lab-tls": filepath.Join(l.dir, "lab-tls"),
	}}
	for name := range b.blocks {
		if runbookParts[name] != part {
			delete(b.blocks, name)
		}
	}
	t.Cleanup(func() {
		for name, left := range b.blocks {
			if len(left) > 0 && !t.Failed() {
				t.Errorf("nobody played %s: %q", name, left)
			}
		}
	})
	w, err := l.log.OpenWriter(t.Context(), "payments")
	if err != nil {
		t.Fatal(err)
	}
	l.add(w, 20)
	if err := l.log.StoreCursor(t.Context(), "payments", log.Cursor{Group: "city-b", Offset: 9}); err != nil {
		t.Fatal(err)
	}
	l.until("four members", func(o *ops.Overview) bool { return len(o.Problems) == 0 && len(o.Streams[0].Members) == 4 })
	return b, w
}

// The runbook's commands for nodes, disks and a city that is away, in the order in
// which one calamity follows another. Each must do what the text around it says.
func TestRunbookOfDisks(t *testing.T) {
	t.Parallel()
	b, w := newRunbook(t, "disks")
	l := b.lab
	contains(t, b.next("log-out-of-space"), "payments")
	contains(t, b.next("log-damaged"), "payments")
	contains(t, b.next("log-node-away"), "b2", "serving", "payments")
	contains(t, b.next("log-repair"), "nothing is missing", "a1 a2 b1 b2")
	contains(t, b.next("certificate"), "b1", "producer")
	b.next("certificate")
	contains(t, b.next("log-node-away"), "Done")

	// City b has no power.
	l.nodes["b1"].stop()
	l.nodes["b2"].stop()
	contains(t, b.next("log-waits"), "does not answer")
	contains(t, b.next("log-waits"), "block → degrade manual", "Nothing was changed", "Done")
	if a := l.add(w, 5); a[4].Protected {
		t.Errorf("%+v", a)
	}
	contains(t, b.next("unprotected"), "NOT PROTECTED", "UNPROTECTED since")
	l.nodes["b1"].start(t)
	l.nodes["b2"].start(t)
	contains(t, b.next("unprotected"), "Nothing was changed", "Done")
	b.whole()

	// The disk of b2, and then those of a1 and b2 at the same time.
	b.lose("b2")
	b.service = func() { l.nodes["b2"].start(t); l.awaitNode("b2") }
	contains(t, b.next("log-node-away"), "Nothing was changed", "Done")
	b.whole()
	l.add(w, 5)
	l.until("b2 is a member again", func(o *ops.Overview) bool { return len(o.Streams[0].Members) == 4 })
	if err := l.log.Close(); err != nil { // the producer dies
		t.Fatal(err)
	}
	b.lose("a1", "b2")
	l.until("there is a leader", func(o *ops.Overview) bool { return !o.Stale && o.Leader != "" })
	for _, name := range []string{"a1", "b2"} {
		l.run(0, fmt.Sprintf(`log nodes forget %s --force --yes --reason "disk broken"`, name))
	}
	contains(t, l.run(3, "log status --strict"), "can't be ended any more")
	contains(t, b.next("log-node-away"), "Nothing was changed", "Done", "given up")
	for _, name := range []string{"a1", "b2"} {
		l.nodes[name].start(t)
		l.awaitNode(name)
	}
	gaps := l.gaps()
	if len(gaps) != 1 {
		t.Fatalf("gaps: %v", gaps)
	}
	b.replace["1099511627886"] = gaps[0]
	contains(t, b.next("log-node-away"), "Nothing was changed", "Done", "forward to "+gaps[0])
	b.whole()
}

// City a burns down, with the witness, and comes back.
func TestRunbookOfATakeover(t *testing.T) {
	t.Parallel()
	b, w := newRunbook(t, "takeover")
	l := b.lab
	l.run(0, `topic policy payments --loss degrade-manual --yes --reason "test"`)
	for _, name := range []string{"a1", "a2", "w1"} {
		l.nodes[name].stop()
	}
	contains(t, b.next("log-no-leader"), "payments")
	contains(t, b.next("log-no-leader"), "generation 2 would begin with b1, b2", "Nothing was changed")
	contains(t, b.next("log-no-leader"), "generation 2 begins with b1, b2")
	l.until("the survivors lead themselves", func(o *ops.Overview) bool { return o.Leader != "" && o.Generation == 2 && !o.Stale })
	contains(t, b.next("log-no-leader"), "Done")
	after, err := client.New(l.clientConfig("b1", "b2"))
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close() // all that was appended is confirmed
	_ = w.Close()       // its fate is not known, which is why there are survivors to ask
	if w, err = after.OpenWriter(t.Context(), "payments"); err != nil {
		t.Fatal(err)
	}
	l.add(w, 5)
	a1 := l.nodes["a1"]
	a1.start(t)
	a1.await(t, "a1 stands aside", func(d *admin.Document) bool { return len(d.Roles[0].Halts) > 0 })
	for end := time.Now().Add(30 * time.Second); !strings.Contains(a1.log.String(), "exported"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a1 does not export")
		}
	}
	contains(t, b.next("log-quarantined"), "is quarantined", "Nothing was changed")
	a1.code = 1 // it ends by itself
	b.service = func() {
		for end := time.Now().Add(30 * time.Second); !strings.Contains(a1.log.String(), "told to rejoin"); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("a1 does not end")
			}
		}
		a1.stop()
		a1.code = 0
		a1.start(t)
		l.awaitNode("a1")
	}
	contains(t, b.next("log-quarantined"), "joins with a fresh identity", "Done")
	l.until("a1 is a member", func(o *ops.Overview) bool { return o.Streams[0].Protected && len(o.Streams[0].Members) == 3 })
	l.add(w, 5)
	gaps := l.gaps()
	l.run(0, fmt.Sprintf(`cursor seek city-b --to %s --yes --reason "the loss is known"`, gaps[len(gaps)-1]))
	b.whole()
}

// awaitNode waits until a node that was started is ready.
func (l *lab) awaitNode(name string) {
	l.t.Helper()
	l.nodes[name].await(l.t, name+" runs", func(d *admin.Document) bool { return d.Ready })
}

var gapEnd = regexp.MustCompile(`\d+ to (\d+) LOST`)

// gaps are the last offsets of the losses that log status shows.
func (l *lab) gaps() (out []string) {
	l.t.Helper()
	for _, m := range gapEnd.FindAllStringSubmatch(l.run(0, "log status"), -1) {
		out = append(out, m[1])
	}
	return out
}
