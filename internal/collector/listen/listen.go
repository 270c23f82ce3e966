package listen

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"
)

// Line is one message as it came.
type Line struct {
	Created int64 // when it was read, UTC nanoseconds
	Sender  netip.Addr
	Via     Via
	Stream  uint32 // of inputs that read several files: which one, the same over a restart; 0: none
	Cut     bool   // it was longer than MaxLine, or its sender stopped in the middle
	Text    []byte // valid until Receive returns
}

// Via says how a line came, in the order of how much is known of its sender.
type Via uint8

// The ways in.
const (
	ViaUDP    Via = iota
	ViaTCP        // also HTTP without TLS
	ViaTLS        // the sender knows who we are
	ViaMutual     // and we know the sender, by its certificate
	ViaLocal      // a file on this machine
)

// Sink keeps lines. Receive returns when they are kept; it may wait, and gives an error only when it will never keep them. Listeners call
// it from several goroutines.
type Sink interface {
	Receive(ctx context.Context, lines []Line) error
}

// Syncer is what a Sink also is when it can make what it has received survive a power cut. Inputs that acknowledge call it before they do;
// many may call it at once.
type Syncer interface {
	Sync() error
}

// Recaller is what a Sink also is when it can say what it has received. An input that reads files asks it after a crash, so that it reads
// nothing twice.
type Recaller interface {
	// Mark is a place behind everything that this input has given so far. It is never 0.
	Mark() uint64
	// Since gives the texts that this input has given after the mark, in order; each is valid during the call.
	Since(mark uint64, f func(text []byte)) error
}

// Keep gives lines to the sink and returns when they may be acknowledged to their sender.
func Keep(ctx context.Context, sink Sink, lines []Line) error {
	if err := sink.Receive(ctx, lines); err != nil {
		return err
	}
	if s, ok := sink.(Syncer); ok {
		return s.Sync()
	}
	return nil
}

// Options bound a listener. The zero value is usable.
type Options struct {
	MaxLine     int           // bytes; default 64 KiB
	MaxConns    int           // TCP connections; default 256
	MaxPerAddr  int           // of which from one address; default half of MaxConns
	LineTimeout time.Duration // how long a TCP sender may take for one line; default 30 s
	IdleEvict   time.Duration // a connection silent for so long may be closed when another needs its place; default 5 min
	Drain       time.Duration // how long a listener goes on reading after its context has ended; default 2 s
	ReadBuffer  int           // bytes of kernel buffer asked for a UDP socket; default 16 MiB
	Binary      bool          // of a UDP socket: give datagrams as they are, neither trimmed nor cut
	TLS         *tls.Config   // of a stream port: speak TLS; ClientAuth says whether senders must show certificates
	Now         func() time.Time
	Logger      *slog.Logger
}

// Defaults are the options with a value everywhere.
func (o Options) Defaults() Options { return o.withDefaults() }

func (o Options) withDefaults() Options {
	def := func(n *int, d int) {
		if *n <= 0 {
			*n = d
		}
	}
	dur := func(n *time.Duration, d time.Duration) {
		if *n <= 0 {
			*n = d
		}
	}
	def(&o.MaxLine, 64<<10)
	def(&o.MaxConns, 256)
	def(&o.MaxPerAddr, max(1, o.MaxConns/2))
	def(&o.ReadBuffer, 16<<20)
	dur(&o.LineTimeout, 30*time.Second)
	dur(&o.IdleEvict, 5*time.Minute)
	dur(&o.Drain, 2*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Stats are what one listener has counted since it began.
type Stats struct {
	Lines       uint64 `json:"lines"`
	Bytes       uint64 `json:"bytes"`
	Cut         uint64 `json:"cut"`          // lines longer than MaxLine, or broken off
	Empty       uint64 `json:"empty"`        // datagrams without content
	KernelDrops uint64 `json:"kernel_drops"` // datagrams the kernel had no room for
	Framing     uint64 `json:"framing"`      // streams that lost their framing and were closed
	Refused     uint64 `json:"refused"`      // connections beyond the limits
	Evicted     uint64 `json:"evicted"`      // silent connections closed to make room
	Slow        uint64 `json:"slow"`         // lines that did not end in time
	Handshake   uint64 `json:"handshake"`    // connections closed because no TLS session came about
	Conns       int64  `json:"conns"`        // connections open now
	ReadBuffer  int    `json:"read_buffer"`  // bytes of kernel buffer the socket really has
	// By holds what only some inputs count, by name: what was refused and why, files followed, flows whose template had not come …
	By map[string]uint64 `json:"by,omitempty"`
}

type counters struct {
	lines, bytes, cut, empty, framing, refused, evicted, slow, handshake atomic.Uint64
	conns                                                                atomic.Int64
}

func (c *counters) stats() Stats {
	return Stats{
		Lines: c.lines.Load(), Bytes: c.bytes.Load(), Cut: c.cut.Load(), Empty: c.empty.Load(), Framing: c.framing.Load(),
		Refused: c.refused.Load(), Evicted: c.evicted.Load(), Slow: c.slow.Load(),
		Handshake: c.handshake.Load(), Conns: c.conns.Load(),
	}
}

// trimEnd takes line ends and NULs off the end of a message.
func trimEnd(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r' || b[len(b)-1] == 0) {
		b = b[:len(b)-1]
	}
	return b
}

// grace is a context that ends d after ctx has: what was read from a socket is still handed over when listening ends, because nobody else
// has it and its sender thinks that it arrived.
func grace(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	g, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(d, cancel)
		context.AfterFunc(g, func() { timer.Stop() })
	})
	return g, func() { stop(); cancel() }
}
