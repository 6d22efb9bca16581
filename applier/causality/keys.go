package causality

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// RoutingVersion names the way rows are hashed onto lanes. Positions of lanes
// that stand apart are only worth anything to code that routes the same way:
// it changes whenever Keys would answer differently for the same row.
const RoutingVersion = 3

// ErrValue: a value has not the kind that its column's type gives it.
var ErrValue = errors.New("value does not fit its column")

// Routing says how the changes of one table find their lane, and which keys
// they touch. It belongs to one source version and one target table, is
// immutable, and safe for concurrent use.
type Routing struct {
	name     schema.Name
	serial   string // why the whole table goes to one lane; "" when it does not
	home     uint64 // the lane hash of a serial table
	keys     []key
	identity int // index into keys
	digest   uint64
}

type key struct {
	seed  uint64 // table and index
	parts []part
	// blocks: the last part is a whole number, so neighbours can share a lane.
	blocks bool
	// single: that is its only part.
	single bool
}

// part is one column of a key.
type part struct {
	column int // into the source's columns
	name   string
	form   form
}

// form appends the canonical bytes of a value that is not NULL: two values that
// the target calls equal have the same.
type form func(dst []byte, v change.Value) ([]byte, error)

// NewRouting reads a table's keys off the target's catalogue, for that is where
// two rows can get in each other's way. The component is the representative of
// the table's foreign-key component, hasComponent false when it has none.
//
// Only the target's equality counts. Two changes of one source row carry the
// same bytes (the after image of one is the before image of the next), so their
// keys agree under any collation.
func NewRouting(flavor server.Flavor, source *schema.Table, t *target.Table, component schema.Name, hasComponent bool) *Routing {
	r := &Routing{name: t.Name, identity: t.Identity, home: tableHash(t.Name)}
	switch {
	case hasComponent:
		r.serial, r.home = "foreign keys", tableHash(component)
	case t.Identity < 0:
		r.serial = "no usable key"
	default:
		for i, k := range t.Keys {
			ck, why := newKey(flavor, source, t, k, i)
			if why != "" {
				r.serial = fmt.Sprintf("key %s: %s", k.Name, why)
				break
			}
			r.keys = append(r.keys, ck)
		}
	}
	if r.serial != "" {
		r.keys, r.identity = nil, -1
	}
	r.digest = r.sum(source, t)
	return r
}

func tableHash(n schema.Name) uint64 {
	return xxhash.Sum64String(strconv.Itoa(len(n.Schema)) + ":" + n.Schema + "." + n.Table)
}

func newKey(flavor server.Flavor, source *schema.Table, t *target.Table, k target.Key, index int) (key, string) {
	if k.Functional {
		return key{}, "a part has no column"
	}
	if len(k.Parts) == 0 {
		return key{}, "no columns"
	}
	ck := key{seed: tableHash(t.Name) ^ xxhash.Sum64String("key:"+strconv.Itoa(index))}
	for _, p := range k.Parts {
		tc := &t.Columns[p.Column]
		at := columnOf(source, tc.Name)
		if at < 0 {
			return key{}, fmt.Sprintf("column %s is not in the source", tc.Name)
		}
		f, why := formOf(flavor, &source.Columns[at], tc, p.Prefix)
		if why != "" {
			return key{}, fmt.Sprintf("column %s: %s", tc.Name, why)
		}
		ck.parts = append(ck.parts, part{column: at, name: tc.Name, form: f})
		ck.blocks = isInteger(source.Columns[at].Type) && isInteger(tc.Type)
	}
	ck.single = ck.blocks && len(ck.parts) == 1
	return ck, ""
}

// columnOf finds a column as the server compares column names.
func columnOf(t *schema.Table, name string) int {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return i
		}
	}
	for i := range t.Columns {
		if strings.EqualFold(t.Columns[i].Name, name) {
			return i
		}
	}
	return -1
}

// sum is what the digest covers: all that decides which lane a row goes to. The
// other keys decide waits only, and no wait outlives the process.
func (r *Routing) sum(source *schema.Table, t *target.Table) uint64 {
	b := binary.BigEndian.AppendUint64(nil, r.home)
	if r.serial != "" {
		return xxhash.Sum64(append(b, "serial"...))
	}
	k := t.Keys[t.Identity]
	b = binary.AppendUvarint(b, uint64(t.Identity))
	for _, p := range k.Parts {
		tc := &t.Columns[p.Column]
		sc := &source.Columns[columnOf(source, tc.Name)]
		b = fmt.Appendf(b, "|%q %d %d %d %q %d", strings.ToLower(tc.Name), p.Prefix, tc.Type, sc.Type, tc.Collation, tc.Scale)
	}
	return xxhash.Sum64(b)
}

// Name is the table's.
func (r *Routing) Name() schema.Name { return r.name }

// Serial says why all changes of the table share one lane; empty: they don't.
func (r *Routing) Serial() string { return r.serial }

