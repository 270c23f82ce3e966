package archive

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/collector/spool"
)

// samples are real lines of firewalls, as the parsers are tested with.
func samples(t testing.TB) (lines [][]byte) {
	t.Helper()
	names, err := filepath.Glob("../parse/packs/*/input.log")
	if err != nil || len(names) == 0 {
		t.Fatal("no samples", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for l := range bytes.Lines(b) {
			if l = bytes.TrimSpace(l); len(l) > 0 {
				lines = append(lines, l)
			}
		}
	}
	return lines
}

func packed(a *Archive) (n int) {
	for _, s := range a.log.Segments() {
		if s.Packed {
			n++
		}
	}
	return n
}

// Files that have been worked on are packed while lines come in; every line stays where it was, is found by its number, and has the digest it had.
// The archive of an older version, which packed nothing, is packed too.
func TestPacked(t *testing.T) {
	dir := t.TempDir()
	lines := samples(t)
	secret := Secret{7}
	d := secret.Digester()
	o := Options{Dir: dir, SegmentBytes: 256 << 10, Plain: -1}
	a, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	fill := func(n int) {
		t.Helper()
		var b Batch
		for i := range n {
			b.Add(&Line{Created: int64(i), Sender: sender, Text: lines[i%len(lines)]})
			if b.Len() == 500 || i == n-1 {
				if err := a.Append(t.Context(), &b); err != nil {
					t.Fatal(err)
				}
				b.Reset()
			}
		}
	}
	fill(4000)
	a.Close()
	o.Plain = 1
	if a, err = Open(o); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	fill(4000)
	type known struct {
		pos    spool.Pos
		number uint64
		sum    [32]byte
	}
	var all []known
	r := a.Reader(spool.Pos{})
	defer r.Close()
	for {
		var l Line
		k := known{pos: r.Pos()}
		if err := r.Next(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		k.number, k.sum = l.Number, d.Digest(l.Number, l.Text)
		all = append(all, k)
	}
	if len(all) != 8000 {
		t.Fatalf("%d lines", len(all))
	}
	before := a.Size()
	a.Done(r.Pos())
	want := len(a.log.Segments()) - 2
	for deadline := time.Now().Add(30 * time.Second); packed(a) < want; time.Sleep(5 * time.Millisecond) { // until the packer, which rests between files, is done
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d files are packed", packed(a), want)
		}
	}
	t.Logf("%d bytes became %d", before, a.Size())
	if a.Size() > before*2/3 {
		t.Errorf("%d bytes became %d", before, a.Size())
	}
	for i := 0; i < len(all); i += 131 {
		k := all[i]
		l, err := a.Find(k.number)
		if err != nil || d.Digest(l.Number, l.Text) != k.sum {
			t.Fatalf("line %d: %v", k.number, err)
		}
		again := a.Reader(k.pos)
		if err := again.Next(&l); err != nil || l.Number != k.number {
			t.Fatalf("at its place: %d, want %d, %v", l.Number, k.number, err)
		}
		again.Close()
	}
	v, err := View(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	n := 0
	for ; v.Next(&Line{}) == nil; n++ {
	}
	if n != len(all) {
		t.Errorf("another process sees %d lines of %d", n, len(all))
	}
	// Age and size count what is on the disk.
	if lost := a.Prune(); lost != 0 || a.Size() > before {
		t.Errorf("%d lost", lost)
	}
}

// What packing costs and saves on real firewall lines: bytes and CPU time for each line.
func BenchmarkPack(b *testing.B) {
	lines := samples(b)
	p, err := spool.NewPacker()
	if err != nil {
		b.Fatal(err)
	}
	var count, plain, small int64
	var took time.Duration
	for b.Loop() {
		b.StopTimer()
		a, err := Open(Options{Dir: b.TempDir(), Plain: -1})
		if err != nil {
			b.Fatal(err)
		}
		var batch Batch
		n := 0
		for len(a.log.Segments()) < 2 {
			for range 1000 {
				batch.Add(&Line{Created: int64(n), Sender: sender, Text: lines[n%len(lines)]})
				n++
			}
			if err := a.Append(b.Context(), &batch); err != nil {
				b.Fatal(err)
			}
			batch.Reset()
		}
		b.StartTimer()
		began := cpu()
		if err := p.Pack(a.log, a.log.Segments()[0].Base); err != nil {
			b.Fatal(err)
		}
		took += cpu() - began
		b.StopTimer()
		s := a.log.Segments()
		count, plain, small = count+int64(n-1000), plain+s[0].Size, small+s[0].Disk()
		a.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(plain)/float64(count), "B/line-plain")
	b.ReportMetric(float64(small)/float64(count), "B/line-packed")
	b.ReportMetric(float64(took.Nanoseconds())/float64(count), "cpu-ns/line")
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
