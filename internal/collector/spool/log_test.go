package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func readAll(t testing.TB, l *Log, from Pos) (recs []string, nums []uint64, end Pos) {
	t.Helper()
	r := l.Reader(from)
	defer r.Close()
	for {
		b, n, err := r.Next()
		if errors.Is(err, io.EOF) {
			return recs, nums, r.Pos()
		}
		if err != nil {
			t.Fatal(err)
		}
		recs, nums = append(recs, string(b)), append(nums, n)
	}
}

func fill(t testing.TB, l *Log, from, to int) (want []string) {
	t.Helper()
	for i := from; i < to; i++ {
		rec := fmt.Sprintf("record %d %s", i, bytes.Repeat([]byte("x"), i%97))
		n, err := l.Append([]byte(rec))
		if err != nil {
			t.Fatal(err)
		}
		if n != uint64(i) {
			t.Fatalf("record %d got number %d", i, n)
		}
		want = append(want, rec)
	}
	return want
}

func TestAppendReadReopen(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Options{Dir: dir, SegmentBytes: 2000})
	if err != nil {
		t.Fatal(err)
	}
	want := fill(t, l, 0, 200)
	got, _, mid := readAll(t, l, Pos{})
	if !slices.Equal(got, want) {
		t.Fatalf("read %d records, want %d", len(got), len(want))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append([]byte("late")); !errors.Is(err, ErrClosed) {
		t.Fatalf("append after close: %v", err)
	}
	if l, err = Open(Options{Dir: dir, SegmentBytes: 2000}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	more := fill(t, l, 200, 300)
	got, nums, _ := readAll(t, l, mid)
	if !slices.Equal(got, more) || nums[0] != 200 {
		t.Fatalf("from the middle: %d records from number %d", len(got), nums[0])
	}
	// Old segments may go while a reader is in them; it finishes what it holds and goes on with the next that is there.
	r := l.Reader(Pos{})
	defer r.Close()
	if _, _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	segs := l.Segments()
	for _, s := range segs[:len(segs)-1] {
		if err := l.Remove(s.Base); err != nil {
			t.Fatal(err)
		}
	}
	n := 1
	for {
		_, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if held := int(segs[1].Base) + 300 - int(segs[len(segs)-1].Base); n != held || r.Damaged() != 0 {
		t.Fatalf("after removal: %d records, want %d; damaged %d", n, held, r.Damaged())
	}
}

// Every place a file can end at, as a power cut leaves it: what was whole before stays, and the log goes on.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	want := fill(t, l, 0, 20)
	l.Close()
	name := filepath.Join(dir, fmt.Sprintf("%016x.seg", 0))
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for size := range len(whole) + 1 {
		if err := os.WriteFile(name, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatalf("cut at %d: %v", size, err)
		}
		got, _, _ := readAll(t, l, Pos{})
		if !slices.Equal(got, want[:len(got)]) {
			t.Fatalf("cut at %d: records differ", size)
		}
		if size == len(whole) && len(got) != len(want) {
			t.Fatalf("whole file: %d records", len(got))
		}
		next, err := l.Append([]byte("after"))
		if err != nil || next != uint64(len(got)) {
			t.Fatalf("cut at %d: append gave number %d, %v", size, next, err)
		}
		if again, _, _ := readAll(t, l, Pos{}); len(again) != len(got)+1 {
			t.Fatalf("cut at %d: %d records after append, want %d", size, len(again), len(got)+1)
		}
		if used := l.Size() - int64(frameHeader+5); size > headerSize && l.CutBytes() != int64(size)-used {
			t.Fatalf("cut at %d: counted %d bytes, %d are held", size, l.CutBytes(), used)
		}
		l.Close()
		for _, s := range l.Segments() {
			os.Remove(l.path(s.Base))
		}
	}
}

// A flipped byte anywhere costs at most the rest of its segment, and the loss is counted to the record.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Options{Dir: dir, SegmentBytes: 500})
	if err != nil {
		t.Fatal(err)
	}
	want := fill(t, l, 0, 60)
	segs := l.Segments()
	l.Close()
	name := l.path(segs[1].Base)
	whole, _ := os.ReadFile(name)
	for at := headerSize; at < len(whole); at++ {
		b := slices.Clone(whole)
		b[at] ^= 0x40
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(Options{Dir: dir, SegmentBytes: 500})
		if err != nil {
			t.Fatal(err)
		}
		r := l.Reader(Pos{})
		n := 0
		for {
			rec, num, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(rec) != want[num] {
				t.Fatalf("byte %d: record %d is %q", at, num, rec)
			}
			n++
		}
		if n+int(r.Lost()) != len(want) || r.Damaged() == 0 {
			t.Fatalf("byte %d: read %d, counted %d lost of %d", at, n, r.Lost(), len(want))
		}
		r.Close()
		l.Close()
	}
}

