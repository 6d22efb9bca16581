package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/wan"
	"github.com/twinspan/twinspan/test/chaos/history"
)

// forfeit is what a takeover gives up.
type forfeit struct {
	city    string
	at      int64    // from when on
	workers []string // their processes in that city
}

func (f *forfeit) lost(process string) bool { return slices.Contains(f.workers, process) }

// takeover loses the city with the majority of the votes, with all that runs in
// it, has the other one take over, and brings the old one back.
func takeover(ctx context.Context, r *run) error {
	r.say("city a is lost")
	if err := r.Kill(r.In("a")...); err != nil {
		return err
	}
	r.lose("a")
	if err := errors.Join(r.endWorkersIn("a"), r.sleep(ctx, 0.1), r.takeOver(ctx, "a", "b")); err != nil {
		return err
	}
	err := r.sleep(ctx, 0.5)
	r.regain("a")
	r.say("city a comes back as it was")
	return errors.Join(err, r.Start(ctx, r.In("a")...), r.welcomeBack(ctx, "a", "b"))
}

// takeoverSplit cuts the city with the majority off. It goes on by itself, without
// protection, until its workers are fenced; then the other city takes over. When
// the line is back the old city has a history that the new one does not know.
func takeoverSplit(ctx context.Context, r *run) error {
	r.say("city a is cut off")
	if err := r.CutOff("a", wan.Hold); err != nil {
		return err
	}
	f := &forfeit{city: "a", at: history.Now()}
	for _, name := range r.workersIn("a") {
		f.workers = append(f.workers, r.life(name))
	}
	r.forfeit = f
	r.lose("a")
	// Long enough for its writers to do without the other city, and go on.
	if err := errors.Join(sleep(ctx, 7*time.Second), r.endWorkersIn("a"), r.takeOver(ctx, "a", "b")); err != nil {
		return err
	}
	err := r.sleep(ctx, 0.5)
	r.regain("a")
	r.say("city a is connected")
	if err := errors.Join(err, r.Heal()); err != nil {
		return err
	}
	// Its nodes serve the old history until they meet the new one: nobody works there
	// again before all of them stand aside, which is when rejoin has something to show.
	for _, name := range r.In("a") {
		if err := r.insist(ctx, r.Storing("b")[0], "log", "nodes", "rejoin", name); err != nil {
			return err
		}
	}
	return r.welcomeBack(ctx, "a", "b")
}

func (r *run) takeOver(ctx context.Context, lost, left string) error {
	err := r.insist(ctx, r.Storing(left)[0], "log", "takeover", "--attest-fenced", lost, "--yes", "--reason", "city "+lost+" is lost")
	r.say("city %s has taken over", left)
	return err
}

// welcomeBack has the workers of the lost city work again, through whichever nodes
// serve them, and takes its nodes in.
func (r *run) welcomeBack(ctx context.Context, lost, left string) error {
	for _, name := range r.workersIn(lost) {
		if err := r.hire(name); err != nil {
			return err
		}
	}
	if err := r.sleep(ctx, 0.3); err != nil {
		return err
	}
	for _, name := range r.In(lost) {
		if err := r.rejoin(ctx, r.Storing(left)[0], name); err != nil {
			return err
		}
	}
	return r.whole(ctx)
}

// rejoin takes a quarantined node in again: it ends, and whoever supervises it
// starts it.
func (r *run) rejoin(ctx context.Context, by, name string) error {
	if err := r.insist(ctx, by, "log", "nodes", "rejoin", name, "--yes", "--reason", "it is back"); err != nil {
		return err
	}
	for range 100 {
		if !r.Running(name) {
			break
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return r.Start(ctx, name)
}

// workersIn a city.
func (r *run) workersIn(city string) []string {
	var out []string
	for _, w := range workers {
		if r.city(w.city) == city {
			out = append(out, w.name)
		}
	}
	return out
}

func (r *run) endWorkersIn(city string) error {
	var errs []error
	for _, name := range r.workersIn(city) {
		errs = append(errs, r.EndWorker(name, syscall.SIGKILL))
	}
	return errors.Join(errs...)
}

// handedOver holds what a takeover gave up against what the nodes of the lost city
// exported when they came back: every entry that had been confirmed and is not in
// the log has to be there.
func (r *run) handedOver(given []string, records []history.Record) error {
	exported := map[string]bool{}
	for _, name := range r.In(r.forfeit.city) {
		files, err := filepath.Glob(filepath.Join(filepath.Dir(r.Node(name).Dir), "log*", "quarantine", "*.jsonl"))
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := readExport(file, exported); err != nil {
				return err
			}
		}
	}
	inLog := map[string]bool{}
	for _, rec := range records {
		for _, e := range rec.Seen {
			inLog[e.ID] = true
		}
	}
	var missing []string
	for _, id := range given {
		if !exported[id] && !inLog[id] {
			missing = append(missing, id)
		}
	}
	r.report.exported = len(exported)
	if len(missing) > 0 {
		r.report.extra = append(r.report.extra, fmt.Sprintf("%d of %d entries that the lost city had confirmed by itself are neither in the log nor exported, such as %s",
			len(missing), len(given), strings.Join(missing[:min(5, len(missing))], ", ")))
	}
	return nil
}

// readExport collects the names of the entries in a file.
func readExport(file string, into map[string]bool) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	d := json.NewDecoder(bufio.NewReaderSize(f, 1<<20))
	for d.More() {
		var e struct {
			Payload []byte `json:"payload"`
		}
		if err := d.Decode(&e); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		id, err := history.ParsePayload(e.Payload)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		into[id] = true
	}
	return nil
}
