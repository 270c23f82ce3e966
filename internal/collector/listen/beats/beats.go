// Package beats takes events from filebeat, winlogbeat and their kin: the lumberjack protocol, version 2, over TCP or TLS, plain and
// compressed frames. Each event goes to the sink as one line: its JSON, as it came.
//
// A sender names a window of events and waits for their acknowledgement; it gets one when the sink has the events for good (listen.Keep), and
// signs of life while that takes long, so that it neither gives up nor sends them again. What was not acknowledged when a connection or either
// program ends is sent again by the sender.
//
// The reader is our own and not that of go-lumber, which trusts the sizes it is told: here a window, a frame and what a compressed frame
// expands to are bounded, and events are given on while a window is being read, so that a connection costs about Options.Chunk of memory.
//
// It counts events, bytes, connections refused and failed handshakes, connections closed for a broken protocol, and events that were refused:
// too long, or not a JSON object. Those are acknowledged all the same, as the sender would send them for ever.
package beats

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zlib"

	"tocsin/internal/collector/listen"
)

// Options bound a listener.
type Options struct {
	listen.Options
	MaxEvent int // bytes of one event's JSON; default 1 MiB
	Chunk    int // bytes of events given to the sink at once; default 256 KiB
	// Timeout is how long a sender may take for one frame. Default 30 s.
	Timeout time.Duration
	// Idle is how long a connection may say nothing; Beats connect again when they have something. Default 5 min.
	Idle time.Duration
	// Alive is how often a waiting sender is told that we are still there. Default 5 s.
	Alive time.Duration
}

// The frames of version 2.
const (
	version    = '2'
	window     = 'W'
	jsonFrame  = 'J'
	compressed = 'C'
	ack        = 'A'
	maxWindow  = 1 << 20  // events; Beats send at most some thousands
	maxFrame   = 32 << 20 // bytes of a compressed frame, and of what it expands to
)

// Server is a Beats port.
type Server struct {
	o     Options
	guard *listen.Guard

	lines, bytes, broken, handshake, refusedLong, refusedJSON atomic.Uint64
}

// Listen opens a port. With o.TLS it speaks TLS.
func Listen(addr string, o Options) (*Server, error) {
	if o.MaxEvent <= 0 {
		o.MaxEvent = 1 << 20
	}
	if o.Chunk <= 0 {
		o.Chunk = 256 << 10
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Idle <= 0 {
		o.Idle = 5 * time.Minute
	}
	if o.Alive <= 0 {
		o.Alive = 5 * time.Second
	}
	o.Options = o.Defaults()
	g, err := listen.NewGuard(addr, o.Options)
	if err != nil {
		return nil, err
	}
	return &Server{o: o, guard: g}, nil
}

// Addr is the address it listens on.
func (s *Server) Addr() net.Addr { return s.guard.Addr() }

// Close closes the port.
func (s *Server) Close() error { return s.guard.Close() }

// Stats are the counters so far.
func (s *Server) Stats() listen.Stats {
	return listen.Stats{Lines: s.lines.Load(), Bytes: s.bytes.Load(), Framing: s.broken.Load(), Refused: s.guard.Refused(), Handshake: s.handshake.Load(), Conns: s.guard.Conns(),
		By: map[string]uint64{"refused_too_long": s.refusedLong.Load(), "refused_not_json": s.refusedJSON.Load()}}
}

// Serve takes connections until ctx ends. What was not acknowledged then is sent again by its sender.
func (s *Server) Serve(ctx context.Context, sink listen.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.guard.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := s.guard.Accept()
		if err != nil { // closed
			cancel()
			return nil
		}
		wg.Go(func() {
			defer conn.Close()
			if err := s.serve(ctx, conn, sink); err != nil && ctx.Err() == nil {
				s.o.Logger.Warn("closed a Beats connection", "sender", listen.AddrOf(conn), "error", err)
			}
		})
	}
}

// errProtocol means that what came is not lumberjack version 2.
var errProtocol = errors.New("this is not the Beats protocol (lumberjack version 2): set the sender's output to logstash")

func (s *Server) serve(ctx context.Context, raw net.Conn, sink listen.Sink) error {
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	c := &connection{s: s, conn: raw, sink: sink, sender: listen.AddrOf(raw), via: listen.ViaTCP}
	if s.o.TLS != nil {
		t := tls.Server(raw, s.o.TLS)
		hctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := t.HandshakeContext(hctx)
		cancel()
		if err != nil {
			s.handshake.Add(1)
			return listen.HandshakeHint(err)
		}
		state := t.ConnectionState()
		c.conn, c.via = t, listen.ViaOf(&state)
	}
	in := newReader(c.conn)
	for {
		err := c.window(ctx, in)
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, errProtocol), errors.Is(err, errSize):
			s.broken.Add(1)
		}
		return err
	}
}

// connection belongs to one goroutine; while the sink keeps lines another writes signs of life.
type connection struct {
	s      *Server
	conn   net.Conn
	sink   listen.Sink
	sender netip.Addr
	via    listen.Via

	lines []listen.Line
	buf   []byte // what lines point into
	last  uint32 // sequence number of the newest event read
	acked uint32 // the newest number that the sender has been told in this window
	count uint32 // events of the window still to come
}

// window reads one window of events and acknowledges it.
func (c *connection) window(ctx context.Context, in *bufio.Reader) error {
	_ = c.conn.SetReadDeadline(time.Now().Add(c.s.o.Idle)) // or strangers who say nothing would fill the port
	var h [6]byte
	if _, err := io.ReadFull(in, h[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) {
			return io.EOF
		}
		return err
	}
	if h[0] != version || h[1] != window {
		return errProtocol
	}
	n := binary.BigEndian.Uint32(h[2:])
	if n > maxWindow {
		return fmt.Errorf("%w: a window of %d events", errSize, n)
	}
	c.count, c.last, c.acked = n, 0, 0
	if err := c.frames(ctx, in, false); err != nil {
		c.drop()
		return err
	}
	return c.keep(ctx)
}

