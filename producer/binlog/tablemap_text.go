package binlog

import (
	"fmt"

	"github.com/twinspan/twinspan/schema"
)

// labels are the members of an ENUM or SET in UTF-8. It returns ErrNoMetadata
// where we can't convert exactly as the server does; the catalogue has them in
// UTF-8 already.
func labels(raw [][]byte, c schema.Collation) ([]string, error) {
	out := make([]string, len(raw))
	for i, b := range raw {
		s, ok := schema.ToUTF8(b, c.Charset)
		if !ok {
			return nil, fmt.Errorf("%w: label %x in character set %s", ErrNoMetadata, b, c.Charset)
		}
		out[i] = s
	}
	return out, nil
}
