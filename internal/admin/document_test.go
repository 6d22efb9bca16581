package admin

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinspan/twinspan/internal/daemon"
)

// The JSON form is an interface: a field that goes or changes breaks scripts.
func TestDocumentKeepsItsForm(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	lag := 0.25
	d := Document{
		Version: "1", Stream: "s", City: "a", PID: 7, StartedAt: at, At: at, Ready: true,
		Roles: []daemon.Status{{Role: "producer", State: daemon.Halted, Since: at, Restarts: 1, Error: "e", RetryAt: at, Trouble: "t",
			Halts: []daemon.Halt{{Code: "GAP", Detail: "d", Remedy: "r", GTID: "g", Offset: 4, Since: at}}}},
		Log: &LogStatus{Where: "w", Exists: true, First: 1, LAC: 3, LSO: 2, Epoch: 5, Error: "e",
			Cursors: []CursorStatus{{Group: "g", Offset: 1, Behind: 2, UpdatedAt: at}}, Node: &NodeStatus{Dir: "/d", UsedBytes: 1, FreeBytes: 2}},
		Producer: &ProducerStatus{Server: "h:1", Version: "9", Flavor: "mysql", Connected: true, GTIDSet: "u:1", Offset: 3, Protected: true,
			File: "f", FilePosition: 9, CommitTime: &at},
		Applier: &ApplierStatus{Target: "h:2", Group: "g", GTIDSet: "u:1", Offset: 3, Lanes: 8, LanesWaiting: 1, Atomicity: "row", Pending: 2, WindowBytes: 3,
			CommitTime: &at, Rows: 4, Transactions: 5, DDLs: 6, Retries: 7, Conflicts: 8},
		Lag: Lag{SourceToLog: &lag},
	}
	got, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	const stamp = `"2026-01-02T03:04:05Z"`
	want := `{"version":"1","stream":"s","city":"a","pid":7,"started_at":` + stamp + `,"at":` + stamp + `,"ready":true,` +
		`"roles":[{"role":"producer","state":"halted","since":` + stamp + `,"restarts":1,"error":"e","retry_at":` + stamp + `,` +
		`"halts":[{"code":"GAP","detail":"d","remedy":"r","gtid":"g","offset":4,"since":` + stamp + `}],"trouble":"t"}],` +
		`"log":{"where":"w","exists":true,"first":1,"lac":3,"lso":2,"epoch":5,"cursors":[{"group":"g","offset":1,"behind":2,"updated_at":` + stamp + `}],` +
		`"node":{"dir":"/d","used_bytes":1,"free_bytes":2},"error":"e"},` +
		`"producer":{"server":"h:1","version":"9","flavor":"mysql","connected":true,"gtid_set":"u:1","offset":3,"protected":true,"file":"f","file_position":9,"commit_time":` + stamp + `},` +
		`"applier":{"target":"h:2","group":"g","gtid_set":"u:1","offset":3,"lanes":8,"lanes_waiting":1,"atomicity":"row","pending":2,"window_bytes":3,"commit_time":` + stamp + `,` +
		`"rows":4,"transactions":5,"ddls":6,"retries":7,"conflicts":8,"exceptions":0},` +
		`"lag":{"source_to_log_seconds":0.25,"source_to_target_seconds":null,"end_to_end_seconds":null}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}
