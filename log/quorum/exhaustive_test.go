package quorum_test

import (
	"flag"
	"fmt"
	"hash/maphash"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log/internal/fault"
)

var exhaustive = flag.Duration("exhaustive", 48*time.Second, "how long the search of the small scopes may take")

type step struct{ what, n int }

func (s step) String() string { return fmt.Sprintf("%s %d", doNames[s.what], s.n) }

// TestExhaustive looks at every state of each scope, or at as many as the time
// allows, depth first.
func TestExhaustive(t *testing.T) {
	for i := range scopes {
		t.Run(scopes[i].name, func(t *testing.T) {
			limit := *exhaustive / time.Duration(len(scopes))
			if testing.Short() {
				limit = min(limit, 2*time.Second)
			}
			begin := time.Now()
			s := search(&scopes[i], limit)
			t.Logf("%d states, up to %d steps, complete %t, %d with a finished recovery, %v",
				len(s.seen), s.deepest, s.complete, s.finished, time.Since(begin).Round(time.Millisecond))
			if s.err != nil {
				t.Fatalf("%v after %v", s.err, s.path)
			}
			if s.acked != int(scopes[i].entries) || s.finished == 0 {
				t.Fatalf("the search saw %d entries acknowledged and %d recoveries", s.acked, s.finished)
			}
		})
	}
}

// TestExhaustiveFinds shows that the search would notice.
func TestExhaustiveFinds(t *testing.T) {
	if testing.Short() {
		t.Skip("some seconds for each bug")
	}
	defer fault.Set(fault.None)
	for _, b := range []fault.Bug{
		fault.SealNotAtomic, fault.AckBeforeSync, fault.BeyondLAC, fault.CountedCover, fault.SmallestLast,
		fault.FirstLast, fault.AckBeyondFreeze, fault.UnknownIsDone, fault.UnknownIsRefused, fault.CloseBelow,
	} {
		fault.Set(b)
		var found error
		for i := range scopes {
			if found = search(&scopes[i], 4*time.Second).err; found != nil {
				break
			}
		}
		if found == nil {
			t.Errorf("bug %d is not found", b)
			continue
		}
		t.Logf("bug %2d: %v", b, found)
	}
}

type searched struct {
	seen     map[uint64]struct{}
	path     []step // to what is wrong
	err      error
	complete bool
	finished int
	acked    int
	deepest  int
}

func search(sc *scope, limit time.Duration) (out searched) {
	var (
		seed  = maphash.MakeSeed()
		buf   []byte
		space []*small // one for each step of the path
		begin = time.Now()
		visit func(s *small)
	)
	out.seen, out.complete = map[uint64]struct{}{}, true
	defer func() {
		if p := recover(); p != nil && out.err == nil {
			out.err = fmt.Errorf("panic: %v", p)
		}
	}()
	visit = func(s *small) {
		if s.rec != nil && s.rec.Finished() {
			out.finished++
		}
		depth := len(out.path)
		out.deepest = max(out.deepest, depth)
		if depth == len(space) {
			space = append(space, &small{})
		}
		n := space[depth]
		s.steps(n, func(what, k int) {
			if out.err != nil {
				return
			}
			out.path = append(out.path, step{what, k})
			if out.err = n.check(); out.err != nil {
				return
			}
			out.acked = max(out.acked, int(n.acked)+1)
			buf = n.fingerprint(buf[:0])
			h := maphash.Bytes(seed, buf)
			if _, known := out.seen[h]; !known {
				out.seen[h] = struct{}{}
				if len(out.seen)%1024 == 0 && time.Since(begin) > limit {
					out.complete = false
				}
				if out.complete {
					visit(n)
				}
			}
			if out.err == nil {
				out.path = out.path[:len(out.path)-1]
			}
		})
	}
	visit(newSmall(sc))
	return out
}
