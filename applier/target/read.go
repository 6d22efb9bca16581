package target

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// selectExpression gives a target column's value in a text that loses nothing,
// for readValue.
func (p *Plan) selectExpression(dst []byte, c int) []byte {
	col := p.quoted[c]
	if col == nil {
		return append(dst, "NULL"...) // a hidden column
	}
	wrap := func(before, after string) []byte {
		return append(append(append(dst, before...), col...), after...)
	}
	switch w := &p.writers[c]; w.form {
	case formSingle, formReal: // a FLOAT's own text has six digits
		return wrap("CAST(", " AS DOUBLE)")
	case formEnum, formSet, formBits:
		return wrap("CAST(", " AS UNSIGNED)")
	case formDocument:
		return wrap("CAST(", " AS CHAR CHARACTER SET utf8mb4)")
	case formHex, formBinary:
		if w.typ != schema.Geometry && w.typ != schema.Vector {
			return wrap("HEX(CAST(", " AS BINARY))")
		}
		return wrap("HEX(", ")")
	case formEncoded: // into the source's charset, then its bytes
		return wrap("HEX(CAST(CONVERT(", " USING "+charsetName(p.source.Columns[c].Charset)+") AS BINARY))")
	}
	return append(dst, col...)
}

// readValue is the inverse of selectExpression. raw is nil for NULL; the value
// does not keep it.
func (p *Plan) readValue(c int, raw []byte) (change.Value, error) {
	if raw == nil {
		return change.Value{}, nil
	}
	w := &p.writers[c]
	src := &p.source.Columns[c]
	switch w.form {
	case formNumber:
		if src.Type == schema.Decimal || src.Type == schema.BigInt && src.Unsigned {
			return change.TextOf(append([]byte(nil), raw...)), nil
		}
		n, err := strconv.ParseInt(string(raw), 10, 64)
		return change.IntegerOf(n), err
	case formSingle:
		f, err := strconv.ParseFloat(string(raw), 32)
		return change.SingleOf(float32(f)), err
	case formReal:
		f, err := strconv.ParseFloat(string(raw), 64)
		return change.RealOf(f), err
	case formHex, formBinary, formEncoded:
		b, err := hex.DecodeString(string(raw))
		return change.BytesOf(b), err
	case formDocument, formPlainJSON:
		return change.DocumentOf(append([]byte(nil), raw...), nil), nil
	case formBits:
		n, err := strconv.ParseUint(string(raw), 10, 64)
		b := make([]byte, (src.Length+7)/8)
		for i := len(b) - 1; i >= 0; i-- {
			b[i], n = byte(n), n>>8
		}
		return change.BytesOf(b), err
	case formEnum, formSet:
		return w.readMembers(raw, src)
	}
	return change.TextOf(append([]byte(nil), raw...)), nil
}

func (w *writer) readMembers(raw []byte, src *schema.Column) (change.Value, error) {
	n, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil {
		return change.Value{}, err
	}
	if w.form == formEnum && n == 0 {
		return change.OrdinalOf(0), nil
	}
	var labels []byte
	for _, m := range src.Members {
		o := w.ordinals[m]
		switch {
		case w.form == formEnum && o == n:
			return change.TextOf([]byte(m)), nil
		case w.form == formSet && n&o != 0:
			if len(labels) > 0 {
				labels = append(labels, ',')
			}
			labels = append(labels, m...)
			n &^= o
		}
	}
	if w.form == formEnum || n != 0 {
		return change.Value{}, fmt.Errorf("the source has no label for %s", raw)
	}
	return change.TextOf(append([]byte{}, labels...)), nil
}

// holder reads the row that holds one of the image's other unique keys.
func (r *run) holder(image []change.Value, key *otherKey) ([]change.Value, error) {
	if key.opaque || len(key.parts) == 0 {
		return nil, nil
	}
	p := r.p
	r.sql = append(r.sql[:0], "SELECT "...)
	for i := range p.source.Columns {
		if i > 0 {
			r.sql = append(r.sql, ',')
		}
		r.sql = p.selectExpression(r.sql, i)
	}
	r.sql = append(append(append(r.sql, " FROM "...), p.name...), " WHERE "...)
	for n, k := range key.parts {
		if image[k.column].IsNull() {
			return nil, nil // NULL conflicts with nothing
		}
		if n > 0 {
			r.sql = append(r.sql, " AND "...)
		}
		if err := r.keyPart(k, image[k.column]); err != nil {
			return nil, fmt.Errorf("%w: %w", errValue, err)
		}
	}
	if p.key != nil {
		r.sql = append(r.sql, " AND NOT ("...)
		if err := r.identity(image, false); err != nil {
			return nil, fmt.Errorf("%w: %w", errValue, err)
		}
		r.sql = append(r.sql, ')')
	}
	r.out.Statements++
	rows, err := r.conn.QueryContext(r.ctx, string(append(r.sql, " LIMIT 1"...)))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	if !rows.Next() {
		return nil, rows.Err()
	}
	raw, err := scanRaw(rows, len(p.source.Columns))
	if err != nil {
		return nil, err
	}
	held := make([]change.Value, len(raw))
	for i := range raw {
		if held[i], err = p.readValue(i, raw[i]); err != nil {
			return nil, fmt.Errorf("read column %q of %s: %w", p.source.Columns[i].Name, p.table.Name, err)
		}
	}
	return held, rows.Err()
}

// conflict finds out which unique key of the image another row holds.
func (r *run) conflict(i int, image []change.Value, duplicate error) error {
	c := &Conflict{Table: r.p.table.Name, Index: i, Row: r.rows[i], Err: duplicate}
	for k := range r.p.others {
		key := &r.p.others[k]
		if key.opaque {
			if c.Key == "" {
				c.Key = key.name
			}
			continue
		}
		held, err := r.holder(image, key)
		if err != nil {
			return err
		}
		if held != nil {
			c.Key, c.Holder, c.HolderIdentity = key.name, held, r.p.describe(held)
			return c
		}
	}
	return c
}
