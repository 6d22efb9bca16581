package binlog

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/schema"
)

// rowsEvent is one row event as the server wrote it, with its table map and
// what go-mysql makes of it.
type rowsEvent struct {
	typ   replication.EventType
	body  []byte
	table *replication.TableMapEvent
	rows  [][]any
	event *replication.RowsEvent // go-mysql's own, decoded
}

// capture runs statements in a schema and returns the row events they wrote.
func capture(t testing.TB, s *mysqltest.Server, db string, statements ...string) []rowsEvent {
	t.Helper()
	status := "SHOW BINARY LOG STATUS"
	flavor := mysql.MySQLFlavor
	if s.Flavor.IsMariaDB() {
		status, flavor = "SHOW MASTER STATUS", mysql.MariaDBFlavor
	}
	at := s.Query(t, status)[0]
	pos, err := strconv.ParseUint(at[1], 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	end := fmt.Sprintf("end_of_capture_%d", time.Now().UnixNano())
	s.Exec(t, append(append([]string{"USE " + db, "SET time_zone='+00:00'"}, statements...), "CREATE TABLE "+end+" (a INT)")...)

	host, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		t.Fatal(err)
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	var bodies sync.Map // of *replication.RowsEvent to []byte: the syncer parses ahead
	syncer := replication.NewBinlogSyncer(replication.BinlogSyncerConfig{
		ServerID: 4_000_000_000 + uint32(time.Now().UnixNano()%1_000_000), Flavor: flavor, Host: host, Port: uint16(p), User: "root",
		VerifyChecksum: true, TimestampStringLocation: time.UTC, RenderJSONAsMySQLText: true,
		DisableRetrySync: true, Logger: slog.New(slog.DiscardHandler),
		RowsEventDecodeFunc: func(e *replication.RowsEvent, body []byte) error {
			bodies.Store(e, append([]byte(nil), body...))
			at, err := e.DecodeHeader(body)
			if err != nil {
				return err
			}
			_ = e.DecodeData(at, body) // an oracle where it can, no more
			return nil
		},
	})
	defer syncer.Close()
	stream, err := syncer.StartSync(mysql.Position{Name: at[0], Pos: uint32(pos)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out []rowsEvent
	take := func(e *replication.BinlogEvent) {
		if re, ok := e.Event.(*replication.RowsEvent); ok && string(re.Table.Schema) == db {
			body, _ := bodies.Load(re)
			out = append(out, rowsEvent{typ: e.Header.EventType, body: body.([]byte), table: re.Table, rows: re.Rows, event: re})
		}
	}
	for {
		e, err := stream.GetEvent(ctx)
		if err != nil {
			t.Fatalf("reading the binlog of %s: %v", s.Address, err)
		}
		switch ev := e.Event.(type) {
		case *replication.TransactionPayloadEvent:
			for _, inner := range ev.Events {
				take(inner)
			}
		case *replication.QueryEvent:
			if strings.Contains(string(ev.Query), end) {
				s.Exec(t, "DROP TABLE "+db+"."+end)
				return out
			}
		default:
			take(e)
		}
	}
}

// collationsOf loads a server's collations.
func collationsOf(t testing.TB, s *mysqltest.Server) schema.Collations {
	t.Helper()
	cols, err := schema.LoadCollations(context.Background(), s.DB())
	if err != nil {
		t.Fatal(err)
	}
	return cols
}

func hexOf(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// eachFlavor runs a test on every server.
func eachFlavor(t *testing.T, f func(t *testing.T, s *mysqltest.Server, db string), opts ...mysqltest.Option) {
	for _, flavor := range mysqltest.Flavors() {
		t.Run(string(flavor), func(t *testing.T) {
			s, db := mysqltest.Shared(t, flavor, opts...)
			f(t, s, db)
		})
	}
}
