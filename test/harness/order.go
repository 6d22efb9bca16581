package harness

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

var gtidInfo = regexp.MustCompile(`GTID_NEXT= ?'([^']+)'|\bGTID ([0-9]+-[0-9]+-[0-9]+)`)

// BinlogOrder lists the transactions of a server's binlog, in its order. On a
// parallel replica that order is not always the order of the numbers, and it is
// the one that a log read from there has to have.
func BinlogOrder(ctx context.Context, s *mysqltest.Server) ([]string, error) {
	files, err := column(ctx, s, "SHOW BINARY LOGS", 0)
	if err != nil {
		return nil, err
	}
	var order []string
	for _, f := range files {
		infos, err := column(ctx, s, "SHOW BINLOG EVENTS IN '"+f+"'", 5)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		for _, info := range infos {
			if m := gtidInfo.FindStringSubmatch(info); m != nil {
				order = append(order, strings.ToLower(m[1]+m[2]))
			}
		}
	}
	return order, nil
}

// column reads one column of a SHOW statement.
func column(ctx context.Context, s *mysqltest.Server, query string, at int) (out []string, err error) {
	rows, err := s.DB().QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	cells, into := make([][]byte, len(names)), make([]any, len(names))
	for i := range cells {
		into[i] = &cells[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		out = append(out, string(cells[at]))
	}
	return out, rows.Err()
}
