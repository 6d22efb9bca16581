package quorum_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

var rewrite = flag.Bool("rewrite", false, "write what the machines say into testdata")

// TestScripts plays testdata. A line is a command to a machine; the lines behind
// it that start with "  " are its answer. -rewrite records the answers.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			want, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			s := &stage{out: &got}
			for line := range strings.Lines(string(want)) {
				if strings.HasPrefix(line, "  ") {
					continue
				}
				got.WriteString(line)
				if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
					s.play(t, strings.Fields(line))
				}
			}
			if *rewrite {
				if err := os.WriteFile(f, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got.String() != string(want) {
				t.Errorf("%s: run with -rewrite and look at the difference:\n%s", f, got.String())
			}
		})
	}
}

// stage has one machine of each kind.
type stage struct {
	out  *bytes.Buffer
	rep  quorum.Replica
	rec  *quorum.Recovery
	w    *quorum.Writer
	view quorum.View
	now  time.Duration
	plan quorum.Plan
}

func (s *stage) say(format string, args ...any) { fmt.Fprintf(s.out, "  "+format+"\n", args...) }

func (s *stage) err(err error) bool {
	if err != nil {
		s.say("%v", err)
	}
	return err != nil
}

// rule reads "a1,b1" or "2" or "2,a1".
func rule(text string) quorum.NodeRule {
	r := quorum.NodeRule{}
	for _, p := range strings.Split(text, ",") {
		if n, err := strconv.Atoi(p); err == nil {
			r.Total = n
			continue
		}
		if r.Cities == nil {
			r.Cities = map[string]int{}
		}
		r.Cities[p[:1]], _ = strconv.Atoi(p[1:])
	}
	return r
}

func descriptor(cities, ruleText string, first log.Offset) quorum.Descriptor {
	return quorum.Descriptor{
		Stream: "s", Segment: 1, First: first, FirstLSO: first - 1, Epoch: 1, Generation: 1,
		Members: members(strings.Split(cities, "")...), Rule: rule(ruleText), Protected: true,
	}
}

func (s *stage) play(t *testing.T, f []string) {
	t.Helper()
	num := func(i int) int {
		n, err := strconv.Atoi(f[i])
		if err != nil {
			t.Fatal(f, err)
		}
		return n
	}
	offset := func(i int) log.Offset { return log.Offset(num(i)) }
	epoch := func(i int) log.Epoch { return log.Epoch(num(i)) }
	switch f[0] {
	case "at": // milliseconds
		s.now = time.Duration(num(1)) * time.Millisecond
	case "nodes": // those that can be reached, as "ab-b": n2 can't
		s.view.Nodes = nil
		for i, c := range strings.Split(f[1], "") {
			reachable := c == strings.ToLower(c)
			m := members(strings.Split(strings.ToLower(f[1]), "")...)[i]
			s.view.Nodes = append(s.view.Nodes, quorum.Candidate{Member: m, Reachable: reachable})
		}
		s.view.Rule, s.view.Spare = rule(f[2]), 1
	case "degraded":
		s.view.Degraded = f[1:]
	case "degrade-after":
		s.view.DegradeAfter = time.Duration(num(1)) * time.Millisecond
	default:
		switch {
		case s.replica(f, offset, epoch):
		case s.recovery(f, num, offset, epoch):
		case s.writer(f, num, offset):
		default:
			t.Fatalf("no command %q", f)
		}
	}
}

