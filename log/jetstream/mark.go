package jetstream

import (
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twinspan/twinspan/log"
)

// markHeader is the one header of ours in each message; its value is a mark.
const markHeader = "Twinspan"

// topicsMax bounds the topics of one stream, and so the length of a mark.
const topicsMax = 64

// mark says what a message is and where the stream stood with it. One message
// alone, whichever it is, tells the whole state of its stream up to itself, so
// nothing else has to be kept consistent with the messages.
type mark struct {
	fence  bool       // the message opens an epoch and is no entry
	epoch  log.Epoch  // of the writer
	offset log.Offset // of the entry; of a fence: of the last entry before it
	lso    log.Offset // newest entry up to offset that ends a transaction
	lac    log.Offset // what the writer had seen confirmed when it sent the entry
	opened uint64     // stream sequence of the epoch's fence; of a fence: of the one before it
	ends   bool       // the entry ends a transaction
	topic  log.Topic  // of the entry
	time   time.Time  // the writer's clock, microseconds
	// last is the newest entry of each topic, up to offset.
	last map[log.Topic]log.Offset
	// nonce tells a fence from another one of the same epoch.
	nonce string
}

const (
	kindEntry = "e"
	kindFence = "f"
	format    = "1"
)

// encode writes the mark: fields separated by spaces, the first one the format,
// the last one a CRC-32C over the text before it and the payload.
func (m *mark) encode(payload []byte) string {
	b := make([]byte, 0, 128)
	b = append(b, format...)
	if m.fence {
		b = append(b, ' ', 'f')
	} else {
		b = append(b, ' ', 'e')
	}
	for _, v := range []int64{int64(m.epoch), int64(m.offset), int64(m.lso), int64(m.lac), int64(m.opened), int64(m.topic), m.time.UnixMicro()} {
		b = append(b, ' ')
		b = strconv.AppendInt(b, v, 10)
	}
	b = append(b, ' ')
	if m.ends {
		b = append(b, '1')
	} else {
		b = append(b, '0')
	}
	b = append(b, ' ')
	for i, t := range slices.Sorted(maps.Keys(m.last)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(t), 10)
		b = append(b, ':')
		b = strconv.AppendInt(b, int64(m.last[t]), 10)
	}
	if len(m.last) == 0 {
		b = append(b, '-')
	}
	b = append(b, ' ')
	if m.nonce == "" {
		b = append(b, '-')
	} else {
		b = append(b, m.nonce...)
	}
	sum := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, payload)
	b = append(b, ' ')
	return string(strconv.AppendUint(b, uint64(sum), 16))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// parseMark is the inverse of encode. check is false where the payload was left
// behind. Whatever is not a mark of ours, or does not fit its checksum, is
// log.ErrSuspect: nobody else may write to the stream.
func parseMark(text string, payload []byte, check bool) (mark, error) {
	m, sum, err := splitMark(text)
	if err != nil {
		return mark{}, fmt.Errorf("mark %.200q: %w: %w", text, err, log.ErrSuspect)
	}
	if check {
		head := text[:strings.LastIndexByte(text, ' ')]
		if got := crc32.Update(crc32.Checksum([]byte(head), castagnoli), castagnoli, payload); got != sum {
			return mark{}, fmt.Errorf("mark %.200q with %d bytes: checksum %08x: %w", text, len(payload), got, log.ErrSuspect)
		}
	}
	return m, nil
}

func splitMark(text string) (mark, uint32, error) {
	f := strings.Split(text, " ")
	if len(f) != 13 || f[0] != format || f[1] != kindEntry && f[1] != kindFence {
		return mark{}, 0, fmt.Errorf("not a mark of format %s", format)
	}
	m := mark{fence: f[1] == kindFence}
	var v [7]int64
	for i := range v {
		var err error
		if v[i], err = strconv.ParseInt(f[2+i], 10, 64); err != nil {
			return mark{}, 0, err
		}
	}
	m.epoch, m.offset, m.lso, m.lac = log.Epoch(v[0]), log.Offset(v[1]), log.Offset(v[2]), log.Offset(v[3])
	m.opened, m.topic, m.time = uint64(v[4]), log.Topic(v[5]), time.UnixMicro(v[6]).UTC()
	if v[0] <= 0 || v[1] < -1 || v[2] < -1 || v[2] > v[1] || v[3] < -1 || v[3] > v[1] || v[4] < 0 || v[5] < 0 || v[5] > 1<<16-1 {
		return mark{}, 0, fmt.Errorf("a field is out of range")
	}
	switch f[9] {
	case "0":
	case "1":
		m.ends = true
	default:
		return mark{}, 0, fmt.Errorf("flag %q", f[9])
	}
	if f[10] != "-" {
		pairs := strings.Split(f[10], ",")
		if len(pairs) > topicsMax {
			return mark{}, 0, fmt.Errorf("%d topics", len(pairs))
		}
		m.last = make(map[log.Topic]log.Offset, len(pairs))
		for _, p := range pairs {
			a, b, _ := strings.Cut(p, ":")
			t, err := strconv.ParseUint(a, 10, 16)
			if err != nil {
				return mark{}, 0, err
			}
			o, err := strconv.ParseInt(b, 10, 64)
			if err != nil {
				return mark{}, 0, err
			}
			if o < 0 || o > v[1] {
				return mark{}, 0, fmt.Errorf("topic %d ends at %d", t, o)
			}
			m.last[log.Topic(t)] = log.Offset(o)
		}
	}
	if f[11] != "-" {
		m.nonce = f[11]
	}
	sum, err := strconv.ParseUint(f[12], 16, 32)
	return m, uint32(sum), err
}
