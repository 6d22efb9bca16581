// Command decode prints the rows of a stream as JSON lines. It shows that a
// reader needs nothing of twinspan but its log client: the envelopes are the two
// .avsc files beside this one, each table version's schema comes from the schema
// topic, and goavro decodes them all.
//
//	go run ./examples/decode -nodes 127.0.0.1:7040 -stream payments
package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/linkedin/goavro/v2"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
)

//go:embed batch.avsc
var batchSchema string

//go:embed table_version.avsc
var versionSchema string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "decode:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("decode", flag.ExitOnError)
	nodes := flags.String("nodes", "127.0.0.1:7040", "addresses of log nodes, host:port, separated by commas")
	stream := flags.String("stream", "", "the stream to read")
	follow := flags.Bool("follow", false, "wait for more at the end of the stream")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *stream == "" {
		return errors.New("-stream is missing")
	}
	l, err := client.New(client.Config{Nodes: strings.Split(*nodes, ",")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	w := bufio.NewWriter(out)
	defer func() { err = errors.Join(err, w.Flush()) }()
	return decode(ctx, l, *stream, *follow, w)
}

// decode reads the stream from its oldest entry to the end of its last whole
// transaction, or for ever.
func decode(ctx context.Context, l log.Log, stream string, follow bool, out *bufio.Writer) (err error) {
	bounds, err := l.Bounds(ctx, stream)
	if err != nil {
		return err
	}
	if !follow && bounds.LSO < bounds.First {
		return nil
	}
	reader, err := l.OpenReader(ctx, stream, log.ReaderOptions{From: bounds.First, Committed: true}) // of all topics, so that the last entry comes
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	d, err := newDecoder(out)
	if err != nil {
		return err
	}
	for {
		e, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		if e.Topic == log.TopicSchema || e.Topic == log.TopicData {
			if err := d.entry(e); err != nil {
				return fmt.Errorf("entry %d: %w", e.Offset, err)
			}
		}
		if e.Offset < bounds.LSO {
			continue
		}
		if !follow {
			return nil
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
}

type decoder struct {
	batch, version *goavro.Codec
	tables         map[string]*table // by fingerprint
	out            *json.Encoder
	// unfinished are the lines of a transaction that is split over several
	// entries, until its last one is there. A producer that died in between
	// never writes that one: its successor starts the transaction again.
	unfinished []any
}

// table is one version of a table.
type table struct {
	codec   *goavro.Codec
	columns map[string]string // Avro's name to the original
}

func newDecoder(out io.Writer) (*decoder, error) {
	d := &decoder{tables: map[string]*table{}, out: json.NewEncoder(out)}
	d.out.SetEscapeHTML(false)
	var err error
	if d.batch, err = goavro.NewCodec(batchSchema); err != nil {
		return nil, err
	}
	d.version, err = goavro.NewCodec(versionSchema)
	return d, err
}

func (d *decoder) entry(e log.Entry) error {
	codec := d.batch
	if e.Topic == log.TopicSchema {
		codec = d.version
	}
	native, rest, err := codec.NativeFromBinary(e.Payload)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes too many", len(rest))
	}
	record := native.(map[string]any)
	if e.Topic == log.TopicSchema {
		return d.tableVersion(record)
	}
	for _, t := range record["transactions"].([]any) {
		if err := d.transaction(e.Offset, t.(map[string]any)); err != nil {
			return err
		}
	}
	return nil
}

// tableVersion learns a version's schema. Avro names are escaped; the original
// column names are properties of the fields.
func (d *decoder) tableVersion(v map[string]any) error {
	text := v["avro_schema"].(string)
	codec, err := goavro.NewCodec(text)
	if err != nil {
		return fmt.Errorf("schema of %s: %w", v["table_name"], err)
	}
	var change struct {
		Fields []struct {
			Name string
			Type json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(text), &change); err != nil {
		return err
	}
	t := &table{codec: codec, columns: map[string]string{}}
	for _, f := range change.Fields {
		if f.Name != "before" { // which defines Row; "after" refers to it
			continue
		}
		var union []json.RawMessage
		if err := json.Unmarshal(f.Type, &union); err != nil {
			return err
		}
		if len(union) != 2 {
			return fmt.Errorf("schema of %s: before is a union of %d", v["table_name"], len(union))
		}
		var row struct {
			Fields []struct{ Name, Column string }
		}
		if err := json.Unmarshal(union[1], &row); err != nil {
			return err
		}
		for _, c := range row.Fields {
			t.columns[c.Name] = c.Column
		}
	}
	d.tables[string(v["fingerprint"].([]byte))] = t
	return nil
}

// line is what is printed for a row or a DDL statement.
type line struct {
	Offset     log.Offset     `json:"offset"`
	GTID       string         `json:"gtid"`
	CommitTime time.Time      `json:"commit_time"`
	DDL        string         `json:"ddl,omitempty"`
	Table      string         `json:"table,omitempty"`
	Op         string         `json:"op,omitempty"`
	Before     map[string]any `json:"before,omitempty"`
	After      map[string]any `json:"after,omitempty"`
}

func (d *decoder) transaction(offset log.Offset, t map[string]any) error {
	if !t["continues"].(bool) {
		d.unfinished = nil // whatever began before will not be finished
	}
	gtid, at := t["gtid"].(string), t["commit_time"].(time.Time)
	if ddl, ok := unwrap(t["ddl"]).(map[string]any); ok {
		d.unfinished = append(d.unfinished, line{Offset: offset, GTID: gtid, CommitTime: at, DDL: string(ddl["text"].([]byte))})
	}
	for _, r := range t["rows"].([]any) {
		row := r.(map[string]any)
		version := d.tables[string(row["schema_fingerprint"].([]byte))]
		if version == nil {
			return fmt.Errorf("row of %s: its table version %x was not published", row["table_name"], row["schema_fingerprint"])
		}
		native, _, err := version.codec.NativeFromBinary(row["payload"].([]byte))
		if err != nil {
			return fmt.Errorf("row of %s: %w", row["table_name"], err)
		}
		change := native.(map[string]any)
		d.unfinished = append(d.unfinished, line{
			Offset: offset, GTID: gtid, CommitTime: at, Table: row["table_name"].(string), Op: change["op"].(string),
			Before: version.image(change["before"]), After: version.image(change["after"]),
		})
	}
	if t["continued"].(bool) {
		return nil
	}
	for _, l := range d.unfinished {
		if err := d.out.Encode(l); err != nil {
			return err
		}
	}
	d.unfinished = nil
	return nil
}

// image gives the columns their own names. Bytes are printed in base64.
func (t *table) image(v any) map[string]any {
	record, ok := unwrap(v).(map[string]any)
	if !ok {
		return nil
	}
	out := make(map[string]any, len(record))
	for name, v := range record {
		out[t.columns[name]] = unwrap(v)
	}
	return out
}

// unwrap takes the value out of goavro's {"branch": value} for unions.
func unwrap(v any) any {
	if m, ok := v.(map[string]any); ok && len(m) == 1 {
		for _, inner := range m {
			return inner
		}
	}
	return v
}
