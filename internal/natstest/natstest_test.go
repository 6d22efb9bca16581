package natstest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/twinspan/twinspan/internal/natstest"
)

// TestCluster: what was acknowledged by three servers is there after all of them
// were killed, and a frozen minority does not stop the others.
func TestCluster(t *testing.T) {
	c := natstest.Start(t, natstest.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	publish := func(want uint64) {
		t.Helper()
		nc, err := nats.Connect(c.URLs()[0], nats.DontRandomize())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if got := nc.MaxPayload(); got != natstest.MaxPayload {
			t.Errorf("max_payload %d", got)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		// A server that is frozen answers nothing, so every attempt has its own
		// end; one whose answer got lost may have been stored.
		try := func() (uint64, error) {
			attempt, stop := context.WithTimeout(ctx, 2*time.Second)
			defer stop()
			s, err := js.CreateOrUpdateStream(attempt, jetstream.StreamConfig{Name: "s", Subjects: []string{"s"}, Replicas: 3})
			if err != nil {
				return 0, err
			}
			_, err = js.Publish(attempt, "s", []byte("x"), jetstream.WithExpectLastSequence(want-1))
			look, stop2 := context.WithTimeout(ctx, 2*time.Second)
			defer stop2()
			info, infoErr := s.Info(look)
			if infoErr != nil {
				return 0, errors.Join(err, infoErr)
			}
			return info.State.LastSeq, err
		}
		for {
			last, err := try()
			if last > want {
				t.Fatalf("sequence %d, want %d", last, want)
			}
			if last == want {
				return
			}
			if ctx.Err() != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	publish(1)
	if err := c.Crash(ctx); err != nil {
		t.Fatal(err)
	}
	publish(2)
	if err := c.Servers[2].Freeze(); err != nil {
		t.Fatal(err)
	}
	publish(3)
	if err := c.Servers[2].Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}