func (s *stage) replica(f []string, offset func(int) log.Offset, epoch func(int) log.Epoch) bool {
	r := &s.rep
	switch f[0] {
	case "replica": // first, fence, last
		*r = quorum.NewReplica(quorum.ReplicaState{First: offset(1), Fence: epoch(2), Last: offset(3), LSO: offset(3), LAC: offset(1) - 1})
	case "admit":
		fresh, err := r.Admit(epoch(1), offset(2))
		if !s.err(err) {
			s.say("fresh %t", fresh)
		}
	case "fill":
		fresh, err := r.Fill(offset(1))
		if !s.err(err) {
			s.say("fresh %t", fresh)
		}
	case "durable":
		r.Durable(offset(1), offset(1))
		s.say("acknowledge %d", r.Last())
	case "dropped":
		r.Dropped()
		s.say("acknowledge %d, queued %d", r.Last(), r.Queued())
	case "confirm":
		s.err(r.Confirm(epoch(1), offset(2)))
		s.say("visible %d", r.Visible())
	case "begin-seal":
		s.err(r.BeginSeal(epoch(1)))
		e, ok := r.SealReady()
		s.say("fence to store: %d now: %t", e, ok)
	case "fence-durable":
		r.FenceDurable(epoch(1))
		e, ok := r.SealReady()
		s.say("fence to store: %d now: %t", e, ok)
	case "sealed":
		a, ok, err := r.Sealed(epoch(1))
		if !s.err(err) {
			s.say("ok %t %+v", ok, a)
		}
	case "begin-close":
		s.err(r.BeginClose(offset(1), offset(1)))
		e, ok := r.CloseReady()
		s.say("end to store: %d now: %t", e, ok)
	case "close-durable":
		r.CloseDurable()
		s.say("visible %d complete %t", r.Visible(), r.Complete())
	case "damaged":
		r.Damaged()
	case "renew":
		s.err(r.Renew())
		s.say("acknowledge %d", r.Last())
	default:
		return false
	}
	return true
}

func (s *stage) recovery(f []string, num func(int) int, offset func(int) log.Offset, epoch func(int) log.Epoch) bool {
	switch f[0] {
	case "recovery": // cities of the members, rule, first, epoch
		r, err := quorum.NewRecovery(descriptor(f[1], f[2], offset(3)), epoch(4))
		s.err(err)
		s.rec = r
	case "opening": // number, first, epoch
		s.rec = quorum.NewOpening("s", uint32(num(1)), offset(2), offset(2)-1, epoch(3))
	case "answer": // member, last, LAC
		s.err(s.rec.Sealed(num(1), quorum.Sealed{Last: offset(2), LAC: offset(3), LSO: offset(2)}))
		s.recovering()
	case "answer-closed": // member, last, end
		s.err(s.rec.Sealed(num(1), quorum.Sealed{Last: offset(2), LAC: offset(2), LSO: offset(2), Closed: true, End: offset(3), EndLSO: offset(3)}))
		s.recovering()
	case "suspect":
		s.rec.Suspect(num(1))
		s.recovering()
	case "foreign":
		s.rec.Foreign(num(1))
		s.recovering()
	case "broken":
		s.rec.Broken(num(1))
		s.recovering()
	case "fenced":
		s.err(s.rec.Fenced())
	case "copied": // member, last
		s.rec.Copied(num(1), offset(2), offset(2))
		s.recovering()
	case "recovery-decide":
		m := s.rec.Decide(s.now, &s.view, 2*time.Second)
		s.plan = m.Plan
		s.moved(m)
	case "propose":
		a, err := s.rec.Propose(&s.plan, 1)
		if !s.err(err) {
			s.advance(a)
		}
	case "recovery-outcome":
		s.err(s.rec.Outcome(outcome(f[1])))
		s.say("finished %t", s.rec.Finished())
	default:
		return false
	}
	return true
}

func outcome(text string) quorum.Outcome {
	return map[string]quorum.Outcome{"done": quorum.Done, "fenced": quorum.Fenced, "unknown": quorum.Unknown, "refused": quorum.Refused}[text]
}

func (s *stage) recovering() {
	last, _, ok := s.rec.End()
	partial, ready := s.rec.Ready()
	s.say("wanted %b covered %t end %d ready %t partial %t", s.rec.Wanted(), ok, last, ready, partial)
	for _, c := range s.rec.Copies() {
		s.say("copy %d to %d from n%d to n%d", c.First, c.Last, c.From, c.To)
	}
}

func (s *stage) moved(m quorum.Move) {
	s.say("%s %s", [...]string{"stay", "roll", "blocked", "degrade", "restore"}[m.Verb], strings.TrimSpace(m.City+" "+m.Reason))
	if m.Verb == quorum.Roll {
		s.say("members %s rule %q protected %t", names(m.Plan.Members), m.Plan.Rule, m.Plan.Protected)
	}
}

