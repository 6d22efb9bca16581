package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// TestLanes: an operator looks at the lanes of a running process, changes their
// number, and slows them down; everything arrives.
func TestLanes(t *testing.T) {
	source, target := mysqltest.Start(t, mysqltest.MySQL97), mysqltest.Start(t, mysqltest.MySQL97)
	in := install(t, source, target, "apply: {atomicity: transaction, lanes: 4}\n")
	if code, _, errOut := twinspan(t, "lanes", "-c", in.file); code != 5 || !strings.Contains(errOut, "is the process running") {
		t.Errorf("nobody answers: %d %s", code, errOut)
	}
	in.start(t)
	lanes := func() (d admin.Lanes) {
		t.Helper()
		for until := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			code, out, errOut := twinspan(t, "lanes", "list", "-c", in.file, "-o", "json")
			if code == 0 && json.Unmarshal([]byte(out), &d) == nil && len(d.Lanes) > 0 {
				return d
			}
			if time.Now().After(until) {
				t.Fatalf("no lanes: %d %s %s\n%s", code, out, errOut, in.log)
			}
		}
	}
	if d := lanes(); len(d.Lanes) != 4 || d.Atomicity != "transaction" || d.Wanted != 4 {
		t.Errorf("%+v", d)
	}
	source.Exec(t, "CREATE DATABASE shop", "CREATE TABLE shop.item (id INT PRIMARY KEY, n INT NOT NULL)")
	for i := range 50 {
		source.Exec(t, fmt.Sprintf("INSERT INTO shop.item VALUES (%d, 0), (%d, 1)", 2*i, 2*i+1))
	}
	there := "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'shop' AND table_name = 'item'"
	rows := source.Value(t, "SELECT COUNT(*) FROM shop.item")
	for until := time.Now().Add(30 * time.Second); target.Value(t, there) != "1" || target.Value(t, "SELECT COUNT(*) FROM shop.item") != rows; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not there\n%s", in.log)
		}
	}
	// A change of lanes needs no traffic to come to pass.
	code, out, errOut := twinspan(t, "lanes", "set", "7", "-c", in.file, "--wait", "30s")
	if code != 0 || out != "7 lanes\n" {
		t.Errorf("%d %q %s", code, out, errOut)
	}
	if d := lanes(); len(d.Lanes) != 7 {
		t.Errorf("%d lanes", len(d.Lanes))
	}
	if got := target.Value(t, "SELECT lanes FROM twinspan.stream"); got != "7" {
		t.Errorf("%s lanes are stored", got)
	}
	if code, out, errOut = twinspan(t, "lanes", "throttle", "--rows-per-second", "40", "--threads-running", "1000", "-c", in.file); code != 0 || !strings.Contains(out, "40 rows/s, at most 1000 threads running") {
		t.Errorf("%d %q %s", code, out, errOut)
	}
	began := time.Now()
	source.Exec(t, "UPDATE shop.item SET n = n + 1")
	source.Exec(t, "UPDATE shop.item SET n = n + 1")
	want := source.Value(t, "SELECT SUM(n) FROM shop.item")
	for until := time.Now().Add(30 * time.Second); target.Value(t, "SELECT SUM(n) FROM shop.item") != want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not there\n%s", in.log)
		}
	}
	// The second of the transactions, of 100 rows each, waits for the first one's 2.5 s.
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("200 rows at 40 a second took %s", took)
	}
	if code, out, errOut = twinspan(t, "lanes", "throttle", "--off", "-c", in.file); code != 0 || !strings.Contains(out, "throttle: none") {
		t.Errorf("%d %q %s", code, out, errOut)
	}
	if code, out, _ = twinspan(t, "lanes", "-c", in.file); code != 0 || !strings.Contains(out, "atomicity transaction") || !strings.Contains(out, "WAITS FOR") {
		t.Errorf("%d %q", code, out)
	}
	if code, _, errOut = twinspan(t, "lanes", "set", "0", "-c", in.file); code != 2 {
		t.Errorf("%d %s", code, errOut)
	}
	if code, out, _ = twinspan(t, "status", "-c", in.file); code != 0 || !strings.Contains(out, "7 lanes") {
		t.Errorf("%d %q", code, out)
	}
}
