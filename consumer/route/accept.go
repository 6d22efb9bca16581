package route

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// ErrUnsafe: other rules now would make the target differ from the source unseen.
var ErrUnsafe = errors.New("the filters and routes can't be changed now")

// Acceptance is what it means to accept rules for a stream's target.
type Acceptance struct {
	Stream string `json:"stream"`
	Digest string `json:"digest"` // of the rules to be accepted
	Rules  string `json:"rules"`
	Stored string `json:"stored_digest"` // of those that the target was filled by
	Old    string `json:"stored_rules"`
	// Apart is how many lanes have rows that others may not have yet, of Lanes.
	Apart int `json:"lanes_apart"`
	Lanes int `json:"lanes"`
	// Refuse is why it can't be done; empty: it can.
	Refuse string `json:"refuse,omitempty"`
	Remedy string `json:"remedy,omitempty"`

	restamp bool
}

// Layout tells what lanes mean that a version of the applier laid out (applier.Layout).
// prefix: the highest of their places is what is durable; rows: each row has its own.
type Layout func(version, lanes int) (prefix, rows bool)

// Weigh looks at what accepting the rules would mean, and changes nothing.
//
// A lane's stored place says that all rows of that lane up to it are done. Which
// rows those are, only the rules tell that filled it: the lane of a row goes by its
// name on the target, and that of a transaction by its first row that is not left
// out. A row of a table that comes in anew may be below one lane's place and
// above another's, so that half of what it needs would be left out. So while lanes
// stand apart rules may not change, but where there is one lane, or lanes are done in
// the order of the log; where the lanes were filled by these very rules; and, where
// rows have lanes of their own, to rules that only leave more out.
func Weigh(ctx context.Context, q server.Querier, stream string, c Config, layout Layout) (*Acceptance, error) {
	stored, _, err := Recorded(ctx, q, stream)
	if err != nil {
		return nil, err
	}
	a := &Acceptance{Stream: stream, Digest: c.Digest(), Rules: c.String(), Stored: stored.Digest, Old: stored.Text}
	old, legible := parseStored(stored)
	if err := a.weighLanes(ctx, q, old, legible, c, layout); err != nil {
		return nil, fmt.Errorf("stream %s: lanes: %w", stream, err)
	}
	if a.Refuse == "" && a.Digest != a.Stored {
		if err := a.weighParked(ctx, q, old, legible, c); err != nil {
			return nil, fmt.Errorf("stream %s: exceptions: %w", stream, err)
		}
	}
	return a, nil
}

// has tells whether the target has all of these tables of twinspan.
func has(ctx context.Context, q server.Querier, tables ...string) (bool, error) {
	args := []any{}
	for _, t := range tables {
		args = append(args, t)
	}
	var n int
	err := q.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'twinspan' AND TABLE_NAME IN (?"+
		strings.Repeat(", ?", len(tables)-1)+")", args...).Scan(&n)
	return n == len(tables), err
}

func (a *Acceptance) weighLanes(ctx context.Context, q server.Querier, old Config, legible bool, c Config, layout Layout) error {
	if there, err := has(ctx, q, "stream", "lane_position", "progress", "routing"); err != nil || !there {
		return err
	}
	var version int
	err := q.QueryRowContext(ctx, "SELECT routing_version FROM twinspan.stream WHERE stream = ?", a.Stream).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := q.QueryRowContext(ctx, "SELECT COUNT(*), COALESCE(SUM(p.stream IS NULL OR l.log_offset > p.log_offset OR l.log_offset = p.log_offset AND l.log_index > p.log_index), 0)"+
		" FROM twinspan.lane_position l LEFT JOIN twinspan.progress p ON p.stream = l.stream WHERE l.stream = ?", a.Stream).Scan(&a.Lanes, &a.Apart); err != nil {
		return err
	}
	prefix, rows := layout(version, a.Lanes)
	if a.Apart == 0 || prefix {
		return nil
	}
	var stamp uint64
	err = q.QueryRowContext(ctx, "SELECT digest FROM twinspan.routing WHERE stream = ? AND table_schema = '' AND table_name = ''", a.Stream).Scan(&stamp)
	switch {
	case errors.Is(err, sql.ErrNoRows): // older versions did not say by which rules the lanes were filled
		if a.Digest == a.Stored {
			return nil
		}
		stamp = old.Stamp()
	case err != nil:
		return err
	case stamp == c.Stamp():
		return nil
	}
	if a.restamp = rows && legible && stamp == old.Stamp() && old.narrowedTo(c); a.restamp {
		return nil
	}
	a.Refuse = fmt.Sprintf("%d of %d lanes have applied changes that others have not reached, and only the rules that filled them tell which", a.Apart, a.Lanes)
	a.Remedy = "set apply.filters and apply.routes back, and names on the target that were changed; start the consumer once, and stop it when twinspan lanes set 1 is done or all is applied." +
		" Where it halts in the middle of a transaction, rules that differ only by more in exclude, skip_insert, skip_update or skip_delete are accepted"
	return nil
}

