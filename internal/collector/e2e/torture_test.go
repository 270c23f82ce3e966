package e2e

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/listen/listentest"
	"tocsin/internal/collector/spool"
	"tocsin/internal/event"
)

// program builds the real collector once. TOCSIN_TEST_COLLECTOR names another one in its place, such as a package's, or one for another
// processor.
var program = sync.OnceValues(func() (string, error) {
	if name := os.Getenv("TOCSIN_TEST_COLLECTOR"); name != "" {
		return name, nil
	}
	dir, err := os.MkdirTemp("", "tocsin-collector")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "tocsin-collector")
	cmd := exec.Command("go", "build", "-o", name, "tocsin/cmd/tocsin-collector")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return name, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built.Load() && os.Getenv("TOCSIN_TEST_COLLECTOR") == "" { // asking first would build it for nothing
		if name, err := program(); err == nil {
			os.RemoveAll(filepath.Dir(name))
		}
	}
	os.Exit(code)
}

var built atomic.Bool

// child is a collector in a process of its own.
type child struct {
	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{}
}

// writeConfig puts the settings on disk, with fixed ports, as a person would have them.
func (s *site) writeConfig(udp, tcp int) string {
	s.t.Helper()
	name := filepath.Join(filepath.Dir(s.cfg.Dir), filepath.Base(s.cfg.Dir)+".yaml")
	err := os.WriteFile(name, fmt.Appendf(nil, `dir: %s
listen:
  syslog:
    - {udp: "127.0.0.1:%d", tcp: "127.0.0.1:%d", timezone: UTC}
own_ranges: [198.51.100.0/24]
spool: {max_bytes: %d}
retry_max: 1s
log: {level: debug}
`, s.cfg.Dir, udp, tcp, s.cfg.Spool.MaxBytes), 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	return name
}

func (s *site) spawn(config string) *child {
	s.t.Helper()
	return s.spawnProgram("", config)
}

// spawnProgram starts another program than this version's; "": this version's.
func (s *site) spawnProgram(bin, config string) *child {
	s.t.Helper()
	if bin == "" {
		built.Store(true)
		var err error
		if bin, err = program(); err != nil {
			s.t.Fatal(err)
		}
	}
	c := &child{t: s.t, cmd: exec.Command(bin, "run", "--config", config), done: make(chan struct{})}
	c.cmd.Stderr = s.logs
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { c.cmd.Wait(); close(c.done) }()
	s.t.Cleanup(c.kill)
	return c
}

func (c *child) kill() {
	c.cmd.Process.Kill()
	<-c.done
}

// term ends the child in order.
func (c *child) term() {
	c.t.Helper()
	c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
		if code := c.cmd.ProcessState.ExitCode(); code != 0 {
			c.t.Errorf("the collector ended with code %d", code)
		}
	case <-time.After(20 * time.Second):
		c.t.Error("the collector did not end within 20 s of SIGTERM")
		c.kill()
	}
}

// ports finds two free ones.
func ports(t testing.TB) (udp, tcp int) {
	t.Helper()
	return listentest.Port(t, "udp"), listentest.Port(t, "tcp")
}

// load sends lines over TCP until ctx ends, connecting again whenever the collector is gone. Every third line stays at home.
func load(ctx context.Context, addr string, pace time.Duration) {
	for n := 0; ctx.Err() == nil; {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		w := bufio.NewWriter(c)
		for ctx.Err() == nil {
			for range 20 {
				switch n % 3 {
				case 0:
					fmt.Fprintf(w, "%s\n", traffic("accept", "10.0.0.5", "203.0.113.200", n))
				case 1:
					fmt.Fprintf(w, "%s\n", traffic("deny", fmt.Sprintf("203.0.113.%d", n%250+1), "198.51.100.7", n))
				default:
					fmt.Fprintf(w, "%s\n", vpn(n%97 != 2, fmt.Sprintf("203.0.113.%d", n%250+1), "someone"))
				}
				n++
			}
			if w.Flush() != nil {
				break
			}
			time.Sleep(pace)
		}
		c.Close()
	}
}

