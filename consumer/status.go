package consumer

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/consumer/route"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// flavorOf tells the two forms of GTIDs apart: only MySQL's have a colon.
func flavorOf(text string) string {
	if strings.Contains(text, ":") {
		return string(server.MySQL)
	}
	return string(server.MariaDB)
}

// Code names the reason of a halt.
type Code string

// The reasons. Each is looked at again regularly and nothing is skipped.
const (
	CodeOther    Code = "LOG_OTHER"      // the log is not the one the sink was fed from
	CodeTrimmed  Code = "LOG_TRIMMED"    // what the sink needs is no longer kept
	CodeLost     Code = "LOG_LOST"       // the log lost entries, and an operator gave them up
	CodeDamaged  Code = "LOG_DAMAGED"    // stored bytes are damaged, or no batch
	CodeSchema   Code = "SCHEMA_UNKNOWN" // a row of a table version that was not published
	CodeRun      Code = "RUN_BROKEN"     // parts of a transaction do not fit together
	CodeMismatch Code = "GTID_MISMATCH"  // the log's set is not what it holds
	CodeRepeated Code = "GTID_REPEATED"  // a transaction is in the log twice
)

// Halt is why the consumer does not go on.
type Halt struct {
	Code   Code       `json:"code"`
	Reason string     `json:"reason"`
	Remedy string     `json:"remedy"`
	Offset log.Offset `json:"offset"` // the entry it stands before
	Since  time.Time  `json:"since"`
	Tries  int        `json:"tries"`
}

func assess(err error, group string) (Code, string) {
	if refused := (*route.Refusal)(nil); errors.As(err, &refused) {
		return Code(refused.Code), refused.Remedy
	}
	if gap := (*gapError)(nil); errors.As(err, &gap) {
		return CodeLost, gap.remedy(group)
	}
	if behind := (*behindError)(nil); errors.As(err, &behind) {
		return CodeTrimmed, behind.remedy(group)
	}
	switch {
	case errors.Is(err, errOther):
		return CodeOther, "let log.nodes name the log that the target was fed from; if that one is gone for good, begin a new stream, under a new name, " +
			"from the GTID set that the target has applied (producer.start)"
	case errors.Is(err, log.ErrTrimmed):
		return CodeTrimmed, "the target is too far behind: seed it anew and start from there"
	case errors.Is(err, log.ErrSuspect):
		return CodeDamaged, "the log node has damaged bytes: see its log; restore them or seed the target anew"
	case errors.Is(err, change.ErrMalformed), errors.Is(err, gtid.ErrInvalid), errors.Is(err, gtid.ErrFlavor):
		return CodeDamaged, "the entry can't be read: a producer of another version, or damage; report this"
	case errors.Is(err, schema.ErrUnknownVersion), errors.Is(err, schema.ErrRegistryFull):
		return CodeSchema, "the schema topic lacks a table version that rows use; report this"
	case errors.Is(err, errRun):
		return CodeRun, "two producers wrote to the stream, or the log lost an entry; report this"
	case errors.Is(err, errMismatch):
		return CodeMismatch, "the log lost or gained a transaction: compare it with the source before going on"
	case errors.Is(err, errRepeated):
		return CodeRepeated, "the log gained a transaction: compare it with the source before going on"
	}
	return "", ""
}

// state is what Consumer.mu guards.
type state struct {
	started      bool
	next         log.Offset
	bounds       log.Bounds
	entries      int64
	bytes        int64
	rows         int64
	transactions int64
	discarded    int64
	read         time.Time
	err          error
	halt         *Halt
	since        time.Time
	tries        int
}

// Status is a picture of a Consumer.
type Status struct {
	Stream string `json:"stream"`
	Group  string `json:"group"`
	// Next is the first offset that was not fed in full; LAC and LSO are the
	// log's as the reader last heard. Behind is how many committed entries,
	// of any topic, are not fed; those of gaps are none.
	Next   log.Offset `json:"next"`
	LAC    log.Offset `json:"lac"`
	LSO    log.Offset `json:"lso"`
	Behind int64      `json:"behind_entries"`
	// Read is the source's commit time of the newest transaction fed.
	Read *time.Time `json:"read,omitempty"`

	Entries      int64 `json:"entries"` // since Run began
	Bytes        int64 `json:"bytes"`
	Rows         int64 `json:"rows"`
	Transactions int64 `json:"transactions"`
	Discarded    int64 `json:"discarded"` // transactions without an end, of producers that died
	// What filters left out since Run began.
	FilteredRows       int64 `json:"filtered_rows"`
	FilteredStatements int64 `json:"filtered_statements"`

	Halt    *Halt  `json:"halt,omitempty"`
	Trouble string `json:"trouble,omitempty"` // a passing condition: the log is away
}

