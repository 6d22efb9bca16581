package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
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
	wire.KindClose: func() wire.Message { return &wire.Close{} }, wire.KindCopy: func() wire.Message { return &wire.Copy{} },
	wire.KindMeta: func() wire.Message { return &wire.Meta{} }, wire.KindMetaOK: func() wire.Message { return &wire.MetaOK{} },
	wire.KindRaft:  func() wire.Message { return &wire.Raft{} },
	wire.KindAdmin: func() wire.Message { return &wire.Admin{} }, wire.KindAdminOK: func() wire.Message { return &wire.AdminOK{} },
	wire.KindDone:  func() wire.Message { return &wire.Done{} },
	wire.KindTally: func() wire.Message { return &wire.Tally{} }, wire.KindTallied: func() wire.Message { return &wire.Tallied{} },
	wire.KindVia: func() wire.Message { return &wire.Via{} }, wire.KindAcks: func() wire.Message { return &wire.Acks{} },
}

var descriptor = quorum.Descriptor{
	Stream: "订单", Segment: 3, First: 17, FirstLSO: 15, Epoch: 4, Generation: 7, Protected: true,
	Members: []quorum.Member{{Node: "a1", UUID: "0a", City: "a"}, {Node: "b1", UUID: "0b", City: "b"}},
	Rule:    quorum.NodeRule{Total: 2, Cities: map[string]int{"a": 1, "b": 1}},
}

func samples() []wire.Message {
	at := time.Date(2026, 11, 21, 3, 4, 5, 678000, time.UTC)
	b := log.Bounds{First: 7, LAC: 99, LSO: 98, Epoch: 3}
	return []wire.Message{
		&wire.Hello{VersionMin: 2, VersionMax: 3, Purpose: wire.PurposeNode, Generation: 7, City: "a", Client: "c", UUID: "0c"},
		&wire.Admin{Verb: "status", Request: []byte("{}")}, &wire.AdminOK{Response: []byte("[]")},
		&wire.Welcome{Version: 2, Node: "a1", UUID: "00", City: "a", Generation: 7, IdleMS: 5},
		&wire.Seal{Descriptor: descriptor, Epoch: 4}, &wire.Sealed{Last: 99, LAC: 98, LSO: 97, Closed: true, End: 100, EndLSO: 99},
		&wire.Attach{Descriptor: descriptor, Epoch: 4}, &wire.Attached{Last: log.None},
		&wire.Close{Stream: "s", Segment: 4, Last: 99, LSO: 98},
		&wire.Copy{Stream: "s", Segment: 4, From: 5, To: 100, Credit: 1 << 20, Raw: true},
		&wire.Meta{Request: []byte("request")}, &wire.MetaOK{Response: []byte("response")}, &wire.Raft{},
		&wire.Append{Offset: 5, LAC: 4, Time: at.UnixMicro(), Topic: 3, Ends: true, Checksum: payloadCRC, Payload: []byte("payload")},
		&wire.Ack{Last: 5}, &wire.LAC{LAC: 5},
		&wire.Read{Stream: "s", From: 1, To: 9, Committed: true, Credit: 1 << 20, Topics: []log.Topic{1, 2}},
		&wire.Reading{Bounds: b},
		&wire.Data{Next: 9, Bounds: b, Entries: []wire.Stored{
			{Entry: log.Entry{Offset: 7, Topic: 1, Epoch: 2, AppendedAt: at, EndsTransaction: true, Payload: []byte("one")}, Checksum: 1},
			{Entry: log.Entry{Offset: 8, Topic: 2, Epoch: 2, AppendedAt: at, Payload: []byte("two")}, Checksum: 2},
		}},
		&wire.Credit{Bytes: 5}, &wire.Tail{Next: 8, Bounds: b}, &wire.Error{Code: 1, Text: "no"}, &wire.Ping{},
		&wire.Bounds{Stream: "s"}, &wire.BoundsOK{Bounds: b}, &wire.Streams{}, &wire.StreamsOK{Names: []string{"a", "b"}},
		&wire.Done{}, &wire.Tally{}, &wire.Tallied{Token: 1 << 63}, &wire.Via{Token: 1 << 63, Number: 2},
		&wire.Acks{Acks: []wire.NumberedAck{{Number: 1, Last: 99}, {Number: 1 << 60, Last: log.None}}},
	}
}

// payloadCRC is that of "payload".
const payloadCRC = 0xf4e36970

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
	if err := h.Check(wire.VersionMax, b, b[wire.HeaderSize:end]); err != nil {
		return nil, 0, err
	}
	m := fresh[h.Kind]()
	if err := wire.Decode(m, b[wire.HeaderSize:end]); err != nil {
		return m, end, err
	}
	if a, ok := m.(*wire.Append); ok && crc32.Checksum(a.Payload, crc32.MakeTable(crc32.Castagnoli)) != a.Checksum {
		return m, end, fmt.Errorf("payload: %w", wire.ErrFrame) // a node checks it where it is stored
	}
	return m, end, nil
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

