package archive

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tocsin/internal/collector/spool"
)

// fillHours appends lines of so many hours from 1 January 2026 on, some a minute, and after hour 20 the clock goes back by 15 hours for a while.
func fillHours(t testing.TB, a *Archive, hours, perMinute int, text []byte) (begin time.Time) {
	t.Helper()
	begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var b Batch
	for m := range hours * 60 {
		at := begin.Add(time.Duration(m) * time.Minute)
		if m >= 20*60 && m < 20*60+5 {
			at = at.Add(-15 * time.Hour)
		}
		for range perMinute {
			b.Add(&Line{Created: at.UnixNano(), Sender: sender, Text: text})
		}
		if err := a.Append(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		b.Reset()
	}
	return begin
}

// read reads to the end: how many lines are of the time, and what the files that were opened hold.
func read(t testing.TB, a *Archive, r *Reader, from, to time.Time) (lines int, files map[uint64]bool, bytes int64) {
	t.Helper()
	defer r.Close()
	files = map[uint64]bool{}
	var l Line
	for {
		err := r.Next(&l)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		files[r.Pos().Segment] = true
		if at := time.Unix(0, l.Created); !at.Before(from) && !at.After(to) {
			lines++
		}
	}
	for _, s := range a.log.Segments() {
		if files[s.Base] {
			bytes += s.Size
		}
	}
	return lines, files, bytes
}

// indexed waits for nothing: it does what the keeper does.
func indexed(t testing.TB, a *Archive) {
	t.Helper()
	for {
		base, ok := a.toIndex(0)
		if !ok {
			return
		}
		if err := a.index(base); err != nil {
			t.Fatal(err)
		}
	}
}

// A question about an hour reads that hour's files and finds all of its lines, whatever the clock did, and whether the index is kept, missing or
// damaged.
func TestBetween(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, SegmentBytes: 64 << 10, Plain: -1}
	open := func() *Archive {
		t.Helper()
		a, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close() })
		return a
	}
	a := open()
	text := []byte(fmt.Sprintf("%0200d", 7))
	begin := fillHours(t, a, 48, 5, text)
	check := func(name string, hour, wantLines, maxFiles int) {
		t.Helper()
		from := begin.Add(time.Duration(hour)*time.Hour + time.Second)
		to := from.Add(time.Hour - time.Second)
		if got, _, _ := read(t, a, a.Reader(spool.Pos{}), from, to); got != wantLines {
			t.Fatalf("%s, hour %d: %d lines in the whole archive, want %d", name, hour, got, wantLines)
		}
		lines, files, _ := read(t, a, a.Between(from, to), from, to)
		if lines != wantLines || len(files) > maxFiles {
			t.Errorf("%s, hour %d: %d lines in %d files, want %d in at most %d of %d", name, hour, lines, len(files), wantLines, maxFiles, len(a.log.Segments()))
		}
	}
	all := func(name string) {
		t.Helper()
		if n := len(a.log.Segments()); n < 40 {
			t.Fatalf("%s: %d files", name, n)
		}
		check(name, 30, 300, 4) // the hour's, one at each side, and the one that is not finished
		check(name, 5, 320, 5)  // and those four minutes
		check(name, 100, 0, 1)
	}
	indexed(t, a)
	all("made")
	a.Close()
	for _, c := range []struct {
		name  string
		spoil func(journal string) error
	}{
		{"kept", func(string) error { return nil }},
		{"missing", os.RemoveAll},
		{"damaged", func(journal string) error {
			names, err := filepath.Glob(filepath.Join(journal, "*.seg"))
			if err != nil || len(names) == 0 {
				return fmt.Errorf("%v, %w", names, err)
			}
			for _, name := range names {
				b, err := os.ReadFile(name)
				if err != nil {
					return err
				}
				for i := range b[16:] {
					b[16+i] ^= 0x55
				}
				if err := os.WriteFile(name, b, 0o600); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		if err := c.spoil(filepath.Join(dir, "times")); err != nil {
			t.Fatal(err)
		}
		a = open()
		if c.name != "kept" {
			indexed(t, a)
		} else if n := len(a.times.spans); n < len(a.log.Segments())-2 {
			t.Errorf("%d files were known after the restart", n)
		}
		all(c.name)
		a.Close()
	}
	// What is deleted leaves the index with the next entry.
	a = open()
	indexed(t, a)
	a.Done(a.End())
	for range 10 {
		a.MakeRoom()
	}
	fillHours(t, a, 2, 5, text)
	indexed(t, a)
	if n, m := len(a.times.spans), len(a.log.Segments()); n != m-1 {
		t.Errorf("%d entries for %d files", n, m)
	}
}

// One hour of thirty days in 1 GiB, with the index and without.
func BenchmarkHour(b *testing.B) {
	a, err := Open(Options{Dir: b.TempDir(), Plain: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	begin := fillHours(b, a, 30*24, 75, []byte(fmt.Sprintf("%0300d", 7)))
	indexed(b, a)
	from := begin.Add(400 * time.Hour)
	to := from.Add(time.Hour)
	for name, reader := range map[string]func() *Reader{
		"indexed": func() *Reader { return a.Between(from, to) },
		"whole":   func() *Reader { return a.Reader(a.Start()) },
	} {
		b.Run(name, func(b *testing.B) {
			var size int64
			for b.Loop() {
				lines, _, bytes := read(b, a, reader(), from, to)
				if lines < 60*75 {
					b.Fatalf("%d lines", lines)
				}
				size = bytes
			}
			b.ReportMetric(float64(size)/(1<<20), "MiB-read/op")
			b.ReportMetric(float64(a.Size())/(1<<20), "MiB-archive")
		})
	}
}

// A file that cannot be read is neither indexed nor packed, and those behind it are; when it can be read again its turn comes.
func TestKeepOne(t *testing.T) {
	a, err := Open(Options{Dir: t.TempDir(), SegmentBytes: 64 << 10, Plain: -1}) // the keeper that runs packs nothing
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	fillHours(t, a, 6, 5, []byte(fmt.Sprintf("%0200d", 7)))
	a.Done(a.End())
	a.closing <- struct{}{} // the keeper ends; from here on this is it
	a.o.Plain = 1
	clear(a.times.spans)
	segs := a.log.Segments()
	bad := filepath.Join(a.o.Dir, fmt.Sprintf("%016x.seg", segs[1].Base))
	if err := errors.Join(os.Rename(bad, bad+".away"), os.Mkdir(bad, 0o700)); err != nil { // reading it fails, as on a bad disk
		t.Fatal(err)
	}
	failed := map[string]uint64{}
	turn := func() (done, errs map[string]int) {
		done, errs = map[string]int{}, map[string]int{}
		for {
			what, some, err := a.keepOne(failed)
			if !some {
				return done, errs
			}
			if err != nil {
				errs[what]++
			} else {
				done[what]++
			}
		}
	}
	n := len(segs)
	if done, errs := turn(); done["index"] != n-2 || done["pack"] != n-3 || errs["index"] != 1 || errs["pack"] != 1 {
		t.Errorf("of %d files: done %v, failed %v", n, done, errs)
	}
	if err := errors.Join(os.Remove(bad), os.Rename(bad+".away", bad)); err != nil {
		t.Fatal(err)
	}
	if done, errs := turn(); done["index"] != 1 || done["pack"] != 1 || len(errs) > 0 {
		t.Errorf("when it can be read: done %v, failed %v", done, errs)
	}
}
