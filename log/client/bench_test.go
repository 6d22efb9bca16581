package client_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/wire"
	"github.com/twinspan/twinspan/log/wire/link"
)

// sinkEnv makes the test binary a node that stores nothing, so that a writer's
// own cost can be measured: name, and how long its disk takes.
const sinkEnv = "TWINSPAN_TEST_SINK"

// sink acknowledges everything after the delay, in groups.
func sink(name string, delay time.Duration) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // the parent's end is the child's
		os.Exit(0)
	}()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go sinkConn(conn, name, delay)
	}
}

func sinkConn(conn net.Conn, name string, delay time.Duration) {
	defer func() { _ = conn.Close() }()
	ctx := context.Background()
	l := link.New(conn, link.Options{})
	var last atomic.Int64
	work := make(chan struct{}, 1)
	for {
		k, body, err := l.Next(ctx, wire.BodyMax)
		if err != nil {
			return
		}
		var reply wire.Message
		switch k {
		case wire.KindHello:
			reply = &wire.Welcome{Version: wire.VersionMax, Node: name, UUID: "uuid-" + name, City: "a", Generation: 1, IdleMS: 20000}
		case wire.KindAttach:
			var m wire.Attach
			if wire.Decode(&m, body) != nil {
				return
			}
			last.Store(int64(m.Descriptor.First - 1))
			reply = &wire.Attached{Last: m.Descriptor.First - 1}
			go func() {
				sent := last.Load()
				for range work {
					time.Sleep(delay)
					if now := last.Load(); now > sent {
						sent = now
						if l.Send(&wire.Ack{Last: log.Offset(sent)}) != nil {
							return
						}
					}
				}
			}()
		case wire.KindAppend:
			var m wire.Append
			if wire.DecodeAppend(&m, body) != nil {
				return
			}
			last.Store(int64(m.Offset))
			select {
			case work <- struct{}{}:
			default:
			}
		case wire.KindLAC:
		case wire.KindClose:
			reply = &wire.Done{}
		default:
			reply = wire.ErrorOf(log.ErrUnavailable)
		}
		if reply != nil && l.Send(reply) != nil {
			return
		}
	}
}

// sinks starts a cluster of them, with real metadata in this process.
func sinks(b *testing.B, n int, delay time.Duration) (seed string) {
	b.Helper()
	k := newCluster(b, witness)
	for i := range n {
		name := fmt.Sprintf("s%d", i)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), sinkEnv+"="+name+","+delay.String())
		in, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			_ = in.Close()
			_ = cmd.Wait()
		})
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			b.Fatal(err)
		}
		address := strings.TrimSpace(line)
		if _, err := k.meta.Do(context.Background(), meta.Command{Now: time.Now().UTC(), Register: &meta.Register{Node: meta.Node{
			Name: name, UUID: "uuid-" + name, City: "a", Address: address,
		}}}); err != nil {
			b.Fatal(err)
		}
	}
	return k.nodes[0].address
}

func usage() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// delayed is a way to nodes that takes half the round trip in each direction.
func delayed(rtt time.Duration) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		if rtt == 0 {
			return conn, nil
		}
		near, far := net.Pipe()
		go lag(conn, far, rtt/2)
		go lag(far, conn, rtt/2)
		return near, nil
	}
}

// lag carries bytes from one connection to another, later.
func lag(to, from net.Conn, by time.Duration) {
	type piece struct {
		at time.Time
		b  []byte
	}
	line := make(chan piece, 4096) // owner: this function's reader, who closes it
	go func() {
		defer close(line)
		buf := make([]byte, 256<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				line <- piece{time.Now().Add(by), bytes.Clone(buf[:n])}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range line {
		time.Sleep(time.Until(p.at))
		if _, err := to.Write(p.b); err != nil {
			break
		}
	}
	_ = to.Close()
	_ = from.Close()
	for range line {
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		members int
		window  int
		rtt     time.Duration
	}{{1, 1024, 0}, {3, 1, 0}, {3, 1024, 0}, {4, 4096, 0}, {3, 1, 30 * time.Millisecond}, {3, 4096, 30 * time.Millisecond}} {
		b.Run(fmt.Sprintf("members=%d/window=%d/rtt=%v", c.members, c.window, c.rtt), func(b *testing.B) {
			seed := sinks(b, c.members, 100*time.Microsecond)
			dial := delayed(0)
			slow := delayed(c.rtt)
			l, err := client.New(client.Config{
				Nodes: []string{seed}, Policy: &meta.Policy{Rule: quorum.NodeRule{Total: c.members/2 + 1}, Loss: meta.LossBlock}, Spare: c.members,
				Dial: func(ctx context.Context, address string) (net.Conn, error) {
					if address == seed {
						return dial(ctx, address)
					}
					return slow(ctx, address)
				},
			})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			w, err := l.OpenWriter(context.Background(), "s")
			if err != nil {
				b.Fatal(err)
			}
			p := bytes.Repeat([]byte("x"), 1024)
			ctx := context.Background()
			put := func() log.Offset {
				o, err := w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: p})
				if err != nil {
					b.Fatal(err)
				}
				return o
			}
			if _, err := w.Wait(ctx, put()); err != nil {
				b.Fatal(err)
			}
			type flight struct {
				o  log.Offset
				at time.Time
			}
			flying := make(chan flight, c.window) // owner: this goroutine, who closes it
			var waiter sync.WaitGroup
			var took []time.Duration
			waiter.Go(func() {
				for f := range flying {
					if _, err := w.Wait(ctx, f.o); err != nil {
						b.Error(err)
						return
					}
					took = append(took, time.Since(f.at))
				}
			})
			b.ResetTimer()
			before := usage()
			for range b.N {
				at := time.Now()
				o := put()
				if c.window == 1 {
					if _, err := w.Wait(ctx, o); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(at))
				} else {
					flying <- flight{o, at}
				}
			}
			close(flying)
			waiter.Wait()
			b.StopTimer()
			b.ReportMetric(float64((usage()-before).Nanoseconds())/1e3/float64(b.N), "cpu-µs/entry")
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
