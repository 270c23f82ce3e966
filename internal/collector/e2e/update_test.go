package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
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

	"tocsin/internal/collector"
	"tocsin/internal/collector/update"
	"tocsin/internal/keys"
	"tocsin/internal/release"
)

// versioned builds the real program as a release would, with a version.
func versioned(t *testing.T, version string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "tocsin-collector")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w -X main.version="+version, "-o", name, "tocsin/cmd/tocsin-collector")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return name
}

// manager is the service manager: it starts the service as the unit does, and again whenever it ends.
type manager struct {
	t        *testing.T
	h        *hub
	s        *site
	packaged string // the package's program, version 1.0.0
	config   string
	keyDir   string
	stop     func()
	serial   uint64
}

func manage(t *testing.T, packaged string) *manager {
	t.Helper()
	h := newHub(t)
	s := newSite(t, h, "Update")
	m := &manager{t: t, h: h, s: s, packaged: packaged, keyDir: filepath.Join(t.TempDir(), "release")}
	signer, err := keys.CreateReleaseKey(m.keyDir)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	set, err := release.Set(1, signer.Public()).Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "release-keys.json"), set, 0o644)
	udp, tcp := ports(t)
	m.config = s.writeConfig(udp, tcp)
	pid := filepath.Join(dir, "pid")
	write(t, filepath.Join(dir, "restart"), fmt.Appendf(nil, "kill -TERM $(cat %s)\n", pid), 0o755)
	s.cfg.Update.Dir = filepath.Join(dir, "programs")
	more := fmt.Sprintf("update: {source: hub, keys: %s/release-keys.json, dir: %s, restart: sh %s/restart, hold: 200ms, deadline: 2m}\n", dir, s.cfg.Update.Dir, dir)
	f, err := os.OpenFile(m.config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, more); err != nil {
		t.Fatal(err)
	}
	f.Close()
	// The unit: ExecStartPre, ExecStart, Restart=always.
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if out, err := exec.Command(m.packaged, "update", "--settle", "--config", m.config).CombinedOutput(); err != nil || len(out) > 0 {
				fmt.Fprintf(s.logs, "settle: %v %s", err, out)
			}
			cmd := exec.Command(m.packaged, "run", "--config", m.config)
			cmd.Stderr = s.logs
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := cmd.Start(); err != nil {
				fmt.Fprintf(s.logs, "start: %v\n", err)
				return
			}
			if err := os.WriteFile(pid, []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
				fmt.Fprintf(s.logs, "pid: %v\n", err)
			}
			end := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
			cmd.Wait()
			end()
			time.Sleep(20 * time.Millisecond) // RestartSec
		}
	})
	m.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(m.stop)
	m.runs("1.0.0")
	return m
}

func write(t *testing.T, name string, b []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, b, mode); err != nil {
		t.Fatal(err)
	}
}

// runs waits until that version answers.
func (m *manager) runs(version string) {
	m.t.Helper()
	last := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) { // a poll of another process, bounded by end
		st, err := collector.FetchStatus(context.Background(), &m.s.cfg)
		if err == nil && st.Version == version {
			return
		}
		last = fmt.Sprint(err)
		if err == nil {
			last = st.Version
		}
	}
	b, _ := os.ReadFile(filepath.Join(m.s.cfg.Update.Dir, "state.json"))
	m.t.Fatalf("version %s does not run, but %s; %s", version, last, b)
}

// publish puts a release into the hub's folder: what the list says, and the file's bytes.
func (m *manager) publish(version string, program []byte, change ...func(*release.List)) {
	m.t.Helper()
	dir := filepath.Join(m.h.dir, "releases")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
	name := filepath.Join(dir, fmt.Sprintf("tocsin-collector_%s_linux_%s", version, runtime.GOARCH))
	write(m.t, name, program, 0o644)
	f, err := release.Describe(name, release.Program, runtime.GOOS, runtime.GOARCH)
	if err != nil {
		m.t.Fatal(err)
	}
	m.serial++
	l := release.List{Format: 1, Product: release.Product, Version: version, Serial: m.serial, Issued: time.Now().UTC().Add(-time.Minute), Expires: time.Now().UTC().Add(time.Hour), Files: []release.File{f}}
	for _, c := range change {
		c(&l)
	}
	m.sign(l, m.keyDir)
}

