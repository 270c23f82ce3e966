package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
)

// Records that are let go leave their numbers free; the others keep theirs, for readers and over restarts, and letting go again changes nothing.
func TestThin(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, SegmentBytes: 800}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if _, err := l.Append(fmt.Appendf(nil, "record %d %d", i, i%3)); err != nil {
			t.Fatal(err)
		}
	}
	segs := l.Segments()
	low := func(b []byte) bool { return !bytes.HasSuffix(b, []byte(" 0")) }
	gone := 0
	for _, s := range segs[1:4] {
		for range 2 {
			n, err := l.Thin(s.Base, low)
			if err != nil {
				t.Fatal(err)
			}
			gone += n
		}
	}
	if n, err := l.Thin(segs[2].Base, func(b []byte) bool { return !bytes.HasSuffix(b, []byte(" 1")) }); err != nil || n == 0 {
		t.Fatal(n, err)
	} else {
		gone += n
	}
	if n, err := l.Thin(segs[5].Base, func([]byte) bool { return false }); err != nil || n != int(segs[6].Base-segs[5].Base) {
		t.Fatal(n, err)
	} else {
		gone += n
	}
	if _, err := l.Thin(segs[len(segs)-1].Base, low); !errors.Is(err, ErrActive) {
		t.Fatalf("the active segment: %v", err)
	}
	check := func(l *Log) {
		t.Helper()
		r := l.Reader(Pos{})
		defer r.Close()
		n := 0
		for {
			b, num, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || string(b) != fmt.Sprintf("record %d %d", num, num%3) {
				t.Fatalf("%d: %q, %v", num, b, err)
			}
			// From its place on, the next one is found under its own number.
			again := l.Reader(r.Pos())
			if b2, num2, err := again.Next(); err == nil && (num2 <= num || string(b2) != fmt.Sprintf("record %d %d", num2, num2%3)) {
				t.Fatalf("after %d: %d %q", num, num2, b2)
			}
			again.Close()
			n++
		}
		if n+gone != 300 || r.Lost() != 0 || r.Damaged() != 0 {
			t.Fatalf("%d read, %d let go of 300; %d counted as lost", n, gone, r.Lost())
		}
	}
	check(l)
	l.Close()
	if l, err = Open(o); err != nil {
		t.Fatal(err)
	}
	check(l)
	// A thinned segment is never appended to, also when those after it are gone.
	segs = l.Segments()
	l.Close()
	for _, s := range segs[4:] {
		os.Remove(l.path(s.Base))
	}
	if l, err = Open(o); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if cut, err := l.Truncate(Pos{Segment: segs[4].Base}); err != nil || cut != 0 {
		t.Fatal(cut, err)
	}
	if n, err := l.Append([]byte("more")); err != nil || n != segs[4].Base {
		t.Fatalf("number %d, %v; want %d", n, err, segs[4].Base)
	}
	got, nums, _ := readAll(t, l, Pos{})
	if got[len(got)-1] != "more" || nums[len(nums)-1] != segs[4].Base || !slices.IsSorted(nums) {
		t.Fatalf("%q %v", got, nums)
	}
}

// A program from before segments were thinned sees one as damaged, and counts it; it never misreads it.
func TestThinIsNotMisread(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Options{Dir: dir, SegmentBytes: 500})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fill(t, l, 0, 60)
	base := l.Segments()[1].Base
	if n, err := l.Thin(base, func(b []byte) bool { return len(b)%2 == 0 }); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	f, err := os.Open(l.path(base))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, head := range []int64{headerSize, thinHeader} {
		r := chunkReader{f: f, off: head, limit: 1 << 20}
		if b, n, err := r.frame(); n != 0 || err != nil {
			t.Errorf("at %d: %q, %v", head, b, err)
		}
	}
}
