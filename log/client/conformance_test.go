package client_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/conformance"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node/nodetest"
	"github.com/twinspan/twinspan/log/quorum"
)

func TestMain(m *testing.M) {
	if name, delay, ok := strings.Cut(os.Getenv(sinkEnv), ","); ok {
		d, err := time.ParseDuration(delay)
		if err == nil {
			err = sink(name, d)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name   string
		places []place
		policy *meta.Policy
	}{
		{"one node", []place{{"a1", "a"}}, nil},
		{"one in each of two cities", []place{{"a1", "a"}, {"a2", "a"}, {"b1", "b"}, {"b2", "b"}}, nil},
		{"two of three", []place{{"a1", "a"}, {"a2", "a"}, {"a3", "a"}}, &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conformance.Run(t, func(t *testing.T) log.Log {
				return newCluster(t, c.places...).client(func(cfg *client.Config) { cfg.Policy = c.policy })
			})
		})
	}
}

// TestConformanceOfRealNodes: two of three, on the nodes that the program runs;
// log/node has the other layouts.
func TestConformanceOfRealNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	conformance.Run(t, func(t *testing.T) log.Log {
		return nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "a3"}}).Client("a", func(cfg *client.Config) {
			cfg.Policy = &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}
		})
	})
}
