package mysqltest

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Options of a server. The zero value of everything but Flavor is usable.
type Options struct {
	Flavor Flavor
	// Port on loopback; 0 takes a free one below the ephemeral range.
	Port int
	// ServerID; 0 takes the port.
	ServerID uint32
	// Dir keeps everything of the server: data, logs, socket. Empty takes a
	// scratch folder that Close removes; a named one stays, and a data
	// directory found in it is used as it is.
	Dir string
	// Settings override any server option by name, with dashes or
	// underscores: {"gtid_mode": "OFF"}.
	Settings map[string]string
	// Remove takes default options away altogether, e.g. "log-bin".
	Remove []string
	// Args are appended to the command line as they are.
	Args []string
	// Durable makes every commit wait for the disk, as production does. By
	// default commits survive the death of the server, not of the machine.
	Durable bool
	// Detach lets the server outlive this process.
	Detach bool
}

// Option changes Options.
type Option func(*Options)

// With overrides one server setting.
func With(name, value string) Option {
	return func(o *Options) {
		o.Settings = maps.Clone(o.Settings)
		if o.Settings == nil {
			o.Settings = map[string]string{}
		}
		o.Settings[dashed(name)] = value
	}
}

// Without takes default options away.
func Without(names ...string) Option {
	return func(o *Options) { o.Remove = append(slices.Clone(o.Remove), names...) }
}

// WithArgs appends arguments to the command line.
func WithArgs(args ...string) Option {
	return func(o *Options) { o.Args = append(slices.Clone(o.Args), args...) }
}

// WithServerID sets the server id.
func WithServerID(id uint32) Option { return func(o *Options) { o.ServerID = id } }

// WithPort fixes the port.
func WithPort(port int) Option { return func(o *Options) { o.Port = port } }

// Durable makes every commit wait for the disk.
func Durable() Option { return func(o *Options) { o.Durable = true } }

func dashed(name string) string { return strings.ReplaceAll(strings.TrimLeft(name, "-"), "_", "-") }

// initSettings are the settings that must be known when a data directory is
// initialised; each combination has its own template.
var initSettings = []string{
	"lower-case-table-names", "innodb-page-size", "innodb-data-file-path", "innodb-undo-tablespaces",
	"innodb-checksum-algorithm", "innodb-undo-directory",
}

// initArgs are the part of the settings that a template depends on.
func (o Options) initArgs() []string {
	var args []string
	for _, n := range initSettings {
		for k, v := range o.Settings {
			if dashed(k) == n {
				args = append(args, "--"+n+"="+v)
			}
		}
	}
	return args
}

// settings are the server's options: ours, then the caller's.
func (o Options) settings(port int, socket, pidFile string) map[string]string {
	id := strconv.FormatUint(uint64(o.ServerID), 10)
	s := map[string]string{
		"bind-address": "127.0.0.1", "port": strconv.Itoa(port), "socket": socket, "pid-file": pidFile,
		"server-id": id, "skip-name-resolve": "ON",
		"log-bin": "binlog", "binlog-format": "ROW", "binlog-row-image": "FULL", "binlog-row-metadata": "FULL",
		"report-host": "127.0.0.1", "report-port": strconv.Itoa(port), "relay-log": "relay", "relay-log-recovery": "ON",
		"character-set-server": "utf8mb4", "default-time-zone": "+00:00", "event-scheduler": "OFF", "local-infile": "ON",
		"max-connections": "200", "max-allowed-packet": "256M",
		"innodb-buffer-pool-size": "128M", "innodb-log-buffer-size": "8M", "innodb-lock-wait-timeout": "20",
		"performance-schema": "OFF", "table-definition-cache": "600", "table-open-cache": "1000",
	}
	if o.Durable {
		maps.Copy(s, map[string]string{
			"innodb-flush-method": "O_DIRECT", "innodb-flush-log-at-trx-commit": "1", "sync-binlog": "1",
		})
	} else {
		// Written at every commit, never synced: kill -9 loses nothing.
		maps.Copy(s, map[string]string{
			"innodb-flush-method": "nosync", "innodb-flush-log-at-trx-commit": "2", "sync-binlog": "0",
			"innodb-use-native-aio": "OFF",
		})
	}
	if o.Flavor.IsMariaDB() {
		maps.Copy(s, map[string]string{
			"log-slave-updates": "ON", "gtid-strict-mode": "ON", "gtid-domain-id": "0", "innodb-log-file-size": "128M",
			"slave-parallel-threads": "4", "slave-parallel-mode": "optimistic",
		})
	} else {
		maps.Copy(s, map[string]string{
			"gtid-mode": "ON", "enforce-gtid-consistency": "ON", "log-replica-updates": "ON", "mysqlx": "OFF",
			"innodb-redo-log-capacity": "128M", "temptable-max-ram": "64M", "replica-parallel-workers": "4",
		})
	}
	for k, v := range o.Settings {
		s[dashed(k)] = v
	}
	for _, n := range o.Remove {
		delete(s, dashed(n))
	}
	return s
}

// commandArgs are the settings as arguments, in a fixed order.
func (o Options) commandArgs(port int, socket, pidFile string) []string {
	s := o.settings(port, socket, pidFile)
	args := make([]string, 0, len(s)+len(o.Args))
	for _, k := range slices.Sorted(maps.Keys(s)) {
		args = append(args, "--"+k+"="+s[k])
	}
	return append(args, o.Args...)
}