// weighParked refuses rules under which the changes that are parked would no longer
// be found by those that follow them, or come on top of a newer copy of their table.
func (a *Acceptance) weighParked(ctx context.Context, q server.Querier, old Config, legible bool, c Config) error {
	if there, err := has(ctx, q, "exception"); err != nil || !there {
		return err
	}
	was, _ := New(old)
	will, problems := New(c)
	if len(problems) > 0 {
		return problems[0]
	}
	rows, err := q.QueryContext(ctx, "SELECT DISTINCT table_schema, table_name FROM twinspan.exception WHERE stream = ? AND state = 'open' ORDER BY 1, 2", a.Stream)
	if err != nil {
		return err
	}
	defer rows.Close()
	var moved []string
	for rows.Next() {
		var n schema.Name
		if err := rows.Scan(&n.Schema, &n.Table); err != nil {
			return err
		}
		if !legible || moves(was, will, n) {
			moved = append(moved, n.String())
		}
	}
	if len(moved) > 0 {
		a.Refuse = fmt.Sprintf("changes of %s are parked, and other rules lead elsewhere", strings.Join(moved, ", "))
		a.Remedy = "twinspan exceptions list shows them: retry or skip them first"
	}
	return rows.Err()
}

// moves tells whether a table on the target belongs to another one of the source,
// or its source goes elsewhere. It does not where it is left out from now on.
func moves(was, will *Rules, target schema.Name) bool {
	before, had := was.Owner(target)
	after, has := will.Owner(target)
	switch {
	case has:
		return !had || before != after
	case had:
		return will.Table(before).Included
	}
	return false
}

// narrowedTo tells whether other rules differ only in leaving more tables or row
// operations out.
func (c Config) narrowedTo(to Config) bool {
	within := func(a, b []string) bool {
		return !slices.ContainsFunc(a, func(p string) bool { return !slices.Contains(b, p) })
	}
	for _, l := range [][2][]string{{c.Exclude, to.Exclude}, {c.SkipInsert, to.SkipInsert}, {c.SkipUpdate, to.SkipUpdate}, {c.SkipDelete, to.SkipDelete}} {
		if !within(l[0], l[1]) {
			return false
		}
	}
	same := func(c Config) string {
		return Config{Include: c.Include, SkipDDL: c.SkipDDL, Routes: c.Routes}.String()
	}
	return same(c) == same(to)
}

// parseStored reads what String wrote; false: it is not that.
func parseStored(s Stored) (c Config, ok bool) {
	for line := range strings.Lines(s.Text) {
		name, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		list := map[string]*[]string{"include": &c.Include, "exclude": &c.Exclude, skipNames[skipInsert]: &c.SkipInsert, skipNames[skipUpdate]: &c.SkipUpdate,
			skipNames[skipDelete]: &c.SkipDelete, skipNames[skipDDL]: &c.SkipDDL, "route": &c.Routes}[name]
		if list == nil {
			return Config{}, false
		}
		*list = append(*list, text)
	}
	if _, problems := New(c); len(problems) > 0 || c.Digest() != s.Digest {
		return Config{}, false
	}
	return c, true
}

// Accept records that the target is as the rules want it. It fails with ErrUnsafe,
// and has changed nothing, where Weigh says so; what that says holds against a
// consumer that goes on meanwhile, since its applier asks for the lanes' rules too.
func Accept(ctx context.Context, db *sql.DB, stream string, c Config, layout Layout) (*Acceptance, error) {
	if err := prepare(ctx, db); err != nil {
		return nil, err
	}
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return nil, fmt.Errorf("store rules: %w", err)
	}
	a, err := Weigh(ctx, tx, stream, c, layout)
	if err == nil && a.Refuse != "" {
		err = fmt.Errorf("stream %s: %w: %s", stream, ErrUnsafe, a.Refuse)
	}
	if err == nil {
		err = record(ctx, tx, stream, c)
	}
	if err == nil && a.restamp {
		_, err = tx.ExecContext(ctx, "REPLACE INTO twinspan.routing (stream, table_schema, table_name, digest) VALUES (?, '', '', ?)", stream, c.Stamp())
	}
	if err != nil {
		return a, errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("store rules: %w", err)
	}
	return a, nil
}
