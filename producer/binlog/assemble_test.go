package binlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/klauspost/compress/zstd"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// tape writes down what a sink is told.
type tape struct {
	lines []string
	fail  error
}

func (s *tape) note(format string, args ...any) error {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
	return s.fail
}

func (s *tape) Begin(h Header) error {
	return s.note("begin %s", h.GTID[strings.LastIndexAny(h.GTID, ":-")+1:])
}
func (s *tape) DDL(d *change.DDL) error    { return s.note("ddl %s", d.Text) }
func (s *tape) Row(r *change.Row) error    { return s.note("%s %d", r.Op, r.Position) }
func (s *tape) End(at change.Source) error { return s.note("end") }

// raw is an event of a type, without checksum.
func raw(typ replication.EventType, flags uint16, body []byte) []byte {
	b := make([]byte, headerBytes, headerBytes+len(body))
	binary.LittleEndian.PutUint32(b, 1_700_000_000)
	b[4] = byte(typ)
	binary.LittleEndian.PutUint32(b[5:], 7)
	binary.LittleEndian.PutUint32(b[9:], uint32(headerBytes+len(body)))
	binary.LittleEndian.PutUint32(b[13:], 1000)
	binary.LittleEndian.PutUint16(b[17:], flags)
	return append(b, body...)
}

// summed puts a checksum behind an event.
func summed(b []byte) []byte {
	b = append([]byte(nil), b...)
	binary.LittleEndian.PutUint32(b[9:], uint32(len(b)+checksumBytes))
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func formatEvent(version string, crc bool) []byte {
	body := make([]byte, 2+50+4+1)
	body[0] = 4
	copy(body[2:], version)
	body[56] = headerBytes
	lengths := make([]byte, 60)
	lengths[replication.QUERY_EVENT-1] = 13
	lengths[replication.TABLE_MAP_EVENT-1] = 8
	for t := replication.WRITE_ROWS_EVENTv1; t <= replication.DELETE_ROWS_EVENTv2; t++ {
		lengths[t-1] = 10
	}
	body = append(body, lengths...)
	alg := byte(0)
	if crc {
		alg = 1
	}
	return summed(raw(replication.FORMAT_DESCRIPTION_EVENT, 0, append(body, alg)))
}

func gtidEvent(n uint64) []byte {
	b := make([]byte, 1+16, 64)
	b = binary.LittleEndian.AppendUint64(b, n)
	b = append(b, 2)
	return raw(replication.GTID_EVENT, 0, append(b, make([]byte, 30)...))
}

func mariaEvent(n uint64, flags byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, n)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return raw(replication.MARIADB_GTID_EVENT, 0, append(b, flags, 0, 0, 0, 0, 0, 0))
}

func queryEvent(text string) []byte { return queryWith(text, 0, nil, 0) }

func queryWith(text string, code uint16, vars []byte, flags uint16) []byte {
	b := make([]byte, 8, 64)
	b = append(b, 1) // length of the schema's name
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(vars)))
	b = append(append(b, vars...), 'd', 0)
	return raw(replication.QUERY_EVENT, flags, append(b, text...))
}

func xidEvent() []byte { return raw(replication.XID_EVENT, 0, make([]byte, 8)) }

// mapEvent describes d.t (id INT NOT NULL) in full, rowsOf inserts rows into it.
func mapEvent(id byte) []byte {
	b := []byte{id, 0, 0, 0, 0, 0, 1, 0, 1, 'd', 0, 1, 't', 0, 1, 3, 0, 0}
	b = append(b, 1, 1, 0)           // signedness
	b = append(b, 4, 3, 2, 'i', 'd') // names
	return raw(replication.TABLE_MAP_EVENT, 0, b)
}

func rowsOf(id byte, values ...byte) []byte {
	b := []byte{id, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 0xff}
	for _, v := range values {
		b = append(b, 0, v, 0, 0, 0)
	}
	return raw(replication.WRITE_ROWS_EVENTv2, 0, b)
}

