package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/load/local"
)

// home is the folder of this run: bin with the programs, lib and share beside it as an installation has them.
var home string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "te-") // short: the path of a unix socket has at most 107 bytes
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	home = dir
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// root is the repository.
func root() string {
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		panic(err)
	}
	return dir
}

// build makes the programs once for all tests, from the tree as it is.
var build = sync.OnceValue(func() error {
	cmd := exec.Command("go", "build", "-o", filepath.Join(home, "bin")+string(filepath.Separator), "tocsin/cmd/tocsin", "tocsin/cmd/tocsin-collector", "tocsin/cmd/tocsin-engine", "tocsin/cmd/tocsin-release")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	for _, d := range []string{"lib", "share"} {
		if err := os.Symlink(filepath.Join(root(), d), filepath.Join(home, d)); err != nil {
			return err
		}
	}
	return nil
})

// bin is the path of a program.
func bin(t testing.TB, name string) string {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(home, "bin", name)
}

// needEngine skips aloud when the event store's library or the place data are not there.
func needEngine(t testing.TB) {
	t.Helper()
	for _, f := range []string{"lib/tocsin/libchdb.so", "share/tocsin/country.mmdb"} {
		if _, err := os.Stat(filepath.Join(root(), f)); err != nil {
			t.Skipf("SKIPPED: %s is not there; run make data", f)
		}
	}
}

// needTool skips aloud when a stranger's program is not installed; with TOCSIN_TEST_PEERS (make peers) that is a failure.
func needTool(t testing.TB, name string) string {
	t.Helper()
	for _, p := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	if os.Getenv("TOCSIN_TEST_PEERS") != "" {
		t.Fatalf("the program %s is not installed; .ci/run installs it", name)
	}
	t.Skipf("SKIPPED: the program %s is not installed; .ci/run installs it", name)
	return ""
}

// folder is a short-named folder that goes with the test.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(home, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// eventually asks until try is nil. The limit only ends a broken run.
func eventually(t testing.TB, limit time.Duration, what string, try func() error) {
	t.Helper()
	// The limit is for a machine of its own; CI runs everything at once on two cores. What hangs is still found.
	limit *= patience
	end := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s did not come about within %s: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// patience is how many times longer than on a machine of its own something may take before it counts as hanging.
const patience = 4

// crowding says how many times more work there is than cores, at least 1: now, or on average of the last minute if that was more. What has
// to be done within some seconds on a machine of its own may take so much longer, and then some.
func crowding(t testing.TB) float64 {
	t.Helper()
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	// "1.30 0.90 0.70 2/340 4711": averages of 1, 5 and 15 minutes, runnable and all tasks, the newest process
	f := strings.Fields(string(b))
	average, err := strconv.ParseFloat(f[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	running, _, _ := strings.Cut(f[3], "/")
	now, err := strconv.ParseFloat(running, 64)
	if err != nil {
		t.Fatal(err)
	}
	return max(1, max(average, now)/float64(runtime.NumCPU()))
}

// freePort is free for TCP and UDP on loopback.
func freePort(t testing.TB) int {
	t.Helper()
	p, err := local.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// process is a program of ours that runs. It dies with this test program.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	log  *logFile
	done chan struct{}
	err  error
}

// logFile collects what a process says, for the report of a failure.
type logFile struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logFile) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// tail is its end.
func (l *logFile) tail() string {
	s := l.String()
	return s[max(0, len(s)-4000):]
}

// start runs a program until the test ends.
func start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(bin(t, name), args...), log: &logFile{}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("--- %s %v said:\n%s", name, args, p.log.tail())
		}
	})
	return p
}

// stop drains the process and reports when it does not end well.
func (p *process) stop() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
	select {
	case <-p.done:
		if p.err != nil {
			p.t.Errorf("%s ended badly: %v", filepath.Base(p.cmd.Path), p.err)
		}
	case <-time.After(patience * time.Minute):
		_ = p.cmd.Process.Kill()
		<-p.done
		p.t.Errorf("%s did not end within four minutes of SIGTERM", filepath.Base(p.cmd.Path))
	}
}

// dead says how the process ended, nil while it runs.
func (p *process) dead() error {
	select {
	case <-p.done:
		return fmt.Errorf("it ended: %v\n%s", p.err, p.log.tail())
	default:
		return nil
	}
}

// run runs a program to its end and returns its exit code and what it printed.
func run(t testing.TB, stdin string, name string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience*2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin(t, name), args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// must runs a program that has to succeed.
func must(t testing.TB, stdin string, name string, args ...string) string {
	t.Helper()
	code, out, errs := run(t, stdin, name, args...)
	if code != 0 {
		t.Fatalf("%s %v: exit code %d\n%s%s", name, args, code, out, errs)
	}
	return out
}

// query asks the event store of the hub in dir, past everything of ours, over its socket.
func query(t testing.TB, dir, sql string) []string {
	t.Helper()
	client := local.UnixClient(filepath.Join(dir, "run", "engine.sock"))
	defer client.CloseIdleConnections()
	resp, err := client.Post("http://engine/?"+url.Values{"default_format": {"TSV"}, "readonly": {"1"}}.Encode(), "text/plain", strings.NewReader(sql))
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s %v", sql, resp.Status, b, err)
	}
	return strings.Fields(string(b))
}

func number(t testing.TB, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// jsonField is a member of a JSON object; lists of words are joined by blanks.
func jsonField(text, name string) (string, error) {
	var o map[string]any
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return "", fmt.Errorf("%w: %s", err, text)
	}
	switch v := o[name].(type) {
	case string:
		return v, nil
	case nil:
		return "", fmt.Errorf("no %s in %s", name, text)
	default:
		return fmt.Sprint(v), nil
	}
}

func sendTCP(addr, text string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	_, err = io.WriteString(c, text)
	return errors.Join(err, c.Close())
}
