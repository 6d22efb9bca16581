package workload

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

func TestWorkload(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			primary, replica := mysqltest.Start(t, f), mysqltest.Start(t, f)
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			if err := replica.ReplicateFrom(ctx, primary); err != nil {
				t.Fatal(err)
			}
			w := New(Config{Seed: seed, DB: primary.DB(), Types: true, Log: zerolog.New(zerolog.NewTestWriter(t))})
			if err := w.Prepare(ctx); err != nil {
				t.Fatal(err)
			}
			for _, s := range ScenarioNames(f.Server()) {
				if err := w.Scenario(ctx, s); err != nil {
					t.Error(err)
				}
			}
			if err := w.Large(ctx, 5000); err != nil {
				t.Error(err)
			}
			w.cfg.DDLEvery, w.cfg.BulkEvery = time.Millisecond, 50*time.Millisecond
			run, stop := context.WithTimeout(ctx, 5*time.Second)
			defer stop()
			began := time.Now()
			if err := w.Run(run); err != nil {
				t.Fatal(err)
			}
			st := w.Stats()
			t.Logf("%.1f s: %+v", time.Since(began).Seconds(), st)
			if len(st.Unexpected) > 0 {
				t.Errorf("statements the server does not take: %v", st.Unexpected)
			}
			if err := CheckSum(ctx, primary.DB()); err != nil {
				t.Error(err)
			}
			set, err := primary.GTIDs(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := replica.WaitForGTIDs(ctx, set); err != nil {
				t.Fatal(err)
			}
			found, err := Differences(ctx, primary.DB(), replica.DB(), Schemas())
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range found {
				t.Errorf("native replication differs (the workload is at fault): %s", d)
			}
		})
	}
}
