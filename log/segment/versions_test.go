package segment_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
)

// patch changes bytes of a file.
func patch(t *testing.T, disk *vfs.Disk, name string, change func(b []byte)) {
	t.Helper()
	b := bytes.Clone(disk.Bytes(name))
	change(b)
	f, err := disk.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// files lists those in a directory and below whose names end so.
func files(t *testing.T, disk *vfs.Disk, dir, end string) (out []string) {
	t.Helper()
	list, err := disk.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range list {
		name := dir + "/" + x.Name
		if x.Dir {
			out = append(out, files(t, disk, name, end)...)
		} else if strings.HasSuffix(name, end) {
			out = append(out, name)
		}
	}
	return out
}

// age makes a directory one of format 2, as the release before wrote it.
func age(t *testing.T, disk *vfs.Disk) {
	t.Helper()
	le, table := binary.LittleEndian, crc32.MakeTable(crc32.Castagnoli)
	for _, name := range []string{"/log/meta.a", "/log/meta.b"} {
		patch(t, disk, name, func(b []byte) { copy(b, bytes.Replace(b[:64], []byte(" 3 0.3 "), []byte(" 2 0.2 "), 1)) })
	}
	for _, name := range files(t, disk, "/log", ".twj") {
		patch(t, disk, name, func(b []byte) {
			for at := 0; at <= 4096; at += 4096 {
				h := b[at : at+128]
				le.PutUint32(h[8:], 2)
				copy(h[96:112], "0.2")
				le.PutUint32(h[12:], 0)
				le.PutUint32(h[12:], crc32.Checksum(h, table))
			}
		})
	}
	for _, name := range files(t, disk, "/log", ".tws") {
		patch(t, disk, name, func(b []byte) {
			for _, at := range []int{0, len(b) - 96} {
				p := b[at : at+96]
				le.PutUint32(p[8:], 2)
				copy(p[16:32], "0.2")
				le.PutUint32(p[12:], crc32.Checksum(p[16:], table))
			}
		})
	}
}

// formats tells the versions that a directory's files have, its meta and own files.
func formats(t *testing.T, disk *vfs.Disk) (metas []string, own map[string]uint32) {
	t.Helper()
	for _, name := range []string{"/log/meta.a", "/log/meta.b"} {
		metas = append(metas, strings.Join(strings.Fields(string(disk.Bytes(name)[:64]))[:3], " "))
	}
	own = map[string]uint32{}
	for _, name := range files(t, disk, "/log", ".tws") {
		own[name] = binary.LittleEndian.Uint32(disk.Bytes(name)[8:])
	}
	return metas, own
}

// TestFormatBefore: a directory of format 2 is read and gone on with. From the first
// moment on its meta says that it takes a newer release, because a file with blocks
// that the one before does not know looks damaged to it, and would be repaired away.
func TestFormatBefore(t *testing.T) {
	disk := vfs.NewDisk()
	c := imageConfig(disk)
	c.JournalBytes, c.ClosedMax, c.Compression = 128<<10, 1, segment.Zstd // that release's
	number, first := uint32(0), log.Offset(0)
	write := func(o *opened) {
		t.Helper()
		archived := o.Stats().Archived
		for range 3 {
			number++
			w := o.attach(describe("a", number, first, first-1, 1, 1), 1)
			fill(t, w, 200)
			if err := w.end(); err != nil {
				t.Fatal(err)
			}
			first = w.next
		}
		await(t, func() bool { return o.Stats().Archived >= archived+2 })
	}
	o := open(t, c)
	write(o)
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	disk = disk.Restart()
	age(t, disk)
	metas, before := formats(t, disk)
	if metas[0] != "twinspan-log-meta 2 0.2" || metas[1] != metas[0] || len(before) < 2 {
		t.Fatalf("the directory is not of format 2: %q, %v", metas, before)
	}
	c.FS, c.Compression = disk, segment.S2
	o = open(t, c)
	if metas, _ := formats(t, disk); metas[0] != "twinspan-log-meta 3 0.3" || metas[1] != metas[0] {
		t.Fatalf("open, the meta says %q", metas)
	}
	write(o)
	for n := uint32(1); n <= number; n++ {
		from := log.Offset(n-1) * 200
		expect(t, o.replica("a", n), segment.Query{}, from, from+199)
	}
	if s := o.Stats(); s.Suspect > 0 {
		t.Fatalf("%d replicas are suspect", s.Suspect)
	}
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	_, own := formats(t, disk)
	if len(own) <= len(before) {
		t.Fatalf("no file was added: %v", own)
	}
	for name, v := range own {
		if _, old := before[name]; !old && v != 3 {
			t.Errorf("%s is of format %d", name, v)
		}
	}
}
