package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

type ruleFile struct {
	Groups []struct {
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

func readRules(t *testing.T) ruleFile {
	t.Helper()
	b, err := os.ReadFile("../../deploy/prometheus/twinspan.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var f ruleFile
	if err := yaml.UnmarshalWithOptions(b, &f, yaml.AllowFieldPrefixes("x")); err != nil {
		t.Fatal(err)
	}
	return f
}

var metricName = regexp.MustCompile(`\btwinspan_[a-z_]+`)

// Every metric in the rules and the dashboard is served by a running process, or
// only while something is wrong.
func TestDashboardAndRulesNameRealMetrics(t *testing.T) {
	source, target := mysqltest.Start(t, mysqltest.MySQL97), mysqltest.Start(t, mysqltest.MySQL97)
	in := install(t, source, target, "")
	in.start(t)
	in.await(t, "the roles run", func(d *admin.Document) bool { return d.Ready })
	source.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)")
	in.verify(t)
	// The first is served while something is wrong, the second in a cluster, where
	// test/e2e looks for it, the third with certificates, where TestLogOverTLS does.
	served := get(t, in.admin, "/metrics", 200) + "\ntwinspan_halted{\ntwinspan_log_peer_reachable{\ntwinspan_certificate_left_seconds{"
	check := func(where, expr string) {
		for _, name := range metricName.FindAllString(expr, -1) {
			if !strings.Contains(served, "\n"+name+"{") && !strings.Contains(served, "\n"+name+" ") {
				t.Errorf("%s: nobody serves %s", where, name)
			}
		}
	}
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			check(r.Alert, r.Expr)
		}
	}
	b, err := os.ReadFile("../../deploy/grafana/twinspan.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range board.Panels {
		for _, q := range p.Targets {
			check(p.Title, q.Expr)
			n++
		}
	}
	if n < 20 {
		t.Errorf("only %d queries were found", n)
	}
}

// Every alert has its entry in the runbook, and every halt its line.
func TestRunbookIsComplete(t *testing.T) {
	b, err := os.ReadFile("../../deploy/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	book := string(b)
	n := 0
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			_, anchor, ok := strings.Cut(r.Annotations["runbook_url"], "deploy/runbook.md#")
			if !ok || !strings.Contains(book, "\n## "+anchor+"\n") {
				t.Errorf("%s: no entry %q", r.Alert, anchor)
			}
			n++
		}
	}
	if n == 0 {
		t.Error("no alerts were found")
	}
	code := regexp.MustCompile(`(?m)^\s+(?:Halt|Code)\w+\s+(?:Code\s+)?= "([A-Z_]+)"`)
	codes := 0
	for _, file := range []string{"../../producer/binlog/halt.go", "../../applier/halt.go", "../../consumer/status.go"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range code.FindAllStringSubmatch(string(b), -1) {
			codes++
			if !strings.Contains(book, "`"+m[1]+"`") {
				t.Errorf("%s has no line in the runbook", m[1])
			}
		}
	}
	if codes < 30 {
		t.Errorf("only %d codes were found", codes)
	}
}

// The unit is as closed as we say.
func TestSystemdUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("no systemd-analyze on this machine")
	}
	for _, unit := range []string{"twinspan.service", "twinspan-log.service"} {
		out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--no-pager", "../../deploy/systemd/"+unit).CombinedOutput()
		m := regexp.MustCompile(`Overall exposure level for ` + unit + `: ([0-9.]+)`).FindSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if level, err := strconv.ParseFloat(string(m[1]), 64); err != nil || level > 2.0 {
			t.Errorf("%s: exposure level %s: at most 2.0", unit, m[1])
		}
	}
}

// The configuration that the README shows is a valid one.
func TestReadmeConfiguration(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, block := range strings.Split(string(b), "```") {
		text, isYAML := strings.CutPrefix(block, "yaml\n")
		if i%2 == 0 || !isYAML || !strings.Contains(text, "stream:") {
			continue
		}
		n++
		// The block stands inside a list.
		indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
		var lines []string
		for line := range strings.Lines(text) {
			lines = append(lines, strings.TrimPrefix(line, indent))
		}
		t.Chdir(t.TempDir())
		if err := os.WriteFile("readme.yaml", []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, errOut := twinspan(t, "config", "check", "-c", "readme.yaml"); code != 0 {
			t.Errorf("%d\n%s%s", code, out, errOut)
		}
	}
	if n == 0 {
		t.Error("no configuration was found")
	}
}
