package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"tocsin/internal/event"
)

// limiters holds one token bucket per key. Buckets that have been full again for a minute are forgotten.
type limiters[K comparable] struct {
	rate  rate.Limit
	burst int

	mu    sync.Mutex // guards m and swept; held for a map look-up, or a sweep once a minute
	m     map[K]*rate.Limiter
	swept time.Time
}

func (l *limiters[K]) set(r float64, burst int) {
	l.rate, l.burst, l.m = rate.Limit(r), burst, map[K]*rate.Limiter{}
}

// take takes n tokens, or says how long to wait for them.
func (l *limiters[K]) take(k K, n int, now time.Time) (ok bool, wait time.Duration) {
	l.mu.Lock()
	if now.Sub(l.swept) > time.Minute || now.Before(l.swept) {
		for k, r := range l.m {
			if r.TokensAt(now) >= float64(l.burst) {
				delete(l.m, k)
			}
		}
		l.swept = now
	}
	r := l.m[k]
	if r == nil {
		r = rate.NewLimiter(l.rate, l.burst)
		l.m[k] = r
	}
	l.mu.Unlock()
	if r.AllowN(now, n) {
		return true, 0
	}
	missing := float64(n) - r.TokensAt(now)
	return false, max(time.Duration(missing/float64(l.rate)*float64(time.Second)), 100*time.Millisecond)
}

// tally counts what is held at the same time, by key.
type tally[K comparable] struct {
	mu sync.Mutex // guards m; held for one look-up
	m  map[K]int
}

// take counts one more of k unless there are most already.
func (t *tally[K]) take(k K, most int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m[k] >= most {
		return false
	}
	if t.m == nil {
		t.m = map[K]int{}
	}
	t.m[k]++
	return true
}

func (t *tally[K]) give(k K) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m[k]--; t.m[k] <= 0 {
		delete(t.m, k)
	}
}

// address is the part of a caller's address that one caller has: an IPv4 address, or an IPv6 network of 64 bits.
func address(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	a := ap.Addr().Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

// locks makes the batches of one stream wait for each other at this gate.
type locks struct {
	mu sync.Mutex // guards m; never held while waiting
	m  map[event.StreamID]*lock
}

type lock struct {
	ch    chan struct{}
	users int
}

// lock waits for the stream's turn. unlock must be called if err is nil.
func (l *locks) lock(ctx context.Context, id event.StreamID) (unlock func(), err error) {
	l.mu.Lock()
	if l.m == nil {
		l.m = map[event.StreamID]*lock{}
	}
	k := l.m[id]
	if k == nil {
		k = &lock{ch: make(chan struct{}, 1)}
		l.m[id] = k
	}
	k.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		if k.users--; k.users == 0 {
			delete(l.m, id)
		}
		l.mu.Unlock()
	}
	select {
	case k.ch <- struct{}{}:
		return func() { <-k.ch; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// pace tells collectors when to come again.
type pace struct {
	target float64

	mu    sync.Mutex // guards the rest
	seen  map[string]time.Time
	swept time.Time
}

// Bounds of the interval between two batches that are not urgent.
const (
	minInterval = 200 * time.Millisecond
	maxInterval = 30 * time.Second
)

// next notes that a collector was heard and returns its next interval: long enough that all together come target times a second, and longer
// when those behind the gate do not keep up.
func (p *pace) next(collector string, now time.Time, pressure float64) time.Duration {
	p.mu.Lock()
	if p.seen == nil {
		p.seen = map[string]time.Time{}
	}
	p.seen[collector] = now
	n := p.count(now)
	p.mu.Unlock()
	d := time.Duration(float64(n) / p.target * float64(time.Second))
	d = max(d, time.Duration(min(max(pressure, 0), 1)*float64(maxInterval)))
	return min(max(d, minInterval), maxInterval)
}

// count is called with mu held.
func (p *pace) count(now time.Time) int {
	if now.Sub(p.swept) > 5*time.Second || now.Before(p.swept) {
		for c, at := range p.seen {
			if now.Sub(at) > time.Minute {
				delete(p.seen, c)
			}
		}
		p.swept = now
	}
	return len(p.seen)
}

func (p *pace) active(now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count(now)
}

// aside bounds what is kept of refused batches, hour by hour.
type aside struct {
	perCollector int
	bytes        int64

	mu   sync.Mutex // guards the rest
	hour time.Time
	used int64
	kept map[string]int
}

func (a *aside) limits(perCollector int, bytes int64) { a.perCollector, a.bytes = perCollector, bytes }

func (a *aside) take(collector string, size int, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := now.Truncate(time.Hour); !h.Equal(a.hour) {
		a.hour, a.used, a.kept = h, 0, map[string]int{}
	}
	if a.used+int64(size) > a.bytes || a.kept[collector] >= a.perCollector {
		return false
	}
	a.used += int64(size)
	a.kept[collector]++
	return true
}

// counts counts refusals. Reasons are a closed set; collectors are only those that proved who they are.
type counts struct {
	mu    sync.Mutex // guards the maps; held for one addition or a copy
	total map[string]uint64
	by    map[string]map[string]uint64 // collector, reason; since New
	todo  map[[2]string]uint64         // not yet handed to the records
}

func (c *counts) add(collector, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total == nil {
		c.total, c.by, c.todo = map[string]uint64{}, map[string]map[string]uint64{}, map[[2]string]uint64{}
	}
	c.total[reason]++
	if collector == "" {
		return
	}
	m := c.by[collector]
	if m == nil {
		m = map[string]uint64{}
		c.by[collector] = m
	}
	m[reason]++
	c.todo[[2]string{collector, reason}]++
}

func (c *counts) all() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]uint64, len(c.total))
	for k, v := range c.total {
		out[k] = v
	}
	return out
}