func prepareEvent(onePhase byte, id string) []byte {
	b := []byte{onePhase, 1, 0, 0, 0, byte(len(id)), 0, 0, 0, 0, 0, 0, 0}
	return raw(replication.XA_PREPARE_LOG_EVENT, 0, append(b, id...))
}

func payloadEvent(events ...[]byte) []byte {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	var all []byte
	for _, e := range events {
		all = append(all, e...)
	}
	packed := enc.EncodeAll(all, nil)
	if err := enc.Close(); err != nil {
		panic(err)
	}
	return raw(replication.TRANSACTION_PAYLOAD_EVENT, 0, append([]byte{2, 1, 0, 0}, packed...))
}

// newTestAssembler is one without a server: whatever it would ask is an error.
func newTestAssembler(f server.Flavor, sink Sink, skip ...string) (*assembler, *eventReader) {
	done := gtid.New(string(f))
	r := newEventReader(f, false)
	s := &Stream{cfg: Config{Skip: skip, XABytesMax: 1000}}
	st := State{Info: server.Info{Flavor: f, Major: 9, Minor: 7}, Executed: done, Purged: done}
	a := s.assembler(st, r, &done, nil, sink)
	a.committed = nil
	a.order.executed = func(context.Context) (gtid.Set, error) { return gtid.New(string(f)), nil }
	a.judge.convert = func(context.Context, string, string) (string, error) { return "", errors.New("no server") }
	a.tables.catalogue = func(context.Context, *replication.TableMapEvent) (*schema.Table, error) { return nil, ErrNoMetadata }
	return a, r
}

