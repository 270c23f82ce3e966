// Package engine starts the event store's child process, tocsin-engine, and keeps it running.
//
// The child exits when its standard input ends, so it cannot outlive the hub; when it dies, it is started again after a
// short wait that grows while it keeps dying. Callers of the store wait in [Engine.Ready] meanwhile, so a restart costs
// them about a third of a second and no error. A child that has stopped answering is killed: it survives that at any point.
package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Options says what to run and where.
type Options struct {
	Program string // path of tocsin-engine; empty: beside this program, then in the PATH
	Library string // path of libchdb.so; empty: the child seeks it
	Dir     string // the engine's data folder
	Socket  string // the unix socket it answers on
	Memory  int64  // bytes; default 1 GiB
	Threads int    // background threads; default 4
	Logger  *slog.Logger

	// Every, Patience: how often the child is asked for a row, and how long it may take, three times in a row.
	Every, Patience time.Duration
	// Pause is the longest wait before a child that dies again and again is started once more; default 10 s. Waits begin at 50 ms.
	Pause time.Duration
}

// Engine is a running child and its supervisor.
type Engine struct {
	opt  Options
	log  *slog.Logger
	stop context.CancelFunc
	done chan struct{}

	restarts atomic.Uint64

	mu    sync.Mutex
	up    chan struct{} // closed while the child answers; replaced when it dies
	isUp  bool
	pid   int
	cause error // why the child last ended
}

// Start runs the child and returns when it answers, or with its reason when it does not within ctx. It then lives until Close.
func Start(ctx context.Context, o Options) (*Engine, error) {
	if o.Memory <= 0 {
		o.Memory = 1 << 30
	}
	if o.Threads <= 0 {
		o.Threads = 4
	}
	if o.Every <= 0 {
		o.Every = 5 * time.Second
	}
	if o.Patience <= 0 {
		o.Patience = 20 * time.Second
	}
	if o.Pause <= 0 {
		o.Pause = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	var err error
	if o.Program, err = findProgram(o.Program); err != nil {
		return nil, err
	}
	for _, p := range []*string{&o.Dir, &o.Socket} {
		if *p == "" {
			return nil, errors.New("event store engine: the data folder and the socket must be given")
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, err
		}
	}
	// sun_path holds 107 bytes and a null.
	if len(o.Socket) > 107 {
		return nil, fmt.Errorf("event store engine: the socket's path %s is longer than the 107 bytes a unix socket allows: choose a shorter data folder", o.Socket)
	}
	if err := os.MkdirAll(filepath.Dir(o.Socket), 0o700); err != nil {
		return nil, fmt.Errorf("event store engine: %w", err)
	}
	run, cancel := context.WithCancel(context.Background())
	e := &Engine{opt: o, log: o.Logger, stop: cancel, done: make(chan struct{}), up: make(chan struct{})}
	first := make(chan error, 1)
	go e.run(run, first)
	select {
	case err := <-first:
		if err != nil {
			e.Close()
			return nil, fmt.Errorf("start the event store's engine: %w", err)
		}
	case <-ctx.Done():
		e.Close()
		return nil, fmt.Errorf("start the event store's engine: %w", ctx.Err())
	}
	return e, nil
}

func findProgram(p string) (string, error) {
	if p != "" {
		if _, err := os.Stat(p); err != nil {
			return "", fmt.Errorf("event store engine: %w", err)
		}
		return filepath.Abs(p)
	}
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		q := filepath.Join(filepath.Dir(exe), "tocsin-engine")
		if _, err := os.Stat(q); err == nil {
			return q, nil
		}
	}
	q, err := exec.LookPath("tocsin-engine")
	if err != nil {
		return "", errors.New("the program tocsin-engine is neither beside this program nor in the PATH: build it with `make build` or set engine.program")
	}
	return filepath.Abs(q)
}

// Address is what eventstore.Options.Address wants.
func (e *Engine) Address() string { return "unix:" + e.opt.Socket }

// Ready waits until the child answers, or ctx ends; then it says why the child is away.
func (e *Engine) Ready(ctx context.Context) error {
	e.mu.Lock()
	up, cause := e.up, e.cause
	e.mu.Unlock()
	select {
	case <-up:
		return nil
	default:
	}
	select {
	case <-up:
		return nil
	case <-e.done:
		return errors.New("the event store's engine is stopped")
	case <-ctx.Done():
		if cause != nil {
			return fmt.Errorf("the event store's engine is restarting after: %w", cause)
		}
		return errors.New("the event store's engine is starting")
	}
}

// Up says whether the child answers now.
func (e *Engine) Up() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.isUp
}

// Restarts counts how often the child was started again.
func (e *Engine) Restarts() uint64 { return e.restarts.Load() }

// PID is the child's process id, 0 while there is none.
func (e *Engine) PID() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pid
}

// Close stops the child, which gets ten seconds to finish, and the supervisor. It may be called more than once.
func (e *Engine) Close() {
	e.stop()
	<-e.done
}