func (m *manager) sign(l release.List, dirs ...string) {
	m.t.Helper()
	var signers []*keys.Signer
	for _, d := range dirs {
		signers = append(signers, must(keys.OpenReleaseKey(d)))
	}
	env, err := release.Sign(l, signers...)
	if err != nil {
		m.t.Fatal(err)
	}
	write(m.t, filepath.Join(m.h.dir, "releases", release.Name), env, 0o644)
}

// update runs the packaged program's update.
func (m *manager) update(environ []string, args ...string) (code int, out string) {
	m.t.Helper()
	cmd := exec.Command(m.packaged, append([]string{"update", "--config", m.config}, args...)...)
	cmd.Env = append(os.Environ(), environ...)
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		m.t.Fatal(err)
	}
	m.t.Logf("update %v: %d %s", args, cmd.ProcessState.ExitCode(), b)
	return cmd.ProcessState.ExitCode(), string(b)
}

// script is a program that says the right version and takes the settings, and then does what a bad release does.
func script(version, run string) []byte {
	return fmt.Appendf(nil, "#!/bin/sh\ncase \"$1\" in\nversion) echo tocsin-collector %s ;;\nexplain) exit 0 ;;\nrun) %s ;;\nesac\n", version, run)
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	packaged, newer := versioned(t, "1.0.0"), versioned(t, "1.1.0")
	t.Run("releases", func(t *testing.T) { t.Parallel(); testReleases(t, packaged, newer) })
	t.Run("killed", func(t *testing.T) { t.Parallel(); testUpdateKilled(t, packaged, newer) })
}

