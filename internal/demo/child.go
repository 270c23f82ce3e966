package demo

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

// child is one program kept running. It ends with us: when this process dies, the kernel stops it (PR_SET_PDEATHSIG); when we stop it,
// it gets SIGTERM and time to drain.
type child struct {
	what    string // for people: "the hub", "the collector of Alderwick High School"
	command []string
	log     string // file that gets its stdout and stderr
	drain   time.Duration
	say     func(string) // told of restarts

	stop    context.CancelFunc
	stopped chan struct{} // closed when it ended and will not be started again

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

// start runs the child until ctx ends or stopChild is called.
func (c *child) start(ctx context.Context) {
	ctx, c.stop = context.WithCancel(ctx)
	c.stopped = make(chan struct{})
	go func() {
		// The death signal follows the thread that started the child, so that thread must stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.stopped)
		wait, quick := firstWait, 0
		for {
			began := time.Now()
			err := c.once(ctx)
			if ctx.Err() != nil {
				return
			}
			if time.Since(began) >= steady {
				wait, quick = firstWait, 0
			}
			quick++
			if quick >= giveUp {
				c.mu.Lock()
				c.failed = fmt.Errorf("%s does not stay up (%v): %s", c.what, err, c.tail())
				c.mu.Unlock()
				return
			}
			c.mu.Lock()
			c.restarts++
			c.mu.Unlock()
			if c.say != nil {
				c.say(fmt.Sprintf("%s stopped (%v) and is started again.", capital(c.what), err))
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = min(2*wait, longWait)
		}
	}()
}

func (c *child) once(ctx context.Context) error {
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, c.command[0], c.command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = c.drain
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

// stopAndWait asks the child to drain and waits until it has ended.
func (c *child) stopAndWait() {
	if c.stop != nil {
		c.stop()
		<-c.stopped
	}
}

// err says that the child cannot be kept running.
func (c *child) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// tail is the end of what the child last said, for an error message.
func (c *child) tail() string {
	f, err := os.Open(c.log)
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
	return fmt.Sprintf("its last words, from %s:\n%s", c.log, bytes.Join(lines, []byte("\n")))
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:]
}
