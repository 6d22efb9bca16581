package main

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
)

func init() {
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000000Z07:00"
	zerolog.TimestampFunc = func() time.Time { return time.Now().UTC() }
	zerolog.DurationFieldUnit = time.Millisecond
}

// newLogger writes to w: JSON, or lines for people on a terminal.
func newLogger(w io.Writer, c config.Logging) zerolog.Logger {
	f, isFile := w.(*os.File)
	terminal := isFile && term.IsTerminal(int(f.Fd()))
	if c.Format == "console" || c.Format == "auto" && terminal {
		w = zerolog.ConsoleWriter{Out: w, NoColor: !terminal || !cli.ColorWanted(), TimeFormat: "15:04:05.000", TimeLocation: time.UTC}
	}
	setLevel(c)
	return zerolog.New(w).With().Timestamp().Logger()
}

// setLevel applies the level to all loggers of the process.
func setLevel(c config.Logging) {
	level, err := zerolog.ParseLevel(c.Level)
	if err != nil {
		level = zerolog.InfoLevel // the configuration was checked
	}
	zerolog.SetGlobalLevel(level)
}
