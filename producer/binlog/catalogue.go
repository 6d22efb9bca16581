package binlog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

const remedyMetadata = "SET GLOBAL binlog_row_metadata=FULL on the server that the producer reads from, and on the others of the set; what was logged " +
	"before that can only be read while no later DDL changes the table: skip the transaction and bring the target in line, or take a new snapshot"

// touchesMax bounds what is remembered of statements between here and the
// server's newest transaction.
const touchesMax = 100_000

// catalogue tells the definition of a table that its table map does not
// describe in full. The server's catalogue knows the definition as of now, and
// the event is older: the two are the same only if no statement in between
// changed the table. So the binlog between the two is scanned for such.
type catalogue struct {
	stream     *Stream
	state      State
	collations schema.Collations
	judge      *judge
	assembler  *assembler

	// What is known of the binlog up to scanned. Transactions that were handed
	// over meanwhile are passed over when asking.
	scanned gtid.Set
	touches []touch
}

// touch is a statement that changed definitions.
type touch struct {
	gtid  string
	names []schema.Name
	all   bool // which, is not known
}

func (c *catalogue) find(ctx context.Context, m *replication.TableMapEvent) (*schema.Table, error) {
	name := schema.Name{Schema: string(m.Schema), Table: string(m.Table)}
	halt := func(err error, format string, args ...any) error {
		return haltf(HaltMetadata, remedyMetadata, format, args...).because(err)
	}
	t, now, err := c.read(ctx, name)
	if errors.Is(err, schema.ErrNoTable) {
		return nil, halt(err, "the binlog does not describe %s in full, and the table is gone", name)
	} else if errors.Is(err, schema.ErrUnsupported) {
		return nil, fmt.Errorf("%w: %w", ErrColumnType, err)
	} else if server.ErrorNumber(err) != 0 {
		return nil, halt(err, "the binlog does not describe %s in full, and the server does not tell its definition", name)
	} else if err != nil {
		return nil, err
	}
	if err := c.scan(ctx, now); err != nil {
		return nil, err
	}
	for _, x := range c.touches {
		if !x.all && !slices.Contains(x.names, name) {
			continue
		}
		past, err := c.assembler.done.ContainsGTID(x.gtid)
		if err != nil {
			return nil, err
		}
		if !past && x.gtid != c.assembler.tx.id {
			return nil, halt(nil, "the binlog does not describe %s in full, and %s changes the table after this", name, x.gtid)
		}
	}
	if err := Matches(m, t); err != nil {
		return nil, halt(err, "the binlog does not describe %s in full, and the server's definition is another one", name)
	}
	return t, nil
}

// read reads the definition, and what the server has executed when it was so. A
// lock on the table's metadata keeps statements that change it from being half
// visible.
func (c *catalogue) read(ctx context.Context, name schema.Name) (t *schema.Table, now gtid.Set, err error) {
	conn, err := c.stream.db.Conn(ctx)
	if err != nil {
		return nil, now, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	for _, q := range []string{
		"SET SESSION lock_wait_timeout=10",
		"START TRANSACTION",
		"SELECT 1 FROM " + server.QuoteName(name.Schema) + "." + server.QuoteName(name.Table) + " LIMIT 0",
	} {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			if n := server.ErrorNumber(err); n == 1146 || n == 1049 {
				err = fmt.Errorf("%w: %w", schema.ErrNoTable, err)
			}
			return nil, now, err
		}
	}
	defer func() {
		_, e := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		err = errors.Join(err, e)
	}()
	if t, err = schema.FromCatalogue(ctx, conn, c.state.Info, c.collations, name); err != nil {
		return nil, now, err
	}
	now, err = executed(ctx, c.stream.db, c.state.Flavor)
	return t, now, err
}

