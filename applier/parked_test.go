package applier

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/conflicts"
	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/applier/internal/history"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// vandal is someone who writes to the target, and can undo it. Everything of his
// has a value that no history has, so that none of his rows is ever taken for the
// source's.
type vandal struct {
	rng  *rand.Rand
	undo []string
	n    int
}

// odd is a literal that no history makes.
func (v *vandal) odd(c *schema.Column) string {
	v.n++
	switch c.Type {
	case schema.Int, schema.BigInt:
		return fmt.Sprint(1_000_000 + v.n)
	}
	return fmt.Sprintf("'%c%cz'", 'k'+rune(v.n%12), 'c'+rune(v.n/12%20))
}

// literal is a value of a history as SQL.
func literal(v change.Value) string {
	switch v.Kind() {
	case change.Null:
		return "NULL"
	case change.Integer:
		return fmt.Sprint(v.Integer())
	}
	return fmt.Sprintf("x'%x'", v.Bytes())
}

// squat puts rows on the target that have a key of rows that the history inserts.
func (v *vandal) squat(ctx context.Context, srv *mysqltest.Server, g *history.Generator, h []fed) int {
	done := 0
	for try := 0; try < 200 && done < 12; try++ {
		t := h[v.rng.IntN(len(h))].t
		if len(t.Rows) == 0 {
			continue
		}
		row := t.Rows[v.rng.IntN(len(t.Rows))]
		def := defOf(g, row.Table.Name)
		if row.After == nil || len(def.Keys) == 0 || len(row.After) != len(def.Columns) || strings.HasPrefix(def.Name.Table, "child") {
			continue
		}
		keep := map[int]bool{}
		for _, p := range def.Keys[v.rng.IntN(len(def.Keys))].Parts {
			keep[p.Column] = true
		}
		if len(keep) == len(def.Columns) {
			continue
		}
		var values []string
		var where string
		for i := range def.Columns {
			if keep[i] {
				values = append(values, literal(row.After[i]))
				continue
			}
			values = append(values, v.odd(&def.Columns[i]))
			where = fmt.Sprintf("`%s` = %s", def.Columns[i].Name, values[i])
		}
		// A key that is taken, or a column that is not there yet, spoils it.
		if _, err := srv.DB().ExecContext(ctx, fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", def.Name, columnList(def), strings.Join(values, ", "))); err == nil {
			v.undo = append(v.undo, fmt.Sprintf("DELETE FROM %s WHERE %s", def.Name, where))
			done++
		}
	}
	return done
}

func columnList(t *target.Table) string {
	var names []string
	for i := range t.Columns {
		names = append(names, "`"+t.Columns[i].Name+"`")
	}
	return strings.Join(names, ", ")
}

func defOf(g *history.Generator, n schema.Name) *target.Table {
	for i := range g.DB.Tables {
		if g.DB.Tables[i].Def.Name == n {
			return g.DB.Tables[i].Def
		}
	}
	return nil
}

// scribble changes a column of a row that is there and that no key has.
func (v *vandal) scribble(ctx context.Context, srv *mysqltest.Server, g *history.Generator) error {
	def := g.DB.Tables[v.rng.IntN(len(g.DB.Tables))].Def
	inKey := map[int]bool{}
	for _, k := range def.Keys {
		for _, p := range k.Parts {
			inKey[p.Column] = true
		}
	}
	if strings.HasPrefix(def.Name.Table, "child") || strings.HasPrefix(def.Name.Table, "parent") {
		return nil
	}
	for i := range def.Columns {
		if inKey[i] {
			continue
		}
		c := def.Columns[i].Name
		was := ""
		err := retrying(ctx, func() error {
			return srv.DB().QueryRowContext(ctx, fmt.Sprintf("SELECT IF(`%[1]s` IS NULL, 'NULL', CONCAT('x''', HEX(`%[1]s`), '''')) FROM %[2]s ORDER BY RAND() LIMIT 1", c, def.Name)).Scan(&was)
		})
		if errors.Is(err, sql.ErrNoRows) || err == nil && was == "x''" || server.ErrorNumber(err) == 1054 {
			return nil // nothing to scribble over, or the column is not there yet
		}
		if err != nil {
			return err
		}
		if def.Columns[i].Type == schema.Int || def.Columns[i].Type == schema.BigInt {
			if was != "NULL" {
				was = "CAST(CONV('" + strings.Trim(was, "x'") + "', 16, 10) AS SIGNED)"
			}
		}
		odd := v.odd(&def.Columns[i])
		match := fmt.Sprintf("`%s` <=> %s", c, was)
		if _, err := srv.DB().ExecContext(ctx, fmt.Sprintf("UPDATE %s SET `%s` = %s WHERE %s LIMIT 1", def.Name, c, odd, match)); err == nil {
			v.undo = append(v.undo, fmt.Sprintf("UPDATE %s SET `%s` = %s WHERE `%s` = %s", def.Name, c, was, c, odd))
		}
		return nil
	}
	return nil
}

