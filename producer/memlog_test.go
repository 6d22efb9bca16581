package producer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/log"
)

// memLog is the simplest Log with one stream: what is appended is confirmed at
// once. With a file behind it, it survives the process. It can be told to fail.
type memLog struct {
	mu      sync.Mutex
	entries []log.Entry
	epoch   log.Epoch
	exists  bool
	changed chan struct{} // closed and replaced at each append
	file    *os.File
	// fail is asked before an entry is stored: an error, and whether the entry
	// is stored all the same.
	fail func(log.Draft) (error, bool)
	slow time.Duration // per confirmation
	// forget drops payloads once they are in the file.
	forget bool
	// refuse makes OpenWriter fail.
	refuse error
}

func newMemLog() *memLog { return &memLog{changed: make(chan struct{})} }

// openFileLog reads and repairs the file, and locks it.
func openFileLog(path string) (*memLog, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			break
		}
		if time.Since(start) > 10*time.Second {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
	l := newMemLog()
	l.file, l.exists = f, true
	end := int64(0)
	for {
		var head [20]byte
		if _, err := io.ReadFull(f, head[:]); err != nil {
			break
		}
		n := binary.LittleEndian.Uint32(head[:])
		if n > log.MaxPayload {
			break
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(f, payload); err != nil {
			break
		}
		if crc32.ChecksumIEEE(payload) != binary.LittleEndian.Uint32(head[4:]) {
			break
		}
		l.entries = append(l.entries, log.Entry{
			Offset: log.Offset(len(l.entries)), Epoch: log.Epoch(binary.LittleEndian.Uint64(head[8:])),
			Topic: log.Topic(binary.LittleEndian.Uint16(head[16:])), EndsTransaction: head[18] == 1, Payload: payload,
		})
		l.epoch = l.entries[len(l.entries)-1].Epoch
		end += int64(len(head)) + int64(n)
	}
	if err := f.Truncate(end); err != nil {
		return nil, err
	}
	_, err = f.Seek(end, io.SeekStart)
	return l, err
}

func (l *memLog) bounds() log.Bounds {
	b := log.Bounds{LAC: log.Offset(len(l.entries)) - 1, LSO: log.None, Epoch: l.epoch}
	for i := len(l.entries) - 1; i >= 0; i-- {
		if l.entries[i].EndsTransaction {
			b.LSO = log.Offset(i)
			break
		}
	}
	return b
}

func (l *memLog) OpenWriter(_ context.Context, _ string) (log.Writer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return nil, l.refuse
	}
	l.exists = true
	l.epoch++
	return &memWriter{l: l, epoch: l.epoch}, nil
}

func (l *memLog) Bounds(context.Context, string) (log.Bounds, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.exists {
		return log.Bounds{}, log.ErrNoStream
	}
	return l.bounds(), nil
}

func (l *memLog) OpenReader(_ context.Context, _ string, o log.ReaderOptions) (log.Reader, error) {
	return &memReader{l: l, o: o, at: o.From}, nil
}

func (l *memLog) Streams(context.Context) ([]string, error)             { return []string{"s"}, nil }
func (l *memLog) Cursors(context.Context, string) ([]log.Cursor, error) { return nil, nil }
func (l *memLog) StoreCursor(context.Context, string, log.Cursor) error { return nil }
func (l *memLog) Close() error                                          { return nil }

// all is a copy of what is stored.
func (l *memLog) all() []log.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

type memWriter struct {
	l     *memLog
	epoch log.Epoch
	dead  error
}

func (w *memWriter) Epoch() log.Epoch { return w.epoch }

func (w *memWriter) Bounds() log.Bounds {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	return w.l.bounds()
}

func (w *memWriter) Append(_ context.Context, d log.Draft) (log.Offset, error) {
	l := w.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.dead != nil {
		return 0, w.dead
	}
	if l.epoch != w.epoch {
		return 0, fmt.Errorf("append: %w", log.ErrFenced)
	}
	if len(d.Payload) == 0 || len(d.Payload) > log.MaxPayload {
		return 0, log.ErrTooLarge
	}
	if l.fail != nil {
		err, stored := l.fail(d)
		if err != nil {
			w.dead = err
			if stored {
				l.store(w.epoch, d)
			}
			return 0, err
		}
	}
	l.store(w.epoch, d)
	return log.Offset(len(l.entries)) - 1, nil
}

func (l *memLog) store(epoch log.Epoch, d log.Draft) {
	l.entries = append(l.entries, log.Entry{
		Offset: log.Offset(len(l.entries)), Topic: d.Topic, Epoch: epoch, AppendedAt: time.Now().UTC(),
		EndsTransaction: d.EndsTransaction, Payload: d.Payload,
	})
	close(l.changed)
	l.changed = make(chan struct{})
	if l.file == nil {
		return
	}
	head := make([]byte, 20, 20+len(d.Payload))
	binary.LittleEndian.PutUint32(head, uint32(len(d.Payload)))
	binary.LittleEndian.PutUint32(head[4:], crc32.ChecksumIEEE(d.Payload))
	binary.LittleEndian.PutUint64(head[8:], uint64(epoch))
	binary.LittleEndian.PutUint16(head[16:], uint16(d.Topic))
	if d.EndsTransaction {
		head[18] = 1
	}
	if _, err := l.file.Write(append(head, d.Payload...)); err != nil {
		panic(err)
	}
	if l.forget {
		l.entries[len(l.entries)-1].Payload = nil
	}
}

func (w *memWriter) Wait(ctx context.Context, o log.Offset) (log.Ack, error) {
	if w.l.slow > 0 {
		select {
		case <-ctx.Done():
			return log.Ack{}, ctx.Err()
		case <-time.After(w.l.slow):
		}
	}
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	if w.dead != nil {
		return log.Ack{}, w.dead
	}
	return log.Ack{Offset: o, Protected: true}, nil
}

func (w *memWriter) Close() error { return nil }

type memReader struct {
	l  *memLog
	o  log.ReaderOptions
	at log.Offset
}

func (r *memReader) Next(ctx context.Context) (log.Entry, error) {
	for {
		r.l.mu.Lock()
		last, changed := r.l.bounds().LAC, r.l.changed
		if r.o.Committed {
			last = r.l.bounds().LSO
		}
		for r.at <= last {
			e := r.l.entries[r.at]
			r.at++
			if len(r.o.Topics) == 0 || slices.Contains(r.o.Topics, e.Topic) {
				r.l.mu.Unlock()
				return e, nil
			}
		}
		r.l.mu.Unlock()
		select {
		case <-ctx.Done():
			return log.Entry{}, ctx.Err()
		case <-changed:
		}
	}
}

func (r *memReader) Bounds() log.Bounds { return log.Bounds{} }
func (r *memReader) Close() error       { return nil }

var errInjected = errors.New("injected")
