package wire

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// DescriptorMax bounds an encoded descriptor, in bytes.
const DescriptorMax = 64 << 10

// AppendDescriptor appends the fixed form of a descriptor, in which it travels
// and is stored. Equal descriptors have equal bytes.
func AppendDescriptor(b []byte, x *quorum.Descriptor) []byte {
	b = putText(b, x.Stream)
	b = le.AppendUint32(b, x.Segment)
	b = putOffset(b, x.First)
	b = putOffset(b, x.FirstLSO)
	b = le.AppendUint64(b, uint64(x.Epoch))
	b = le.AppendUint64(b, x.Generation)
	b = putFlag(b, x.Protected)
	b = le.AppendUint32(b, uint32(x.Rule.Total))
	b = le.AppendUint32(b, uint32(len(x.Rule.Cities)))
	for _, city := range slices.Sorted(maps.Keys(x.Rule.Cities)) {
		b = le.AppendUint32(putText(b, city), uint32(x.Rule.Cities[city]))
	}
	b = le.AppendUint32(b, uint32(len(x.Members)))
	for _, m := range x.Members {
		b = putText(putText(putText(b, m.Node), m.UUID), m.City)
	}
	return b
}

// ParseDescriptor is the inverse of AppendDescriptor; all of b must be used up.
// It checks the form alone: whether the rule can be met is for
// Descriptor.Quorum to say. Errors wrap ErrFrame and log.ErrProtocol.
func ParseDescriptor(b []byte) (quorum.Descriptor, error) {
	d := decoder{b: b}
	x := d.descriptor()
	if d.err == nil && len(d.b) > 0 {
		d.err = fmt.Errorf("%d bytes too many", len(d.b))
	}
	if d.err != nil {
		return quorum.Descriptor{}, fmt.Errorf("descriptor of a segment: %w: %w: %w", d.err, ErrFrame, log.ErrProtocol)
	}
	return x, nil
}

// ruleMax bounds the numbers in a rule; no segment has as many nodes.
const ruleMax = 1 << 10

func (d *decoder) descriptor() quorum.Descriptor {
	whole := len(d.b)
	x := quorum.Descriptor{
		Stream: d.text(), Segment: d.u32(), First: d.offset(), FirstLSO: d.offset(), Epoch: log.Epoch(d.u64()),
		Generation: d.u64(), Protected: d.flag(),
	}
	x.Rule.Total = d.small()
	last := ""
	for i := range d.count(8) {
		city, least := d.text(), d.small()
		if d.err != nil {
			return x
		}
		if i > 0 && city <= last {
			d.err = errors.New("the cities of a rule are out of order")
			return x
		}
		if x.Rule.Cities == nil {
			x.Rule.Cities = map[string]int{}
		}
		x.Rule.Cities[city], last = least, city
	}
	n := d.count(12)
	if d.err == nil && n > quorum.NodesMax {
		d.err = fmt.Errorf("%d members", n)
	}
	if d.err != nil {
		return x
	}
	for range n {
		x.Members = append(x.Members, quorum.Member{Node: d.text(), UUID: d.text(), City: d.text()})
	}
	if d.err == nil && whole-len(d.b) > DescriptorMax {
		d.err = fmt.Errorf("descriptor of %d bytes", whole-len(d.b))
	}
	return x
}

func (d *decoder) small() int {
	n := d.u32()
	if d.err == nil && n > ruleMax {
		d.err = fmt.Errorf("%d nodes in a rule", n)
	}
	return int(n)
}
