package segment_test

import (
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
)

func imageConfig(d *vfs.Disk) segment.Config {
	return segment.Config{
		Dir: "/log", Name: "a1", FileBytes: 64 << 10, GroupBytes: 16 << 10, IdleCommit: time.Millisecond,
		TidyEvery: 3 * time.Millisecond, RetryEvery: 5 * time.Millisecond, BlockBytes: 4 << 10,
		FS: d, Logger: zerolog.Nop(),
	}
}
