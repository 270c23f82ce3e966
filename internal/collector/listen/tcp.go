package listen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// TCP is a syslog port for streams, with TLS (RFC 5425) when Options.TLS is set.
type TCP struct {
	o  Options
	ln net.Listener
	c  counters

	mu    sync.Mutex // guards conns and byAddr
	conns map[*stream]struct{}
	addrs map[netip.Addr]int
}

// stream is one connection. Its goroutine owns the framer; last is guarded by TCP.mu.
type stream struct {
	conn   net.Conn     // what is read: the socket, or TLS over it
	raw    *net.TCPConn // the socket
	sender netip.Addr
	via    Via
	last   time.Time // when it last sent something
}

// ListenTCP opens a port on addr ("host:port"; an empty host is every address, IPv4 and IPv6).
func ListenTCP(addr string, o Options) (*TCP, error) {
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 20 * time.Second, Count: 4}}
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &TCP{o: o.withDefaults(), ln: ln, conns: map[*stream]struct{}{}, addrs: map[netip.Addr]int{}}, nil
}

// Addr is the address it listens on.
func (t *TCP) Addr() net.Addr { return t.ln.Addr() }

// Stats are the counters so far.
func (t *TCP) Stats() Stats { return t.c.stats() }

// Close closes the port and, with Serve running, ends it as the end of its context would.
func (t *TCP) Close() error { return t.ln.Close() }

