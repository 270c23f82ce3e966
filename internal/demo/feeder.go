package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tocsin/internal/load/sample"
)

// feeder is all devices of one member: it sends their lines over real sockets to the collector's syslog address. It counts a line as sent when
// the operating system took it; what the network between two programs loses on the way (a collector that is down and UDP) is a gap
// that the balance shows.
type feeder struct {
	m    *member
	to   netip.AddrPort
	sent atomic.Uint64
	// refused counts datagrams that the operating system did not take, because nobody listens at the other end.
	refused atomic.Uint64

	mu    sync.Mutex // one line at a time: the background and the story share the sockets
	conns []net.Conn // by device; nil when not connected
	buf   []byte
}

func newFeeder(m *member, to netip.AddrPort) *feeder {
	return &feeder{m: m, to: to, conns: make([]net.Conn, len(m.devices))}
}

// connect opens the socket of a device, from its own loopback address.
func (f *feeder) connect(ctx context.Context, n int) error {
	if f.conns[n] != nil {
		return nil
	}
	d := f.m.devices[n]
	var dialer net.Dialer
	network := "udp"
	if d.tcp {
		network = "tcp"
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(d.addr, 0))
	} else {
		dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(d.addr, 0))
	}
	dialer.Timeout = 5 * time.Second
	c, err := dialer.DialContext(ctx, network, f.to.String())
	if err != nil {
		return fmt.Errorf("device %s of %s cannot reach its collector: %w", d.name, f.m.name, err)
	}
	f.conns[n] = c
	return nil
}

// send hands one line of a device to the network. A TCP device connects again after a cut and sends the line anew, for as long as
// its collector may need to start; a UDP device sends and forgets, as real ones do.
func (f *feeder) send(ctx context.Context, n int, line []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.m.devices[n]
	f.buf = f.buf[:0]
	switch {
	case !d.tcp:
		f.buf = append(f.buf, line...)
	case n%2 == 1: // octet counting (RFC 6587 3.4.1) and lines (3.4.2): both are met in the field
		f.buf = strconv.AppendInt(f.buf, int64(len(line)), 10)
		f.buf = append(f.buf, ' ')
		f.buf = append(f.buf, line...)
	default:
		f.buf = append(f.buf, line...)
		f.buf = append(f.buf, '\n')
	}
	for {
		err := f.connect(ctx, n)
		if err == nil {
			if _, err = f.conns[n].Write(f.buf); err == nil {
				f.sent.Add(1)
				return nil
			}
			if !d.tcp { // "connection refused" speaks of the datagram before; this one was not sent either
				f.refused.Add(1)
				return nil
			}
			_ = f.conns[n].Close()
			f.conns[n] = nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(200 * time.Millisecond): // until the collector listens again
		}
	}
}

func (f *feeder) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, c := range f.conns {
		if c != nil {
			_ = c.Close() // sent is sent: nothing is buffered on our side
			f.conns[i] = nil
		}
	}
}

// background sends the member's ordinary traffic at a steady rate (lines a second) until ctx ends.
func (f *feeder) background(ctx context.Context, rate float64, seed uint64) error {
	g := newGenerator(f.m, seed)
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	var buf []byte
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			var device int
			buf, device = g.next(buf[:0], now)
			if err := f.send(ctx, device, buf); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// play sends the story's lines at their times, all members together, from now on.
func play(ctx context.Context, feeders []*feeder) error {
	begin := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for _, f := range feeders {
		g.Go(func() error {
			timer := time.NewTimer(0)
			defer timer.Stop()
			var buf []byte
			for _, s := range story() {
				if s.member != f.m {
					continue
				}
				timer.Reset(time.Until(begin.Add(s.at)))
				select {
				case <-ctx.Done():
					return ctx.Err()
				case now := <-timer.C:
					s.values.Time = now
					buf = sample.All().Template(s.template).Append(buf[:0], &s.values)
					if err := f.send(ctx, s.device, buf); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return g.Wait()
}
