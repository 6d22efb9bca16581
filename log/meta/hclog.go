package meta

import (
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/rs/zerolog"
)

// hclogger lets Raft write to our logger, a level lower than it would: an election
// is no more than information to whoever runs a node, and a peer that is down
// is told by the node itself.
type hclogger struct {
	hclog.Logger // for what Raft does not use
	log          zerolog.Logger
}

func raftLogger(l zerolog.Logger) hclog.Logger {
	return &hclogger{Logger: hclog.NewNullLogger(), log: l.With().Str("part", "raft").Logger()}
}

func (l *hclogger) write(e *zerolog.Event, text string, args []any) {
	for i := 0; i+1 < len(args); i += 2 {
		e = e.Str(fmt.Sprint(args[i]), fmt.Sprint(args[i+1]))
	}
	e.Msg(text)
}

// Log is part of hclog.Logger.
func (l *hclogger) Log(level hclog.Level, text string, args ...any) {
	switch level {
	case hclog.Error:
		l.Error(text, args...)
	case hclog.Warn:
		l.Warn(text, args...)
	case hclog.Info:
		l.Info(text, args...)
	}
}

// Error is part of hclog.Logger.
func (l *hclogger) Error(text string, args ...any) { l.write(l.log.Warn(), text, args) }

// Warn is part of hclog.Logger.
func (l *hclogger) Warn(text string, args ...any) { l.write(l.log.Info(), text, args) }

// Info is part of hclog.Logger.
func (l *hclogger) Info(text string, args ...any) { l.write(l.log.Debug(), text, args) }

// Named is part of hclog.Logger.
func (l *hclogger) Named(string) hclog.Logger { return l }

// With is part of hclog.Logger.
func (l *hclogger) With(args ...any) hclog.Logger {
	c := l.log.With()
	for i := 0; i+1 < len(args); i += 2 {
		c = c.Str(fmt.Sprint(args[i]), fmt.Sprint(args[i+1]))
	}
	return &hclogger{Logger: l.Logger, log: c.Logger()}
}
