package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, o Options) string {
	t.Helper()
	o.Listen, o.Log = "127.0.0.1:0", zerolog.Nop()
	if o.Metrics == nil {
		o.Metrics = prometheus.NewRegistry()
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + s.Address()
}

func fetch(t *testing.T, method, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestEndpoints(t *testing.T) {
	ready := errors.New("producer: halt GAP: transactions are missing")
	metrics := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "twinspan_test_total"})
	metrics.MustRegister(c)
	url := serve(t, Options{Metrics: metrics, Ready: func() error { return ready },
		Status: func(context.Context) *Document { return &Document{Stream: "s"} }})
	for _, c := range []struct {
		method, path string
		code         int
		holds        string
	}{
		{"GET", "/livez", 200, "ok"},
		{"GET", "/readyz", 503, "halt GAP"},
		{"GET", "/metrics", 200, "twinspan_test_total 0"},
		{"GET", "/status", 200, `"stream": "s"`},
		{"GET", "/", 200, "/status"},
		{"GET", "/debug/pprof/", 404, ""},
		{"GET", "/nothing", 404, ""},
		{"POST", "/status", 405, ""},
	} {
		code, body := fetch(t, c.method, url+c.path)
		if code != c.code || !strings.Contains(body, c.holds) {
			t.Errorf("%s %s: %d %s", c.method, c.path, code, body)
		}
	}
	ready = nil
	if code, _ := fetch(t, "GET", url+"/readyz"); code != 200 {
		t.Error(code)
	}
	_, body := fetch(t, "GET", url+"/status")
	var d Document
	if err := json.Unmarshal([]byte(body), &d); err != nil || d.Stream != "s" {
		t.Error(err, body)
	}
}

func TestProfilesOnlyWhenAskedFor(t *testing.T) {
	url := serve(t, Options{Pprof: true})
	if code, body := fetch(t, "GET", url+"/debug/pprof/goroutine?debug=1"); code != 200 || !strings.Contains(body, "goroutine profile") {
		t.Error(code, body)
	}
}

// Clients that connect and say nothing can't keep others out for good, and the
// server still ends.
func TestSilentConnections(t *testing.T) {
	url := serve(t, Options{})
	address := strings.TrimPrefix(url, "http://")
	for range connections + 5 {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	began := time.Now()
	if code, _ := fetch(t, "GET", url+"/livez"); code != 200 {
		t.Error(code)
	}
	if d := time.Since(began); d > 15*time.Second {
		t.Errorf("an answer took %s", d)
	}
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := New(Options{Listen: l.Addr().String(), Metrics: prometheus.NewRegistry()}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Error(err)
	}
}
