package conflicts

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/twinspan/twinspan/change"
)

// text is a value for people: what a client shows, bytes as 0x…, cut short.
func text(v change.Value) string {
	switch v.Kind() {
	case change.Integer, change.Ordinal:
		return strconv.FormatInt(v.Integer(), 10)
	case change.Single:
		return strconv.FormatFloat(float64(v.Single()), 'g', -1, 32)
	case change.Real:
		return strconv.FormatFloat(v.Real(), 'g', -1, 64)
	case change.Bytes:
		b := v.Bytes()
		if len(b) > valueBytes/2 {
			return fmt.Sprintf("0x%s… (%d bytes)", hex.EncodeToString(b[:valueBytes/2]), len(b))
		}
		return "0x" + hex.EncodeToString(b)
	}
	b := v.Bytes()
	s := string(b[:min(len(b), valueBytes)])
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(b) > valueBytes {
		s += fmt.Sprintf("… (%d bytes)", len(b))
	}
	return s
}
