package producer

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/producer/binlog"
	"github.com/twinspan/twinspan/schema"
)

const tailUUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"

var tailTable = &schema.Table{Name: schema.Name{Schema: "d", Table: "t"}, Columns: []schema.Column{{Name: "a", Type: schema.LongText, Charset: "utf8mb4", Collation: "utf8mb4_bin"}}}

// TestBatcherAndTail drives the batcher, the pipeline and the tail reader with
// random transactions, broken off and started again at random, and writers that
// die after any entry. Whatever the log then holds, its tail tells exactly which
// transactions a reader can see.
func TestBatcherAndTail(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newMemLog()
		set := gtid.New(gtid.MySQL)
		n := 0 // transactions that the source has, in order
		for writer := range rapid.IntRange(1, 5).Draw(t, "writers") {
			dies, stored := rapid.IntRange(0, 30).Draw(t, "dies after"), rapid.Bool().Draw(t, "stored")
			l.fail = func(log.Draft) (error, bool) {
				if dies--; dies < 0 {
					return fmt.Errorf("%w: %w", log.ErrUnknown, errInjected), stored
				}
				return nil, false
			}
			b, err := l.Bounds(context.Background(), "s")
			if err == nil {
				if set, err = readTail(context.Background(), l, "s", b, gtid.MySQL); err != nil {
					t.Fatalf("writer %d: %v", writer, err)
				}
			} else if !errors.Is(err, log.ErrNoStream) {
				t.Fatal(err)
			}
			seen := visible(t, l.all())
			if !set.Equal(seen) {
				t.Fatalf("writer %d: the tail tells %s, readers see %s", writer, set, seen)
			}
			n = int(set.Last(tailUUID))
			w, err := l.OpenWriter(context.Background(), "s")
			if err != nil {
				t.Fatal(err)
			}
			bounds := w.Bounds()
			ctx, cancel := context.WithCancel(context.Background())
			batch := newBatcher(ctx, gtid.MySQL, 1<<10, 2<<10)
			pipe := &pipeline{writer: w, batch: batch, delay: time.Millisecond, held: set.Clone(), ends: bounds.LSO == bounds.LAC, setFirst: true,
				sent: func(time.Time) {}, note: func(flight, log.Ack) {}}
			done := make(chan error, 1)
			go func() { done <- pipe.run(ctx) }()
			fed := make(chan error, 1)
			todo := rapid.SliceOfN(rapid.Custom(drawTransaction), 1, 20).Draw(t, "transactions")
			go func() { fed <- feed(batch, n, todo) }()
			var ended error
			select {
			case ended = <-done: // the writer died
				cancel()
				<-fed
			case err := <-fed:
				if err != nil && !errors.Is(err, errUnfinished) { // that one takes the stream over again
					t.Fatal(err)
				}
				// All was taken in; wait until it is out, or the writer dies.
				for err == nil && ended == nil && !batch.pending().IsZero() {
					select {
					case ended = <-done:
					case <-time.After(100 * time.Microsecond):
					}
				}
				cancel()
				if ended == nil {
					ended = <-done
				}
			}
			if !errors.Is(ended, errInjected) && !errors.Is(ended, context.Canceled) {
				t.Fatal(ended)
			}
		}
	})
}

// plan is a transaction to feed.
type plan struct {
	rows  []int // bytes of each
	drops []int // rows after which the connection breaks, once each
	ddl   []int // rows before which a statement comes
}

func drawTransaction(t *rapid.T) plan {
	return plan{
		rows:  rapid.SliceOfN(rapid.SampledFrom([]int{0, 10, 200, 900, 3000}), 0, 8).Draw(t, "rows"),
		drops: rapid.SliceOfN(rapid.IntRange(0, 8), 0, 2).Draw(t, "drops"),
		ddl:   rapid.SliceOfNDistinct(rapid.IntRange(0, 8), 0, 2, rapid.ID[int]).Draw(t, "ddl"),
	}
}

func feed(b *batcher, from int, todo []plan) error {
	for i, p := range todo {
		h := binlog.Header{GTID: fmt.Sprintf("%s:%d", tailUUID, from+i+1), CommitTime: time.Now(), ServerID: 1}
		if err := feedOne(b, h, p); err != nil {
			return err
		}
	}
	return nil
}

