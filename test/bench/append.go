package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/node"
)

const (
	appendBytes  = 1 << 10
	appendWindow = 1024
	appendSpell  = 3 * time.Second
)

// appendEntries appends entries of 1 KiB to one node that confirms each only
// after fdatasync, in process and over TCP, one in flight and a window of them.
// The yardstick is the disk itself: write and fdatasync of one 1 KiB block at a
// time into a file that was written before.
func appendEntries(ctx context.Context, s settings) error {
	dir, err := os.MkdirTemp(s.journal, "twinspan-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // scratch
	n, err := node.New(node.Config{Name: "bench", Dir: filepath.Join(dir, "log"), Listen: "127.0.0.1:0", Logger: zerolog.Nop()})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1) // owner: the goroutine below; one value
	go func() { ended <- n.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		_ = n.Close() // its folder goes too
	}()
	over, err := client.New(client.Config{Nodes: []string{n.Addr().String()}})
	if err != nil {
		return err
	}
	defer func() { _ = over.Close() }() // everything was confirmed
	fmt.Printf("append: entries of %d bytes, one node, fdatasync before each confirmation\n", appendBytes)
	ways := []struct {
		name   string
		l      log.Log
		window int
	}{{"in process, 1 in flight", n.Log(), 1}, {fmt.Sprintf("in process, %d", appendWindow), n.Log(), appendWindow}, {fmt.Sprintf("over TCP, %d", appendWindow), over, appendWindow}}
	rates := make([][]float64, len(ways)+1)
	for range s.rounds {
		r, err := bareSync(filepath.Join(dir, "bare"))
		if err != nil {
			return err
		}
		rates[len(ways)] = append(rates[len(ways)], r)
		for i, w := range ways {
			r, err := appendSome(ctx, w.l, fmt.Sprintf("bench%d", i), w.window)
			if err != nil {
				return err
			}
			rates[i] = append(rates[i], r)
		}
	}
	bare := median(rates[len(ways)])
	fmt.Printf("  %-26s %8.0f /s\n", "bare write and fdatasync", bare)
	for i, w := range ways {
		fmt.Printf("  %-26s %8.0f /s   ratio %.2f\n", w.name, median(rates[i]), median(rates[i])/bare)
	}
	fmt.Printf("RESULT bench-append bare_per_second=%.0f one_in_flight_per_second=%.0f window_per_second=%.0f tcp_window_per_second=%.0f\n",
		bare, median(rates[0]), median(rates[1]), median(rates[2]))
	return nil
}

func bareSync(path string) (perSecond float64, err error) {
	const size = 64 << 20
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if st, err := f.Stat(); err != nil || st.Size() < size {
		if _, err := f.Write(make([]byte, size)); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	block := make([]byte, appendBytes)
	began, done := time.Now(), 0
	for ; time.Since(began) < appendSpell/3; done++ {
		if _, err := f.WriteAt(block, int64(done)*appendBytes%size); err != nil {
			return 0, err
		}
		if err := fdatasync(f); err != nil {
			return 0, err
		}
	}
	return float64(done) / time.Since(began).Seconds(), nil
}

// appendSome keeps window entries in flight and counts what is confirmed.
func appendSome(ctx context.Context, l log.Log, stream string, window int) (perSecond float64, err error) {
	w, err := l.OpenWriter(ctx, stream)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	flying := make(chan log.Offset, window) // owner: this goroutine, who closes it; the waiter takes
	var wg sync.WaitGroup
	var waited error
	wg.Go(func() {
		for o := range flying {
			if waited == nil {
				_, waited = w.Wait(ctx, o)
			}
		}
	})
	began, done := time.Now(), 0
	for time.Since(began) < appendSpell && err == nil {
		var o log.Offset
		o, err = w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: make([]byte, appendBytes)})
		done++
		if err == nil && window == 1 {
			_, err = w.Wait(ctx, o)
		} else if err == nil {
			flying <- o
		}
	}
	close(flying)
	wg.Wait()
	return float64(done) / time.Since(began).Seconds(), errors.Join(err, waited)
}
