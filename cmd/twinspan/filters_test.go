package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier"
	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/consumer/route"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// ownOnce has an applier take a stream over and end, which makes all that it remembers
// on a target.
func ownOnce(t *testing.T, c applier.Config) {
	t.Helper()
	a, err := applier.New(c, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	if _, err := a.Resume(ctx); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

// TestFiltersAccept: other rules are refused while they could hide what a lane has done, or
// what is parked.
func TestFiltersAccept(t *testing.T) {
	old := route.Config{Include: []string{"d.*", "e.*"}, Exclude: []string{"d.x"}, Routes: []string{"d.a -> d.b"}}
	more := func(f func(*route.Config)) route.Config {
		c := old
		f(&c)
		return c
	}
	lessLeft := more(func(c *route.Config) { c.Exclude = []string{"d.y", "d.x", "d.a"}; c.SkipDelete = []string{"d.p"} })
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			s := mysqltest.Start(t, f)
			for i, c := range []struct {
				what   string
				to     route.Config
				cfg    applier.Config
				before []string // statements, with @S for the stream
				refuse string
			}{
				{"lanes together", more(func(c *route.Config) { c.Routes = nil }), applier.Config{}, nil, ""},
				{"another name", more(func(c *route.Config) { c.Routes = []string{"d.a -> d.c"} }), applier.Config{}, []string{"APART"}, "1 of 3 lanes"},
				{"by index", more(func(c *route.Config) { c.Routes = nil }), applier.Config{}, []string{"UPDATE twinspan.lane_position SET log_index = 2 WHERE stream = @S AND lane = 0"}, "1 of 3 lanes"},
				{"comes in anew", more(func(c *route.Config) { c.Exclude = nil }), applier.Config{}, []string{"APART"}, "1 of 3 lanes"},
				{"includes more", more(func(c *route.Config) { c.Include = nil }), applier.Config{}, []string{"APART"}, "1 of 3 lanes"},
				{"skips less", more(func(c *route.Config) { c.SkipDDL = []string{"d.p"} }), applier.Config{}, []string{"APART"}, "1 of 3 lanes"},
				{"only leaves more out", lessLeft, applier.Config{}, []string{"APART"}, ""},
				{"only leaves more out, of a version that had no stamp", lessLeft, applier.Config{}, []string{"APART", "DELETE FROM twinspan.routing WHERE stream = @S"}, ""},
				{"another name, no stamp", more(func(c *route.Config) { c.Routes = nil }), applier.Config{}, []string{"APART", "DELETE FROM twinspan.routing WHERE stream = @S"}, "1 of 3 lanes"},
				{"only leaves more out of transactions", lessLeft, applier.Config{Atomicity: applier.AtomicTransaction, AnyOrder: true}, []string{"APART"}, "1 of 3 lanes"},
				{"transactions in order", more(func(c *route.Config) { c.Routes = nil }), applier.Config{Atomicity: applier.AtomicTransaction}, []string{"APART"}, ""},
				{"one lane", more(func(c *route.Config) { c.Routes = nil }), applier.Config{Lanes: 1}, []string{"APART"}, ""},
				{"back to what filled the lanes", old, applier.Config{}, []string{"APART", "UPDATE twinspan.rules SET digest = 'x', rules = 'route d.a -> d.z\n' WHERE stream = @S"}, ""},
				{"lanes of other rules than the record", lessLeft, applier.Config{}, []string{"APART", "UPDATE twinspan.routing SET digest = 77 WHERE stream = @S"}, "1 of 3 lanes"},
				{"parked, another name", more(func(c *route.Config) { c.Routes = nil }), applier.Config{}, []string{"PARK b"}, "d.b are parked"},
				{"parked, of a table that comes in anew", more(func(c *route.Config) { c.Exclude = nil }), applier.Config{}, []string{"PARK x"}, "d.x are parked"},
				{"parked elsewhere", more(func(c *route.Config) { c.Exclude = nil }), applier.Config{}, []string{"PARK b", "PARK q"}, ""},
				{"parked, left out from now on", more(func(c *route.Config) { c.Exclude = []string{"d.x", "d.a"} }), applier.Config{}, []string{"PARK b"}, "d.b are parked"}, // d.b is another's then
				{"parked, left out alone", more(func(c *route.Config) { c.Exclude = []string{"d.x", "d.q"} }), applier.Config{}, []string{"PARK q"}, ""},
				{"parked, no change", old, applier.Config{}, []string{"PARK b"}, ""},
			} {
				stream := fmt.Sprintf("s%d", i)
				if err := route.Agree(t.Context(), s.DB(), stream, old); err != nil {
					t.Fatal(err)
				}
				c.cfg.Stream, c.cfg.Target, c.cfg.Rules = stream, s.Endpoint(), old.Stamp()
				c.cfg.Exceptions = applier.Exceptions{On: exceptions.Causes}
				if c.cfg.Lanes == 0 {
					c.cfg.Lanes = 3
				}
				ownOnce(t, c.cfg)
				s.Exec(t, "UPDATE twinspan.lane_position SET log_offset = 9 WHERE stream = '"+stream+"'", "UPDATE twinspan.progress SET log_offset = 9 WHERE stream = '"+stream+"'")
				for _, q := range c.before {
					switch table, park := strings.CutPrefix(q, "PARK "); {
					case park:
						q = "INSERT INTO twinspan.exception (stream, log_offset, log_index, state, table_schema, table_name, operation, row_key, cause, kind, detail, gtid, fingerprint, payload, shape, parked_at)" +
							" VALUES (@S, 1, ASCII('" + table + "'), 'open', 'd', '" + table + "', 'insert', '', '', '', '', '', '', '', 0, NOW()), (@S, 0, ASCII('" + table + "'), 'applied', 'd', 'x', 'insert', '', '', '', '', '', '', '', 0, NOW())"
					case q == "APART":
						q = "UPDATE twinspan.lane_position SET log_offset = 10 WHERE stream = @S AND lane = 0"
					}
					s.Exec(t, strings.ReplaceAll(q, "@S", "'"+stream+"'"))
				}
				before := s.Value(t, "SELECT CONCAT(digest, rules) FROM twinspan.rules WHERE stream = '"+stream+"'")
				w, err := route.Weigh(t.Context(), s.DB(), stream, c.to, applier.Layout)
				if err != nil {
					t.Errorf("%s: %v", c.what, err)
					continue
				}
				if (w.Refuse == "") != (c.refuse == "") || !strings.Contains(w.Refuse, c.refuse) || (w.Remedy == "") != (c.refuse == "") {
					t.Errorf("%s: %+v, want %q", c.what, w, c.refuse)
				}
				if got := s.Value(t, "SELECT CONCAT(digest, rules) FROM twinspan.rules WHERE stream = '"+stream+"'"); got != before {
					t.Errorf("%s: looking changed the record to %s", c.what, got)
				}
				_, err = route.Accept(t.Context(), s.DB(), stream, c.to, applier.Layout)
				got := s.Value(t, "SELECT CONCAT(digest, rules) FROM twinspan.rules WHERE stream = '"+stream+"'")
				if c.refuse != "" {
					if !errors.Is(err, route.ErrUnsafe) || got != before {
						t.Errorf("%s: %v, recorded %s", c.what, err, got)
					}
					continue
				}
				if err != nil || got != c.to.Digest()+c.to.String() {
					t.Errorf("%s: %v, recorded %s", c.what, err, got)
				}
				if err := route.Agree(t.Context(), s.DB(), stream, c.to); err != nil {
					t.Errorf("%s: %v", c.what, err)
				}
				c.cfg.Rules = c.to.Stamp() // and an applier takes it
				ownOnce(t, c.cfg)
			}
		})
	}
}
