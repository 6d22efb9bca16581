package applier

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/twinspan/twinspan/internal/server"
)

// load asks the target, and its replicas with the target's account.
func (b *sqlBackend) load(ctx context.Context, t Throttle) (l load, err error) {
	if t.ThreadsRunning > 0 {
		var name string
		if err := b.db.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE 'Threads_running'").Scan(&name, &l.threads); err != nil {
			return l, fmt.Errorf("threads of the target: %w", err)
		}
	}
	if t.ReplicaLag <= 0 {
		return l, nil
	}
	addresses := t.Replicas
	if len(addresses) == 0 {
		if addresses, err = b.replicas(ctx); err != nil {
			return l, err
		}
	}
	for _, address := range addresses {
		lag, known, err := b.lagOf(ctx, address)
		if err != nil || !known {
			l.silent = address + " does not replicate: it does not hold anything up"
			if err != nil {
				l.silent = fmt.Sprintf("%s does not tell its lag: %v", address, err)
			}
			continue
		}
		l.asked++
		if lag >= l.lag {
			l.lag, l.behind = lag, address
		}
	}
	return l, nil
}

// replicas are those that registered with the target and say where they are.
func (b *sqlBackend) replicas(ctx context.Context) ([]string, error) {
	q := "SHOW REPLICAS"
	if b.isMariaDB() {
		q = "SHOW SLAVE HOSTS"
	}
	all, err := readNamed(ctx, b.db, q)
	if err != nil {
		return nil, fmt.Errorf("replicas of the target: %w", err)
	}
	var out []string
	for _, r := range all {
		port, err := strconv.Atoi(r["Port"])
		if r["Host"] != "" && err == nil {
			out = append(out, net.JoinHostPort(r["Host"], strconv.Itoa(port)))
		}
	}
	return out, nil
}

// lagOf asks a replica; known is false while it does not replicate.
func (b *sqlBackend) lagOf(ctx context.Context, address string) (lag time.Duration, known bool, err error) {
	e := b.cfg.Target
	e.Address = address
	db, err := server.Open(e, server.Options{})
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	q, column := "SHOW REPLICA STATUS", "Seconds_Behind_Source"
	if b.isMariaDB() {
		q, column = "SHOW SLAVE STATUS", "Seconds_Behind_Master"
	}
	all, err := readNamed(ctx, db, q)
	if err != nil {
		return 0, false, err
	}
	for _, r := range all {
		if seconds, err := strconv.Atoi(r[column]); err == nil {
			known = true
			lag = max(lag, time.Duration(seconds)*time.Second)
		}
	}
	return lag, known, nil
}

func (b *sqlBackend) isMariaDB() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.flavor == server.MariaDB
}

// readNamed reads all rows of a statement by the names of its columns.
func readNamed(ctx context.Context, q server.Querier, statement string) ([]map[string]string, error) {
	rows, err := q.QueryContext(ctx, statement)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var out []map[string]string
	for rows.Next() {
		cells, into := make([]sql.NullString, len(names)), make([]any, len(names))
		for i := range cells {
			into[i] = &cells[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		m := map[string]string{}
		for i, n := range names {
			m[n] = cells[i].String
		}
		out = append(out, m)
	}
	return out, rows.Err()
}
