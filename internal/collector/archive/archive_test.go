package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/collector/spool"
)

var sender = netip.MustParseAddr("192.0.2.7")

func add(t *testing.T, a *Archive, from, to int) {
	t.Helper()
	var b Batch
	for i := from; i < to; i++ {
		b.Add(&Line{Created: int64(i), Listener: 2, Via: TCP, Sender: sender, Stream: uint32(i % 3), Cut: i%5 == 0, Text: fmt.Appendf(nil, "<13>line %d", i)})
	}
	if err := a.Append(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
}

func TestLines(t *testing.T) {
	dir := t.TempDir()
	now := time.Unix(1_800_000_000, 0)
	o := Options{Dir: dir, Now: func() time.Time { return now }}
	a, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	add(t, a, 0, 10)
	a.Close()
	now = now.Add(time.Minute)
	if a, err = Open(o); err != nil {
		t.Fatal(err)
	}
	add(t, a, 10, 20)
	a.Close()
	now = now.Add(-time.Hour) // the clock went backwards: numbers do not
	if a, err = Open(o); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	add(t, a, 20, 30)
	r := a.Reader(spool.Pos{})
	defer r.Close()
	var last uint64
	for i := range 30 {
		var l Line
		if err := r.Next(&l); err != nil {
			t.Fatal(err)
		}
		want := Line{Number: l.Number, Created: int64(i), Listener: 2, Via: TCP, Sender: sender, Stream: uint32(i % 3), Cut: i%5 == 0, Text: l.Text}
		if fmt.Sprint(l) != fmt.Sprint(want) || string(l.Text) != fmt.Sprintf("<13>line %d", i) {
			t.Fatalf("line %d: %+v", i, l)
		}
		if i == 0 && l.Number != 1_800_000_000<<20 || i == 10 && l.Number != 1_800_000_060<<20 || l.Number <= last && i > 0 || l.Number >= 1<<53 {
			t.Fatalf("line %d has number %d after %d", i, l.Number, last)
		}
		last = l.Number
		found, err := a.Find(l.Number)
		if err != nil || string(found.Text) != string(l.Text) {
			t.Fatalf("find %d: %v", l.Number, err)
		}
	}
	if err := r.Next(&Line{}); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	for _, n := range []uint64{0, 1_800_000_000<<20 + 10, last + 1} {
		if _, err := a.Find(n); !errors.Is(err, ErrGone) {
			t.Fatalf("find %d: %v", n, err)
		}
	}
	if r.Lost() != 0 {
		t.Fatalf("lost %d", r.Lost())
	}
}

func TestPrune(t *testing.T) {
	now := time.Now()
	a, err := Open(Options{Dir: t.TempDir(), MaxBytes: 3000, SegmentBytes: 500, MaxAge: time.Hour, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	r := a.Reader(spool.Pos{})
	defer r.Close()
	n := 0
	for i := range 100 {
		add(t, a, i, i+1)
		if i < 90 {
			if err := r.Next(&Line{}); err != nil {
				t.Fatal(err)
			}
			n++
			a.Done(r.Pos())
		}
		a.Prune()
		if a.Size() > 3600 {
			t.Fatalf("%d bytes kept", a.Size())
		}
	}
	if a.Lost() != 0 {
		t.Fatalf("%d lines lost although they had been read", a.Lost())
	}
	// Age: nothing that was not worked on goes for its age.
	now = now.Add(2 * time.Hour)
	a.Prune()
	for r.Next(&Line{}) == nil {
		n++
	}
	if n != 100 {
		t.Fatalf("read %d lines", n)
	}
	a.Done(r.Pos())
	a.Prune()
	if len(a.log.Segments()) != 1 {
		t.Fatalf("%d files kept beyond their age", len(a.log.Segments()))
	}
	// Nobody works: the bound holds, and what goes unread is counted to the line.
	before := a.Lost()
	var seen int
	for i := range 200 {
		add(t, a, i, i+1)
		a.Prune()
	}
	for r.Next(&Line{}) == nil {
		seen++
	}
	if lost := int(a.Lost() - before); lost == 0 || lost+seen != 200 {
		t.Fatalf("lost %d and read %d of 200", lost, seen)
	}
}

type limited struct {
	*os.File
	left *atomic.Int64
}

func (f limited) Write(b []byte) (int, error) {
	if f.left.Add(-int64(len(b))) < 0 {
		f.left.Add(int64(len(b)))
		return 0, syscall.ENOSPC
	}
	return f.File.Write(b)
}

// A full disk makes an append wait; room made by deleting worked lines, or by somebody else, lets it go on. Nothing is lost.
func TestFullDisk(t *testing.T) {
	var left atomic.Int64
	left.Store(4000)
	a, err := Open(Options{Dir: t.TempDir(), SegmentBytes: 500, OpenFile: func(name string) (spool.File, error) {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		return limited{f, &left}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	done := make(chan error)
	go func() {
		for i := range 100 {
			var b Batch
			b.Add(&Line{Sender: sender, Text: fmt.Appendf(nil, "line %d", i)})
			if err := a.Append(context.Background(), &b); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for !a.Full() {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var b Batch
	b.Add(&Line{Text: make([]byte, 1000)})
	if err := a.Append(ctx, &b); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("append on a full disk with a cancelled context: %v", err)
	}
	left.Store(1 << 20)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r := a.Reader(spool.Pos{})
	defer r.Close()
	for i := range 100 {
		var l Line
		if err := r.Next(&l); err != nil || string(l.Text) != fmt.Sprintf("line %d", i) {
			t.Fatalf("line %d: %q, %v", i, l.Text, err)
		}
	}
}

func TestDigest(t *testing.T) {
	s, o := Secret{1, 2, 3}, Secret{9}
	digests, others := s.Digester(), o.Digester()
	d := digests.Digest(7, []byte("a line"))
	if d != DigestWith(digests.LineKey(7), []byte("a line")) || d != s.Digester().Digest(7, []byte("a line")) {
		t.Fatal("the revealed key does not prove the line")
	}
	for _, other := range [][32]byte{digests.Digest(8, []byte("a line")), digests.Digest(7, []byte("a lime")), others.Digest(7, []byte("a line"))} {
		if other == d {
			t.Fatal("another line, number or secret has the same digest")
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte{0x11, 3, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1, 'h', 'i'})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var l Line
		if l.decode(b) != nil {
			return
		}
		var batch Batch
		batch.Add(&l)
		var again Line
		if err := again.decode(batch.frames[8:]); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(again) != fmt.Sprint(l) {
			t.Fatalf("%+v became %+v", l, again)
		}
	})
}