// TestVersionTwo: its frames have a checksum over all of their body, computed here
// in another way, and either version takes its own frames alone.
func TestVersionTwo(t *testing.T) {
	table := crc32.MakeTable(crc32.Castagnoli)
	for _, m := range samples() {
		newest := wire.Encode(nil, m)
		b := bytes.Clone(newest)
		wire.Reseal(2, b)
		whole := crc32.Checksum(append(bytes.Clone(b[:8]), b[wire.HeaderSize:]...), table)
		if got := binary.LittleEndian.Uint32(b[8:]); got != whole {
			t.Errorf("%v: crc %08x, want %08x", m.Kind(), got, whole)
		}
		h, err := wire.ParseHeader(b, wire.BodyMax)
		if err == nil {
			err = h.Check(2, b, b[wire.HeaderSize:])
		}
		if err != nil {
			t.Errorf("%v: %v", m.Kind(), err)
		}
		alike := m.Kind() != wire.KindAppend
		if err := h.Check(3, b, b[wire.HeaderSize:]); (err == nil) != alike || bytes.Equal(b, newest) != alike {
			t.Errorf("%v in version 3: %v", m.Kind(), err)
		}
		b[len(b)-1] ^= 1 // of an Append, the payload
		if err := h.Check(2, b, b[wire.HeaderSize:]); len(b) > wire.HeaderSize && !errors.Is(err, wire.ErrFrame) {
			t.Errorf("%v: a flipped bit: %v", m.Kind(), err)
		}
	}
	if wire.SameFrames(2) || !wire.SameFrames(wire.VersionMax) {
		t.Error("which versions have the frames that Encode makes?")
	}
	several := wire.Encode(wire.Encode(nil, &wire.Append{Payload: []byte("payload")}), &wire.Append{Offset: 1, Payload: []byte("x")})
	both := bytes.Clone(several)
	wire.Reseal(2, both)
	wire.Reseal(wire.VersionMax, both)
	if !bytes.Equal(both, several) {
		t.Error("there and back is another frame")
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
		{log.ErrElsewhere, log.ErrElsewhere}, {log.ErrGeneration, log.ErrGeneration}, {log.ErrStale, log.ErrStale},
		{fmt.Errorf("%w: %w", log.ErrUnavailable, log.ErrElsewhere), log.ErrElsewhere},
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
		if foreign(m) {
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
		if foreign(m) {
			return
		}
		if again := wire.Encode(nil, m)[wire.HeaderSize:]; !bytes.Equal(again, body) {
			t.Fatalf("%v decodes and encodes to something else:\n%x\n%x", m.Kind(), body, again)
		}
	})
}

// foreign says that m is the greeting of a program of another version, of which
// only the versions are read.
func foreign(m wire.Message) bool {
	h, ok := m.(*wire.Hello)
	return ok && (h.VersionMin > wire.VersionMax || h.VersionMax < wire.VersionMin)
}

func TestGreetingOfOtherVersions(t *testing.T) {
	for _, c := range []struct {
		min, max, want uint16
	}{{1, 1, 0}, {1, 2, 2}, {2, 2, 2}, {2, 9, 4}, {3, 3, 3}, {5, 9, 0}} {
		b := wire.Encode(nil, &wire.Hello{VersionMin: c.min, VersionMax: c.max, Purpose: wire.PurposeClient, Client: "c"})
		m, _, err := parse(b)
		if err != nil {
			t.Fatal(err)
		}
		v, err := m.(*wire.Hello).Negotiate()
		if v != c.want || (c.want == 0) != errors.Is(err, log.ErrProtocol) {
			t.Errorf("versions %d to %d: %d, %v; want %d", c.min, c.max, v, err, c.want)
		}
	}
	// What version 1 said behind its versions is not this version's.
	one := []byte{0x54, 0x57, 0x50, 0x4e, 1, 0, 1, 0, 1, 0, 0, 0, 'c'}
	var h wire.Hello
	if err := wire.Decode(&h, one); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Negotiate(); !errors.Is(err, log.ErrProtocol) {
		t.Fatal(err)
	}
}

func TestDescriptors(t *testing.T) {
	b := wire.AppendDescriptor(nil, &descriptor)
	x, err := wire.ParseDescriptor(b)
	if d := cmp.Diff(descriptor, x); err != nil || d != "" {
		t.Fatal(err, d)
	}
	unordered := bytes.Clone(b)
	i := bytes.Index(unordered, []byte("a\x01\x00\x00\x00\x01\x00\x00\x00b"))
	if i < 0 {
		t.Fatalf("%x", b)
	}
	unordered[i] = 'c'
	crowd := descriptor
	crowd.Members = make([]quorum.Member, quorum.NodesMax+1)
	rule := descriptor
	rule.Rule.Total = -1
	for name, bad := range map[string][]byte{
		"cities out of order": unordered, "cut": b[:len(b)-1], "more": append(bytes.Clone(b), 0), "empty": nil,
		"too many members": wire.AppendDescriptor(nil, &crowd), "negative rule": wire.AppendDescriptor(nil, &rule),
	} {
		if _, err := wire.ParseDescriptor(bad); !errors.Is(err, log.ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDescriptor(f *testing.F) {
	f.Add(wire.AppendDescriptor(nil, &descriptor))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := wire.ParseDescriptor(b)
		if err != nil {
			if !errors.Is(err, wire.ErrFrame) || !errors.Is(err, log.ErrProtocol) {
				t.Fatalf("unnamed error %v", err)
			}
			return
		}
		if again := wire.AppendDescriptor(nil, &x); !bytes.Equal(again, b) {
			t.Fatalf("decodes and encodes to something else:\n%x\n%x", b, again)
		}
	})
}
