package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/certs"
	"github.com/twinspan/twinspan/log/wire"
	"github.com/twinspan/twinspan/log/wire/link"
)

// Who says it is a node has to show a node's certificate: it could vote otherwise.
func TestOnlyNodesAreNodes(t *testing.T) {
	l := newLab(t, true)
	for name, ok := range map[string]bool{"producer": false, "a2": true} {
		s, err := certs.Open(certs.Files{Cert: l.file(name + ".crt"), Key: l.file(name + ".key"), CA: l.file("ca.crt")})
		if err != nil {
			t.Fatal(err)
		}
		dial := s.Over(func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		conn, err := dial(ctx, l.at["a1"])
		if err != nil {
			t.Fatal(err)
		}
		peer := link.New(conn, link.Options{Idle: 20 * time.Second})
		err = peer.Send(&wire.Hello{VersionMin: wire.VersionMin, VersionMax: wire.VersionMax, Purpose: wire.PurposeNode, Client: "a2"})
		if err == nil {
			err = peer.Expect(ctx, &wire.Welcome{})
		}
		refused := err != nil && strings.Contains(err.Error(), "its certificate (producer) is a client's")
		if refused == ok {
			t.Errorf("%s as a node: %v", name, err)
		}
		_ = peer.Close() // it was only greeted
	}
	contains(t, l.nodes["a1"].log.String(), "log connection refused: a certificate", "is a client's")
}