// TestAssemble runs event by event through the assembler: what the sink is told,
// and how it ends.
func TestAssemble(t *testing.T) {
	const gtidBase = "00000000-0000-0000-0000-000000000000:"
	for _, c := range []struct {
		name   string
		flavor server.Flavor
		events [][]byte
		skip   string
		want   string // lines of the tape, joined
		halt   Code
		damage bool
	}{
		{name: "a transaction", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), mapEvent(1), rowsOf(1, 5, 6), xidEvent()},
			want: "begin 1|insert 0|insert 1|end"},
		{name: "a statement ends itself", events: [][]byte{gtidEvent(1), queryEvent("CREATE TABLE x (id INT)"), gtidEvent(2), queryEvent("DROP TABLE x")},
			want: "begin 1|ddl CREATE TABLE x (id INT)|end|begin 2|ddl DROP TABLE x|end"},
		{name: "a statement and rows", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), queryEvent("CREATE TABLE t (id INT) START TRANSACTION"), mapEvent(1), rowsOf(1, 5), xidEvent()},
			want: "begin 1|ddl CREATE TABLE t (id INT) START TRANSACTION|insert 0|end"},
		{name: "ended by COMMIT", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), mapEvent(1), rowsOf(1, 5), queryEvent("COMMIT")}, want: "begin 1|insert 0|end"},
		{name: "empty", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), queryEvent("COMMIT")}, want: "begin 1|end"},
		{name: "rolled back without rows", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), queryEvent("ROLLBACK")}, want: "begin 1|end"},
		{name: "rolled back with rows", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), mapEvent(1), rowsOf(1, 5), queryEvent("ROLLBACK")},
			want: "begin 1|insert 0", halt: HaltUnclassified},
		{name: "partly rolled back with rows", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), queryEvent("SAVEPOINT `s`"), mapEvent(1), rowsOf(1, 5), queryEvent("ROLLBACK TO `s`")},
			want: "begin 1|insert 0", halt: HaltUnclassified},
		{name: "compressed", events: [][]byte{gtidEvent(1), payloadEvent(queryEvent("BEGIN"), mapEvent(1), rowsOf(1, 5), rowsOf(1, 6), xidEvent()), gtidEvent(2), queryEvent("DROP TABLE t")},
			want: "begin 1|insert 0|insert 1|end|begin 2|ddl DROP TABLE t|end"},
		{name: "noise", events: [][]byte{raw(replication.PREVIOUS_GTIDS_EVENT, 0, nil), raw(replication.HEARTBEAT_EVENT, 0, []byte("f")), gtidEvent(1), queryEvent("BEGIN"),
			raw(replication.ROWS_QUERY_EVENT, 0, []byte("x")), raw(replication.IGNORABLE_EVENT, 0, nil), raw(200, replication.LOG_EVENT_IGNORABLE_F, nil), xidEvent()}, want: "begin 1|end"},
		{name: "rows without GTID", events: [][]byte{mapEvent(1)}, halt: HaltNoGTID},
		{name: "statement without GTID", events: [][]byte{queryEvent("BEGIN")}, halt: HaltNoGTID},
		{name: "anonymous", events: [][]byte{raw(replication.ANONYMOUS_GTID_EVENT, 0, make([]byte, 50))}, halt: HaltNoGTID},
		{name: "no end", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), gtidEvent(2)}, want: "begin 1", halt: HaltDecode},
		{name: "twice", events: [][]byte{gtidEvent(1), queryEvent("DROP TABLE t"), gtidEvent(1)}, want: "begin 1|ddl DROP TABLE t|end", halt: HaltSplitBrain},
		{name: "a number that was never used", events: [][]byte{gtidEvent(3), queryEvent("DROP TABLE t")}, want: "begin 3|ddl DROP TABLE t|end"},
		{name: "incident", events: [][]byte{gtidEvent(1), raw(replication.INCIDENT_EVENT, 0, append([]byte{1, 0, 4}, "lost"...))}, want: "begin 1", halt: HaltIncident},
		{name: "incident skipped", events: [][]byte{gtidEvent(1), raw(replication.INCIDENT_EVENT, 0, []byte{1, 0, 0}), gtidEvent(2), queryEvent("DROP TABLE t")}, skip: gtidBase + "1",
			want: "begin 1|end|begin 2|ddl DROP TABLE t|end"},
		{name: "unknown", events: [][]byte{gtidEvent(1), raw(200, 0, nil)}, want: "begin 1", halt: HaltDecode},
		{name: "intvar", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), raw(replication.INTVAR_EVENT, 0, make([]byte, 9))}, want: "begin 1", halt: HaltStatement},
		{name: "rand", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), raw(replication.RAND_EVENT, 0, make([]byte, 16))}, want: "begin 1", halt: HaltStatement},
		{name: "DML", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), queryEvent("UPDATE t SET a=1")}, want: "begin 1", halt: HaltStatement},
		{name: "DML behind a comment", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), queryEvent("/* x */ insert into t values (1)")}, want: "begin 1", halt: HaltStatement},
		{name: "DML inside", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), queryEvent("INSERT INTO mysql.x VALUES (1)"), queryEvent("COMMIT")}, want: "begin 1|end"},
		{name: "table made of a query", events: [][]byte{gtidEvent(1), queryEvent("CREATE TABLE x SELECT * FROM t")}, want: "begin 1", halt: HaltStatement},
		{name: "half-way", events: [][]byte{gtidEvent(1), queryWith("DROP TABLE t, u", 1051, nil, 0)}, want: "begin 1", halt: HaltUnclassified},
		{name: "gibberish", events: [][]byte{gtidEvent(1), queryEvent("FROBNICATE t")}, want: "begin 1", halt: HaltUnclassified},
		{name: "gibberish skipped", events: [][]byte{gtidEvent(1), queryEvent("FROBNICATE t"), gtidEvent(2), queryEvent("DROP TABLE t")}, skip: gtidBase + "1", want: "begin 1|end|begin 2|ddl DROP TABLE t|end"},
		{name: "context unknown", events: [][]byte{gtidEvent(1), queryWith("DROP TABLE t", 0, []byte{99}, 0)}, want: "begin 1", halt: HaltDecode},
		{name: "ignored statement", events: [][]byte{gtidEvent(1), queryEvent("FLUSH TABLES"), gtidEvent(2), queryEvent("DROP TEMPORARY TABLE x")}, want: "begin 1|end|begin 2|end"},
		{name: "rows of an unknown map", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), rowsOf(9, 1)}, want: "begin 1", damage: true},
		{name: "rows of a map of the transaction before", events: [][]byte{gtidEvent(1), queryEvent("BEGIN"), mapEvent(1), rowsOf(1, 5), xidEvent(), gtidEvent(2), queryEvent("BEGIN"), rowsOf(1, 1)},
			want: "begin 1|insert 0|end|begin 2", damage: true},

		{name: "XA", events: [][]byte{gtidEvent(1), queryEvent("XA START X'61',X'',1"), mapEvent(1), rowsOf(1, 5), queryEvent("XA END X'61',X'',1"), prepareEvent(0, "a"),
			gtidEvent(2), queryEvent("DROP TABLE u"), gtidEvent(3), queryEvent("XA COMMIT X'61',X'',1")},
			want: "begin 1|begin 2|ddl DROP TABLE u|end|begin 3|begin 1|end|begin 3|insert 0|end"},
		{name: "XA rolled back", events: [][]byte{gtidEvent(1), queryEvent("XA START X'61',X'',1"), mapEvent(1), rowsOf(1, 5), queryEvent("XA END X'61',X'',1"), prepareEvent(0, "a"),
			gtidEvent(2), queryEvent("XA ROLLBACK X'61',X'',1")}, want: "begin 1|begin 2|begin 1|end|begin 2|end"},
		{name: "XA in one phase", events: [][]byte{gtidEvent(1), queryEvent("XA START X'61',X'',1"), mapEvent(1), rowsOf(1, 5), queryEvent("XA END X'61',X'',1"), prepareEvent(1, "a")},
			want: "begin 1|insert 0|end"},
		{name: "XA without its start", events: [][]byte{gtidEvent(2), queryEvent("XA COMMIT X'61',X'',1")}, want: "begin 2", halt: HaltXA},
		{name: "XA of another id", events: [][]byte{gtidEvent(1), queryEvent("XA START X'61',X'',1"), prepareEvent(0, "b")}, want: "begin 1", halt: HaltXA},
		{name: "XA too large", events: [][]byte{gtidEvent(1), queryEvent("XA START X'61',X'',1"), mapEvent(1), rowsOf(1, make([]byte, 300)...)}, want: "begin 1", halt: HaltXA},
		{name: "XA skipped", events: [][]byte{gtidEvent(1), queryEvent("XA START X'61',X'',1"), mapEvent(1), rowsOf(1, 5), queryEvent("XA END X'61',X'',1"), prepareEvent(0, "a"),
			gtidEvent(2), queryEvent("DROP TABLE u")}, skip: gtidBase + "1", want: "begin 1|end|begin 2|ddl DROP TABLE u|end"},

		{name: "MariaDB", flavor: server.MariaDB, events: [][]byte{mariaEvent(1, 1), queryEvent("CREATE TABLE t (id INT)"), mariaEvent(2, 0), mapEvent(1), rowsOf(1, 5), xidEvent(),
			mariaEvent(3, 0), mapEvent(2), rowsOf(2, 5), queryEvent("COMMIT")},
			want: "begin 1|ddl CREATE TABLE t (id INT)|end|begin 2|insert 0|end|begin 3|insert 0|end"},
		{name: "MariaDB gap", flavor: server.MariaDB, events: [][]byte{mariaEvent(1, 1), queryEvent("DROP TABLE t"), mariaEvent(3, 1)}, want: "begin 1|ddl DROP TABLE t|end", halt: HaltGap},
		{name: "MariaDB XA", flavor: server.MariaDB, events: [][]byte{mariaEvent(1, 64)}, halt: HaltXA},
		{name: "MariaDB ALTER in two phases", flavor: server.MariaDB, events: [][]byte{mariaEvent(1, 1), queryWith("ALTER TABLE t ADD x INT", 0, []byte{130, 2}, 0),
			mariaEvent(2, 1), queryWith("ALTER TABLE t ADD x INT", 0, []byte{130, 4, 1, 0, 0, 0, 0, 0, 0, 0}, 0)}, want: "begin 1|end|begin 2|ddl ALTER TABLE t ADD x INT|end"},
	} {
		for _, crc := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", c.name, crc), func(t *testing.T) {
				f := c.flavor
				if f == "" {
					f = server.MySQL
				}
				sink := &tape{}
				var skip []string
				if c.skip != "" {
					skip = []string{c.skip}
				}
				a, r := newTestAssembler(f, sink, skip...)
				defer r.close()
				var err error
				take := func(e *event) error { return a.event(context.Background(), e) }
				for i, e := range append([][]byte{formatEvent("9.7.0", crc)}, c.events...) {
					if e = append([]byte(nil), e...); crc && i > 0 {
						e = summed(e)
					}
					if err = r.read(e, take); err != nil {
						if i != len(c.events) {
							t.Errorf("event %d of %d: %v", i, len(c.events), err)
						}
						break
					}
				}
				if got := strings.Join(sink.lines, "|"); got != c.want {
					t.Errorf("told %s\nwant %s", got, c.want)
				}
				switch h := AsHalt(err); {
				case c.damage:
					if !errors.Is(err, ErrDamaged) {
						t.Errorf("%v, want damage", err)
					}
				case c.halt == "" && err != nil, c.halt != "" && (h == nil || h.Code != c.halt || h.Remedy == ""):
					t.Errorf("%v, want halt %q", err, c.halt)
				}
			})
		}
	}
}

