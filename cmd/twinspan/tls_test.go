package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/certs"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

const day = 24 * time.Hour

// issue makes a set for a node on this machine and the clients named.
func issue(t *testing.T, dir string, now time.Time, valid time.Duration, clients ...string) {
	t.Helper()
	o := certs.Order{Dir: dir, Now: now, Valid: valid, AuthorityOf: 3650 * day, Subjects: []certs.Subject{
		{Name: "node", Node: true, Hosts: []string{"127.0.0.1"}}, {Name: "elsewhere", Node: true, Hosts: []string{"192.0.2.1"}},
	}}
	for _, c := range clients {
		o.Subjects = append(o.Subjects, certs.Subject{Name: c})
	}
	if _, err := certs.Make(o, false); err != nil {
		t.Fatal(err)
	}
}

func TestLogOverTLS(t *testing.T) {
	dir := t.TempDir()
	issue(t, filepath.Join(dir, "good"), time.Now(), 5*day, "client")
	issue(t, filepath.Join(dir, "other"), time.Now(), 365*day, "stranger")
	// Of an authority that is old enough to have signed what has expired.
	issue(t, filepath.Join(dir, "old"), time.Now().Add(-30*day), 10*day, "late")
	file := func(name string) string { return filepath.Join(dir, name) }
	source, target := mysqltest.Start(t, mysqltest.MariaDB1011), mysqltest.Start(t, mysqltest.MariaDB1011)
	servers := fmt.Sprintf("source: {address: '%s', user: root}\ntarget: {address: '%s', user: root}\nproducer: {start: earliest}\n", source.Address, target.Address)
	all := split(t, map[string]string{
		"node": nodeRole[:len(nodeRole)-2] + fmt.Sprintf(", tls: {cert: %s, key: %s, ca: %s}}\n", file("good/node.crt"), file("good/node.key"), file("both.crt")),
		"work": "roles: [producer, consumer]\n" + servers,
	})
	// The node trusts two authorities, as it does while one replaces the other.
	var both []byte
	for _, f := range []string{"good/ca.crt", "old/ca.crt"} {
		b, err := os.ReadFile(file(f))
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, b...)
	}
	if err := os.WriteFile(file("both.crt"), both, 0o600); err != nil {
		t.Fatal(err)
	}
	// split has written a log section; TLS is set over it.
	tls := func(ca, name string) []string {
		return []string{"--set", "log.tls.ca=" + file(ca), "--set", "log.tls.cert=" + file(name+".crt"), "--set", "log.tls.key=" + file(name+".key")}
	}
	all["node"].start(t)
	all["work"].args = tls("good/ca.crt", "good/client")
	all["work"].start(t)
	all["work"].await(t, "the roles run", func(d *admin.Document) bool { return d.Ready })
	source.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)")
	all["work"].verify(t)

	for name, c := range map[string]struct {
		args   []string
		code   int
		says   string // this side
		onNode string // in the node's log
	}{
		"known":               {tls("good/ca.crt", "good/client"), 0, "", ""},
		"plain":               {nil, 5, "", "does not speak TLS"},
		"unknown client":      {tls("good/ca.crt", "other/stranger"), 5, "(stranger, issued by twinspan lab authority", "(stranger, issued by twinspan lab authority"},
		"expired client":      {tls("good/ca.crt", "old/late"), 5, "which has expired on", "certificate has expired or is not yet valid"},
		"unknown node":        {tls("other/ca.crt", "good/client"), 5, "certificate signed by unknown authority", "refuses this side's, (node, "},
		"without certificate": {[]string{"--set", "log.tls.ca=" + file("good/ca.crt")}, 5, "without a certificate", "shows none: set log.tls.cert"},
		"no such file":        {tls("none.crt", "good/client"), 2, "no such file", ""},
	} {
		code, out, errOut := twinspan(t, append([]string{"topic", "list", "-c", all["work"].file}, c.args...)...)
		if code != c.code || code == 0 && !strings.Contains(out, "payments") || !strings.Contains(errOut, c.says) {
			t.Errorf("%s: %d\n%s%s", name, code, out, errOut)
		}
		for until := time.Now().Add(5 * time.Second); !strings.Contains(all["node"].log.String(), c.onNode); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("%s: the node says nothing of %q\n%s", name, c.onNode, all["node"].log.String())
			}
		}
	}
	code, out, _ := twinspan(t, append([]string{"doctor", "process", "-c", all["work"].file}, tls("good/ca.crt", "good/client")...)...)
	if code != 0 || !strings.Contains(out, "(client) ends on") || !strings.Contains(out, "advice") {
		t.Errorf("doctor: %d\n%s", code, out)
	}
	if m := get(t, all["node"].admin, "/metrics", 200); !strings.Contains(m, `twinspan_certificate_left_seconds{file="`+file("good/node.crt")+`",subject="node"} 43`) {
		t.Error("the node's certificate is not in the metrics") // 432,000 seconds less some
	}

	// A new certificate and a new authority are put in place while all runs.
	renewed := filepath.Join(dir, "renewed")
	issue(t, renewed, time.Now(), 365*day, "client")
	for from, to := range map[string]string{"node.key": "good/node.key", "node.crt": "good/node.crt", "ca.crt": "both.crt"} {
		b, err := os.ReadFile(filepath.Join(renewed, from))
		if err == nil {
			err = os.WriteFile(file(to)+".new", b, 0o600)
		}
		if err == nil {
			err = os.Rename(file(to)+".new", file(to))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if code, out, errOut := twinspan(t, append([]string{"topic", "list", "-c", all["work"].file}, tls("renewed/ca.crt", "renewed/client")...)...); code != 0 {
		t.Errorf("after the change: %d\n%s%s", code, out, errOut)
	}
	if code, _, errOut := twinspan(t, append([]string{"topic", "list", "-c", all["work"].file}, tls("good/ca.crt", "good/client")...)...); code != 5 {
		t.Errorf("after the change the old authority still counts: %d %s", code, errOut)
	}
}

func TestCertsVerbs(t *testing.T) {
	t.Chdir(t.TempDir())
	config := "stream: s\ncity: a\nroles: [node]\nnode:\n  name: a1\n  listen: 127.0.0.1:7040\n  cluster:\n" +
		"    - {name: a1, city: a, address: 10.1.0.1:7040}\n    - {name: b1, city: b, address: b1.example:7040}\n    - {name: w1, city: c, address: 10.3.0.1:7040, witness: true}\n"
	if err := os.WriteFile("t.yaml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(code int, words string) string {
		t.Helper()
		got, out, errOut := twinspan(t, strings.Fields(words)...)
		if got != code {
			t.Errorf("%s: exit code %d, not %d\n%s%s", words, got, code, out, errOut)
		}
		return out + errOut
	}
	out := run(0, "certs make --out tls -c t.yaml --dry-run")
	if _, err := os.Stat("tls"); err == nil || !strings.Contains(out, "Nothing was written") {
		t.Error(err, out)
	}
	out = run(0, "certs make --out tls -c t.yaml --valid 30d")
	for _, want := range []string{"tls/a1.crt", "10.1.0.1,127.0.0.1", "b1.example", "tls/ops.key", "nowhere: keep it safe",
		"tls: {cert: /etc/twinspan/tls/a1.crt, key: /etc/twinspan/tls/a1.key, ca: /etc/twinspan/tls/ca.crt}"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if out = run(4, "certs make --out tls -c t.yaml"); !strings.Contains(out, "tls/a1.crt") || !strings.Contains(out, "--force") {
		t.Error(out)
	}
	run(0, "certs make --out tls --node b2@b=10.2.0.2 --client none")
	run(0, "certs make --out tls --client ops@b --force")
	run(2, "certs make --out tls --node b3")
	run(2, "certs make --out tls --client ops --valid never")
	var shown []shownCertificate
	if err := json.Unmarshal([]byte(run(0, "certs show tls/ca.crt tls/b2.crt tls/ops.crt -o json")), &shown); err != nil || len(shown) != 3 {
		t.Fatal(shown, err)
	}
	if !shown[0].Authority || !shown[1].Node || shown[1].Hosts[0] != "10.2.0.2" || shown[2].Node || shown[2].City != "b" || shown[2].Issuer != shown[0].Subject || !shown[2].Valid {
		t.Errorf("%+v", shown)
	}
	issue(t, "old", time.Now().Add(-30*day), 10*day)
	if out = run(3, "certs show old/node.crt"); !strings.Contains(out, "expired") {
		t.Error(out)
	}
	run(2, "certs show t.yaml")
}