// Status may be called at any time from any goroutine. The bounds are asked of
// the log, so that an idle consumer knows whether it is at the end; where the
// log can't be reached they are the last ones heard.
func (c *Consumer) Status(ctx context.Context) Status {
	b, err := c.log.Bounds(ctx, c.cfg.Stream)
	c.mu.Lock()
	if err == nil {
		c.state.bounds = b
	}
	next, end := c.state.next, c.state.bounds.LSO
	c.mu.Unlock()
	behind := log.Behind(ctx, c.log, c.cfg.Stream, next-1, end)
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &c.state
	s := Status{
		Stream: c.cfg.Stream, Group: c.cfg.Group, Next: next, LAC: st.bounds.LAC, LSO: end,
		Entries: st.entries, Bytes: st.bytes, Rows: st.rows, Transactions: st.transactions, Discarded: st.discarded,
	}
	if c.cfg.Router != nil {
		s.FilteredRows, s.FilteredStatements = c.cfg.Router.Counts()
	}
	if st.started {
		s.Behind = behind
	}
	if !st.read.IsZero() {
		t := st.read
		s.Read = &t
	}
	switch {
	case st.halt != nil:
		h := *st.halt
		h.Since, h.Tries = st.since, st.tries
		s.Halt = &h
	case st.err != nil:
		s.Trouble = st.err.Error()
	}
	return s
}

// note remembers what is in the way; nil clears it.
func (c *Consumer) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &c.state
	if err == nil {
		if st.halt != nil {
			c.logger.Info().Str("code", string(st.halt.Code)).Int("tries", st.tries).Msg("halt is over")
		}
		st.err, st.halt, st.tries = nil, nil, 0
		return
	}
	if st.err == nil {
		st.since = time.Now()
	}
	st.err = err
	st.tries++
	code, remedy := assess(err, c.cfg.Group)
	if code == "" {
		st.halt = nil
		if st.tries == 1 || st.tries%64 == 0 {
			c.logger.Warn().Err(err).Int("tries", st.tries).Msg("reading failed, trying again")
		}
		return
	}
	if st.halt == nil || st.halt.Code != code {
		c.logger.Error().Err(err).Str("code", string(code)).Str("remedy", remedy).Msg("halted")
	}
	st.halt = &Halt{Code: code, Reason: err.Error(), Remedy: remedy, Offset: c.next.Offset}
}

var (
	descNext = prometheus.NewDesc("twinspan_consumer_next_offset", "First offset that was not fed in full.", []string{"stream", "group"}, nil)
	descLag  = prometheus.NewDesc("twinspan_consumer_behind_entries", "Committed entries that were not fed.", []string{"stream", "group"}, nil)
	descRows = prometheus.NewDesc("twinspan_consumer_rows_total", "Row changes fed.", []string{"stream", "group"}, nil)
	descSize = prometheus.NewDesc("twinspan_consumer_bytes_total", "Payload bytes read.", []string{"stream", "group"}, nil)
	descLeft = prometheus.NewDesc("twinspan_consumer_filtered_total", "Row changes and statements that filters left out.", []string{"stream", "group", "kind"}, nil)
	descHalt = prometheus.NewDesc("twinspan_consumer_halted", "1 while the consumer is halted, by code.", []string{"stream", "group", "code"}, nil)
)

// Describe implements prometheus.Collector.
func (c *Consumer) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descNext, descLag, descRows, descSize, descLeft, descHalt} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Consumer) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s := c.Status(ctx)
	emit := func(d *prometheus.Desc, t prometheus.ValueType, v float64, more ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, append([]string{s.Stream, s.Group}, more...)...)
	}
	emit(descNext, prometheus.GaugeValue, float64(s.Next))
	emit(descLag, prometheus.GaugeValue, float64(s.Behind))
	emit(descRows, prometheus.CounterValue, float64(s.Rows))
	emit(descSize, prometheus.CounterValue, float64(s.Bytes))
	emit(descLeft, prometheus.CounterValue, float64(s.FilteredRows), "row")
	emit(descLeft, prometheus.CounterValue, float64(s.FilteredStatements), "statement")
	if s.Halt != nil {
		emit(descHalt, prometheus.GaugeValue, 1, string(s.Halt.Code))
	}
}
