package producer

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// TestLargeTransaction: a producer process reads one UPDATE of a million rows in
// bounded memory, plain and compressed.
func TestLargeTransaction(t *testing.T) {
	if testing.Short() {
		t.Skip("a million rows take half a minute")
	}
	const rows, residentMax = 1 << 20, 256 << 20
	for _, c := range []struct {
		name   string
		flavor mysqltest.Flavor
		option mysqltest.Option
	}{
		{"plain", mysqltest.MySQL97, mysqltest.With("binlog-transaction-compression", "OFF")},
		{"compressed", mysqltest.MySQL97, mysqltest.With("binlog-transaction-compression", "ON")},
		{"plain", mysqltest.MariaDB118, mysqltest.With("log-bin-compress", "OFF")},
	} {
		t.Run(string(c.flavor)+"/"+c.name, func(t *testing.T) {
			srv := mysqltest.Start(t, c.flavor, c.option)
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, n INT NOT NULL, a VARCHAR(50), b VARCHAR(50), at DATETIME(6))",
				"INSERT INTO d.t (n,a,b,at) VALUES (1,'abcdefghijklmnopqrstuvwxyz','0123456789',NOW(6))")
			for range 20 {
				srv.Exec(t, "INSERT INTO d.t (n,a,b,at) SELECT n+1, UUID(), HEX(RAND()), NOW(6) FROM d.t")
			}
			path := filepath.Join(t.TempDir(), "log")
			t.Setenv(childForget, "1")
			srv.Exec(t, "UPDATE d.t SET n=n+1")
			child, out := spawnChild(t, srv.Address, path)
			start := time.Now()
			defer func() {
				_ = child.Process.Kill()
				_ = child.Wait()
			}()
			size := int64(0)
			eventually(t, "the log stands still", func() bool {
				time.Sleep(1500 * time.Millisecond)
				st, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				same := st.Size() == size && size > 0
				size = st.Size()
				return same
			})
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			took := st.ModTime().Sub(start)
			resident := peak(t, child.Process.Pid)
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			l, err := openFileLog(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.file.Close() }()
			updates, parts, largest := count(t, l.all())
			t.Logf("rows=%d parts=%d largest_entry_bytes=%d log_bytes=%d peak_resident_mib=%d seconds=%.1f", updates, parts, largest, size, resident>>20, took.Seconds())
			if updates != rows {
				t.Errorf("%d updates in the log, want %d: %s", updates, rows, out)
			}
			if resident > residentMax {
				t.Errorf("the producer took %d MiB, at most %d are allowed", resident>>20, residentMax>>20)
			}
		})
	}
}

// peak is the largest resident set a process ever had, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatal("no VmHWM")
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// count reads every row, and checks that an update added one to n.
func count(t *testing.T, entries []log.Entry) (updates, parts, largest int) {
	t.Helper()
	tables := schema.NewRegistry(0)
	codecs := change.NewCodecs(tables)
	for _, e := range entries {
		largest = max(largest, len(e.Payload))
		if e.Topic != log.TopicData {
			if _, err := tables.AddEntry(e.Payload); err != nil {
				t.Fatal(err)
			}
			continue
		}
		r, err := change.NewBatchReader(e.Payload, codecs)
		if err != nil {
			t.Fatal(err)
		}
		var tx change.Transaction
		for more := true; more; {
			if more, err = r.Next(&tx); err != nil {
				t.Fatal(err)
			}
			if more && (tx.Continued || tx.Continues) {
				parts++
			}
			var row change.Row
			for more {
				ok, err := r.NextRow(&row)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				if row.Op == change.Update {
					if updates++; row.After[1].Integer() != row.Before[1].Integer()+1 {
						t.Fatalf("%s becomes %s", texts(row.Before), texts(row.After))
					}
				}
			}
		}
	}
	return updates, parts, largest
}