func feedOne(b *batcher, h binlog.Header, p plan) error {
	for attempt := 0; ; attempt++ {
		if err := b.Begin(h); err != nil {
			return err
		}
		broken := false
		for k, size := range p.rows {
			for _, at := range p.ddl {
				if at == k {
					if err := b.DDL(&change.DDL{Text: fmt.Sprintf("statement before %d", k)}); err != nil {
						return err
					}
				}
			}
			r := &change.Row{Table: tailTable, Op: change.Insert, Position: int64(k), After: []change.Value{change.TextOf(make([]byte, size))}}
			if err := b.Row(r); err != nil {
				return err
			}
			if attempt < len(p.drops) && p.drops[attempt] == k {
				broken = true
				break
			}
		}
		if broken {
			continue
		}
		return b.End(change.Source{Flavor: gtid.MySQL})
	}
}

// visible is the set of what a reader sees up to the LSO, decoded with the
// consumer's rules; it also checks the rules of an entry.
func visible(t *rapid.T, entries []log.Entry) gtid.Set {
	lso := -1
	for i, e := range entries {
		if e.EndsTransaction {
			lso = i
		}
	}
	set := gtid.New(gtid.MySQL)
	codecs := schema.NewRegistry(0)
	open, rows := "", int64(0)
	epoch := log.Epoch(0) // of what is open
	ended := true
	for i, e := range entries {
		if e.Topic == log.TopicSchema {
			if _, err := codecs.AddEntry(e.Payload); err != nil {
				t.Fatalf("entry %d: %v", i, err)
			}
			if e.EndsTransaction != ended {
				t.Fatalf("entry %d: a table version ends a transaction: %t, the entry before: %t", i, e.EndsTransaction, ended)
			}
			continue
		}
		b, err := change.DecodeBatch(e.Payload, change.NewCodecs(codecs))
		if err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		for _, x := range b.Transactions {
			if !x.Continues {
				if open != "" && epoch == e.Epoch {
					t.Fatalf("entry %d: %s begins in epoch %d before %s has ended in it", i, x.GTID, epoch, open)
				}
				open, rows, epoch = x.GTID, 0, e.Epoch
			} else if open != x.GTID {
				t.Fatalf("entry %d: %s continues %q", i, x.GTID, open)
			}
			for _, r := range x.Rows {
				if r.Position != rows {
					t.Fatalf("entry %d: %s: row %d where %d was next", i, x.GTID, r.Position, rows)
				}
				rows++
			}
			if x.Continued {
				if len(b.Transactions) != 1 || e.EndsTransaction {
					t.Fatalf("entry %d: a part among %d transactions, ends %t", i, len(b.Transactions), e.EndsTransaction)
				}
				continue
			}
			if has, err := set.ContainsGTID(x.GTID); err != nil || has {
				t.Fatalf("entry %d: %s again (%v)", i, x.GTID, err)
			}
			if i > lso {
				t.Fatalf("entry %d: %s is whole beyond the LSO %d", i, x.GTID, lso)
			}
			if follows, err := set.Follows(x.GTID); err != nil || !follows {
				t.Fatalf("entry %d: %s does not follow %s (%v)", i, x.GTID, set, err)
			}
			if err := set.Add(x.GTID); err != nil {
				t.Fatal(err)
			}
			open = ""
		}
		ended = e.EndsTransaction
	}
	return set
}

// TestTailTrimmed: retention took every entry that tells a set.
func TestTailTrimmed(t *testing.T) {
	l := newMemLog()
	w, err := l.OpenWriter(context.Background(), "s")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		b := change.NewBatchWriter(0)
		b.Begin(fmt.Sprintf("%s:%d", tailUUID, n+1), time.Now(), 1, false)
		b.End(false)
		set := ""
		if n == 10 {
			set = tailUUID + ":1-11"
		}
		if _, err := w.Append(context.Background(), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: b.Finish(set, change.Source{Flavor: "mysql"})}); err != nil {
			t.Fatal(err)
		}
	}
	for first, want := range map[log.Offset]string{0: tailUUID + ":1-100", 10: tailUUID + ":1-100", 11: "", 100: ""} {
		b := w.Bounds()
		b.First = first
		set, err := readTail(context.Background(), l, "s", b, "mysql")
		if want == "" && !errors.Is(err, errNoSet) || want != "" && (err != nil || set.String() != want) {
			t.Errorf("first %d: %s, %v", first, set, err)
		}
	}
	if _, err := readTail(context.Background(), l, "s", w.Bounds(), "mariadb"); err == nil {
		t.Error("a log of another flavour was read")
	}
}
