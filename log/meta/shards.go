package meta

import (
	"hash/fnv"
	"maps"
	"slices"
)

const shardCount = 64

// shards is a map that is copied on write: a copy shares all but one small part
// with the original, which is never changed. The zero value is empty.
type shards[V any] struct {
	parts [shardCount]map[string]V
	count int
}

func shardOf(key string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // a hash.Hash never fails
	return int(h.Sum32() % shardCount)
}

func (s *shards[V]) get(key string) (V, bool) {
	v, ok := s.parts[shardOf(key)][key]
	return v, ok
}

// put changes this copy only.
func (s *shards[V]) put(key string, v V) {
	i := shardOf(key)
	part := maps.Clone(s.parts[i])
	if part == nil {
		part = map[string]V{}
	}
	if _, ok := part[key]; !ok {
		s.count++
	}
	part[key] = v
	s.parts[i] = part
}

// remove changes this copy only.
func (s *shards[V]) remove(key string) {
	i := shardOf(key)
	if _, ok := s.parts[i][key]; !ok {
		return
	}
	part := maps.Clone(s.parts[i])
	delete(part, key)
	s.parts[i] = part
	s.count--
}

// keys, sorted.
func (s *shards[V]) keys() []string {
	out := make([]string, 0, s.count)
	for _, part := range s.parts {
		for k := range part {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}