// settledChild waits until a collector in another process has nothing left to send.
func settledChild(t *testing.T, s *site) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	quiet := uint64(0)
	for {
		st, err := collector.FetchStatus(t.Context(), &s.cfg)
		if err == nil && st.Waiting == 0 && st.Sent == st.Acknowledged && !st.Unreported && st.ArchiveLag == 0 && st.Counts["received"] > 0 {
			if quiet == st.Counts["received"] {
				return
			}
			quiet = st.Counts["received"]
			time.Sleep(300 * time.Millisecond)
			continue
		}
		if time.Now().After(deadline) {
			t.Fatalf("not settled: %v %+v", err, st)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// A snapshot of the disk, taken while the program works (it is stopped for the moment, as a snapshot of a virtual machine does it), comes
// back after the original has gone on: the lines of both are at the hub, none twice.
func TestSnapshotUnderLoad(t *testing.T) {
	t.Parallel()
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv("TOCSIN_TORTURE")); err == nil && n > 0 {
		rounds = 1 + n/20
	}
	for range rounds {
		h := newHub(t)
		s := newSite(t, h, "Snapshot")
		udp, tcp := ports(t)
		config := s.writeConfig(udp, tcp)
		ctx, stop := context.WithCancel(t.Context())
		fed := make(chan struct{})
		go func() { load(ctx, fmt.Sprintf("127.0.0.1:%d", tcp), 2*time.Millisecond); close(fed) }()
		c := s.spawn(config)
		time.Sleep(time.Duration(1500+rand.IntN(700)) * time.Millisecond)
		c.cmd.Process.Signal(syscall.SIGSTOP)
		snapshot := s.cfg.Dir + "-snapshot"
		copyDir(t, s.cfg.Dir, snapshot)
		c.cmd.Process.Signal(syscall.SIGCONT)
		time.Sleep(time.Duration(rand.IntN(1500)) * time.Millisecond)
		stop()
		<-fed
		settledChild(t, s)
		c.term()
		first := h.take(s.id)
		first.balance(t)
		if err := os.RemoveAll(s.cfg.Dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(snapshot, s.cfg.Dir); err != nil {
			t.Fatal(err)
		}
		c = s.spawn(config)
		ctx, stop = context.WithCancel(t.Context())
		fed = make(chan struct{})
		go func() { load(ctx, fmt.Sprintf("127.0.0.1:%d", tcp), 2*time.Millisecond); close(fed) }()
		time.Sleep(time.Second)
		stop()
		<-fed
		settledChild(t, s)
		st, err := collector.FetchStatus(t.Context(), &s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.term()
		k := h.take(s.id)
		k.balance(t)
		if st.Counts["copies_noticed"] != 1 {
			t.Errorf("copies noticed: %d", st.Counts["copies_noticed"])
		}
		if k.counts["received"] <= first.counts["received"] || len(k.events) <= len(first.events) {
			t.Errorf("nothing came after the return: %d lines before, %d after", first.counts["received"], k.counts["received"])
		}
		// Every line of the restored disk that was to leave is there once; those of before the snapshot came from either.
		missing := 0
		a, err := archive.Open(archive.Options{Dir: filepath.Join(s.cfg.Dir, "archive")})
		if err != nil {
			t.Fatal(err)
		}
		r := a.Reader(spool.Pos{})
		for {
			var l archive.Line
			if r.Next(&l) != nil {
				break
			}
			if strings.Contains(string(l.Text), `action="deny"`) && len(k.byLine[int64(l.Number)]) != 1 {
				missing++
			}
		}
		r.Close()
		a.Close()
		if missing > 0 {
			t.Errorf("%d lines of the restored disk are not at the hub exactly once", missing)
		}
	}
}

// What the on-site rules remember survives a kill: failures before it and a success after it are one detection, told once.
func TestDetectionOverKill(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Memory")
	udp, tcp := ports(t)
	config := s.writeConfig(udp, tcp)
	say := func(lines ...string) {
		t.Helper()
		var c net.Conn
		var err error
		for range 200 {
			if c, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", tcp)); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "%s\n", strings.Join(lines, "\n"))
	}
	received := func(n uint64) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for {
			if st, err := collector.FetchStatus(t.Context(), &s.cfg); err == nil && st.Counts["received"] >= n && st.Waiting == 0 && st.Sent == st.Acknowledged && !st.Unreported {
				return
			} else if time.Now().After(deadline) {
				t.Fatalf("%d lines not settled: %v %+v", n, err, st)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	c := s.spawn(config)
	say(vpn(false, "203.0.113.9", "ann"), vpn(false, "203.0.113.9", "ann"), vpn(false, "203.0.113.9", "ann"), vpn(false, "203.0.113.9", "ann"))
	received(4)
	c.term() // the rules' memory is saved
	c = s.spawn(config)
	for range 8 {
		say(vpn(false, "203.0.113.9", "ann"))
	}
	received(12)
	c.kill() // what came since is only in the archive
	c = s.spawn(config)
	say(vpn(true, "203.0.113.9", "ann"))
	received(13)
	c.kill()
	c = s.spawn(config)
	received(13)
	c.term()
	if strings.Contains(s.logs.String(), "begin anew") {
		t.Error("the rules' memory was not used")
	}
	k := h.take(s.id)
	k.balance(t)
	found := 0
	for i := range k.events {
		if d, err := event.ToDetection(&k.events[i]); err == nil && d.Family == "account-takeover" {
			found++
		}
	}
	if found != 1 || k.counts["left.site_detection"] != 1 {
		t.Errorf("%d detections: %v", found, k.counts)
	}
}

// faults stands between the collector and its disk.
type faults struct {
	left   atomic.Int64 // bytes until the disk is full
	failed atomic.Int64
}

type faultyFile struct {
	*os.File
	f *faults
}

func (f *faults) open(name string) (spool.File, error) {
	if f.left.Load() <= 0 {
		if _, err := os.Stat(name); err != nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: syscall.ENOSPC}
		}
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return faultyFile{file, f}, nil
}

func (f faultyFile) Write(b []byte) (int, error) {
	if left := f.f.left.Add(-int64(len(b))); left < 0 {
		f.f.left.Add(int64(len(b)))
		f.f.failed.Add(1)
		n, _ := f.File.Write(b[:len(b)/2]) // a full disk takes a part, which is taken back
		return n, syscall.ENOSPC
	}
	return f.File.Write(b)
}

// The disk is full again and again, at whatever is being written: lines wait, nothing is lost, and the sums balance.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Full")
	f := &faults{}
	f.left.Store(1 << 20)
	r := s.start(func(o *collector.Options) { o.OpenFile = f.open })
	const n = 6000
	sent := make(chan error, 1)
	c := r.tcp()
	go func() {
		w := bufio.NewWriter(c)
		for i := range n {
			fmt.Fprintf(w, "%s\n", traffic([]string{"deny", "accept"}[i%2], fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i))
		}
		sent <- w.Flush()
	}()
	full, failed := 0, int64(0)
	deadline := time.Now().Add(60 * time.Second)
	for r.Status().Counts["received"] < n {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", r.Status())
		}
		if seen := f.failed.Load(); seen > failed {
			failed = seen
			full++
			f.left.Add(rand.Int64N(256 << 10))
		}
		time.Sleep(5 * time.Millisecond)
	}
	f.left.Store(1 << 40)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	r.settled(n)
	r.end()
	if full < 3 {
		t.Errorf("the disk was full %d times: nothing was tested", full)
	}
	k := h.take(s.id)
	if k.counts["received"] != n || k.counts["left.denied_inbound"] != n/2 {
		t.Errorf("%d lines: %v", n, k.counts)
	}
	k.balance(t)
	audit(t, k, s)
}

// The same on a real file system without room.
func TestSmallDisk(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: mounting a small file system needs root")
	}
	h := newHub(t)
	s := newSite(t, h, "Small")
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=32m"); err != nil {
		t.Skipf("SKIPPED: cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	small := filepath.Join(dir, "c")
	copyDir(t, s.cfg.Dir, small)
	s.cfg.Dir = small
	s.cfg.Archive.MaxBytes, s.cfg.Spool.MaxBytes = 8<<20, 8<<20
	ballast := filepath.Join(dir, "ballast")
	r := s.start()
	c := r.tcp()
	n := uint64(0)
	for range 4000 {
		fmt.Fprintf(c, "%s\n", traffic("deny", "203.0.113.1", "198.51.100.7", int(n)))
		n++
	}
	r.settled(n)
	// Somebody else fills the disk.
	b, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := b.Write(make([]byte, 64<<10)); err != nil {
			break
		}
	}
	go func() {
		for range 4000 {
			if _, err := fmt.Fprintf(c, "%s\n", traffic("deny", "203.0.113.1", "198.51.100.7", 1)); err != nil {
				return
			}
		}
	}()
	r.until("the disk is full", func(st *collector.Status) bool { return st.Full || strings.Contains(s.logs.String(), "no space left") })
	b.Close()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	n += 4000
	r.settled(n)
	r.end()
	// The archive has given up old lines to make room, so the hub is compared with what was sent.
	k := h.take(s.id)
	k.balance(t)
	if k.counts["received"] != n || len(k.events) != int(n+sum(k.counts, "made.")) {
		t.Errorf("%d lines: %v", n, k.counts)
	}
}
