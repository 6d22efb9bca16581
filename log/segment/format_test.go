package segment

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"strings"
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
	r := record{Kind: kindEntry, Length: 3, Replica: 1, Segment: 1, Offset: 5, Epoch: 2, LAC: 4, LSO: 4, Time: 1, Topic: 1}
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
	rep := newReplica(nil, ID{"s", 1})
	rep.num = 1
	one := newRun(rep, nil, 0)
	one.add(0, dataStart, 0, 1, 1, 80)
	f.Add(encodeIndex(h, 8192, []*run{one}))
	line := metaReplica{ID: 1, Fence: 3, Held: 7, LAC: 5, Filed: -1, Closed: true, Last: 9, LSO: 8}
	m, err := encodeMeta(&meta{
		Version: 1, Node: "a", UUID: "00000000000000000000000000000000", NextID: 1,
		Shelves: []metaShelf{{"s", [][2]uint32{{1, 4}, {7, 7}}}}, Floors: []metaFloor{{"s", 2, 3}},
	}, [][]byte{line.encodeLine([]byte(`{"stream":"s","segment":8,"first":0,"first_lso":-1,"epoch":1,"generation":1,"members":[],"rule":{},"protected":true}`))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m)
	p := pointer{Node: h.Node, Salt: 5, IndexAt: archiveStart + 100, IndexSize: blockRowSize, HeadAt: archiveStart + 100 + 2*blockRowSize, HeadSize: 10}
	p.Size = p.HeadAt + 2*int64(p.HeadSize) + pointerSize
	f.Add(p.encode())
	e := Stored{Checksum: Checksum([]byte("abc")), Entry: log.Entry{Offset: 5, Topic: 1, Payload: []byte("abc")}}
	raw := appendArchived(nil, &e)
	f.Add(raw)
	f.Add(encodeBlocks([]block{{At: archiveStart, Stored: 35, Raw: 35, First: 5, Last: 5, Count: 1, Classes: 2, Ends: log.None}}))
	f.Add([]byte(`{"descriptor":{"stream":"s","segment":1,"first":5,"members":null,"rule":{}},"upto":9,"closed":true,"last":9,"missing":[{"First":6,"Last":7}]}`))
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
		if p, err := decodePointer(b); check("pointer", err) {
			if got, err := decodePointer(p.encode()); err != nil || got != p {
				t.Fatalf("pointer %+v comes back as %+v, %v", p, got, err)
			}
		}
		if x, err := decodeBlocks(b, 1<<40); check("blocks", err) && !bytes.Equal(encodeBlocks(x), b) {
			t.Fatalf("blocks %+v come back as others", x)
		}
		_, err = decodeHead(b)
		check("head", err)
		if len(b) >= archivedRecord {
			o := log.Offset(le.Uint64(b))
			entries, err := decodeBlock(b, &block{First: o, Last: o, Count: 1}, 1, nil)
			if check("block", err) {
				if again := appendArchived(nil, &entries[0]); len(again) != len(b) {
					t.Fatalf("a record of %d bytes comes back with %d", len(b), len(again))
				}
			}
		}
	})
}

// FuzzScan gives a scan a journal file of any content.
func FuzzScan(f *testing.F) {
	h := fileHeader{ID: 1}
	rep := newReplica(nil, ID{"s", 1})
	g := newGroup(page)
	for i := range 3 {
		p := []byte("payload")
		g.add(rep, &record{Kind: kindEntry, Length: uint32(len(p)), PayloadCRC: Checksum(p), Replica: 1, Offset: log.Offset(i)}, p)
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

func TestShelfNames(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"a", "a/b", "a%2Fb", "..", ".", "A", "ü", strings.Repeat("x", 255), strings.Repeat("x", 254) + "y", strings.Repeat("/", 255)} {
		dir := shelfName(name)
		if other, twice := seen[dir]; twice || dir == "" || len(dir) > 200 || strings.ContainsAny(dir, "/.\x00") {
			t.Errorf("stream %q lies in %q, as does %q", name, dir, other)
		}
		seen[dir] = name
	}
	for _, name := range []string{"", "1", "x.tws", "0.tws", "01.tws", "-1.tws", "4294967296.tws", "1.tws.tmp"} {
		if n, ok := parseOwn(name); ok {
			t.Errorf("%q is taken for segment %d", name, n)
		}
	}
	if n, ok := parseOwn("4294967295.tws"); !ok || n != 4294967295 {
		t.Errorf("%d, %v", n, ok)
	}
}

func TestRanges(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		var rs ranges
		var in [40]bool
		for range r.IntN(12) {
			first := r.IntN(40)
			last := min(39, first+r.IntN(6))
			rs = rs.add(Range{log.Offset(first), log.Offset(last)})
			for o := first; o <= last; o++ {
				in[o] = true
			}
		}
		lo, hi := r.IntN(40), r.IntN(40)
		cut := rs.cut(log.Offset(lo), log.Offset(hi))
		for o := range 40 {
			_, hit := rs.at(log.Offset(o))
			_, kept := cut.at(log.Offset(o))
			if hit != in[o] || kept != (in[o] && lo <= o && o <= hi) {
				t.Fatalf("%v cut to %d, %d: %v: offset %d", rs, lo, hi, cut, o)
			}
		}
		for i := 1; i < len(rs); i++ {
			if rs[i].First <= rs[i-1].Last+1 {
				t.Fatalf("%v", rs)
			}
		}
	}
}

// TestVersions: what another version wrote is refused by name, and a newer one says
// which program it takes.
func TestVersions(t *testing.T) {
	b := make([]byte, dataStart)
	(fileHeader{ID: 1}).encode(b)
	reseal := func(b []byte, v uint32, release string) []byte {
		b = bytes.Clone(b[:headerSize])
		le.PutUint32(b[8:], v)
		clear(b[needsAt : needsAt+needsSize])
		copy(b[needsAt:], release)
		le.PutUint32(b[12:], 0)
		le.PutUint32(b[12:], crc32.Checksum(b, castagnoli))
		return b
	}
	_, newer := decodeFileHeader(reseal(b, version+1, "1.7"))
	_, older := decodeFileHeader(reseal(b, 1, ""))
	_, meta := decodeMeta([]byte(fmt.Sprintf("%-63s\n{}", "twinspan-log-meta 4 1.7 00000000 2 more")))
	_, oldMeta := decodeMeta([]byte(fmt.Sprintf("%-63s\n{}", "twinspan-log-meta 1 00000000 2")))
	own := (&pointer{IndexAt: archiveStart, HeadAt: archiveStart, Size: archiveStart + pointerSize}).encode()
	le.PutUint32(own[8:], version+1)
	copy(own[16:32], "1.7")
	le.PutUint32(own[12:], crc32.Checksum(own[16:], castagnoli))
	_, newerOwn := decodePointer(own)
	for what, err := range map[string]error{"newer file": newer, "newer meta": meta, "newer own file": newerOwn} {
		if !errors.Is(err, log.ErrProtocol) || !strings.Contains(err.Error(), "twinspan 1.7 or later") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{"older file": older, "older meta": oldMeta} {
		if !errors.Is(err, log.ErrProtocol) || !strings.Contains(err.Error(), "format 1") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
