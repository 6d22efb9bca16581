package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/twinspan/twinspan/log"
)

// The verbs of a request.
const (
	opDo       = "do"
	opStream   = "stream"
	opStreams  = "streams"
	opNodes    = "nodes"
	opSegments = "segments"
	opLeases   = "leases"
	opStatus   = "status" // of the node asked
	opProbe    = "probe"  // of a node that may not be part of a cluster yet
)

type request struct {
	Op      string   `json:"op"`
	Command *Command `json:"command,omitempty"`
	Stream  string   `json:"stream,omitempty"`
	From    uint32   `json:"from,omitempty"`
	N       int      `json:"n,omitempty"`
	Stale   bool     `json:"stale,omitempty"` // answer from the local view
}

type response struct {
	Code     string    `json:"code,omitempty"` // of an error
	Text     string    `json:"text,omitempty"`
	Leader   string    `json:"leader,omitempty"` // with code "not leader"
	Result   *Result   `json:"result,omitempty"`
	Stream   *Stream   `json:"stream,omitempty"`
	Names    []string  `json:"names,omitempty"`
	Nodes    []Node    `json:"nodes,omitempty"`
	Segments []Segment `json:"segments,omitempty"`
	Leases   []Lease   `json:"leases,omitempty"`
	Status   *Status   `json:"status,omitempty"`
	Probe    *probe    `json:"probe,omitempty"`
}

// probe says whether a node was ever part of a cluster, and which list it has.
type probe struct {
	Fresh   bool   `json:"fresh"`
	Cluster []Peer `json:"cluster"`
}

// codes name the sentinels on the wire. Where an error wraps several, the first
// one travels.
var codes = []struct {
	name string
	err  error
}{
	{"unknown", log.ErrUnknown}, {"fenced", log.ErrFenced}, {"stale", log.ErrStale}, {"cursor behind", log.ErrCursorBehind},
	{"no stream", log.ErrNoStream}, {"trimmed", log.ErrTrimmed}, {"generation", log.ErrGeneration}, {"identity", log.ErrIdentity},
	{"too large", log.ErrTooLarge}, {"full", log.ErrFull}, {"protocol", log.ErrProtocol}, {"unavailable", log.ErrUnavailable},
}

const (
	codeNotLeader = "not leader"
	textBytesMax  = 2 << 10
)

// remoteError is an error that came over the wire.
type remoteError struct {
	text     string
	sentinel error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.sentinel }

func (r *response) fail(err error) {
	var nl *NotLeader
	if errors.As(err, &nl) {
		r.Code, r.Leader = codeNotLeader, nl.Address
		return
	}
	r.Code, r.Text = "unavailable", err.Error()
	for _, c := range codes {
		if errors.Is(err, c.err) {
			r.Code = c.name
			break
		}
	}
	r.Text = r.Text[:min(len(r.Text), textBytesMax)]
}

// err is the error in a response; nil: there is none.
func (r *response) err() error {
	switch r.Code {
	case "":
		return nil
	case codeNotLeader:
		return &NotLeader{Address: r.Leader}
	}
	for _, c := range codes {
		if c.name == r.Code {
			return &remoteError{r.Text, c.err}
		}
	}
	return &remoteError{fmt.Sprintf("error %q: %s", r.Code, r.Text), log.ErrUnavailable}
}

func decodeRequest(b []byte) (*request, error) {
	if len(b) > RequestBytesMax {
		return nil, fmt.Errorf("metadata request of %d bytes: %w", len(b), log.ErrTooLarge)
	}
	r := &request{}
	if err := decodeStrictly(b, r); err != nil {
		return nil, fmt.Errorf("metadata request: %w", err)
	}
	return r, nil
}

func decodeResponse(b []byte) (*response, error) {
	if len(b) > ResponseBytesMax {
		return nil, fmt.Errorf("metadata response of %d bytes: %w", len(b), log.ErrTooLarge)
	}
	r := &response{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("metadata response: %w: %w", err, log.ErrProtocol)
	}
	return r, nil
}

// encode never fails on these types; if it did, the other side would see no JSON.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}

// answer fills a response to a read from a view.
func (v *View) answer(q *request, r *response) {
	switch q.Op {
	case opStream:
		st, ok := v.Stream(q.Stream)
		if !ok {
			r.fail(fmt.Errorf("stream %q: %w", q.Stream, log.ErrNoStream))
			return
		}
		r.Stream = &st
	case opStreams:
		r.Names = v.Streams()
	case opNodes:
		r.Nodes = v.nodes
	case opSegments:
		segments, ok := v.Segments(q.Stream, q.From, min(q.N, SegmentsPageMax))
		if !ok {
			r.fail(fmt.Errorf("stream %q: %w", q.Stream, log.ErrNoStream))
			return
		}
		r.Segments = segments
	case opLeases:
		r.Leases = v.Leases()
	default:
		r.fail(fmt.Errorf("metadata request %q: %w", q.Op, log.ErrProtocol))
	}
}

// Handle answers a request of a Client or of another Server. It never fails:
// errors travel in the response.
func (s *Server) Handle(ctx context.Context, request []byte) []byte {
	r := &response{}
	q, err := decodeRequest(request)
	if err != nil {
		r.fail(err)
		return encode(r)
	}
	s.handle(ctx, q, r)
	return encode(r)
}

func (s *Server) handle(ctx context.Context, q *request, r *response) {
	switch {
	case q.Op == opDo && q.Command != nil:
		result, err := s.propose(ctx, *q.Command)
		if err != nil {
			r.fail(err)
			return
		}
		r.Result = &result
	case q.Op == opStatus:
		status := s.Status()
		r.Status = &status
	case q.Op == opProbe:
		r.Probe = s.probe()
	case q.Stale:
		v, _ := s.Local()
		v.answer(q, r)
	default:
		v, err := s.readIndex(ctx)
		if err != nil {
			r.fail(err)
			return
		}
		v.answer(q, r)
	}
}
