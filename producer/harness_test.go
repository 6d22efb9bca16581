package producer

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/producer/binlog"
	"github.com/twinspan/twinspan/schema"
)

func TestMain(m *testing.M) {
	if runChild() {
		return
	}
	mysqltest.Main(m, func() error {
		return goleak.Find(goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
	})
}

// whole is a source transaction as a reader of the log sees it.
type whole struct {
	gtid    string
	ddl     []string
	classes []string
	full    []*change.DDL
	rows    []change.Row
	parts   int
}

// readLog decodes a log the way a consumer does: parts are put together, and a
// run that does not end is discarded; another epoch has to begin there.
func readLog(t testing.TB, flavor string, entries []log.Entry) []whole {
	t.Helper()
	tables := schema.NewRegistry(0)
	codecs := change.NewCodecs(tables)
	var out []whole
	var open *whole
	var epoch log.Epoch // of open
	held := gtid.New(flavor)
	first := true
	for _, e := range entries {
		if e.Topic == log.TopicSchema {
			if _, err := tables.AddEntry(e.Payload); err != nil {
				t.Fatalf("entry %d: %v", e.Offset, err)
			}
			continue
		}
		b, err := change.DecodeBatch(e.Payload, codecs)
		if err != nil {
			t.Fatalf("entry %d: %v", e.Offset, err)
		}
		partial := false
		for _, tx := range b.Transactions {
			if !tx.Continues {
				if open != nil && e.Epoch == epoch {
					t.Fatalf("entry %d: %s begins in epoch %d before %s has ended in it", e.Offset, tx.GTID, epoch, open.gtid)
				}
				open, epoch = &whole{gtid: tx.GTID}, e.Epoch
			} else if open == nil || open.gtid != tx.GTID {
				t.Fatalf("entry %d: %s continues nothing", e.Offset, tx.GTID)
			}
			if tx.DDL != nil {
				open.ddl = append(open.ddl, tx.DDL.Text)
				open.classes = append(open.classes, tx.DDL.Class)
				open.full = append(open.full, tx.DDL)
			}
			for i := range tx.Rows {
				if want := int64(len(open.rows)); tx.Rows[i].Position != want {
					t.Fatalf("entry %d: %s: row at position %d, want %d", e.Offset, tx.GTID, tx.Rows[i].Position, want)
				}
				open.rows = append(open.rows, tx.Rows[i])
			}
			open.parts++
			if tx.Continued {
				partial = true
				continue
			}
			if err := held.Add(open.gtid); err != nil {
				t.Fatal(err)
			}
			out = append(out, *open)
			open = nil
		}
		if partial == e.EndsTransaction {
			t.Fatalf("entry %d: ends a transaction: %t, and holds a part: %t", e.Offset, e.EndsTransaction, partial)
		}
		if partial && len(b.Transactions) > 1 {
			t.Fatalf("entry %d: a part among %d transactions", e.Offset, len(b.Transactions))
		}
		if b.GTIDSet != "" {
			told, err := gtid.Parse(flavor, b.GTIDSet)
			if err != nil {
				t.Fatal(err)
			}
			if first { // where the log begins
				if err := held.Union(told); err != nil {
					t.Fatal(err)
				}
			}
			if !told.Equal(held) {
				t.Fatalf("entry %d tells the set %s, and the log holds %s", e.Offset, told, held)
			}
		}
		first = false
	}
	return out
}

// once fails the test when a GTID is there twice.
func once(t testing.TB, txs []whole) {
	t.Helper()
	seen := map[string]bool{}
	for _, x := range txs {
		if seen[x.gtid] {
			t.Errorf("%s is in the log twice", x.gtid)
		}
		seen[x.gtid] = true
	}
}

// subject is a producer under test.
type subject struct {
	*Producer
	log  *memLog // nil when it runs into another log
	stop func() error
}

func start(t testing.TB, s *mysqltest.Server, l log.Log, change func(*Config)) *subject {
	t.Helper()
	cfg := Config{
		Stream: "s", Binlog: binlog.Config{Server: s.Endpoint(), Heartbeat: 200 * time.Millisecond, BackoffMax: 200 * time.Millisecond},
		Recheck: 100 * time.Millisecond, BackoffMax: 200 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	p, err := New(cfg, l, zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var stopped bool
	sub := &subject{Producer: p}
	sub.log, _ = l.(*memLog)
	sub.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return fmt.Errorf("the producer does not stop")
		}
	}
	t.Cleanup(func() {
		if err := sub.stop(); err != nil && binlog.AsHalt(err) == nil {
			t.Error(err)
		}
	})
	return sub
}

// startNow starts a producer at what the server has by now, into a fresh log.
func startNow(t testing.TB, s *mysqltest.Server, change func(*Config)) *subject {
	t.Helper()
	p := start(t, s, newMemLog(), change)
	eventually(t, "the producer has its start", func() bool { return len(p.log.all()) > 0 })
	return p
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); time.Since(start) < 30*time.Second; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not in 30 s: %s", what)
}

