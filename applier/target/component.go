package target

import (
	"context"
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// components are the connected sets of the foreign-key graph.
type components struct {
	fold           bool
	representative map[schema.Name]schema.Name
}

func (c *components) key(n schema.Name) schema.Name {
	if c.fold {
		return schema.Name{Schema: strings.ToLower(n.Schema), Table: strings.ToLower(n.Table)}
	}
	return n
}

// Component tells which tables must be applied in one order because foreign
// keys tie them together, directly or through others, across schemas: all of
// them have the same representative, the least name among them. A table without
// foreign keys is its own, and the second result is false.
//
// An account sees only the constraints of tables it has a privilege on: the
// applier's must reach every table of the schemas it applies.
func (c *Catalog) Component(ctx context.Context, q server.Querier, name schema.Name) (schema.Name, bool, error) {
	c.mu.Lock()
	known := c.components
	c.mu.Unlock()
	if known == nil {
		var err error
		if known, err = readComponents(ctx, q); err != nil {
			return schema.Name{}, false, fmt.Errorf("foreign keys of the target: %w", err)
		}
		c.mu.Lock()
		c.components = known
		c.mu.Unlock()
	}
	if rep, ok := known.representative[known.key(name)]; ok {
		return rep, true, nil
	}
	return name, false, nil
}

func readComponents(ctx context.Context, q server.Querier) (*components, error) {
	c := &components{representative: map[schema.Name]schema.Name{}}
	var lower int
	if err := q.QueryRowContext(ctx, "SELECT @@lower_case_table_names").Scan(&lower); err != nil {
		return nil, err
	}
	c.fold = lower != 0
	rows, err := q.QueryContext(ctx, "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME, REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME"+
		" FROM information_schema.KEY_COLUMN_USAGE WHERE REFERENCED_TABLE_NAME IS NOT NULL")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	parent := map[schema.Name]schema.Name{}
	var root func(n schema.Name) schema.Name
	root = func(n schema.Name) schema.Name {
		for {
			p, ok := parent[n]
			if !ok {
				parent[n] = n
				return n
			}
			if p == n {
				return n
			}
			n = p
		}
	}
	for rows.Next() {
		var child, referenced schema.Name
		if err := rows.Scan(&child.Schema, &child.Table, &referenced.Schema, &referenced.Table); err != nil {
			return nil, err
		}
		a, b := root(c.key(child)), root(c.key(referenced))
		if less(b, a) {
			a, b = b, a
		}
		parent[b] = a // the lesser name stays the root
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for n := range parent {
		c.representative[n] = root(n)
	}
	return c, nil
}

func less(a, b schema.Name) bool {
	if a.Schema != b.Schema {
		return a.Schema < b.Schema
	}
	return a.Table < b.Table
}
