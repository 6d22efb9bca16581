package target

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
	"github.com/twinspan/twinspan/schema/ddl"
)

// DDLOptions of a DDLRunner.
type DDLOptions struct {
	// DB is the target, without multiple statements in one text. Its account
	// needs DDL privileges, PROCESS, and all of schema twinspan.
	DB *sql.DB
	// Stream keeps this runner's records apart from other streams'.
	Stream string
	// Source is the flavour the statements come from; empty: the target's own.
	// SourceVersion is its version as executable comments count it, 0: newest.
	Source        server.Flavor
	SourceVersion int
	// ReplayAccounts replays CREATE USER, GRANT and the like. Off by default:
	// passwords, hosts and rights belong to a city, and a statement for a user
	// that was made by hand on one side alone would stop the stream.
	ReplayAccounts bool
	// Catalog forgets the tables a statement changed; may be nil.
	Catalog *Catalog
	Logger  zerolog.Logger
	// Observe is told what became of each statement; may be nil.
	Observe func(d *change.DDL, class ddl.Class, what Decision)
}

// Decision is what becomes of a statement.
type Decision string

// The decisions.
const (
	Replayed    Decision = "replayed"
	AlreadyDone Decision = "already_done" // it had run before a crash
	Skipped     Decision = "skipped"      // not for the target, by policy
	Parked      Decision = "parked"       // kept in parked_definition
)

// DDLRunner replays DDL statements, each once. One goroutine uses it at a time;
// several runners of one stream exclude each other by a lock on the server.
type DDLRunner struct {
	o          DDLOptions
	info       server.Info
	collations schema.Collations
	// crash is a test's way to stop between two steps; nil otherwise.
	crash func(step string) error
}

// NewDDLRunner makes a runner. It asks the target nothing before Run.
func NewDDLRunner(o DDLOptions) *DDLRunner { return &DDLRunner{o: o} }

// Run gives the statement its effect on the target, once, however often it is
// called for the same place. Every change before the place must be durable and
// none after it begun.
//
// It records the intent with a digest of everything the statement names, runs
// the original text under its own session settings, checks what can be checked,
// and records that it is done. When the record says intended, a crash came in
// between: the digest tells whether the statement took effect. MySQL and
// MariaDB (from 10.6 on) make a single statement all or nothing, except DROP of
// several tables or of a database, which is finished.
//
// Errors: *DDLError (ErrDDL) when an operator must decide; what is Retryable may
// be tried again with another call.
func (r *DDLRunner) Run(ctx context.Context, place change.Place, d *change.DDL) error {
	if err := r.prepare(ctx); err != nil {
		return fmt.Errorf("DDL at %d/%d: %w", place.Offset, place.Index, err)
	}
	job := &ddlJob{r: r, place: place, d: d}
	what, err := job.run(ctx)
	if err != nil {
		return job.explain(err)
	}
	if r.o.Catalog != nil {
		if len(job.st.Changed) == 0 && job.st.Class.ChangesTables() {
			r.o.Catalog.ForgetAll()
		} else {
			r.o.Catalog.Forget(job.st.Tables...)
		}
	}
	r.o.Logger.Info().Int64("offset", int64(place.Offset)).Int32("index", place.Index).Str("class", string(job.st.Class)).
		Str("decision", string(what)).Str("statement", excerpt(d.Text)).Msg("DDL")
	if r.o.Observe != nil {
		r.o.Observe(d, job.st.Class, what)
	}
	return nil
}

func (r *DDLRunner) prepare(ctx context.Context) error {
	if r.info.Flavor != "" {
		return nil
	}
	info, err := server.Detect(ctx, r.o.DB)
	if err != nil {
		return err
	}
	if r.collations, err = schema.LoadCollations(ctx, r.o.DB); err != nil {
		return err
	}
	if err := EnsureState(ctx, r.o.DB); err != nil {
		return err
	}
	if r.o.Source == "" {
		r.o.Source = info.Flavor
	}
	r.info = info
	return nil
}

// ddlJob is one statement on its way.
type ddlJob struct {
	r     *DDLRunner
	place change.Place
	d     *change.DDL
	st    ddl.Statement
	conn  *sql.Conn // holds the stream's DDL lock
}

func (j *ddlJob) fault(reason, remedy string, err error) error {
	return &DDLError{Place: j.place, Text: j.d.Text, Reason: reason, Remedy: remedy, Err: err}
}

// explain gives errors without an identity one.
func (j *ddlJob) explain(err error) error {
	var known *DDLError
	if errors.As(err, &known) {
		return err
	}
	return fmt.Errorf("DDL at %d/%d (%s): %w", j.place.Offset, j.place.Index, excerpt(j.d.Text), err)
}

func (j *ddlJob) reached(step string) error {
	if j.r.crash != nil {
		return j.r.crash(step)
	}
	return nil
}