// holds waits until the log confirms all that the server committed.
func (s *subject) holds(t testing.TB, srv *mysqltest.Server) {
	t.Helper()
	text, err := srv.GTIDs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want, err := gtid.Parse(string(srv.Flavor.Server()), text)
	if err != nil {
		t.Fatal(err)
	}
	var last Status
	for start := time.Now(); time.Since(start) < 60*time.Second; time.Sleep(5 * time.Millisecond) {
		last = s.Status()
		have, err := gtid.Parse(string(srv.Flavor.Server()), last.GTIDSet)
		if err != nil {
			t.Fatal(err)
		}
		if have.Contains(want) {
			return
		}
		if last.State == StateHalted {
			t.Fatalf("halted: %+v", *last.Halt)
		}
	}
	t.Fatalf("the log does not hold %s: %+v", want, last)
}

// halts waits for a halt and checks its code.
func (s *subject) halts(t testing.TB, code binlog.Code) HaltStatus {
	t.Helper()
	var h *HaltStatus
	eventually(t, "halt "+string(code), func() bool { h = s.Status().Halt; return h != nil })
	if h.Code != string(code) || h.Remedy == "" || h.Detail == "" {
		t.Fatalf("halted with %+v, want %s", *h, code)
	}
	t.Logf("%s at %s: %s\n  remedy: %s", h.Code, h.GTID, h.Detail, h.Remedy)
	return *h
}

func texts(r []change.Value) string {
	var b strings.Builder
	for i, v := range r {
		if i > 0 {
			b.WriteByte(',')
		}
		switch v.Kind() {
		case change.Null:
			b.WriteString("NULL")
		case change.Integer:
			fmt.Fprint(&b, v.Integer())
		default:
			b.Write(v.Bytes())
		}
	}
	return b.String()
}

// entriesOf reads a whole log.
func entriesOf(t testing.TB, l log.Log) []log.Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b, err := l.Bounds(ctx, "s")
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.OpenReader(ctx, "s", log.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	var out []log.Entry
	for len(out) == 0 || out[len(out)-1].Offset < b.LAC {
		e, err := r.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

var gtidText = regexp.MustCompile(`GTID(?:_NEXT=)? '?([0-9a-f:_-]+)`)

// binlogOrder lists the GTIDs in a server's binlog as the server itself shows
// them.
func binlogOrder(t testing.TB, s *mysqltest.Server) []string {
	t.Helper()
	var out []string
	for _, file := range s.Query(t, "SHOW BINARY LOGS") {
		for _, e := range s.Query(t, "SHOW BINLOG EVENTS IN '"+file[0]+"'") {
			if m := gtidText.FindStringSubmatch(e[5]); m != nil && strings.HasPrefix(strings.ToLower(e[2]), "gtid") && e[2] != "Gtid_list" {
				out = append(out, m[1])
			}
		}
	}
	return out
}

// inBinlogOrder fails the test unless the log has the binlog's transactions, all
// of them, once, and in its order.
func inBinlogOrder(t testing.TB, s *mysqltest.Server, txs []whole) {
	t.Helper()
	want := binlogOrder(t, s)
	got := make([]string, len(txs))
	for i, x := range txs {
		got[i] = x.gtid
	}
	if d := cmp.Diff(want, got); d != "" || len(want) == 0 {
		t.Errorf("%d transactions in the binlog, %d in the log: %.2000s", len(want), len(got), d)
	}
}