func TestTruncate(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Options{Dir: dir, SegmentBytes: 300})
	if err != nil {
		t.Fatal(err)
	}
	var ends []Pos
	var want []string
	for i := range 40 {
		ends = append(ends, l.End())
		want = append(want, fill(t, l, i, i+1)...)
	}
	for i := 39; i >= 0; i -= 3 {
		if _, err := l.Truncate(ends[i]); err != nil {
			t.Fatal(err)
		}
		got, _, _ := readAll(t, l, Pos{})
		if !slices.Equal(got, want[:i]) {
			t.Fatalf("cut before record %d: %d left", i, len(got))
		}
		if l.Next() != uint64(i) {
			t.Fatalf("cut before record %d: next is %d", i, l.Next())
		}
	}
	fill(t, l, 0, 5)
	l.Close()
}

func TestRotateSkipsNumbers(t *testing.T) {
	l, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fill(t, l, 0, 3)
	if err := l.Rotate(1000); err != nil {
		t.Fatal(err)
	}
	fill(t, l, 1000, 1002)
	if err := l.Rotate(500); err != nil { // never backwards
		t.Fatal(err)
	}
	fill(t, l, 1002, 1004)
	_, nums, _ := readAll(t, l, Pos{})
	if !slices.Equal(nums, []uint64{0, 1, 2, 1000, 1001, 1002, 1003}) {
		t.Fatal(nums)
	}
	r := l.Reader(Pos{})
	defer r.Close()
	for {
		if _, _, err := r.Next(); err != nil {
			break
		}
	}
	if r.Lost() != 0 || r.Damaged() != 0 {
		t.Fatalf("numbers left out on purpose counted as lost: %d, %d bytes", r.Lost(), r.Damaged())
	}
}

// fullDisk takes a number of bytes and then fails, having written a part, as a file system without space does.
type fullDisk struct {
	*os.File
	left        *int64
	noTruncate  *bool
	truncations *int
}

func (f fullDisk) Write(b []byte) (int, error) {
	if int64(len(b)) <= *f.left {
		*f.left -= int64(len(b))
		return f.File.Write(b)
	}
	n, _ := f.File.Write(b[:*f.left])
	*f.left = 0
	return n, syscall.ENOSPC
}

func (f fullDisk) Truncate(size int64) error {
	*f.truncations++
	if *f.noTruncate {
		return syscall.EIO
	}
	return f.File.Truncate(size)
}

func TestDiskFull(t *testing.T) {
	for _, noTruncate := range []bool{false, true} {
		left, truncations := int64(0), 0
		dir := t.TempDir()
		open := func(name string) (File, error) {
			f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
			return fullDisk{f, &left, &noTruncate, &truncations}, err
		}
		l, err := Open(Options{Dir: dir, SegmentBytes: 400, OpenFile: open})
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		rng := rand.New(rand.NewPCG(1, 2))
		failed := 0
		for i := 0; i < 300; {
			rec := fmt.Sprintf("record %d", i)
			_, err := l.Append([]byte(rec))
			if err != nil {
				if !errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
				failed++
				left += rng.Int64N(200) // somebody makes a little room
				continue
			}
			want = append(want, rec)
			i++
		}
		got, _, _ := readAll(t, l, Pos{})
		if !slices.Equal(got, want) {
			t.Fatalf("%d records read, %d written", len(got), len(want))
		}
		l.Close()
		if l, err = Open(Options{Dir: dir}); err != nil {
			t.Fatal(err)
		}
		got, _, _ = readAll(t, l, Pos{})
		if !slices.Equal(got, want) || failed == 0 || truncations == 0 {
			t.Fatalf("after reopening: %d records read, %d written; %d failures, %d taken back", len(got), len(want), failed, truncations)
		}
		l.Close()
	}
}

