package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Guard is a TCP port that takes so many connections and no more, in all and from one address; beyond that it closes them at once. It is for
// inputs whose protocol makes senders try again.
type Guard struct {
	ln       net.Listener
	max, per int
	log      *slog.Logger

	mu    sync.Mutex // guards addrs and n
	addrs map[netip.Addr]int
	n     int

	refused atomic.Uint64
}

// NewGuard opens a port. o's TLS is not used: see Handshake.
func NewGuard(addr string, o Options) (*Guard, error) {
	o = o.withDefaults()
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 20 * time.Second, Count: 4}}
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Guard{ln: ln, max: o.MaxConns, per: o.MaxPerAddr, log: o.Logger, addrs: map[netip.Addr]int{}}, nil
}

// Addr is the address it listens on.
func (g *Guard) Addr() net.Addr { return g.ln.Addr() }

// Close closes the port.
func (g *Guard) Close() error { return g.ln.Close() }

// Refused is how many connections were beyond the limits.
func (g *Guard) Refused() uint64 { return g.refused.Load() }

// Conns is how many connections are open.
func (g *Guard) Conns() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int64(g.n)
}

// Accept is net.Listener.
func (g *Guard) Accept() (net.Conn, error) {
	var pause time.Duration
	for {
		conn, err := g.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil { // out of file descriptors, or the peer has gone again: neither ends the port
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			g.log.Warn("cannot take a connection", "error", err)
			time.Sleep(pause)
			continue
		}
		pause = 0
		from := AddrOf(conn)
		g.mu.Lock()
		ok := g.n < g.max && g.addrs[from] < g.per
		if ok {
			g.n++
			g.addrs[from]++
		}
		g.mu.Unlock()
		if !ok {
			g.refused.Add(1)
			g.log.Warn("refused a connection: too many are open", "sender", from, "limit", g.max, "limit_per_sender", g.per)
			conn.Close()
			continue
		}
		return &guarded{Conn: conn, g: g, from: from}, nil
	}
}

type guarded struct {
	net.Conn
	g    *Guard
	from netip.Addr
	once sync.Once
}

// Close is net.Conn.
func (c *guarded) Close() error {
	c.once.Do(func() {
		c.g.mu.Lock()
		defer c.g.mu.Unlock()
		c.g.n--
		if c.g.addrs[c.from]--; c.g.addrs[c.from] == 0 {
			delete(c.g.addrs, c.from)
		}
	})
	return c.Conn.Close()
}

// AddrOf is the address a connection comes from, without zone.
func AddrOf(c net.Conn) netip.Addr { return ParseAddr(c.RemoteAddr().String()) }

// ParseAddr reads "address:port" as net and net/http write it.
func ParseAddr(s string) netip.Addr {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// ViaOf says what a TLS state (nil: none) tells of the sender.
func ViaOf(s *tls.ConnectionState) Via {
	switch {
	case s == nil:
		return ViaTCP
	case len(s.VerifiedChains) > 0:
		return ViaMutual
	}
	return ViaTLS
}
