package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/collector/spool"
	"tocsin/internal/event"
)

// long skips a test that takes its time in the ordinary run.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("TOCSIN_TEST_TORTURE") == "" {
		t.Skip("SKIPPED: long; make torture runs it")
	}
}

// onDisk puts the site's folder on a disk of its own, of so many bytes.
func (s *site) onDisk(size int) {
	s.t.Helper()
	beside := s.cfg.Dir + "-before"
	if err := errors.Join(os.Rename(s.cfg.Dir, beside), os.Mkdir(s.cfg.Dir, 0o700)); err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", s.cfg.Dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		s.t.Skipf("SKIPPED: a small disk cannot be mounted here (%v): run as root", err)
	}
	s.t.Cleanup(func() {
		if err := syscall.Unmount(s.cfg.Dir, syscall.MNT_DETACH); err != nil {
			s.t.Error(err)
		}
	})
	copyDir(s.t, beside, s.cfg.Dir)
}

// feed sends lines, as fast as they are taken, and does not wait for the end of it.
func feed(r *running, n int, line func(i int) string) {
	c := r.tcp()
	go func() {
		for i := range n {
			if _, err := fmt.Fprintf(c, "%s\n", line(i)); err != nil {
				return
			}
		}
	}()
}

// The disk fills up while the hub is away: senders wait, signs of attack are kept, and when the hub is back everything goes on by itself, although
// nobody made room.
func TestTortureDiskFull(t *testing.T) {
	t.Parallel()
	long(t)
	h := newHub(t)
	s := newSite(t, h, "Quarry")
	s.cfg.Archive.MaxBytes = 64 << 20 // more than there is, as the next
	s.cfg.Spool.MaxBytes, s.cfg.RetryMax = 64<<20, 200*time.Millisecond
	s.onDisk(24 << 20)
	r := s.start()
	feed(r, 10, func(i int) string { return vpn(false, "203.0.113.1", "someone") })
	r.settled(10)
	h.away()
	const n = 36000
	signs := 0
	for i := range n {
		if i%4 != 0 {
			signs++
		}
	}
	feed(r, n, func(i int) string {
		if i%4 == 0 {
			return traffic("deny", "203.0.113.7", "198.51.100.7", i)
		}
		return vpn(false, fmt.Sprintf("203.0.%d.%d", i/200%250+1, i%200+1), "someone")
	})
	st := r.until("the disk is full, lines wait and noise was let go", func(st *collector.Status) bool {
		return st.Full && st.Counts["dropped.spool_full.denied_inbound"] > 0
	})
	if st.Counts["dropped.spool_full.failed_authentication"] > 0 {
		t.Errorf("signs were let go: %v", st.Counts)
	}
	h.back()
	r.settled(n + 10)
	k := h.take(s.id)
	k.balance(t)
	if k.counts["received"] != n+10 || k.counts["left.failed_authentication"] != uint64(signs)+10 || sum(k.counts, "dropped.") != k.counts["dropped.spool_full.denied_inbound"] {
		t.Errorf("%v", k.counts)
	}
	r.until("the reserve is there again", func(st *collector.Status) bool {
		_, err := os.Stat(filepath.Join(s.cfg.Dir, "reserve"))
		return err == nil && !st.Full
	})
	r.end()
}