// TestSinkError: the sink's error comes out as it is and stops everything.
func TestSinkError(t *testing.T) {
	sink := &tape{fail: errors.New("full")}
	a, r := newTestAssembler(server.MySQL, sink)
	defer r.close()
	take := func(e *event) error { return a.event(context.Background(), e) }
	if err := r.read(formatEvent("9.7.0", false), take); err != nil {
		t.Fatal(err)
	}
	var se sinkError
	if err := r.read(gtidEvent(1), take); !errors.As(err, &se) || !errors.Is(err, sink.fail) {
		t.Fatalf("%v", err)
	}
}

// quiet is a sink that keeps nothing.
type quiet struct{ rows int }

func (*quiet) Begin(Header) error      { return nil }
func (*quiet) DDL(*change.DDL) error   { return nil }
func (q *quiet) Row(*change.Row) error { q.rows++; return nil }
func (*quiet) End(change.Source) error { return nil }

// TestTransactionsCostNoGarbage: behind the connection, a transaction costs the
// text of its GTID, and its rows nothing.
func TestTransactionsCostNoGarbage(t *testing.T) {
	for _, c := range []struct {
		name   string
		flavor server.Flavor
		begin  [][]byte
		number int // where the GTID's number stands in the first event
	}{
		{"MySQL", server.MySQL, [][]byte{gtidEvent(0), queryEvent("BEGIN")}, headerBytes + 17},
		{"MariaDB", server.MariaDB, [][]byte{mariaEvent(0, 0)}, headerBytes},
	} {
		t.Run(c.name, func(t *testing.T) {
			sink := &quiet{}
			a, r := newTestAssembler(c.flavor, sink)
			take := func(e *event) error { return a.event(context.Background(), e) }
			read := func(b []byte) {
				if err := r.read(b, take); err != nil {
					t.Fatal(err)
				}
			}
			read(formatEvent("9.7.0", true))
			values := make([]byte, 200)
			events := append(c.begin, mapEvent(1), rowsOf(1, values...), mapEvent(1), rowsOf(1, values...), xidEvent())
			scratch := make([]byte, 0, 4096)
			n := uint64(0)
			allocs := testing.AllocsPerRun(200, func() {
				n++
				binary.LittleEndian.PutUint64(events[0][c.number:], n)
				for _, e := range events {
					// As from the connection: one buffer for all.
					scratch = append(scratch[:0], e...)
					binary.LittleEndian.PutUint32(scratch[9:], uint32(len(e)+checksumBytes))
					scratch = binary.LittleEndian.AppendUint32(scratch, crc32.ChecksumIEEE(scratch))
					read(scratch)
				}
			})
			if allocs > 3 || sink.rows != 201*400 {
				t.Errorf("%.1f allocations a transaction, %d rows", allocs, sink.rows)
			}
		})
	}
}

