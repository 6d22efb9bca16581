package target

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// Catalog knows the target's tables as they are now. It reads each once and
// keeps it until it is told to forget: only a DDL changes a table, and a DDL is
// a barrier. It is safe for concurrent use.
type Catalog struct {
	info       server.Info
	collations schema.Collations

	mu         sync.Mutex
	tables     map[schema.Name]*Table
	components *components // nil: not read yet
}

// NewCatalog makes an empty catalogue of the server that info describes.
func NewCatalog(info server.Info, collations schema.Collations) *Catalog {
	return &Catalog{info: info, collations: collations, tables: map[schema.Name]*Table{}}
}

// Info is the server the catalogue describes.
func (c *Catalog) Info() server.Info { return c.info }

// Table reads a table, or remembers it. It fails with ErrNoTable when there is
// none, or when the name is a view's.
func (c *Catalog) Table(ctx context.Context, q server.Querier, name schema.Name) (*Table, error) {
	c.mu.Lock()
	t := c.tables[name]
	c.mu.Unlock()
	if t != nil {
		return t, nil
	}
	// Read outside the lock: two lanes may read the same table, and get the
	// same.
	t, err := c.loadShowing(ctx, q, name)
	if err != nil {
		return nil, fmt.Errorf("catalogue of %s: %w", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if have := c.tables[name]; have != nil {
		return have, nil
	}
	c.tables[name] = t
	return t, nil
}

// Forget drops what is known of tables, and of foreign keys altogether.
func (c *Catalog) Forget(names ...schema.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.components = nil
	c.drop(names)
}

// drop forgets tables; mu is held.
func (c *Catalog) drop(names []schema.Name) {
	for _, n := range names {
		delete(c.tables, n)
		for have := range c.tables { // also under another spelling
			if strings.EqualFold(have.Schema, n.Schema) && strings.EqualFold(have.Table, n.Table) {
				delete(c.tables, have)
			}
		}
	}
}

// ForgetAll drops everything.
func (c *Catalog) ForgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.components = nil
	clear(c.tables)
}

// loadShowing loads on one connection, which lists generated invisible primary
// keys: row images have them.
func (c *Catalog) loadShowing(ctx context.Context, q server.Querier, name schema.Name) (*Table, error) {
	db, pool := q.(*sql.DB)
	if !pool {
		return c.load(ctx, q, name)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	// They stay so for the connection: no one else's statements differ by them. The
	// first two are a lane's, whose SHOW CREATE TABLE must read the same.
	settings := []setting{{name: "sql_mode", value: "'" + dmlMode + "'"}, {name: "character_set_results", value: "utf8mb4"}}
	if c.info.Flavor == server.MySQL {
		settings = append(settings, setting{name: "show_gipk_in_create_table_and_information_schema", value: "1", want: "1"})
	}
	if err := prepareSession(ctx, conn, settings); err != nil {
		Discard(conn)
		return nil, err
	}
	t, err := c.load(ctx, conn, name)
	return t, errors.Join(err, conn.Close())
}

func (c *Catalog) load(ctx context.Context, q server.Querier, name schema.Name) (*Table, error) {
	t := &Table{Identity: -1}
	var kind string
	var engine sql.NullString
	var spelled schema.Name
	err := q.QueryRowContext(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES"+
		" WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?", name.Schema, name.Table).Scan(&spelled.Schema, &spelled.Table, &kind, &engine)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNoTable
	}
	if err != nil {
		return nil, err
	}
	switch kind {
	case "BASE TABLE", "SYSTEM VERSIONED", "SEQUENCE":
	default:
		return nil, fmt.Errorf("%w: it is a %s", ErrNoTable, strings.ToLower(kind))
	}
	t.Sequence = kind == "SEQUENCE"
	t.Engine = engine.String
	described, err := schema.FromCatalogue(ctx, q, c.info, c.collations, spelled)
	if err != nil {
		return nil, err
	}
	t.Table = *described
	t.server = c.info
	if t.shown, err = shown(ctx, q, t.quoted()); err != nil {
		return nil, err
	}
	for _, read := range []func(context.Context, server.Querier, *Table) error{
		readColumns, c.readKeys, readTriggers,
	} {
		if err := read(ctx, q, t); err != nil {
			return nil, err
		}
	}
	graph, err := c.graph(ctx, q)
	if err != nil {
		return nil, err
	}
	t.Children = graph.children[graph.key(t.Name)]
	if graph.isChild[graph.key(t.Name)] {
		if err := readForeignKeys(ctx, q, t); err != nil {
			return nil, err
		}
	}
	t.Identity = identityOf(t)
	// What was read in so many pieces is one table's when it is still the same.
	now, err := shown(ctx, q, t.quoted())
	if err == nil && now != t.shown {
		err = errors.New("it changed while it was read")
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// index finds a column by its name, which servers compare without case.
func (t *Table) index(name string) int {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return i
		}
	}
	for i := range t.Columns {
		if strings.EqualFold(t.Columns[i].Name, name) {
			return i
		}
	}
	return -1
}

func readColumns(ctx context.Context, q server.Querier, t *Table) error {
	srid := "NULL"
	if t.server.Flavor == server.MySQL && t.server.AtLeast(8, 0) {
		srid = "SRS_ID"
	}
	rows, err := q.QueryContext(ctx, "SELECT COLUMN_NAME, DATA_TYPE, IS_NULLABLE, COLUMN_DEFAULT IS NOT NULL, EXTRA, COALESCE(GENERATION_EXPRESSION, ''),"+
		" COALESCE(NUMERIC_SCALE, -1), COLUMN_TYPE, "+srid+
		" FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION", t.Name.Schema, t.Name.Table)
	if err != nil {
		return err
	}
	defer rows.Close()
	t.Generated = make([]bool, len(t.Columns))
	t.columns = make([]column, len(t.Columns))
	n := 0
	for i := range t.Columns {
		if t.Columns[i].Hidden() { // in row images, not in the catalogue
			t.Generated[i] = true
			n++
		}
	}
	for rows.Next() {
		var name, dataType, nullable, extra, expression string
		var defaulted bool
		var scale int
		var columnType string
		var srid sql.Null[uint32]
		if err := rows.Scan(&name, &dataType, &nullable, &defaulted, &extra, &expression, &scale, &columnType, &srid); err != nil {
			return err
		}
		i := t.index(name)
		if i < 0 {
			return fmt.Errorf("column %s appeared while the table was read", server.QuoteName(name))
		}
		n++
		extra = strings.ToUpper(extra)
		c := &t.columns[i]
		c.dataType = strings.ToLower(dataType)
		c.scale = scale
		c.auto = strings.Contains(extra, "AUTO_INCREMENT")
		c.fill = defaulted || nullable == "YES" || c.auto || strings.Contains(extra, "DEFAULT_GENERATED")
		// MySQL says DEFAULT_GENERATED for a default that is an expression.
		t.Generated[i] = strings.Contains(extra, "VIRTUAL GENERATED") || strings.Contains(extra, "STORED GENERATED") ||
			strings.Contains(extra, "PERSISTENT GENERATED") || expression != ""
		if srid.Valid {
			c.srid = &srid.V
		}
		c.invisible = strings.Contains(extra, "INVISIBLE")
		// Labels are the only text of others in a type.
		if t.server.Flavor == server.MariaDB && t.Columns[i].Members == nil {
			for mark, what := range map[string]string{"COMPRESSED": "is compressed", "mariadb-5.3": "has the format of MariaDB 5.3"} {
				if strings.Contains(columnType, mark) {
					c.stored = what
				}
			}
		}
		c.versions = expression == "ROW START" || expression == "ROW END"
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if n != len(t.Columns) {
		return fmt.Errorf("%d columns described, %d found: the table changed while it was read", len(t.Columns), n)
	}
	return nil
}

func (c *Catalog) readKeys(ctx context.Context, q server.Querier, t *Table) error {
	expression := "NULL"
	if c.info.Flavor == server.MySQL {
		expression = "EXPRESSION"
	}
	rows, err := q.QueryContext(ctx, "SELECT INDEX_NAME, COLUMN_NAME, SUB_PART, INDEX_TYPE, "+expression+
		" FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0"+
		" ORDER BY INDEX_NAME, SEQ_IN_INDEX", t.Name.Schema, t.Name.Table)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name, kind string
		var col, expr sql.NullString
		var prefix sql.NullInt64
		if err := rows.Scan(&name, &col, &prefix, &kind, &expr); err != nil {
			return err
		}
		if len(t.Keys) == 0 || t.Keys[len(t.Keys)-1].Name != name {
			t.Keys = append(t.Keys, Key{Name: name, Primary: name == "PRIMARY"})
		}
		k := &t.Keys[len(t.Keys)-1]
		// MariaDB's HASH is a unique key over values too long for an index.
		if expr.Valid || strings.EqualFold(kind, "HASH") && !strings.EqualFold(t.Engine, "MEMORY") {
			k.Functional = true
		}
		if !col.Valid {
			k.Functional = true
			continue
		}
		i := t.index(col.String)
		if i < 0 {
			k.Functional = true // a column the server hides
			continue
		}
		k.Parts = append(k.Parts, schema.KeyPart{Column: i, Prefix: int(prefix.Int64)})
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if c.info.Flavor == server.MariaDB && len(t.Keys) > 0 {
		if err := readPeriodKeys(ctx, q, t); err != nil {
			return err
		}
	}
	slices.SortStableFunc(t.Keys, func(a, b Key) int {
		switch {
		case a.Primary == b.Primary:
			return 0
		case a.Primary:
			return -1
		}
		return 1
	})
	return nil
}

var periodKey = regexp.MustCompile("(?m)^  (?:UNIQUE KEY `((?:[^`]|``)+)`|PRIMARY KEY) \\(.*WITHOUT OVERLAPS\\)")

// readPeriodKeys marks keys over a period: they are unique by overlap, which is
// no equality. Only SHOW CREATE TABLE tells them on every version.
func readPeriodKeys(ctx context.Context, q server.Querier, t *Table) error {
	def, err := second(ctx, q, "SHOW CREATE TABLE "+server.QuoteName(t.Name.Schema)+"."+server.QuoteName(t.Name.Table))
	if err != nil {
		return err
	}
	for _, m := range periodKey.FindAllStringSubmatch(def, -1) {
		name := strings.ReplaceAll(m[1], "``", "`")
		if name == "" {
			name = "PRIMARY"
		}
		for i := range t.Keys {
			t.Keys[i].Functional = t.Keys[i].Functional || t.Keys[i].Name == name
		}
	}
	return nil
}

// identityOf picks the key that names a row.
func identityOf(t *Table) int {
	for i, k := range t.Keys {
		if k.Functional || len(k.Parts) == 0 {
			continue
		}
		if k.Primary {
			return i
		}
		whole := true
		for _, p := range k.Parts {
			whole = whole && p.Prefix == 0 && !t.Columns[p.Column].Nullable
		}
		if whole {
			return i
		}
	}
	return -1
}

func readForeignKeys(ctx context.Context, q server.Querier, t *Table) error {
	rows, err := q.QueryContext(ctx, "SELECT k.CONSTRAINT_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_SCHEMA, k.REFERENCED_TABLE_NAME,"+
		" k.REFERENCED_COLUMN_NAME, r.DELETE_RULE, r.UPDATE_RULE"+
		" FROM information_schema.KEY_COLUMN_USAGE k JOIN information_schema.REFERENTIAL_CONSTRAINTS r"+
		" ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND r.TABLE_NAME = k.TABLE_NAME"+
		" WHERE k.TABLE_SCHEMA = ? AND k.TABLE_NAME = ? AND k.REFERENCED_TABLE_NAME IS NOT NULL"+
		" ORDER BY k.CONSTRAINT_NAME, k.ORDINAL_POSITION", t.Name.Schema, t.Name.Table)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var f ForeignKey
		var col, parentCol string
		if err := rows.Scan(&f.Name, &col, &f.Parent.Schema, &f.Parent.Table, &parentCol, &f.OnDelete, &f.OnUpdate); err != nil {
			return err
		}
		if n := len(t.ForeignKeys); n == 0 || t.ForeignKeys[n-1].Name != f.Name {
			t.ForeignKeys = append(t.ForeignKeys, f)
		}
		last := &t.ForeignKeys[len(t.ForeignKeys)-1]
		i := t.index(col)
		if i < 0 {
			return fmt.Errorf("foreign key %s: no column %s", server.QuoteName(f.Name), server.QuoteName(col))
		}
		last.Columns = append(last.Columns, i)
		last.ParentColumns = append(last.ParentColumns, parentCol)
	}
	return rows.Err()
}

func readTriggers(ctx context.Context, q server.Querier, t *Table) error {
	rows, err := q.QueryContext(ctx, "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS"+
		" WHERE EVENT_OBJECT_SCHEMA = ? AND EVENT_OBJECT_TABLE = ? ORDER BY 1", t.Name.Schema, t.Name.Table)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			return err
		}
		t.Triggers = append(t.Triggers, n)
	}
	return rows.Err()
}
