package binlog

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

func TestTemporal(t *testing.T) {
	type format func(dst, b []byte, scale int) ([]byte, error)
	plain := func(f func(dst, b []byte) ([]byte, error)) format {
		return func(dst, b []byte, _ int) ([]byte, error) { return f(dst, b) }
	}
	for _, tc := range []struct {
		name   string
		format format
		stored string
		scale  int
		want   string // empty: damaged
	}{
		{"date", plain(appendDate), "5dd00f", 0, "2024-02-29"},
		{"zero date", plain(appendDate), "000000", 0, "0000-00-00"},
		{"month 13", plain(appendDate), "a1d10f", 0, ""},
		{"year 16383", plain(appendDate), "21fe7f", 0, ""},
		{"time", appendTime, "80c8b8", 0, "12:34:56"},
		{"no time", appendTime, "800000", 0, "00:00:00"},
		{"no time with fraction", appendTime, "800000000000", 6, "00:00:00.000000"},
		{"smallest negative time", appendTime, "7fffffffffff", 6, "-00:00:00.000001"},
		{"hundredths, from the sources", appendTime, "7fffffff", 2, "-00:00:00.01"},
		{"hundredths, whole second", appendTime, "7fffff00", 2, "-00:00:01.00"},
		{"hundredths, two seconds", appendTime, "7ffffef6", 2, "-00:00:01.10"},
		{"one digit", appendTime, "8000005a", 1, "00:00:00.9"},
		{"minute 61", appendTime, "800f40", 0, ""},
		{"fraction too large", appendTime, "800000ff", 2, ""},
		{"hours 900", appendTime, "b84000", 0, ""},
		{"datetime", appendDateTime, "99b2bac8b8", 0, "2024-02-29 12:34:56"},
		{"zero datetime", appendDateTime, "8000000000", 0, "0000-00-00 00:00:00"},
		{"datetime before the offset", appendDateTime, "7fffffffff", 0, ""},
		{"second 61", appendDateTime, "99b2bac8bd", 0, ""},
		{"timestamp", appendTimestamp, "65e07b80", 0, "2024-02-29 12:41:36"},
		{"timestamp beyond 2038", appendTimestamp, "ffffffff", 0, "2106-02-07 06:28:15"},
		{"zero timestamp", appendTimestamp, "00000000000000", 6, "0000-00-00 00:00:00.000000"},
		{"timestamp fraction too large", appendTimestamp, "65e07b80ffffff", 6, ""},
		{"old time", plain(appendOldTime), "40e201", 0, "12:34:56"},
		{"old negative time", plain(appendOldTime), "c01dfe", 0, "-12:34:56"},
		{"old time of 99 minutes", plain(appendOldTime), "ac2600", 0, ""},
		{"old datetime", plain(appendOldDateTime), "80c5aa8b68120000", 0, "2024-02-29 12:34:56"},
		{"old datetime too large", plain(appendOldDateTime), "ffffffffffffffff", 0, ""},
	} {
		b, err := hex.DecodeString(tc.stored)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tc.format(nil, b, tc.scale)
		switch {
		case tc.want == "" && !errors.Is(err, ErrDamaged):
			t.Errorf("%s: %s, %v, want ErrDamaged", tc.name, got, err)
		case tc.want != "" && (err != nil || string(got) != tc.want):
			t.Errorf("%s: %s, %v, want %s", tc.name, got, err, tc.want)
		}
	}
}

// TestUnixTimes: every day a TIMESTAMP can hold, at some second of it, is the one
// that the time package makes of it.
func TestUnixTimes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for day := range int64(1<<32) / 86400 {
		for _, second := range []int64{0, 86399, r.Int64N(86400)} {
			at := day*86400 + second
			if at == 0 {
				continue // the zero timestamp
			}
			got, want := string(appendUnix(nil, uint32(at), 0, 0)), time.Unix(at, 0).UTC().Format(time.DateTime)
			if got != want {
				t.Fatalf("%d: %s, want %s", at, got, want)
			}
		}
	}
}
