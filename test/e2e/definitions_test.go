package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/workload"
)

// TestDefinitions fills a table of every type and kind of key, and plays every
// DDL scenario once, with rows before, between and after. No process is killed.
func TestDefinitions(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			s := newScene(t, f, nil)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			if err := s.pipeline.StartAll(ctx); err != nil {
				t.Fatal(err)
			}
			w := workload.New(workload.Config{Seed: seed(t), DB: s.primary.DB(), Types: true, Log: zerolog.Nop()})
			if err := w.Prepare(ctx); err != nil {
				t.Fatal(err)
			}
			s.settle(ctx, t)
			s.compare(ctx, t)
			for i, name := range workload.ScenarioNames(f.Server()) {
				t.Logf("%s has the tables t%d and u%d", name, i+1, i+1)
				if err := w.Scenario(ctx, name); err != nil {
					t.Fatal(err)
				}
			}
			s.settle(ctx, t)
			s.compare(ctx, t)
			s.verify(ctx, t)
			s.audit(ctx, t)
		})
	}
}
