package jetstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/natstest"
	"github.com/twinspan/twinspan/log"
)

var inside atomic.Int64

// lab is a log with nothing in it, on the cluster of the test.
func lab(t *testing.T, c *natstest.Cluster, change func(*Config)) *Log {
	t.Helper()
	cfg := Config{Servers: c.URLs(), Monitors: c.Monitors(), Prefix: fmt.Sprintf("i%d", inside.Add(1)), Replicas: len(c.Servers), Logger: zerolog.Nop()}
	if change != nil {
		change(&cfg)
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, l.Close()) })
	return l
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func write(t *testing.T, l *Log) *writer {
	t.Helper()
	w, err := l.OpenWriter(within(t), "s")
	check(t, err)
	return w.(*writer)
}

func put(t *testing.T, w log.Writer, topic log.Topic, ends bool, payload string) log.Offset {
	t.Helper()
	o, err := w.Append(within(t), log.Draft{Topic: topic, EndsTransaction: ends, Payload: []byte(payload)})
	check(t, err)
	_, err = w.Wait(within(t), o)
	check(t, err)
	return o
}

// read takes everything below to.
func read(t *testing.T, l *Log, o log.ReaderOptions) (out []log.Entry, err error) {
	t.Helper()
	r, err := l.OpenReader(within(t), "s", o)
	if err != nil {
		return nil, err
	}
	defer func() { check(t, r.Close()) }()
	for {
		e, err := r.Next(within(t))
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, e)
	}
}

// stray publishes an entry of a writer as if that had sent it behind message
// after, and returns its sequence.
func stray(t *testing.T, l *Log, w *writer, o log.Offset, after uint64) uint64 {
	t.Helper()
	m := mark{
		epoch: w.epoch, offset: o, lso: o, lac: w.base, opened: w.opened, ends: true, topic: log.TopicData, time: time.Now(),
		last: map[log.Topic]log.Offset{log.TopicData: o},
	}
	payload := []byte("stray")
	api, err := l.conn()
	check(t, err)
	a, err := api.PublishMsg(within(t), &nats.Msg{
		Subject: w.names.entry(w.epoch, log.TopicData), Data: payload, Header: nats.Header{markHeader: {m.encode(payload)}},
	}, js.WithExpectLastSequence(after))
	check(t, err)
	return a.Sequence
}

// TestStrayEntriesDoNotCount: entries of a fenced writer that a server took
// behind the fence are not read, not counted, and give no offset away, wherever
// they lie.
func TestStrayEntriesDoNotCount(t *testing.T) {
	c := natstest.Start(t, natstest.Options{Servers: 1})
	l := lab(t, c, nil)
	l.shared = true
	old := write(t, l)
	put(t, old, log.TopicData, true, "0")
	put(t, old, log.TopicSchema, true, "1")
	young := write(t, l)
	last := young.opened
	// Right behind the fence, with the offsets that the old writer would give next.
	last = stray(t, l, old, 2, last)
	stray(t, l, old, 3, last)
	if b, err := l.Bounds(within(t), "s"); err != nil || b.LAC != 1 || b.Epoch != 2 {
		t.Fatalf("bounds %+v, %v", b, err)
	}
	// The young writer's sequence is taken: it must not believe it has written.
	o, err := young.Append(within(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: []byte("lost")})
	check(t, err)
	if _, err := young.Wait(within(t), o); !errors.Is(err, log.ErrUnknown) || errors.Is(err, log.ErrFenced) {
		t.Fatalf("an append behind a stray entry: %v", err)
	}
	_ = young.Close() // dead
	third := write(t, l)
	if b := third.Bounds(); b.LAC != 1 || b.LSO != 1 || b.Epoch != 3 {
		t.Fatalf("bounds %+v", b)
	}
	put(t, third, log.TopicData, true, "2")
	put(t, third, log.TopicSchema, true, "3")
	check(t, third.Close())
	last = third.opened + 2
	// At the end, too, by both of them.
	last = stray(t, l, old, 2, last)
	last = stray(t, l, young, 2, last)
	for _, o := range []log.ReaderOptions{
		{To: 4},
		{To: 4, Committed: true},
		{From: 1, To: 4},
		{From: 2, To: 4},
		{From: 3, To: 4, Committed: true},
		{From: 4, To: 4},
		{To: 4, Topics: []log.Topic{log.TopicSchema}},
		{From: 2, To: 4, Topics: []log.Topic{log.TopicData}},
	} {
		got, err := read(t, l, o)
		check(t, err)
		want := 0
		for i := o.From; i < 4; i++ {
			topic := log.TopicData
			if i%2 == 1 {
				topic = log.TopicSchema
			}
			if len(o.Topics) > 0 && o.Topics[0] != topic {
				continue
			}
			if want >= len(got) || got[want].Offset != i || string(got[want].Payload) != fmt.Sprint(int(i)) {
				t.Fatalf("%+v: got %v", o, got)
			}
			want++
		}
		if len(got) != want {
			t.Fatalf("%+v: %d entries, want %d", o, len(got), want)
		}
	}
	fourth := write(t, l)
	if b := fourth.Bounds(); b.LAC != 3 || b.LSO != 3 {
		t.Fatalf("bounds %+v behind strays", b)
	}
	if fourth.opened != last+1 {
		t.Fatalf("the fence has sequence %d, and the last stray %d", fourth.opened, last)
	}
	check(t, fourth.Close())
}

