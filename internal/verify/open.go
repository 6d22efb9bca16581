package verify

import (
	"context"
	"fmt"

	"github.com/twinspan/twinspan/internal/server"
)

// Open makes a side with the session a comparison needs: UTC, and a sql_mode
// under which every stored value may be named in a condition.
func Open(ctx context.Context, e server.Endpoint) (Side, error) {
	db, err := server.Open(e, server.Options{Session: map[string]string{
		"time_zone": "'+00:00'", "sql_mode": "''",
		"group_concat_max_len": "1073741824", // the types of a JSON value's nodes
	}})
	if err != nil {
		return Side{}, err
	}
	info, err := server.Detect(ctx, db)
	if err != nil {
		db.Close()
		return Side{}, fmt.Errorf("%s: %w", e.Address, err)
	}
	return Side{DB: db, Info: info}, nil
}
