package files

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/collector/listen"
)

// store keeps lines and can be asked for them again, as the archive can.
type store struct {
	mu     sync.Mutex
	lines  []string
	files  []uint32 // which file each line stood in
	synced int
	refuse bool
	onSync func() // called by Sync
}

func (s *store) Receive(_ context.Context, lines []listen.Line) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse {
		return errors.New("closed")
	}
	for _, l := range lines {
		s.lines = append(s.lines, string(l.Text))
		s.files = append(s.files, l.Stream)
	}
	return nil
}

func (s *store) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse {
		return errors.New("closed")
	}
	s.synced = len(s.lines)
	if s.onSync != nil {
		s.onSync()
	}
	return nil
}

func (s *store) Mark() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.lines)) + 1
}

func (s *store) Since(mark uint64, f func([]byte)) error {
	for _, l := range s.lines[mark-1:] {
		f([]byte(l))
	}
	return nil
}

func (s *store) snapshot() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines)
}

func (s *store) wait(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		got := s.snapshot()
		if len(got) >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d lines, want %d: %q", len(got), n, got[max(0, len(got)-5):])
		}
	}
}

// clock is ahead of real time by what the test says.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

type bench struct {
	t     *testing.T
	dir   string
	o     Options
	store *store
	clock clock
	in    *Input
	stop  func()
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), store: &store{}}
	b.o = Options{Paths: []string{filepath.Join(b.dir, "*.log")}, State: filepath.Join(b.dir, "state", "0.json"), Poll: 2 * time.Millisecond, Now: b.clock.now}
	return b
}

