package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const minimal = `stream: payments
city: b
roles: [producer, node, consumer]
source: {address: "127.0.0.1:3306", user: twinspan}
target: {address: "127.0.0.1:3307", user: twinspan}
`

func load(t *testing.T, text string, env, flags []string) (*Loaded, []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "t.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Load(Input{Path: path, Env: env, Flags: flags})
	if err == nil {
		return l, nil
	}
	var inv *Invalid
	if !errors.As(err, &inv) {
		t.Fatal(err)
	}
	var lines []string
	for _, p := range inv.Problems {
		lines = append(lines, strings.ReplaceAll(p.String(), path, "t.yaml"))
	}
	return l, lines
}

func TestMinimalFileTakesDefaults(t *testing.T) {
	l, problems := load(t, minimal, nil, nil)
	if problems != nil {
		t.Fatal(problems)
	}
	if l.Node.Dir != "/var/lib/twinspan/log" || l.Consumer.Group != "city-b" || l.Applier.Lanes != 8 {
		t.Errorf("dir %q, group %q, lanes %d", l.Node.Dir, l.Consumer.Group, l.Applier.Lanes)
	}
	if l.Producer.BatchDelay.Std() != 2*time.Millisecond || l.Producer.BatchBytesMax != 256<<10 {
		t.Errorf("producer %+v", l.Producer)
	}
	if len(l.Warnings) != 0 {
		t.Errorf("warnings %v", l.Warnings)
	}
}

