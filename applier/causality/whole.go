package causality

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/schema"
)

// Whole routes all changes of a table to one lane, as one key: always right, and
// all there is to say of a table that the target has not.
func Whole(n schema.Name, why string) *Routing {
	r := &Routing{name: n, serial: why, identity: -1, home: tableHash(n)}
	r.digest = xxhash.Sum64(append(binary.BigEndian.AppendUint64(nil, r.home), "serial"...))
	return r
}

// TableKey is the key that every change of a table touches besides its own: what
// is done to the table as a whole is done under it.
func TableKey(n schema.Name) uint64 { return tableHash(n) }

// keyVersion names the way keys are hashed; RoutingVersion, how they find a lane.
const keyVersion = 2

// Shape stands for all that decides which keys a table's changes touch, of which
// Digest is the part that decides their lane. Keys that outlive the process are
// only comparable with those of the same shape.
func (r *Routing) Shape(source *schema.Table, t *target.Table) uint64 {
	b := fmt.Appendf(nil, "%d %d %t", keyVersion, r.home, r.serial != "")
	for _, k := range t.Keys {
		if r.serial != "" {
			break // the home is their only key
		}
		b = append(b, '|')
		for _, p := range k.Parts {
			tc := &t.Columns[p.Column]
			sc := &source.Columns[columnOf(source, tc.Name)]
			b = fmt.Appendf(b, " %q %d %d %d %q %d", strings.ToLower(tc.Name), p.Prefix, tc.Type, sc.Type, tc.Collation, tc.Scale)
		}
	}
	if h := xxhash.Sum64(b); h != 0 {
		return h
	}
	return 1 // 0 is for what depends on no key
}