// TestFencesAlone races writers that append without a pause against new ones,
// while the servers take the subjects of all of them: the fence in the stream
// must be enough to keep every confirmed entry and to let nothing in behind it.
func TestFencesAlone(t *testing.T) {
	c := natstest.Start(t, natstest.Options{})
	l := lab(t, c, nil)
	l.shared = true
	type confirmed struct {
		epoch log.Epoch
		upto  log.Offset
	}
	var lives []confirmed
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	old := write(t, l)
	for range 12 {
		acked := log.Offset(-1)
		done := make(chan struct{}) // closed by the old writer's goroutine
		w := old
		go func() {
			defer close(done)
			for {
				o, err := w.Append(context.Background(), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: fmt.Appendf(nil, "%d", w.epoch)})
				if err == nil && o%64 == 0 {
					if _, err = w.Wait(context.Background(), o); err == nil {
						acked = o
					}
					// A new writer's fence needs a moment without appends.
					time.Sleep(time.Duration(rnd.IntN(12)) * time.Millisecond)
				}
				if err != nil {
					return
				}
			}
		}()
		time.Sleep(20 * time.Millisecond)
		young := write(t, l)
		<-done
		_ = w.Close() // fenced
		acked = max(acked, w.Bounds().LAC)
		if young.Bounds().LAC < acked {
			t.Fatalf("epoch %d starts behind %d, and epoch %d saw %d confirmed", young.epoch, young.Bounds().LAC, w.epoch, acked)
		}
		lives = append(lives, confirmed{w.epoch, young.Bounds().LAC})
		old = young
	}
	check(t, old.Close())
	end := old.Bounds().LAC
	got, err := read(t, l, log.ReaderOptions{To: end + 1})
	check(t, err)
	if log.Offset(len(got)) != end+1 {
		t.Fatalf("%d entries, want %d", len(got), end+1)
	}
	life := 0
	for i, e := range got {
		for e.Offset > lives[life].upto {
			life++
		}
		if e.Offset != log.Offset(i) || e.Epoch != lives[life].epoch || string(e.Payload) != fmt.Sprint(e.Epoch) {
			t.Fatalf("entry %d of epoch %d %q, want one of epoch %d", e.Offset, e.Epoch, e.Payload, lives[life].epoch)
		}
	}
	n, err := l.cfg.names("s")
	check(t, err)
	tl, err := l.tail(within(t), n)
	check(t, err)
	strays := int(tl.seq) - int(end+1) - len(lives) - 1
	t.Logf("%d entries, %d strays", end+1, strays)
}

