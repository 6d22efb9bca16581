package binlog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/twinspan/twinspan/schema"
)

// tablesMax bounds the table maps that are remembered. Beyond it all are
// forgotten and built again as they come: a server with more tables in turn use
// is slower, not wrong.
const tablesMax = 10_000

// tableMap is a decoded table map: the table version and how its rows are stored.
type tableMap struct {
	name    schema.Name
	decoder *Decoder // nil for a table that is not shipped
}

// tables remembers the table maps of one dump. Most statements repeat a map
// that was there before, byte for byte but for the table id.
type tables struct {
	collations schema.Collations
	internal   map[string]bool // schemas that are never shipped
	// convert makes a converter of labels; nil: none.
	convert func(context.Context) converter
	// catalogue finds a table that the map does not describe.
	catalogue func(context.Context, *replication.TableMapEvent) (*schema.Table, error)

	byContent map[string]*tableMap // by the map's body without the table id
	current   map[uint64]*tableMap // by table id, of the open transaction
	fromMaps  map[schema.Fingerprint]*schema.Table
}

func (t *tables) reset() {
	t.byContent, t.current, t.fromMaps = map[string]*tableMap{}, map[uint64]*tableMap{}, map[schema.Fingerprint]*schema.Table{}
}

const tableIDBytes = 6

// define takes in a table map event.
func (t *tables) define(ctx context.Context, r *eventReader, e *event) error {
	if len(e.body) < tableIDBytes {
		return fmt.Errorf("%w: table map of %d bytes", ErrDamaged, len(e.body))
	}
	f := fieldReader{b: e.body}
	id := uint64(f.u32()) | uint64(f.u16())<<32
	m, known := t.byContent[string(e.body[tableIDBytes:])]
	if !known {
		var err error
		if m, err = t.build(ctx, r, e); err != nil {
			return err
		}
		if len(t.byContent) >= tablesMax {
			t.byContent, t.fromMaps = map[string]*tableMap{}, map[schema.Fingerprint]*schema.Table{}
		}
		t.byContent[string(e.body[tableIDBytes:])] = m
	}
	t.current[id] = m
	return nil
}

func (t *tables) build(ctx context.Context, r *eventReader, e *event) (*tableMap, error) {
	ev, err := r.tableMap(e)
	if err != nil {
		return nil, err
	}
	m := &tableMap{name: schema.Name{Schema: string(ev.Schema), Table: string(ev.Table)}}
	if t.internal[m.name.Schema] {
		return m, nil
	}
	var convert converter
	if t.convert != nil {
		convert = t.convert(ctx)
	}
	table, err := tableWith(ev, t.collations, convert)
	if errors.Is(err, ErrNoMetadata) {
		table, err = t.catalogue(ctx, ev)
	}
	if err != nil {
		return nil, err
	}
	// One version, one pointer: maps of one table differ in what a
	// fingerprint leaves out.
	fp := schema.FingerprintOf(table)
	if known := t.fromMaps[fp]; known != nil {
		table = known
	} else {
		t.fromMaps[fp] = table
	}
	m.decoder, err = NewDecoder(table, ev)
	return m, err
}

// forget drops what is known of tables whose definition may have changed. What a
// map tells in full would need no forgetting, but the catalogue's answers do.
func (t *tables) forget(names []schema.Name, all bool) {
	if all {
		t.byContent = map[string]*tableMap{}
		return
	}
	for content, m := range t.byContent {
		if slices.Contains(names, m.name) {
			delete(t.byContent, content)
		}
	}
}
