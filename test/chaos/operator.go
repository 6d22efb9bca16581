package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/test/chaos/lab"
)

// toolFor bounds one command.
const toolFor = 100 * time.Second

// tool runs a twinspan command as the operator does, with the configuration of a
// node, and returns what it said.
func (r *run) tool(ctx context.Context, node string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, toolFor)
	defer cancel()
	line := lab.Twinspan{Binary: r.binary}.Tool(r.Node(node), args...)
	out, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	r.logger.Info().Strs("command", args).Str("node", node).Err(err).Msg(text)
	if ctx.Err() != nil {
		return text, fmt.Errorf("twinspan %s: %w", strings.Join(args, " "), errSlow)
	}
	if err != nil {
		return text, fmt.Errorf("twinspan %s: %w: %s", strings.Join(args, " "), err, cli.OneLine(text))
	}
	return text, nil
}

// wholeFor is how long repair may take.
const wholeFor = 45 * time.Second

// errNotWhole: the cluster did not get well in time, which is a breach already.
// Nothing more may be taken away from it.
var errNotWhole = fmt.Errorf("the cluster is not whole again: %w", errJudge)

// whole waits until the cluster says of itself that nothing is wrong: every stream
// protected, every closed segment where it belongs.
func (r *run) whole(ctx context.Context) error {
	err := r.soon(ctx)
	if errors.Is(err, errNotWhole) {
		return nil
	}
	return err
}

// soon is whole, with errNotWhole if it did not come to that: for who wants to do
// the next harm, which an operator would not risk then.
func (r *run) soon(ctx context.Context) error {
	if r.engine != twinSpan {
		return nil
	}
	until := time.Now().Add(wholeFor)
	for {
		out, err := r.tool(ctx, r.Storing()[0], "log", "status", "--strict")
		if err == nil {
			return nil
		}
		if time.Now().After(until) {
			r.report.extra = append(r.report.extra, fmt.Sprintf("the cluster is not whole again within %v: %s", wholeFor, problems(out)))
			return errNotWhole
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

var errSlow = fmt.Errorf("it had not ended after %v", toolFor)

// problems are the lines of log status that name one; all of it when none does.
func problems(out string) string {
	var found []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "!") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	if len(found) == 0 {
		return cli.OneLine(out)
	}
	return strings.Join(found, " ")
}

// forget tells the cluster that what stopped nodes had is gone, so that others may
// come under their names.
func (r *run) forget(ctx context.Context, names ...string) error {
	by := ""
	for _, name := range r.Storing() {
		if !slices.Contains(names, name) {
			by = name
		}
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, r.insist(ctx, by, "log", "nodes", "forget", name, "--yes", "--reason", "its disk is gone"))
	}
	return errors.Join(errs...)
}

// insist repeats a command that may fail while the cluster finds itself.
func (r *run) insist(ctx context.Context, node string, args ...string) error {
	for try := 0; ; try++ {
		_, err := r.tool(ctx, node, args...)
		if err == nil || try == 20 || ctx.Err() != nil || errors.Is(err, errSlow) {
			return err
		}
		if err := sleep(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
}

// verify has every replica of every segment read and compared. Damage may only come
// to light by that; then it is repaired, and the next time nothing is found.
func (r *run) verify(ctx context.Context) error {
	if r.engine != twinSpan {
		return nil
	}
	for try := 0; ; try++ {
		out, err := r.tool(ctx, r.Storing()[0], "log", "verify")
		if err == nil {
			return nil
		}
		if try == 2 {
			r.report.extra = append(r.report.extra, fmt.Sprintf("the replicas differ: %v\n%s", err, out))
			return nil
		}
		if err := errors.Join(sleep(ctx, time.Second), r.whole(ctx)); err != nil {
			return err
		}
	}
}
