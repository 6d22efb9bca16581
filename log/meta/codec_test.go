package meta

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"github.com/rs/zerolog"
	"hash/crc32"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/twinspan/twinspan/log"
)

func FuzzRequest(f *testing.F) {
	for _, q := range []request{
		{Op: opDo, Command: &Command{Now: epochZero, Own: &Own{Stream: "s", Owner: "p"}}},
		{Op: opSegments, Stream: "s", From: 3, N: 10, Stale: true},
		{Op: opStatus},
	} {
		f.Add(encode(q))
	}
	f.Add([]byte(`{"op":"do","unknown":1}`))
	f.Add([]byte(`{"op":"nodes"}{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := decodeRequest(b)
		if err != nil {
			if !errors.Is(err, log.ErrProtocol) && !errors.Is(err, log.ErrTooLarge) {
				t.Fatal(err)
			}
			return
		}
		again, err := decodeRequest(encode(q))
		if err != nil || !bytes.Equal(encode(q), encode(again)) {
			t.Fatalf("%s became %s (%v)", encode(q), encode(again), err)
		}
		if q.Command != nil { // nothing a client sends may bring the state down
			s := NewState()
			if _, err := s.Apply(Command{Create: &Create{Stream: "s", Policy: Policy{Loss: LossBlock}}}); err != nil {
				t.Fatal(err)
			}
			before := s.View()
			if _, err := s.Apply(*q.Command); err != nil && s.View() != before {
				t.Fatal("a command that failed left a change")
			}
			x := &world{t: t, s: s}
			if _, err := Load(bytes.NewReader(x.save())); err != nil {
				t.Fatalf("%s: what was saved can't be loaded: %v", encode(q), err)
			}
		}
	})
}

func FuzzResponse(f *testing.F) {
	f.Add(encode(response{Result: &Result{Generation: 1}}))
	f.Add([]byte(`{"code":"fenced","text":"x"}`))
	f.Add([]byte(`{"code":"not leader","leader":"a:1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeResponse(b)
		if err != nil {
			return
		}
		if e := r.err(); (e != nil) != (r.Code != "") {
			t.Fatalf("%q: %v", r.Code, e)
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	w := &world{t: f, s: NewState(), now: epochZero}
	w.do(Command{Register: &Register{Node{Name: "a1", UUID: "id-a1", City: "a", Address: "x:1"}}})
	w.do(Command{Register: &Register{Node{Name: "b1", UUID: "id-b1", City: "b", Address: "y:1"}}})
	f.Add(w.save())
	w.create("s", LossBlock)
	w.open("s", true, "a1", "b1")
	w.roll("s", 3, []string{"a1"}, true, "a1", "b1")
	w.roll("s", 3, []string{"a1", "b1"}, true, "a1", "b1")
	w.do(Command{Lease: &TakeLease{Name: "l", Holder: "h", TTL: time.Second}})
	f.Add(w.save())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Load(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, log.ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		x := &world{t: t, s: s}
		first := x.save()
		s, err = Load(bytes.NewReader(first))
		if err != nil {
			t.Fatal(err)
		}
		x.s = s
		if !bytes.Equal(first, x.save()) {
			t.Fatalf("%s became %s", first, x.save())
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(encodeRecord(&raft.Log{Index: 7, Term: 3, Type: raft.LogCommand, Data: []byte("{}"), Extensions: []byte("e"), AppendedAt: epochZero}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 {
			binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
		}
		var l raft.Log
		if err := decodeRecord(7, b, &l); err == nil && !bytes.Equal(encodeRecord(&l), b) {
			t.Fatal("another record")
		}
	})
}

func TestRecordsAreChecked(t *testing.T) {
	b := encodeRecord(&raft.Log{Index: 7, Term: 3, Data: []byte("data"), Extensions: []byte("more"), AppendedAt: epochZero})
	var l raft.Log
	if err := decodeRecord(7, b, &l); err != nil || string(l.Data) != "data" || string(l.Extensions) != "more" || l.Term != 3 || !l.AppendedAt.Equal(epochZero) {
		t.Fatalf("%+v, %v", l, err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x40
		if err := decodeRecord(7, bad, &l); !errors.Is(err, log.ErrSuspect) {
			t.Fatalf("byte %d: %v", i, err)
		}
		if err := decodeRecord(7, b[:i], &l); !errors.Is(err, log.ErrSuspect) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

// TestNewerCommand meets an entry of a program that knows more: to pass over it
// would be to diverge, so the node stops.
func TestNewerCommand(t *testing.T) {
	m := newMachine(zerolog.Nop())
	good, err := encodeCommand(&Command{Now: epochZero, Create: &Create{Stream: "s", Policy: Policy{Loss: LossBlock}}})
	if err != nil {
		t.Fatal(err)
	}
	out := m.ApplyBatch([]*raft.Log{{Index: 1, Data: good}, {Index: 2, Data: []byte(`{"now":"2026-01-01T00:00:00Z","later":{}}`)}, {Index: 3, Data: good}})
	if out[0].(applied).err != nil || out[1].(applied).err == nil || out[2].(applied).err == nil || m.stopped() == nil {
		t.Fatalf("%+v", out)
	}
	if _, err := m.Snapshot(); err == nil {
		t.Fatal("a snapshot of a state that is behind")
	}
}

// TestJSONKeepsTimes guards what replicas agree on: a time that is saved and loaded
// is the same one.
func TestJSONKeepsTimes(t *testing.T) {
	in := Command{Now: time.Now().UTC().Round(0)}
	var out Command
	if err := json.Unmarshal(encode(in), &out); err != nil || out.Now != in.Now {
		t.Fatalf("%v, %v, %v", in.Now, out.Now, err)
	}
}
