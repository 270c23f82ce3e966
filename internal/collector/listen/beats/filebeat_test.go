package beats

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/collector/listen/listentest"
)

// filebeat itself follows a file of 100,000 lines; first our side is restarted, then filebeat is killed. Every line arrives; what was not
// acknowledged when one of them went comes again, which is all that may come twice.
func TestFilebeatPeer(t *testing.T) {
	if os.Getenv("TOCSIN_TEST_PEERS") == "" {
		t.Skip("SKIPPED: long; TOCSIN_TEST_PEERS=1 runs it")
	}
	program := os.Getenv("TOCSIN_FILEBEAT")
	if program == "" {
		var err error
		if program, err = exec.LookPath("filebeat"); err != nil {
			t.Skip("SKIPPED: there is no filebeat here: scripts/filebeat.sh DIR builds it, TOCSIN_FILEBEAT names it")
		}
	}
	const n = 100_000
	dir := t.TempDir()
	logs := filepath.Join(dir, "fw.log")
	f, err := os.Create(logs)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for i := range n {
		fmt.Fprintf(w, "line %d: date=2026-11-22 action=\"deny\" \\ \t ü\n", i)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	sink := &listentest.Store{}
	addr := listentest.Addr(listentest.Port(t, "tcp"))
	_, stop := start(t, addr, Options{}, sink)
	config := filepath.Join(dir, "filebeat.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `filebeat.inputs:
  - type: log
    paths: [%q]
output.logstash:
  hosts: [%q]
  backoff.init: 100ms
  backoff.max: 1s
path.home: %q
path.data: %q
path.logs: %q
logging.level: error
logging.to_stderr: true
`, logs, addr, dir, filepath.Join(dir, "data"), dir), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func() (kill func()) {
		ctx, cancel := context.WithCancel(context.Background())
		cmd := exec.CommandContext(ctx, program, "run", "--strict.perms=false", "-c", config)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		return func() { cancel(); <-done }
	}
	until := func(m int) {
		t.Helper()
		for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Millisecond) { // how soon after the m-th line the next step comes
			lines, _ := sink.Count()
			if lines >= m {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d lines came, want %d", lines, m)
			}
		}
	}
	kill := run()
	defer func() { kill() }()
	began := time.Now()
	until(n / 4)
	stop()
	srv, _ := start(t, addr, Options{}, sink)
	until(n / 2)
	kill()
	kill = run()
	came := make([]int, n)
	distinct, next := 0, 0
	for deadline := time.Now().Add(3 * time.Minute); distinct < n; time.Sleep(10 * time.Millisecond) { // until all are there
		if time.Now().After(deadline) {
			first, last := slices.Index(came, 0), 0
			for i, k := range came {
				if k == 0 {
					last = i
				}
			}
			t.Fatalf("%d of %d lines came; missing are some from %d to %d; %+v", distinct, n, first, last, srv.Stats())
		}
		fresh := sink.Lines()[next:]
		next += len(fresh)
		for _, l := range fresh {
			var e struct{ Message string }
			var i int
			if err := json.Unmarshal([]byte(l), &e); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Sscanf(e.Message, "line %d:", &i); err != nil || e.Message != fmt.Sprintf("line %d: date=2026-11-22 action=\"deny\" \\ \t ü", i) {
				t.Fatalf("%q %v", l, err)
			}
			if came[i]++; came[i] == 1 {
				distinct++
			}
		}
	}
	t.Logf("%d lines in %v, all there; %d came again over the two restarts", n, time.Since(began).Round(time.Millisecond), next-n)
	if next-n > 40_000 { // filebeat's registry is written with each acknowledgement: a few windows at most
		t.Errorf("%d lines came again", next-n)
	}
}