// TestForeignMessages: a message that is not ours, and entries that are gone, are
// told, never passed over.
func TestForeignMessages(t *testing.T) {
	c := natstest.Start(t, natstest.Options{Servers: 1})
	l := lab(t, c, nil)
	w := write(t, l)
	put(t, w, log.TopicData, true, "0")
	put(t, w, log.TopicExceptions, true, "1")
	put(t, w, log.TopicData, true, "2")
	put(t, w, log.TopicData, true, "3")
	check(t, w.Close())
	n := w.names
	api, err := l.conn()
	check(t, err)
	s, err := api.Stream(within(t), n.js)
	check(t, err)
	check(t, s.Purge(within(t), js.WithPurgeSubject(n.topic(log.TopicExceptions))))
	if got, err := read(t, l, log.ReaderOptions{To: 4}); !errors.Is(err, log.ErrSuspect) || len(got) != 1 {
		t.Fatalf("%d entries and %v across a hole", len(got), err)
	}
	if got, err := read(t, l, log.ReaderOptions{From: 2, To: 4}); err != nil || len(got) != 2 {
		t.Fatalf("%d entries and %v behind a hole", len(got), err)
	}
	_, err = api.Publish(within(t), n.entry(1, log.TopicData), []byte("hello"))
	check(t, err)
	if _, err := read(t, l, log.ReaderOptions{From: 2, To: 5}); !errors.Is(err, log.ErrSuspect) {
		t.Fatalf("a foreign message gives %v", err)
	}
	if _, err := l.OpenWriter(within(t), "s"); !errors.Is(err, log.ErrSuspect) {
		t.Fatalf("a writer behind a foreign message: %v", err)
	}
	if _, err := l.Bounds(within(t), "s"); !errors.Is(err, log.ErrSuspect) {
		t.Fatalf("bounds with a foreign message: %v", err)
	}
	check(t, s.Purge(within(t)))
	if _, err := l.OpenWriter(within(t), "s"); !errors.Is(err, log.ErrSuspect) {
		t.Fatalf("a writer of a stream whose entries are gone: %v", err)
	}
}

