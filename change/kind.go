package change

// String names the kind, for errors and tests.
func (k Kind) String() string {
	switch k {
	case Null:
		return "null"
	case Integer:
		return "integer"
	case Single:
		return "single"
	case Real:
		return "real"
	case Text:
		return "text"
	case Bytes:
		return "bytes"
	case Document:
		return "document"
	case Ordinal:
		return "ordinal"
	}
	return "invalid"
}
