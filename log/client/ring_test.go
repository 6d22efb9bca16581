package client

import (
	"bytes"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/wire"
)

// TestRing compares what members get out of a ring with the frames that went in,
// while entries are added, given up, and asked for again from anywhere.
func TestRing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 50 {
		const first = 17
		r := newRing(first)
		var frames [][]byte
		frame := func(o log.Offset) []byte { return frames[o-first] }
		type member struct {
			next log.Offset
			at   place
		}
		members := []*member{{next: first, at: r.seek(first)}, {next: first, at: r.seek(first)}, {next: first, at: r.seek(first)}}
		confirmed := log.Offset(first - 1)
		for range 2000 {
			switch rnd.IntN(6) {
			case 0, 1, 2:
				n := 1 + rnd.IntN(3000)
				if rnd.IntN(20) == 0 {
					n = copyMax + rnd.IntN(100<<10)
				}
				a := wire.Append{Offset: r.next, LAC: confirmed, Topic: 1, Payload: bytes.Repeat([]byte{byte(r.next)}, n)}
				frames = append(frames, wire.Encode(nil, &a))
				r.add(&a)
			case 3, 4:
				m := members[rnd.IntN(len(members))]
				if m.at.chunk < r.base {
					if m.next < r.first() {
						m.next = r.first() // it would be left out
					}
					m.at = r.seek(m.next)
				}
				list, pinned, to, last := r.batch(m.at, 1+rnd.IntN(sendBytes), net.Buffers{}, nil)
				if rnd.IntN(2) == 0 { // the ring goes on while they are sent
					r.trim(confirmed+1, confirmed, 0)
				}
				got := bytes.Join(list, nil)
				for ; last != log.None && m.next <= last; m.next++ {
					f := frame(m.next)
					if !bytes.HasPrefix(got, f) {
						t.Fatalf("seed %d: entry %d is not what was added", seed, m.next)
					}
					got = got[len(f):]
				}
				if len(got) > 0 {
					t.Fatalf("seed %d: %d bytes too many", seed, len(got))
				}
				unpin(pinned)
				m.at = to
				if rnd.IntN(10) == 0 && m.next > r.first() { // it comes back with less
					m.next = r.first() + log.Offset(rnd.Int64N(int64(m.next-r.first())))
					m.at = r.seek(m.next)
				}
			case 5:
				needed := r.next
				for _, m := range members {
					needed = min(needed, m.next)
				}
				if r.next-1 > confirmed {
					confirmed += log.Offset(rnd.Int64N(int64(r.next - confirmed)))
				}
				retain := int64(rnd.IntN(1 << 20))
				unconfirmed := int64(0)
				for o := confirmed + 1; o < r.next; o++ {
					unconfirmed += int64(len(frame(o)))
				}
				r.trim(min(needed, confirmed+1), confirmed, retain)
				if most := retain + unconfirmed + 2*(chunkBytes+(100<<10)); r.bytes > most {
					t.Fatalf("seed %d: %d bytes, at most %d are wanted", seed, r.bytes, most)
				}
				if r.first() > confirmed+1 {
					t.Fatalf("seed %d: entry %d is not confirmed, and gone", seed, confirmed+1)
				}
			}
		}
	}
}

func TestWaiters(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var w waiters
	waiting := map[*waiter]log.Offset{}
	confirmed := log.Offset(0)
	for range 10000 {
		switch rnd.IntN(4) {
		case 0, 1:
			o := confirmed + 1 + log.Offset(rnd.IntN(50))
			waiting[w.add(o)] = o
		case 2:
			for x := range waiting {
				w.remove(x)
				delete(waiting, x)
				break
			}
		case 3:
			confirmed += log.Offset(rnd.IntN(20))
			w.release(confirmed)
			for x, o := range waiting {
				select {
				case <-x.released:
					if o > confirmed {
						t.Fatalf("%d was released at %d", o, confirmed)
					}
					w.done(x)
					delete(waiting, x)
				default:
					if o <= confirmed {
						t.Fatalf("%d was not released at %d", o, confirmed)
					}
				}
			}
		}
	}
	w.releaseAll()
	for x := range waiting {
		<-x.released
	}
}
