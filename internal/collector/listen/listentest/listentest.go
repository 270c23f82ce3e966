// Package listentest is what the tests of inputs share: a sink that can be told to wait or to refuse, a server that is stopped
// with its test, and ports.
// Only tests import it.
package listentest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"

	"tocsin/internal/collector/listen"
)

// Store is a sink that keeps lines in memory. The zero value takes everything at once.
type Store struct {
	mu     sync.Mutex // guards what follows
	lines  []string
	via    listen.Via
	synced int
	wait   <-chan struct{}
	refuse int
}

// Wait makes each Receive from now on wait for the channel; nil ends that.
func (s *Store) Wait(c <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wait = c
}

// Refuse makes the next n calls of Receive fail; below 0: all.
func (s *Store) Refuse(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = n
}

// Receive is listen.Sink.
func (s *Store) Receive(ctx context.Context, lines []listen.Line) error {
	s.mu.Lock()
	wait := s.wait
	s.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != 0 {
		s.refuse = max(s.refuse-1, -1)
		return errors.New("no room")
	}
	for i := range lines {
		s.lines = append(s.lines, string(lines[i].Text))
		s.via = lines[i].Via
	}
	return nil
}

// Sync is listen.Syncer.
func (s *Store) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = len(s.lines)
	return nil
}

// Lines are those received so far.
func (s *Store) Lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines)
}

// Count is how many lines there are, and how many of them were synced.
func (s *Store) Count() (lines, synced int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines), s.synced
}

// Via says how the last line came.
func (s *Store) Via() listen.Via {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.via
}

// Server is an input.
type Server interface {
	Serve(context.Context, listen.Sink) error
}

// Serve runs an input until stop is called or the test ends.
func Serve(t testing.TB, in Server, sink listen.Sink) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Serve(ctx, sink) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

var given sync.Map // ports

// Port finds a free port of 127.0.0.1 for "tcp" or "udp", and gives none twice. It is below those that the kernel gives to connections: nobody
// else gets it while a server is restarted, and a sender that dials meanwhile is not connected to itself.
func Port(t testing.TB, network string) int {
	t.Helper()
	for range 1000 {
		n := 10_000 + rand.IntN(20_000)
		if _, taken := given.LoadOrStore(n, true); taken {
			continue
		}
		var c io.Closer
		var err error
		if addr := Addr(n); network == "udp" {
			c, err = net.ListenPacket(network, addr)
		} else {
			c, err = net.Listen(network, addr)
		}
		if err == nil {
			c.Close()
			return n
		}
	}
	t.Fatal("no free port")
	return 0
}

// Addr is the address of a port on this machine.
func Addr(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
