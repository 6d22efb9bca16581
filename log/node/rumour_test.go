package node_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/wire"
)

// TestGenerationOfNobody lets a client say a generation which no node knows.
func TestGenerationOfNobody(t *testing.T) {
	n := start(t, node.Config{Listen: "127.0.0.1:0"})
	l := dial(t, client.Config{Nodes: []string{n.Addr().String()}, OpenFor: 5 * time.Second})
	w, err := l.OpenWriter(context.Background(), "s")
	if err != nil {
		t.Fatal(err)
	}
	put(t, w, 5)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	conn := raw(t, n)
	if _, err := conn.Write(wire.Encode(nil, &wire.Hello{VersionMin: wire.VersionMin, VersionMax: wire.VersionMax, Purpose: wire.PurposeClient, Client: "test", Generation: 1 << 60})); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) { // it has heard
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if w, err = l.OpenWriter(context.Background(), "s"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