func names(m []quorum.Member) string {
	var out []string
	for _, x := range m {
		out = append(out, x.Node)
	}
	return strings.Join(out, ",")
}

func (s *stage) advance(a quorum.Advance) {
	if c := a.Close; c != nil {
		s.say("close %d at %d LSO %d holders %s", c.Segment, c.Last, c.LSO, names(c.Holders))
	}
	if d := a.Open; d != nil {
		s.say("open %d at %d epoch %d on %s protected %t", d.Segment, d.First, d.Epoch, names(d.Members), d.Protected)
	}
	if a.Reason != "" {
		s.say("reason: %s", a.Reason)
	}
}

func (s *stage) writer(f []string, num func(int) int, offset func(int) log.Offset) bool {
	if s.w != nil && (f[0] == "attached" || f[0] == "ack" || f[0] == "lost") && num(1) >= len(s.w.Descriptor().Members) {
		s.say("no such member")
		return true
	}
	switch f[0] {
	case "writer": // cities of the members, rule, first
		w, err := quorum.NewWriter(descriptor(f[1], f[2], offset(3)), quorum.Settings{SegmentBytes: 1000}, s.now)
		s.err(err)
		s.w = w
	case "attached": // member, last
		from, ok := s.w.Attached(num(1), s.w.Descriptor().Segment, offset(2), s.now)
		s.say("send from %d: %t", from, ok)
	case "append": // how many
		for range num(1) {
			s.w.Append(10, true)
		}
		s.state()
	case "ack": // member, last, segment
		seg := s.w.Descriptor().Segment
		if len(f) > 3 {
			seg = uint32(num(3))
		}
		_, err := s.w.Acked(num(1), seg, offset(2))
		s.err(err)
		s.state()
	case "lost":
		s.w.Broken(num(1), s.w.Descriptor().Segment, s.now)
	case "refused":
		s.w.Refuse(num(1), s.w.Descriptor().Segment, s.now)
	case "kept":
		s.w.Kept(offset(1), func(i int) log.Offset { return s.w.Mark(i) }, s.now)
		s.states()
	case "lac":
		lac, due := s.w.IdleLAC(s.now)
		s.say("LAC %d due %t", lac, due)
	case "decide":
		m := s.w.Decide(s.now, &s.view)
		s.plan = m.Plan
		s.moved(m)
	case "until": // asks every 250 ms, up to that time or an answer
		for end := time.Duration(num(1)) * time.Millisecond; s.now < end; {
			s.now = min(s.now+250*time.Millisecond, end)
			if m := s.w.Decide(s.now, &s.view); m.Verb != quorum.Stay && m.Verb != quorum.Blocked || s.now == end {
				s.plan = m.Plan
				s.say("at %v", s.now)
				s.moved(m)
				break
			}
		}
	case "roll":
		a, err := s.w.Roll(s.plan, 1)
		if !s.err(err) {
			s.advance(a)
		}
	case "finish":
		a, err := s.w.Finish()
		if !s.err(err) {
			s.advance(a)
		}
	case "outcome":
		_, err := s.w.Outcome(outcome(f[1]), s.now)
		s.err(err)
		s.state()
		s.states()
	case "protected":
		s.say("%t", s.w.Protected(offset(1)))
	case "fence":
		s.err(s.w.Fence())
		s.say("wants %b", s.w.Wants())
	default:
		return false
	}
	return true
}

func (s *stage) state() {
	s.say("segment %d next %d confirmed %d in flight %d needed %d", s.w.Descriptor().Segment, s.w.Next(), s.w.Confirmed(), s.w.InFlight(), s.w.Needed())
}

func (s *stage) states() {
	var out []string
	for i, m := range s.w.Descriptor().Members {
		out = append(out, fmt.Sprintf("%s %v at %d", m.Node, s.w.State(i), s.w.Mark(i)))
	}
	s.say("%s", strings.Join(out, ", "))
}