func (j *ddlJob) run(ctx context.Context) (Decision, error) {
	charset, _, ok := j.r.charset(j.d.CharsetClient)
	if !ok {
		return "", j.fault(fmt.Sprintf("character set id %d of its session is not known", j.d.CharsetClient), remedyByHand, nil)
	}
	text, charset, err := j.r.readable(ctx, j.d.Text, charset)
	if err != nil {
		return "", err
	}
	st, err := ddl.Classify(text, j.d.DefaultSchema, ddl.Dialect{
		Flavor: j.r.o.Source, Version: j.r.o.SourceVersion, SQLMode: j.d.SQLMode, Charset: charset})
	if err != nil {
		return "", j.fault(err.Error(), remedyByHand, nil)
	}
	j.st = st
	what, err := j.r.policy(j)
	if err != nil {
		return "", err
	}
	if what == Skipped {
		return Skipped, nil
	}
	// This connection holds the lock until it is closed, and the server goes on
	// with a statement whose client is gone: who has the lock knows that no
	// earlier attempt is still running.
	if j.conn, err = OpenSession(ctx, j.r.o.DB); err != nil {
		return "", err
	}
	defer Discard(j.conn)
	if err := j.lock(ctx); err != nil {
		return "", err
	}
	rec, err := j.recorded(ctx)
	switch {
	case err != nil:
		return "", err
	case rec.state != "" && rec.state != "intended":
		return AlreadyDone, nil
	case what == Parked:
		return Parked, j.park(ctx)
	}
	objects := objectsOf(&j.st)
	now, err := look(ctx, j.conn, j.r.info, objects)
	if err != nil {
		return "", err
	}
	if rec.state == "intended" {
		if done, err := j.tookEffect(rec, now); err != nil || done {
			if err != nil {
				return "", err
			}
			return AlreadyDone, j.recordDone(ctx, now.digest)
		}
	} else if err := j.recordIntent(ctx, now.digest); err != nil {
		return "", err
	}
	if err := j.reached("intended"); err != nil {
		return "", err
	}
	if err := j.execute(ctx); err != nil {
		return "", err
	}
	if err := j.reached("executed"); err != nil {
		return "", err
	}
	after, err := j.lookAfresh(ctx)
	if err != nil {
		return "", err
	}
	if !j.complete(after) {
		return "", j.fault("the server reported success, but what it names is not as it must be", remedyRecord, nil)
	}
	return Replayed, j.recordDone(ctx, after.digest)
}

const (
	remedyByHand = "apply its effect on the target by hand, then record the place as done in twinspan.ddl_state"
	remedyRecord = "compare source and target, then set its state to done in twinspan.ddl_state, or delete the row to run it again"
)

// tookEffect tells, for a statement whose intent is recorded, whether it ran to
// its end before the crash.
func (j *ddlJob) tookEffect(rec record, now found) (bool, error) {
	switch {
	case rec.server != j.r.info.Version:
		// Another version may describe the same table in other words.
		return false, j.fault(fmt.Sprintf("the target was %s when it began and is %s now, so its state can't be compared", rec.server, j.r.info.Version), remedyRecord, nil)
	case now.digest != rec.before:
		// Something changed. DROP may have stopped half way; then it is
		// finished by running it again.
		return j.complete(now), nil
	case now.blind && (j.st.Class == ddl.RenameTable || j.st.Class == ddl.ExchangePartition):
		return false, j.fault("a crash came while it ran, and tables outside of InnoDB do not tell whether it took effect", remedyRecord, nil)
	}
	// Nothing changed, or nothing that can be seen: running it (again) leads
	// to the same state.
	return false, nil
}

// complete tells whether what must exist afterwards does, and what must not does
// not, as far as the statement's kind says.
func (j *ddlJob) complete(f found) bool {
	all := func(want bool) bool {
		for _, n := range j.st.Changed {
			if f.tables[n] != want {
				return false
			}
		}
		return true
	}
	switch j.st.Class {
	case ddl.CreateTable, ddl.CreateTableSelect, ddl.TruncateTable, ddl.CreateIndex, ddl.DropIndex:
		return all(true)
	case ddl.DropTable:
		return all(false)
	case ddl.CreateDatabase, ddl.AlterDatabase:
		return f.schema
	case ddl.DropDatabase:
		return !f.schema
	case ddl.View, ddl.Sequence:
		return all(j.st.Verb != "DROP")
	}
	return true
}

