package schema

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrVersion is wrapped by errors about an entry of the schema topic.
var ErrVersion = errors.New("bad table version")

// TableVersion is what an entry of the schema topic says.
type TableVersion struct {
	Table       *Table
	Fingerprint Fingerprint
	// AvroSchema decodes the payloads of the version's rows with any Avro
	// library.
	AvroSchema string
	GTID       string // the transaction that used it first; empty where not known
}

// NewTableVersion describes a valid table.
func NewTableVersion(t *Table, gtid string) (TableVersion, error) {
	if err := t.Validate(); err != nil {
		return TableVersion{}, err
	}
	return TableVersion{Table: t, Fingerprint: FingerprintOf(t), AvroSchema: AvroSchema(t), GTID: gtid}, nil
}

// Encode is the entry's payload: Avro binary of TableVersionSchema.
func (v TableVersion) Encode() ([]byte, error) {
	descriptor, err := json.Marshal(v.Table)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", v.Table.Name, err)
	}
	str := func(b []byte, s string) []byte {
		return append(binary.AppendVarint(b, int64(len(s))), s...)
	}
	b := make([]byte, 0, len(descriptor)+len(v.AvroSchema)+len(v.GTID)+128)
	b = str(b, v.Table.Name.String())
	b = append(b, v.Fingerprint[:]...)
	b = str(b, v.AvroSchema)
	b = str(b, string(descriptor))
	return str(b, v.GTID), nil
}

// DecodeTableVersion reads an entry of the schema topic. It fails with ErrVersion
// when the bytes are not one, the definition is not valid, or the fingerprint is
// not that of the definition. It copies what it keeps.
func DecodeTableVersion(payload []byte) (TableVersion, error) {
	v, name, err := decodeTableVersion(payload)
	switch {
	case err != nil:
		return TableVersion{}, fmt.Errorf("%w: %w", ErrVersion, err)
	case FingerprintOf(v.Table) != v.Fingerprint:
		return TableVersion{}, fmt.Errorf("%w: %s has fingerprint %s, the entry says %s",
			ErrVersion, v.Table.Name, FingerprintOf(v.Table).Short(), v.Fingerprint.Short())
	case name != v.Table.Name.String():
		return TableVersion{}, fmt.Errorf("%w: of %s, but it describes %s", ErrVersion, name, v.Table.Name)
	}
	return v, nil
}

func decodeTableVersion(b []byte) (v TableVersion, name string, err error) {
	str := func(what string) string {
		if err != nil {
			return ""
		}
		n, size := binary.Varint(b)
		if size <= 0 || n < 0 || n > int64(len(b)-size) {
			err = fmt.Errorf("%s is cut short", what)
			return ""
		}
		s := string(b[size : size+int(n)])
		b = b[size+int(n):]
		return s
	}
	name = str("table_name")
	if err == nil && len(b) < len(v.Fingerprint) {
		err = errors.New("fingerprint is cut short")
	}
	if err == nil {
		b = b[copy(v.Fingerprint[:], b):]
	}
	v.AvroSchema = str("avro_schema")
	descriptor := str("descriptor")
	v.GTID = str("gtid")
	if err == nil && len(b) > 0 {
		err = fmt.Errorf("%d bytes too many", len(b))
	}
	if err != nil {
		return v, name, err
	}
	v.Table = new(Table)
	if err := json.Unmarshal([]byte(descriptor), v.Table); err != nil {
		return v, name, fmt.Errorf("descriptor: %w", err)
	}
	return v, name, v.Table.Validate()
}
