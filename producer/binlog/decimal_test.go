package binlog

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
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

// storedDecimal is the stored form of digits (precision of them, scale behind the
// point), written from the format's description and nothing else.
func storedDecimal(negative bool, digits string, scale int) []byte {
	var b []byte
	group := func(s string) {
		n, _ := strconv.ParseUint(s, 10, 32)
		size := []int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4}[len(s)]
		for i := size - 1; i >= 0; i-- {
			b = append(b, byte(n>>(8*i)))
		}
	}
	whole := digits[:len(digits)-scale]
	if odd := len(whole) % 9; odd > 0 {
		group(whole[:odd])
		whole = whole[odd:]
	}
	for ; whole != ""; whole = whole[9:] {
		group(whole[:9])
	}
	for rest := digits[len(digits)-scale:]; rest != ""; {
		n := min(len(rest), 9)
		group(rest[:n])
		rest = rest[n:]
	}
	if negative {
		for i := range b {
			b[i] ^= 0xff
		}
	}
	b[0] ^= 0x80
	return b
}

// TestDecimalsAgainstAModel: random numbers of every precision and scale.
func TestDecimalsAgainstAModel(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for precision := 1; precision <= 65; precision++ {
		for scale := range min(precision, 38) + 1 {
			for range 20 {
				d := make([]byte, precision)
				zeros := r.IntN(precision + 1) // as many leading zeros as it may be
				for i := range d {
					if d[i] = '0'; i >= zeros && r.IntN(3) > 0 {
						d[i] += byte(r.IntN(10))
					}
				}
				digits, negative := string(d), r.IntN(2) == 0
				stored := storedDecimal(negative, digits, scale)
				want := strings.TrimLeft(digits[:precision-scale], "0")
				if want == "" {
					want = "0"
				}
				if scale > 0 {
					want += "." + digits[precision-scale:]
				}
				if negative && strings.Trim(digits, "0") != "" {
					want = "-" + want
				}
				if got, err := appendDecimal([]byte("x"), stored, precision, scale); err != nil || string(got) != "x"+want {
					t.Fatalf("decimal(%d,%d) %x: %s, %v, want %s (seed %d)", precision, scale, stored, got, err, want, seed)
				}
			}
		}
	}
}

func TestAppendPadded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for width := range 10 {
		for range 1000 {
			n := r.Uint32N(pow10[width])
			want := fmt.Sprintf("x%0*d", width, n)
			if width == 0 {
				want = "x"
			}
			if got := string(appendPadded([]byte("x"), n, width)); got != want {
				t.Fatalf("%d in %d digits: %s", n, width, got)
			}
		}
	}
}
