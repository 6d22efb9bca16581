package producer

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

// TestStandby reads a standby that applies in parallel, and is killed and
// restarted while the primary is under load.
func TestStandby(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			ctx := context.Background()
			workers := mysqltest.With("replica-parallel-workers", "4")
			if f.IsMariaDB() {
				workers = mysqltest.With("slave-parallel-threads", "4")
			}
			primary, standby := mysqltest.Start(t, f), mysqltest.Start(t, f, workers)
			if err := standby.ReplicateFrom(ctx, primary); err != nil {
				t.Fatal(err)
			}
			primary.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (n BIGINT PRIMARY KEY, client INT NOT NULL, of_client INT NOT NULL, in_tx INT NOT NULL, pad VARCHAR(200))")
			l := newMemLog()
			p := start(t, standby, l, func(c *Config) { c.Start = StartEarliest })
			loading, cancel := context.WithCancel(ctx)
			var clients sync.WaitGroup
			for c := range 3 {
				rnd := rand.New(rand.NewPCG(seed, uint64(c)))
				clients.Go(func() { load(loading, t, primary.DB(), rnd, c) })
			}
			for range 2 {
				time.Sleep(700 * time.Millisecond)
				if err := standby.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := standby.Restart(ctx); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(500 * time.Millisecond)
			cancel()
			clients.Wait()
			set, err := primary.GTIDs(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := standby.WaitForGTIDs(ctx, set); err != nil {
				t.Fatal(err)
			}
			p.holds(t, standby)
			txs := readLog(t, string(f.Server()), l.all())
			once(t, txs)
			inBinlogOrder(t, standby, txs)
			checkLoad(t, primary, txs)
			t.Logf("transactions=%d", len(txs))
		})
	}
}
