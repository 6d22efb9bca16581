package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"time"

	"github.com/twinspan/twinspan/log"
)

// Lanes is how the target is written just now.
type Lanes struct {
	Stream    string `json:"stream"`
	Target    string `json:"target"`
	Atomicity string `json:"atomicity"`
	// Wanted differs from the number of lanes while they are being changed.
	Wanted   int      `json:"lanes_wanted"`
	Lanes    []Lane   `json:"lanes"`
	Throttle Throttle `json:"throttle"`
}

// Lane is one connection that writes.
type Lane struct {
	Lane      int        `json:"lane"`
	Offset    log.Offset `json:"offset"` // its position: the last entry, and change in it, that it made durable
	Index     int32      `json:"index"`
	Pending   int        `json:"pending"`             // changes, or transactions, that it has taken or must take
	WaitsFor  *int       `json:"waits_for,omitempty"` // a lane
	Lag       float64    `json:"lag_seconds"`         // of the oldest transaction it has something of
	Rows      int64      `json:"rows"`
	Rate      float64    `json:"rows_per_second"`
	Batches   int64      `json:"batches"`
	BatchRows int        `json:"batch_rows"`    // how many it takes at a time at most, just now
	BatchTime float64    `json:"batch_seconds"` // what its last batch took
	Condition string     `json:"condition,omitempty"`
}

// Throttle is when the target is spared; 0 sets no limit.
type Throttle struct {
	RowsPerSecond  int      `json:"rows_per_second"`
	ReplicaLag     float64  `json:"replica_lag_seconds"`
	Replicas       []string `json:"replicas,omitempty"`
	ThreadsRunning int      `json:"threads_running"`

	// What is seen, in answers only.
	Paused        string  `json:"paused,omitempty"` // why nothing is written just now
	PausedSeconds float64 `json:"paused_seconds"`   // in all
	LagNow        float64 `json:"replica_lag_now_seconds"`
	ThreadsNow    int     `json:"threads_running_now"`
	Trouble       string  `json:"trouble,omitempty"`
}

// Control changes a running process. What a method refuses is the caller's fault;
// ErrNoApplier says that there is nothing to change.
type Control interface {
	Lanes() (*Lanes, error)
	SetLanes(n int) error
	SetThrottle(Throttle) error
}

// ErrNoApplier: the process has no consumer at work.
var ErrNoApplier = errors.New("no consumer is at work in this process")

// SetLanes is the body of POST /control/lanes.
type SetLanes struct {
	Lanes int `json:"lanes"`
}

func (s *Server) lanes(w http.ResponseWriter, _ *http.Request) {
	l, err := s.opts.Control.Lanes()
	s.reply(w, l, err)
}

func (s *Server) setLanes(w http.ResponseWriter, r *http.Request) {
	var body SetLanes
	if !s.body(w, r, &body) {
		return
	}
	err := s.opts.Control.SetLanes(body.Lanes)
	s.reply(w, body, err)
}

func (s *Server) setThrottle(w http.ResponseWriter, r *http.Request) {
	var body Throttle
	if !s.body(w, r, &body) {
		return
	}
	err := s.opts.Control.SetThrottle(body)
	s.reply(w, body, err)
}

func (s *Server) reply(w http.ResponseWriter, v any, err error) {
	switch {
	case errors.Is(err, ErrNoApplier):
		text(w, http.StatusServiceUnavailable, err.Error()+"\n")
		return
	case err != nil:
		text(w, http.StatusBadRequest, err.Error()+"\n")
		return
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.opts.Log.Error().Err(err).Msg("answer can't be written")
		text(w, http.StatusInternalServerError, "the answer can't be written\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(append(b, '\n')); err != nil {
		s.opts.Log.Debug().Err(err).Msg("answer was not taken")
	}
}

// body reads what a change asks for. Nobody shows a password here, so changes are
// taken from this machine alone, and from no web page: a page of another site
// can't send this content type, and one that made its name ours asks for a name.
func (s *Server) body(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := local(r); err != nil {
		text(w, http.StatusForbidden, err.Error()+"\n")
		return false
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		text(w, http.StatusUnsupportedMediaType, "send application/json\n")
		return false
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		text(w, http.StatusBadRequest, fmt.Sprintf("the request can't be read: %v\n", err))
		return false
	}
	return true
}

var errRemote = errors.New("changes are taken from this machine only: use the command there")

func local(r *http.Request) error {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return errRemote
	}
	asked := r.Host
	if h, _, err := net.SplitHostPort(asked); err == nil {
		asked = h
	}
	if asked != "localhost" && net.ParseIP(asked) == nil {
		return errRemote
	}
	return nil
}

// controlTimeout bounds a change; it is a matter of memory alone.
const controlTimeout = 20 * time.Second

// Ask sends a request to a process's admin listener, body as JSON unless it is
// nil, and reads the answer into reply. Errors: *Refused, and those of the way.
func Ask(ctx context.Context, method, url string, body io.Reader, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, answerBytesMax))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return &Refused{Status: res.StatusCode, Text: string(b)}
	}
	return json.Unmarshal(b, reply)
}

const answerBytesMax = 16 << 20

// Refused is an answer other than 200.
type Refused struct {
	Status int
	Text   string
}

func (e *Refused) Error() string { return fmt.Sprintf("%s: %s", http.StatusText(e.Status), e.Text) }