func (c *counts) of(collector string) map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]uint64{}
	for k, v := range c.by[collector] {
		out[k] = v
	}
	return out
}

// drain hands over what has come since the last time; what done refuses stays.
func (c *counts) drain(done func(collector, reason string, n uint64) bool) {
	c.mu.Lock()
	todo := c.todo
	c.todo = map[[2]string]uint64{}
	c.mu.Unlock()
	for k, n := range todo {
		if !done(k[0], k[1], n) {
			c.mu.Lock()
			c.todo[k] += n
			c.mu.Unlock()
		}
	}
}

// handshaker is a listener that gives out connections whose TLS handshake is done. When very many collectors come at once (after an outage
// of the hub) a bounded number of handshakes is computed at a time, and the rest wait in the kernel's queue. Established connections are
// counted until they close: those of strangers together and by address, those of each collector.
type handshaker struct {
	net.Listener
	cfg    *tls.Config
	l      Limits
	who    func(tls.ConnectionState) (collector string) // empty: a stranger
	refuse func(reason string)

	slots   chan struct{} // handshakes being computed
	pending chan struct{} // connections without a finished handshake
	ready   chan net.Conn
	done    chan struct{}
	once    sync.Once
	fatal   error

	hosts      tally[string] // connections without a finished handshake, by address
	strangers  tally[string] // by address, and all under ""
	collectors tally[string]
}

// conn tells when it closes, once.
type conn struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		if c.closed != nil {
			c.closed()
		}
	})
	return err
}

// slotTime bounds how long one handshake may hold a slot: computing takes a millisecond or two, the rest is waiting for the other side, which
// may never answer.
const slotTime = 500 * time.Millisecond

func newHandshaker(ln net.Listener, cfg *tls.Config, l Limits, who func(tls.ConnectionState) string, refuse func(string)) *handshaker {
	h := &handshaker{Listener: ln, l: l, who: who, refuse: refuse, slots: make(chan struct{}, l.Handshakes), pending: make(chan struct{}, l.Pending), ready: make(chan net.Conn),
		done: make(chan struct{})}
	h.cfg = cfg.Clone()
	h.cfg.GetConfigForClient = func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
		// Called when the whole ClientHello is here: who only opens a connection holds no slot.
		s, ok := chi.Context().Value(slotKey{}).(*slot)
		if !ok {
			return nil, nil
		}
		select {
		case h.slots <- struct{}{}:
			s.held(func() { <-h.slots })
			return nil, nil
		case <-chi.Context().Done():
			return nil, chi.Context().Err()
		}
	}
	go h.accept()
	return h
}

type slotKey struct{}

// slot is the right to compute one handshake, given back once: at its end or after slotTime.
type slot struct {
	once  sync.Once
	timer *time.Timer
	free  func()
}

func (s *slot) held(free func()) {
	s.free = free
	s.timer = time.AfterFunc(slotTime, s.release)
}

func (s *slot) release() {
	s.once.Do(func() {
		if s.free != nil {
			s.free()
		}
	})
}

func (h *handshaker) accept() {
	for {
		select {
		case h.pending <- struct{}{}:
		case <-h.done:
			return
		}
		c, err := h.Listener.Accept()
		if err != nil {
			<-h.pending
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() || isTemporary(err) {
				select {
				case <-time.After(20 * time.Millisecond): // out of file descriptors, most likely
					continue
				case <-h.done:
					return
				}
			}
			h.once.Do(func() { h.fatal = err; close(h.done) })
			return
		}
		host := address(c.RemoteAddr().String())
		if !h.hosts.take(host, h.l.PendingPerHost) {
			c.Close()
			<-h.pending
			h.refuse("too_many_connections")
			continue
		}
		go h.handshake(c, host)
	}
}

func isTemporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}

// admit counts an established connection, or says that its owner has enough.
func (h *handshaker) admit(c *conn, state tls.ConnectionState, host string) bool {
	if id := h.who(state); id != "" {
		if !h.collectors.take(id, h.l.Connections) {
			return false
		}
		c.closed = func() { h.collectors.give(id) }
		return true
	}
	if !h.strangers.take("", h.l.Strangers) {
		return false
	}
	if !h.strangers.take(host, h.l.StrangersPer) {
		h.strangers.give("")
		return false
	}
	c.closed = func() {
		h.strangers.give(host)
		h.strangers.give("")
	}
	return true
}

func (h *handshaker) handshake(plain net.Conn, host string) {
	c := &conn{Conn: plain}
	s := &slot{}
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), slotKey{}, s), h.l.HandshakeBudget)
	tc := tls.Server(c, h.cfg)
	err := tc.HandshakeContext(ctx)
	cancel()
	s.release()
	if s.timer != nil {
		s.timer.Stop()
	}
	h.hosts.give(host)
	<-h.pending
	if err != nil {
		c.Close()
		h.refuse("handshake")
		return
	}
	if !h.admit(c, tc.ConnectionState(), host) {
		c.Close()
		h.refuse("too_many_connections")
		return
	}
	select {
	case h.ready <- tc:
	case <-h.done:
		c.Close()
	}
}

// Accept returns the next connection whose handshake is done.
func (h *handshaker) Accept() (net.Conn, error) {
	select {
	case c := <-h.ready:
		return c, nil
	case <-h.done:
		if h.fatal != nil {
			return nil, h.fatal
		}
		return nil, net.ErrClosed
	}
}

// Close ends the listener.
func (h *handshaker) Close() error {
	h.once.Do(func() { close(h.done) })
	return h.Listener.Close()
}
