package jetstream_test

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/internal/natstest"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/conformance"
	"github.com/twinspan/twinspan/log/jetstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var prefixes atomic.Int64

// config is that of a log that no other test sees.
func config(c *natstest.Cluster) jetstream.Config {
	return jetstream.Config{
		Servers: c.URLs(), Monitors: c.Monitors(), Prefix: fmt.Sprintf("t%d", prefixes.Add(1)),
		Logger: zerolog.New(os.Stderr).Level(zerolog.WarnLevel),
	}
}

func open(t *testing.T, cfg jetstream.Config) *jetstream.Log {
	t.Helper()
	l, err := jetstream.New(cfg)
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

func TestConformance(t *testing.T) {
	c := natstest.Start(t, natstest.Options{})
	conformance.Run(t, func(t *testing.T) log.Log { return open(t, config(c)) })
}

func TestConformanceAcrossCrashes(t *testing.T) {
	c := natstest.Start(t, natstest.Options{})
	configs := map[log.Log]jetstream.Config{}
	conformance.RunCrash(t, func(t *testing.T) log.Log {
		cfg := config(c)
		l := open(t, cfg)
		configs[l] = cfg
		return l
	}, func(t *testing.T, l log.Log) log.Log {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := c.Crash(ctx); err != nil {
			t.Fatal(err)
		}
		next := open(t, configs[l])
		configs[next] = configs[l]
		return next
	})
}
