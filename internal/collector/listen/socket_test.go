package listen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// store is a sink that keeps lines in memory and may be told to wait.
type store struct {
	mu    sync.Mutex
	lines []string
	cut   int
	via   Via           // of the newest line
	gate  chan struct{} // closed: open
	grown chan struct{}
}

func newStore() *store {
	s := &store{gate: make(chan struct{}), grown: make(chan struct{}, 1)}
	close(s.gate)
	return s
}

func (s *store) Receive(ctx context.Context, lines []Line) error {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	select {
	case <-gate:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range lines {
		s.lines = append(s.lines, string(l.Text))
		s.via = l.Via
		if l.Cut {
			s.cut++
		}
		if l.Sender.String() != "127.0.0.1" || l.Created == 0 {
			return fmt.Errorf("line from %v at %d", l.Sender, l.Created)
		}
	}
	select {
	case s.grown <- struct{}{}:
	default:
	}
	return nil
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines)
}

func (s *store) wait(t *testing.T, n int) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for s.count() < n {
		select {
		case <-s.grown:
		case <-deadline:
			t.Fatalf("%d lines after 20 s, want %d", s.count(), n)
		}
	}
}

type server interface {
	Addr() net.Addr
	Serve(context.Context, Sink) error
	Stats() Stats
}

