// Package producer brings the binlog of one server into the log: ordered,
// complete, or halted. See DESIGN.md.
package producer

import (
	"fmt"
	"time"

	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/producer/binlog"
)

// Halt is why the producer stopped reading; see binlog.Halt.
type Halt = binlog.Halt

// Where to start when the log is empty.
const (
	StartEarliest = "earliest" // everything the server ever committed
	StartCurrent  = "current"  // what it commits from now on
)

// Config of a producer. The zero value of everything but Stream and
// Binlog.Server is usable.
type Config struct {
	Stream string // of the log
	Binlog binlog.Config
	// Start is where to begin when the log is empty: StartEarliest,
	// StartCurrent (also when empty), or the GTID set of what the target has.
	Start string
	// BatchBytesMax closes a batch; 0: 256 KiB.
	BatchBytesMax int
	// BatchDelay is how long a transaction waits for others at most while the
	// log is busy; 0: 2 ms. With an idle log nothing waits.
	BatchDelay time.Duration
	// TransactionChunkBytes is where a large transaction is cut into parts, an
	// entry each; 0: 1 MiB.
	TransactionChunkBytes int
	// Recheck is how often a halted producer looks whether it can go on; 0: 15 s.
	Recheck time.Duration
	// BackoffMax bounds the pause between attempts to open the log; 0: 10 s.
	BackoffMax time.Duration
}

func (c *Config) complete() error {
	if c.Stream == "" {
		return fmt.Errorf("producer: no stream is named")
	}
	def := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	def(&c.BatchBytesMax, 256<<10)
	def(&c.TransactionChunkBytes, 1<<20)
	for v, to := range map[*time.Duration]time.Duration{
		&c.BatchDelay: 2 * time.Millisecond, &c.Recheck: 15 * time.Second, &c.BackoffMax: 10 * time.Second,
	} {
		if *v == 0 {
			*v = to
		}
	}
	if c.Start == "" {
		c.Start = StartCurrent
	}
	// A batch ends with the row that fills it, and a row may take as much
	// again: leave room for it and for the GTID set.
	for name, v := range map[string]int{"batch_bytes_max": c.BatchBytesMax, "transaction_chunk_bytes": c.TransactionChunkBytes} {
		if v < 1<<10 || v > log.MaxPayload/2 {
			return fmt.Errorf("producer of %s: %s is %d: want %d to %d bytes", c.Stream, name, v, 1<<10, log.MaxPayload/2)
		}
	}
	if c.BatchDelay < 0 || c.Recheck < 0 || c.BackoffMax < 0 {
		return fmt.Errorf("producer of %s: negative duration", c.Stream)
	}
	if c.Start == StartEarliest || c.Start == StartCurrent {
		return nil
	}
	_, my := gtid.Parse(gtid.MySQL, c.Start)
	_, maria := gtid.Parse(gtid.MariaDB, c.Start)
	if my != nil && maria != nil {
		return fmt.Errorf("producer of %s: start %q: use %s, %s or a GTID set", c.Stream, c.Start, StartEarliest, StartCurrent)
	}
	return nil
}