func TestJournal(t *testing.T) {
	dir := t.TempDir()
	j, err := OpenJournal(Options{Dir: dir, SegmentBytes: 300})
	if err != nil {
		t.Fatal(err)
	}
	if j.Last() != nil {
		t.Fatal("a new journal has a value")
	}
	for i := range 100 {
		if err := j.Save(fmt.Appendf(nil, "state %d", i), i%10 == 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(j.log.Segments()); n != 1 {
		t.Fatalf("%d segments kept", n)
	}
	j.Close()
	if j, err = OpenJournal(Options{Dir: dir, SegmentBytes: 300}); err != nil {
		t.Fatal(err)
	}
	if string(j.Last()) != "state 99" {
		t.Fatalf("last is %q", j.Last())
	}
	// A torn save leaves the value before it.
	seg := j.log.Segments()[0]
	j.Close()
	os.Truncate(j.log.path(seg.Base), seg.Size-3)
	if j, err = OpenJournal(Options{Dir: dir, SegmentBytes: 300}); err != nil {
		t.Fatal(err)
	}
	if string(j.Last()) != "state 98" || j.CutBytes() == 0 {
		t.Fatalf("after a torn save: %q, %d bytes cut", j.Last(), j.CutBytes())
	}
	// A crash right after a new segment was begun leaves the value in the one before.
	next := j.log.Next()
	j.Close()
	os.WriteFile(j.log.path(next), appendHeader(nil, next), 0o600)
	if j, err = OpenJournal(Options{Dir: dir, SegmentBytes: 300}); err != nil {
		t.Fatal(err)
	}
	defer func() { j.Close() }()
	if string(j.Last()) != "state 98" {
		t.Fatalf("after an empty segment: %q", j.Last())
	}
	if err := j.Save([]byte("state "), true, []byte("10"), []byte("0")); err != nil || j.Last() != nil {
		t.Fatalf("%v, and %q is still held", err, j.Last())
	}
	j.Close()
	if j, err = OpenJournal(Options{Dir: dir, SegmentBytes: 300}); err != nil || string(j.Last()) != "state 100" {
		t.Fatalf("saved in parts: %v", err)
	}
}

// Whatever a segment file holds, opening and reading end, give only records with a right checksum, and the log can be appended to.
func FuzzSegment(f *testing.F) {
	var good []byte
	good = appendHeader(good, 7)
	for i := range 5 {
		good = AppendFrame(good, bytes.Repeat([]byte{byte(i)}, i*3))
	}
	f.Add(good, uint16(0), byte(0))
	f.Add(good, uint16(20), byte(9))
	f.Add(good[:len(good)-2], uint16(3), byte(1))
	f.Add(binary.LittleEndian.AppendUint32(appendHeader(nil, 7), 0xffffffff), uint16(0), byte(0))
	f.Add([]byte{}, uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint16, flip byte) {
		if len(b) > 1<<16 {
			return
		}
		b = slices.Clone(b)
		if len(b) > 0 {
			b[int(at)%len(b)] ^= flip
		}
		dir := t.TempDir()
		name := filepath.Join(dir, fmt.Sprintf("%016x.seg", 7))
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(Options{Dir: dir, First: 3})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		r := l.Reader(Pos{Segment: 7, Offset: int64(at)})
		for {
			_, _, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
		before, _, _ := readAll(t, l, Pos{})
		first, err := l.Append([]byte("one more"))
		if err != nil || first < 7 {
			t.Fatalf("append: number %d, %v", first, err)
		}
		after, _, _ := readAll(t, l, Pos{})
		if !slices.Equal(after, append(before, "one more")) {
			t.Fatalf("%d records before, %d after", len(before), len(after))
		}
	})
}

// benchLog gives a log, and so many frames of 300 bytes.
func benchLog(b *testing.B, n int) (l *Log, frames []byte) {
	b.Helper()
	l, err := Open(Options{Dir: b.TempDir(), SegmentBytes: 16 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	rec := bytes.Repeat([]byte("x"), 300)
	for range n {
		frames = AppendFrame(frames, rec)
	}
	return l, frames
}

func BenchmarkAppend(b *testing.B) {
	l, frames := benchLog(b, 32)
	b.SetBytes(32 * 300)
	for b.Loop() {
		if _, err := l.AppendFrames(frames, 32); err != nil {
			b.Fatal(err)
		}
		if segs := l.Segments(); len(segs) > 3 {
			l.Remove(segs[0].Base)
		}
	}
	b.ReportMetric(float64(b.N*32)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkRead(b *testing.B) {
	l, frames := benchLog(b, 100)
	const n = 100000
	for range n / 100 {
		if _, err := l.AppendFrames(frames, 100); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		r := l.Reader(Pos{})
		for {
			if _, _, err := r.Next(); err != nil {
				break
			}
		}
		r.Close()
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
}
