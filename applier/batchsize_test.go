package applier

import "testing"

// TestUneven: batches that follow each other are limited to different sizes, none of
// them below half of what it may be, nor empty.
func TestUneven(t *testing.T) {
	a := &Applier{}
	const rows = 4000
	sum, before := 0, 0
	for range 1000 {
		n := a.uneven(rows)
		if n < rows/2 || n > rows || n-before < rows/20 && before-n < rows/20 {
			t.Fatalf("%d after %d", n, before)
		}
		sum, before = sum+n, n
	}
	if mean := sum / 1000; mean < rows*7/10 || mean > rows*8/10 {
		t.Errorf("mean %d of %d", mean, rows)
	}
	if n := a.uneven(1); n != 1 {
		t.Errorf("%d of 1", n)
	}
}