// Good, bad, half-written, wrongly signed and old releases, from a real hub, with the real program under a service manager, while lines come.
func testReleases(t *testing.T, packaged, newer string) {
	m := manage(t, packaged)
	if code, out := m.update(nil, "--check"); code != 1 || !strings.Contains(out, "no release") {
		t.Errorf("without a release: %d %s", code, out)
	}
	next, err := os.ReadFile(newer)
	if err != nil {
		t.Fatal(err)
	}
	m.serial = 8
	m.publish("1.1.0", script("1.1.0", "TOCSIN_COLLECTOR_HUB=127.0.0.1:1 exec "+newer+` "$@"`))
	// Long enough for a start on a busy machine: a program that has not answered by then is another fault.
	if code, out := m.update([]string{"TOCSIN_COLLECTOR_UPDATE_DEADLINE=6s"}); code != 9 || !strings.Contains(out, "hub") {
		t.Errorf("a program that does not reach the hub: %d %s", code, out)
	}
	m.runs("1.0.0")
	m.publish("1.1.0", next, func(l *release.List) { l.Notes = "Better in every way." })
	if code, out := m.update(nil, "--check"); code != 8 || !strings.Contains(out, "1.1.0") || !strings.Contains(out, "Better in every way") {
		t.Errorf("check: %d %s", code, out)
	}
	if found, _ := diagnose(t, m.config, nil); found["update_there"].Level != "warn" && found["update_there"].Level != "" {
		t.Errorf("doctor: %v", found)
	}
	m.runs("1.0.0") // looking changes nothing
	var st collector.Status
	before, err := collector.FetchStatus(t.Context(), &m.s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", before.Listeners[1].Address)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		fmt.Fprintf(conn, "%s\n", traffic("deny", "203.0.113.1", "198.51.100.7", i))
	}
	conn.Close()
	if code, out := m.update(nil); code != 0 || !strings.Contains(out, "1.1.0 is installed and healthy") {
		t.Fatalf("a good release: %d %s", code, out)
	}
	m.runs("1.1.0")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // a poll of another process, bounded by end
		if p, err := collector.FetchStatus(t.Context(), &m.s.cfg); err == nil && p.Counts["received"] == 100 && p.Acknowledged >= 100 {
			st = *p
			break
		} else if time.Now().After(end) {
			t.Fatalf("the lines of before the switch: %+v", p)
		}
	}
	if st.Version != "1.1.0" {
		t.Errorf("version %s", st.Version)
	}
	if code, _ := m.update(nil); code != 0 {
		t.Errorf("nothing newer: %d", code)
	}
	// The whole program is the newer one, for people too.
	if out, err := exec.Command(m.packaged, "doctor", "--config", m.config, "--watch", "0").Output(); !strings.Contains(string(out), "version 1.1.0") {
		t.Errorf("doctor: %v %s", err, out)
	}

	refused := func(what, why string) {
		t.Helper()
		if code, out := m.update(nil); code != 1 || !strings.Contains(out, why) {
			t.Errorf("%s: %d %s", what, code, out)
		}
		m.runs("1.1.0")
	}
	other := filepath.Join(t.TempDir(), "other")
	if _, err := keys.CreateReleaseKey(other); err != nil {
		t.Fatal(err)
	}
	mine := m.keyDir
	m.keyDir = other
	m.publish("1.2.0", next)
	refused("a wrongly signed release", "not signed by enough")
	m.keyDir = mine
	m.publish("1.2.0", next, func(l *release.List) { l.Serial = 8 })
	refused("an older list", "older than one that was seen")
	m.publish("1.2.0", next, func(l *release.List) { l.Serial = 10 })
	refused("another list of the same number", "another release was seen")
	m.publish("1.2.0", next, func(l *release.List) { l.Expires = time.Now().Add(-time.Second) })
	refused("a list held back", "too old to be believed")
	m.publish("1.0.5", next)
	if code, out := m.update(nil); code != 0 || !strings.Contains(out, "1.1.0 runs here") {
		t.Errorf("a release of an older version: %d %s", code, out)
	}
	m.runs("1.1.0")
	file := filepath.Join(m.h.dir, "releases", "tocsin-collector_1.2.0_linux_"+runtime.GOARCH)
	m.publish("1.2.0", next)
	write(t, file, next[:len(next)/2], 0o644)
	refused("a half-written program", "of")
	write(t, file, append(bytes.Clone(next), 'x'), 0o644)
	refused("a longer program", "longer")
	m.publish("1.2.0", next)
	refused("a program of another version", `says it is version "1.1.0"`)

	m.publish("1.3.0", script("1.3.0", "exit 3"))
	if code, out := m.update(nil); code != 9 || !strings.Contains(out, "taken back") {
		t.Errorf("a program that crashes: %d %s", code, out)
	}
	m.runs("1.1.0")
	if code, out := m.update(nil); code != 0 || !strings.Contains(out, "was taken back here") {
		t.Errorf("a release that was taken back: %d %s", code, out)
	}
	m.publish("1.4.0", script("1.4.0", "exec sleep 60"))
	if code, out := m.update([]string{"TOCSIN_COLLECTOR_UPDATE_DEADLINE=1s"}); code != 9 || !strings.Contains(out, "does not answer") {
		t.Errorf("a program that does nothing: %d %s", code, out)
	}
	m.runs("1.1.0")
	// The keys change hands: signed by the old and the new, from then on only the new counts.
	set := release.Set(1, must(keys.OpenReleaseKey(other)).Public())
	m.publish("1.0.6", next)
	m.serial++
	l := release.List{Format: 1, Product: release.Product, Version: "1.0.6", Serial: m.serial, Issued: time.Now().UTC(), Expires: time.Now().UTC().Add(time.Hour), Next: &set,
		Files: []release.File{must(release.Describe(file, release.Program, runtime.GOOS, runtime.GOARCH))}}
	m.sign(l, mine)
	refused("new keys without their own signature", "not signed by enough")
	m.sign(l, mine, other)
	if code, out := m.update(nil); code != 0 {
		t.Errorf("new keys: %d %s", code, out)
	}
	m.publish("1.6.0", next)
	refused("a release by the old key", "not signed by enough")

	// The package catches up: its program is newer than the one in force.
	if p, err := update.Choose(m.s.cfg.Update.Dir, "1.5.0"); p != "" || err != nil {
		t.Errorf("an older program is chosen in a newer one's place: %q %v", p, err)
	}
	// A program that was changed on the disk, and a folder that others may write to, are never run.
	if p, err := update.Choose(m.s.cfg.Update.Dir, "1.0.0"); p == "" || err != nil {
		t.Errorf("%q %v", p, err)
	} else {
		write(t, p+".x", append(bytes.Clone(next), 'x'), 0o755)
		if err := os.Rename(p+".x", p); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := update.Choose(m.s.cfg.Update.Dir, "1.0.0"); p != "" || err == nil {
		t.Errorf("a changed program is chosen: %q %v", p, err)
	}
	if err := os.Chmod(m.s.cfg.Update.Dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if p, err := update.Choose(m.s.cfg.Update.Dir, "1.0.0"); p != "" || err == nil {
		t.Errorf("a program from an open folder is chosen: %q %v", p, err)
	}
}

const updaterEnv = "TOCSIN_TEST_UPDATER"

// The test program as an updater that is killed at a step.
func init() {
	step := os.Getenv(updaterEnv)
	if step == "" {
		return
	}
	os.Unsetenv(updaterEnv)
	c, _, err := collector.LoadConfig(os.Getenv("TOCSIN_TEST_UPDATER_CONFIG"), nil, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	set, err := release.ReadKeySet(c.Update.Keys)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, installed, err := update.Run(context.Background(), update.Options{Config: &c, Own: "1.0.0", Keys: set, Args: []string{"explain", "--config", os.Getenv("TOCSIN_TEST_UPDATER_CONFIG")},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Fetch: func(ctx context.Context, name, dst string, limit int64) error {
			return update.Fetch(ctx, &c, name, dst, limit)
		},
		Restart: func(ctx context.Context) error {
			w := strings.Fields(c.Update.Restart)
			return exec.CommandContext(ctx, w[0], w[1:]...).Run()
		},
		Reached: func(s string) {
			if s == step {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		},
	})
	fmt.Fprintln(os.Stderr, "not killed:", installed, err)
	os.Exit(1)
}

// killedAt runs an updater that is killed at a step.
func (m *manager) killedAt(step string) {
	m.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), updaterEnv+"="+step, "TOCSIN_TEST_UPDATER_CONFIG="+m.config)
	out, err := cmd.CombinedOutput()
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		m.t.Fatalf("%s: %v %s", step, err, out)
	}
}

