// Package cli is what the verbs of the command line have in common: exit codes,
// errors with a hint, and output as a table, JSON or YAML.
package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/term"
)

// Exit codes. They are part of the interface: scripts depend on them.
const (
	ExitOK          = 0
	ExitError       = 1 // anything that has no code of its own
	ExitUsage       = 2 // wrong arguments or configuration; nothing was started
	ExitDifferences = 3 // verify, schema diff, doctor: something is not as it must be
	ExitUnsafe      = 4 // refused, because it could lose or corrupt data
	ExitUnreachable = 5 // a server, the log or the process can't be reached
)

// Error is an error with an exit code, and a hint on what to do.
type Error struct {
	Code int
	Err  error
	Hint string
	// Quiet says that all there is to say has been printed.
	Quiet bool
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit %d", e.Code)
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Fail makes an Error; the hint may be empty.
func Fail(code int, err error, hint string) error { return &Error{Code: code, Err: err, Hint: hint} }

// Usage is a mistake in the arguments.
func Usage(format string, args ...any) error {
	return &Error{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// Exit ends with a code after everything was printed.
func Exit(code int) error { return &Error{Code: code, Quiet: true} }

// Report prints an error as one line and a hint, and returns the exit code.
func Report(w io.Writer, err error) int {
	if err == nil {
		return ExitOK
	}
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Code: ExitError}
	}
	if !e.Quiet {
		fmt.Fprintln(w, "twinspan: "+OneLine(strings.ReplaceAll(err.Error(), "\n", "; ")))
		if e.Hint != "" {
			fmt.Fprintln(w, "hint: "+OneLine(e.Hint))
		}
	}
	return e.Code
}

// OneLine folds all white space and drops control characters, so that what a
// server said can't break out of its line.
func OneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
}

// Format of the output.
type Format string

// The formats.
const (
	Table Format = "table"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// ParseFormat checks a format's name.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case Table, JSON, YAML:
		return f, nil
	}
	return "", Usage("unknown output format %q: use table, json or yaml", s)
}

// Printer writes results.
type Printer struct {
	Out    io.Writer
	Format Format
	Color  bool
	// Width bounds lines of tables in columns; 0 does not.
	Width int
}

// NewPrinter writes to out; colour and width are the terminal's.
func NewPrinter(out io.Writer, f Format) *Printer {
	p := &Printer{Out: out, Format: f}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		p.Color = ColorWanted()
		if w, _, err := term.GetSize(int(file.Fd())); err == nil {
			p.Width = w
		}
	}
	return p
}

// ColorWanted says whether the environment allows colour on a terminal.
func ColorWanted() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }

// Print writes v as JSON or YAML, or calls human for people. The JSON form of v
// is the interface; YAML has the same keys.
func (p *Printer) Print(v any, human func() error) error {
	if p.Format == Table {
		return human()
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if p.Format == YAML {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return err
		}
		_, err = p.Out.Write(b)
		return err
	}
	_, err = p.Out.Write(append(b, '\n'))
	return err
}

// Printf writes text for people.
func (p *Printer) Printf(format string, args ...any) { fmt.Fprintf(p.Out, format, args...) }

// Rows writes a table with a header and no frame, as other tools of this kind do.
func (p *Printer) Rows(header []string, rows [][]string) {
	t := table.NewWriter()
	t.SetOutputMirror(p.Out)
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Format.Header = text.FormatDefault
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	t.SetStyle(style)
	if p.Width > 0 {
		t.Style().Size.WidthMax = p.Width
	}
	t.SuppressTrailingSpaces()
	t.AppendHeader(toRow(header, strings.ToUpper))
	for _, r := range rows {
		t.AppendRow(toRow(r, nil))
	}
	t.Render()
}

func toRow(cells []string, f func(string) string) table.Row {
	row := make(table.Row, len(cells))
	for i, c := range cells {
		if f != nil {
			c = f(c)
		}
		row[i] = c
	}
	return row
}

// Paint colours a word where colour is on: "red", "green", "yellow", "bold".
func (p *Printer) Paint(color, s string) string {
	if !p.Color {
		return s
	}
	codes := map[string]string{"red": "31", "green": "32", "yellow": "33", "bold": "1", "faint": "2"}
	return "\x1b[" + codes[color] + "m" + s + "\x1b[0m"
}
