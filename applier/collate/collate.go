// Package collate says when two strings are one to the database: it turns a
// string into weights such that strings which a collation calls equal have the
// same weights. The reverse need not hold: equal weights for strings that
// differ only make the applier wait once too often.
package collate

import (
	"bytes"
	"strings"

	"vitess.io/vitess/go/mysql/collations"
	"vitess.io/vitess/go/mysql/collations/charset"
	"vitess.io/vitess/go/mysql/collations/colldata"

	"github.com/twinspan/twinspan/internal/server"
)

// Weigher computes the weights of one collation. It is immutable and safe for
// concurrent use.
type Weigher struct {
	name    string
	coll    colldata.Collation // nil: binary, bytes are weights
	charset charset.Charset
	// pad is the weight string of one space where trailing ones are cut off;
	// empty where they count.
	pad []byte
}

// environment: the names of MySQL 8 and later, and of MariaDB, for collations
// that vitess implements.
var environment = collations.NewEnvironment("8.0.40")

// Lookup finds a collation by its name on a kind of server. It answers false for
// a collation whose equality it can't reproduce there; a table that has one in
// a key must be applied serially.
//
// What is usable was established by asking the servers (see the tests): every
// collation that vitess implements has the equality of MySQL 9.7, and that of
// MariaDB apart from two families: 0900, which MariaDB 11.4 and later answer
// with UCA 14 under the same names, and croatian, whose contractions differ.
func Lookup(flavor server.Flavor, name string) (*Weigher, bool) {
	name = strings.ToLower(name)
	if name == "binary" {
		return &Weigher{name: name}, true
	}
	if rest, ok := strings.CutPrefix(name, "utf8_"); ok {
		name = "utf8mb3_" + rest
	}
	uca9 := strings.Contains(name, "_0900_")
	if flavor != server.MySQL && (uca9 || strings.Contains(name, "_croatian_")) {
		return nil, false
	}
	coll := colldata.Lookup(environment.LookupByName(name))
	if coll == nil {
		return nil, false
	}
	w := &Weigher{name: name, coll: coll, charset: coll.Charset()}
	// Weights of several levels don't end with the last character's, and all
	// of those collations compare trailing spaces anyway. Collations of one
	// level lose them even where they count (0900_ai_ci): a CHAR column does
	// not keep them, and coarser is safe.
	if !strings.Contains(name, "_as_c") || !uca9 {
		space, err := charset.ConvertFromUTF8(nil, w.charset, []byte{' '})
		if err != nil {
			return nil, false
		}
		w.pad = coll.WeightString(nil, space, 0)
	}
	return w, true
}

// Name is the collation's name.
func (w *Weigher) Name() string { return w.name }

// Append appends the weights of src, a string in the collation's charset, cut to
// its first prefix characters (bytes for binary) when prefix is above 0.
func (w *Weigher) Append(dst, src []byte, prefix int) []byte {
	if w.coll == nil {
		if prefix > 0 && len(src) > prefix {
			src = src[:prefix]
		}
		return append(dst, src...)
	}
	if prefix > 0 && len(src) > prefix {
		src = charset.Slice(w.charset, src, 0, prefix)
	}
	start := len(dst)
	dst = w.coll.WeightString(dst, src, 0)
	if len(w.pad) > 0 {
		for bytes.HasSuffix(dst[start:], w.pad) {
			dst = dst[:len(dst)-len(w.pad)]
		}
	}
	return dst
}
