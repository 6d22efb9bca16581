package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/schema"
)

// The copies of the envelopes are what the program writes.
func TestEnvelopesAreThePrograms(t *testing.T) {
	if batchSchema != schema.BatchSchema || versionSchema != schema.TableVersionSchema {
		t.Error("copy schema/avro/*.avsc to examples/decode")
	}
}

// A stream that the program's own packages wrote is read over the wire with
// goavro alone.
func TestDecode(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n, err := node.New(node.Config{Name: "n1", Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1) // owner: Run's goroutine; bound 1; never closed
	go func() { done <- n.Run(running) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	table := &schema.Table{Name: schema.Name{Schema: "shop", Table: "a-b"}, Columns: []schema.Column{
		{Name: "id", Type: schema.Int},
		{Name: "na me", Type: schema.VarChar, Length: 40, Charset: "utf8mb4", Collation: "utf8mb4_bin", Nullable: true},
		{Name: "doc", Type: schema.JSON, Nullable: true},
		{Name: "raw", Type: schema.VarBinary, Length: 9, Nullable: true},
	}}
	version, err := schema.NewTableVersion(table, "u:1")
	if err != nil {
		t.Fatal(err)
	}
	at := time.UnixMicro(1760000000123456).UTC()
	row := func(op change.Op, id int64) change.Row {
		image := []change.Value{change.IntegerOf(id), change.TextOf([]byte("é")), change.DocumentOf([]byte("1.5"), []byte("x")), {}}
		r := change.Row{Table: table, Op: op}
		if op != change.Insert {
			r.Before = image
		}
		if op != change.Delete {
			r.After = image
		}
		return r
	}
	w, err := n.Log().OpenWriter(ctx, "s")
	if err != nil {
		t.Fatal(err)
	}
	put := func(topic log.Topic, ends bool, payload []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		o, err := w.Append(ctx, log.Draft{Topic: topic, EndsTransaction: ends, Payload: payload})
		if err == nil {
			_, err = w.Wait(ctx, o)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	batch := func(ends bool, b ...change.Transaction) {
		t.Helper()
		payload, err := change.AppendBatch(nil, &change.Batch{Transactions: b})
		put(log.TopicData, ends, payload, err)
	}
	payload, err := version.Encode()
	put(log.TopicSchema, true, payload, err)
	batch(true, change.Transaction{GTID: "u:1", CommitTime: at, Rows: []change.Row{row(change.Insert, 1)}},
		change.Transaction{GTID: "u:2", CommitTime: at, DDL: &change.DDL{Text: "CREATE TABLE x (a INT)"}})
	// A producer dies within u:3; the next one starts it again.
	batch(false, change.Transaction{GTID: "u:3", CommitTime: at, Continued: true, Rows: []change.Row{row(change.Insert, 90)}})
	batch(false, change.Transaction{GTID: "u:3", CommitTime: at, Continued: true, Rows: []change.Row{row(change.Delete, 1)}})
	batch(true, change.Transaction{GTID: "u:3", CommitTime: at, Continues: true, Rows: []change.Row{row(change.Update, 2)}})
	// What is not finished is not printed.
	batch(false, change.Transaction{GTID: "u:4", CommitTime: at, Continued: true, Rows: []change.Row{row(change.Insert, 91)}})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	var out bytes.Buffer
	if err := run(ctx, []string{"-nodes", n.Addr().String(), "-stream", "s"}, &out); err != nil {
		t.Fatal(err)
	}
	image := func(id string) string {
		return `{"doc":{"binary":"eA==","text":"1.5"},"id":` + id + `,"na me":"é","raw":null}`
	}
	const head = `"commit_time":"2025-10-09T08:53:20.123456Z"`
	want := []string{
		`{"offset":1,"gtid":"u:1",` + head + `,"table":"shop.a-b","op":"insert","after":` + image("1") + `}`,
		`{"offset":1,"gtid":"u:2",` + head + `,"ddl":"CREATE TABLE x (a INT)"}`,
		`{"offset":3,"gtid":"u:3",` + head + `,"table":"shop.a-b","op":"delete","before":` + image("1") + `}`,
		`{"offset":4,"gtid":"u:3",` + head + `,"table":"shop.a-b","op":"update","before":` + image("2") + `,"after":` + image("2") + `}`,
	}
	if d := cmp.Diff(want, strings.Split(strings.TrimSpace(out.String()), "\n")); d != "" {
		t.Error(d)
	}
}