// The updater is killed at every step of the switch. The collector always runs, and the next updater goes on where that one was.
func testUpdateKilled(t *testing.T, packaged, newer string) {
	m := manage(t, packaged)
	next, err := os.ReadFile(newer)
	if err != nil {
		t.Fatal(err)
	}
	m.publish("1.1.0", next)
	for _, step := range []string{"fetched", "stored", "trial", "restarted", "healthy", "in force"} {
		m.killedAt(step)
		if code, out := m.update(nil); code != 0 {
			t.Fatalf("after a kill at %s: %d %s", step, code, out)
		}
		m.runs("1.1.0")
		b, err := os.ReadFile(filepath.Join(m.s.cfg.Update.Dir, "state.json"))
		if err != nil {
			t.Fatal(err)
		}
		var st update.State
		if err := json.Unmarshal(b, &st); err != nil || st.InForce == nil || st.InForce.Version != "1.1.0" || st.Trial != nil {
			t.Fatalf("after a kill at %s: %v %s", step, err, b)
		}
		if left, err := os.ReadDir(m.s.cfg.Update.Dir); err != nil || len(left) != 4 { // state, two locks, one program
			t.Errorf("after a kill at %s: %v left", step, left)
		}
		// As it was before, for the next step.
		if err := os.RemoveAll(m.s.cfg.Update.Dir); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("sh", "-c", "kill -TERM $(cat "+filepath.Join(filepath.Dir(m.s.cfg.Update.Dir), "pid")+")").CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		m.runs("1.0.0")
	}
	// Killed with a bad program on trial, and no updater ever again: the service's own start takes it back.
	m.publish("1.2.0", script("1.2.0", "exit 3"))
	m.killedAt("restarted")
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // a poll of another process, bounded by end
		k, err := update.Known(m.s.cfg.Update.Dir, "1.0.0")
		if err == nil && strings.Contains(k.Refused, "on its own") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v %v", k, err)
		}
	}
	m.runs("1.0.0")
}