// Digest stands for the way from a row to its lane.
func (r *Routing) Digest() uint64 { return r.digest }

// Footprint is what the schedule needs to know of one row change.
type Footprint struct {
	Home uint64 // decides the lane
	// Touches are the keys of the before and the after image, without
	// repetition; nil for a serial table, whose lane alone keeps the order.
	Touches []uint64
}

// Footprint computes the keys that a row change touches, and its lane in a mode. The
// touches are appended to scratch, which may be nil. Error: ErrValue.
func (r *Routing) Footprint(m Mode, scratch []uint64, row *change.Row) (Footprint, error) {
	if r.serial != "" {
		return Footprint{Home: r.home}, nil
	}
	f := Footprint{Touches: scratch}
	haveHome := false
	for k, image := range [2][]change.Value{row.Before, row.After} {
		if image == nil {
			continue
		}
		for i := range r.keys {
			if k == 1 && row.Before != nil && r.keys[i].same(row.Before, image) {
				continue // it touches what the before image did
			}
			h, home, ok, err := r.keys[i].hash(m.blockBits(), image)
			if err != nil {
				return Footprint{}, fmt.Errorf("%s of %s: %w", row.Op, r.name, err)
			}
			if i == r.identity && !haveHome {
				if !ok {
					return Footprint{}, fmt.Errorf("%s of %s: the row's identity is NULL: %w", row.Op, r.name, ErrValue)
				}
				f.Home, haveHome = home, true
			}
			if ok {
				f.Touches = appendNew(f.Touches, len(scratch), h)
			}
		}
	}
	if !haveHome {
		return Footprint{}, fmt.Errorf("%s of %s: no image: %w", row.Op, r.name, ErrValue)
	}
	return f, nil
}

func appendNew(s []uint64, from int, h uint64) []uint64 {
	for _, x := range s[from:] {
		if x == h {
			return s
		}
	}
	return append(s, h)
}

// hash answers with the key's hash, and with its block's, which decides the lane
// of a row whose identity it is. ok is false for a key with a NULL: it conflicts
// with nothing.
func (k *key) hash(blockBits uint, image []change.Value) (h, home uint64, ok bool, err error) {
	if k.single {
		return k.number(blockBits, image)
	}
	buf := forms.Get().(*[]byte)
	defer forms.Put(buf)
	b := binary.BigEndian.AppendUint64((*buf)[:0], k.seed)
	last := 0
	for i := range k.parts {
		p := &k.parts[i]
		v, err := p.of(image)
		if err != nil {
			return 0, 0, false, err
		}
		if v.IsNull() {
			return 0, 0, false, nil
		}
		// Parts can't run into each other: each is followed by its length.
		start := len(b)
		if b, err = p.form(b, v); err != nil {
			return 0, 0, false, fmt.Errorf("column %s: %w", p.name, err)
		}
		last = len(b)
		b = binary.BigEndian.AppendUint32(b, uint32(len(b)-start))
	}
	*buf = b
	h = xxhash.Sum64(b)
	if !k.blocks {
		return h, h, true, nil
	}
	// integerForm ends with the magnitude in eight bytes.
	at := b[last-8 : last]
	binary.BigEndian.PutUint64(at, binary.BigEndian.Uint64(at)>>blockBits)
	return h, xxhash.Sum64(b), true, nil
}

// forms are buffers for the canonical forms of keys.
var forms = sync.Pool{New: func() any { return new([]byte) }}

// number is hash for a key of one whole number, the most common one by far.
func (k *key) number(blockBits uint, image []change.Value) (h, home uint64, ok bool, err error) {
	p := &k.parts[0]
	v, err := p.of(image)
	if err != nil || v.IsNull() {
		return 0, 0, false, err
	}
	sign, u, err := integer(v)
	if err != nil {
		return 0, 0, false, fmt.Errorf("column %s: %w", p.name, err)
	}
	var b [8 + integerSize + 4]byte
	binary.BigEndian.PutUint64(b[:], k.seed)
	b[8] = sign
	binary.BigEndian.PutUint64(b[9:], u)
	binary.BigEndian.PutUint32(b[17:], integerSize)
	h = xxhash.Sum64(b[:])
	binary.BigEndian.PutUint64(b[9:], u>>blockBits)
	return h, xxhash.Sum64(b[:]), true, nil
}

// same: the images have the same bytes in the key. Short ones never have.
func (k *key) same(a, b []change.Value) bool {
	for i := range k.parts {
		if c := k.parts[i].column; c >= len(a) || c >= len(b) || !a[c].Equal(b[c]) {
			return false
		}
	}
	return true
}

// of is the part's value.
func (p *part) of(image []change.Value) (change.Value, error) {
	if p.column >= len(image) {
		return change.Value{}, fmt.Errorf("column %s: image of %d values: %w", p.name, len(image), ErrValue)
	}
	return image[p.column], nil
}
