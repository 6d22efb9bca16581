package segment

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/vfs"
)

func TestFileHeaderCopies(t *testing.T) {
	h := fileHeader{ID: 7, Generation: 3, Salt: 9, Node: [16]byte{1, 2}, PrevID: 6, PrevEnd: 12288, Size: 1 << 20, CreatedAt: 5}
	b := make([]byte, dataStart)
	h.encode(b)
	for _, at := range []int{0, page} {
		got, err := decodeFileHeader(b[at:])
		if err != nil || got != h {
			t.Fatalf("copy at %d: %+v, %v", at, got, err)
		}
	}
	for i := range headerSize {
		bad := bytes.Clone(b[:headerSize])
		bad[i] ^= 1
		if _, err := decodeFileHeader(bad); err == nil {
			t.Fatalf("byte %d flipped: no error", i)
		}
		if _, err := decodeFileHeader(b[:i]); !errors.Is(err, errFormat) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

// TestSeed checks that bytes are only good where they were written: not at
// another place, in another file, or in another life of the file.
func TestSeed(t *testing.T) {
	h := fileHeader{ID: 7, Generation: 3, Salt: 9, Node: [16]byte{1, 2}}
	r := record{Kind: kindEntry, Length: 3, Stream: 1, Segment: 1, Offset: 5, Epoch: 2, LAC: 4, LSO: 4, Time: 1, Topic: 1}
	b := make([]byte, recordHeader)
	r.encode(b)
	stamp(b, h.seed(), 8192)
	if got, err := decodeRecord(b, h.seed(), 8192); err != nil || got != r {
		t.Fatalf("%+v, %v", got, err)
	}
	others := []fileHeader{h, h, h, h}
	others[0].ID++
	others[1].Generation++
	others[2].Salt++
	others[3].Node[0]++
	for _, o := range others {
		if _, err := decodeRecord(b, o.seed(), 8192); !errors.Is(err, errFormat) {
			t.Fatalf("valid in file %+v: %v", o, err)
		}
	}
	for at := int64(0); at < 1<<20; at += align {
		if _, err := decodeRecord(b, h.seed(), at); (err == nil) != (at == 8192) {
			t.Fatalf("at %d: %v", at, err)
		}
	}
}

func TestIndexBits(t *testing.T) {
	for _, topic := range []log.Topic{0, 1, 2, 14, 15, 16, 65535} {
		for _, ends := range []bool{false, true} {
			for _, place := range []int64{8, dataStart, FileBytesMax - align} {
				e := indexEntry(place, indexBits(topic, ends))
				if indexPlace(e) != place || indexClass(e) != topicClass(topic) || (e&endsBit != 0) != ends {
					t.Fatalf("topic %d ends %v place %d: %x", topic, ends, place, e)
				}
			}
		}
	}
}

func seedsOf(f *testing.F) {
	h := fileHeader{ID: 1}
	b := make([]byte, dataStart)
	h.encode(b)
	f.Add(b[:headerSize])
	g := groupHead{Sequence: 1, Length: page, Records: 1, Touched: []touch{{1, 1, 0, 1}}, Prev: []touch{{1, 1, 0, 1}}}
	gb := make([]byte, g.size())
	g.encode(gb, 0, 0)
	f.Add(gb)
	r := record{Kind: kindEntry, Length: 3}
	rb := make([]byte, recordHeader)
	r.encode(rb)
	stamp(rb, 0, 0)
	f.Add(rb)
	s := newStream(nil, 1, "s")
	one := newRun(s, nil, 0)
	one.add(0, dataStart, 0, 1, 1, 80)
	f.Add(encodeIndex(h, 8192, []*run{one}, nil))
	m, err := encodeMeta(&meta{Version: 1, Node: "a", UUID: "00000000000000000000000000000000"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m)
}

// FuzzDecoders feeds any bytes to every decoder of the package: no panic, no
// error but the format's, and what is accepted encodes to the same bytes.
func FuzzDecoders(f *testing.F) {
	seedsOf(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(what string, err error) bool {
			if err != nil && !errors.Is(err, errFormat) && !errors.Is(err, log.ErrProtocol) {
				t.Fatalf("%s: unnamed error %v", what, err)
			}
			return err == nil
		}
		if h, err := decodeFileHeader(b); check("file header", err) {
			again := make([]byte, dataStart)
			h.encode(again)
			if got, err := decodeFileHeader(again); err != nil || got != h {
				t.Fatalf("file header %+v comes back as %+v, %v", h, got, err)
			}
		}
		if g, err := decodeGroupHead(b, 0, 0); check("group header", err) {
			again := make([]byte, g.size())
			g.encode(again, 0, 0)
			if got, err := decodeGroupHead(again, 0, 0); err != nil || !reflect.DeepEqual(got, g) {
				t.Fatalf("group header %+v comes back as %+v, %v", g, got, err)
			}
		}
		_, err := decodeRecord(b, 0, 0)
		check("record", err)
		if x, err := decodeIndex(b, int64(len(b))); check("index", err) {
			for _, r := range x.runs {
				_, err := decodeElements(b[r.at:r.at+4*int64(r.count)], r.crc)
				check("elements", err)
			}
		}
		_, err = decodeMeta(b)
		check("meta", err)
	})
}

// FuzzScan gives a scan a journal file of any content.
func FuzzScan(f *testing.F) {
	h := fileHeader{ID: 1}
	st := newStream(nil, 1, "s")
	g := newGroup(page)
	for i := range 3 {
		p := []byte("payload")
		g.add(st, &record{Kind: kindEntry, Length: uint32(len(p)), PayloadCRC: Checksum(p), Stream: 1, Offset: log.Offset(i)}, p)
	}
	f.Add(bytes.Clone(g.seal(h.seed(), dataStart, 1, 0, nil)), true)
	f.Fuzz(func(t *testing.T, b []byte, newest bool) {
		d := vfs.NewDisk()
		file, err := d.Create("/f")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(b, dataStart); err != nil {
			t.Fatal(err)
		}
		end := int64(0)
		if !newest {
			end = (dataStart + int64(len(b)) + page - 1) / page * page
		}
		sc, err := scanFile(file, h, end)
		if err != nil {
			t.Fatal(err)
		}
		if sc.end < dataStart || sc.end > dataStart+int64(len(b))+page {
			t.Fatalf("ends at %d of %d", sc.end, len(b))
		}
	})
}

func TestParseName(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		id := r.Uint64()
		for prefix, name := range map[string]string{"journal-": journalName(id), "index-": indexName(id), "spare-": spareName(id)} {
			if p, got, ok := parseName(name); !ok || p != prefix || got != id {
				t.Fatalf("%s: %s %d %v", name, p, got, ok)
			}
		}
	}
	for _, name := range []string{"", "journal-", "journal-1.twj", "journal-000000000000000g.twj", "journal-0000000000000001.twx", "meta.a", "lock", "journal-0000000000000001.twj~"} {
		if _, _, ok := parseName(name); ok {
			t.Errorf("%q is taken for one of ours", name)
		}
	}
}
