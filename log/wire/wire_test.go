package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/wire"
)

// fresh makes an empty message of each kind.
var fresh = map[wire.Kind]func() wire.Message{
	wire.KindHello: func() wire.Message { return &wire.Hello{} }, wire.KindWelcome: func() wire.Message { return &wire.Welcome{} },
	wire.KindSeal: func() wire.Message { return &wire.Seal{} }, wire.KindSealed: func() wire.Message { return &wire.Sealed{} },
	wire.KindAttach: func() wire.Message { return &wire.Attach{} }, wire.KindAttached: func() wire.Message { return &wire.Attached{} },
	wire.KindAppend: func() wire.Message { return &wire.Append{} }, wire.KindAck: func() wire.Message { return &wire.Ack{} },
	wire.KindLAC: func() wire.Message { return &wire.LAC{} }, wire.KindRead: func() wire.Message { return &wire.Read{} },
	wire.KindReading: func() wire.Message { return &wire.Reading{} }, wire.KindData: func() wire.Message { return &wire.Data{} },
	wire.KindCredit: func() wire.Message { return &wire.Credit{} }, wire.KindTail: func() wire.Message { return &wire.Tail{} },
	wire.KindError: func() wire.Message { return &wire.Error{} }, wire.KindPing: func() wire.Message { return &wire.Ping{} },
	wire.KindBounds: func() wire.Message { return &wire.Bounds{} }, wire.KindBoundsOK: func() wire.Message { return &wire.BoundsOK{} },
	wire.KindStreams: func() wire.Message { return &wire.Streams{} }, wire.KindStreamsOK: func() wire.Message { return &wire.StreamsOK{} },
	wire.KindCursors: func() wire.Message { return &wire.Cursors{} }, wire.KindCursorsOK: func() wire.Message { return &wire.CursorsOK{} },
	wire.KindStoreCursor: func() wire.Message { return &wire.StoreCursor{} }, wire.KindDone: func() wire.Message { return &wire.Done{} },
}

func samples() []wire.Message {
	at := time.Date(2026, 11, 21, 3, 4, 5, 678000, time.UTC)
	b := log.Bounds{First: 7, LAC: 99, LSO: 98, Epoch: 3}
	cursor := log.Cursor{Group: "订单", Offset: log.None, GTIDSet: "u:1-5", UpdatedAt: at}
	return []wire.Message{
		&wire.Hello{VersionMin: 1, VersionMax: 2, Client: "c"}, &wire.Welcome{Version: 1, Node: "a1", UUID: "00", IdleMS: 5},
		&wire.Seal{Stream: "s", Epoch: 4, Create: true}, &wire.Sealed{Segment: 2, Last: 99, Bounds: b},
		&wire.Attach{Stream: "s", Epoch: 4}, &wire.Attached{Last: log.None},
		&wire.Append{Offset: 5, LAC: 4, Time: at.UnixMicro(), Topic: 3, Ends: true, Checksum: 9, Payload: []byte("payload")},
		&wire.Ack{Last: 5}, &wire.LAC{LAC: 5},
		&wire.Read{Stream: "s", From: 1, To: 9, Committed: true, Credit: 1 << 20, Topics: []log.Topic{1, 2}},
		&wire.Reading{Bounds: b},
		&wire.Data{Next: 9, Bounds: b, Entries: []wire.Stored{
			{Entry: log.Entry{Offset: 7, Topic: 1, Epoch: 2, AppendedAt: at, EndsTransaction: true, Payload: []byte("one")}, Checksum: 1},
			{Entry: log.Entry{Offset: 8, Topic: 2, Epoch: 2, AppendedAt: at, Payload: []byte("two")}, Checksum: 2},
		}},
		&wire.Credit{Bytes: 5}, &wire.Tail{Next: 8, Bounds: b}, &wire.Error{Code: 1, Text: "no"}, &wire.Ping{},
		&wire.Bounds{Stream: "s"}, &wire.BoundsOK{Bounds: b}, &wire.Streams{}, &wire.StreamsOK{Names: []string{"a", "b"}},
		&wire.Cursors{Stream: "s"}, &wire.CursorsOK{Cursors: []log.Cursor{cursor}},
		&wire.StoreCursor{Stream: "s", Cursor: cursor}, &wire.Done{},
	}
}

// parse reads one frame.
func parse(b []byte) (wire.Message, int, error) {
	h, err := wire.ParseHeader(b, wire.BodyMax)
	if err != nil {
		return nil, 0, err
	}
	end := wire.HeaderSize + h.Length
	if end > len(b) {
		return nil, 0, fmt.Errorf("body cut short: %w", wire.ErrFrame)
	}
	if err := h.Check(b, b[wire.HeaderSize:end]); err != nil {
		return nil, 0, err
	}
	m := fresh[h.Kind]()
	return m, end, wire.Decode(m, b[wire.HeaderSize:end])
}

