package node_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/node"
)

// childDir makes the test binary a node of its own: TestMain serves the
// directory until it is killed.
const childDir = "TWINSPAN_TEST_NODE_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		serveChild(dir)
	}
	if spec := os.Getenv(readersChild); spec != "" {
		runReaders(spec)
	}
	goleak.VerifyTestMain(m)
}

func serveChild(dir string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	n, err := node.New(node.Config{Name: "a1", Dir: dir, Listen: "127.0.0.1:0", FileBytes: 1 << 20, Logger: zerolog.New(os.Stderr).Level(zerolog.WarnLevel)})
	if err != nil {
		fail(err)
	}
	fmt.Println(n.Addr())
	go func() { // it must not outlive the test, however that ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fail(n.Run(context.Background()))
}

// child is a node in a process that can be killed.
type child struct {
	cmd     *exec.Cmd
	out     io.ReadCloser
	address string
}

func spawn(t *testing.T, dir string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(exe)}
	c.cmd.Env = append(os.Environ(), childDir+"="+dir)
	c.cmd.Stderr = os.Stderr
	if _, err := c.cmd.StdinPipe(); err != nil { // open as long as this process lives
		t.Fatal(err)
	}
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c.out).ReadString('\n')
	if err != nil {
		t.Fatal(errors.Join(err, c.cmd.Process.Kill(), c.cmd.Wait()))
	}
	c.address = strings.TrimSpace(line)
	return c
}

func (c *child) kill(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := c.cmd.Wait(); !errors.As(err, &exit) {
		t.Fatalf("a killed node ends with %v", err)
	}
}

// killPayload is what entry o of a stream must be, whichever life appended it.
func killPayload(stream int, o log.Offset) []byte {
	r := rand.New(rand.NewPCG(uint64(stream), uint64(o)))
	b := make([]byte, 16+r.IntN(2000))
	binary.LittleEndian.PutUint64(b, uint64(stream))
	binary.LittleEndian.PutUint64(b[8:], uint64(o))
	for i := 16; i < len(b); i++ {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestKill9 kills a real node again and again while three writers append. After
// each start everything that was confirmed is there, in order, byte by byte.
func TestKill9(t *testing.T) {
	lives := 25
	if testing.Short() {
		lives = 5
	}
	dir := t.TempDir()
	const streams = 3
	var confirmed [streams]log.Offset
	for i := range confirmed {
		confirmed[i] = log.None
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	total := 0
	for life := range lives {
		c := spawn(t, dir)
		l, err := client.New(client.Config{Nodes: []string{c.address}, ReconnectFor: time.Millisecond, Logger: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for i := range streams {
			w, err := l.OpenWriter(context.Background(), fmt.Sprintf("set%d", i))
			if err != nil {
				t.Fatalf("life %d: %v", life, err)
			}
			last := w.Bounds().LAC
			if last < confirmed[i] {
				t.Fatalf("life %d stream %d: last entry %d, but %d was confirmed", life, i, last, confirmed[i])
			}
			total += verifyStream(t, l, i, max(0, last-3000), last)
			if life == lives-1 {
				verifyStream(t, l, i, 0, last)
			}
			all.Go(func() { confirmed[i] = appendUntilDeath(w, i, last) })
		}
		time.Sleep(time.Duration(20+r.IntN(150)) * time.Millisecond)
		c.kill(t)
		if err := l.Close(); err != nil { // writers would wait for the node to come back
			t.Fatal(err)
		}
		all.Wait()
	}
	t.Logf("RESULT kills=%d verified=%d confirmed=%v lost=0", lives, total, confirmed)
}

func appendUntilDeath(w log.Writer, stream int, last log.Offset) log.Offset {
	confirmed := last
	for o := last + 1; ; o++ {
		_, err := w.Append(context.Background(), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: killPayload(stream, o)})
		if err == nil && o%32 == 0 {
			if _, err = w.Wait(context.Background(), o); err == nil {
				confirmed = o
			}
		}
		if err != nil {
			_ = w.Close() // dead
			return max(confirmed, w.Bounds().LAC)
		}
	}
}

func verifyStream(t *testing.T, l log.Log, stream int, from, last log.Offset) int {
	t.Helper()
	if last < from {
		return 0
	}
	rd, err := l.OpenReader(context.Background(), fmt.Sprintf("set%d", stream), log.ReaderOptions{From: from})
	if err != nil {
		t.Fatal(err)
	}
	for o := from; o <= last; o++ {
		e, err := rd.Next(context.Background())
		if err != nil {
			t.Fatalf("stream %d entry %d: %v", stream, o, err)
		}
		if e.Offset != o || string(e.Payload) != string(killPayload(stream, o)) {
			t.Fatalf("stream %d entry %d differs (got %d, %d bytes)", stream, o, e.Offset, len(e.Payload))
		}
	}
	if err := rd.Close(); err != nil {
		t.Fatal(err)
	}
	return int(last - from + 1)
}
