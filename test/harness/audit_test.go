package harness

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEnumerate(t *testing.T) {
	for _, c := range []struct {
		name, set string
		mariadb   bool
		want      []string
	}{
		{"empty", "", false, nil},
		{"one", "u1:5", false, []string{"u1:5"}},
		{"intervals", "u1:1-2:4", false, []string{"u1:1", "u1:2", "u1:4"}},
		{"sources", "u1:1,\nu2:7", false, []string{"u1:1", "u2:7"}},
		{"tags", "u1:1-2:tag:1:3-4:other:9", false, []string{"u1:1", "u1:2", "u1:other:9", "u1:tag:1", "u1:tag:3", "u1:tag:4"}},
		{"mariadb", "0-1-2,7-9-1", true, []string{"0-1-1", "0-1-2", "7-9-1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := enumerate(c.set, c.mariadb)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, slices.Sorted(maps.Keys(got))); d != "" {
				t.Error(d)
			}
		})
	}
}
