package mysqltest

import (
	"context"
	"fmt"
	"time"
)

// ReplicateFrom makes the server a replica of primary by GTID, and returns when
// both of its replication threads run. A restarted replica goes on by itself.
func (s *Server) ReplicateFrom(ctx context.Context, primary *Server) error {
	var statements []string
	if s.Flavor.IsMariaDB() {
		statements = []string{
			fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%d, MASTER_USER='root', MASTER_PASSWORD='', "+
				"MASTER_CONNECT_RETRY=1, MASTER_HEARTBEAT_PERIOD=1, MASTER_USE_GTID=slave_pos", primary.Port),
			"START SLAVE",
		}
	} else {
		statements = []string{
			fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='root', SOURCE_PASSWORD='', "+
				"SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=0, SOURCE_HEARTBEAT_PERIOD=1, SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1", primary.Port),
			"START REPLICA",
		}
	}
	for _, q := range statements {
		if _, err := s.DB().ExecContext(ctx, q); err != nil {
			return fmt.Errorf("replicate %s from %s: %s: %w", s.Address, primary.Address, q, err)
		}
	}
	s.mu.Lock()
	s.replica = true
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		st, err := s.ReplicaStatus(ctx)
		if err != nil {
			return err
		}
		if st.IO == "Yes" && st.SQL == "Yes" {
			return nil
		}
		if st.Error != "" && st.SQL == "No" {
			return fmt.Errorf("replicate %s from %s: %s", s.Address, primary.Address, st.Error)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("replicate %s from %s: threads io=%s sql=%s %s: %w", s.Address, primary.Address, st.IO, st.SQL, st.Error, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// pauseReplication stops the replication threads until the next start: a
// shutdown may wait a minute for the transaction they have open. (A MySQL with
// dump clients takes 8 s and more to shut down in any case: it waits that long
// before it ends their threads.)
func (s *Server) pauseReplication() {
	s.mu.Lock()
	replica := s.replica
	s.mu.Unlock()
	if !replica {
		return
	}
	q := "STOP REPLICA"
	if s.Flavor.IsMariaDB() {
		q = "STOP SLAVE"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	_, _ = s.DB().ExecContext(ctx, q) // without it the shutdown is slow, no more
}

// ReplicaStatus of the native replication of a server.
type ReplicaStatus struct {
	IO, SQL string // Yes, No, Connecting; empty when it is no replica
	Error   string
}

// ReplicaStatus asks the server.
func (s *Server) ReplicaStatus(ctx context.Context) (ReplicaStatus, error) {
	q, side := "SHOW REPLICA STATUS", "Replica"
	if s.Flavor.IsMariaDB() {
		q, side = "SHOW SLAVE STATUS", "Slave"
	}
	rows, err := s.DB().QueryContext(ctx, q)
	if err != nil {
		return ReplicaStatus{}, fmt.Errorf("%s on %s: %w", q, s.Address, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err below says what matters
	all, cols, err := scan(rows)
	if err != nil || len(all) == 0 {
		return ReplicaStatus{}, err
	}
	var st ReplicaStatus
	for i, c := range cols {
		v := all[0][i]
		switch c {
		case side + "_IO_Running":
			st.IO = v
		case side + "_SQL_Running":
			st.SQL = v
		case "Last_IO_Error", "Last_SQL_Error":
			if v != "" && v != Null {
				st.Error += v + " "
			}
		}
	}
	return st, nil
}

// GTIDs is everything the server has executed: @@gtid_executed, or MariaDB's
// @@gtid_current_pos.
func (s *Server) GTIDs(ctx context.Context) (string, error) {
	q := "SELECT REPLACE(@@global.gtid_executed, '\n', '')"
	if s.Flavor.IsMariaDB() {
		q = "SELECT @@global.gtid_current_pos"
	}
	var set string
	if err := s.DB().QueryRowContext(ctx, q).Scan(&set); err != nil {
		return "", fmt.Errorf("GTIDs of %s: %w", s.Address, err)
	}
	return set, nil
}

// WaitForGTIDs returns when the replica has executed the set.
func (s *Server) WaitForGTIDs(ctx context.Context, set string) error {
	q := "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 1)"
	if s.Flavor.IsMariaDB() {
		q = "SELECT MASTER_GTID_WAIT(?, 1)"
	}
	for {
		var late int
		if err := s.DB().QueryRowContext(ctx, q, set).Scan(&late); err != nil {
			return fmt.Errorf("wait on %s for %s: %w", s.Address, set, err)
		}
		if late == 0 {
			return nil
		}
		st, err := s.ReplicaStatus(ctx)
		if err != nil {
			return err
		}
		if st.SQL == "No" {
			return fmt.Errorf("wait on %s for %s: replication stopped: %s", s.Address, set, st.Error)
		}
	}
}
