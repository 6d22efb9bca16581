package node_test

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/conformance"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/vfs"
)

// running is a node that the test's end stops.
type running struct {
	*node.Node
	cancel context.CancelFunc
	done   chan error // Run's result
	ended  bool
}

func start(t testing.TB, c node.Config) *running {
	t.Helper()
	if c.Name == "" {
		c.Name = "a1"
	}
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	if c.FS != nil && c.MetaDir == "" {
		c.MetaDir = t.TempDir()
	}
	if c.FileBytes == 0 {
		c.FileBytes = 4 << 20
	}
	c.Logger = zerolog.Nop()
	n, err := node.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Node: n, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- n.Run(ctx) }()
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *running) stop() error {
	r.cancel()
	if r.ended {
		return nil
	}
	r.ended = true
	return <-r.done
}

func dial(t testing.TB, c client.Config) *client.Client {
	t.Helper()
	c.Logger = zerolog.Nop()
	l, err := client.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// crasher runs nodes on a disk in memory. A crash takes the disk as it is, page
// cache included, and goes on with the copy.
type crasher struct {
	disk   *vfs.Disk
	meta   string // directory of the metadata, which is on a real disk
	listen string // the same in every life
	node   *running
	wrap   func(t *testing.T, n *running) log.Log
}

func (c *crasher) open(t *testing.T) log.Log {
	c.disk, c.meta, c.listen = vfs.NewDisk(), t.TempDir(), "127.0.20.1:0"
	return c.start(t)
}

func (c *crasher) start(t *testing.T) log.Log {
	c.node = start(t, node.Config{Dir: "/log", FileBytes: 1 << 20, FS: c.disk, MetaDir: c.meta, Listen: c.listen})
	c.listen = c.node.Addr().String()
	return c.wrap(t, c.node)
}

func (c *crasher) crash(t *testing.T, l log.Log) log.Log {
	_ = l.Close() // nobody hears of what is confirmed after the picture is taken
	c.disk = c.disk.Restart()
	if err := c.node.stop(); err != nil {
		t.Fatal(err)
	}
	return c.start(t)
}

func TestEmbeddedCrash(t *testing.T) {
	c := &crasher{wrap: func(_ *testing.T, n *running) log.Log { return n.Log() }}
	conformance.RunCrash(t, c.open, c.crash)
}

func TestClientCrash(t *testing.T) {
	c := &crasher{wrap: func(t *testing.T, n *running) log.Log {
		return dial(t, client.Config{Nodes: []string{n.Addr().String()}, ReconnectFor: time.Second})
	}}
	conformance.RunCrash(t, c.open, c.crash)
}
