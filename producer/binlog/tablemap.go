package binlog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/twinspan/twinspan/schema"
)

// What can be wrong with a table map or a row event. All of them stop the
// producer except ErrNoMetadata, whose answer is the catalogue.
var (
	// ErrNoMetadata: the table map does not describe its table completely
	// (binlog_row_metadata is not FULL, or a label is in a character set that
	// only the server can convert). Ask the catalogue and check with Matches.
	ErrNoMetadata = errors.New("the table map does not describe its table completely")
	// ErrMismatch: the table map and the table definition disagree.
	ErrMismatch = errors.New("the table map does not match the table definition")
	// ErrColumnType: a column type that row events can't carry exactly.
	ErrColumnType = errors.New("unsupported column type in a row event")
	// ErrDamaged: the bytes of an event do not follow its format.
	ErrDamaged = errors.New("damaged event")
)

// Field types of the optional metadata that go-mysql does not read.
const optionalVectorLengths = 13

// geometryTypes are the subtypes by the number the table map gives them; the
// order is that of OGC's WKB types.
var geometryTypes = [...]string{
	"geometry", "point", "linestring", "polygon",
	"multipoint", "multilinestring", "multipolygon", "geometrycollection",
}

// TableFromMap builds the table version that a table map with FULL metadata
// describes. cols are the collations of the server that wrote it. It returns
// ErrNoMetadata where the event does not say enough and ErrColumnType where a
// column can't be replicated. The result shares no memory with e.
//
// Format: MySQL source documentation, Table_map_event, "optional metadata
// fields"; MariaDB writes the same fields but for visibility, and counts
// geometry columns among the character columns, as MySQL counts vectors.
func TableFromMap(e *replication.TableMapEvent, cols schema.Collations) (*schema.Table, error) {
	return tableWith(e, cols, nil)
}

// tableWith is TableFromMap with a converter for labels; nil: none.
func tableWith(e *replication.TableMapEvent, cols schema.Collations, convert converter) (*schema.Table, error) {
	name := schema.Name{Schema: string(e.Schema), Table: string(e.Table)}
	t, err := tableFromMap(e, cols, convert)
	if err != nil {
		return nil, fmt.Errorf("table map of %s: %w", name, err)
	}
	t.Name = name
	return t, nil
}

func tableFromMap(e *replication.TableMapEvent, cols schema.Collations, convert converter) (*schema.Table, error) {
	wires, err := wiresOf(e)
	if err != nil {
		return nil, err
	}
	n := len(wires)
	if len(e.ColumnName) != n {
		return nil, fmt.Errorf("%w: %d column names for %d columns", ErrNoMetadata, len(e.ColumnName), n)
	}
	if len(e.NullBitmap) < (n+7)/8 {
		return nil, fmt.Errorf("%w: short null bitmap", ErrDamaged)
	}
	unsigned, err := signs(e, wires)
	if err != nil {
		return nil, err
	}
	text, err := collationIDs("character", e.DefaultCharset, e.ColumnCharset, count(wires, func(i int) bool { return isCharacter(e, wires, i) }))
	if err != nil {
		return nil, err
	}
	labelled, err := collationIDs("enum and set", e.EnumSetDefaultCharset, e.EnumSetColumnCharset, count(wires, func(i int) bool {
		return wires[i].shape == shapeEnum || wires[i].shape == shapeSet
	}))
	if err != nil {
		return nil, err
	}
	vectors := vectorLengths(e)

	t := &schema.Table{Columns: make([]schema.Column, n)}
	var nText, nLabelled, nEnum, nSet, nGeometry, nVector int
	for i, w := range wires {
		c := &t.Columns[i]
		c.Name = string(e.ColumnName[i])
		c.Nullable = e.NullBitmap[i/8]&(1<<(i%8)) != 0
		c.Unsigned = unsigned[i]
		c.Invisible = i/8 < len(e.VisibilityBitmap) && e.VisibilityBitmap[i/8]&(0x80>>(i%8)) == 0

		collation := schema.Collation{Name: "binary", Charset: "binary", MaxLen: 1}
		if isCharacter(e, wires, i) {
			if collation, err = lookup(cols, text[nText]); err != nil {
				return nil, fmt.Errorf("column %s: %w", c.Name, err)
			}
			nText++
		}
		switch w.shape {
		case shapeEnum, shapeSet:
			if collation, err = lookup(cols, labelled[nLabelled]); err != nil {
				return nil, fmt.Errorf("column %s: %w", c.Name, err)
			}
			nLabelled++
			lists, at := e.EnumStrValue, &nEnum
			if w.shape == shapeSet {
				lists, at = e.SetStrValue, &nSet
			}
			if *at >= len(lists) {
				return nil, fmt.Errorf("%w: no labels for column %s", ErrNoMetadata, c.Name)
			}
			if c.Members, err = labels(lists[*at], collation, convert); err != nil {
				return nil, fmt.Errorf("column %s: %w", c.Name, err)
			}
			*at++
		case shapeGeometry:
			if nGeometry >= len(e.GeometryType) {
				return nil, fmt.Errorf("%w: no geometry type for column %s", ErrNoMetadata, c.Name)
			}
			g := e.GeometryType[nGeometry]
			if g >= uint64(len(geometryTypes)) {
				return nil, fmt.Errorf("column %s: geometry type %d: %w", c.Name, g, ErrColumnType)
			}
			c.Geometry = geometryTypes[g]
			nGeometry++
		case shapeVector:
			if nVector >= len(vectors) {
				return nil, fmt.Errorf("%w: no length for vector column %s", ErrNoMetadata, c.Name)
			}
			c.Length = int(vectors[nVector])
			nVector++
		case shapeOldTime, shapeOldDateTime, shapeOldTimestamp:
			// MariaDB's own fractional formats travel under the same type
			// codes, with the fraction's width nowhere in the event.
			return nil, fmt.Errorf("%w: column %s has an old temporal format whose fraction is not in the event", ErrNoMetadata, c.Name)
		}
		w.describe(c, collation)
		if err := w.fits(c); err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
	}
	for k, col := range e.PrimaryKey {
		if col >= uint64(n) || k >= len(e.PrimaryKeyPrefix) || e.PrimaryKeyPrefix[k] > 1<<16 {
			return nil, fmt.Errorf("%w: primary key part %d", ErrDamaged, k)
		}
		t.PrimaryKey = append(t.PrimaryKey, schema.KeyPart{Column: int(col), Prefix: int(e.PrimaryKeyPrefix[k])})
	}
	return t, nil
}

