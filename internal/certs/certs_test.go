package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lab makes a set as of now in a folder of its own.
func lab(t *testing.T, now time.Time, valid time.Duration, subjects ...Subject) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tls")
	if len(subjects) == 0 {
		subjects = []Subject{{Name: "node-a", City: "a", Node: true, Hosts: []string{"127.0.0.1", "localhost"}}, {Name: "consumer-b", City: "b"}}
	}
	if _, err := Make(Order{Dir: dir, Subjects: subjects, Valid: valid, AuthorityOf: 3650 * day, Now: now}, false); err != nil {
		t.Fatal(err)
	}
	return dir
}

const day = 24 * time.Hour

func source(t *testing.T, dir, name, caDir string) *Source {
	t.Helper()
	f := Files{}
	if name != "" {
		f.Cert, f.Key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	}
	if caDir != "" {
		f.CA = filepath.Join(caDir, "ca.crt")
	}
	s, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const word = "a word that is no TLS record"

// talk connects to a server and sends a word each way; the errors of both sides.
func talk(t *testing.T, node, client *Source) (onNode, onClient error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1) // owner: the goroutine below; bound 1; never closed
	go func() {
		raw, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		_ = raw.SetDeadline(time.Now().Add(5 * time.Second))
		c := node.Accepted(raw)
		defer raw.Close()
		b := make([]byte, len(word))
		if _, err = io.ReadFull(c, b); err == nil {
			_, err = c.Write(b)
		}
		done <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	dial := client.Over(func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	})
	c, err := dial(ctx, l.Addr().String())
	if err != nil {
		return <-done, err
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	defer c.Close()
	_, onClient = c.Write([]byte(word))
	if onClient == nil {
		_, onClient = io.ReadFull(c, make([]byte, len(word)))
	}
	if onClient == nil {
		// A second reading, so that the first one's error is not taken for the end.
		return <-done, nil
	}
	_ = c.Close()
	return <-done, onClient
}

func TestWhoIsRefusedAndWhatBothSidesSay(t *testing.T) {
	now := time.Now()
	good := lab(t, now, 365*day)
	foreign := lab(t, now, 365*day)
	expired := addTo(t, good, now.Add(-10*day), day)
	future := addTo(t, good, now.Add(5*day), 365*day)
	elsewhere := lab2(t, good, Subject{Name: "node-x", Node: true, Hosts: []string{"node-x.example", "192.0.2.7"}})
	node, client := source(t, good, "node-a", good), source(t, good, "consumer-b", good)
	for _, c := range []struct {
		name             string
		node, client     *Source
		onNode, onClient []string // in the error of that side; none: no error
	}{
		{"both good", node, client, nil, nil},
		{"a node as a client", node, source(t, good, "node-a", good), nil, nil},
		{"expired client", node, source(t, expired, "consumer-b", good),
			[]string{"certificate refused: the one of client 127.0.0.1:", "(consumer-b, issued by twinspan lab authority", "certificate has expired or is not yet valid", "is after"},
			[]string{"certificate refused: node 127.0.0.1:", "refuses this side's, (consumer-b, issued by", "which has expired on "}},
		{"client from the future", node, source(t, future, "consumer-b", good),
			[]string{"certificate refused: the one of client", "not yet valid", "is before"},
			[]string{"refuses this side's, (consumer-b, ", "which is not valid before "}},
		{"foreign client", node, source(t, foreign, "consumer-b", good),
			[]string{"certificate refused: the one of client", "(consumer-b, ", "signed by unknown authority"},
			[]string{"refuses this side's, (consumer-b, ", "whose authority it does not know"}},
		{"client without one", node, source(t, "", "", good),
			[]string{"certificate refused: client 127.0.0.1:", "shows none: set log.tls.cert and log.tls.key there"},
			[]string{"refuses a connection without a certificate; set log.tls.cert and log.tls.key"}},
		{"plain client", node, nil,
			[]string{"client 127.0.0.1:", "does not speak TLS"},
			[]string{}},
		{"expired node", source(t, expired, "node-a", good), client,
			[]string{"certificate refused: client", "refuses this side's, (node-a, ", "which has expired on "},
			[]string{"certificate refused: the one of node 127.0.0.1:", "(node-a, issued by", "has expired or is not yet valid"}},
		{"node from the future", source(t, future, "node-a", good), client,
			[]string{"refuses this side's, (node-a, ", "which is not valid before "},
			[]string{"certificate refused: the one of node", "is before"}},
		{"foreign node", source(t, foreign, "node-a", good), client,
			[]string{"refuses this side's, (node-a, ", "it may not know its authority"},
			[]string{"certificate refused: the one of node", "(node-a, ", "signed by unknown authority"}},
		{"node of another name", source(t, elsewhere, "node-x", good), client,
			[]string{"refuses this side's, (node-x, ", "it may not know its authority, expect another name, or it is not meant for this"},
			[]string{"certificate refused: the one of node", "(node-x, ", "certificate is valid for 192.0.2.7, not 127.0.0.1"}},
		{"a client's certificate on a node", source(t, good, "consumer-b", good), client,
			[]string{"refuses this side's, (consumer-b, ", "it is not meant for this"},
			[]string{"certificate refused: the one of node", "(consumer-b, ", "doesn't contain any IP SANs"}},
		{"plain node", nil, client,
			[]string{},
			[]string{"ends the connection in the handshake: does it speak TLS?"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onNode, onClient := talk(t, c.node, c.client)
			for side, x := range map[string]struct {
				err  error
				want []string
			}{"node": {onNode, c.onNode}, "client": {onClient, c.onClient}} {
				if (x.err == nil) != (x.want == nil) && x.want == nil {
					t.Errorf("%s: %v", side, x.err)
				}
				for _, w := range x.want {
					if x.err == nil || !strings.Contains(x.err.Error(), w) {
						t.Errorf("%s: %q lacks %q", side, x.err, w)
					}
				}
				if x.err != nil {
					t.Logf("%s: %v", side, x.err)
				}
			}
		})
	}
}

// addTo makes another pair of certificates of good's authority, valid from now on.
func addTo(t *testing.T, good string, now time.Time, valid time.Duration) string {
	t.Helper()
	return order(t, good, now, valid, Subject{Name: "node-a", Node: true, Hosts: []string{"127.0.0.1"}}, Subject{Name: "consumer-b"})
}

func lab2(t *testing.T, good string, s Subject) string {
	t.Helper()
	return order(t, good, time.Now(), day, s)
}

func order(t *testing.T, good string, now time.Time, valid time.Duration, subjects ...Subject) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range []string{"ca.crt", "ca.key"} {
		copyFile(t, filepath.Join(good, f), filepath.Join(dir, f))
	}
	o := Order{Dir: dir, Subjects: subjects, Valid: valid, AuthorityOf: day, Now: now}
	ca, known, err := o.authority()
	if err != nil || !known {
		t.Fatal(known, err)
	}
	// The authority began later than some of these: that is what is wanted here.
	ca.cert.NotBefore = now.Add(-day)
	for _, s := range subjects {
		crt, key, err := ca.issue(s, now, now.Add(valid))
		if err != nil {
			t.Fatal(err)
		}
		for file, b := range map[string][]byte{s.Name + ".crt": crt, s.Name + ".key": key} {
			if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Certificates and authorities that are put in place are used for the next
// connection; half a pair is not, and is told.
func TestNewOnesNeedNoRestart(t *testing.T) {
	old, renewed := lab(t, time.Now(), 365*day), lab(t, time.Now(), 365*day)
	dir := t.TempDir()
	put := func(from string, files ...string) {
		for _, f := range files {
			copyFile(t, filepath.Join(from, f), filepath.Join(dir, f))
			// A coarse clock of the file system must not hide the change here.
			at := time.Now().Add(time.Duration(len(from)+int(time.Now().UnixNano()%1e6)) * time.Millisecond)
			if err := os.Chtimes(filepath.Join(dir, f), at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := []string{"ca.crt", "node-a.crt", "node-a.key", "consumer-b.crt", "consumer-b.key"}
	put(old, all...)
	node, client := source(t, dir, "node-a", dir), source(t, dir, "consumer-b", dir)
	stranger := source(t, renewed, "consumer-b", renewed)
	if n, c := talk(t, node, client); n != nil || c != nil {
		t.Fatal(n, c)
	}
	if n, c := talk(t, node, stranger); !errors.Is(n, ErrRefused) || !errors.Is(c, ErrRefused) {
		t.Fatal(n, c)
	}
	put(renewed, "node-a.crt") // and not yet its key
	if n, c := talk(t, node, client); n != nil || c != nil {
		t.Fatalf("half a new pair is in use: %v, %v", n, c)
	}
	if err := node.Refresh(); err == nil || !strings.Contains(err.Error(), "node-a.crt with key") {
		t.Errorf("the half pair is told as %v", err)
	}
	put(renewed, all...)
	for name, c := range map[string]*Source{"client": client, "stranger": stranger} {
		if n, e := talk(t, node, c); n != nil || e != nil {
			t.Errorf("%s: %v, %v", name, n, e)
		}
	}
	if n, c := talk(t, node, source(t, old, "consumer-b", old)); n == nil || c == nil {
		t.Error("the old authority is still trusted")
	}
	if err := node.Refresh(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	if n, c := talk(t, node, client); n != nil || c != nil {
		t.Errorf("a file that is away for a moment: %v, %v", n, c)
	}
	if err := node.Refresh(); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestMake(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	dir := filepath.Join(t.TempDir(), "tls")
	o := Order{Dir: dir, Valid: 30 * day, AuthorityOf: 90 * day, Now: now, Subjects: []Subject{
		{Name: "a1", City: "a", Node: true, Hosts: []string{"10.1.0.1", "a1.example", "::1"}}, {Name: "ops"},
	}}
	made, err := Make(o, true)
	if err != nil || len(made) != 6 {
		t.Fatal(made, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a dry run wrote something: %v", err)
	}
	if made, err = Make(o, false); err != nil {
		t.Fatal(err)
	}
	for _, m := range made {
		info, err := os.Stat(m.Path)
		if err != nil {
			t.Fatal(err)
		}
		want := os.FileMode(0o644)
		if m.Private {
			want = 0o600
		}
		if info.Mode().Perm() != want || m.Replaced || m.Kept {
			t.Errorf("%s has mode %v: %+v", m.Path, info.Mode(), m)
		}
	}
	read := func(name string) *x509.Certificate {
		all, err := ReadPEM(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	a1, ops, ca := read("a1.crt"), read("ops.crt"), read("ca.crt")
	if len(a1.IPAddresses) != 2 || len(a1.DNSNames) != 1 || a1.Subject.Locality[0] != "a" || a1.Subject.OrganizationalUnit[0] != "node" || !a1.NotAfter.Equal(now.Add(30*day)) {
		t.Errorf("a1: %v %v %v %v", a1.IPAddresses, a1.DNSNames, a1.Subject, a1.NotAfter)
	}
	if len(ops.ExtKeyUsage) != 1 || ops.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("ops may be a server: %v", ops.ExtKeyUsage)
	}
	before := ca.SerialNumber

	if _, err := Make(o, false); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "a1.crt") {
		t.Errorf("a set is made over another: %v", err)
	}
	// One more node; valid no longer than the authority.
	o.Subjects, o.Valid = []Subject{{Name: "a2", Node: true, Hosts: []string{"a2"}}}, 365*day
	if made, err = Make(o, false); err != nil || !made[0].Kept || !read("a2.crt").NotAfter.Equal(ca.NotAfter) {
		t.Errorf("%v %+v", err, made)
	}
	o.Force = true
	serial := read("a2.crt").SerialNumber
	if made, err = Make(o, false); err != nil || !made[2].Replaced || read("a2.crt").SerialNumber.Cmp(serial) == 0 {
		t.Errorf("%v %+v", err, made)
	}
	if read("ca.crt").SerialNumber.Cmp(before) != 0 {
		t.Error("the authority was replaced")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}

	for name, c := range map[string]Order{
		"twice":            {Subjects: []Subject{{Name: "x"}, {Name: "x"}}},
		"the authority's":  {Subjects: []Subject{{Name: "ca"}}},
		"a path":           {Subjects: []Subject{{Name: "../x"}}},
		"node, no host":    {Subjects: []Subject{{Name: "x", Node: true}}},
		"client with host": {Subjects: []Subject{{Name: "x", Hosts: []string{"h"}}}},
	} {
		c.Dir, c.Valid, c.AuthorityOf, c.Now = t.TempDir(), day, day, now
		if _, err := Make(c, false); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := Make(o, false); err == nil || !strings.Contains(err.Error(), "not its key") {
		t.Errorf("an authority without its key: %v", err)
	}
}

func TestMetricSaysWhatIsLeft(t *testing.T) {
	dir := lab(t, time.Now(), 10*day)
	s := source(t, dir, "node-a", dir)
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(Collector(s, nil, s)) // one twice: once
	families, err := r.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "twinspan_certificate_left_seconds" || len(families[0].GetMetric()) != 2 {
		t.Fatalf("%v %v", families, err)
	}
	ends := s.Certificates()
	if len(ends) != 2 || ends[0].Subject != "node-a" || time.Until(ends[0].NotAfter) > 10*day || time.Until(ends[0].NotAfter) < 9*day {
		t.Errorf("%+v", ends)
	}
}
