package wan

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Handler is the network's control over HTTP: GET /gates, /ways and /flows, and
// POST /way with one Between, all JSON. It asks nobody who he is: loopback only.
func (n *Network) Handler() http.Handler {
	mux := http.NewServeMux()
	show := func(f func() any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(f()) // the peer is gone: its matter
		}
	}
	mux.Handle("GET /gates", show(func() any { return n.Gates() }))
	mux.Handle("GET /ways", show(func() any { return n.Ways() }))
	mux.Handle("GET /flows", show(func() any { return n.Flows() }))
	mux.HandleFunc("POST /way", func(w http.ResponseWriter, r *http.Request) {
		var b Between
		d := json.NewDecoder(io.LimitReader(r.Body, 1<<16))
		d.DisallowUnknownFields()
		err := d.Decode(&b)
		if err == nil {
			err = n.Set(b.From, b.To, b.Way)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// Remote controls a Network in another process.
type Remote struct{ URL string }

// Set is Network.Set.
func (r Remote) Set(ctx context.Context, from, to string, w Way) error {
	b, err := json.Marshal(Between{From: from, To: to, Way: w})
	if err != nil {
		return err
	}
	return r.do(ctx, http.MethodPost, "/way", bytes.NewReader(b), nil)
}

// Flows is Network.Flows.
func (r Remote) Flows(ctx context.Context) (out []Flow, err error) {
	err = r.do(ctx, http.MethodGet, "/flows", nil, &out)
	return out, err
}

// Gates is Network.Gates.
func (r Remote) Gates(ctx context.Context) (out []Gate, err error) {
	err = r.do(ctx, http.MethodGet, "/gates", nil, &out)
	return out, err
}

func (r Remote) do(ctx context.Context, method, path string, body io.Reader, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, r.URL+path, body)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, strings.TrimSpace(string(b)))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}
