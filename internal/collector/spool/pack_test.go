package spool

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func packAll(t testing.TB, l *Log) {
	t.Helper()
	p, err := NewPacker()
	if err != nil {
		t.Fatal(err)
	}
	segs := l.Segments()
	for _, s := range segs[:len(segs)-1] {
		if err := p.Pack(l, s.Base); err != nil {
			t.Fatal(err)
		}
	}
}

// bulk appends n records of different sizes and gives them with the place of each.
func bulk(t testing.TB, l *Log, n int) (want []string, at []Pos) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		rec := fmt.Sprintf("%d %s", i, strings.Repeat("firewall says deny ", rng.IntN(60)))
		at = append(at, l.End())
		if _, err := l.Append([]byte(rec)); err != nil {
			t.Fatal(err)
		}
		want = append(want, rec)
	}
	return want, at
}

// Packed segments hold the same records at the same places and under the same numbers, for readers of all kinds, also over a restart.
func TestPack(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, SegmentBytes: 1 << 20}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	want, at := bulk(t, l, 6000)
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	standing := l.Reader(Pos{})
	defer standing.Close()
	if b, _, err := standing.Next(); err != nil || string(b) != want[0] {
		t.Fatalf("%q, %v", b, err)
	}
	l.segments[0].ModTime = old
	before := l.Size()
	packAll(t, l)
	if len(l.Segments()) < 3 || l.Size() > before*2/3 {
		t.Fatalf("%d segments, %d bytes of %d", len(l.Segments()), l.Size(), before)
	}
	for i := 1; i < len(want); i++ { // a reader that stood in a segment when it was packed
		if b, num, err := standing.Next(); err != nil || string(b) != want[i] || num != uint64(i) {
			t.Fatalf("record %d: %q, %d, %v", i, b, num, err)
		}
	}
	for round := range 2 {
		got, nums, _ := readAll(t, l, Pos{})
		if !slices.Equal(got, want) || nums[5999] != 5999 {
			t.Fatalf("round %d: %d records of %d", round, len(got), len(want))
		}
		for i := 0; i < len(want); i += 97 {
			r := l.Reader(at[i])
			if b, num, err := r.Next(); err != nil || string(b) != want[i] || num != uint64(i) {
				t.Fatalf("round %d: at the place of record %d: %q, %d, %v", round, i, b, num, err)
			}
			r.Close()
		}
		v, err := View(dir)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; ; n++ {
			if _, _, err := v.Next(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		v.Close()
		if n != len(want) {
			t.Fatalf("another process sees %d records of %d", n, len(want))
		}
		l.Close()
		// A crash between the two names leaves both, and one half made.
		if round == 0 {
			s := l.Segments()[1]
			plain := readFile(t, l, s.Base)
			os.WriteFile(segmentName(dir, s.Base), plain, 0o600)
			os.WriteFile(packedName(dir, s.Base+1)+tempSuffix, []byte("half"), 0o600)
		}
		if l, err = Open(o); err != nil {
			t.Fatal(err)
		}
		if !l.Segments()[0].ModTime.Equal(old) {
			t.Errorf("packing made a segment younger: %v", l.Segments()[0].ModTime)
		}
	}
	defer l.Close()
	entries, _ := os.ReadDir(dir)
	if len(entries) != len(l.Segments()) {
		t.Errorf("%d files, %d segments: %v", len(entries), len(l.Segments()), entries)
	}
	// The newest segments went: what is left is packed, is not written to, and its numbers are not given again.
	segs := l.Segments()
	next := segs[2].Base
	l.Close()
	for _, s := range segs[2:] {
		l.unlink(s.Base)
	}
	if l, err = Open(o); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Append([]byte("more")); err != nil || n != next {
		t.Fatalf("number %d, %v; want %d", n, err, next)
	}
	got, _, _ := readAll(t, l, Pos{})
	if !slices.Equal(got, append(slices.Clone(want[:next]), "more")) {
		t.Fatalf("%d records", len(got))
	}
	if err := l.Remove(segs[0].Base); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(packedName(dir, segs[0].Base)); err == nil {
		t.Error("a removed segment is still there")
	}
}

func readFile(t testing.TB, l *Log, base uint64) []byte {
	t.Helper()
	f, err := openSegment(l.dir, base)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, f.size)
	if _, err := f.data.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// zstd itself opens a packed segment.
func TestPackPeer(t *testing.T) {
	zstd, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("SKIPPED: there is no zstd program here")
	}
	l, err := Open(Options{Dir: t.TempDir(), SegmentBytes: 600 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	bulk(t, l, 3000)
	base := l.Segments()[0].Base
	plain, err := os.ReadFile(l.path(base))
	if err != nil {
		t.Fatal(err)
	}
	packAll(t, l)
	out, err := exec.Command(zstd, "-dc", packedName(l.dir, base)).Output()
	if err != nil || !slices.Equal(out, plain) {
		t.Errorf("%d bytes of %d, %v", len(out), len(plain), err)
	}
}

// Damage in a packed segment costs at most the rest of it, and is counted to the record.
func TestPackDamage(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, SegmentBytes: 600 << 10}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := bulk(t, l, 3000)
	packAll(t, l)
	name := packedName(dir, l.Segments()[1].Base)
	l.Close()
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		r := l.Reader(Pos{})
		defer r.Close()
		n := 0
		for ; ; n++ {
			rec, num, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(rec) != want[num] {
				t.Fatalf("record %d is %.40q", num, rec)
			}
		}
		if n == len(want) {
			return // the change was in what nobody reads
		}
		if n+int(r.Lost()) != len(want) {
			t.Fatalf("read %d, counted %d lost of %d", n, r.Lost(), len(want))
		}
	}
	for at := 0; at < len(whole); at += 1 + len(whole)/16 {
		b := slices.Clone(whole)
		b[at] ^= 0x40
		damage(b)
		damage(whole[:at])
	}
	for at := len(whole) - 40; at < len(whole); at += 3 {
		b := slices.Clone(whole)
		b[at] ^= 0x40
		damage(b)
	}
}

// A full disk while a segment is packed leaves it as it was.
func TestPackDiskFull(t *testing.T) {
	dir := t.TempDir()
	left, no, n := int64(1<<40), false, 0
	l, err := Open(Options{Dir: dir, SegmentBytes: 600 << 10, OpenFile: func(name string) (File, error) {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		return fullDisk{f, &left, &no, &n}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want, _ := bulk(t, l, 3000)
	p, err := NewPacker()
	if err != nil {
		t.Fatal(err)
	}
	left = 1000
	if err := p.Pack(l, 0); err == nil {
		t.Fatal("packed on a full disk")
	}
	left = 1 << 40
	got, _, _ := readAll(t, l, Pos{})
	if !slices.Equal(got, want) {
		t.Fatalf("%d records of %d", len(got), len(want))
	}
	if m, _ := filepath.Glob(filepath.Join(dir, "*"+tempSuffix)); len(m) > 0 {
		t.Errorf("left behind: %v", m)
	}
	if err := p.Pack(l, l.Segments()[len(l.Segments())-1].Base); !errors.Is(err, ErrActive) {
		t.Errorf("the active segment: %v", err)
	}
}