// TestReadRefuses: bytes that are no event.
func TestReadRefuses(t *testing.T) {
	wrongSum := summed(gtidEvent(1))
	wrongSum[len(wrongSum)-1] ^= 1
	wrongSize := gtidEvent(1)
	wrongSize[9]++
	for name, c := range map[string]struct {
		crc bool
		raw []byte
	}{
		"empty": {false, nil}, "short": {false, make([]byte, 18)}, "wrong size": {false, wrongSize}, "wrong checksum": {true, wrongSum},
		"no room for a checksum":     {true, raw(replication.XID_EVENT, 0, []byte{1, 2})},
		"payload cut":                {false, raw(replication.TRANSACTION_PAYLOAD_EVENT, 0, []byte{2, 1})},
		"payload method":             {false, raw(replication.TRANSACTION_PAYLOAD_EVENT, 0, []byte{2, 1, 9, 0})},
		"payload no zstd":            {false, raw(replication.TRANSACTION_PAYLOAD_EVENT, 0, []byte{2, 1, 0, 0, 1, 2, 3, 4, 5})},
		"payload with a huge event":  {false, payloadEvent([]byte{0, 0, 0, 0, 2, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0})},
		"payload with half an event": {false, payloadEvent(queryEvent("BEGIN")[:30])},
	} {
		r := newEventReader(server.MySQL, false)
		if err := r.read(formatEvent("9.7.0", c.crc), func(*event) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if err := r.read(c.raw, func(*event) error { return nil }); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		r.close()
	}
	r := newEventReader(server.MySQL, false)
	if err := r.read(gtidEvent(1), func(*event) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("without a format: %v", err)
	}
}

// FuzzEvents feeds whatever bytes as the next event of an open transaction.
func FuzzEvents(f *testing.F) {
	for _, e := range [][]byte{gtidEvent(2), queryEvent("BEGIN"), queryEvent("XA START X'61',X'',1"), mapEvent(1), rowsOf(1, 1), prepareEvent(0, "a"), xidEvent(),
		payloadEvent(queryEvent("BEGIN"), mapEvent(1), rowsOf(1, 5), xidEvent()), mariaEvent(2, 0), formatEvent("9.7.0", true),
		raw(replication.ROTATE_EVENT, 0, append(make([]byte, 8), "binlog.2"...)), raw(replication.INCIDENT_EVENT, 0, []byte{1, 0, 9}),
		raw(replication.GTID_TAGGED_LOG_EVENT, 0, []byte{2, 0, 1, 2, 3})} {
		f.Add(e, false)
		f.Add(e, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, maria bool) {
		flavor, first := server.MySQL, gtidEvent(1)
		if maria {
			flavor, first = server.MariaDB, mariaEvent(1, 0)
		}
		a, r := newTestAssembler(flavor, &tape{})
		defer r.close()
		take := func(e *event) error { return a.event(context.Background(), e) }
		for _, e := range [][]byte{formatEvent("9.7.0", false), first} {
			if err := r.read(append([]byte(nil), e...), take); err != nil {
				t.Fatal(err)
			}
		}
		if len(b) >= headerBytes {
			b = append([]byte(nil), b...)
			binary.LittleEndian.PutUint32(b[9:], uint32(len(b)))
		}
		err := r.read(b, take)
		if err != nil && AsHalt(err) == nil && !errors.Is(err, ErrDamaged) && !strings.Contains(err.Error(), "no server") {
			t.Fatalf("%v", err)
		}
	})
}
