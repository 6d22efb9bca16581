package binlog

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/server"
)

// errEnd: the server has sent all it had. Only a dump that does not wait ends.
var errEnd = errors.New("end of the binlog")

const (
	dialTimeout    = 10 * time.Second
	commandTimeout = 30 * time.Second
	dumpNoWait     = 0x01 // flag of the dump commands: end instead of waiting for more
)

// dumper is one replication connection: it asks for the binlog from a GTID set
// on and hands over the packets.
//
// It speaks through go-mysql's client instead of its BinlogSyncer because the
// syncer always negotiates checksums away (so that a damaged event arrives as
// if it were sound), unpacks compressed transactions whole, and keeps a GTID
// set of its own on the hot path. The session it sets up is otherwise the same.
type dumper struct {
	conn *client.Conn
	crc  bool // events carry checksums
	// packets is what follows the dump command: until then, answers are read
	// through conn.
	packets packetReader
}

// dumpOptions of a dumper.
type dumpOptions struct {
	flavor    server.Flavor
	from      gtid.Set
	serverID  uint32
	uuid      string // names the client to the server, stable over reconnects
	heartbeat time.Duration
	timeout   time.Duration
	noWait    bool
}

// dial connects and logs in.
func dial(ctx context.Context, e server.Endpoint, timeout time.Duration) (*client.Conn, error) {
	secret, err := e.Secret()
	if err != nil {
		return nil, err
	}
	conf, err := e.TLSConfig()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	connect := func(conf *tls.Config) (*client.Conn, error) {
		d := net.Dialer{KeepAlive: 15 * time.Second}
		return client.ConnectWithDialer(ctx, "", e.Address, e.User, secret, "", d.DialContext, func(c *client.Conn) error {
			c.SetTLSConfig(conf)
			c.SetAttributes(map[string]string{"program_name": "twinspan-producer"})
			c.ReadTimeout, c.WriteTimeout = timeout, commandTimeout
			return nil
		})
	}
	if e.TLS.Mode == "preferred" {
		// What the other connections do in this mode: encrypt if the server
		// can, without asking who it is.
		if c, err := connect(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}); err == nil {
			return c, nil
		} else if ctx.Err() != nil || server.ErrorNumber(err) != 0 {
			return nil, err
		}
	}
	return connect(conf)
}

// openDump connects and starts a dump. The caller closes it.
func openDump(ctx context.Context, e server.Endpoint, o dumpOptions) (*dumper, error) {
	conn, err := dial(ctx, e, o.timeout)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", e.Address, err)
	}
	d := &dumper{conn: conn}
	stop := context.AfterFunc(ctx, d.close)
	defer stop()
	if err := d.start(o); err != nil {
		d.close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("start the binlog dump of %s: %w", e.Address, err)
	}
	// Every answer was read to its end, so nothing of the dump is in conn's own
	// buffer, and the sequence goes on behind the command.
	d.packets = packetReader{conn: conn.Conn.Conn, timeout: o.timeout, sequence: conn.Sequence}
	return d, nil
}

