package segment_test

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/twinspan/twinspan/log/vfs"
)

// TestStaleCopyIsWrittenFirst cuts the power between the two copies of the meta.
// The next process rests on the newer one: until the older one is as new, a torn
// write must not hit the newer one, or the state of before comes back.
func TestStaleCopyIsWrittenFirst(t *testing.T) {
	disk := vfs.NewDisk()
	o := open(t, imageConfig(disk))
	o.attach(describe("s", 1, 0, -1, 1, 1), 1)
	var mu sync.Mutex
	var cut *vfs.Disk
	first := ""
	disk.SetAfter(func(op vfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		if cut == nil && op.Kind == vfs.OpSync && strings.Contains(op.Name, "/meta.") {
			first = op.Name
			cut = disk.Image(rand.New(rand.NewPCG(1, 1)))
		}
	})
	if err := o.SetGeneration(ctx, 7); err != nil {
		t.Fatal(err)
	}
	disk.SetAfter(nil)
	mu.Lock()
	defer mu.Unlock()
	if cut == nil {
		t.Fatal("no copy of the meta was synced")
	}
	written := ""
	cut.SetHook(func(op vfs.Op) vfs.Fault {
		if written == "" && op.Kind == vfs.OpWrite && strings.Contains(op.Name, "/meta.") {
			written = op.Name
		}
		return vfs.Fault{}
	})
	next := open(t, imageConfig(cut))
	if g := next.Generation(); g != 7 {
		t.Fatalf("generation %d: the newer copy was not read", g)
	}
	if written == "" || written == first {
		t.Fatalf("%q is written first, which was the only new one", written)
	}
}
