package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/test/harness"
)

// smallDisk mounts a file system of a few MiB, which only root may do.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("no small file system here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

// TestDiskFull: a node without space loses nothing and lies to nobody; with more
// space everything goes on.
func TestDiskFull(t *testing.T) {
	disk := smallDisk(t, "24m")
	s := pair(t, mysqltest.MySQL97, map[harness.Role][]string{
		harness.Node: {"node.dir=" + filepath.Join(disk, "journal"), "node.journal_file_bytes=4MiB", "log.policy.bytes_max=0"},
	})
	s.start(t)
	s.primary.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)")
	s.settle(t.Context(), t)
	const rows = 60
	for range rows {
		s.primary.Exec(t, "INSERT INTO d.t (b) VALUES (RANDOM_BYTES(1024))", "UPDATE d.t SET b = REPEAT(b, 300) ORDER BY id DESC LIMIT 1")
	}
	s.awaitLog(t, harness.Node, "no space")
	if out, err := exec.Command("mount", "-o", "remount,size=512m", disk).CombinedOutput(); err != nil {
		t.Fatalf("remount: %v: %s", err, out)
	}
	for _, r := range harness.Roles() {
		if pid, _ := s.pipeline.Process(r); pid == 0 { // giving up loudly is allowed
			s.start(t)
		}
	}
	s.settle(t.Context(), t)
	want := s.primary.Value(t, "SELECT SHA2(GROUP_CONCAT(CRC32(b) ORDER BY id), 256) FROM d.t")
	if got := s.target.Value(t, "SELECT SHA2(GROUP_CONCAT(CRC32(b) ORDER BY id), 256) FROM d.t"); got != want {
		t.Error("the rows differ")
	}
	s.audit(t.Context(), t)
}

// TestDamagedJournal: bytes that rot in the journal stop whoever needs them; no
// reader ever skips them or gets something else.
func TestDamagedJournal(t *testing.T) {
	s := pair(t, mysqltest.MySQL97, nil)
	s.start(t)
	s.primary.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(40))", "INSERT INTO d.t VALUES (0, 'before')")
	s.settle(t.Context(), t)
	if err := s.pipeline.Kill(harness.Consumer); err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{"1, 'good'", "2, 'the-row-that-rots'", "3, 'behind it'", "4, 'behind it'"} {
		s.primary.Exec(t, "INSERT INTO d.t VALUES ("+row+")")
		s.awaitLogged(t) // in an entry of its own
	}
	if err := s.pipeline.Kill(harness.Node); err != nil {
		t.Fatal(err)
	}
	s.damage(t, "the-row-that-rots")
	for _, r := range harness.Roles() {
		if err := s.pipeline.Start(t.Context(), r); err != nil {
			t.Logf("%s: %v", r, err) // refusing to start is allowed
		}
	}
	told := func() bool {
		for _, r := range harness.Roles() {
			for _, w := range []string{"damage", "corrupt", "suspect", "CRC", "checksum"} {
				if strings.Contains(s.pipeline.Log(r, 200), w) {
					return true
				}
			}
		}
		return false
	}
	for end := time.Now().Add(30 * time.Second); !told(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody has said that the journal is damaged")
		}
	}
	time.Sleep(2 * time.Second)
	if got := s.target.Value(t, "SELECT COUNT(*) FROM d.t WHERE id >= 2"); got != "0" {
		t.Errorf("%s rows came from behind the damage", got)
	}
	if got := s.target.Value(t, "SELECT v FROM d.t WHERE id = 0"); got != "before" {
		t.Errorf("the row before it is %q", got)
	}
}

// awaitLogged returns when the log has everything that the primary committed.
func (s *scene) awaitLogged(t *testing.T) {
	t.Helper()
	set, err := s.primary.GTIDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		a, err := s.pipeline.Audit(t.Context(), set)
		if err == nil && len(a.Lost) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the log lacks %v (%v)", a.Lost, err)
		}
	}
}

// damage flips a bit of the words, wherever the journal has them.
func (s *scene) damage(t *testing.T, words string) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(s.pipeline.JournalDir(), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at := strings.Index(string(b), words)
		if at < 0 {
			return nil
		}
		n++
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte{b[at] ^ 0x10}, int64(at))
		return err
	})
	if err != nil || n == 0 {
		t.Fatalf("%d places damaged: %v", n, err)
	}
}
