// Package config is twinspan's configuration: one YAML file, decoded strictly,
// with overrides from the environment and from flags, all of it checked before
// anything starts.
//
// The order of precedence is flags, environment, file, defaults. A key is named
// by its path, such as producer.batch_delay; its environment variable is
// TWINSPAN_PRODUCER_BATCH_DELAY.
package config

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/twinspan/twinspan/consumer/route"
	"github.com/twinspan/twinspan/internal/server"
)

// Role is a part that one process can play.
type Role string

// The roles.
const (
	RoleProducer Role = "producer" // binlog of the source → log
	RoleNode     Role = "node"     // stores the log
	RoleConsumer Role = "consumer" // log → target
)

// Roles are all roles in the order they start.
var Roles = []Role{RoleNode, RoleProducer, RoleConsumer}

// Config is everything a process is told. example.yaml documents every key for
// the operator; a test holds the two together.
type Config struct {
	// Stream is the name of the MySQL set's stream in the log.
	Stream string `yaml:"stream"`
	// City is where this process runs: it reads from nodes of the same city.
	City string `yaml:"city"`
	// Roles this process plays.
	Roles []Role `yaml:"roles"`
	// DataDir holds all this process keeps on disk.
	DataDir string `yaml:"data_dir"`

	Admin  Admin           `yaml:"admin"`
	Node   Node            `yaml:"node"`
	Log    Log             `yaml:"log"`
	Source server.Endpoint `yaml:"source"`
	// Primary is asked which transactions it knows, where Source is a standby.
	Primary  server.Endpoint `yaml:"primary"`
	Producer Producer        `yaml:"producer"`
	Target   server.Endpoint `yaml:"target"`
	Consumer Consumer        `yaml:"consumer"`
	Applier  Applier         `yaml:"apply"`
	Doctor   Doctor          `yaml:"doctor"`
	Logging  Logging         `yaml:"logging"`
}

// Admin is the HTTP listener for status, health and metrics.
type Admin struct {
	Listen string `yaml:"listen"`
	// Pprof serves /debug/pprof.
	Pprof bool `yaml:"pprof"`
}

// Node is the storage node of the log.
type Node struct {
	// Name is the node's identity; its directory remembers it and refuses
	// another. Empty: node-, and the city.
	Name   string `yaml:"name"`
	Listen string `yaml:"listen"`
	// Cluster lists all nodes, this one too, the same on each of them. Empty: this
	// node is alone.
	Cluster []ClusterNode `yaml:"cluster"`
	// Dir is where journal, segments and metadata live; empty: DataDir/log.
	Dir string `yaml:"dir"`
	// JournalFileBytes is the size of one pre-written journal file.
	JournalFileBytes Bytes `yaml:"journal_file_bytes"`
	// JournalBytes is from when on segments move from the journal to files of
	// their own, also while entries are appended; at twice that appends are slowed.
	JournalBytes Bytes `yaml:"journal_bytes"`
	// Compression of these files: s2, zstd or none.
	Compression string `yaml:"compression"`
	// RepairRate bounds what this node copies to repair closed segments, per second.
	RepairRate Bytes   `yaml:"repair_rate"`
	TLS        NodeTLS `yaml:"tls"`
}

// NodeTLS is the listener's side of the log's connections, and this node's own to
// the others; without a Cert they are plain.
type NodeTLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// CA, when set, lets only those in whose certificate it signed.
	CA string `yaml:"ca"`
}

// Log is where the log is found.
type Log struct {
	Engine string `yaml:"engine"`
	// Nodes are addresses of some storage nodes; the others are learned from
	// them. A process with the node role begins with its own.
	Nodes []string `yaml:"nodes"`
	// Bind is the source address of this process's connections to nodes.
	Bind string `yaml:"bind"`
	// Far says when entries are read from a node of another city.
	Far string `yaml:"far"`
	// WindowBytes is how much a writer appends before it is confirmed.
	WindowBytes Bytes  `yaml:"window_bytes"`
	TLS         LogTLS `yaml:"tls"`
	Policy      Policy `yaml:"policy"`
	// JetStream counts only with its engine, which takes tls and the limits of
	// policy from here, too.
	JetStream JetStream `yaml:"jetstream"`
}

