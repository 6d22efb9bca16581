package meta

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
)

// TestWipedVoter loses a node's directory. Under its old name it is let in by
// nobody; forgotten and registered anew it catches up and votes again.
func TestWipedVoter(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a1", "a2", "b1")
	client := c.client()
	c.register(client, "a1", "a2", "b1")
	createOn(t, client, "s")
	leader := c.leader()
	wiped := c.others(leader)[0]
	c.stop(wiped)
	if err := os.RemoveAll(c.nodes[wiped].dir); err != nil {
		t.Fatal(err)
	}
	c.nodes[wiped].uuid = "fresh"
	c.start(wiped)
	time.Sleep(4 * testHeartbeat)
	if s := c.nodes[wiped].server.Status(); s.Role != "starting" || s.LastIndex != 0 {
		t.Fatalf("wiped, it takes part: %+v", s)
	}
	must(t)(client.Do(within(t, 10*time.Second), Command{Forget: &Forget{Node: wiped, UUID: "id-" + wiped}}))
	if s := c.nodes[c.leader(c.others(wiped)...)].server.Status(); len(s.Voters) != 2 {
		t.Fatalf("a forgotten node votes: %+v", s.Voters)
	}
	c.register(client, wiped)
	eventually(t, "its vote", func() error {
		s := c.nodes[wiped].server.Status()
		if len(s.Voters) != 3 || s.Streams != 1 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	c.vanish(c.leader(c.others(wiped)...)) // now its vote is needed
	createOn(t, client, "t")
}

// TestWipedVoterInAStartOfAll starts everything again, one node with an empty
// directory and another one that lags: together they are a majority, and must not
// elect a leader that misses what was committed.
func TestWipedVoterInAStartOfAll(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a1", "a2", "b1")
	client := c.client()
	c.register(client, "a1", "a2", "b1")
	createOn(t, client, "s")
	leader := c.leader()
	wiped, lagging := c.others(leader)[0], c.others(leader)[1]
	views(t, c)
	c.stop(lagging)
	createOn(t, client, "t")
	c.vanish(leader)
	c.stop(wiped)
	if err := os.RemoveAll(c.nodes[wiped].dir); err != nil {
		t.Fatal(err)
	}
	c.nodes[wiped].uuid = "fresh"
	c.start(wiped)
	c.start(lagging)
	time.Sleep(6 * testHeartbeat)
	for _, name := range []string{wiped, lagging} {
		if s := c.nodes[name].server.Status(); s.Role == "leader" {
			t.Fatalf("%s leads: %+v", name, s)
		}
	}
	c.start(leader)
	names, err := client.Streams(within(t, 20*time.Second))
	if err != nil || len(names) != 2 {
		t.Fatalf("%v, %v", names, err)
	}
}

// TestNewcomer grows a cluster of one.
func TestNewcomer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a1", "a2")
	c.stop("a1")
	c.stop("a2")
	for _, name := range []string{"a1", "a2"} {
		if err := os.RemoveAll(c.nodes[name].dir); err != nil {
			t.Fatal(err)
		}
	}
	c.startWith("a1", c.peers[:1])
	createOn(t, c.nodes["a1"].server, "s")
	c.register(c.nodes["a1"].server, "a1")
	c.stop("a1")

	c.start("a2")
	c.start("a1")
	c.register(c.client(), "a2")
	eventually(t, "the newcomer's vote", func() error {
		if s := c.nodes["a2"].server.Status(); len(s.Voters) != 2 || s.Streams != 1 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// TestFirstConfigurationCutShort kills nodes between Raft's first term and the
// first configuration.
func TestFirstConfigurationCutShort(t *testing.T) {
	t.Parallel()
	for _, names := range [][]string{{"a1"}, {"a1", "b1", "w1"}} {
		for half := 1; half <= len(names); half += 2 {
			c := newCluster(t, names...)
			for _, name := range names {
				c.stop(name)
				if err := os.RemoveAll(c.nodes[name].dir); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range names[:half] {
				if err := os.MkdirAll(c.nodes[name].dir, 0o700); err != nil {
					t.Fatal(err)
				}
				d, err := openDisk(c.nodes[name].dir)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(d.SetUint64(keyCurrentTerm, 1), d.close()); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range names {
				c.start(name)
			}
			createOn(t, c.client(), "s")
		}
	}
}