func (b *bench) start() {
	b.t.Helper()
	in, err := New(b.o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.in = in
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Serve(ctx, b.store) }()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				b.t.Errorf("serve: %v", err)
			}
		})
	}
	b.t.Cleanup(b.stop)
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) write(name, text string) {
	b.t.Helper()
	f, err := os.OpenFile(b.path(name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) want(lines ...string) {
	b.t.Helper()
	b.store.wait(b.t, len(lines))
	if got := b.store.snapshot(); !slices.Equal(got, lines) {
		b.t.Fatalf("got  %q\nwant %q", got, lines)
	}
}

func TestFollow(t *testing.T) {
	b := newBench(t)
	b.o.MaxLine = 20
	b.write("a.log", "\xef\xbb\xbfone\r\ntwo\n\nthree without end")
	b.start()
	b.want("one", "two")
	b.write("a.log", " yet\n"+strings.Repeat("x", 70)+"\nafter\n")
	b.want("one", "two", "three without end ye", strings.Repeat("x", 20), "after")
	b.write("b.log", "new file\n")
	b.want("one", "two", "three without end ye", strings.Repeat("x", 20), "after", "new file")
	if st := b.in.Stats(); st.Lines != 6 || st.Cut != 2 || st.Conns != 2 {
		t.Errorf("%+v", st)
	}
	// Stopped in order: nothing twice, nothing lost.
	b.write("a.log", "half a ")
	b.stop()
	b.write("a.log", "line\nlast\n")
	b.start()
	b.store.wait(t, 8)
	if got := b.store.snapshot(); !slices.Equal(got[6:], []string{"half a line", "last"}) {
		t.Errorf("%q", got[6:])
	}
	// Each line says which file it stood in, also after the restart.
	b.stop()
	if f := b.store.files; f[0] == 0 || f[5] == 0 || f[0] == f[5] || f[4] != f[0] || f[6] != f[0] || f[7] != f[0] {
		t.Errorf("files %v", f)
	}
}

// A line that is longer than a chunk of reading, and longer than a line may be.
func TestLong(t *testing.T) {
	b := newBench(t)
	b.o.MaxLine = 400 << 10
	b.write("a.log", strings.Repeat("x", 3*256<<10)+"\n"+strings.Repeat("y", 300<<10)+"\nnext\n")
	b.start()
	b.store.wait(t, 3)
	if got := b.store.snapshot(); len(got[0]) != 400<<10 || len(got[1]) != 300<<10 || got[2] != "next" {
		t.Errorf("%d and %d bytes, %.50q", len(got[0]), len(got[1]), got[2])
	}
}

// Rename and create, with the writer still writing to the old file; a partial last line; while running and while not.
func TestRotate(t *testing.T) {
	b := newBench(t)
	b.write("a.log", "1\n2\n")
	b.start()
	b.want("1", "2")
	b.must(os.Rename(b.path("a.log"), b.path("a.log.1")))
	b.write("a.log", "4\n")
	b.store.wait(t, 3)
	b.write("a.log.1", "3 late, without end") // its writer has not noticed
	for deadline := time.Now().Add(10 * time.Second); len(b.store.snapshot()) < 4 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
		b.clock.add(time.Second)
	}
	b.want("1", "2", "4", "3 late, without end")
	b.stop()
	b.write("a.log", "5\n")
	b.must(os.Rename(b.path("a.log"), b.path("a.log.2")))
	b.write("a.log", "6\n")
	b.start()
	b.store.wait(t, 6)
	got := b.store.snapshot()[4:]
	slices.Sort(got)
	if !slices.Equal(got, []string{"5", "6"}) {
		t.Errorf("%q", got)
	}
	b.stop()
	b.must(os.Remove(b.path("a.log")))
	b.write("a.log", "8\n") // probably in the same inode
	b.start()
	b.store.wait(t, 7)
	if got := b.store.snapshot(); got[6] != "8" {
		t.Errorf("%q", got)
	}
}

// Copytruncate, also when the file has grown beyond the place again, and a hole of NULs where the writer does not append.
func TestTruncate(t *testing.T) {
	b := newBench(t)
	b.write("a.log", "1\n2\n")
	b.start()
	b.want("1", "2")
	b.must(os.Truncate(b.path("a.log"), 0))
	b.write("a.log", "3\n")
	b.want("1", "2", "3")
	b.stop()
	b.must(os.WriteFile(b.path("a.log"), []byte("another beginning, longer\n4\n"), 0o600))
	b.start()
	b.want("1", "2", "3", "another beginning, longer", "4")
	b.must(os.Truncate(b.path("a.log"), 0))
	for deadline := time.Now().Add(10 * time.Second); b.in.Stats().By["truncations"] < 1 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	f, err := os.OpenFile(b.path("a.log"), os.O_WRONLY, 0o600)
	b.must(err)
	defer f.Close()
	_, err = f.WriteAt([]byte("5\n"), 1000)
	b.must(err)
	b.want("1", "2", "3", "another beginning, longer", "4", "5")
}

func TestFromEnd(t *testing.T) {
	b := newBench(t)
	b.o.FromEnd = true
	b.write("a.log", "old\n")
	b.start()
	for deadline := time.Now().Add(10 * time.Second); b.in.Stats().Conns == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	b.write("b.log", "a file that came later is read whole\n")
	b.write("a.log", "new\n")
	b.store.wait(t, 2)
	got := b.store.snapshot()
	slices.Sort(got)
	if !slices.Equal(got, []string{"a file that came later is read whole", "new"}) {
		t.Errorf("%q", got)
	}
}

// The folder: whole files, compressed ones, broken ones with the reason, unfinished ones left alone.
func TestDrop(t *testing.T) {
	b := newBench(t)
	b.o.Paths, b.o.Drop, b.o.Settle = nil, b.path("in"), time.Minute
	b.start()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	fmt.Fprint(w, "zipped 1\nzipped 2")
	w.Close()
	b.write("in/a.txt", "1\n2")
	b.write("in/b.gz", z.String())
	b.write("in/c.gz", z.String()[:z.Len()-9])
	b.write("in/d.bin", "\x00\x01\x02")
	b.write("in/.hidden", "not yet\n")
	b.write("in/e.log.part", "not yet\n")
	time.Sleep(20 * time.Millisecond) // they must be left alone while they may still grow
	if got := b.store.snapshot(); len(got) != 0 {
		t.Fatalf("taken at once: %q", got)
	}
	for deadline := time.Now().Add(10 * time.Second); b.in.Stats().By["files_done"]+b.in.Stats().By["files_failed"] < 4 && time.Now().Before(deadline); {
		b.clock.add(time.Minute)
		time.Sleep(2 * time.Millisecond)
	}
	b.stop()
	got := b.store.snapshot()
	if !slices.Equal(got[:4], []string{"1", "2", "zipped 1", "zipped 2"}) || slices.Contains(got, "not yet") {
		t.Errorf("%q", got)
	}
	if b.store.synced != len(got) {
		t.Error("a file was moved before what it held was durable")
	}
	for _, name := range []string{"done/a.txt", "done/b.gz", "failed/c.gz", "failed/c.gz.reason.txt", "failed/d.bin", ".hidden", "e.log.part"} {
		if _, err := os.Stat(b.path("in/" + name)); err != nil {
			t.Error(err)
		}
	}
	if reason, _ := os.ReadFile(b.path("in/failed/d.bin.reason.txt")); !strings.Contains(string(reason), "not a text file") {
		t.Errorf("%q", reason)
	}
	// Old ones go; a name that was there before is kept apart.
	b.write("in/a.txt", "again\n")
	b.start()
	for deadline := time.Now().Add(10 * time.Second); b.in.Stats().By["files_done"] < 1 && time.Now().Before(deadline); {
		b.clock.add(time.Minute)
		time.Sleep(2 * time.Millisecond)
	}
	if _, err := os.Stat(b.path("in/done/a.txt.1")); err != nil {
		t.Error(err)
	}
	b.clock.add(40 * 24 * time.Hour)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(b.path("in/done/b.gz")); errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	t.Error("done/ is never emptied")
}

// Killed before places were written, and again when they are written next: what the first run had received comes once.
func TestKilledAgain(t *testing.T) {
	b := newBench(t)
	b.o.MaxLine, b.o.Chunk = 64, 100
	var text strings.Builder
	for i := range 200 {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	b.write("a.log", text.String())
	run := func(sink *store, until func()) {
		t.Helper()
		in, err := New(b.o)
		b.must(err)
		ctx, kill := context.WithCancel(t.Context())
		defer kill()
		done := make(chan error, 1)
		if until == nil {
			sink.onSync = kill // the places are written after this, and nothing more
		}
		go func() { done <- in.Serve(ctx, sink) }()
		if until != nil {
			until()
			sink.mu.Lock()
			sink.refuse = true // nothing is written from here on, as after a kill
			sink.mu.Unlock()
			kill()
		}
		b.must(<-done)
	}
	sink := &store{}
	run(sink, func() { sink.wait(t, 200) })
	// Rotated away to a name that nobody asked for, before its place was ever written.
	b.must(os.Rename(b.path("a.log"), b.path("a.1")))
	b.write("a.1", "behind\n")
	sink = &store{lines: sink.snapshot()}
	run(sink, nil)
	sink = &store{lines: sink.snapshot()}
	b.write("a.log", "the last\n")
	run(sink, func() { sink.wait(t, 202) })
	if got := sink.snapshot(); len(got) != 202 || !slices.Contains(got, "behind") || !slices.Contains(got, "the last") {
		t.Errorf("%d lines, then %q", len(got), got[200:min(len(got), 205)])
	}
}

// Within a service's sandbox a folder may be read-only whatever its rights are: then the unit is named, not the rights.
func TestMayWrite(t *testing.T) {
	if s := mayWrite("/srv/drop", &os.PathError{Op: "mkdir", Path: "/srv/drop/done", Err: syscall.EROFS}); !strings.Contains(s, "ReadWritePaths=/srv/drop") || strings.Index(s, "if it is not there (install -d -o tocsin-collector /srv/drop)") > strings.Index(s, "systemctl edit") || !strings.Contains(s, "install -d") {
		t.Error(s)
	}
	if s := mayWrite("/srv/drop", fs.ErrPermission); !strings.Contains(s, "collector's user") {
		t.Error(s)
	}
}

// More files match than are followed at once: that is said, and what is followed is still read over its rotation, which makes room.
func TestTooMany(t *testing.T) {
	b := newBench(t)
	for i := range maxFiles + 3 {
		b.write(fmt.Sprintf("%04d.log", i), "")
	}
	b.o.Paths = []string{b.path("*.log"), b.path("1*.log")}
	b.start()
	b.write("0000.log", "1\n")
	b.want("1")
	if n := b.in.Unfollowed(); n != 3 {
		t.Errorf("%d files are not followed, want 3", n)
	}
	for i := range 3 {
		b.must(os.Rename(b.path(fmt.Sprintf("%04d.log", i)), b.path(fmt.Sprintf("%04d.old", i))))
	}
	b.write("0000.old", "2\n")
	b.want("1", "2")
	for deadline := time.Now().Add(10 * time.Second); b.in.Unfollowed() > 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		b.clock.add(time.Second)
	}
	b.write("1026.log", "3\n")
	b.want("1", "2", "3")
	if st := b.in.Stats(); st.By["rotations"] != 3 || b.in.Unfollowed() != 0 {
		t.Errorf("%v, %d not followed", st.By, b.in.Unfollowed())
	}
}

// A file that is renamed between being seen and being opened is no fault of its rights.
func TestGoneBeforeOpened(t *testing.T) {
	b := newBench(t)
	var logs bytes.Buffer
	b.o.Logger = slog.New(slog.NewTextHandler(&logs, nil))
	in, err := New(b.o)
	b.must(err)
	if f, gone := in.begin(b.path("a.log"), 0, false); f != nil || !gone {
		t.Errorf("%v %v", f, gone)
	}
	if s := logs.String(); strings.Contains(s, "ERROR") || strings.Contains(s, "let the collector") || !strings.Contains(s, "renamed or deleted between") {
		t.Error(s)
	}
}

// Killed at random places of a run with rotation, truncation and dropped files: every line once.
func TestKill(t *testing.T) {
	rounds := 30
	if os.Getenv("TOCSIN_TEST_TORTURE") != "" {
		rounds = 300
	}
	b := newBench(t)
	b.o.Drop, b.o.Settle, b.o.MaxLine, b.o.Chunk = b.path("in"), time.Nanosecond, 64, 512 // so small that a kill comes while it catches up
	b.must(os.MkdirAll(b.o.Drop, 0o700))
	r := rand.New(rand.NewPCG(1, 2))
	rotate := func(name string) {
		if err := os.Rename(b.path("a.log"), b.path(name)); !errors.Is(err, fs.ErrNotExist) {
			b.must(err)
		}
	}
	n := 0
	line := func() string { n++; return fmt.Sprintf("line %d\n", n) }
	for round := range rounds {
		in, err := New(b.o)
		b.must(err)
		ctx, kill := context.WithCancel(t.Context())
		sink := &store{lines: b.store.snapshot()}
		done := make(chan struct{})
		go func() { _ = in.Serve(ctx, sink); close(done) }()
		for step := range 6 {
			for range r.IntN(300) {
				b.write("a.log", line())
			}
			if r.IntN(3) == 0 {
				b.write(fmt.Sprintf("in/.%d-%d", round, step), line()+line()+line())
				b.must(os.Rename(b.path(fmt.Sprintf("in/.%d-%d", round, step)), b.path(fmt.Sprintf("in/%d-%d", round, step))))
			}
			if r.IntN(6) == 0 {
				rotate(fmt.Sprintf("a.old.%d-%d", round, step))
				b.write("a.log", line())
			}
			b.clock.add(time.Duration(r.IntN(700)) * time.Millisecond) // places are written once a second
			time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)    // lets it work or not, at random: that is the test
		}
		sink.mu.Lock()
		sink.refuse = true // nothing is received or written from here on, as after a kill
		b.store.lines = slices.Clone(sink.lines)
		sink.mu.Unlock()
		kill()
		<-done
		for range r.IntN(100) { // it goes on being written meanwhile
			b.write("a.log", line())
		}
		if r.IntN(3) == 0 {
			rotate(fmt.Sprintf("a.old.%d", round))
		}
	}
	b.start()
	last := fmt.Sprintf("line %d", n)
	for deadline := time.Now().Add(2 * time.Minute); (len(b.store.snapshot()) < n || !slices.Contains(b.store.snapshot(), last)) && time.Now().Before(deadline); {
		b.clock.add(time.Minute)
		time.Sleep(time.Millisecond)
	}
	b.stop()
	seen := map[string]int{}
	for _, l := range b.store.snapshot() {
		seen[l]++
	}
	bad := 0
	for i := range n {
		if k := seen[fmt.Sprintf("line %d", i+1)]; k != 1 && bad < 20 {
			bad++
			t.Errorf("line %d came %d times", i+1, k)
		}
	}
}

// Whatever is in a file: no line is longer than allowed, none holds a line end, and what was read is in the file.
func FuzzLines(f *testing.F) {
	f.Add([]byte("one\ntwo\r\n\n\x00\x00three"), 5)
	f.Add([]byte("\xef\xbb\xbf"+strings.Repeat("x", 100)+"\nend"), 10)
	f.Fuzz(func(t *testing.T, b []byte, most int) {
		most = min(max(most, 1), 1<<16)
		total := 0
		err := splitLines(bytes.NewReader(b), most, func(text []byte, cut bool) error {
			if len(text) == 0 || len(text) > most || bytes.IndexByte(text, '\n') >= 0 || !bytes.Contains(b, text) {
				t.Fatalf("%q (cut %v) of %q", text, cut, b)
			}
			total += len(text)
			return nil
		})
		if err != nil || total > len(b) {
			t.Fatal(err, total)
		}
	})
}
