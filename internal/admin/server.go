// Package admin is the HTTP side of a running process: health, status, metrics
// and profiles. It is for operators on a private network; what changes something
// is taken from the machine itself alone.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
)

// Options of a Server.
type Options struct {
	Listen string
	Pprof  bool
	// Metrics are served on /metrics.
	Metrics prometheus.Gatherer
	// Status is the document served on /status.
	Status func(context.Context) *Document
	// Views are further documents, served as JSON by path; nil values are 404.
	Views map[string]func(context.Context) (any, error)
	// Control changes the process; nil: nothing can be changed.
	Control Control
	// Ready is nil when every role works.
	Ready func() error
	Log   zerolog.Logger
}

// Bounds of one request.
const (
	requestTimeout = 20 * time.Second
	headerBytes    = 16 << 10
	bodyBytes      = 4 << 10
	connections    = 64
)

// Server answers HTTP. Create it with New.
type Server struct {
	opts     Options
	listener net.Listener
	http     *http.Server
}

// New takes the address; an address that is in use fails here.
func New(o Options) (*Server, error) {
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin listener: %w", err)
	}
	s := &Server{opts: o, listener: newLimited(l, connections)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /status", s.status)
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: requestTimeout, EnableOpenMetrics: true,
	}))
	for path, view := range o.Views {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { s.view(w, r, view) })
	}
	if o.Control != nil {
		mux.HandleFunc("GET /lanes", s.lanes)
		mux.HandleFunc("POST /control/lanes", s.setLanes)
		mux.HandleFunc("POST /control/throttle", s.setThrottle)
	}
	mux.HandleFunc("GET /{$}", s.index)
	if o.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	s.http = &http.Server{
		Handler:           bounded(mux),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      2 * time.Minute, // a CPU profile runs for 30 s
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          nil,
	}
	return s, nil
}

// bounded limits what a request may send.
func bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, bodyBytes)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}

// Address is what the listener got, of use when the port was 0.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1) // owner: the goroutine below; bound 1; never closed
	go func() { served <- s.http.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("admin listener %s: %w", s.Address(), err)
	case <-ctx.Done():
	}
	// What is being answered may take a moment; a profile is not waited for.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	err := s.http.Shutdown(grace)
	if err != nil {
		err = s.http.Close()
	}
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// livez: the process answers. Nothing else: a lag, a halt or a server that is
// away is no reason to kill it.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") }

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := s.opts.Ready(); err != nil {
		text(w, http.StatusServiceUnavailable, err.Error()+"\n")
		return
	}
	text(w, http.StatusOK, "ok\n")
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout/2)
	defer cancel()
	b, err := json.MarshalIndent(s.opts.Status(ctx), "", "  ")
	if err != nil {
		s.opts.Log.Error().Err(err).Msg("status document")
		text(w, http.StatusInternalServerError, "status can't be written\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(append(b, '\n')); err != nil {
		s.opts.Log.Debug().Err(err).Msg("status was not taken")
	}
}

func (s *Server) view(w http.ResponseWriter, r *http.Request, view func(context.Context) (any, error)) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout/2)
	defer cancel()
	v, err := view(ctx)
	if err != nil {
		text(w, http.StatusServiceUnavailable, err.Error()+"\n")
		return
	}
	if v == nil {
		text(w, http.StatusNotFound, "this process has none\n")
		return
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.opts.Log.Error().Err(err).Str("path", r.URL.Path).Msg("document can't be written")
		text(w, http.StatusInternalServerError, "the document can't be written\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(append(b, '\n')); err != nil {
		s.opts.Log.Debug().Err(err).Msg("document was not taken")
	}
}

func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	text(w, http.StatusOK, "twinspan: /status /lanes /conflicts /exceptions /livez /readyz /metrics\n")
}

func text(w http.ResponseWriter, code int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(s)) // a client that went away is not our concern
}
