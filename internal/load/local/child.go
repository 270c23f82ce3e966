// Package local runs the programs on this machine, for the demo and the load generator: children that are kept running and that end with their
// parent, and a client for the hub's admin socket, the one `tocsin admin` speaks to as well. It keeps nothing on disk.
package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Child is one program kept running. It ends with us: when this process dies, the kernel stops it (PR_SET_PDEATHSIG); when we stop it,
// it gets SIGTERM and time to drain.
type Child struct {
	What    string // for people: "the hub", "the collector of Alderwick High School"
	Command []string
	Log     string // file that gets its stdout and stderr
	Drain   time.Duration
	Say     func(string) // told of restarts

	stop    context.CancelFunc
	stopped chan struct{} // closed when it ended and will not be started again

	wait time.Duration // before the first start anew, doubled for each that follows at once; 0: firstWait

	mu       sync.Mutex
	pid      int
	restarts int
	failed   error // set when it does not stay up
}

const (
	firstWait = 200 * time.Millisecond
	longWait  = 5 * time.Second
	steady    = 10 * time.Second // a child that ran this long begins anew with the short wait
	giveUp    = 8                // starts in a row that end sooner: something is wrong that another start will not mend
)

// Start runs the child until ctx ends or Stop is called.
func (c *Child) Start(ctx context.Context) {
	ctx, c.stop = context.WithCancel(ctx)
	c.stopped = make(chan struct{})
	go func() {
		// The death signal follows the thread that started the child, so that thread must stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.stopped)
		first := c.wait
		if first == 0 {
			first = firstWait
		}
		wait, quick := first, 0
		for {
			began := time.Now()
			err := c.once(ctx)
			if ctx.Err() != nil {
				return
			}
			if time.Since(began) >= steady {
				wait, quick = first, 0
			}
			quick++
			if quick >= giveUp {
				c.mu.Lock()
				c.failed = fmt.Errorf("%s does not stay up (%v): %s", c.What, err, c.Tail())
				c.mu.Unlock()
				return
			}
			c.mu.Lock()
			c.restarts++
			c.mu.Unlock()
			if c.Say != nil {
				c.Say(fmt.Sprintf("%s stopped (%v) and is started again.", capital(c.What), err))
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = min(2*wait, longWait, 25*first)
		}
	}()
}

func (c *Child) once(ctx context.Context) error {
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, c.Command[0], c.Command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = c.Drain
	// A group of its own, so that Ctrl-C reaches us alone and the order of stopping is ours.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.mu.Lock()
	c.pid = cmd.Process.Pid
	c.mu.Unlock()
	err = cmd.Wait()
	if err == nil {
		err = errors.New("it ended by itself")
	}
	return err
}

// Stop asks the child to drain and waits until it has ended.
func (c *Child) Stop() {
	if c.stop != nil {
		c.stop()
		<-c.stopped
	}
}

// Err says that the child cannot be kept running.
func (c *Child) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// Tail is the end of what the child last said, for an error message.
func (c *Child) Tail() string {
	f, err := os.Open(c.Log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const most = 2048
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	if len(lines) > 5 {
		lines = lines[len(lines)-5:]
	}
	return fmt.Sprintf("its last words, from %s:\n%s", c.Log, bytes.Join(lines, []byte("\n")))
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:]
}

// Restarts counts how often the child was started again.
func (c *Child) Restarts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.restarts
}

// PID is the process id of the running child, 0 before it started.
func (c *Child) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}
