package binlog

import (
	"encoding/hex"
	"errors"
	"testing"
)

func TestAppendDecimal(t *testing.T) {
	for _, tc := range []struct {
		precision, scale int
		stored, want     string // want empty: damaged
	}{
		{14, 4, "810dfb38d204d2", "1234567890.1234"}, // the manual's own example
		{14, 4, "7ef204c72dfb2d", "-1234567890.1234"},
		{5, 0, "800000", "0"},
		{5, 2, "8000" + "00", "0.00"},
		{5, 2, "7fff" + "ff", "0.00"}, // a zero with its sign set
		{2, 2, "8a", "0.10"},
		{2, 2, "75", "-0.10"},
		{9, 0, "bb9ac9ff", "999999999"},
		{18, 0, "8000000000000001", "1"},
		{18, 0, "8000000100000000", "1000000000"},
		{9, 0, "ffffffff", ""},          // more than nine nines
		{1, 0, "8a", ""},                // ten in one digit
		{5, 2, "8000", ""},              // short
		{10, 0, "80000000ff0000", ""},   // long
		{14, 4, "810dfb38d2ffff00", ""}, // long
	} {
		b, err := hex.DecodeString(tc.stored)
		if err != nil {
			t.Fatal(err)
		}
		got, err := appendDecimal([]byte("x"), b, tc.precision, tc.scale)
		switch {
		case tc.want == "" && !errors.Is(err, ErrDamaged):
			t.Errorf("decimal(%d,%d) %s: %s, %v, want ErrDamaged", tc.precision, tc.scale, tc.stored, got, err)
		case tc.want != "" && (err != nil || string(got) != "x"+tc.want):
			t.Errorf("decimal(%d,%d) %s: %s, %v, want %s", tc.precision, tc.scale, tc.stored, got, err, tc.want)
		}
		if after, _ := hex.DecodeString(tc.stored); string(after) != string(b) {
			t.Error("the event's bytes were changed")
		}
	}
}
