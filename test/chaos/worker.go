package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/jetstream"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/test/chaos/history"
	"github.com/twinspan/twinspan/test/chaos/load"
)

// taskVariable makes this program, or its test, a worker.
const taskVariable = "TWINSPAN_CHAOS_TASK"

// task of a worker process.
type task struct {
	Name    string        `json:"name"`
	History string        `json:"history"` // folder
	Seed    uint64        `json:"seed"`
	Stall   time.Duration `json:"stall"`
	Write   bool          `json:"write"` // else it reads
	Streams []load.Stream `json:"streams"`
	Reach   reach         `json:"reach"`
}

// reach is how a client gets to the log.
type reach struct {
	Engine string   `json:"engine"`
	Nodes  []string `json:"nodes"`
	City   string   `json:"city"`
	Cities []string `json:"cities"` // that store entries
	Source string   `json:"source"` // address its connections come from: the network tells the city by it
	// Degrade is after how long a stream does without a city; 0: it waits.
	Degrade time.Duration `json:"degrade"`
	// Only, when set, lets nothing else be reached.
	Only []string `json:"only,omitempty"`
}

// work is a worker process: it does its task until SIGTERM.
func work(text string) int {
	var t task
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		fmt.Fprintln(os.Stderr, "chaos worker:", err)
		return exitUsage
	}
	rec, err := history.Create(t.History, t.Name)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos worker:", err)
		return exitError
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	logger := zerolog.New(os.Stderr).Level(zerolog.InfoLevel).With().Timestamp().Str("worker", t.Name).Logger()
	w := &load.Worker{Name: t.Name, Record: rec, Seed: t.Seed, Stall: t.Stall, Connect: func() (log.Log, error) { return t.Reach.connect(t.Name, logger) }}
	if t.Write {
		w.Write(ctx, t.Streams)
	} else {
		w.Read(ctx, t.Streams)
	}
	if err := rec.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos worker:", err)
		return exitError
	}
	return 0
}

// connect makes a client.
func (r reach) connect(name string, logger zerolog.Logger) (log.Log, error) {
	if r.Engine == jetStream {
		return jetstream.New(jetstream.Config{
			Servers: r.Nodes, Name: name, Replicas: 3, Logger: logger,
			DialTimeout: 2 * time.Second, AckTimeout: 5 * time.Second, RequestTimeout: 5 * time.Second, ReconnectFor: 5 * time.Second,
		})
	}
	return client.New(client.Config{
		City: r.City, OpenFor: 8 * time.Second, Policy: r.policy(),
		Nodes: r.Nodes, Name: name, Dial: r.dial, Logger: logger,
		DialTimeout: 2 * time.Second, RequestTimeout: 5 * time.Second, IdleTimeout: 5 * time.Second, ReconnectFor: 5 * time.Second,
	})
}

// policy of the streams that this client creates.
func (r reach) policy() *meta.Policy {
	p := &meta.Policy{Rule: quorum.NodeRule{Cities: map[string]int{}}, Loss: meta.LossBlock}
	for _, city := range r.Cities {
		p.Rule.Cities[city] = 1
	}
	if len(r.Cities) < 2 {
		p.Rule = quorum.NodeRule{Total: 1}
	}
	if r.Degrade > 0 {
		p.Loss, p.After = meta.LossDegradeAfter, r.Degrade
	}
	return p
}

var errElsewhere = errors.New("chaos: this client may not go there")

func (r reach) dial(ctx context.Context, address string) (net.Conn, error) {
	if len(r.Only) > 0 {
		allowed := false
		for _, a := range r.Only {
			allowed = allowed || a == address
		}
		if !allowed {
			return nil, fmt.Errorf("%s: %w", address, errElsewhere)
		}
	}
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(r.Source)}}
	return d.DialContext(ctx, "tcp", address)
}
