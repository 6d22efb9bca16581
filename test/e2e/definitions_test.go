package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/workload"
)

// TestDefinitions plays every DDL scenario by itself and compares after each, so
// that a failure names its scenario. No process is killed.
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
			t.Run("prepare", func(t *testing.T) {
				s.settle(ctx, t)
				s.compare(ctx, t)
			})
			for _, name := range workload.ScenarioNames(f.Server()) {
				if t.Failed() {
					return
				}
				t.Run(name, func(t *testing.T) {
					if err := w.Scenario(ctx, name); err != nil {
						t.Fatal(err)
					}
					s.settle(ctx, t)
					s.compare(ctx, t)
				})
			}
			s.verify(ctx, t)
			s.audit(ctx, t)
		})
	}
}
