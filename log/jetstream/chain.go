package jetstream

import (
	"context"
	"errors"
	"fmt"

	"github.com/twinspan/twinspan/log"
)

// chain decides which messages count, from the messages before them alone, so
// that everyone comes to the same result. Behind a fence, the entries of its
// writer count as long as each is the direct successor of the one before. The
// first message that is not (of an older writer, which a server took although it
// was fenced; or of the writer itself, behind one of its own that was refused)
// ends that: nothing counts from there to the next fence. What a writer saw
// confirmed lies before that place, since it saw each sequence up to there.
type chain struct {
	fence  uint64     // sequence of the newest fence; 0: none yet
	epoch  log.Epoch  // of that fence
	seq    uint64     // of the newest message
	next   log.Offset // the entry that would count
	broken bool
}

// errHole: messages are missing.
var errHole = errors.New("messages are missing")

// step takes the next message and says whether it is an entry that counts.
func (c *chain) step(m message) (counts bool, err error) {
	k := &m.mark
	if m.seq != c.seq+1 {
		return false, fmt.Errorf("message %d where %d should come: %w", m.seq, c.seq+1, errHole)
	}
	c.seq = m.seq
	switch {
	case k.fence:
		if k.opened != c.fence || k.offset != c.next-1 || k.epoch <= c.epoch {
			return false, fmt.Errorf("message %d, a fence of epoch %d behind the one at %d and entry %d, follows the fence at %d and entry %d: %w",
				m.seq, k.epoch, k.opened, k.offset, c.fence, c.next-1, log.ErrSuspect)
		}
		c.fence, c.epoch, c.broken = m.seq, k.epoch, false
		return false, nil
	case k.opened > c.fence:
		return false, fmt.Errorf("the fence at %d before message %d is missing: %w", k.opened, m.seq, log.ErrSuspect)
	case c.broken || k.opened < c.fence || k.offset != c.next:
		c.broken = true
		return false, nil
	}
	c.next++
	return true, nil
}

// errWalked is the end of a walk, not an error.
var errWalked = errors.New("walked")

// walk follows the chain up to a sequence, without payloads. t is where it
// begins, and then where it ends.
func (l *Log) walk(ctx context.Context, n names, t *tail, upto uint64) error {
	c := t.chain()
	p := &pull{
		log: l, names: n, bare: true, next: t.valid + 1,
		room: func(context.Context) (int64, error) { return 1 << 20, nil },
		take: func(m message) error {
			counts, err := c.step(m)
			if err != nil {
				return err
			}
			if counts {
				t.at(m)
			}
			if m.seq >= upto {
				return errWalked
			}
			return nil
		},
	}
	if err := p.run(ctx); !errors.Is(err, errWalked) {
		return err
	}
	return nil
}