// execute runs the original text under its session settings.
func (j *ddlJob) execute(ctx context.Context) error {
	if err := j.enter(ctx); err != nil {
		return err
	}
	text := j.d.Text
	if j.st.StartTransaction && j.r.info.Flavor == server.MariaDB {
		// MySQL writes these words itself, at the end, for a CREATE … SELECT.
		cut := strings.TrimRight(text, " \t\r\n;")
		if !strings.HasSuffix(strings.ToUpper(cut), "START TRANSACTION") {
			return j.fault("START TRANSACTION is not at its end", remedyByHand, nil)
		}
		text = cut[:len(cut)-len("START TRANSACTION")]
	}
	_, err := j.conn.ExecContext(ctx, text)
	if err == nil && j.st.StartTransaction && j.r.info.Flavor == server.MySQL {
		_, err = j.conn.ExecContext(ctx, "COMMIT")
	}
	switch {
	case err == nil:
		return nil
	case j.st.Class == ddl.DropTable && slices.Contains([]uint16{1051, 4092, 4121}, server.ErrorNumber(err)):
		// MariaDB drops what is there and complains about the rest.
		f, lerr := j.lookAfresh(ctx)
		if lerr != nil {
			return lerr
		}
		if j.complete(f) {
			return nil
		}
	case Retryable(err) || ctx.Err() != nil:
		return err
	}
	remedy := remedyByHand
	if j.r.o.Source != j.r.info.Flavor {
		remedy = fmt.Sprintf("the source is %s and the target %s: %s", j.r.o.Source, j.r.info.Flavor, remedyByHand)
	}
	return j.fault("the target refuses it", remedy, err)
}

// lookAfresh looks with a session as at first: the job's own has the statement's
// settings by now.
func (j *ddlJob) lookAfresh(ctx context.Context) (found, error) {
	conn, err := OpenSession(ctx, j.r.o.DB)
	if err != nil {
		return found{}, err
	}
	defer Discard(conn)
	return look(ctx, conn, j.r.info, objectsOf(&j.st))
}

// lock waits for the stream's DDL lock. A client that vanished without a word
// loses it once its connection was idle for a while; a running statement is not
// idle.
func (j *ddlJob) lock(ctx context.Context) error {
	if _, err := j.conn.ExecContext(ctx, "SET SESSION wait_timeout = 60"); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(j.r.o.Stream))
	name := "twinspan.ddl." + hex.EncodeToString(sum[:16])
	for {
		var got sql.NullInt64
		if err := j.conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, 2)", name).Scan(&got); err != nil {
			return fmt.Errorf("lock %s: %w", name, err)
		}
		if got.Int64 == 1 {
			return nil
		}
		j.r.o.Logger.Info().Str("statement", excerpt(j.d.Text)).Msg("waiting for a DDL statement that is still running on the target")
	}
}

// record is what ddl_state says of a statement.
type record struct{ state, before, server string }

func (j *ddlJob) recorded(ctx context.Context) (r record, err error) {
	err = j.conn.QueryRowContext(ctx, "SELECT state, before_digest, server_version FROM twinspan.ddl_state WHERE stream = ? AND entry_offset = ? AND entry_index = ?",
		j.r.o.Stream, int64(j.place.Offset), j.place.Index).Scan(&r.state, &r.before, &r.server)
	if errors.Is(err, sql.ErrNoRows) {
		return record{}, nil
	}
	return r, err
}

func (j *ddlJob) recordIntent(ctx context.Context, before string) error {
	_, err := j.r.o.DB.ExecContext(ctx, "INSERT INTO twinspan.ddl_state (stream, entry_offset, entry_index, state, class, default_schema, statement,"+
		" server_version, before_digest, after_digest, intended_at) VALUES (?, ?, ?, 'intended', ?, ?, ?, ?, ?, '', ?)",
		j.r.o.Stream, int64(j.place.Offset), j.place.Index, string(j.st.Class), j.d.DefaultSchema, []byte(j.d.Text), j.r.info.Version, before, now())
	if err != nil {
		return fmt.Errorf("record intent: %w", err)
	}
	return nil
}

// keepRecords is how many older records a stream keeps, for people.
const keepRecords = 1000

func (j *ddlJob) recordDone(ctx context.Context, after string) error {
	tx, err := j.r.o.DB.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("record done: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it has nothing to do
	res, err := tx.ExecContext(ctx, "UPDATE twinspan.ddl_state SET state = 'done', after_digest = ?, done_at = ? WHERE stream = ? AND entry_offset = ? AND entry_index = ? AND state = 'intended'",
		after, now(), j.r.o.Stream, int64(j.place.Offset), j.place.Index)
	if err != nil {
		return fmt.Errorf("record done: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(j.fault("its record of intent vanished", remedyRecord, nil), err)
	}
	if err := j.followTables(ctx, tx); err != nil {
		return fmt.Errorf("record done: %w", err)
	}
	if err := j.prune(ctx, tx); err != nil {
		return fmt.Errorf("record done: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("record done: %w", err)
	}
	return nil
}

func (j *ddlJob) prune(ctx context.Context, q server.Querier) error {
	var offset sql.NullInt64
	err := q.QueryRowContext(ctx, "SELECT entry_offset FROM twinspan.ddl_state WHERE stream = ? ORDER BY entry_offset DESC LIMIT 1 OFFSET "+fmt.Sprint(keepRecords), j.r.o.Stream).Scan(&offset)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = q.ExecContext(ctx, "DELETE FROM twinspan.ddl_state WHERE stream = ? AND entry_offset < ? AND state <> 'intended'", j.r.o.Stream, offset.Int64)
	return err
}

// now is the applier's clock as the state tables store it.
func now() string { return time.Now().UTC().Format("2006-01-02 15:04:05.000000") }
