// Package server opens connections to MySQL and MariaDB and tells which one
// answered. It is the only place that builds a DSN.
package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Flavor is the kind of server.
type Flavor string

// The flavours.
const (
	MySQL   Flavor = "mysql"
	MariaDB Flavor = "mariadb"
)

// Endpoint is how to reach a server. The password comes from Password or, when
// PasswordFile is set, from that file's first line.
type Endpoint struct {
	Address      string `yaml:"address" json:"address"` // host:port, or the path of a socket
	User         string `yaml:"user" json:"user"`
	Password     string `yaml:"password,omitempty" json:"-"`
	PasswordFile string `yaml:"password_file,omitempty" json:"password_file,omitempty"`
	TLS          TLS    `yaml:"tls,omitempty" json:"tls,omitzero"`
}

// TLS of a connection to a server.
type TLS struct {
	Mode string `yaml:"mode,omitempty" json:"mode,omitempty"` // "", disabled, preferred, required, verify
	CA   string `yaml:"ca,omitempty" json:"ca,omitempty"`
	Cert string `yaml:"cert,omitempty" json:"cert,omitempty"`
	Key  string `yaml:"key,omitempty" json:"key,omitempty"`
}

// Secret is the endpoint's password.
func (e Endpoint) Secret() (string, error) {
	if e.PasswordFile == "" {
		return e.Password, nil
	}
	b, err := os.ReadFile(e.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password file of %s@%s: %w", e.User, e.Address, err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimRight(line, "\r"), nil
}

// TLSConfig is nil when the connection is to be plain or opportunistic.
func (e Endpoint) TLSConfig() (*tls.Config, error) {
	switch e.TLS.Mode {
	case "", "disabled", "preferred":
		return nil, nil
	case "required", "verify":
	default:
		return nil, fmt.Errorf("tls mode %q: use disabled, preferred, required or verify", e.TLS.Mode)
	}
	host, _, err := net.SplitHostPort(e.Address)
	if err != nil { // a socket, or no port
		host = e.Address
	}
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, InsecureSkipVerify: e.TLS.Mode == "required"}
	if e.TLS.CA != "" {
		pem, err := os.ReadFile(e.TLS.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", e.TLS.CA)
		}
	}
	if e.TLS.Cert != "" {
		kp, err := tls.LoadX509KeyPair(e.TLS.Cert, e.TLS.Key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{kp}
	}
	return c, nil
}

// Options of Open.
type Options struct {
	// Session variables set on every new connection, name to SQL expression.
	Session map[string]string
	// MultiStatements allows several statements in one round trip.
	MultiStatements bool
	// FoundRows makes affected rows of an UPDATE count matched rows.
	FoundRows bool
	Database  string
	// Timeouts; 0 takes 10 s to dial, none to read and write.
	DialTimeout, ReadTimeout, WriteTimeout time.Duration
}

// Open makes a pool for the endpoint. It does not connect yet.
func Open(e Endpoint, o Options) (*sql.DB, error) {
	c := mysql.NewConfig()
	c.User, c.Addr, c.Net, c.DBName = e.User, e.Address, "tcp", o.Database
	if strings.HasPrefix(e.Address, "/") {
		c.Net = "unix"
	}
	var err error
	if c.Passwd, err = e.Secret(); err != nil {
		return nil, err
	}
	if c.TLS, err = e.TLSConfig(); err != nil {
		return nil, fmt.Errorf("tls of %s: %w", e.Address, err)
	}
	if e.TLS.Mode == "preferred" {
		c.TLSConfig = "preferred"
	}
	c.Timeout = o.DialTimeout
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	c.ReadTimeout, c.WriteTimeout = o.ReadTimeout, o.WriteTimeout
	c.MultiStatements, c.ClientFoundRows = o.MultiStatements, o.FoundRows
	c.Collation = "utf8mb4_general_ci"
	c.InterpolateParams = true
	c.MaxAllowedPacket = 0 // ask the server
	c.Logger = silent{}
	c.Params = o.Session
	conn, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("connection settings of %s: %w", e.Address, err)
	}
	return sql.OpenDB(conn), nil
}

// silent: the driver's own log lines repeat errors that it also returns.
type silent struct{}

func (silent) Print(...any) {}

// Info is what a server says of itself.
type Info struct {
	Flavor     Flavor
	Version    string // as the server spells it
	Major      int
	Minor      int
	Patch      int
	ServerID   uint32
	ServerUUID string // empty on MariaDB
}

// AtLeast compares the version.
func (i Info) AtLeast(major, minor int) bool {
	return i.Major > major || i.Major == major && i.Minor >= minor
}

// Querier is a *sql.DB, *sql.Conn or *sql.Tx.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Detect asks the server who it is.
func Detect(ctx context.Context, q Querier) (Info, error) {
	var i Info
	if err := q.QueryRowContext(ctx, "SELECT @@version, @@server_id").Scan(&i.Version, &i.ServerID); err != nil {
		return i, err
	}
	i.Flavor = MySQL
	if strings.Contains(strings.ToLower(i.Version), "mariadb") {
		i.Flavor = MariaDB
	} else if err := q.QueryRowContext(ctx, "SELECT @@server_uuid").Scan(&i.ServerUUID); err != nil {
		return i, err
	}
	num := strings.FieldsFunc(i.Version, func(r rune) bool { return r < '0' || r > '9' })
	for n, p := range []*int{&i.Major, &i.Minor, &i.Patch} {
		if n < len(num) {
			*p, _ = strconv.Atoi(num[n])
		}
	}
	return i, nil
}

// ErrorNumber is the server's error number in err, 0 when it has none.
func ErrorNumber(err error) uint16 {
	var m *mysql.MySQLError
	if errors.As(err, &m) {
		return m.Number
	}
	return 0
}

// QuoteName quotes an identifier with backticks.
func QuoteName(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }
