package applier

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/log"
)

// ErrFenced: another applier owns the stream on this target now. Run ends with
// it; nothing this applier had not committed can be written any more.
var ErrFenced = errors.New("fenced: another applier owns the stream on this target")

// ErrRegressed: the target holds less than it had confirmed. It lost commits in
// a crash, or a server took over that had not received them. Run ends with it;
// a new Applier resumes from what the target holds.
var ErrRegressed = errors.New("the target went back behind what it had confirmed")

// ErrTableChanged: someone changed a table on the target by hand while rows were
// applied to it. Nothing was written by what it was before. Run ends with it; a new
// Applier reads the table as it is.
var ErrTableChanged = target.ErrChanged

// final: an error that trying again can't mend.
func final(err error) bool {
	return errors.Is(err, ErrFenced) || errors.Is(err, ErrRegressed) || errors.Is(err, ErrInterrupted) || errors.Is(err, ErrTableChanged)
}

// errPlace: a lane's stored place is not what its owner left there.
var errPlace = errors.New("the stored place of a lane was changed by someone else")

// errKeys: rows of a table went to their lanes by other keys than it has now.
var errKeys = errors.New("the keys of the table changed while lanes stood apart")

// errRules: what was left apart can't be told from what is fed now.
var errRules = errors.New("filters or routes changed while lanes stood apart")

// errTriggers: triggers would fire for replicated rows.
var errTriggers = errors.New("the target's table has triggers")

// errRouting: lanes stand apart by the rules of another version of the program.
var errRouting = errors.New("lanes were left apart by another version of twinspan")

// Code names the reason of a halt.
type Code string

// The reasons why a part of the applier halts. Nothing is skipped: what halted
// is tried again and goes on by itself once the target is as it should be.
const (
	CodeConflict     Code = "CONFLICT"         // a secondary unique key is held by another row
	CodeRowMissing   Code = "ROW_MISSING"      // a row of a table without a key is not there
	CodeData         Code = "DATA"             // the target refuses a value
	CodeTooLarge     Code = "TOO_LARGE"        // a row does not fit max_allowed_packet
	CodeForeignKey   Code = "FOREIGN_KEY"      // a parent is missing, or a child in the way
	CodeTableMissing Code = "TABLE_MISSING"    // no such table on the target
	CodeTable        Code = "TABLE_DIFFERENT"  // the target's table can't take the source's rows
	CodeTriggers     Code = "TRIGGERS"         // the target's table has triggers
	CodeKeys         Code = "KEYS_CHANGED"     // keys of the target changed while lanes stood apart
	CodeRules        Code = "LANES_APART"      // filters or routes changed while lanes stood apart
	CodeRouting      Code = "ROUTING_VERSION"  // lanes stand apart by another version's rules
	CodeDDL          Code = "DDL_FAILED"       // a statement could not be replayed
	CodePrivilege    Code = "TARGET_PRIVILEGE" // the applier's account may not do it
	CodePosition     Code = "POSITION_CHANGED" // someone changed a lane's stored place
	CodeParked       Code = "PARKED"           // changes that were parked before are in the way
	CodeFull         Code = "EXCEPTIONS_FULL"  // as many changes are parked as may be
	CodeException    Code = "EXCEPTION"        // any other refusal
)

// Halt is why a lane or the dispatcher does not go on.
type Halt struct {
	Code   Code         `json:"code"`
	Reason string       `json:"reason"`
	Remedy string       `json:"remedy"`
	Place  change.Place `json:"place"` // the first change that can't be applied, as far as known
	Since  time.Time    `json:"since"`
	Tries  int          `json:"tries"`
}

// trouble is what is to be done about an error.
type trouble struct {
	code   Code // "" : not a halt, just try again
	remedy string
}

// assess sorts an error of the target's side. Everything that is not certain to
// be a passing condition is a halt, and both are tried again for ever.
func assess(err error) trouble {
	switch {
	case errors.Is(err, target.ErrConflict):
		return trouble{CodeConflict, "the row that holds the key was not written by replication: compare it with the source, then change or remove it on the target"}
	case errors.Is(err, errConflict):
		return trouble{CodeConflict, "twinspan conflicts shows the images: make the target's row what the change expects, or set another policy in apply.conflicts"}
	case errors.Is(err, errFollows), errors.Is(err, errParkedTable):
		return trouble{CodeParked, "twinspan exceptions list shows them: retry or skip them; this goes on by itself then"}
	case errors.Is(err, exceptions.ErrFull):
		return trouble{CodeFull, "mend what parks so many changes and run twinspan exceptions retry --all, or raise apply.exceptions.max"}
	case errors.Is(err, target.ErrMissing):
		return trouble{CodeRowMissing, "put the row back on the target as the source had it before this change"}
	case errors.Is(err, target.ErrTooLarge):
		return trouble{CodeTooLarge, "raise max_allowed_packet on the target"}
	case errors.Is(err, target.ErrNoTable):
		return trouble{CodeTableMissing, "create the table on the target as it is at the source, with its rows as of this place"}
	case errors.Is(err, target.ErrIncompatible):
		return trouble{CodeTable, "make the target's table fit the source's"}
	case errors.Is(err, errTriggers):
		return trouble{CodeTriggers, "drop the triggers on the target: the source's own effects are replicated as rows"}
	case errors.Is(err, errKeys):
		return trouble{CodeKeys, "give the table on the target the keys it had before, until this place has passed"}
	case errors.Is(err, errRules):
		return trouble{CodeRules, "set apply.filters and apply.routes, and the target's tables, back to what they were; record that: twinspan filters accept --yes; let it catch up, then change them"}
	case errors.Is(err, errRouting):
		return trouble{CodeRouting, "start the version that wrote the positions and let it catch up, then this one"}
	case errors.Is(err, errPlace):
		return trouble{CodePosition, "restore twinspan.lane_position, or re-seed the target"}
	case errors.Is(err, gtid.ErrInvalid), errors.Is(err, gtid.ErrFlavor):
		return trouble{CodeException, "the log holds a GTID that can't be read: report this"}
	case errors.Is(err, causality.ErrValue):
		return trouble{CodeTable, "the log's rows and the table's columns disagree: report this"}
	}
	switch server.ErrorNumber(err) {
	case 1044, 1045, 1142, 1143, 1227, 1370, 1410, 1419, 1698, 3879:
		return trouble{CodePrivilege, "grant the applier's account what it needs: twinspan doctor --fix-sql"}
	}
	if errors.Is(err, target.ErrDDL) {
		return trouble{CodeDDL, "make the target as the statement expects it, or carry it out by hand and record it as done"}
	}
	switch server.ErrorNumber(err) {
	case 1146, 1049:
		return trouble{CodeTableMissing, "create the table on the target as it is at the source, with its rows as of this place"}
	case 1054, 1136, 1166:
		return trouble{CodeTable, "make the target's table fit the source's"}
	case 1216, 1217, 1451, 1452:
		return trouble{CodeForeignKey, "put the missing parent row on the target, or remove the child row that is in the way"}
	}
	switch {
	case target.Retryable(err), errors.Is(err, errWaiting), errors.Is(err, errSlow), errors.Is(err, sql.ErrConnDone), errors.Is(err, context.Canceled):
		return trouble{}
	case errors.Is(err, target.ErrData):
		return trouble{CodeData, "make the target's column hold the value the source has"}
	}
	return trouble{CodeException, "look at the error; it is tried again"}
}

// errSlow: a try took longer than it was given; the next one is given more.
var errSlow = errors.New("the target did not answer in time")

// patience is how long one try may take: a server that went away without a
// word must not be waited for until the kernel gives up. It doubles from try to
// try, so that what is only slow gets through.
func patience(tries int) time.Duration { return 2 * time.Minute << min(tries, 5) }

// Pauses between tries: short at first, for a deadlock or a server that is
// restarting, then at a pace that an operator's fix is soon noticed.
const (
	pauseMin = 20 * time.Millisecond
	pauseMax = 5 * time.Second
)

// backoff is one try after the other.
type backoff struct{ last time.Duration }

// wait pauses; it fails with ctx's cause, or log.ErrClosed once ended is closed.
func (b *backoff) wait(ctx context.Context, ended <-chan struct{}) error {
	b.last = min(max(2*b.last, pauseMin), pauseMax)
	t := time.NewTimer(b.last)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-ended:
		return fmt.Errorf("applier: %w", log.ErrClosed)
	case <-t.C:
		return nil
	}
}

// placeError says where in the log an error happened.
type placeError struct {
	place change.Place
	err   error
}

func (e *placeError) Error() string {
	return fmt.Sprintf("at %d/%d: %v", e.place.Offset, e.place.Index, e.err)
}

func (e *placeError) Unwrap() error { return e.err }

func at(p change.Place, err error) error {
	if err == nil {
		return nil
	}
	return &placeError{p, err}
}
