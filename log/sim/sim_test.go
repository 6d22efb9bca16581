package sim

import (
	"os"
	"strconv"
	"testing"
)

func TestOne(t *testing.T) {
	seeds := 1000
	if s := os.Getenv("SEED"); s != "" {
		n, _ := strconv.ParseUint(s, 10, 64)
		r := Run(Config{Seed: n, Events: 20000, Trace: os.Stdout})
		t.Logf("%+v", r)
		return
	}
	bad := 0
	for i := range seeds {
		r := Run(Config{Seed: uint64(i), Events: 20000})
		if r.Violation != nil {
			t.Errorf("seed %d (%s): %v", i, r.Layout, r.Violation)
			if bad++; bad > 6 {
				return
			}
		}
		if i < 10 {
			t.Logf("%+v", r)
		}
	}
}
