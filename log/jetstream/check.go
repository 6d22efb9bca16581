package jetstream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/twinspan/twinspan/log"
)

// payloadMin is the max_payload a server must have, in bytes: the largest entry
// and its headers, in one message.
const payloadMin = log.MaxPayload + 64<<10

func checkServer(nc *nats.Conn) error {
	if got := nc.MaxPayload(); got < payloadMin {
		return fmt.Errorf("server %s takes messages of up to %d bytes, and an entry may have %d: set max_payload: 33MB in its configuration (and in that of the others): %w",
			nc.ConnectedUrlRedacted(), got, log.MaxPayload, log.ErrProtocol)
	}
	return nil
}

// checkSync asks the servers' monitoring ports whether they sync before they
// acknowledge. Without it a power cut takes back what was confirmed.
func (l *Log) checkSync(ctx context.Context) error {
	for _, m := range l.cfg.Monitors {
		varz, err := monitor(ctx, m)
		if err != nil {
			// A server that is away is no reason not to write to the others.
			l.cfg.Logger.Warn().Err(err).Str("monitor", m).Msg("whether this NATS server syncs before it confirms could not be checked")
			continue
		}
		if c := varz.JetStream.Config; c == nil || !c.SyncAlways {
			return fmt.Errorf("server %s (%s) confirms before it syncs: set sync_interval: always in its jetstream block: %w", varz.Name, m, log.ErrProtocol)
		}
	}
	if len(l.cfg.Monitors) == 0 {
		l.cfg.Logger.Warn().Msg("no monitoring port of the NATS servers is configured: make sure that sync_interval is always")
	}
	return nil
}

type varz struct {
	Name      string `json:"server_name"`
	JetStream struct {
		Config *struct {
			SyncAlways bool `json:"sync_always"`
		} `json:"config"`
	} `json:"jetstream"`
}

func monitor(ctx context.Context, base string) (v varz, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+"/varz", nil)
	if err != nil {
		return v, err
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return v, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	if resp.StatusCode != http.StatusOK {
		return v, fmt.Errorf("%s", resp.Status)
	}
	return v, json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&v)
}

// checkConfig refuses a stream that could lose entries by its own rules.
func checkConfig(c js.StreamConfig) error {
	bad := func(key string, value any) error {
		return fmt.Errorf("JetStream stream %s has %s: %v, which can take entries away or split them up: %w", c.Name, key, value, log.ErrProtocol)
	}
	switch {
	case c.Retention != js.LimitsPolicy:
		return bad("retention", c.Retention)
	case c.Storage != js.FileStorage:
		return bad("storage", c.Storage)
	case c.Discard != js.DiscardNew:
		return bad("discard", c.Discard)
	case c.MaxAge != 0:
		return bad("max_age", c.MaxAge)
	case c.MaxMsgsPerSubject > 0:
		return bad("max_msgs_per_subject", c.MaxMsgsPerSubject)
	case c.NoAck:
		return bad("no_ack", c.NoAck)
	case c.AllowRollup:
		return bad("allow_rollup_hdrs", c.AllowRollup)
	case len(c.Sources) > 0 || c.Mirror != nil:
		return bad("sources", "set")
	case c.SubjectTransform != nil:
		return bad("subject_transform", "set")
	}
	return nil
}
