package natstest

import (
	"context"
	"testing"
)

// Start runs a cluster of its own for a test. It ends, and its folder goes, with
// the test; when the test fails, the end of the servers' logs is shown. A server
// that is not installed fails the test.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the servers' logs:\n%s", c.Log(15))
		}
		if err := c.Close(); err != nil {
			t.Errorf("close the nats cluster: %v", err)
		}
	})
	return c
}
