package segment_test

import (
	"testing"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
)

// TestCompressions: what one compression has written is read under every
// other.
func TestCompressions(t *testing.T) {
	disk := vfs.NewDisk()
	c := imageConfig(disk)
	c.JournalBytes, c.ClosedMax = 128<<10, 1
	first, number := log.Offset(0), uint32(0)
	ends := map[uint32]log.Offset{}
	for _, way := range []segment.Compression{segment.S2, segment.Zstd, segment.Plain, segment.S2} {
		c.FS, c.Compression = disk, way
		o := open(t, c)
		archived := o.Stats().Archived
		for range 3 {
			number++
			w := o.attach(describe("a", number, first, first-1, 1, 1), 1)
			fill(t, w, 200)
			if err := w.end(); err != nil {
				t.Fatal(err)
			}
			ends[number], first = w.next-1, w.next
		}
		await(t, func() bool { return o.Stats().Archived >= archived+2 })
		for n, from := uint32(1), log.Offset(0); n <= number; n++ {
			expect(t, o.replica("a", n), segment.Query{}, from, ends[n])
			from = ends[n] + 1
		}
		if err := o.stop(); err != nil {
			t.Fatal(err)
		}
		disk = disk.Restart()
	}
}