// Serve takes connections until ctx ends, then reads what the senders have sent already, and closes everything.
func (t *TCP) Serve(ctx context.Context, sink Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { t.ln.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	var pause time.Duration
	for {
		conn, err := t.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			cancel()
			return nil
		}
		if err != nil { // out of file descriptors, or the peer has gone again: neither ends the port
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			t.o.Logger.Warn("cannot take a syslog connection", "error", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		s := t.admit(conn)
		if s == nil {
			conn.Close()
			continue
		}
		wg.Go(func() { t.serve(ctx, s, sink) })
	}
}

// admit enters a connection in the table, or answers nil when there is no room for it.
func (t *TCP) admit(conn net.Conn) *stream {
	s := &stream{conn: conn, last: t.o.Now(), via: ViaTCP}
	s.raw, _ = conn.(*net.TCPConn)
	if ap, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		s.sender = ap.Addr().Unmap().WithZone("")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.addrs[s.sender] >= t.o.MaxPerAddr {
		t.c.refused.Add(1)
		t.o.Logger.Warn("refused a syslog connection: too many from this sender", "sender", s.sender, "limit", t.o.MaxPerAddr)
		return nil
	}
	if len(t.conns) >= t.o.MaxConns {
		var oldest *stream
		for o := range t.conns {
			if oldest == nil || o.last.Before(oldest.last) {
				oldest = o
			}
		}
		if s.last.Sub(oldest.last) < t.o.IdleEvict {
			t.c.refused.Add(1)
			t.o.Logger.Warn("refused a syslog connection: too many are open and none is idle", "sender", s.sender, "limit", t.o.MaxConns)
			return nil
		}
		t.c.evicted.Add(1)
		oldest.raw.Close() // without a farewell, for which TLS might wait
		t.remove(oldest)
	}
	t.conns[s] = struct{}{}
	t.addrs[s.sender]++
	t.c.conns.Store(int64(len(t.conns)))
	return s
}

// remove takes a connection out of the table. The caller holds mu.
func (t *TCP) remove(s *stream) {
	if _, ok := t.conns[s]; !ok {
		return
	}
	delete(t.conns, s)
	if t.addrs[s.sender]--; t.addrs[s.sender] == 0 {
		delete(t.addrs, s.sender)
	}
	t.c.conns.Store(int64(len(t.conns)))
}

func (t *TCP) serve(ctx context.Context, s *stream, sink Sink) {
	defer func() {
		s.conn.Close()
		t.mu.Lock()
		t.remove(s)
		t.mu.Unlock()
	}()
	if t.o.TLS != nil && !t.handshake(ctx, s) {
		return
	}
	// The end of the context wakes a waiting read; the loop then goes on with short deadlines until nothing more comes. Our side of the
	// connection is closed first (below TLS, where rsyslog and others look before each message): a sender that looks keeps what it has not
	// sent for the next connection.
	stop := context.AfterFunc(ctx, func() {
		t.ln.Close() // first, so that nobody connects again to a port that is about to go
		_ = s.raw.CloseWrite()
		_ = s.conn.SetReadDeadline(time.Now())
	})
	defer stop()

	f := framer{max: t.o.MaxLine}
	var lines []Line
	var now time.Time
	emit := func(msg []byte, cut bool) {
		if len(msg) == 0 {
			return
		}
		if cut {
			t.c.cut.Add(1)
		}
		t.c.lines.Add(1)
		t.c.bytes.Add(uint64(len(msg)))
		lines = append(lines, Line{Created: now.UnixNano(), Sender: s.sender, Via: s.via, Cut: cut, Text: msg})
	}
	deliver := func(ctx context.Context) error {
		if len(lines) == 0 {
			return nil
		}
		err := sink.Receive(ctx, lines)
		lines = lines[:0]
		return err
	}
	handing, stopHanding := grace(ctx, t.o.Drain)
	defer stopHanding()
	var begun time.Time // when the unfinished line began
	var draining time.Time
	quiet := func() time.Duration { // how long nothing comes when nothing more is to come
		if t.o.Now().Sub(s.last) < time.Second { // it may have looked, found us there, and be about to send
			return 500 * time.Millisecond
		}
		return 100 * time.Millisecond
	}
	for {
		switch {
		case !draining.IsZero():
			_ = s.conn.SetReadDeadline(time.Now().Add(min(quiet(), time.Until(draining))))
		case f.partial():
			_ = s.conn.SetReadDeadline(begun.Add(t.o.LineTimeout))
		default:
			_ = s.conn.SetReadDeadline(time.Time{})
		}
		if draining.IsZero() && ctx.Err() != nil { // it ended while the deadline was being set
			draining = time.Now().Add(t.o.Drain)
			continue
		}
		n, err := s.conn.Read(f.room())
		if n > 0 {
			now = t.o.Now()
			t.mu.Lock()
			s.last = now
			t.mu.Unlock()
			had := f.partial()
			f.fed(n, emit)
			if len(lines) > 0 || !had {
				begun = time.Now()
			}
			sctx, cancel := handing, context.CancelFunc(func() {})
			if !draining.IsZero() {
				sctx, cancel = context.WithDeadline(context.WithoutCancel(ctx), draining)
			}
			derr := deliver(sctx)
			cancel()
			if derr != nil {
				return
			}
			if f.broken {
				t.c.framing.Add(1)
				t.o.Logger.Warn("a syslog stream lost its framing and was closed; its sender should connect again", "sender", s.sender)
				return
			}
		}
		if err == nil {
			continue
		}
		timeout := errors.Is(err, os.ErrDeadlineExceeded)
		if timeout && draining.IsZero() && ctx.Err() != nil {
			draining = time.Now().Add(t.o.Drain)
			continue
		}
		if timeout && draining.IsZero() {
			t.c.slow.Add(1)
			if !f.counting() {
				// Some devices send the line end before the next message and not after the last: what there is, is the line.
				now = t.o.Now()
				f.flush(emit)
				if deliver(handing) != nil {
					return
				}
				continue
			}
			t.o.Logger.Warn("closed a syslog connection: a counted message did not end in time", "sender", s.sender, "limit", t.o.LineTimeout)
		} else if !timeout && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			t.o.Logger.Debug("a syslog connection broke", "sender", s.sender, "error", fmt.Sprint(err))
		}
		now = t.o.Now()
		f.flush(emit)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.o.Drain)
		_ = deliver(last)
		cancel()
		return
	}
}
