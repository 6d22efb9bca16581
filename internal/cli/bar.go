package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Bar shows how far long work is: a line that is drawn over on a terminal, a
// plain line every few seconds elsewhere. It is safe for concurrent use.
type Bar struct {
	out      io.Writer
	terminal bool
	every    time.Duration

	mu    sync.Mutex
	last  time.Time // when a line was last written
	width int       // of the line on the terminal
}

// NewBar writes to out, best standard error.
func NewBar(out io.Writer) *Bar {
	// The first line comes after a while: what is quick needs none.
	b := &Bar{out: out, every: 5 * time.Second, last: time.Now()}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		b.terminal, b.every = true, 100*time.Millisecond
	}
	return b
}

// Show draws the state: done of total (0: not known) and what is being done.
func (b *Bar) Show(done, total int64, what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.last) < b.every {
		return
	}
	b.last = time.Now()
	line := what
	if total > 0 {
		part := min(float64(done)/float64(total), 1)
		const cells = 24
		full := int(part * cells)
		line = fmt.Sprintf("[%s%s] %3.0f%% %s", strings.Repeat("=", full), strings.Repeat(" ", cells-full), part*100, what)
	}
	if !b.terminal {
		fmt.Fprintln(b.out, line)
		return
	}
	pad := max(0, b.width-len([]rune(line)))
	b.width = len([]rune(line))
	fmt.Fprint(b.out, "\r"+line+strings.Repeat(" ", pad))
}

// Clear takes the line off the terminal.
func (b *Bar) Clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.terminal && b.width > 0 {
		fmt.Fprint(b.out, "\r"+strings.Repeat(" ", b.width)+"\r")
		b.width = 0
	}
}