func TestRoundTrip(t *testing.T) {
	seen := map[wire.Kind]bool{}
	for _, m := range samples() {
		t.Run(m.Kind().String(), func(t *testing.T) {
			b := wire.Encode([]byte("before"), m)[len("before"):]
			got, n, err := parse(append(bytes.Clone(b), "behind"...))
			if err != nil || n != len(b) {
				t.Fatalf("%d of %d bytes: %v", n, len(b), err)
			}
			if d := cmp.Diff(m, got); d != "" {
				t.Fatal(d)
			}
			for cut := range len(b) {
				if _, _, err := parse(b[:cut]); !errors.Is(err, wire.ErrFrame) {
					t.Fatalf("cut at %d: %v", cut, err)
				}
			}
			for i := range b {
				bad := bytes.Clone(b)
				bad[i] ^= 1 << (i % 8)
				if _, _, err := parse(bad); !errors.Is(err, wire.ErrFrame) {
					t.Fatalf("bit %d of byte %d flipped: %v", i%8, i, err)
				}
			}
			// A body cut short behind a good checksum.
			for cut := range len(b) - wire.HeaderSize {
				_ = wire.Decode(fresh[m.Kind()](), b[wire.HeaderSize:wire.HeaderSize+cut]) // must not panic
			}
		})
		seen[m.Kind()] = true
	}
	for k := range fresh {
		if !seen[k] {
			t.Errorf("no sample of %v", k)
		}
	}
}

func TestAppendFromParts(t *testing.T) {
	a := &wire.Append{Offset: 5, LAC: 4, Time: 3, Topic: 2, Ends: true, Checksum: 1, Payload: []byte("payload")}
	head := wire.EncodeAppend(nil, a)
	if len(head) != wire.AppendOverhead {
		t.Fatalf("%d bytes before the payload, want %d", len(head), wire.AppendOverhead)
	}
	if whole := wire.Encode(nil, a); !bytes.Equal(append(head, a.Payload...), whole) {
		t.Fatal("an Append in parts differs from one in a piece")
	}
	d := &wire.Data{Entries: []wire.Stored{{Entry: log.Entry{Payload: []byte("xyz")}}}}
	if n := len(wire.Encode(nil, d)); n != wire.DataSize(1, 3) {
		t.Fatalf("%d bytes, want %d", wire.DataSize(1, 3), n)
	}
}

func TestErrorsTravel(t *testing.T) {
	for _, c := range []struct {
		sent, got error
	}{
		{log.ErrFenced, log.ErrFenced}, {log.ErrSuspect, log.ErrSuspect}, {log.ErrTrimmed, log.ErrTrimmed},
		{log.ErrNoStream, log.ErrNoStream}, {log.ErrTooLarge, log.ErrTooLarge}, {log.ErrCursorBehind, log.ErrCursorBehind},
		{log.ErrIdentity, log.ErrIdentity}, {log.ErrFull, log.ErrFull}, {log.ErrUnknown, log.ErrUnknown},
		{log.ErrProtocol, log.ErrProtocol}, {log.ErrUnavailable, log.ErrUnavailable},
		{log.ErrClosed, log.ErrUnavailable}, {errors.New("anything"), log.ErrUnavailable},
	} {
		m := wire.ErrorOf(fmt.Errorf("stream %q: %w", "s", c.sent))
		got, _, err := parse(wire.Encode(nil, m))
		if err != nil {
			t.Fatal(err)
		}
		back := got.(*wire.Error).Err()
		if !errors.Is(back, c.got) || !strings.Contains(back.Error(), `stream "s"`) {
			t.Errorf("%v arrives as %v", c.sent, back)
		}
	}
	if err := (&wire.Error{Code: 999, Text: "new"}).Err(); !errors.Is(err, log.ErrUnavailable) {
		t.Errorf("an unknown code is %v", err)
	}
	if m := wire.ErrorOf(errors.New(strings.Repeat("é", 1<<20))); len(m.Text) > 4<<10 {
		t.Errorf("an error text of %d bytes", len(m.Text))
	}
}

func FuzzFrame(f *testing.F) {
	for _, m := range samples() {
		f.Add(wire.Encode(nil, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, n, err := parse(b)
		if err != nil {
			if !errors.Is(err, wire.ErrFrame) || !errors.Is(err, log.ErrProtocol) {
				if !strings.Contains(err.Error(), "cut short") {
					t.Fatalf("unnamed error %v", err)
				}
			}
			return
		}
		if again := wire.Encode(nil, m); !bytes.Equal(again, b[:n]) {
			t.Fatalf("%v decodes and encodes to something else:\n%x\n%x", m.Kind(), b[:n], again)
		}
	})
}

// FuzzBody skips the checksum, which would stop the fuzzer at the door.
func FuzzBody(f *testing.F) {
	for _, m := range samples() {
		f.Add(byte(m.Kind()), wire.Encode(nil, m)[wire.HeaderSize:])
	}
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		make, ok := fresh[wire.Kind(kind)]
		if !ok {
			return
		}
		m := make()
		if err := wire.Decode(m, body); err != nil {
			if !errors.Is(err, wire.ErrFrame) || !errors.Is(err, log.ErrProtocol) {
				t.Fatalf("unnamed error %v", err)
			}
			return
		}
		if again := wire.Encode(nil, m)[wire.HeaderSize:]; !bytes.Equal(again, body) {
			t.Fatalf("%v decodes and encodes to something else:\n%x\n%x", m.Kind(), body, again)
		}
	})
}