var errSize = errors.New("a size beyond what any Beat sends")

// frames reads frames until the window's events are there, or, inside a compressed frame, its end.
func (c *connection) frames(ctx context.Context, in io.Reader, inside bool) error {
	for c.count > 0 {
		_ = c.conn.SetReadDeadline(time.Now().Add(c.s.o.Timeout))
		var h [2]byte
		if _, err := io.ReadFull(in, h[:]); err != nil {
			if inside && errors.Is(err, io.EOF) {
				return nil
			}
			return slow(err)
		}
		if h[0] != version {
			return errProtocol
		}
		switch {
		case h[1] == jsonFrame:
			if err := c.event(ctx, in); err != nil {
				return err
			}
		case h[1] == compressed && !inside:
			var size [4]byte
			if _, err := io.ReadFull(in, size[:]); err != nil {
				return slow(err)
			}
			n := binary.BigEndian.Uint32(size[:])
			if n > maxFrame {
				return fmt.Errorf("%w: a compressed frame of %d bytes", errSize, n)
			}
			body := io.LimitReader(in, int64(n))
			z, err := zlib.NewReader(body)
			if err != nil {
				return fmt.Errorf("%w: %w", errProtocol, err)
			}
			err = c.frames(ctx, io.LimitReader(z, maxFrame), true)
			z.Close()
			if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, body); err != nil { // the checksum behind the last event
				return slow(err)
			}
		default:
			return errProtocol
		}
	}
	return nil
}

func slow(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: a window did not end in time", err)
	case errors.Is(err, zlib.ErrHeader), errors.Is(err, zlib.ErrChecksum):
		return fmt.Errorf("%w: %w", errProtocol, err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.EOF
	}
	return err
}

// event reads one JSON frame.
func (c *connection) event(ctx context.Context, in io.Reader) error {
	var h [8]byte
	if _, err := io.ReadFull(in, h[:]); err != nil {
		return slow(err)
	}
	c.count--
	seq, n := binary.BigEndian.Uint32(h[:]), int(binary.BigEndian.Uint32(h[4:]))
	if n > c.s.o.MaxEvent {
		if n > maxFrame {
			return fmt.Errorf("%w: an event of %d bytes", errSize, n)
		}
		if _, err := io.CopyN(io.Discard, in, int64(n)); err != nil {
			return slow(err)
		}
		c.last = seq
		c.s.refusedLong.Add(1)
		c.s.o.Logger.Warn("refused an event from a Beat: too long", "sender", c.sender, "bytes", n, "limit", c.s.o.MaxEvent)
		return nil
	}
	if cap(c.buf)-len(c.buf) < n { // earlier lines point into the old memory, which stays
		c.buf = make([]byte, 0, max(n, c.s.o.Chunk))
	}
	b := c.buf[len(c.buf) : len(c.buf)+n]
	if _, err := io.ReadFull(in, b); err != nil {
		return slow(err)
	}
	c.last = seq
	if t := bytes.TrimSpace(b); len(t) == 0 || t[0] != '{' || !json.Valid(t) {
		c.s.refusedJSON.Add(1)
		c.s.o.Logger.Warn("refused an event from a Beat: not a JSON object", "sender", c.sender)
		return nil
	}
	c.buf = c.buf[:len(c.buf)+n]
	c.lines = append(c.lines, listen.Line{Created: c.s.o.Now().UnixNano(), Sender: c.sender, Via: c.via, Text: oneLine(b)})
	if len(c.buf) >= c.s.o.Chunk || len(c.lines) >= 2000 {
		return c.keep(ctx)
	}
	return nil
}

// oneLine takes the line breaks between the tokens of a JSON text away; inside strings there are none.
func oneLine(b []byte) []byte {
	for i, x := range b {
		if x == '\n' || x == '\r' {
			b[i] = ' '
		}
	}
	return b
}

func (c *connection) drop() {
	c.lines, c.buf = c.lines[:0], c.buf[:0]
	if cap(c.buf) > 2*c.s.o.Chunk {
		c.buf = nil
	}
}

// keep gives the events to the sink and acknowledges all up to the newest.
func (c *connection) keep(ctx context.Context) error {
	defer c.drop()
	if len(c.lines) > 0 {
		done := make(chan error, 1)
		go func() { done <- listen.Keep(ctx, c.sink, c.lines) }()
		alive := time.NewTicker(c.s.o.Alive)
		defer alive.Stop()
		for waiting := true; waiting; {
			select {
			case err := <-done:
				if err != nil {
					return fmt.Errorf("cannot keep events now; the sender will send them again: %w", err)
				}
				waiting = false
			case <-alive.C:
				if err := c.answer(0); err != nil {
					<-done // the lines' memory is the sink's until then
					return err
				}
			}
		}
		size := 0
		for i := range c.lines {
			size += len(c.lines[i].Text)
		}
		c.s.lines.Add(uint64(len(c.lines)))
		c.s.bytes.Add(uint64(size))
	}
	// Each number once: a sender with several windows under way takes the second for the next window's, and forgets what was never kept.
	if c.last == c.acked {
		return nil
	}
	c.acked = c.last
	return c.answer(c.last)
}

func (c *connection) answer(seq uint32) error {
	b := binary.BigEndian.AppendUint32([]byte{version, ack}, seq)
	_ = c.conn.SetWriteDeadline(time.Now().Add(c.s.o.Timeout))
	_, err := c.conn.Write(b)
	return err
}

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 32<<10) }
