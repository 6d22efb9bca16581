package consumer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

func TestMain(m *testing.M) {
	// A dependency of the collation tables starts it with the program.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

// sink records what it is fed, by place, and refuses what a sink may never see.
type sink struct {
	mu      sync.Mutex
	resume  change.Place
	fed     map[change.Place]string
	order   []change.Place
	sets    map[change.Place]string
	ends    []string // GTIDs
	inside  string
	problem error
	fail    func() error
}

func newSink() *sink {
	return &sink{resume: change.Place{Offset: -1}, fed: map[change.Place]string{}, sets: map[change.Place]string{}}
}

func (s *sink) Resume(context.Context) (log.Offset, error) { return max(s.resume.Offset, 0), nil }

func (s *sink) Durable() (change.Place, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resume, ""
}

func (s *sink) Apply(_ context.Context, p change.Place, t *change.Transaction, held string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(); err != nil {
			return err
		}
	}
	take := func(what string) {
		if p.Compare(s.resume) > 0 {
			if old, ok := s.fed[p]; ok {
				s.problem = fmt.Errorf("%v fed twice: %s, %s", p, old, what)
			}
			if n := len(s.order); n > 0 && p.Compare(s.order[n-1]) <= 0 {
				s.problem = fmt.Errorf("%v after %v", p, s.order[n-1])
			}
			s.fed[p] = what
			s.order = append(s.order, p)
		}
		p.Index++
	}
	if s.inside != "" && s.inside != t.GTID {
		s.problem = fmt.Errorf("%s inside %s", t.GTID, s.inside)
	}
	s.inside = ""
	if t.Continued {
		s.inside = t.GTID
	}
	if t.DDL != nil {
		take("ddl " + t.DDL.Text)
	}
	for _, r := range t.Rows {
		take(fmt.Sprintf("row %d of %s", r.After[0].Integer(), t.GTID))
	}
	if !t.Continued {
		if held != "" {
			s.sets[p] = held
		}
		if p.Compare(s.resume) > 0 {
			s.ends = append(s.ends, t.GTID)
		}
		take("end " + t.GTID)
	}
	return nil
}

var table = &schema.Table{
	Name:       schema.Name{Schema: "db", Table: "t"},
	Columns:    []schema.Column{{Name: "id", Type: schema.BigInt}},
	PrimaryKey: []schema.KeyPart{{Column: 0}},
}

const uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562"

func gtidOf(n int) string { return fmt.Sprintf("%s:%d", uuid, n) }

// tx makes a transaction of rows numbered from first.
func tx(n, first, rows int) change.Transaction {
	t := change.Transaction{GTID: gtidOf(n), CommitTime: time.UnixMicro(int64(n)).UTC(), ServerID: 1}
	for i := range rows {
		t.Rows = append(t.Rows, change.Row{Table: table, Op: change.Insert, Position: int64(i), After: []change.Value{change.IntegerOf(int64(first + i))}})
	}
	return t
}

// part cuts a transaction's rows [from,to) out.
func part(t change.Transaction, from, to int) change.Transaction {
	t.Continues, t.Continued = from > 0, to < len(t.Rows)
	t.Rows = t.Rows[from:to]
	return t
}

func (l *memlog) schema(t testing.TB) {
	t.Helper()
	v, err := schema.NewTableVersion(table, "")
	if err != nil {
		t.Fatal(err)
	}
	b, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	l.add(log.TopicSchema, 1, true, b)
}

func (l *memlog) batch(t testing.TB, epoch log.Epoch, set string, ts ...change.Transaction) log.Offset {
	t.Helper()
	b, err := change.AppendBatch(nil, &change.Batch{GTIDSet: set, Source: change.Source{Flavor: "mysql"}, Transactions: ts})
	if err != nil {
		t.Fatal(err)
	}
	return l.add(log.TopicData, epoch, !ts[len(ts)-1].Continued, b)
}

