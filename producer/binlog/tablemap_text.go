package binlog

import (
	"context"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// converter turns labels of a character set that we don't know into UTF-8, all
// or none. It returns ErrNoMetadata where a label can't be converted exactly.
type converter func(charset string, raw [][]byte) ([]string, error)

// labels are the members of an ENUM or SET in UTF-8. What we can't convert
// exactly as the server does goes to convert; without one, or where it can't
// either, labels returns ErrNoMetadata, and the catalogue has them in UTF-8
// already.
func labels(raw [][]byte, c schema.Collation, convert converter) ([]string, error) {
	out := make([]string, len(raw))
	for i, b := range raw {
		s, ok := schema.ToUTF8(b, c.Charset)
		if !ok && convert != nil {
			return convert(c.Charset, raw)
		}
		if !ok {
			return nil, fmt.Errorf("%w: label %x in character set %s", ErrNoMetadata, b, c.Charset)
		}
		out[i] = s
	}
	return out, nil
}

var charsetName = regexp.MustCompile(`^[a-z0-9_]+$`)

// labelsPerQuery keeps below the columns that one result may have.
const labelsPerQuery = 500

// convertByServer lets the server convert, which knows its character sets best.
// A label that does not come back as the same bytes is not exact.
func convertByServer(ctx context.Context, q server.Querier) converter {
	return func(charset string, raw [][]byte) ([]string, error) {
		if !charsetName.MatchString(charset) {
			return nil, fmt.Errorf("%w: character set %q", ErrNoMetadata, charset)
		}
		out := make([]string, 0, len(raw))
		for len(raw) > 0 {
			part := raw[:min(len(raw), labelsPerQuery)]
			raw = raw[len(part):]
			var query strings.Builder
			query.WriteString("SELECT ")
			utf8, back := make([]string, len(part)), make([]string, len(part))
			into := make([]any, 0, 2*len(part))
			for i, b := range part {
				if i > 0 {
					query.WriteString(", ")
				}
				literal := "_" + charset + " x'" + hex.EncodeToString(b) + "'"
				fmt.Fprintf(&query, "HEX(CONVERT(%s USING utf8mb4)), HEX(CONVERT(CONVERT(%s USING utf8mb4) USING %s))", literal, literal, charset)
				into = append(into, &utf8[i], &back[i])
			}
			if err := q.QueryRowContext(ctx, query.String()).Scan(into...); err != nil {
				if server.ErrorNumber(err) != 0 {
					return nil, fmt.Errorf("%w: labels in character set %s: %w", ErrNoMetadata, charset, err)
				}
				return nil, fmt.Errorf("convert labels from character set %s: %w", charset, err)
			}
			for i, b := range part {
				text, err := hex.DecodeString(utf8[i])
				if err != nil || !strings.EqualFold(back[i], hex.EncodeToString(b)) {
					return nil, fmt.Errorf("%w: label %x in character set %s", ErrNoMetadata, b, charset)
				}
				out = append(out, string(text))
			}
		}
		return out, nil
	}
}
