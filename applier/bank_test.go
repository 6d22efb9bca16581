package applier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// The bank: accounts, of which the sum never changes, and a row for each
// transfer, numbered from 1.
var (
	accountTable = &schema.Table{
		Name:       schema.Name{Schema: "bank", Table: "account"},
		Columns:    []schema.Column{{Name: "id", Type: schema.Int}, {Name: "balance", Type: schema.Int}},
		PrimaryKey: []schema.KeyPart{{Column: 0}},
	}
	transferTable = &schema.Table{
		Name:       schema.Name{Schema: "bank", Table: "transfer"},
		Columns:    []schema.Column{{Name: "id", Type: schema.Int}, {Name: "amount", Type: schema.Int}},
		PrimaryKey: []schema.KeyPart{{Column: 0}},
	}
)

const (
	bankAccounts = 200
	bankStart    = 1000
)

// bankHistory makes transfers, now and then one that touches every account.
func bankHistory(rng *rand.Rand, n int) []fed {
	balance := make([]int64, bankAccounts)
	pair := func(id, v int64) []change.Value { return []change.Value{change.IntegerOf(id), change.IntegerOf(v)} }
	var out []fed
	p := change.Place{}
	add := func(t change.Transaction) {
		t.GTID, t.CommitTime = fmt.Sprintf("0-1-%d", len(out)+1), time.Now()
		out = append(out, fed{p, t})
		if p.Index += int32(len(t.Rows)) + 1; rng.IntN(4) == 0 {
			p = change.Place{Offset: p.Offset + log.Offset(1+rng.IntN(2))}
		}
	}
	var first change.Transaction
	for id := range balance {
		balance[id] = bankStart
		first.Rows = append(first.Rows, change.Row{Table: accountTable, Op: change.Insert, After: pair(int64(id)*700, bankStart)})
	}
	add(first)
	for i := range n {
		var t change.Transaction
		move := func(from, to int, amount int64) {
			for _, m := range []struct {
				id int
				by int64
			}{{from, -amount}, {to, amount}} {
				r := change.Row{Table: accountTable, Op: change.Update, Before: pair(int64(m.id)*700, balance[m.id])}
				balance[m.id] += m.by
				r.After = pair(int64(m.id)*700, balance[m.id])
				t.Rows = append(t.Rows, r)
			}
		}
		amount := int64(1 + rng.IntN(50))
		if i%60 == 59 {
			for from := range bankAccounts / 2 {
				move(from, bankAccounts-1-from, amount)
			}
		} else {
			from := rng.IntN(bankAccounts)
			move(from, (from+1+rng.IntN(bankAccounts-1))%bankAccounts, amount)
		}
		t.Rows = append(t.Rows, change.Row{Table: transferTable, Op: change.Insert, After: pair(int64(i+1), amount)})
		add(t)
	}
	return out
}

// TestBank: at every instant that a reader of the target looks, the accounts
// have the sum they always had, while connections are killed, the server
// crashes and the applier is replaced. Committed in order, the transfers seen are
// the first ones, without a gap.
func TestBank(t *testing.T) {
	flavors, transfers := []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011}, 8000
	if testing.Short() {
		flavors, transfers = flavors[:1], 1500
	}
	for _, f := range flavors {
		for _, mode := range []causality.Mode{causality.Ordered, causality.Transactions} {
			t.Run(fmt.Sprint(f, "/", mode), func(t *testing.T) {
				t.Parallel() // each has a server of its own
				bank(t, f, mode, transfers)
			})
		}
	}
}

