package binlog

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/schema"
)

// The server converts what we can't, and refuses what would not come back.
func TestLabelsByTheServer(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			s, _ := mysqltest.Shared(t, f)
			convert := convertByServer(t.Context(), s.DB())
			for _, c := range []struct {
				name, charset string
				raw           [][]byte
				want          []string // nil: ErrNoMetadata
			}{
				{"gbk", "gbk", [][]byte{{0xb6, 0xa9, 0xb5, 0xa5}, []byte("it's"), {}, {0xb3, 0xc7}}, []string{"订单", "it's", "", "城"}},
				{"big5", "big5", [][]byte{{0xad, 0x71}}, []string{"訂"}},
				{"damaged", "gbk", [][]byte{{0xff, 0xff}}, nil},
				{"unknown", "no_such", [][]byte{{0x61, 0xff}}, nil},
				{"hostile", "x'; DROP", [][]byte{{0xff}}, nil},
			} {
				t.Run(c.name, func(t *testing.T) {
					got, err := convert(c.charset, c.raw)
					if c.want == nil {
						if !errors.Is(err, ErrNoMetadata) {
							t.Errorf("%q, %v; want ErrNoMetadata", got, err)
						}
						return
					}
					if d := cmp.Diff(c.want, got); err != nil || d != "" {
						t.Errorf("%v\n%s", err, d)
					}
				})
			}
			many := make([][]byte, 2*labelsPerQuery+1)
			for i := range many {
				many[i] = []byte{0xb6, 0xa9, byte('0' + i%10)}
			}
			got, err := labels(many, schema.Collation{Charset: "gbk"}, convert)
			if err != nil || len(got) != len(many) || got[len(got)-1] != "订0" {
				t.Errorf("%d labels: %v", len(got), err)
			}
		})
	}
}
