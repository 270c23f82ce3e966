package demo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// built returns the programs, which `make build` puts into bin, and skips when they or the engine's library are not there.
func built(t *testing.T) (tocsin, collector string) {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"bin/tocsin", "bin/tocsin-collector", "bin/tocsin-engine", "lib/tocsin/libchdb.so"} {
		if _, err := os.Stat(filepath.Join(root, f)); err != nil {
			t.Skipf("skipped: %s is not there; run make data build", f)
		}
	}
	return filepath.Join(root, "bin/tocsin"), filepath.Join(root, "bin/tocsin-collector")
}

func runOnce(t *testing.T, dir string, disturb func(context.Context, *demo) error) *Result {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped: -short; the whole system takes a minute")
	}
	tocsin, collector := built(t)
	var progress bytes.Buffer
	res, err := Run(context.Background(), Options{Dir: dir, Once: true, Rate: 25, Seed: 1, History: 30, Tocsin: tocsin, Collector: collector, Progress: &progress, disturb: disturb})
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, progress.String(), logs(dir))
	}
	var text bytes.Buffer
	if err := res.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s%s", progress.String(), text.String())
	return res
}

// logs is the end of what each child said.
func logs(dir string) string {
	var b strings.Builder
	files, _ := filepath.Glob(filepath.Join(dir, "logs", "*.log"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		fmt.Fprintf(&b, "--- %s\n%s", filepath.Base(f), text[max(0, len(text)-3000):])
	}
	return b.String()
}

// tempDir is short: the path of a unix socket has at most 107 bytes.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "td-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // best effort; the system clears its temporary folder
	return dir
}

// The whole system after an invented month: every expected alert, no other, every line accounted for; and once more in the same folder, from
// where it ended, without a second past.
func TestDemoOnce(t *testing.T) {
	dir := tempDir(t)
	for _, again := range []bool{false, true} {
		res := runOnce(t, dir, nil)
		if s, err := openState(dir); err != nil || len(s.History) != 1 || !s.History[0].Done {
			t.Errorf("again %v: the past is not there: %+v, %v", again, s, err)
		} else {
			s.close()
		}
		if !res.Balanced {
			t.Errorf("again %v: lines unaccounted for: %s", again, res.Gap())
		}
		for _, m := range res.Missing {
			t.Errorf("again %v: missing: %s", again, m)
		}
		for _, a := range res.Unexpected {
			t.Errorf("again %v: unexpected: %+v", again, a)
		}
		if res.FirstAlert > 60 && !again {
			t.Errorf("the first alert took %.0f s", res.FirstAlert)
		}
	}
}

// kill -9 of a collector, the engine and the hub while the story is told: what was received is stored, once, and every alert comes.
func TestKillDuringDemo(t *testing.T) {
	if os.Getenv("TOCSIN_TEST_TORTURE") == "" {
		t.Skip("skipped: set TOCSIN_TEST_TORTURE (make torture)")
	}
	kill := func(ctx context.Context, at time.Duration, d *demo, pid func() int) error {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(d.began.Add(at))):
		}
		p := pid()
		if p == 0 {
			return fmt.Errorf("nothing to kill at %s", at)
		}
		return syscall.Kill(p, syscall.SIGKILL)
	}
	res := runOnce(t, tempDir(t), func(ctx context.Context, d *demo) error {
		for _, k := range []struct {
			at  time.Duration
			pid func() int
		}{
			{4 * time.Second, d.members[1].child.PID},
			{9 * time.Second, func() int { return childNamed(d.hub.PID(), "tocsin-engine") }},
			{18 * time.Second, d.hub.PID},
			{33 * time.Second, d.members[2].child.PID},
		} {
			if err := kill(ctx, k.at, d, k.pid); err != nil {
				return err
			}
		}
		return nil
	})
	if res.Restarts < 3 {
		t.Errorf("%d restarts, want 3 and the engine's", res.Restarts)
	}
	for _, m := range res.Members {
		// What a device sends while its collector is down is lost on the wire, as in life; what was received must be there exactly once.
		if lost := int64(m.Devices) - int64(m.Received); lost < 0 || lost > int64(m.Devices)/4 {
			t.Errorf("%s: the devices sent %d lines, %d were received", m.Name, m.Devices, m.Received)
		}
		for _, g := range m.Gaps {
			if !strings.HasPrefix(g, "the devices sent") && !strings.HasPrefix(g, "the kernel has dropped") {
				t.Errorf("%s: %s", m.Name, g)
			}
		}
	}
	for _, a := range res.Unexpected {
		t.Errorf("unexpected: %+v", a)
	}
}

// childNamed finds a process below pid by its name, 0 when there is none.
func childNamed(pid int, name string) int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for _, c := range strings.Fields(string(b)) {
			comm, err := os.ReadFile("/proc/" + c + "/comm")
			if err == nil && strings.HasPrefix(name, strings.TrimSpace(string(comm))) { // comm holds 15 bytes
				n, err := strconv.Atoi(c)
				if err == nil {
					return n
				}
			}
		}
	}
	return 0
}