func TestProblemsNameTheirLine(t *testing.T) {
	cases := map[string]struct {
		text string
		want []string
	}{
		"misspelt key": {
			minimal + "producer:\n  batch_dely: 2ms\n",
			[]string{"t.yaml:7:3: producer.batch_dely: unknown key; did you mean batch_delay?"},
		},
		"misspelt section": {
			minimal + "aply: {lanes: 2}\n",
			[]string{"t.yaml:6:1: aply: unknown key; did you mean apply?"},
		},
		"key in the wrong place": {
			minimal + "lanes: 4\n",
			[]string{"t.yaml:6:1: lanes: unknown key here; did you mean apply.lanes?"},
		},
		"unknown key": {
			minimal + "consumer:\n  wombat: 4\n",
			[]string{"t.yaml:7:3: consumer.wombat: unknown key; known under consumer: group"},
		},
		"duration without unit": {
			minimal + "producer:\n  batch_delay: 2\n",
			[]string{`t.yaml:7:16: producer.batch_delay: "2" has no unit: write it like 2ms, 30s or 7d`},
		},
		"size without unit": {
			minimal + "apply:\n  batch_bytes: 1048576\n",
			[]string{`t.yaml:7:16: apply.batch_bytes: "1048576" has no unit: write it like 512B, 256KiB or 64MiB`},
		},
		"several at once, in their order": {
			"stream: Pay ments\nroles: [producr]\nlogging:\n  level: loud\n",
			[]string{
				`t.yaml:1:9: stream: "Pay ments" is not a name: use 1 to 63 of a-z, 0-9, dot, dash and underscore, the first a letter or digit`,
				`t.yaml:2:9: roles[0]: unknown role "producr"; did you mean producer?`,
				`t.yaml:4:10: logging.level: unknown level "loud"; use trace, debug, info, warn, error`,
			},
		},
		"syntax": {
			"stream: [a\ncity: b\n",
			[]string{"t.yaml:2:1: ',' or ']' must be specified"},
		},
		"duplicate key": {
			"stream: a\nstream: b\nroles: [node]\n",
			[]string{`t.yaml:2:1: mapping key "stream" already defined at [1:1]`},
		},
		"list instead of word": {
			minimal + "consumer:\n  group: [a, b]\n",
			[]string{"t.yaml:7:10: consumer.group: a list can't stand here: it takes a word"},
		},
		"word instead of section": {
			minimal + "producer: fast\n",
			[]string{"t.yaml:6:11: producer: a value can't stand here: it takes keys: start, server_id, batch_bytes_max, batch_delay, transaction_chunk_bytes, skip, allow_gaps"},
		},
		"two documents": {
			minimal + "---\nstream: other\n",
			[]string{"t.yaml:7:7: a second YAML document: a configuration is one document"},
		},
		"empty": {
			"",
			[]string{
				"stream: missing: name the MySQL set, such as payments",
				"roles: missing: list the roles of this process, such as [producer, node, consumer]",
			},
		},
		"missing for the role": {
			"stream: a\ncity: b\nroles: [producer]\n",
			[]string{"source.address: missing: host:port, or the path of a socket", "source.user: missing"},
		},
		"range": {
			minimal + "apply:\n  lanes: 0\n",
			[]string{"t.yaml:7:10: apply.lanes: 0 is out of range: 1 to 256"},
		},
		"server to itself": {
			"stream: a\ncity: b\nroles: [producer, node, consumer]\nsource: {address: 'h:1', user: u}\ntarget: {address: 'h:1', user: u}\n",
			[]string{"t.yaml:5:19: target.address: source and target are the same server, h:1: its changes would be applied to itself"},
		},
		"two passwords": {
			strings.Replace(minimal, "source: {", "source: {password: x, password_file: /y, ", 1),
			[]string{"t.yaml:4:20: source.password: set beside password_file: keep one of the two"},
		},
		"start": {
			minimal + "producer:\n  start: earlist\n  skip: [0-1-5, nine]\n",
			[]string{
				`t.yaml:7:10: producer.start: "earlist": did you mean earliest?`,
				`t.yaml:8:17: producer.skip[1]: "nine" is not a GTID`,
			},
		},
		"tls halves": {
			minimal + "log: {tls: {cert: /c}}\nnode: {tls: {ca: ca.pem, key: /k}}\n",
			[]string{
				"t.yaml:6:19: log.tls.cert: cert and key belong together: set both or none",
				"log.tls.ca: missing: cert and key are used only together with ca",
				`t.yaml:7:18: node.tls.ca: "ca.pem" is not an absolute path`,
				"node.tls.cert: cert and key belong together: set both or none",
				"node.tls.cert: missing: ca is used only together with cert and key",
			},
		},
		"anchor": {
			minimal + "consumer: &x\n  group: a\n",
			[]string{"t.yaml:6:11: consumer: anchors, aliases and tags are not used in this file: write the value out"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, got := load(t, c.text, nil, nil)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestAddressesInEveryStyle(t *testing.T) {
	want := []string{"127.0.0.1:7040", "b.example:7041"}
	for _, text := range []string{
		"log: {nodes: [127.0.0.1:7040, b.example:7041]}\n",
		"log: {nodes: ['127.0.0.1:7040', \"b.example:7041\"]}\n",
		"log:\n  nodes: [127.0.0.1:7040, b.example:7041]\n",
		"log:\n  nodes:\n    - 127.0.0.1:7040\n    - b.example:7041\n",
	} {
		l, problems := load(t, minimal+text, nil, nil)
		if len(problems) > 0 || !slices.Equal(l.Log.Nodes, want) {
			t.Errorf("%s: %v %q", text, problems, l.Log.Nodes)
		}
	}
	_, problems := load(t, minimal+"log: {nodes: [a: 1]}\n", nil, nil)
	if len(problems) != 1 || problems[0] != "t.yaml:6:16: log.nodes[0]: must be a plain word" {
		t.Errorf("%q", problems)
	}
}

func TestPrecedence(t *testing.T) {
	text := minimal + "apply:\n  lanes: 3\n  batch_rows: 30\nlogging:\n  level: loud\n"
	l, problems := load(t, text,
		[]string{"TWINSPAN_APPLY_LANES=4", "TWINSPAN_APPLY_BATCH_ROWS=40", "TWINSPAN_ROLES=node, producer",
			"TWINSPAN_CONFIG=/x", "TWINSPAN_APPLY_LANE=9", "HOME=/root", "TWINSPAN_LOGGING_LEVEL=debug"},
		[]string{"apply.lanes=5"})
	if problems != nil {
		t.Fatal(problems)
	}
	if l.Applier.Lanes != 5 || l.Applier.BatchRows != 40 || !slices.Equal(l.Roles, []Role{RoleNode, RoleProducer}) {
		t.Errorf("lanes %d, rows %d, roles %v", l.Applier.Lanes, l.Applier.BatchRows, l.Roles)
	}
	want := "environment: TWINSPAN_APPLY_LANE: sets no key; did you mean TWINSPAN_APPLY_LANES?"
	if len(l.Warnings) != 1 || l.Warnings[0].String() != want {
		t.Errorf("warnings %v", l.Warnings)
	}
	if o := l.Origins["apply.batch_rows"]; o != "environment variable TWINSPAN_APPLY_BATCH_ROWS" {
		t.Errorf("origin %q", o)
	}

	_, problems = load(t, minimal, []string{"TWINSPAN_APPLY_LANES=many"}, []string{"aply.lanes=2", "what"})
	want2 := []string{
		`environment variable TWINSPAN_APPLY_LANES: apply.lanes: "many" is not a whole number`,
		"flag --set: aply.lanes: unknown key; did you mean apply.lanes?",
		"flag --set: what: write it as key=value, such as logging.level=debug",
	}
	if d := cmp.Diff(want2, problems); d != "" {
		t.Error(d)
	}
}

func TestExampleIsCompleteAndValid(t *testing.T) {
	l, problems := load(t, Example(), nil, nil)
	if problems != nil {
		t.Fatal(problems)
	}
	if len(l.Warnings) > 0 {
		t.Errorf("warnings %v", l.Warnings)
	}
	// What is required or depends on the place differs; the rest is the default.
	differs := map[string]bool{
		"stream": true, "city": true, "roles": true, "node.dir": true, "node.name": true, "consumer.group": true,
		"source.address": true, "source.user": true, "source.password_file": true,
		"target.address": true, "target.user": true, "target.password_file": true,
	}
	defaults := leaves(Default())
	for i, lf := range leaves(l.Config) {
		if l.Origins[lf.path] == "" {
			t.Errorf("%s is missing in the example", lf.path)
		}
		if !differs[lf.path] && !reflect.DeepEqual(lf.value.Interface(), defaults[i].value.Interface()) {
			t.Errorf("%s is %v in the example and %v by default", lf.path, lf.value, defaults[i].value)
		}
	}
}

func TestShowHidesSecretsAndReadsBack(t *testing.T) {
	l, problems := load(t, minimal, []string{"TWINSPAN_SOURCE_PASSWORD=hunter2"}, []string{"target.password=hunter3"})
	if problems != nil {
		t.Fatal(problems)
	}
	for _, origins := range []bool{false, true} {
		text, err := l.YAML(origins)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text, "hunter") {
			t.Errorf("a secret is shown:\n%s", text)
		}
		if strings.Count(text, redacted) != 2 {
			t.Errorf("secrets are not marked:\n%s", text)
		}
		back, problems := load(t, text, nil, nil)
		if problems != nil {
			t.Fatalf("%v\n%s", problems, text)
		}
		back.Source.Password, back.Target.Password = "hunter2", "hunter3"
		if d := cmp.Diff(l.Config, back.Config); d != "" {
			t.Errorf("read back: %s", d)
		}
	}
	for _, s := range l.Settings() {
		if v, ok := s.Value.(string); ok && strings.Contains(v, "hunter") {
			t.Errorf("%s shows its secret", s.Path)
		}
	}
}

func TestWarnings(t *testing.T) {
	text := strings.Replace(minimal, "source: {", "source: {password: x, ", 1) + "admin: {listen: '0.0.0.0:8040'}\n"
	l, problems := load(t, text, nil, nil)
	if problems != nil {
		t.Fatal(problems)
	}
	var paths []string
	for _, w := range l.Warnings {
		paths = append(paths, w.Path)
	}
	if !slices.Equal(paths, []string{"admin.listen", "source.password"}) {
		t.Errorf("%v", l.Warnings)
	}
}

func TestUnitsReadBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := Duration(rapid.Int64Range(0, int64(100*365*24*time.Hour)).Draw(rt, "duration"))
		b := Bytes(rapid.Int64Range(0, 1<<50).Draw(rt, "bytes"))
		var d2 Duration
		var b2 Bytes
		if err := d2.UnmarshalText([]byte(d.String())); err != nil || d2 != d {
			rt.Fatalf("%s: %v, %v", d, d2, err)
		}
		if err := b2.UnmarshalText([]byte(b.String())); err != nil || b2 != b {
			rt.Fatalf("%s: %v, %v", b, b2, err)
		}
	})
	for text, want := range map[string]string{"90m": "1h30m", "48h": "2d", "60m": "1h", "0": "0s", "1500us": "1.5ms"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.String() != want {
			t.Errorf("%s: %s, %v", text, d, err)
		}
	}
	for text, want := range map[string]string{"1024KiB": "1MiB", "1MB": "1000000B", "0": "0", "3 MiB": "3MiB"} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b.String() != want {
			t.Errorf("%s: %s, %v", text, b, err)
		}
	}
	for _, text := range []string{"-1B", "9999999999TiB", "1.5MiB", "MiB", ""} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken as %s", text, b)
		}
	}
	for _, text := range []string{"-1s", "5", "d", "99999999d", ""} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken as %s", text, d)
		}
	}
}