// heal undoes all of it.
func (v *vandal) heal(ctx context.Context, srv *mysqltest.Server) error {
	for _, q := range slices.Backward(v.undo) { // he may have scribbled over himself
		if err := retrying(ctx, func() error {
			_, err := srv.DB().ExecContext(ctx, q)
			return err
		}); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	v.undo = nil
	return nil
}

// retrying tries until the server is back from what the test does to it.
func retrying(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil || !target.Retryable(err) || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// parkedChanges and parkedLives are the length of a history, and how many
// appliers it takes at least.
func parkedChanges() int {
	if testing.Short() {
		return 500
	}
	return 1500
}

func parkedLives() int {
	if testing.Short() {
		return 2
	}
	return 6
}

func parkingConfig(srv *mysqltest.Server, mode causality.Mode, lanes int) Config {
	c := liveConfig(srv, lanes).as(mode)
	c.Conflicts = conflicts.Policies{Policy: conflicts.Exception}
	c.Exceptions = Exceptions{On: exceptions.Causes, Retry: exceptions.Retry{First: 100 * time.Millisecond, Max: 400 * time.Millisecond}}
	return c
}

// parkingModes runs a test in every mode on both servers; in short runs each mode
// and each server once or twice.
func parkingModes(t *testing.T, test func(*testing.T, mysqltest.Flavor, causality.Mode)) {
	for _, c := range []struct {
		flavor mysqltest.Flavor
		mode   causality.Mode
		long   bool
	}{
		{mysqltest.MySQL97, causality.Rows, false},
		{mysqltest.MariaDB1011, causality.Ordered, false},
		{mysqltest.MySQL97, causality.Transactions, false},
		{mysqltest.MariaDB1011, causality.Rows, true},
		{mysqltest.MySQL97, causality.Ordered, true},
		{mysqltest.MariaDB1011, causality.Transactions, true},
	} {
		if c.long && testing.Short() {
			continue
		}
		t.Run(string(c.flavor)+"/"+c.mode.String(), func(t *testing.T) {
			t.Parallel() // each has a server of its own, and mostly waits
			test(t, c.flavor, c.mode)
		})
	}
}

// TestParkedFollowers: someone squats on the keys of a history and scribbles over
// its rows while it is applied, connections die, the server crashes, and appliers
// come and go. Changes that meet it are parked, and those of their keys behind
// them. In the middle of it the vandal undoes everything, and parked chains are
// applied while the lanes go on. In the end nothing is parked and the target is
// what the source is, row by row.
func TestParkedFollowers(t *testing.T) {
	parkingModes(t, vandalized)
}

func vandalized(t *testing.T, f mysqltest.Flavor, mode causality.Mode) {
	seed := *liveSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -live-seed=%d", seed)
	srv := mysqltest.Start(t, f)
	g, create, h := liveHistory(seed, f.Server(), parkedChanges())
	srv.Exec(t, append([]string{"CREATE DATABASE hist"}, create...)...)
	rng := rand.New(rand.NewPCG(seed, 17))
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	v := &vandal{rng: rng}
	squatters := v.squat(ctx, srv, g, h)
	last := lastPlace(h)
	store := &exceptions.Store{Stream: "live"}
	most, lives := 0, 0
	var healAt time.Time // some time after the first change was parked
	for reached := false; !reached; lives++ {
		a, err := New(parkingConfig(srv, mode, 1+rng.IntN(6)), zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		life, end := context.WithCancel(ctx)
		ran := make(chan error, 1)
		go func() { ran <- a.Run(life) }()
		fedAll := make(chan bool, 1)
		go func() { fedAll <- feedAll(life, a, h, last) }()
		for alive := true; alive; {
			select {
			case reached = <-fedAll:
				alive = false
			case ended := <-ran: // a large transaction was interrupted, perhaps
				end()
				<-fedAll
				alive = false
				ran <- ended
			case <-time.After(time.Duration(20+rng.IntN(120)) * time.Millisecond):
				if all, err := store.List(ctx, srv.DB(), exceptions.Filter{}); err == nil {
					most = max(most, len(all))
				}
				if most > 0 && healAt.IsZero() {
					healAt = time.Now().Add(time.Duration(100+rng.IntN(1500)) * time.Millisecond)
				}
				healed := !healAt.IsZero() && time.Now().After(healAt)
				if healed && v.undo != nil {
					if err := v.heal(ctx, srv); err != nil {
						t.Fatal(err)
					}
				}
				switch k := rng.IntN(10); {
				case lives > parkedLives():
				case k < 2:
					killConnections(ctx, srv)
				case k == 2:
					if err := srv.Kill(); err != nil {
						t.Error(err)
					}
					if err := srv.Restart(ctx); err != nil {
						t.Fatal(err)
					}
				case k < 5:
					end()
				case k < 8 && !healed:
					if err := v.scribble(ctx, srv, g); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		s := a.Status()
		end()
		if err := <-ran; err != nil && !again(err) {
			t.Errorf("Run: %v", err)
		}
		if ctx.Err() != nil {
			t.Fatalf("not finished: %+v", s)
		}
	}
	if err := v.heal(ctx, srv); err != nil {
		t.Fatal(err)
	}
	if why := retryAll(ctx, srv); why != "" {
		t.Fatal(why)
	}
	if d := difference(ctx, srv, g); d != "" {
		t.Fatal(d)
	}
	if n := srv.Value(t, "SELECT COUNT(*) FROM twinspan.exception_key"); n != "0" {
		t.Fatalf("%s keys are left", n)
	}
	t.Logf("%d squatters, %d appliers, up to %d parked at once, %s in all", squatters, lives, most,
		srv.Value(t, "SELECT COUNT(*) FROM twinspan.exception"))
}

// again: the next applier reads a large transaction once more.
func again(err error) bool {
	var cut *Interrupted
	return errors.As(err, &cut) && cut.Halt == nil
}

// retryAll applies all that is parked, and says what it could not.
func retryAll(ctx context.Context, srv *mysqltest.Server) string {
	db, err := target.Open(srv.Endpoint())
	if err != nil {
		return err.Error()
	}
	defer db.Close()
	store := &exceptions.Store{Stream: "live"}
	r := &exceptions.Retrier{Store: store, DB: db, Policies: conflicts.Policies{Policy: conflicts.Exception}, By: "test"}
	chains, err := store.Chains(ctx, db)
	if err != nil {
		return err.Error()
	}
	for _, c := range chains {
		var o *exceptions.Outcome
		err := retrying(ctx, func() (err error) {
			o, err = r.Retry(ctx, c[0])
			return err
		})
		if errors.Is(err, exceptions.ErrNotFound) {
			continue
		}
		if err != nil {
			return err.Error()
		}
		if !o.Applied {
			return fmt.Sprintf("chain %v: %v", c, o.Err())
		}
	}
	return ""
}

const parkingEnv = "TWINSPAN_TEST_PARKING"

// TestParkingChild is the applier that TestKilledWhileParking kills.
func TestParkingChild(t *testing.T) {
	var addr, flavor string
	var seed uint64
	var mode causality.Mode
	var lanes, changes int
	if _, err := fmt.Sscan(os.Getenv(parkingEnv), &addr, &flavor, &mode, &seed, &lanes, &changes); err != nil {
		return // only as a child process
	}
	_, _, h := liveHistory(seed, server.Flavor(flavor), changes)
	cfg := Config{Stream: "live", Target: server.Endpoint{Address: addr, User: "root"}, Lanes: lanes, BatchRows: 20,
		ProgressInterval: 20 * time.Millisecond, Lease: 4 * time.Second,
		Conflicts:  conflicts.Policies{Policy: conflicts.Exception},
		Exceptions: Exceptions{On: exceptions.Causes, Retry: exceptions.Retry{First: 100 * time.Millisecond, Max: 200 * time.Millisecond}}}.as(mode)
	for ok := false; !ok; {
		a, err := New(cfg, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() {
			defer cancel()
			ran <- a.Run(ctx)
		}()
		ok = feedAll(ctx, a, h, lastPlace(h))
		cancel()
		if err := <-ran; err != nil && !again(err) || err == nil && !ok {
			t.Fatalf("fed: %v, Run: %v", ok, err)
		}
	}
}

// TestKilledWhileParking kills the applier's process with SIGKILL again and again
// while it parks changes and applies parked ones: each change takes effect once.
func TestKilledWhileParking(t *testing.T) {
	parkingModes(t, killedWhileParking)
}

func killedWhileParking(t *testing.T, f mysqltest.Flavor, mode causality.Mode) {
	seed := *liveSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -live-seed=%d", seed)
	srv := mysqltest.Start(t, f)
	g, create, h := liveHistory(seed, f.Server(), parkedChanges())
	srv.Exec(t, append([]string{"CREATE DATABASE hist"}, create...)...)
	rng := rand.New(rand.NewPCG(seed, 19))
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	v := &vandal{rng: rng}
	v.squat(ctx, srv, g, h)
	kills := 0
	for life := 0; ; life++ {
		if life == parkedLives()/2+1 {
			if err := v.heal(ctx, srv); err != nil {
				t.Fatal(err)
			}
		}
		c := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestParkingChild$", "-test.v")
		c.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d %d %d", parkingEnv, srv.Address, f.Server(), int(mode), seed, 1+rng.IntN(6), parkedChanges()))
		var out strings.Builder
		c.Stdout, c.Stderr = &out, &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var timer *time.Timer
		if life < parkedLives() {
			timer = time.AfterFunc(time.Duration(200+rng.IntN(600))*time.Millisecond, func() { _ = c.Process.Kill() })
		}
		err := c.Wait()
		if timer != nil {
			timer.Stop()
		}
		if err == nil {
			break
		}
		if !strings.Contains(err.Error(), "killed") {
			t.Fatalf("%v\n%s", err, out.String())
		}
		kills++
	}
	if err := v.heal(ctx, srv); err != nil {
		t.Fatal(err)
	}
	if why := retryAll(ctx, srv); why != "" {
		t.Fatal(why)
	}
	if d := difference(ctx, srv, g); d != "" {
		t.Error(d)
	}
	t.Logf("%d kills, %s changes were parked", kills, srv.Value(t, "SELECT COUNT(*) FROM twinspan.exception"))
}
