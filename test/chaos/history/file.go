package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Recorder writes the history of one process. Each record is one write to the
// file: what was written survives the process.
type Recorder struct {
	process string
	file    *os.File

	mu  sync.Mutex
	ops int64
	err error
}

// Ext of history files.
const Ext = ".history"

// Create opens dir/process.history, which must not exist: names are not reused.
func Create(dir, process string) (*Recorder, error) {
	f, err := os.OpenFile(filepath.Join(dir, process+Ext), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &Recorder{process: process, file: f}, nil
}

// Op is a new operation's number.
func (r *Recorder) Op() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops++
	return r.ops
}

// Put writes the record with the process's name and, unless it has one, the
// present time, which it returns. A failure is kept for Close: a history with
// holes proves nothing.
func (r *Recorder) Put(rec Record) int64 {
	rec.Process = r.process
	if rec.At == 0 {
		rec.At = Now()
	}
	line, err := json.Marshal(rec)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		_, err = r.file.Write(append(line, '\n'))
	}
	if err != nil {
		r.err = errors.Join(r.err, err)
	}
	return rec.At
}

// Close fails when any record could not be written.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.err, r.file.Close())
}

// Load reads all histories of a directory into one, in the order of time. A last
// line that was cut off by a kill is passed over; any other bad line is an error.
func Load(dir string) ([]Record, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+Ext))
	if err != nil {
		return nil, err
	}
	var all []Record
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		records, err := Parse(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, records...)
	}
	Sort(all)
	return all, nil
}

// Sort brings records into the order of time. Those of one process stay in the
// order in which it wrote them.
func Sort(all []Record) {
	slices.SortStableFunc(all, func(a, b Record) int {
		if a.At != b.At {
			if a.At < b.At {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Process, b.Process)
	})
}

// Parse reads one process's history.
func Parse(in io.Reader) ([]Record, error) {
	var out []Record
	r := bufio.NewReaderSize(in, 1<<20)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return out, nil // what stands behind the last newline was cut off
		}
		if err != nil {
			return nil, err
		}
		var rec Record
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&rec); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		out = append(out, rec)
	}
}