// FuzzLoad: no text makes the decoder panic, and whatever it accepts is shown in
// a form that it accepts again.
func FuzzLoad(f *testing.F) {
	f.Add(minimal)
	f.Add(Example())
	f.Add("a: &x [*x]\n")
	f.Add(minimal + clusterText)
	f.Add("log: {policy: {rule: {cities: {a: 1, b: {c: d}}}}}\n")
	f.Add("? {a: b}\n: c\n")
	f.Add("producer: !!binary aGk=\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := Default()
		d := &decoder{file: "f", origins: map[string]string{}}
		d.document([]byte(text), c)
		c.complete()
		v := validator{c: c, origins: d.origins}
		v.run()
		if len(d.problems)+len(v.problems) > 0 {
			for _, p := range append(d.problems, v.problems...) {
				if strings.Contains(p.String(), "\n") {
					t.Fatalf("more than one line: %q", p.String())
				}
			}
			return
		}
		l := &Loaded{Config: c, Origins: d.origins}
		shown, err := l.YAML(false)
		if err != nil {
			t.Fatal(err)
		}
		d2 := &decoder{file: "f", origins: map[string]string{}}
		d2.document([]byte(shown), Default())
		if len(d2.problems) > 0 {
			t.Fatalf("%v\n%s", d2.problems, shown)
		}
	})
}