func count(wires []wire, is func(int) bool) int {
	n := 0
	for i := range wires {
		if is(i) {
			n++
		}
	}
	return n
}

// isCharacter tells whether the metadata's character set fields count column i.
func isCharacter(e *replication.TableMapEvent, wires []wire, i int) bool {
	switch wires[i].shape {
	case shapeChar, shapeVarChar, shapeBlob, shapeVector:
		return true
	case shapeGeometry:
		return e.IsCharacterColumn(i) // only for MariaDB
	}
	return false
}

// signs reads which numeric columns are unsigned: one bit for each, from the
// most significant down.
func signs(e *replication.TableMapEvent, wires []wire) ([]bool, error) {
	out := make([]bool, len(wires))
	k := 0
	for i, w := range wires {
		if !w.numeric() {
			continue
		}
		if k/8 >= len(e.SignednessBitmap) {
			return nil, fmt.Errorf("%w: signedness is missing", ErrNoMetadata)
		}
		out[i] = e.SignednessBitmap[k/8]&(0x80>>(k%8)) != 0 && w.shape != shapeYear
		k++
	}
	return out, nil
}

// collationIDs spreads either form of the character set metadata over the n
// columns it speaks of: a default and exceptions, or one for each.
func collationIDs(what string, byDefault, each []uint64, n int) ([]uint64, error) {
	switch {
	case n == 0:
		return nil, nil
	case len(byDefault) > 0:
		out := make([]uint64, n)
		for i := range out {
			out[i] = byDefault[0]
		}
		for i := 1; i+1 < len(byDefault); i += 2 {
			if byDefault[i] >= uint64(n) {
				return nil, fmt.Errorf("%w: collation for %s column %d of %d", ErrDamaged, what, byDefault[i], n)
			}
			out[byDefault[i]] = byDefault[i+1]
		}
		return out, nil
	case len(each) == n:
		return each, nil
	case len(each) == 0:
		return nil, fmt.Errorf("%w: collations of %s columns are missing", ErrNoMetadata, what)
	}
	return nil, fmt.Errorf("%w: %d collations for %d %s columns", ErrDamaged, len(each), n, what)
}

func lookup(cols schema.Collations, id uint64) (schema.Collation, error) {
	if id < 1<<31 {
		if c, ok := cols[int(id)]; ok {
			return c, nil
		}
	}
	return schema.Collation{}, fmt.Errorf("%w: the server did not list collation %d", ErrNoMetadata, id)
}

