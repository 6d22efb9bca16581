package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/natstest"
	"github.com/twinspan/twinspan/internal/workload"
	"github.com/twinspan/twinspan/test/harness"
)

// TestJetStream: the same pipeline with its log on three NATS servers. Producer and
// consumer are killed under load, and so is one of the servers.
func TestJetStream(t *testing.T) {
	nats := natstest.Start(t, natstest.Options{})
	s := &scene{primary: mysqltest.Start(t, mysqltest.MySQL97), target: mysqltest.Start(t, mysqltest.MySQL97)}
	var err error
	s.pipeline, err = harness.New(harness.Config{
		Binary: binary, Dir: t.TempDir(), Stream: "e2e", Source: s.primary, Target: s.target,
		JetStream: &harness.JetStream{Servers: nats.URLs(), Monitors: nats.Monitors()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.pipeline.Stop(); err != nil && !t.Failed() {
			t.Error(err)
		}
		if t.Failed() {
			for _, r := range s.pipeline.Roles() {
				t.Logf("%s said last:\n%s", r, s.pipeline.Log(r, 12))
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if err := s.pipeline.StartAll(ctx); err != nil {
		t.Fatal(err)
	}
	w := workload.New(workload.Config{Seed: seed(t), DB: s.primary.DB(), Log: zerolog.Nop()})
	if err := w.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	load, stop := context.WithCancel(ctx)
	ended := make(chan error, 1) // owner: the goroutine below; one value
	go func() { ended <- w.Run(load) }()
	faults := func() error {
		for _, r := range []harness.Role{harness.Producer, harness.Consumer} {
			time.Sleep(2 * time.Second)
			if err := s.pipeline.Kill(r); err != nil {
				return err
			}
			if err := s.pipeline.Start(ctx, r); err != nil {
				return err
			}
		}
		time.Sleep(time.Second)
		if err := nats.Servers[0].Kill(); err != nil {
			return err
		}
		time.Sleep(2 * time.Second)
		return nats.Servers[0].Start()
	}
	err = faults()
	stop()
	if loadErr := <-ended; err == nil && ctx.Err() != nil {
		err = loadErr
	}
	if err != nil {
		t.Fatal(err)
	}
	s.settle(ctx, t)
	s.compare(ctx, t)
	s.audit(ctx, t)
}