func (d *dumper) start(o dumpOptions) error {
	r, err := d.conn.Execute("SELECT @@GLOBAL.binlog_checksum")
	if err != nil {
		return err
	}
	sum, err := r.GetString(0, 0)
	if err != nil {
		return err
	}
	r.Close()
	d.crc = sum == "CRC32"
	beat := o.heartbeat.Nanoseconds()
	set := []string{
		// Keep the checksums: they are the only proof that an event arrives
		// as it was written.
		fmt.Sprintf("SET @source_binlog_checksum='%s', @master_binlog_checksum='%s'", sum, sum),
		fmt.Sprintf("SET @source_heartbeat_period=%d, @master_heartbeat_period=%d", beat, beat),
		// Back-pressure is no reason for the server to give up: a log that
		// takes nothing for a while must not cost a large transaction twice.
		"SET SESSION net_write_timeout=3600",
		// The server ends an older dump of the same client, so a dead
		// connection does not stay behind.
		fmt.Sprintf("SET @replica_uuid='%s', @slave_uuid='%s'", o.uuid, o.uuid),
	}
	if o.flavor == server.MariaDB {
		set = append(set,
			"SET @mariadb_slave_capability=4",
			// Refuse a start position that is not exactly in the binlog.
			"SET @slave_gtid_strict_mode=1", "SET @slave_gtid_ignore_duplicates=0",
			fmt.Sprintf("SET @slave_connect_state='%s'", o.from))
	}
	for _, q := range set {
		if _, err := d.conn.Execute(q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	if err := d.register(o.serverID); err != nil {
		return fmt.Errorf("register as a replica (the account needs REPLICATION SLAVE): %w", err)
	}
	if o.flavor == server.MariaDB {
		return d.askMariaDB(o)
	}
	return d.askMySQL(o)
}

// register makes the producer visible in SHOW REPLICAS.
func (d *dumper) register(id uint32) error {
	const host = "twinspan"
	b := make([]byte, 4, 64)
	b = append(b, mysql.COM_REGISTER_SLAVE)
	b = binary.LittleEndian.AppendUint32(b, id)
	b = append(append(b, byte(len(host))), host...)
	b = append(b, 0, 0)       // user, password: none of the server's business
	b = append(b, 0, 0)       // port
	b = append(b, 0, 0, 0, 0) // rank
	b = append(b, 0, 0, 0, 0) // source id
	d.conn.ResetSequence()
	if err := d.conn.WritePacket(b); err != nil {
		return err
	}
	_, err := d.conn.ReadOKPacket()
	return err
}

// askMySQL sends COM_BINLOG_DUMP_GTID with an empty file name: only then does
// the server itself refuse a set that it has purged or not yet executed.
func (d *dumper) askMySQL(o dumpOptions) error {
	set, err := mysql.ParseMysqlGTIDSet(o.from.String())
	if err != nil {
		return fmt.Errorf("GTID set %q: %w", o.from, err)
	}
	enc := set.Encode()
	var flags uint16
	if o.noWait {
		flags = dumpNoWait
	}
	b := make([]byte, 4, 32+len(enc))
	b = append(b, mysql.COM_BINLOG_DUMP_GTID)
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = binary.LittleEndian.AppendUint32(b, o.serverID)
	b = binary.LittleEndian.AppendUint32(b, 0) // length of the file name
	b = binary.LittleEndian.AppendUint64(b, 4) // position
	b = binary.LittleEndian.AppendUint32(b, uint32(len(enc)))
	b = append(b, enc...)
	d.conn.ResetSequence()
	return d.conn.WritePacket(b)
}

// askMariaDB sends COM_BINLOG_DUMP; file and position give way to the session
// variable slave_connect_state.
func (d *dumper) askMariaDB(o dumpOptions) error {
	var flags uint16
	if o.noWait {
		flags = dumpNoWait
	}
	b := make([]byte, 4, 16)
	b = append(b, mysql.COM_BINLOG_DUMP)
	b = binary.LittleEndian.AppendUint32(b, 4)
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = binary.LittleEndian.AppendUint32(b, o.serverID)
	d.conn.ResetSequence()
	return d.conn.WritePacket(b)
}

// next returns one event as it is in the binlog, header and checksum included.
// It is the caller's until the next call. An error of the server is a
// *mysql.MyError.
func (d *dumper) next() ([]byte, error) {
	p, err := d.packets.next()
	if err != nil {
		return nil, err
	}
	if len(p) == 0 {
		return nil, fmt.Errorf("%w: empty packet", ErrDamaged)
	}
	switch p[0] {
	case mysql.OK_HEADER:
		return p[1:len(p):len(p)], nil
	case mysql.ERR_HEADER:
		return nil, d.conn.HandleErrorPacket(p)
	case mysql.EOF_HEADER:
		return nil, errEnd
	}
	return nil, fmt.Errorf("%w: packet of kind %#x", ErrDamaged, p[0])
}

// close may be called by any goroutine, and more than once: it closes the
// connection underneath, since go-mysql's own Close writes to what a reader uses.
func (d *dumper) close() { _ = d.conn.Conn.Conn.Close() }

// refusal turns the server's refusal to dump into a halt; nil when the error is
// of the kind that passes.
func refusal(err error) *Halt {
	var m *mysql.MyError
	if !errors.As(err, &m) || m.Code != mysql.ER_MASTER_FATAL_ERROR_READING_BINLOG {
		return nil
	}
	text := strings.ToLower(m.Message)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("purged", "could not find gtid state", "missing transactions", "could not find first log"):
		return haltf(HaltGap, remedySnapshot, "the server can't continue from the log's GTID set").because(err)
	case has("more gtids than", "not in the master's binlog", "which is not in the", "has not been generated", "diverged", "requested slave gtid state not found"):
		return haltf(HaltLogAhead, remedyLogAhead, "the server does not know all that the log holds").because(err)
	case has("anonymous transaction", "auto_position mode"):
		return haltf(HaltNoGTID, remedyNoGTID, "the binlog has transactions without GTID").because(err)
	case has("max_allowed_packet", "log event entry exceeded"):
		return haltf(HaltDecode, "raise max_allowed_packet on the server (SET GLOBAL max_allowed_packet=1073741824)",
			"an event is larger than the server may send").because(err)
	case has("uuid", "server_id", "killed", "shutdown", "same server"):
		return nil
	}
	return haltf(HaltDecode, remedyDamaged, "the server can't read its binlog").because(err)
}
