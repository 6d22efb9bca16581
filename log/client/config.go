package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/wire"
)

// Far says when a reader may attach to a node of another city than its own.
type Far string

// The choices. Entries that cross cities cost the line between them.
const (
	// FarIfNeeded: when no node of the own city has the segment, or none of those
	// that have it answered for Config.FarAfter. The reader goes home again when
	// one does.
	FarIfNeeded Far = "if-needed"
	FarNever    Far = "never"
	FarAnytime  Far = "anytime" // as soon as the near ones do not answer
)

// Config of a Client. Zero values take the defaults named.
type Config struct {
	Nodes []string // host:port of some nodes; the others are learned from them
	City  string   // the caller's own: its nodes are preferred for reading
	TLS   *tls.Config
	Name  string // told to the nodes for their logs; program and process by default
	// Purpose is PurposeClient by default.
	Purpose wire.Purpose
	// Owner of the streams written, for people; Name by default.
	Owner string

	// Policy of the streams that OpenWriter creates; nil: one node in each city
	// that stores entries, one node where there is only one city; block.
	Policy *meta.Policy

	WindowBytes     int64         // of a writer: bytes appended and not confirmed; 8 MiB
	RetainBytes     int64         // of a writer: confirmed bytes kept for members that lag or come back; 16 MiB
	SegmentBytes    int64         // a writer closes a segment that is larger; 1 GiB
	Spare           int           // members of a segment beyond what the rule asks for, per city; 1; below 0: none
	RollAfter       time.Duration // a member that is gone or owes acknowledgements for so long is left out; 2s
	RollEvery       time.Duration // members that are back are taken in at most so often; 5s
	PenaltyAfter    time.Duration // a member that was left out for its slowness is not taken in for so long, if others will do; 30s
	OpenFor         time.Duration // how long opening a writer or a reader tries; 30s
	ReadWindowBytes int64         // of a reader: bytes received and not taken; 8 MiB
	Far             Far           // if-needed
	FarAfter        time.Duration // 5s
	StuckAfter      time.Duration // a reader that hears of nothing new asks around; 2s
	CursorEvery     time.Duration // cursors of one group are stored so often in the long run; 1s

	DialTimeout    time.Duration // of connecting and greeting; 5s
	RequestTimeout time.Duration // 10s
	ReconnectFor   time.Duration // how long a reader tries to come back before it fails; 30s
	IdleTimeout    time.Duration // a silent node counts as gone; 20s

	// Dial replaces the way to a node, for tests and for nodes of the same
	// process; TLS is applied on top.
	Dial   func(ctx context.Context, address string) (net.Conn, error)
	Logger zerolog.Logger
}

func (c Config) withDefaults() Config {
	bytes := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	bytes(&c.WindowBytes, 8<<20)
	bytes(&c.RetainBytes, 16<<20)
	bytes(&c.SegmentBytes, 1<<30)
	bytes(&c.ReadWindowBytes, 8<<20)
	switch {
	case c.Spare == 0:
		c.Spare = 1
	case c.Spare < 0:
		c.Spare = 0
	}
	wait(&c.RollAfter, 2*time.Second)
	wait(&c.RollEvery, 5*time.Second)
	wait(&c.PenaltyAfter, 30*time.Second)
	wait(&c.OpenFor, 30*time.Second)
	wait(&c.FarAfter, 5*time.Second)
	wait(&c.StuckAfter, 2*time.Second)
	wait(&c.CursorEvery, time.Second)
	wait(&c.DialTimeout, 5*time.Second)
	wait(&c.RequestTimeout, 10*time.Second)
	wait(&c.ReconnectFor, 30*time.Second)
	wait(&c.IdleTimeout, 20*time.Second)
	if c.Name == "" {
		c.Name = fmt.Sprintf("%s/%d", filepath.Base(os.Args[0]), os.Getpid())
	}
	if c.Owner == "" {
		c.Owner = c.Name
	}
	if c.Purpose == 0 {
		c.Purpose = wire.PurposeClient
	}
	if c.Far == "" {
		c.Far = FarIfNeeded
	}
	if c.Dial == nil {
		d := &net.Dialer{}
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
	}
	return c
}

func (c *Config) check() error {
	if len(c.Nodes) == 0 {
		return errors.New("log client: no node is configured")
	}
	for _, address := range c.Nodes {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("log client: node address %q: %w", address, err)
		}
	}
	const most = 512 << 20
	if c.WindowBytes < 0 || c.WindowBytes > most || c.ReadWindowBytes < 0 || c.ReadWindowBytes > most || c.RetainBytes < 0 || c.RetainBytes > most {
		return fmt.Errorf("log client: windows of %d, %d and %d bytes: want up to 512 MiB", c.WindowBytes, c.ReadWindowBytes, c.RetainBytes)
	}
	switch c.Far {
	case FarIfNeeded, FarNever, FarAnytime:
	default:
		return fmt.Errorf("log client: readers go to far cities %q: want %s, %s or %s", c.Far, FarIfNeeded, FarNever, FarAnytime)
	}
	return nil
}
