package wire

import (
	"errors"
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/log"
)

// Error ends a request or a connection. Code names the sentinel.
type Error struct {
	Code uint16
	Text string
}

// Kind is KindError.
func (*Error) Kind() Kind               { return KindError }
func (m *Error) encode(b []byte) []byte { return putText(le.AppendUint16(b, m.Code), m.Text) }
func (m *Error) decode(d *decoder)      { m.Code, m.Text = d.u16(), d.text() }

// codes are fixed for ever; the index in the table is the code. The order also
// decides which one travels when an error wraps several, but that
// log.ErrUnavailable says the least.
var codes = [...]error{
	1: log.ErrFenced, 2: log.ErrSuspect, 3: log.ErrTrimmed, 4: log.ErrNoStream, 5: log.ErrTooLarge,
	6: log.ErrCursorBehind, 7: log.ErrIdentity, 8: log.ErrFull, 9: log.ErrUnknown, 10: log.ErrProtocol,
	11: log.ErrClosed, 12: log.ErrUnavailable, 13: log.ErrElsewhere, 14: log.ErrGeneration,
	15: log.ErrStale,
}

const textMax = 2 << 10

// ErrorOf is the message for err. An error without a sentinel becomes
// log.ErrUnavailable: the client may try again. log.ErrClosed, too: it is the
// node that is closing, not the client.
func ErrorOf(err error) *Error {
	m := &Error{Code: 12, Text: strings.ToValidUTF8(err.Error(), "?")}
	for code, sentinel := range codes {
		if sentinel != nil && !errors.Is(sentinel, log.ErrUnavailable) && errors.Is(err, sentinel) {
			m.Code = uint16(code)
			break
		}
	}
	if errors.Is(err, log.ErrClosed) {
		m.Code = 12
	}
	if len(m.Text) > textMax {
		m.Text = strings.ToValidUTF8(m.Text[:textMax], "")
	}
	return m
}

// Err is the error on the receiving side. It wraps the sentinel.
func (m *Error) Err() error {
	if int(m.Code) < len(codes) && codes[m.Code] != nil {
		return &remoteError{m.Text, codes[m.Code]}
	}
	return &remoteError{fmt.Sprintf("error code %d: %s", m.Code, m.Text), log.ErrUnavailable}
}

type remoteError struct {
	text     string
	sentinel error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.sentinel }

// Remote tells the error of an answer from one of the way there.
func (e *remoteError) Remote() bool { return true }