// scan looks through the binlog up to now for statements that change tables.
func (c *catalogue) scan(ctx context.Context, now gtid.Set) error {
	// What was handed over needs no scan.
	if err := c.scanned.Union(*c.assembler.done); err != nil {
		return err
	}
	if c.scanned.Contains(now) {
		return nil
	}
	kept := c.touches[:0]
	for _, x := range c.touches {
		if past, err := c.assembler.done.ContainsGTID(x.gtid); err != nil {
			return err
		} else if !past {
			kept = append(kept, x)
		}
	}
	c.touches = kept
	d, err := openDump(ctx, c.stream.cfg.Server, dumpOptions{
		flavor: c.state.Flavor, from: c.scanned, serverID: c.stream.cfg.ServerID ^ 1<<30, uuid: c.stream.scanUUID,
		heartbeat: c.stream.cfg.Heartbeat, timeout: c.stream.cfg.ReadTimeout, noWait: true,
	})
	if err != nil {
		return err
	}
	defer d.close()
	stop := context.AfterFunc(ctx, d.close)
	defer stop()
	r := newEventReader(c.state.Flavor, d.crc)
	defer r.close()
	s := &scanner{catalogue: c, reader: r, seen: c.scanned.Clone(), ctx: ctx}
	for !s.seen.Contains(now) {
		raw, err := d.next()
		if errors.Is(err, errEnd) { // only ever between transactions
			if err := s.ended(); err != nil {
				return err
			}
			break
		} else if err != nil {
			return fmt.Errorf("scan for statements: %w", err)
		}
		if err := r.read(raw, s.event); err != nil {
			return fmt.Errorf("scan for statements: %w", err)
		}
	}
	if !s.seen.Contains(now) {
		return fmt.Errorf("scan for statements: the binlog ended at %s, before %s", clip(s.seen.String()), clip(now.String()))
	}
	c.scanned = s.seen
	return nil
}

// scanner reads for the statements in a binlog and nothing else.
type scanner struct {
	*catalogue
	ctx    context.Context // of the one scan that it is for
	reader *eventReader
	seen   gtid.Set
	id     string // of the open transaction; it counts as seen once the next begins
}

func (s *scanner) event(e *event) error {
	switch e.typ {
	case replication.GTID_EVENT, replication.GTID_TAGGED_LOG_EVENT, replication.MARIADB_GTID_EVENT:
		if err := s.ended(); err != nil {
			return err
		}
		h, _, err := s.reader.header(e)
		s.id = h.GTID
		return err
	case replication.XID_EVENT, replication.XA_PREPARE_LOG_EVENT:
		return s.ended()
	case replication.QUERY_EVENT, replication.MARIADB_QUERY_COMPRESSED_EVENT:
	default:
		return nil
	}
	ev, err := s.reader.parse(e)
	if err != nil {
		return err
	}
	q, ok := ev.(*replication.QueryEvent)
	if !ok {
		return fmt.Errorf("%w: %s", ErrDamaged, e.typ)
	}
	text := string(q.Query)
	switch word, _ := firstWord(text); word {
	case "BEGIN", "SAVEPOINT", "RELEASE", "XA":
		return nil
	case "COMMIT", "ROLLBACK":
		return s.ended()
	}
	x := touch{gtid: s.id, all: true}
	if session, err := parseContext(q.StatusVars); err == nil {
		d := &change.DDL{Text: text, DefaultSchema: string(q.Schema)}
		session.fill(d)
		if v, changed, all, err := s.judge.decide(s.ctx, d); err == nil {
			if v != verdictShip || !all && len(changed) == 0 {
				return nil
			}
			x.names, x.all = changed, all
		}
	}
	if len(s.touches) >= touchesMax {
		return haltf(HaltMetadata, remedyMetadata, "more than %d statements lie between here and the server's newest transaction", touchesMax)
	}
	s.touches = append(s.touches, x)
	return nil
}

// ended counts the open transaction as seen.
func (s *scanner) ended() error {
	if s.id == "" {
		return nil
	}
	id := s.id
	s.id = ""
	return s.seen.Add(id)
}