// vectorLengths finds the lengths of vector columns, in elements. go-mysql
// skips that field, but its slices lie in the event's own buffer, and the null
// bitmap is what stands right before the optional fields: its capacity reaches
// them. What follows them (a checksum) is never reached, since the field is
// always there when there is a vector column. nil where it is not found.
func vectorLengths(e *replication.TableMapEvent) []uint64 {
	rest := e.NullBitmap[len(e.NullBitmap):cap(e.NullBitmap)]
	for len(rest) > 1 {
		field := rest[0]
		size, n, ok := lengthEncoded(rest[1:])
		if !ok || size > uint64(len(rest)-1-n) {
			return nil
		}
		body := rest[1+n : 1+n+int(size)]
		rest = rest[1+n+int(size):]
		if field != optionalVectorLengths {
			continue
		}
		var out []uint64
		for len(body) > 0 {
			v, n, ok := lengthEncoded(body)
			if !ok || v == 0 || v > 1<<20 {
				return nil
			}
			out = append(out, v)
			body = body[n:]
		}
		return out
	}
	return nil
}

// lengthEncoded reads a length-encoded integer: its value, its size in bytes,
// and whether it was whole.
func lengthEncoded(b []byte) (v uint64, n int, ok bool) {
	if len(b) == 0 {
		return 0, 0, false
	}
	switch b[0] {
	case 0xfb, 0xff:
		return 0, 0, false
	case 0xfc:
		if len(b) < 3 {
			return 0, 0, false
		}
		return uint64(binary.LittleEndian.Uint16(b[1:])), 3, true
	case 0xfd:
		if len(b) < 4 {
			return 0, 0, false
		}
		return uint64(b[1]) | uint64(b[2])<<8 | uint64(b[3])<<16, 4, true
	case 0xfe:
		if len(b) < 9 {
			return 0, 0, false
		}
		return binary.LittleEndian.Uint64(b[1:]), 9, true
	}
	return uint64(b[0]), 1, true
}

// wiresOf reads how the event's columns are stored.
func wiresOf(e *replication.TableMapEvent) ([]wire, error) {
	n := int(e.ColumnCount)
	if e.ColumnCount > 4096 || len(e.ColumnType) != n || len(e.ColumnMeta) != n {
		return nil, fmt.Errorf("%w: %d columns, %d types, %d metas", ErrDamaged, e.ColumnCount, len(e.ColumnType), len(e.ColumnMeta))
	}
	out := make([]wire, n)
	for i, code := range e.ColumnType {
		w, err := wireOf(code, e.ColumnMeta[i])
		if err != nil {
			return nil, fmt.Errorf("column %d: %w", i, err)
		}
		out[i] = w
	}
	return out, nil
}

// Matches checks a table from the catalogue against a table map, as far as the
// map tells: the number of columns, their types, lengths, signs and whether
// they may be NULL. It returns ErrMismatch and what differs: the catalogue is
// then of another time than the event.
func Matches(e *replication.TableMapEvent, t *schema.Table) error {
	if err := matches(e, t); err != nil {
		return fmt.Errorf("table map of %s.%s: %w", e.Schema, e.Table, err)
	}
	return nil
}

func matches(e *replication.TableMapEvent, t *schema.Table) error {
	wires, err := wiresOf(e)
	if err != nil {
		return err
	}
	if string(e.Schema) != t.Name.Schema || string(e.Table) != t.Name.Table {
		return fmt.Errorf("%w: the definition is of %s", ErrMismatch, t.Name)
	}
	if len(wires) != len(t.Columns) {
		return fmt.Errorf("%w: %d columns, the definition has %d", ErrMismatch, len(wires), len(t.Columns))
	}
	if len(e.NullBitmap) < (len(wires)+7)/8 {
		return fmt.Errorf("%w: short null bitmap", ErrDamaged)
	}
	unsigned, err := signs(e, wires)
	if errors.Is(err, ErrNoMetadata) {
		unsigned = nil
	} else if err != nil {
		return err
	}
	for i, w := range wires {
		c := &t.Columns[i]
		if len(e.ColumnName) == len(wires) && string(e.ColumnName[i]) != c.Name {
			return fmt.Errorf("%w: column %d is %s, in the definition %s", ErrMismatch, i, e.ColumnName[i], c.Name)
		}
		if err := w.fits(c); err != nil {
			return fmt.Errorf("column %s: %w", c.Name, err)
		}
		if nullable := e.NullBitmap[i/8]&(1<<(i%8)) != 0; nullable != c.Nullable {
			return fmt.Errorf("%w: column %s: nullable is %t, in the definition %t", ErrMismatch, c.Name, nullable, c.Nullable)
		}
		if unsigned != nil && unsigned[i] != c.Unsigned {
			return fmt.Errorf("%w: column %s: unsigned is %t, in the definition %t", ErrMismatch, c.Name, unsigned[i], c.Unsigned)
		}
	}
	return nil
}
