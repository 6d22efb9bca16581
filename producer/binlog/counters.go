package binlog

import (
	"sync/atomic"

	"github.com/go-mysql-org/go-mysql/replication"
)

// Counters count what a stream reads. They only grow, and may be read at any time.
type Counters struct {
	Transactions atomic.Int64 // handed over completely
	Rows         atomic.Int64 // handed over, also of transactions that came again
	Statements   atomic.Int64 // DDLs handed over
	Ignored      atomic.Int64 // statements without effect on the target
	Bytes        atomic.Int64 // of binlog, as received
	Reconnects   atomic.Int64
	events       [256]atomic.Int64
}

func (c *Counters) event(e *event) {
	c.events[e.typ].Add(1)
	c.Bytes.Add(int64(e.size))
}

// Heartbeats is how often the server said that it has nothing more to send.
func (c *Counters) Heartbeats() int64 {
	return c.events[replication.HEARTBEAT_EVENT].Load() + c.events[replication.HEARTBEAT_LOG_EVENT_V2].Load()
}

// Events calls f for each event type that was read, with its name and count.
func (c *Counters) Events(f func(name string, n int64)) {
	for t := range c.events {
		if n := c.events[t].Load(); n > 0 {
			f(eventName(byte(t)), n)
		}
	}
}