// Policy of the stream, if this process is the one that creates it.
type Policy struct {
	Rule Rule `yaml:"rule"`
	// Loss is what the writer does while the rule can't be met.
	Loss  string   `yaml:"loss"`
	After Duration `yaml:"after"` // for Loss degrade-after
	// BytesMax and AgeMax say what is kept after every cursor has passed it;
	// 0: no limit of that kind.
	BytesMax Bytes    `yaml:"bytes_max"`
	AgeMax   Duration `yaml:"age_max"`
	// BytesCap takes entries that a cursor still needs; 0: never.
	BytesCap Bytes `yaml:"bytes_cap"`
}

// Rule says which nodes must have an entry before it is confirmed. Empty: one in
// each city that stores entries.
type Rule struct {
	Total  int    `yaml:"total"`
	Cities Shares `yaml:"cities"`
}

// LogTLS is the client's side of the log's connections; without a CA they are
// plain.
type LogTLS struct {
	// CA is the authority that signed the nodes' certificates.
	CA string `yaml:"ca"`
	// Cert and Key are what the client shows to a node that asks for it.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Producer is how the source is read and the log written.
type Producer struct {
	// Start is where an empty log begins: earliest, current, or a GTID set.
	Start string `yaml:"start"`
	// ServerID is what the producer registers with at the source; 0 (auto):
	// derived from stream and source address.
	ServerID              ServerID `yaml:"server_id"`
	BatchBytesMax         Bytes    `yaml:"batch_bytes_max"`
	BatchDelay            Duration `yaml:"batch_delay"`
	TransactionChunkBytes Bytes    `yaml:"transaction_chunk_bytes"`
	// Skip lists GTIDs whose content is dropped: the operator's last resort.
	Skip []string `yaml:"skip"`
	// AllowGaps accepts holes in the sequence numbers of MariaDB domains.
	AllowGaps bool `yaml:"allow_gaps"`
}

// Consumer is how the log is read.
type Consumer struct {
	// Group names the cursor in the log and the positions in the target.
	Group string `yaml:"group"`
}

// Applier is how the target is written.
type Applier struct {
	Lanes      int      `yaml:"lanes"`
	BatchRows  int      `yaml:"batch_rows"`
	BatchBytes Bytes    `yaml:"batch_bytes"`
	BatchDelay Duration `yaml:"batch_delay"`
	// BatchTime is what a batch shall take on the target at most.
	BatchTime Duration `yaml:"batch_time"`
	// Atomicity is row or transaction; CommitOrder counts for the latter.
	Atomicity   string   `yaml:"atomicity"`
	CommitOrder bool     `yaml:"commit_order"`
	Throttle    Throttle `yaml:"throttle"`
	// Filters leave tables out, Routes rename them: "shop.* -> shop_b.*".
	Filters Filters  `yaml:"filters"`
	Routes  []string `yaml:"routes"`
	// Conflicts and Exceptions say what becomes of changes that meet another
	// state of the target, or can't be applied.
	Conflicts  Conflicts  `yaml:"conflicts"`
	Exceptions Exceptions `yaml:"exceptions"`
}

// Throttle says when the target is spared; 0 sets no limit.
type Throttle struct {
	RowsPerSecond  int      `yaml:"rows_per_second"`
	ReplicaLag     Duration `yaml:"replica_lag"`
	Replicas       []string `yaml:"replicas"`
	ThreadsRunning int      `yaml:"threads_running"`
}

// Filters say which tables reach the target. Patterns are schema.table; * stands
// for anything, ? for one character.
type Filters struct {
	Include []string `yaml:"include"`
	Exclude []string `yaml:"exclude"`
	// Operations that are left out, by table: such tables differ from the source.
	SkipInsert []string `yaml:"skip_insert"`
	SkipUpdate []string `yaml:"skip_update"`
	SkipDelete []string `yaml:"skip_delete"`
	SkipDDL    []string `yaml:"skip_ddl"`
	// Done lists GTIDs of statements that an operator has carried out by hand.
	Done []string `yaml:"done"`
}

// Rules are the filters and routes in the form that the router reads.
func (a Applier) Rules() route.Config {
	f := a.Filters
	return route.Config{Include: f.Include, Exclude: f.Exclude, SkipInsert: f.SkipInsert, SkipUpdate: f.SkipUpdate,
		SkipDelete: f.SkipDelete, SkipDDL: f.SkipDDL, Done: f.Done, Routes: a.Routes}
}

// Doctor is what the checks at start may leave be.
type Doctor struct {
	// Accept names mandatory checks whose failure shall not stop a role.
	Accept []string `yaml:"accept"`
}

// Logging is what the process says on standard error.
type Logging struct {
	Level string `yaml:"level"`
	// Format: json, console, or auto: console on a terminal, else json.
	Format string `yaml:"format"`
}

// Default is the configuration before any file is read.
func Default() *Config {
	return &Config{
		DataDir: "/var/lib/twinspan",
		Admin:   Admin{Listen: "127.0.0.1:8040"},
		Node: Node{
			Listen:           "127.0.0.1:7040",
			JournalFileBytes: 64 << 20,
			JournalBytes:     1 << 30,
			Compression:      "s2",
			RepairRate:       64 << 20,
		},
		Log: Log{
			Engine: EngineTwinspan, Nodes: []string{"127.0.0.1:7040"}, Far: "if-needed", WindowBytes: 8 << 20,
			Policy:    Policy{Loss: "block", After: Duration(30 * time.Second), BytesMax: 10 << 30},
			JetStream: JetStream{Prefix: "twinspan", Replicas: 3},
		},
		Source:  server.Endpoint{TLS: server.TLS{Mode: "preferred"}},
		Primary: server.Endpoint{TLS: server.TLS{Mode: "preferred"}},
		Producer: Producer{
			Start:                 "current",
			BatchBytesMax:         256 << 10,
			BatchDelay:            Duration(2 * time.Millisecond),
			TransactionChunkBytes: 1 << 20,
		},
		Target: server.Endpoint{TLS: server.TLS{Mode: "preferred"}},
		Applier: Applier{
			Lanes:      8,
			BatchRows:  4000,
			BatchBytes: 2 << 20,
			BatchTime:  Duration(500 * time.Millisecond),
			Atomicity:  "row", CommitOrder: true,
			Conflicts:  Conflicts{Policy: "source-wins", Compare: "keys"},
			Exceptions: Exceptions{Followers: "park", Max: 10000, Retry: ExceptionRetry{First: Duration(30 * time.Second), Max: Duration(time.Hour)}},
		},
		Logging: Logging{Level: "info", Format: "auto"},
	}
}

// Has tells whether this process plays the role.
func (c *Config) Has(r Role) bool { return slices.Contains(c.Roles, r) }

// complete fills what follows from other keys.
func (c *Config) complete() {
	for _, n := range c.Node.Cluster {
		if c.City == "" && c.Has(RoleNode) && n.Name == c.Node.Name {
			c.City = n.City
		}
	}
	if c.Node.Dir == "" && c.DataDir != "" {
		c.Node.Dir = filepath.Join(c.DataDir, "log")
	}
	if c.Node.Name == "" {
		c.Node.Name = "node"
		if c.City != "" {
			c.Node.Name += "-" + c.City
		}
	}
	if c.Consumer.Group == "" && c.City != "" {
		c.Consumer.Group = "city-" + c.City
	}
}
