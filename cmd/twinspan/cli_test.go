package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The help of every command is as in testdata/help.
func TestHelp(t *testing.T) {
	a := &app{}
	var walk func(c *cobra.Command, path []string)
	walk = func(c *cobra.Command, path []string) {
		name := strings.Join(append([]string{"twinspan"}, path...), "-")
		t.Run(name, func(t *testing.T) {
			code, out, errOut := twinspan(t, append(path, "--help")...)
			if code != 0 || errOut != "" {
				t.Fatalf("%d %s", code, errOut)
			}
			if !strings.Contains(out, "Examples:") {
				t.Error("no examples")
			}
			for l := range strings.Lines(out) {
				if strings.Contains(l, "\x1b") {
					t.Errorf("colour: %q", l)
				}
			}
			golden := filepath.Join("testdata", "help", name+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), out); d != "" {
				t.Errorf("go test ./cmd/twinspan -run TestHelp -update, after looking at\n%s", d)
			}
		})
		for _, s := range c.Commands() {
			// The help of these two is cobra's.
			if s.Name() != "help" && s.Name() != "completion" {
				walk(s, append(append([]string{}, path...), s.Name()))
			}
		}
	}
	walk(a.root(), nil)
}

func TestMistakesAreOneLineAndAHint(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "t.yaml")
	bad := "stream: s\nroles: [producer]\nproducer:\n  batch_dely: 2ms\n"
	if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good.yaml")
	if err := os.WriteFile(good, []byte(config.Example()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, c := range []struct {
		args string
		code int
		want string // of standard error
	}{
		{"runn", 2, "twinspan: twinspan has no command \"runn\"\nhint: did you mean run?\n"},
		{"topic raed", 2, "twinspan: twinspan topic has no command \"raed\"\nhint: did you mean read?\n"},
		{"topic read dta -c good.yaml", 2, "twinspan: twinspan topic read does not know \"dta\"\nhint: use data, schema, exceptions\n"},
		{"schema show -c good.yaml", 2, "twinspan: twinspan schema show: <table|fingerprint> is missing\nhint: twinspan schema show --help shows how it is used\n"},
		{"log segments -c good.yaml", 2, "twinspan: twinspan log segments: STREAM is missing\nhint: twinspan log segments --help shows how it is used\n"},
		{"log segments close", 2, "twinspan: twinspan log segments close: STREAM is missing\nhint: twinspan log segments close --help shows how it is used\n"},
		{"log status extra", 2, "twinspan: twinspan log status: \"extra\" is one argument too many\nhint: twinspan log status --help shows how it is used\n"},
		{"cursor seek g h", 2, "twinspan: twinspan cursor seek: \"h\" is one argument too many\nhint: twinspan cursor seek --help shows how it is used\n"},
		{"cursor seek g --to x", 2, "twinspan: invalid argument \"x\" for \"--to\" flag: it takes a whole number\nhint: twinspan cursor seek --help shows the flags\n"},
		{"cursor seek g --to 99999999999999999999", 2, "twinspan: invalid argument \"99999999999999999999\" for \"--to\" flag: it takes a smaller number\nhint: twinspan cursor seek --help shows the flags\n"},
		{"status --wach 2s", 2, "twinspan: unknown flag: --wach\nhint: twinspan status --help shows the flags\n"},
		{"version -o xml", 2, "twinspan: unknown output format \"xml\": use table, json or yaml\n"},
		{"run", 2, "twinspan: no configuration file was found\nhint: name one with -c, or make one: twinspan config example > twinspan.yaml\n"},
		{"run -c none.yaml", 2, "twinspan: configuration: open none.yaml: no such file or directory\nhint: name the file with -c, or make one: twinspan config example > twinspan.yaml\n"},
		{"run -c t.yaml", 2, "twinspan: t.yaml:4:3: producer.batch_dely: unknown key; did you mean batch_delay?\ntwinspan: source.address: missing: host:port, or the path of a socket\ntwinspan: source.user: missing\n"},
		{"config check -c t.yaml", 2, "t.yaml:4:3: producer.batch_dely: unknown key; did you mean batch_delay?\nsource.address: missing: host:port, or the path of a socket\nsource.user: missing\n"},
		{"topic read -c good.yaml --since yesterday", 2, "twinspan: \"yesterday\" is no time: write 2026-01-02T15:04:05Z, 2026-01-02 15:04 (UTC), or 10m for ten minutes ago\n"},
		{"topic read -c good.yaml --key id", 2, "twinspan: --key \"id\": write it as column=value\n"},
		{"verify -c good.yaml --table orders", 2, "twinspan: table \"orders\": write it as schema.table; * stands for anything\n"},
		{"config show -c good.yaml --set lanes=3", 2, "twinspan: flag --set: lanes: unknown key\n"},
	} {
		code, out, errOut := twinspan(t, strings.Fields(c.args)...)
		if code != c.code || errOut != c.want {
			t.Errorf("%s: %d, expected %d\n%s\n%s", c.args, code, c.code, cmp.Diff(c.want, errOut), out)
		}
	}
}

func TestConfigVerbs(t *testing.T) {
	t.Chdir(t.TempDir())
	code, example, _ := twinspan(t, "config", "example")
	if code != 0 || os.WriteFile("twinspan.yaml", []byte(example), 0o600) != nil {
		t.Fatal(code)
	}
	if code, out, errOut := twinspan(t, "config", "check"); code != 0 || errOut != "" ||
		out != "twinspan.yaml is valid: stream payments, roles producer, node, consumer\n" {
		t.Errorf("%d %q %q", code, out, errOut)
	}
	code, out, _ := twinspan(t, "config", "check", "-o", "json", "--set", "apply.lanes=0")
	var result struct {
		Valid    bool
		Problems []string
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 2 || result.Valid || len(result.Problems) != 1 {
		t.Errorf("%d %s %v", code, out, err)
	}
	code, out, _ = twinspan(t, "config", "show", "--set", "source.password_file=", "--set", "source.password=hunter2", "--origin")
	if code != 0 || strings.Contains(out, "hunter2") || !strings.Contains(out, `password: "(set, not shown)"  # flag`) {
		t.Errorf("%d\n%s", code, out)
	}
	for _, format := range []string{"json", "yaml"} {
		code, out, _ = twinspan(t, "version", "-o", format)
		if code != 0 || !strings.Contains(out, "platform") {
			t.Errorf("%d %s", code, out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, out, _ := twinspan(t, "completion", shell); code != 0 || len(out) < 1000 {
			t.Errorf("completion for %s: %d", shell, code)
		}
	}
}
