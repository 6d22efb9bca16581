package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// ErrRegistryFull: a stream has more table versions than the registry may hold.
var ErrRegistryFull = errors.New("too many table versions")

// ErrUnknownVersion: a row names a fingerprint that the schema topic has not
// published. The row can't be decoded, and must not be skipped.
var ErrUnknownVersion = errors.New("unknown table version")

// DefaultVersions is how many versions a registry holds unless told otherwise.
const DefaultVersions = 1 << 20

// Registry holds the table versions of one stream by fingerprint, as the schema
// topic published them. Nothing is ever evicted: any of them may be used again
// by a later row. It is safe for concurrent use.
type Registry struct {
	limit int
	mu    sync.RWMutex
	byFP  map[Fingerprint]published // at most limit
	order []Fingerprint             // as first published
}

type published struct {
	table *Table
	gtid  string
}

// NewRegistry makes an empty registry of at most limit versions; 0 takes
// DefaultVersions.
func NewRegistry(limit int) *Registry {
	if limit <= 0 {
		limit = DefaultVersions
	}
	return &Registry{limit: limit, byFP: make(map[Fingerprint]published)}
}

// Add takes a version in and tells whether it is new. One that is there already
// stays as it is.
func (r *Registry) Add(v TableVersion) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.byFP[v.Fingerprint]; ok {
		return false, nil
	}
	if len(r.byFP) >= r.limit {
		return false, fmt.Errorf("%w: %s would be number %d", ErrRegistryFull, v.Table.Name, r.limit+1)
	}
	r.byFP[v.Fingerprint] = published{v.Table, v.GTID}
	r.order = append(r.order, v.Fingerprint)
	return true, nil
}

// AddEntry decodes the payload of an entry of the schema topic and adds it.
func (r *Registry) AddEntry(payload []byte) (TableVersion, error) {
	v, err := DecodeTableVersion(payload)
	if err != nil {
		return v, err
	}
	_, err = r.Add(v)
	return v, err
}

// Table finds a version; it fails with ErrUnknownVersion.
func (r *Registry) Table(f Fingerprint) (*Table, error) {
	r.mu.RLock()
	p, ok := r.byFP[f]
	r.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("%w %s", ErrUnknownVersion, f.Short())
	}
	return p.table, nil
}

// Has tells whether the version was published.
func (r *Registry) Has(f Fingerprint) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.byFP[f]
	return ok
}

// Len is how many versions there are.
func (r *Registry) Len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.byFP)
}

// Versions lists a table's versions as they were published; the zero Name lists
// those of all tables.
func (r *Registry) Versions(n Name) []TableVersion {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []TableVersion
	for _, f := range r.order {
		if p := r.byFP[f]; n == (Name{}) || p.table.Name == n {
			out = append(out, TableVersion{Table: p.table, Fingerprint: f, AvroSchema: AvroSchema(p.table), GTID: p.gtid})
		}
	}
	return out
}

// Find looks a version up by the first hex digits of its fingerprint, as people
// write them. It fails with ErrUnknownVersion when none or several begin so.
func (r *Registry) Find(prefix string) (*Table, error) {
	prefix = strings.ToLower(prefix)
	r.mu.RLock()
	defer r.mu.RUnlock()
	var hits []Fingerprint
	for _, f := range r.order {
		if strings.HasPrefix(f.String(), prefix) {
			hits = append(hits, f)
		}
	}
	if len(hits) != 1 {
		return nil, fmt.Errorf("%w: %d begin with %q", ErrUnknownVersion, len(hits), prefix)
	}
	return r.byFP[hits[0]].table, nil
}

// Names lists the tables that have versions, sorted.
func (r *Registry) Names() []Name {
	r.mu.RLock()
	defer r.mu.RUnlock()
	seen := map[Name]bool{}
	var out []Name
	for _, p := range r.byFP {
		if !seen[p.table.Name] {
			seen[p.table.Name] = true
			out = append(out, p.table.Name)
		}
	}
	slices.SortFunc(out, Name.Compare)
	return out
}

// Compare orders names by schema, then table, byte by byte.
func (n Name) Compare(m Name) int {
	if c := strings.Compare(n.Schema, m.Schema); c != 0 {
		return c
	}
	return strings.Compare(n.Table, m.Table)
}
