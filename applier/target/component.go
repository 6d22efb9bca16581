package target

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// components are the connected sets of the foreign-key graph.
type components struct {
	fold           bool
	representative map[schema.Name]schema.Name
	children       map[schema.Name][]schema.Name // by parent, sorted
	isChild        map[schema.Name]bool
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
	known, err := c.graph(ctx, q)
	if err != nil {
		return schema.Name{}, false, err
	}
	if rep, ok := known.representative[known.key(name)]; ok {
		return rep, true, nil
	}
	return name, false, nil
}

// graph reads all foreign keys at once, or remembers them: asking for those of
// one parent costs MariaDB a look at every table.
func (c *Catalog) graph(ctx context.Context, q server.Querier) (*components, error) {
	c.mu.Lock()
	known := c.components
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	known, err := readComponents(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("foreign keys of the target: %w", err)
	}
	c.mu.Lock()
	c.components = known
	c.mu.Unlock()
	return known, nil
}

func readComponents(ctx context.Context, q server.Querier) (*components, error) {
	c := &components{representative: map[schema.Name]schema.Name{}, children: map[schema.Name][]schema.Name{}, isChild: map[schema.Name]bool{}}
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
	root := func(n schema.Name) schema.Name {
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
		if b.Compare(a) < 0 {
			a, b = b, a
		}
		parent[b] = a // the lesser name stays the root
		c.isChild[c.key(child)] = true
		c.children[c.key(referenced)] = append(c.children[c.key(referenced)], child)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for n := range parent {
		c.representative[n] = root(n)
	}
	for _, children := range c.children {
		slices.SortFunc(children, schema.Name.Compare)
	}
	return c, nil
}
