package client_test

import (
	"testing"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/conformance"
)

func TestConformance(t *testing.T) {
	for name, places := range map[string][]place{
		"one node":           {{"a1", "a"}},
		"two cities":         {{"a1", "a"}, {"a2", "a"}, {"b1", "b"}, {"b2", "b"}},
		"three in one place": {{"a1", ""}, {"a2", ""}, {"a3", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			conformance.Run(t, func(t *testing.T) log.Log { return newCluster(t, places...).client(nil) })
		})
	}
}