// A disk that was mounted for reading only is named at the start; one that becomes so under way is waited for. Nothing that was received is lost.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Barn")
	s.onDisk(32 << 20)
	var readOnly atomic.Bool
	open := func(o *collector.Options) {
		o.OpenFile = func(name string) (spool.File, error) {
			if readOnly.Load() {
				return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EROFS}
			}
			f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
			return &readOnlyFile{f, &readOnly}, err
		}
	}
	r := s.start(open)
	line := func(i int) string { return traffic("deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i) }
	feed(r, 1000, line)
	r.until("some lines are worked on", func(st *collector.Status) bool { return st.Counts["received"] > 0 })
	readOnly.Store(true)
	feed(r, 1000, line)
	r.until("lines wait", func(st *collector.Status) bool { return st.Full })
	readOnly.Store(false)
	r.settled(2000)
	feed(r, 500, line)
	r.settled(2500)
	r.end()
	remount := func(flags uintptr) {
		if err := syscall.Mount("tmpfs", s.cfg.Dir, "tmpfs", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	if a, err := collector.Open(collector.Options{Config: s.cfg, Version: "test", Detector: detector}); err == nil {
		a.Close()
		t.Error("a collector began on a disk that cannot be written to")
	} else if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), s.cfg.Dir) {
		t.Errorf("what is said of a disk that cannot be written to: %v", err)
	}
	remount(0)
	r = s.start()
	feed(r, 500, line)
	r.until("the lines after it", func(st *collector.Status) bool {
		return st.Counts["received"] == 3000 && st.Waiting == 0 && st.Sent == st.Acknowledged && !st.Unreported
	})
	k := h.take(s.id)
	k.balance(t)
	if k.counts["received"] != 3000 || k.counts["left.denied_inbound"] != 3000 || len(k.events) != 3000+int(sum(k.counts, "made.")) {
		t.Errorf("%v", k.counts)
	}
	r.end()
}

// slowly is a detector that, from a line on, asks for the end and is slow.
type slowly struct {
	collector.Detector
	lines, from int
	stop        func()
}

func (d *slowly) Process(e *event.Event, now int64) []event.Detection {
	if d.lines++; d.lines == d.from {
		d.stop()
	}
	if d.lines >= d.from && d.lines%2 == 0 {
		time.Sleep(time.Millisecond) // a slow machine: that there is more than it can do while its inputs end, about a second, is the test
	}
	return d.Detector.Process(e, now)
}

// A collector that is asked to end does so in its time, however much there is to work on; the next one goes on where it stood.
func TestTortureEndBehind(t *testing.T) {
	t.Parallel()
	long(t)
	h := newHub(t)
	s := newSite(t, h, "Ferry")
	s.cfg.RetryMax = 200 * time.Millisecond
	var passed atomic.Int64 // seconds: once the end is asked for, time flies
	var ending atomic.Bool
	var r *running
	h.away()
	r = s.start(func(o *collector.Options) {
		o.HoldStart = time.Hour // lines pile up until the hub answers
		o.Now = func() time.Time {
			if ending.Load() {
				passed.Add(1)
			}
			return time.Now().Add(time.Duration(passed.Load()) * time.Second)
		}
		o.Detector = func(o collector.DetectorOptions) (collector.Detector, error) {
			det, err := detector(o)
			return &slowly{Detector: det, from: 3000, stop: func() { ending.Store(true); r.stop() }}, err
		}
	})
	const n = 20_000
	c := r.tcp()
	for i := range n {
		fmt.Fprintf(c, "%s\n", traffic("accept", "10.0.0.5", "203.0.113.200", i))
	}
	r.until("all lines", func(st *collector.Status) bool { return st.Listeners[1].Lines == n })
	c.Close()
	h.back()
	select {
	case err := <-r.done:
		r.done <- err
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	r.end()
	if got := r.Status().Counts["received"]; got < 3000 || got == n {
		t.Errorf("it worked on %d of %d lines before it ended", got, n)
	}
	r = s.start()
	r.settled(n)
	k := h.take(s.id)
	k.balance(t)
	if k.counts["received"] != n {
		t.Errorf("%d lines: %v", n, k.counts)
	}
	r.end()
}

// A disk that is full when the collector begins, in a folder of an older version: it begins, lines wait, and when there is room everything goes on
// and the folder gets its newest form.
func TestTortureFullAtStart(t *testing.T) {
	t.Parallel()
	long(t)
	h := newHub(t)
	s := newSite(t, h, "Loft")
	s.cfg.Archive.MaxBytes, s.cfg.Spool.MaxBytes = 64<<20, 64<<20
	s.onDisk(16 << 20)
	line := func(i int) string { return traffic("deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i) }
	r := s.start()
	feed(r, 100, line)
	r.settled(100)
	r.end()
	format := filepath.Join(s.cfg.Dir, "format")
	ballast := filepath.Join(s.cfg.Dir, "ballast")
	b, err := os.Create(ballast)
	if err := errors.Join(err, os.Remove(format), os.Remove(filepath.Join(s.cfg.Dir, "reserve"))); err != nil {
		t.Fatal(err)
	}
	for size := 64 << 10; size > 0; size /= 2 { // to the last byte
		for err == nil {
			_, err = b.Write(make([]byte, size))
		}
		err = nil
	}
	b.Close()
	var off atomic.Int64
	r = s.start(func(o *collector.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
	})
	feed(r, 100, line)
	r.until("lines wait", func(st *collector.Status) bool { return st.Full })
	if _, err := os.Stat(format); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(s.logs.String(), "cannot write DIR/format") {
		t.Errorf("the form of a folder that cannot be written to: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	r.settled(200)
	off.Store(int64(time.Minute)) // it is tried now and then
	r.until("the newest form", func(*collector.Status) bool { _, err := os.Stat(format); return err == nil })
	k := h.take(s.id)
	k.balance(t)
	if k.counts["received"] != 200 || k.counts["left.denied_inbound"] != 200 {
		t.Errorf("%v", k.counts)
	}
	r.end()
}

type readOnlyFile struct {
	*os.File
	yes *atomic.Bool
}

func (f *readOnlyFile) Write(b []byte) (int, error) {
	if f.yes.Load() {
		return 0, syscall.EROFS
	}
	return f.File.Write(b)
}

func (f *readOnlyFile) Sync() error {
	if f.yes.Load() {
		return syscall.EROFS
	}
	return f.File.Sync()
}

func (f *readOnlyFile) Truncate(size int64) error {
	if f.yes.Load() {
		return syscall.EROFS
	}
	return f.File.Truncate(size)
}

// The collector's clock jumps, forwards and backwards, while lines come in; and it goes on for ten days while the hub is away, over the end of the
// certificate, with a restart. Everything arrives once, and the sum balances.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, c := range []struct {
		name  string
		steps []time.Duration // the clock's error after each burst
		away  bool
	}{
		{"back and forth", []time.Duration{6 * time.Hour, -6 * time.Hour, 900 * day, -2 * day, 0}, false},
		{"days without the hub", []time.Duration{day, 4 * day, 10 * day}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			s := newSite(t, h, "Mill")
			var off atomic.Int64
			clock := func(o *collector.Options) {
				o.Now = func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
			}
			r := s.start(clock)
			n := uint64(0)
			burst := func() {
				conn := r.tcp()
				for i := range 300 {
					fmt.Fprintf(conn, "%s\n", traffic("deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i))
					n++
				}
			}
			burst()
			r.settled(n)
			if c.away {
				h.away()
			}
			for i, step := range c.steps {
				off.Store(int64(step))
				burst()
				r.until("the lines are worked on", func(st *collector.Status) bool { return st.Counts["received"] == n })
				if c.away && i == 1 {
					r.end()
					r = s.start(clock)
				}
			}
			if c.away {
				h.back()
			}
			r.settled(n)
			k := h.take(s.id)
			k.balance(t)
			if k.counts["received"] != n || k.counts["left.denied_inbound"] != n || len(k.events) != int(n+sum(k.counts, "made.")) {
				t.Errorf("%d lines: %v", n, k.counts)
			}
			r.end()
		})
	}
}
