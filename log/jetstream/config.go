package jetstream

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
)

// Config of a Log. Zero values take the defaults named.
type Config struct {
	Servers     []string    // nats://host:port, or host:port
	Credentials string      // file with a user's JWT and key; empty: none
	TLS         *tls.Config // nil: as the servers ask for, with the system's authorities
	Name        string      // told to the servers; program and process by default

	// Prefix is in front of the names of all streams, subjects and buckets:
	// logs of different prefixes share a cluster without knowing each other.
	Prefix   string   // "twinspan"
	Replicas int      // of each stream; 3
	Cluster  string   // where streams are placed; empty: anywhere
	Tags     []string // that the servers of a stream must have
	// Monitors are http://host:port of the servers' monitoring ports. Where
	// they are given, OpenWriter refuses servers whose sync_interval is not
	// always; a client has no other way to find out.
	Monitors []string

	Retention Retention

	WindowBytes     int64         // of a writer: bytes appended and not confirmed; 8 MiB
	WindowEntries   int           // likewise in entries; 4096
	ReadWindowBytes int64         // of a reader: bytes received and not taken; 8 MiB
	DialTimeout     time.Duration // 5s
	AckTimeout      time.Duration // a writer with an entry not confirmed for so long is dead; 15s
	RequestTimeout  time.Duration // of a request, with its repetitions; 15s
	ReconnectFor    time.Duration // how long a reader tries to come back before it fails; 30s

	Logger zerolog.Logger
}

// Retention says what goes once every cursor has passed it. 0 sets no limit; with
// none at all nothing is ever removed. Entries of the schema topic stay.
type Retention struct {
	BytesMax int64         // of one stream
	AgeMax   time.Duration // by the writers' clocks
	Every    time.Duration // how often a writer looks; 1m
}

var prefixOK = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

func (c Config) withDefaults() (Config, error) {
	set := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	set(&c.DialTimeout, 5*time.Second)
	set(&c.AckTimeout, 15*time.Second)
	set(&c.RequestTimeout, 15*time.Second)
	set(&c.ReconnectFor, 30*time.Second)
	set(&c.Retention.Every, time.Minute)
	if c.WindowBytes == 0 {
		c.WindowBytes = 8 << 20
	}
	if c.ReadWindowBytes == 0 {
		c.ReadWindowBytes = 8 << 20
	}
	if c.WindowEntries == 0 {
		c.WindowEntries = 4096
	}
	if c.Replicas == 0 {
		c.Replicas = 3
	}
	if c.Prefix == "" {
		c.Prefix = "twinspan"
	}
	if c.Name == "" {
		c.Name = fmt.Sprintf("%s/%d", filepath.Base(os.Args[0]), os.Getpid())
	}
	switch {
	case len(c.Servers) == 0:
		return c, errors.New("jetstream: no server is configured")
	case !prefixOK.MatchString(c.Prefix):
		return c, fmt.Errorf("jetstream: prefix %q: use up to 64 letters, digits and hyphens", c.Prefix)
	case c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5:
		return c, fmt.Errorf("jetstream: %d replicas: use 1, 3 or 5", c.Replicas)
	case c.WindowBytes < 0 || c.WindowEntries < 1 || c.WindowEntries > 8192 || c.ReadWindowBytes < 0 || c.ReadWindowBytes > 512<<20:
		// A stream's servers queue 10,000 messages and refuse the rest.
		return c, fmt.Errorf("jetstream: windows of %d bytes, %d entries, %d bytes: want up to 8192 entries and 512 MiB", c.WindowBytes, c.WindowEntries, c.ReadWindowBytes)
	}
	return c, nil
}

// nameMax bounds what JetStream takes as a stream's name.
const nameMax = 255

// token writes a stream's name in the letters that names and subjects of NATS may
// have: letters, digits and hyphens as they are, any other byte as _ and two hex
// digits.
func token(stream string) (string, error) {
	if stream == "" || len(stream) > nameMax || !utf8.ValidString(stream) {
		return "", fmt.Errorf("stream name %.300q: want 1 to %d bytes of UTF-8: %w", stream, nameMax, log.ErrProtocol)
	}
	var b strings.Builder
	for i := range len(stream) {
		switch c := stream[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	if b.Len() > nameMax-65 {
		return "", fmt.Errorf("stream name %.300q: too long for JetStream: %w", stream, log.ErrProtocol)
	}
	return b.String(), nil
}

// untoken is the inverse of token.
func untoken(t string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(t); i++ {
		if t[i] != '_' {
			b.WriteByte(t[i])
			continue
		}
		var c byte
		if i+3 > len(t) {
			return "", fmt.Errorf("token %q: %w", t, log.ErrProtocol)
		}
		if _, err := fmt.Sscanf(t[i+1:i+3], "%02x", &c); err != nil {
			return "", fmt.Errorf("token %q: %w", t, log.ErrProtocol)
		}
		b.WriteByte(c)
		i += 2
	}
	return b.String(), nil
}

// names are what the parts of one stream are called on the servers.
type names struct {
	stream string // as the log's users say
	token  string
	js     string // the JetStream stream
	base   string // of its subjects
}

func (c *Config) names(stream string) (names, error) {
	t, err := token(stream)
	if err != nil {
		return names{}, err
	}
	return names{stream: stream, token: t, js: c.Prefix + "_" + t, base: c.Prefix + "." + t}, nil
}

func (n names) fences() string { return n.base + ".fence" }

// epoch are the subjects of one epoch's entries.
func (n names) epoch(e log.Epoch) string { return fmt.Sprintf("%s.%d.*", n.base, e) }

func (n names) entry(e log.Epoch, t log.Topic) string { return fmt.Sprintf("%s.%d.%d", n.base, e, t) }

// topic are the subjects of one topic in all epochs.
func (n names) topic(t log.Topic) string { return fmt.Sprintf("%s.*.%d", n.base, t) }

// subjects are those a stream takes while an epoch owns it.
func (n names) subjects(e log.Epoch) []string { return []string{n.fences(), n.epoch(e)} }
