package admin

import (
	"time"

	"github.com/twinspan/twinspan/internal/daemon"
	"github.com/twinspan/twinspan/log"
)

// Document is what /status says. Its JSON form is an interface: fields are added,
// never changed.
type Document struct {
	Version   string    `json:"version"`
	Stream    string    `json:"stream"`
	City      string    `json:"city"`
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"started_at"`
	At        time.Time `json:"at"` // when this was put together
	Ready     bool      `json:"ready"`

	// Roles of this process, with their halts.
	Roles []daemon.Status `json:"roles"`

	Log      *LogStatus      `json:"log,omitempty"`
	Producer *ProducerStatus `json:"producer,omitempty"`
	Applier  *ApplierStatus  `json:"applier,omitempty"`

	Lag Lag `json:"lag"`
}

// LogStatus is the stream in the log.
type LogStatus struct {
	Where   string         `json:"where"` // embedded, or the node's address
	Exists  bool           `json:"exists"`
	First   log.Offset     `json:"first"`
	LAC     log.Offset     `json:"lac"`
	LSO     log.Offset     `json:"lso"`
	Epoch   log.Epoch      `json:"epoch"`
	Cursors []CursorStatus `json:"cursors,omitempty"`
	Node    *NodeStatus    `json:"node,omitempty"`
	Error   string         `json:"error,omitempty"`
}

// CursorStatus is how far one group has read.
type CursorStatus struct {
	Group     string     `json:"group"`
	Offset    log.Offset `json:"offset"`
	Behind    int64      `json:"behind"`
	UpdatedAt time.Time  `json:"updated_at,omitzero"`
}

// NodeStatus is the storage node of this process.
type NodeStatus struct {
	Dir       string `json:"dir"`
	UsedBytes int64  `json:"used_bytes"`
	FreeBytes int64  `json:"free_bytes"` // of the disk
}

// ProducerStatus is the way from the source into the log.
type ProducerStatus struct {
	Server       string     `json:"server"`
	Version      string     `json:"version,omitempty"`
	Flavor       string     `json:"flavor,omitempty"`
	Connected    bool       `json:"connected"`
	GTIDSet      string     `json:"gtid_set"` // confirmed in the log
	Offset       log.Offset `json:"offset"`
	Protected    bool       `json:"protected"`
	File         string     `json:"file,omitempty"`
	FilePosition uint64     `json:"file_position,omitempty"`
	CommitTime   *time.Time `json:"commit_time,omitempty"` // of the newest transaction in the log
}

// ApplierStatus is the way from the log into the target.
type ApplierStatus struct {
	Target       string     `json:"target"`
	Group        string     `json:"group"`
	GTIDSet      string     `json:"gtid_set"` // applied
	Offset       log.Offset `json:"offset"`   // everything up to here is applied
	Lanes        int        `json:"lanes"`
	LanesWaiting int        `json:"lanes_waiting"`
	Atomicity    string     `json:"atomicity"` // row, transaction
	// Paused says why the throttle lets nothing be written just now.
	Paused       string     `json:"paused,omitempty"`
	Pending      int        `json:"pending"` // changes taken in and not applied
	WindowBytes  int64      `json:"window_bytes"`
	CommitTime   *time.Time `json:"commit_time,omitempty"` // of the newest transaction applied
	Rows         int64      `json:"rows"`
	Transactions int64      `json:"transactions"`
	DDLs         int64      `json:"ddls"`
	Retries      int64      `json:"retries"`
	// Conflicts counts changes that did not find the target as it should be.
	Conflicts int64 `json:"conflicts"`
	// Exceptions are changes that are parked now.
	Exceptions int64 `json:"exceptions"`
}

// Lag in seconds, by commit times of the source. A part that this process has no
// view of is null; 0 means that nothing is on its way.
type Lag struct {
	// SourceToLog is the age of the oldest transaction that was read from the
	// source and is not confirmed by the log.
	SourceToLog *float64 `json:"source_to_log_seconds"`
	// SourceToTarget is the age of the oldest transaction in the log that is
	// not on the target.
	SourceToTarget *float64 `json:"source_to_target_seconds"`
	// EndToEnd is the larger of what is known.
	EndToEnd *float64 `json:"end_to_end_seconds"`
}
