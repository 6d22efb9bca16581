package node_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/wire"
)

// readersChild makes the test binary a crowd of readers: "address count stream".
const readersChild = "TWINSPAN_TEST_READERS"

// runReaders takes whatever the node sends, in a process of its own, and looks at
// nothing: it is the node that is measured.
func runReaders(spec string) {
	var address, stream string
	var count int
	if _, err := fmt.Sscanf(spec, "%s %d %s", &address, &count, &stream); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var bytes atomic.Int64
	var open, all sync.WaitGroup
	open.Add(count)
	for range count {
		all.Go(func() {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				b := wire.Encode(nil, &wire.Hello{VersionMin: wire.VersionMin, VersionMax: wire.VersionMax, Purpose: wire.PurposeClient, Client: "crowd"})
				_, err = conn.Write(wire.Encode(b, &wire.Read{Stream: stream, Credit: 1 << 29}))
			}
			open.Done()
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return
			}
			buf := make([]byte, 16<<10)
			for {
				n, err := conn.Read(buf)
				bytes.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
	open.Wait()
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	fmt.Println(bytes.Load())
	os.Exit(0)
}

// BenchmarkReaders appends at a steady rate, so that the readers have a tail to
// follow, and tells what each confirmation took, with and without them.
func BenchmarkReaders(b *testing.B) {
	for _, readers := range []int{0, 1, 100, 2000} {
		b.Run(fmt.Sprint(readers), func(b *testing.B) {
			n := start(b, node.Config{Listen: "127.0.0.1:0", FileBytes: 64 << 20})
			l := dial(b, client.Config{Nodes: []string{n.Addr().String()}})
			w, err := l.OpenWriter(context.Background(), "s")
			if err != nil {
				b.Fatal(err)
			}
			if readers > 0 {
				crowd := exec.Command(os.Args[0])
				crowd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d s", readersChild, n.Addr(), readers))
				crowd.Stderr = os.Stderr
				stdin, err := crowd.StdinPipe()
				if err != nil {
					b.Fatal(err)
				}
				out, err := crowd.StdoutPipe()
				if err != nil {
					b.Fatal(err)
				}
				if err := crowd.Start(); err != nil {
					b.Fatal(err)
				}
				defer func() {
					_ = stdin.Close() // that ends it
					_ = crowd.Wait()
				}()
				if _, err := out.Read(make([]byte, 16)); err != nil {
					b.Fatal(err)
				}
				for deadline := time.Now().Add(20 * time.Second); n.Stats().Readers < readers && time.Now().Before(deadline); {
					time.Sleep(10 * time.Millisecond)
				}
			}
			p := make([]byte, 1024)
			const flying = 256
			var last log.Offset
			before := n.Stats()
			b.ResetTimer()
			for i := range b.N {
				if last, err = w.Append(context.Background(), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: p}); err == nil && i >= flying {
					_, err = w.Wait(context.Background(), last-flying)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			if _, err := w.Wait(context.Background(), last); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			after := n.Stats()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
			b.ReportMetric(float64(after.PushedFar+after.PushedNear-before.PushedFar-before.PushedNear)/b.Elapsed().Seconds()/1e6, "pushedMB/s")
			b.ReportMetric(float64(after.Readers), "readers")
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
