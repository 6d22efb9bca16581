package meta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
)

// script answers one call after the other, and tells who was asked.
type script struct {
	t       *testing.T
	answers []func() ([]byte, error)
	asked   []string
}

func (s *script) Call(_ context.Context, address string, request []byte) ([]byte, error) {
	if _, err := decodeRequest(request); err != nil {
		s.t.Error(err)
	}
	s.asked = append(s.asked, address)
	if len(s.answers) == 0 {
		return nil, fmt.Errorf("nobody there: %w", ErrNotSent)
	}
	f := s.answers[0]
	s.answers = s.answers[1:]
	return f()
}

// silent is nodes of which the first asked answers nothing; how long each was
// waited for it tells.
type silent struct{ waits []time.Duration }

func (s *silent) Call(ctx context.Context, _ string, _ []byte) ([]byte, error) {
	end, _ := ctx.Deadline()
	s.waits = append(s.waits, time.Until(end))
	if len(s.waits) == 1 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return encode(response{Names: []string{"s"}}), nil
}

// TestSilentNode: it costs a caller a second, and the next node gets longer.
func TestSilentNode(t *testing.T) {
	t.Parallel()
	s := &silent{}
	if _, err := NewClient(s, []string{"a:1", "b:1"}).Streams(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if len(s.waits) != 2 || s.waits[0] > tryMin || s.waits[1] <= tryMin || s.waits[1] > 2*tryMin {
		t.Fatalf("waited %v", s.waits)
	}
}

func says(r response) func() ([]byte, error)  { return func() ([]byte, error) { return encode(r), nil } }
func breaks(err error) func() ([]byte, error) { return func() ([]byte, error) { return nil, err } }

func refuses(err error) func() ([]byte, error) {
	var r response
	r.fail(err)
	return says(r)
}

func TestClientTellsWhatIsKnown(t *testing.T) {
	t.Parallel()
	done := says(response{Result: &Result{Generation: 1}})
	lost := breaks(errors.New("connection reset"))
	unsent := breaks(fmt.Errorf("refused: %w", ErrNotSent))
	for name, x := range map[string]struct {
		answers   []func() ([]byte, error)
		want, not []error
	}{
		"done":                                {[]func() ([]byte, error){done}, nil, nil},
		"done at the second":                  {[]func() ([]byte, error){lost, unsent, done}, nil, nil},
		"nobody":                              {[]func() ([]byte, error){unsent, unsent}, []error{log.ErrUnavailable, context.DeadlineExceeded}, []error{log.ErrUnknown}},
		"no leader":                           {[]func() ([]byte, error){refuses(&NotLeader{}), refuses(&NotLeader{})}, []error{log.ErrUnavailable}, []error{log.ErrUnknown}},
		"lost":                                {[]func() ([]byte, error){lost}, []error{log.ErrUnknown}, []error{log.ErrUnavailable}},
		"leadership lost":                     {[]func() ([]byte, error){refuses(log.ErrUnknown)}, []error{log.ErrUnknown}, []error{log.ErrUnavailable}},
		"refused":                             {[]func() ([]byte, error){refuses(log.ErrStale)}, []error{log.ErrStale}, []error{log.ErrUnknown, log.ErrUnavailable}},
		"refused, but the first is out there": {[]func() ([]byte, error){lost, refuses(log.ErrStale)}, []error{log.ErrStale, log.ErrUnknown}, []error{log.ErrUnavailable}},
		"fenced, and the first is out there":  {[]func() ([]byte, error){lost, refuses(log.ErrFenced)}, []error{log.ErrFenced}, nil},
		"nonsense":                            {[]func() ([]byte, error){says(response{})}, []error{log.ErrProtocol}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &script{t: t, answers: x.answers}
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			defer cancel()
			_, err := NewClient(s, []string{"a:1", "b:1"}).Do(ctx, Command{Own: &Own{Stream: "s"}})
			if (err != nil) != (len(x.want) > 0) {
				t.Fatal(err)
			}
			for _, e := range x.want {
				if !errors.Is(err, e) {
					t.Errorf("%v, want %v", err, e)
				}
			}
			for _, e := range x.not {
				if errors.Is(err, e) {
					t.Errorf("%v, which is no %v", err, e)
				}
			}
		})
	}
}

func TestClientFollowsHints(t *testing.T) {
	t.Parallel()
	done := says(response{Names: []string{"s"}})
	s := &script{t: t, answers: []func() ([]byte, error){refuses(&NotLeader{Address: "leader:1"}), done, done}}
	c := NewClient(s, []string{"a:1"})
	for range 2 {
		if names, err := c.Streams(within(t, 10*time.Second)); err != nil || len(names) != 1 {
			t.Fatalf("%v, %v", names, err)
		}
	}
	if want := []string{"a:1", "leader:1", "leader:1"}; !slices.Equal(s.asked, want) {
		t.Fatalf("asked %v", s.asked)
	}
	// Two that point at each other do not make it spin.
	s = &script{t: t}
	for range 50 {
		s.answers = append(s.answers, refuses(&NotLeader{Address: "b:1"}), refuses(&NotLeader{Address: "a:1"}))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := NewClient(s, []string{"a:1", "b:1"}).Streams(ctx); !errors.Is(err, log.ErrUnavailable) || len(s.asked) > 40 {
		t.Fatalf("%d calls, %v", len(s.asked), err)
	}
	if _, err := c.Stale("a:1").Do(within(t, time.Second), Command{}); !errors.Is(err, log.ErrProtocol) {
		t.Fatal(err)
	}
}

func TestErrorsTravel(t *testing.T) {
	t.Parallel()
	for _, c := range codes {
		var r response
		r.fail(fmt.Errorf("stream %q: %w", "s", c.err))
		back, err := decodeResponse(encode(r))
		if err != nil {
			t.Fatal(err)
		}
		if got := back.err(); !errors.Is(got, c.err) {
			t.Errorf("%v became %v", c.err, got)
		}
	}
}