func (e *Engine) run(ctx context.Context, first chan<- error) {
	defer close(e.done)
	wait := 50 * time.Millisecond
	answered := false // once
	killed := 0       // times it was killed before it ever answered
	for {
		began := time.Now()
		err := e.child(ctx, func() {
			if !answered {
				answered = true
				first <- nil
			} else {
				e.log.Info("event store engine is back", "after", time.Since(began).Round(time.Millisecond))
			}
		})
		e.mu.Lock()
		if e.isUp {
			e.isUp, e.up = false, make(chan struct{})
		}
		e.pid, e.cause = 0, err
		e.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if !answered {
			// It never came up. One that ended by itself says why, and whoever starts the hub should read that instead of waiting; one
			// that was killed from outside (the machine was short of memory for a moment) deserves to be tried again, but not for ever.
			if killed++; !bySignal(err) || killed > startsKilled {
				first <- err
				return
			}
		}
		e.restarts.Add(1)
		if time.Since(began) > 2*time.Second {
			wait = 50 * time.Millisecond // it worked for a while: only an engine that dies at once is made to wait
		}
		e.log.Warn("event store engine ended and is started again", "error", err, "wait", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, e.opt.Pause)
	}
}

// startsKilled is how often an engine that was killed before it first answered is started again: with the growing waits, for some seconds.
const startsKilled = 6

func bySignal(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// child runs the program once and returns why it ended.
func (e *Engine) child(ctx context.Context, ready func()) error {
	a := []string{"--data", e.opt.Dir, "--socket", e.opt.Socket, "--memory", strconv.FormatInt(e.opt.Memory, 10), "--threads", strconv.Itoa(e.opt.Threads)}
	if e.opt.Library != "" {
		a = append(a, "--library", e.opt.Library)
	}
	cmd, in, out, errs, err := e.start(a, true)
	if err != nil {
		// Without the right to make namespaces (a container, a hardened kernel) the child merely does not use the network.
		if cmd, in, out, errs, err = e.start(a, false); err != nil {
			return err
		}
	}
	e.mu.Lock()
	e.pid = cmd.Process.Pid
	e.mu.Unlock()
	var last lastLines
	var pipes sync.WaitGroup
	up := make(chan struct{})
	pipes.Add(2)
	go func() {
		defer pipes.Done()
		s := bufio.NewScanner(errs)
		for s.Scan() {
			line := s.Text()
			last.add(line)
			level := slog.LevelDebug
			if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
				level = slog.LevelWarn
			}
			e.log.Log(context.Background(), level, "event store engine says", "line", line)
		}
		io.Copy(io.Discard, errs)
	}()
	go func() {
		defer pipes.Done()
		s := bufio.NewScanner(out)
		if s.Scan() && s.Text() == "ready" {
			close(up)
		}
		io.Copy(io.Discard, out)
	}()
	ended := make(chan error, 1)
	go func() { pipes.Wait(); ended <- cmd.Wait() }()
	reason := func(err error) error {
		if err == nil {
			err = errors.New("it exited")
		}
		if t := last.text(); t != "" {
			return fmt.Errorf("%w: %s", err, t)
		}
		return err
	}
	finish := func() {
		in.Close() // the child stops by itself
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
	}
	select {
	case <-up:
	case err := <-ended:
		in.Close()
		return reason(err)
	case <-ctx.Done():
		finish()
		return ctx.Err()
	}
	last.forget() // what it said before does not explain a later end
	e.mu.Lock()
	e.isUp = true
	close(e.up)
	e.mu.Unlock()
	ready()

	probe := time.NewTicker(e.opt.Every)
	defer probe.Stop()
	silent := 0
	for {
		select {
		case err := <-ended:
			in.Close()
			return reason(err)
		case <-ctx.Done():
			finish()
			return ctx.Err()
		case <-probe.C:
			err := e.probe(ctx)
			if err == nil || ctx.Err() != nil {
				silent = 0
				continue
			}
			if silent++; silent >= 3 {
				cmd.Process.Kill()
				<-ended
				in.Close()
				return fmt.Errorf("it stopped answering and was killed: %w", err)
			}
		}
	}
}

// probe asks for one row.
func (e *Engine) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.opt.Patience)
	defer cancel()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", e.opt.Socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine/", strings.NewReader("SELECT 1"))
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func (e *Engine) start(a []string, isolated bool) (cmd *exec.Cmd, in io.WriteCloser, out, errs io.ReadCloser, err error) {
	cmd = exec.Command(e.opt.Program, a...)
	// Only what the library needs: no secret of the hub's environment reaches the child.
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + e.opt.Dir, "TZ=UTC", "LC_ALL=C.UTF-8"}
	if v := os.Getenv("TOCSIN_ENGINE_LIBRARY"); v != "" {
		cmd.Env = append(cmd.Env, "TOCSIN_ENGINE_LIBRARY="+v)
	}
	// Its own process group: a Ctrl-C in the terminal is the hub's to handle, which drains before it closes the engine.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if isolated {
		// A network namespace with nothing in it. The socket's path still works across it.
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
		if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		}
	}
	if in, err = cmd.StdinPipe(); err != nil {
		return
	}
	if out, err = cmd.StdoutPipe(); err != nil {
		return
	}
	if errs, err = cmd.StderrPipe(); err != nil {
		return
	}
	if err = cmd.Start(); err != nil {
		err = fmt.Errorf("start %s: %w", e.opt.Program, err)
	}
	return
}

// lastLines keeps the last few lines a child said, to explain its end.
type lastLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *lastLines) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(s) > 500 {
		s = s[:500]
	}
	if l.lines = append(l.lines, s); len(l.lines) > 3 {
		l.lines = l.lines[1:]
	}
}

func (l *lastLines) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = nil
}

func (l *lastLines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, " / ")
}
