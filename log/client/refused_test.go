package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
)

// TestRefusedCertificate: a certificate that is refused is told at once. It would be
// refused the next time, too.
func TestRefusedCertificate(t *testing.T) {
	k := twoCities(t)
	l := k.client(func(c *client.Config) {
		c.OpenFor, c.RequestTimeout, c.ReconnectFor = 10*time.Minute, 10*time.Minute, 10*time.Minute
		c.Dial = func(context.Context, string) (net.Conn, error) {
			return nil, fmt.Errorf("%w: this side's has expired", log.ErrRefused)
		}
	})
	for what, ask := range map[string]func() error{
		"writer": func() error { _, err := l.OpenWriter(ctxOf(t), "s"); return err },
		"reader": func() error { _, err := l.OpenReader(ctxOf(t), "s", log.ReaderOptions{}); return err },
		"bounds": func() error { _, err := l.Bounds(ctxOf(t), "s"); return err },
		"names":  func() error { _, err := l.Streams(ctxOf(t)); return err },
	} {
		if err := ask(); !errors.Is(err, log.ErrRefused) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
