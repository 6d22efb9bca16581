package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/twinspan/twinspan/test/chaos/lab"
)

// tool runs a twinspan command as the operator does, with the configuration of a
// node, and returns what it said.
func (r *run) tool(ctx context.Context, node string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	line := lab.Twinspan{Binary: r.binary}.Tool(r.Node(node), args...)
	out, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	r.logger.Info().Strs("command", args).Str("node", node).Err(err).Msg(text)
	if err != nil {
		return text, fmt.Errorf("twinspan %s: %w: %s", strings.Join(args, " "), err, text)
	}
	return text, nil
}

// wholeFor is how long repair may take.
const wholeFor = 30 * time.Second

// whole waits until the cluster says of itself that nothing is wrong: every stream
// protected, every closed segment where it belongs.
func (r *run) whole(ctx context.Context) error {
	if r.engine != twinSpan {
		return nil
	}
	until := time.Now().Add(wholeFor)
	for {
		_, err := r.tool(ctx, r.Storing()[0], "log", "status", "--strict")
		if err == nil {
			return nil
		}
		if time.Now().After(until) {
			r.report.extra = append(r.report.extra, fmt.Sprintf("the cluster is not whole again within %v: %v", wholeFor, err))
			return nil
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// readmit starts nodes whose disks were wiped, after the operator has told the
// cluster that what they had is gone.
func (r *run) readmit(ctx context.Context, names ...string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, r.Start(ctx, name))
	}
	return errors.Join(errs...)
}
