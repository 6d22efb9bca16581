package node_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/wire"
	"github.com/twinspan/twinspan/log/wire/link"
)

// peer is a greeted connection of a writer that a test plays.
type peer struct {
	*link.Link
	t *testing.T
	n *running
}

func newPeer(t *testing.T, n *running) *peer {
	t.Helper()
	p := &peer{link.New(raw(t, n), link.Options{Idle: 20 * time.Second}), t, n}
	p.send(&wire.Hello{VersionMin: wire.VersionMin, VersionMax: wire.VersionMax, Purpose: wire.PurposeClient, Client: "test"})
	p.expect(&wire.Welcome{})
	return p
}

func (p *peer) send(m wire.Message) {
	p.t.Helper()
	if err := p.Send(m); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) expect(m wire.Message) {
	p.t.Helper()
	if err := p.Expect(p.t.Context(), m); err != nil {
		p.t.Fatal(err)
	}
}

// ended waits for the node to drop the connection.
func (p *peer) ended() {
	p.t.Helper()
	for {
		k, _, err := p.Next(p.t.Context(), wire.BodyMax)
		var silent net.Error
		if errors.As(err, &silent) && silent.Timeout() {
			p.t.Fatal("the connection stays open")
		}
		if err != nil {
			return
		}
		if k != wire.KindError {
			p.t.Fatalf("%v on a connection that should end", k)
		}
	}
}

func (p *peer) attach(stream string) {
	p.t.Helper()
	p.send(&wire.Attach{Epoch: 1, Descriptor: quorum.Descriptor{
		Stream: stream, Segment: 1, FirstLSO: log.None, Epoch: 1, Generation: 1, Rule: quorum.NodeRule{Total: 1},
		Members: []quorum.Member{{Node: "a1", UUID: p.n.Stats().UUID, City: "local"}},
	}})
	p.expect(&wire.Attached{})
}

func (p *peer) append(o log.Offset) {
	p.t.Helper()
	p.send(&wire.Append{Offset: o, LAC: log.None, Topic: log.TopicData, Ends: true, Checksum: segment.Checksum([]byte("x")), Payload: []byte("x")})
}

// TestTally: acknowledgements of several append connections come on one, by their
// numbers, and those connections end with it.
func TestTally(t *testing.T) {
	n, out := startLogged(t, node.Config{})
	tally := newPeer(t, n)
	tally.send(&wire.Tally{})
	var tallied wire.Tallied
	tally.expect(&tallied)
	appenders := map[uint64]*peer{}
	for i, stream := range []string{"s1", "s2", "s3"} {
		p := newPeer(t, n)
		p.send(&wire.Via{Token: tallied.Token, Number: uint64(10 + i)})
		p.attach(stream)
		appenders[uint64(10+i)] = p
	}
	const entries = 50
	for o := range log.Offset(entries) {
		for _, p := range appenders {
			p.append(o)
		}
	}
	last := map[uint64]log.Offset{}
	for done := 0; done < len(appenders); {
		var m wire.Acks
		tally.expect(&m)
		for _, a := range m.Acks {
			if appenders[a.Number] == nil {
				t.Fatalf("an acknowledgement of %d, which is nobody", a.Number)
			}
			if before, ok := last[a.Number]; ok && a.Last <= before {
				t.Fatalf("%d is acknowledged up to %d, and was up to %d", a.Number, a.Last, before)
			}
			if last[a.Number] = a.Last; a.Last == entries-1 {
				done++
			}
		}
	}
	// One that goes takes nobody with it.
	if err := appenders[10].Close(); err != nil {
		t.Fatal(err)
	}
	delete(appenders, 10)
	for _, p := range appenders {
		p.append(entries)
	}
	for told := 0; told < len(appenders); {
		var m wire.Acks
		tally.expect(&m)
		told += len(m.Acks)
	}
	tally.send(&wire.Streams{}) // nothing is asked on a tally
	tally.ended()
	for _, p := range appenders {
		p.ended()
	}
	if !strings.Contains(out.String(), "Streams on a tally") {
		t.Fatalf("the node's log says\n%s", out)
	}
	// Without it there is still the connection itself.
	p := newPeer(t, n)
	p.send(&wire.Via{Token: tallied.Token, Number: 10})
	p.attach("s1")
	p.append(entries)
	var ack wire.Ack
	p.expect(&ack)
	if ack.Last != entries {
		t.Fatalf("acknowledged %d", ack.Last)
	}
}

// TestTallyEndsWithItsClient: its append connections do, too.
func TestTallyEndsWithItsClient(t *testing.T) {
	n, _ := startLogged(t, node.Config{})
	tally := newPeer(t, n)
	tally.send(&wire.Tally{})
	var tallied wire.Tallied
	tally.expect(&tallied)
	p := newPeer(t, n)
	p.send(&wire.Via{Token: tallied.Token, Number: 1})
	p.attach("s")
	if err := tally.Close(); err != nil {
		t.Fatal(err)
	}
	p.ended()
}

// TestTallyOfOldVersion: a program that speaks version 3 knows no tallies.
func TestTallyOfOldVersion(t *testing.T) {
	n, out := startLogged(t, node.Config{})
	for _, m := range []wire.Message{&wire.Tally{}, &wire.Via{}} {
		p := &peer{link.New(raw(t, n), link.Options{Idle: 20 * time.Second}), t, n}
		p.send(&wire.Hello{VersionMin: wire.VersionMin, VersionMax: wire.VersionTally - 1, Purpose: wire.PurposeClient, Client: "old"})
		var welcome wire.Welcome
		p.expect(&welcome)
		p.SetVersion(welcome.Version)
		p.send(m)
		p.ended()
		if !strings.Contains(out.String(), m.Kind().String()+" in version 3") {
			t.Fatalf("the node's log says\n%s", out)
		}
	}
}
