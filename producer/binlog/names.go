package binlog

import (
	"strconv"

	"github.com/go-mysql-org/go-mysql/replication"
)

// eventNames are the event types in the spelling of SHOW BINLOG EVENTS, for
// metrics. Names never change, whatever a library calls them.
var eventNames = map[replication.EventType]string{
	replication.QUERY_EVENT: "query", replication.STOP_EVENT: "stop", replication.ROTATE_EVENT: "rotate",
	replication.INTVAR_EVENT: "intvar", replication.RAND_EVENT: "rand", replication.USER_VAR_EVENT: "user_var",
	replication.FORMAT_DESCRIPTION_EVENT: "format_desc", replication.XID_EVENT: "xid",
	replication.BEGIN_LOAD_QUERY_EVENT: "begin_load_query", replication.EXECUTE_LOAD_QUERY_EVENT: "execute_load_query",
	replication.TABLE_MAP_EVENT: "table_map", replication.WRITE_ROWS_EVENTv1: "write_rows_v1",
	replication.UPDATE_ROWS_EVENTv1: "update_rows_v1", replication.DELETE_ROWS_EVENTv1: "delete_rows_v1",
	replication.INCIDENT_EVENT: "incident", replication.HEARTBEAT_EVENT: "heartbeat", replication.IGNORABLE_EVENT: "ignorable",
	replication.ROWS_QUERY_EVENT: "rows_query", replication.WRITE_ROWS_EVENTv2: "write_rows", replication.UPDATE_ROWS_EVENTv2: "update_rows",
	replication.DELETE_ROWS_EVENTv2: "delete_rows", replication.GTID_EVENT: "gtid", replication.ANONYMOUS_GTID_EVENT: "anonymous_gtid",
	replication.PREVIOUS_GTIDS_EVENT: "previous_gtids", replication.TRANSACTION_CONTEXT_EVENT: "transaction_context",
	replication.VIEW_CHANGE_EVENT: "view_change", replication.XA_PREPARE_LOG_EVENT: "xa_prepare",
	replication.PARTIAL_UPDATE_ROWS_EVENT: "update_rows_partial", replication.TRANSACTION_PAYLOAD_EVENT: "transaction_payload",
	replication.HEARTBEAT_LOG_EVENT_V2: "heartbeat_v2", replication.GTID_TAGGED_LOG_EVENT: "gtid_tagged",
	replication.MARIADB_ANNOTATE_ROWS_EVENT: "annotate_rows", replication.MARIADB_BINLOG_CHECKPOINT_EVENT: "binlog_checkpoint",
	replication.MARIADB_GTID_EVENT: "mariadb_gtid", replication.MARIADB_GTID_LIST_EVENT: "gtid_list",
	replication.MARIADB_START_ENCRYPTION_EVENT: "start_encryption", replication.MARIADB_QUERY_COMPRESSED_EVENT: "query_compressed",
	replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1: "write_rows_compressed_v1", replication.MARIADB_UPDATE_ROWS_COMPRESSED_EVENT_V1: "update_rows_compressed_v1",
	replication.MARIADB_DELETE_ROWS_COMPRESSED_EVENT_V1: "delete_rows_compressed_v1",
	mariaWriteRowsCompressedV2:                          "write_rows_compressed", mariaUpdateRowsCompressedV2: "update_rows_compressed", mariaDeleteRowsCompressedV2: "delete_rows_compressed",
}

func eventName(t byte) string {
	if n, ok := eventNames[replication.EventType(t)]; ok {
		return n
	}
	return "type_" + strconv.Itoa(int(t))
}
