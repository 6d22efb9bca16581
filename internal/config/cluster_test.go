package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// clusterText goes behind minimal, which is in city b.
const clusterText = `node:
  name: b1
  cluster:
    - {name: a1, city: a, address: "10.1.0.1:7040"}
    - {name: a2, city: a, address: 10.1.0.2:7040}
    - name: b1
      city: b
      address: 10.2.0.1:7040
    - {name: b2, city: b, address: 10.2.0.2:7040}
    - {name: w1, city: c, address: 10.3.0.1:7040, witness: true}
log:
  bind: 10.2.0.1
  policy:
    rule: {total: 3, cities: {a: 1, b: 2}}
    loss: degrade-after
    after: 1m
    age_max: 7d
    bytes_cap: 1TiB
`

func TestCluster(t *testing.T) {
	want := []ClusterNode{
		{"a1", "a", "10.1.0.1:7040", false}, {"a2", "a", "10.1.0.2:7040", false}, {"b1", "b", "10.2.0.1:7040", false},
		{"b2", "b", "10.2.0.2:7040", false}, {"w1", "c", "10.3.0.1:7040", true},
	}
	l, problems := load(t, minimal+clusterText, nil, nil)
	if problems != nil || len(l.Warnings) > 0 {
		t.Fatal(problems, l.Warnings)
	}
	p := l.Log.Policy
	if d := cmp.Diff(want, l.Node.Cluster); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(Policy{Rule: Rule{3, Shares{"a": 1, "b": 2}}, Loss: "degrade-after", After: Duration(time.Minute), BytesMax: 10 << 30,
		AgeMax: Duration(168 * time.Hour), BytesCap: 1 << 40}, p); d != "" {
		t.Error(d)
	}
	// As text, in variables and flags.
	var lines []string
	for _, n := range want {
		lines = append(lines, n.String())
	}
	l2, problems := load(t, minimal, []string{"TWINSPAN_NODE_CLUSTER=" + strings.Join(lines, ", ")},
		[]string{"log.policy.rule.cities=a=1, b=2", "node.name=b1"})
	if problems != nil {
		t.Fatal(problems)
	}
	if d := cmp.Diff(want, l2.Node.Cluster); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(Shares{"a": 1, "b": 2}, l2.Log.Policy.Rule.Cities); d != "" {
		t.Error(d)
	}
	// What is shown reads back.
	shown, err := l.YAML(true)
	if err != nil {
		t.Fatal(err)
	}
	back, problems := load(t, shown, nil, nil)
	if problems != nil {
		t.Fatalf("%v\n%s", problems, shown)
	}
	if d := cmp.Diff(l.Config, back.Config); d != "" {
		t.Error(d)
	}
}

func TestClusterProblems(t *testing.T) {
	for name, c := range map[string]struct {
		replace, with string
		want          []string // with line and column of the file
		warning       string
	}{
		"two of one name": {"{name: a2, ", "{name: a1, ", []string{
			`t.yaml:10:14: node.cluster[1].name: "a1" is node 1 of the list already: every node has a name of its own`}, ""},
		"two of one address": {"address: 10.2.0.2:7040", "address: 10.1.0.1:7040", []string{
			`t.yaml:14:36: node.cluster[3].address: 10.1.0.1:7040 is the address of node 1 of the list already`}, ""},
		"unknown key": {"witness: true", "whitness: true", []string{
			"t.yaml:15:51: node.cluster[4].whitness: unknown key; did you mean witness?"}, ""},
		"no address": {", address: 10.2.0.2:7040}", "}", []string{
			`t.yaml:14:7: node.cluster[3].address: "" is not an address: write host:port`}, ""},
		"a word": {"- {name: b2, city: b, address: 10.2.0.2:7040}", "- b2", []string{
			`t.yaml:14:7: node.cluster[3]: "b2" is not a node: write it as name@city=host:port, with +witness behind it for a witness`}, ""},
		"not in its list": {"name: b1\n  cluster", "name: b7\n  cluster", []string{
			`t.yaml:7:9: node.name: "b7" is not in node.cluster: it lists a1, a2, b1, b2, w1`}, ""},
		"another city": {"name: b1\n  cluster", "name: a1\n  cluster", []string{
			`t.yaml:2:7: city: "b", but node.cluster has a1 in city "a"`}, ""},
		"rule that the cluster can't meet": {"b: 2}", "b: 3}", []string{
			"t.yaml:19:37: log.policy.rule.cities.b: 3 nodes of city b are wanted, node.cluster has 2 there that store entries",
			"t.yaml:19:19: log.policy.rule.total: 3 is less than the 4 that the cities ask for together: leave it out, or raise it"}, ""},
		"entries on a witness": {"b: 2}", "c: 2}", []string{
			"t.yaml:19:37: log.policy.rule.cities.c: city c has only a witness, which stores no entries"}, ""},
		"no such city": {"b: 2}", "x: 2}", []string{
			`t.yaml:19:37: log.policy.rule.cities.x: node.cluster has no node in city "x"`}, ""},
		"total": {"total: 3", "total: 5", []string{
			"t.yaml:19:19: log.policy.rule.total: 5 nodes are wanted, node.cluster has 4 that store entries"}, ""},
		"share": {"b: 2}", "b: two}", []string{
			"t.yaml:19:37: log.policy.rule.cities.b: the number of nodes is missing: write it as city: number"}, ""},
		"loss": {"degrade-after\n", "degrade-afer\n", []string{
			`t.yaml:20:11: log.policy.loss: unknown policy "degrade-afer"; did you mean degrade-after?`}, ""},
		"after": {"after: 1m", "after: 0s", []string{
			"t.yaml:21:12: log.policy.after: 0s is less than 1s: a node that restarts would take the protection away"}, ""},
		"bind":   {"bind: 10.2.0.1", "bind: eth0", []string{`t.yaml:17:9: log.bind: "eth0" is not an IP address`}, ""},
		"window": {"bind: 10.2.0.1", "bind: 10.2.0.1\n  window_bytes: 1GiB", []string{"t.yaml:18:17: log.window_bytes: 1GiB is out of range: 1MiB to 256MiB"}, ""},
		"cap": {"1TiB", "1GiB", []string{
			"t.yaml:23:16: log.policy.bytes_cap: 1GiB is less than bytes_max or 2MiB: it would take entries before retention does"}, ""},
		"no witness": {"    - {name: w1, city: c, address: 10.3.0.1:7040, witness: true}\n", "", nil,
			"t.yaml:9:5: node.cluster: without city a only 2 of 4 nodes are left, no majority: the log then waits for a forced takeover; a witness in a third place prevents that"},
		"tls without an authority": {"  cluster:\n", "  tls: {cert: /c, key: /k}\n  cluster:\n", []string{
			"node.tls.ca: missing: the nodes of a cluster check each other's certificates with it"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(clusterText, c.replace) {
				t.Fatalf("%q is not there", c.replace)
			}
			l, got := load(t, minimal+strings.Replace(clusterText, c.replace, c.with, 1), nil, nil)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if c.warning != "" {
				var all []string
				for _, w := range l.Warnings {
					s := w.String()
					all = append(all, "t.yaml"+s[strings.Index(s, ".yaml")+5:])
				}
				if len(all) == 0 || all[0] != c.warning {
					t.Errorf("warnings %q", all)
				}
			}
		})
	}
}