// TestRetention: what every cursor has passed goes at the ends of transactions,
// but not the schema topic; without cursors nothing does.
func TestRetention(t *testing.T) {
	c := natstest.Start(t, natstest.Options{Servers: 1})
	l := lab(t, c, func(c *Config) { c.Retention = Retention{BytesMax: 20 << 10, Every: time.Hour} })
	w := write(t, l)
	const n = 300
	for i := range n {
		topic := log.TopicData
		if i%50 == 7 {
			topic = log.TopicSchema
		}
		o, err := w.Append(within(t), log.Draft{Topic: topic, EndsTransaction: i%3 == 2, Payload: bytes.Repeat([]byte{byte(i)}, 200)})
		check(t, err)
		if i%10 == 9 {
			_, err = w.Wait(within(t), o)
			check(t, err)
		}
	}
	trim := func(want func(log.Offset) bool) log.Offset {
		t.Helper()
		first, err := l.Trim(within(t), "s")
		check(t, err)
		b, err := l.Bounds(within(t), "s")
		check(t, err)
		if !want(first) || b.First != first || b.LAC != n-1 {
			t.Fatalf("first %d, bounds %+v", first, b)
		}
		return first
	}
	trim(func(o log.Offset) bool { return o == 0 }) // no cursor
	check(t, l.StoreCursor(within(t), "s", log.Cursor{Group: "far", Offset: 100}))
	check(t, l.StoreCursor(within(t), "s", log.Cursor{Group: "near", Offset: n - 1}))
	trim(func(o log.Offset) bool { return o == 99 }) // 100 is inside 99…101
	if _, err := l.OpenReader(within(t), "s", log.ReaderOptions{From: 98}); !errors.Is(err, log.ErrTrimmed) {
		t.Fatalf("a reader of what is gone: %v", err)
	}
	check(t, w.Close())
	w = write(t, l) // a fence more, and offsets as before
	if b := w.Bounds(); b.First != 99 || b.LAC != n-1 {
		t.Fatalf("bounds %+v", b)
	}
	got, err := read(t, l, log.ReaderOptions{From: 99, To: n})
	check(t, err)
	if len(got) != n-99 || got[0].Offset != 99 || got[0].Payload[0] != 99 {
		t.Fatalf("%d entries", len(got))
	}
	for _, from := range []log.Offset{0, 8, 60, 200} {
		got, err = read(t, l, log.ReaderOptions{From: from, To: n, Topics: []log.Topic{log.TopicSchema}})
		check(t, err)
		want := 0
		for i := int(from); i < n; i++ {
			if i%50 == 7 {
				want++
			}
		}
		if len(got) != want || got[0].Offset%50 != 7 {
			t.Fatalf("%d schema entries from %d, want %d", len(got), from, want)
		}
	}
	// A reader that is overtaken by retention says so.
	slow, err := l.OpenReader(within(t), "s", log.ReaderOptions{From: 99})
	check(t, err)
	check(t, slow.Close())
	check(t, l.StoreCursor(within(t), "s", log.Cursor{Group: "far", Offset: n - 1}))
	first := trim(func(o log.Offset) bool { return o > 99 && o < n && o%3 == 0 })
	check(t, w.Close()) // a writer reads them, too
	l.cfg.Retention = Retention{AgeMax: time.Millisecond, Every: time.Hour}
	w = write(t, l)
	time.Sleep(5 * time.Millisecond)
	if all := trim(func(o log.Offset) bool { return o >= n-15 && o < n }); all <= first {
		t.Fatalf("first %d by age, %d by bytes", all, first)
	}
	put(t, w, log.TopicData, true, "on")
	if got, err := read(t, l, log.ReaderOptions{From: n, To: n + 1}); err != nil || len(got) != 1 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	check(t, w.Close())
}

// TestServersThatWillNotDo: settings that would break promises are refused, and
// the error names them.
func TestServersThatWillNotDo(t *testing.T) {
	small := natstest.Start(t, natstest.Options{Servers: 1, MaxPayload: 1 << 20})
	if _, err := lab(t, small, nil).OpenWriter(within(t), "s"); !errors.Is(err, log.ErrProtocol) || !bytes.Contains([]byte(err.Error()), []byte("max_payload")) {
		t.Errorf("servers with a small max_payload: %v", err)
	}
	lazy := natstest.Start(t, natstest.Options{Servers: 1, SyncInterval: "2m"})
	if _, err := lab(t, lazy, nil).OpenWriter(within(t), "s"); !errors.Is(err, log.ErrProtocol) || !bytes.Contains([]byte(err.Error()), []byte("sync_interval")) {
		t.Errorf("servers that do not sync: %v", err)
	}
	l := lab(t, lazy, func(c *Config) { c.Monitors = nil })
	w := write(t, l)
	check(t, w.Close())
	api, err := l.conn()
	check(t, err)
	s, err := api.Stream(within(t), w.names.js)
	check(t, err)
	cfg := s.CachedInfo().Config
	cfg.MaxAge = time.Hour
	_, err = api.UpdateStream(within(t), cfg)
	check(t, err)
	if _, err := l.OpenWriter(within(t), "s"); !errors.Is(err, log.ErrProtocol) {
		t.Errorf("a stream whose entries expire: %v", err)
	}
	if _, err := lab(t, lazy, func(c *Config) { c.Servers, c.Monitors, c.RequestTimeout = []string{"127.0.0.1:1"}, nil, time.Second }).OpenWriter(within(t), "s"); !errors.Is(err, log.ErrUnavailable) {
		t.Errorf("no server: %v", err)
	}
}