// consume runs a consumer until the sink has seen want transaction ends, or
// until the status shows a halt.
func consume(t *testing.T, l *memlog, s *sink, want int) Status {
	t.Helper()
	c, err := New(Config{Stream: "s", Group: "g", ChunkRows: 3, CursorInterval: 5 * time.Millisecond, RetryMax: 100 * time.Millisecond}, l, s, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	for {
		s.mu.Lock()
		n, problem := len(s.ends), s.problem
		s.mu.Unlock()
		st := c.Status(ctx)
		if problem != nil {
			t.Error(problem)
		}
		if problem != nil || st.Halt != nil || n >= want && st.Behind == 0 {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
			return st
		}
		if ctx.Err() != nil {
			t.Fatalf("%d of %d transactions; %+v", n, want, st)
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *sink) rows() []string {
	var out []string
	for _, p := range s.order {
		if w := s.fed[p]; strings.HasPrefix(w, "row") || strings.HasPrefix(w, "ddl") {
			out = append(out, w)
		}
	}
	return out
}

// TestLargeIsReadOnce: the end of a transaction of many parts is looked for by reading
// only where a later end does not tell, because another producer wrote it.
func TestLargeIsReadOnce(t *testing.T) {
	const parts = 40
	for epoch, most := range map[log.Epoch]int{1: parts + 4, 2: 2*parts + 4} {
		l, s := newMemlog(), newSink()
		l.schema(t)
		big := tx(1, 0, parts)
		for i := range parts {
			l.batch(t, 1, "", part(big, i, i+1))
		}
		l.batch(t, epoch, "", tx(2, 0, 1))
		read := 0
		l.fail = func(log.Entry) error { read++; return nil }
		consume(t, l, s, 2)
		if least := most - 4; read < least || read > most {
			t.Errorf("the last end of epoch %d: %d entries read, want %d to %d", epoch, read, least, most)
		}
	}
}

func TestReads(t *testing.T) {
	big := tx(3, 100, 10)
	for _, c := range []struct {
		name  string
		build func(*testing.T, *memlog)
		ends  string // numbers of transactions
		rows  int
		halt  Code
	}{
		{"plain", func(t *testing.T, l *memlog) {
			l.batch(t, 1, uuid+":1-2", tx(1, 0, 2), tx(2, 2, 5))
			l.batch(t, 1, "", big)
		}, "1 2 3", 17, ""},
		{"parts", func(t *testing.T, l *memlog) {
			l.batch(t, 1, uuid+":1", tx(1, 0, 1), part(big, 0, 4))
			l.batch(t, 1, "", part(big, 4, 5))
			l.schema(t)
			l.batch(t, 1, "", part(big, 5, 10), tx(4, 0, 1))
			l.batch(t, 1, uuid+":1:3-5", tx(5, 0, 0))
		}, "1 3 4 5", 12, ""},
		{"unfinished, then begun anew", func(t *testing.T, l *memlog) {
			l.batch(t, 1, uuid+":1", tx(1, 0, 1), part(big, 0, 4))
			l.batch(t, 1, "", part(big, 4, 5))
			l.batch(t, 2, uuid+":1", part(big, 0, 5))
			l.batch(t, 2, "", part(big, 5, 10))
		}, "1 3", 11, ""},
		{"unfinished twice, then something else", func(t *testing.T, l *memlog) {
			l.batch(t, 1, "", part(big, 0, 4))
			l.batch(t, 2, "", part(big, 0, 4))
			l.batch(t, 2, "", part(big, 4, 5))
			l.batch(t, 3, "", tx(4, 0, 1))
		}, "4", 1, ""},
		{"unfinished after an end in one entry", func(t *testing.T, l *memlog) {
			l.batch(t, 1, "", part(big, 0, 4))
			l.batch(t, 1, "", part(big, 4, 10), part(tx(4, 0, 3), 0, 1))
			l.batch(t, 2, "", tx(4, 0, 3))
		}, "3 4", 13, ""},
		{"goes on in another epoch", func(t *testing.T, l *memlog) {
			l.batch(t, 1, "", part(big, 0, 4))
			l.batch(t, 2, "", part(big, 4, 10))
		}, "", 0, CodeRun},
		{"goes on as another", func(t *testing.T, l *memlog) {
			l.batch(t, 1, "", part(big, 0, 4))
			l.batch(t, 1, "", part(tx(9, 0, 10), 4, 10))
		}, "", 4, CodeRun},
		{"goes on, and has another behind it", func(t *testing.T, l *memlog) {
			l.batch(t, 1, "", part(big, 0, 4), tx(4, 0, 1))
			l.batch(t, 1, "", part(big, 4, 10))
		}, "", 4, CodeRun},
		{"goes on without a beginning", func(t *testing.T, l *memlog) {
			l.batch(t, 1, "", tx(1, 0, 1))
			l.batch(t, 1, "", part(big, 4, 10))
		}, "1", 1, CodeRun},
		{"twice", func(t *testing.T, l *memlog) {
			l.batch(t, 1, uuid+":1", tx(1, 0, 1))
			l.batch(t, 1, "", tx(2, 0, 1))
			l.batch(t, 1, "", tx(2, 0, 1))
		}, "1 2", 2, CodeRepeated},
		{"a transaction is missing", func(t *testing.T, l *memlog) {
			l.batch(t, 1, uuid+":1", tx(1, 0, 1))
			l.batch(t, 1, uuid+":1-3", tx(3, 0, 1))
		}, "1", 1, CodeMismatch},
		{"table version unknown", func(t *testing.T, l *memlog) {
			l.batch(t, 1, "", tx(1, 0, 1))
			odd := *table
			odd.Name.Table = "other"
			x := tx(2, 0, 5)
			for i := 3; i < 5; i++ {
				x.Rows[i].Table = &odd
			}
			l.batch(t, 1, "", x)
		}, "1", 4, CodeSchema},
		{"no batch", func(t *testing.T, l *memlog) {
			l.batch(t, 1, "", tx(1, 0, 1))
			l.add(log.TopicData, 1, true, []byte("garbage"))
		}, "1", 1, CodeDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, s := newMemlog(), newSink()
			l.schema(t)
			c.build(t, l)
			want := len(strings.Fields(c.ends))
			if c.halt != "" {
				want = 1 << 30
			}
			st := consume(t, l, s, want)
			var ends []string
			for _, g := range s.ends {
				ends = append(ends, g[len(uuid)+1:])
			}
			if got := strings.Join(ends, " "); got != c.ends || len(s.rows()) != c.rows {
				t.Errorf("transactions %q and %d rows, want %q and %d", got, len(s.rows()), c.ends, c.rows)
			}
			if c.halt == "" && st.Halt != nil || c.halt != "" && (st.Halt == nil || st.Halt.Code != c.halt) {
				t.Errorf("halt %+v, want %q", st.Halt, c.halt)
			}
		})
	}
}

// TestHeldSet: the sink hears of the log's set at the last complete transaction
// of a batch that has it.
func TestHeldSet(t *testing.T) {
	l, s := newMemlog(), newSink()
	l.schema(t)
	o := l.batch(t, 1, uuid+":1-7", tx(6, 0, 1), tx(7, 1, 1), part(tx(8, 2, 9), 0, 4))
	l.batch(t, 1, "", part(tx(8, 2, 9), 4, 9))
	consume(t, l, s, 3)
	if len(s.sets) != 1 || s.sets[change.Place{Offset: o, Index: 3}] != uuid+":1-7" {
		t.Errorf("sets %v", s.sets)
	}
}

// TestResumesAnywhere: however reading breaks, and wherever a sink stands when
// a new consumer begins, every change behind that place is fed once, in order.
func TestResumesAnywhere(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		l, full := newMemlog(), newSink()
		l.schema(t)
		var open *change.Transaction
		ends, from := 0, 0
		for i := 1; i < 30; i++ {
			var ts []change.Transaction
			if open != nil {
				to := from + 1 + rng.IntN(len(open.Rows)-from)
				ts = append(ts, part(*open, from, to))
				if from = to; to == len(open.Rows) {
					open = nil
					ends++
				}
			}
			for k := rng.IntN(3); open == nil && k > 0; k-- {
				x := tx(i*10+k, i*100, rng.IntN(8))
				if rng.IntN(6) == 0 {
					x.DDL = &change.DDL{Text: fmt.Sprint("alter ", i)}
				}
				if k == 1 && len(x.Rows) > 2 {
					from = 1 + rng.IntN(len(x.Rows)-1)
					open = &x
					ts = append(ts, part(x, 0, from))
					break
				}
				ts = append(ts, x)
				ends++
			}
			if len(ts) > 0 {
				l.batch(t, 1, "", ts...)
			}
			if rng.IntN(5) == 0 {
				l.schema(t)
			}
		}
		if open != nil {
			l.batch(t, 1, "", part(*open, from, len(open.Rows)))
			ends++
		}
		if ends == 0 {
			continue
		}
		consume(t, l, full, ends)
		l.fail = func(log.Entry) error {
			if rng.IntN(40) == 0 {
				return log.ErrUnavailable
			}
			return nil
		}
		broken := newSink()
		consume(t, l, broken, ends)
		if !slices.Equal(full.rows(), broken.rows()) {
			t.Fatalf("fed %v\nwant %v", broken.rows(), full.rows())
		}
		l.fail = nil
		// Resume behind each transaction's end.
		var at []change.Place
		for p, w := range full.fed {
			if strings.HasPrefix(w, "end") {
				at = append(at, p)
			}
		}
		s := newSink()
		s.resume = at[rng.IntN(len(at))]
		rest := 0
		for _, p := range at {
			if p.Compare(s.resume) > 0 {
				rest++
			}
		}
		consume(t, l, s, rest)
		for p, w := range full.fed {
			if got := s.fed[p]; p.Compare(s.resume) > 0 && got != w || p.Compare(s.resume) <= 0 && got != "" {
				t.Fatalf("resumed behind %v: %v is %q, want %q", s.resume, p, got, w)
			}
		}
	}
}

func TestSinkEnds(t *testing.T) {
	l, s := newMemlog(), newSink()
	l.schema(t)
	l.batch(t, 1, "", tx(1, 0, 1))
	s.fail = func() error { return log.ErrClosed }
	c, err := New(Config{Stream: "s", Group: "g"}, l, s, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(context.Background()); !errors.Is(err, log.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}

func TestTrimmedAndCursor(t *testing.T) {
	l, s := newMemlog(), newSink()
	l.schema(t)
	for i := 1; i < 10; i++ {
		l.batch(t, 1, "", tx(i, 0, 1))
	}
	l.first = 5
	if st := consume(t, l, s, 1<<30); st.Halt == nil || st.Halt.Code != CodeTrimmed {
		t.Errorf("halt %+v", st.Halt)
	}
	s.resume = change.Place{Offset: 7, Index: 1}
	c, err := New(Config{Stream: "s", Group: "g", CursorInterval: time.Millisecond}, l, s, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	deadline := time.Now().Add(10 * time.Second)
	for {
		l.mu.Lock()
		at, ok := l.cursors["g"]
		l.mu.Unlock()
		if ok && at.Offset == 6 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("cursor %+v", at)
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