func bank(t *testing.T, f mysqltest.Flavor, mode causality.Mode, transfers int) {
	seed := *liveSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -live-seed=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 17))
	h := bankHistory(rng, transfers)
	srv := mysqltest.Start(t, f)
	srv.Exec(t, "CREATE DATABASE bank", "CREATE TABLE bank.account (id INT PRIMARY KEY, balance INT NOT NULL) ENGINE=InnoDB",
		"CREATE TABLE bank.transfer (id INT PRIMARY KEY, amount INT NOT NULL) ENGINE=InnoDB")
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()

	reading, stop := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	var looks, changes int
	readers.Go(func() {
		last := int64(-1)
		for ; reading.Err() == nil; time.Sleep(500 * time.Microsecond) {
			// One statement reads from one snapshot.
			var accounts, sum, count, newest int64
			err := srv.DB().QueryRowContext(reading, `SELECT (SELECT COUNT(*) FROM bank.account), (SELECT COALESCE(SUM(balance), 0) FROM bank.account),
				(SELECT COUNT(*) FROM bank.transfer), (SELECT COALESCE(MAX(id), 0) FROM bank.transfer)`).Scan(&accounts, &sum, &count, &newest)
			if err != nil {
				continue // the server is down, or told to end
			}
			looks++
			if newest != last {
				changes++
			}
			last = newest
			if accounts != 0 && accounts != bankAccounts || sum != accounts*bankStart {
				t.Errorf("%d accounts with a sum of %d after %d transfers", accounts, sum, count)
				return
			}
			if mode == causality.Ordered && count != newest {
				t.Errorf("%d transfers are visible, the newest is number %d", count, newest)
				return
			}
		}
	})

	did := map[string]int{}
	most, crashes := 6, 5 // attempts that are disturbed, crashes of the server
	if testing.Short() {
		most, crashes = 3, 1
	}
	for attempt, reached := 0, false; !reached; attempt++ {
		cfg := liveConfig(srv, 1+rng.IntN(8))
		cfg.Atomicity, cfg.AnyOrder, cfg.LargeBytes, cfg.BatchRows = AtomicTransaction, mode == causality.Transactions, 40_000, 4+rng.IntN(20)
		a, err := New(cfg, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		life, end := context.WithCancel(ctx)
		ran := make(chan error, 1)
		go func() { ran <- a.Run(life) }()
		fedAll := make(chan bool, 1)
		go func() { fedAll <- feedAll(life, a, h, lastPlace(h)) }()
		for alive := true; alive; {
			select {
			case reached = <-fedAll:
				alive = false
			case ended := <-ran: // a large transaction was interrupted, perhaps
				end()
				<-fedAll
				alive = false
				ran <- ended
			case <-time.After(time.Duration(30+rng.IntN(200)) * time.Millisecond):
				switch k := rng.IntN(10); {
				case attempt > most:
				case k < 3:
					did["kill connections"]++
					killConnections(ctx, srv)
				case k == 3 && did["crash server"] < crashes:
					did["crash server"]++
					if err := srv.Kill(); err != nil {
						t.Error(err)
					}
					if err := srv.Restart(ctx); err != nil {
						t.Fatal(err)
					}
				case k == 4:
					did["other lanes"]++
					if err := a.SetLanes(1 + rng.IntN(8)); err != nil {
						t.Error(err)
					}
				case k == 5:
					did["replace applier"]++
					end()
				}
			}
		}
		s := a.Status()
		noDoubt(t, s)
		if len(s.Halts) > 0 {
			t.Fatalf("halted: %+v", s.Halts)
		}
		end()
		var cut *Interrupted
		if err := <-ran; errors.As(err, &cut) && cut.Halt == nil {
			did["interrupted"]++
		} else if err != nil {
			t.Errorf("Run: %v", err)
		}
		if ctx.Err() != nil {
			t.Fatalf("not finished: %+v", a.Status())
		}
	}
	stop()
	readers.Wait()
	t.Logf("%v; a reader looked %d times at %d states", did, looks, changes)
	if looks == 0 {
		t.Error("nobody looked")
	}
	for _, r := range h[len(h)-1].t.Rows[:2] {
		q := fmt.Sprintf("SELECT balance FROM bank.account WHERE id = %d", r.After[0].Integer())
		if got, want := srv.Value(t, q), fmt.Sprint(r.After[1].Integer()); got != want {
			t.Errorf("account %d has %s, not %s", r.After[0].Integer(), got, want)
		}
	}
	if got := srv.Value(t, "SELECT COUNT(*) FROM bank.transfer"); got != fmt.Sprint(transfers) {
		t.Errorf("%s transfers, not %d", got, transfers)
	}
}
