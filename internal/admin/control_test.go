package admin

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

type fakeControl struct {
	lanes    int
	throttle Throttle
	err      error
}

func (f *fakeControl) Lanes() (*Lanes, error) { return &Lanes{Wanted: f.lanes}, f.err }
func (f *fakeControl) SetLanes(n int) error {
	if f.err == nil {
		f.lanes = n
	}
	return f.err
}

func (f *fakeControl) SetThrottle(t Throttle) error {
	f.throttle = t
	return f.err
}

// TestControl: a change is taken from this machine, as JSON, under no other name.
func TestControl(t *testing.T) {
	f := &fakeControl{}
	url := serve(t, Options{Control: f})
	var set SetLanes
	if err := Ask(t.Context(), http.MethodPost, url+"/control/lanes", strings.NewReader(`{"lanes": 7}`), &set); err != nil || set.Lanes != 7 || f.lanes != 7 {
		t.Errorf("%+v %d %v", set, f.lanes, err)
	}
	var l Lanes
	if err := Ask(t.Context(), http.MethodGet, url+"/lanes", nil, &l); err != nil || l.Wanted != 7 {
		t.Errorf("%+v %v", l, err)
	}
	var refused *Refused
	err := Ask(t.Context(), http.MethodPost, url+"/control/throttle", strings.NewReader(`{"rows_per_minute": 7}`), &set)
	if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
		t.Errorf("unknown key: %v", err)
	}
	f.err = ErrNoApplier
	err = Ask(t.Context(), http.MethodPost, url+"/control/throttle", strings.NewReader(`{"rows_per_second": 7}`), &set)
	if !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable {
		t.Errorf("no applier: %v", err)
	}
	if code, _ := fetch(t, http.MethodPost, url+"/control/lanes"); code != http.StatusUnsupportedMediaType {
		t.Errorf("without a content type: %d", code)
	}

	s := &Server{opts: Options{Control: f, Log: zerolog.Nop()}}
	f.err = nil
	for _, c := range []struct {
		from, host, kind string
		code             int
	}{
		{"127.0.0.1:5", "127.0.0.1:8040", "application/json", http.StatusOK},
		{"[::1]:5", "localhost:8040", "application/json; charset=utf-8", http.StatusOK},
		{"10.1.1.1:5", "10.1.1.2:8040", "application/json", http.StatusForbidden},
		{"127.0.0.1:5", "rebound.example:8040", "application/json", http.StatusForbidden},
		{"127.0.0.1:5", "127.0.0.1:8040", "text/plain", http.StatusUnsupportedMediaType},
		{"nonsense", "127.0.0.1", "application/json", http.StatusForbidden},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/control/lanes", io.NopCloser(strings.NewReader(`{"lanes":3}`)))
		r.RemoteAddr, r.Host = c.from, c.host
		r.Header.Set("Content-Type", c.kind)
		w := httptest.NewRecorder()
		s.setLanes(w, r)
		if w.Code != c.code {
			t.Errorf("from %s to %s as %s: %d, want %d", c.from, c.host, c.kind, w.Code, c.code)
		}
	}
}
