package history

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPayloads(t *testing.T) {
	for _, size := range []int{0, PayloadMin, PayloadMin + 1, 1000, 4099} {
		b := Payload(ID("w1.2", 77), size)
		if id, err := ParsePayload(b); err != nil || id != "w1.2/77" {
			t.Fatalf("size %d: %q, %v", size, id, err)
		}
		for i := range b {
			b[i] ^= 1
			if id, err := ParsePayload(b); err == nil {
				t.Fatalf("size %d: byte %d is wrong, taken for %q", size, i, id)
			}
			b[i] ^= 1
		}
		if _, err := ParsePayload(b[:len(b)-1]); err == nil {
			t.Fatal("a payload that was cut off is taken")
		}
	}
	if ProcessOf("w1.2/77") != "w1.2" {
		t.Error("process of an ID")
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"a", "b"} {
		r, err := Create(dir, p)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			r.Put(Record{Op: r.Op(), Kind: Append, Stream: "s"})
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(dir, p); err == nil {
			t.Error("a name is used twice")
		}
	}
	torn, err := os.OpenFile(filepath.Join(dir, "b"+Ext), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := torn.WriteString(`{"t":1,"p":"b","k":"app`); err != nil {
		t.Fatal(err)
	}
	if err := torn.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := Load(dir)
	if err != nil || len(all) != 6 {
		t.Fatalf("%d records, %v", len(all), err)
	}
	for i := 1; i < len(all); i++ {
		if all[i].At < all[i-1].At {
			t.Error("not in the order of time")
		}
	}
	if _, err := Parse(strings.NewReader("{\"t\":1}\nrubbish\n{\"t\":2}\n")); err == nil {
		t.Error("a bad line is passed over")
	}
}