// start serves and gives a function that ends serving and waits for it.
func start(t *testing.T, s server, sink Sink) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, sink) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("serve: %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("serve did not end")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func dial(t *testing.T, s server) net.Conn {
	t.Helper()
	c, err := net.Dial(s.Addr().Network(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func udp(t *testing.T, o Options) *UDP {
	t.Helper()
	u, err := ListenUDP("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func tcp(t *testing.T, o Options) *TCP {
	t.Helper()
	s, err := ListenTCP("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUDP(t *testing.T) {
	u, s := udp(t, Options{MaxLine: 1000}), newStore()
	start(t, u, s)
	c := dial(t, u)
	for _, m := range []string{"<13>one\n", "", "\n", "<13>two\x00", strings.Repeat("x", 3000), "\xff\xfe<13>not utf-8", strings.Repeat("y", 65507)} {
		if _, err := c.Write([]byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	s.wait(t, 5)
	if got := fmt.Sprintf("%.12q", s.lines); !strings.HasPrefix(got, `["<13>one" "<13>two" "xxxxxxxxxxxx" "\xff\xfe<13>not u`) {
		t.Error(got)
	}
	if st := u.Stats(); st.Lines != 5 || st.Cut != 2 || s.cut != 2 || st.Empty != 2 || len(s.lines[2]) != 1000 || st.ReadBuffer == 0 {
		t.Errorf("%+v", st)
	}
}

// When nobody reads, the kernel drops, and each dropped datagram is counted.
func TestUDPDropsAreCounted(t *testing.T) {
	u, s := udp(t, Options{ReadBuffer: 20000}), newStore()
	s.gate = make(chan struct{})
	stop := start(t, u, s)
	c := dial(t, u)
	const sent = 5000
	msg := []byte("<13>" + strings.Repeat("x", 400))
	for range sent {
		if _, err := c.Write(msg); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	close(s.gate)
	s.mu.Unlock()
	stop()
	st := u.Stats()
	if st.KernelDrops == 0 || st.Lines+st.KernelDrops != sent || s.count() != int(st.Lines) {
		t.Fatalf("sent %d, lines %d, kept %d, dropped %d", sent, st.Lines, s.count(), st.KernelDrops)
	}
}

// What has reached the kernel when serving ends is still taken.
func TestUDPDrain(t *testing.T) {
	u, s := udp(t, Options{}), newStore()
	c := dial(t, u)
	for i := range 300 {
		fmt.Fprintf(c, "<13>line %d", i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := u.Serve(ctx, s); err != nil {
		t.Fatal(err)
	}
	if s.count() != 300 {
		t.Fatalf("%d lines of 300; %+v", s.count(), u.Stats())
	}
}

func TestTCP(t *testing.T) {
	srv, s := tcp(t, Options{MaxLine: 1000}), newStore()
	stop := start(t, srv, s)
	a, b := dial(t, srv), dial(t, srv)
	fmt.Fprintf(a, "<13>one\n7 <13>two")
	fmt.Fprintf(b, "%s\n<13>after a long line\n", strings.Repeat("x", 1<<20))
	s.wait(t, 4)
	fmt.Fprintf(a, "<13>no end")
	a.Close()
	s.wait(t, 5)
	fmt.Fprintf(b, "<13>last\n") // in the kernel when serving ends
	stop()
	if s.count() != 6 || s.lines[5] != "<13>last" {
		t.Fatalf("%.20q", s.lines)
	}
	if st := srv.Stats(); st.Lines != 6 || st.Cut != 1 || st.Conns != 0 {
		t.Fatalf("%+v", st)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && err == nil {
		t.Fatalf("connection left open: %v", err)
	}
}

// Limits: by address, in all, and room made by the one that has been silent longest.
func TestTCPLimits(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	srv, s := tcp(t, Options{MaxConns: 4, MaxPerAddr: 4, Now: clock}), newStore()
	start(t, srv, s)
	var conns []net.Conn
	for i := range 4 {
		c := dial(t, srv)
		fmt.Fprintf(c, "<13>hello %d\n", i)
		conns = append(conns, c)
	}
	s.wait(t, 4)
	refused := dial(t, srv)
	if _, err := refused.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("fifth connection from one address: %v", err)
	}
	if st := srv.Stats(); st.Refused != 1 || st.Conns != 4 {
		t.Fatalf("%+v", st)
	}
	srv.mu.Lock()
	srv.o.MaxPerAddr = 100
	srv.mu.Unlock()
	refused = dial(t, srv)
	if _, err := refused.Read(make([]byte, 1)); err == nil {
		t.Fatal("a fifth connection was taken although none was idle")
	}
	mu.Lock()
	now = now.Add(10 * time.Minute)
	mu.Unlock()
	for _, i := range []int{0, 1, 3} {
		fmt.Fprintf(conns[i], "<13>still here\n")
	}
	s.wait(t, 7)
	c := dial(t, srv)
	fmt.Fprintf(c, "<13>new\n")
	s.wait(t, 8)
	if _, err := conns[2].Read(make([]byte, 1)); err == nil {
		t.Fatal("the silent connection was kept")
	}
	if st := srv.Stats(); st.Evicted != 1 || st.Conns != 4 || st.Refused != 2 {
		t.Fatalf("%+v", st)
	}
}

// A line that does not end is delivered as it is; a counted message that does not end closes its connection.
func TestTCPSlow(t *testing.T) {
	srv, s := tcp(t, Options{LineTimeout: 50 * time.Millisecond}), newStore()
	start(t, srv, s)
	a, b := dial(t, srv), dial(t, srv)
	fmt.Fprintf(a, "\n<13>end comes with the next one")
	s.wait(t, 1)
	fmt.Fprintf(a, "\n<13>next\n")
	s.wait(t, 2)
	fmt.Fprintf(b, "100 <13>slow")
	s.wait(t, 3)
	if _, err := b.Read(make([]byte, 1)); err == nil {
		t.Fatal("connection kept")
	}
	if st := srv.Stats(); st.Slow != 2 || st.Cut != 1 || s.lines[1] != "<13>next" {
		t.Fatalf("%+v %q", st, s.lines)
	}
}

// While the sink waits nothing is lost: the sender is slowed down.
func TestTCPBackPressure(t *testing.T) {
	srv, s := tcp(t, Options{}), newStore()
	s.gate = make(chan struct{})
	start(t, srv, s)
	c := dial(t, srv)
	const n = 200000
	go func() {
		w := bufio.NewWriter(c)
		for i := range n {
			fmt.Fprintf(w, "<13>line %d of a sender that is faster than the disk\n", i)
		}
		w.Flush()
		c.Close()
	}()
	for srv.Stats().Lines == 0 {
		time.Sleep(time.Millisecond)
	}
	s.mu.Lock()
	close(s.gate)
	s.mu.Unlock()
	s.wait(t, n)
	for i, l := range s.lines {
		if l != fmt.Sprintf("<13>line %d of a sender that is faster than the disk", i) {
			t.Fatalf("line %d is %q", i, l)
		}
	}
}

// A stranger's sender: rsyslog, over UDP, TCP with line ends, and TCP with octet counting.
func TestRsyslog(t *testing.T) {
	bin, err := exec.LookPath("rsyslogd")
	if err != nil {
		if _, serr := os.Stat("/usr/sbin/rsyslogd"); serr != nil {
			t.Skip("SKIPPED: rsyslogd is not installed (Debian: apt-get install rsyslog); rsyslog as a sender was not tested")
		}
		bin = "/usr/sbin/rsyslogd"
	}
	const n = 5000
	for _, mode := range []string{"udp", "tcp", "octet-counted"} {
		t.Run(mode, func(t *testing.T) {
			var srv server
			proto, extra := "tcp", ""
			switch mode {
			case "udp":
				srv, proto = udp(t, Options{}), "udp"
			case "octet-counted":
				extra = `TCP_Framing="octet-counted"`
				fallthrough
			default:
				srv = tcp(t, Options{})
			}
			s := newStore()
			start(t, srv, s)
			dir := t.TempDir()
			input := filepath.Join(dir, "in.log")
			var text strings.Builder
			for i := range n {
				fmt.Fprintf(&text, "message %d of a real sender with a \"quoted\" word and ünïcode\n", i)
			}
			if err := os.WriteFile(input, []byte(text.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			_, port, _ := net.SplitHostPort(srv.Addr().String())
			conf := filepath.Join(dir, "rsyslog.conf")
			err := os.WriteFile(conf, fmt.Appendf(nil, `
global(workDirectory=%q)
module(load="imfile" mode="polling" pollingInterval="1")
input(type="imfile" file=%q tag="test:" severity="info" facility="local0")
action(type="omfwd" target="127.0.0.1" port=%q protocol=%q %s template="RSYSLOG_SyslogProtocol23Format")
`, dir, input, port, proto, extra), 0o600)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(bin, "-n", "-f", conf, "-i", filepath.Join(dir, "pid"))
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				cmd.Process.Kill()
				cmd.Wait()
				if t.Failed() {
					t.Log(out.String())
				}
			}()
			s.wait(t, n)
			for i, l := range s.lines {
				if !strings.HasSuffix(l, fmt.Sprintf("message %d of a real sender with a \"quoted\" word and ünïcode", i)) || !strings.HasPrefix(l, "<134>1 ") {
					t.Fatalf("line %d: %q", i, l)
				}
			}
		})
	}
}
