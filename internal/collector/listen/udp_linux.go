package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// UDP is a syslog socket. It reads many datagrams with one system call (recvmmsg).
type UDP struct {
	o       Options
	conn    *net.UDPConn
	raw     syscall.RawConn
	c       counters
	drops   atomic.Uint64
	dropped uint32 // the kernel's counter when it was last read; only the serving goroutine touches it
	buffer  int
}

const (
	udpBatch = 64
	udpMax   = 65535
)

type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// ListenUDP opens a socket on addr ("host:port"; an empty host is every address, IPv4 and IPv6).
func ListenUDP(addr string, o Options) (*UDP, error) {
	o = o.withDefaults()
	a, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("udp address: %w", err)
	}
	conn, err := net.ListenUDP("udp", a)
	if err != nil {
		return nil, err
	}
	u := &UDP{o: o, conn: conn}
	if u.raw, err = conn.SyscallConn(); err != nil {
		conn.Close()
		return nil, err
	}
	err = u.raw.Control(func(fd uintptr) {
		// The forced form passes the system's limit and needs CAP_NET_ADMIN; without it the limit holds and doctor says so.
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, o.ReadBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, o.ReadBuffer)
		}
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil {
			u.buffer = n
		}
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return u, nil
}

// Addr is the address it listens on.
func (u *UDP) Addr() net.Addr { return u.conn.LocalAddr() }

// Stats are the counters so far.
func (u *UDP) Stats() Stats {
	s := u.c.stats()
	s.KernelDrops, s.ReadBuffer = u.drops.Load(), u.buffer
	return s
}

// Close closes the socket.
func (u *UDP) Close() error { return u.conn.Close() }

// Serve reads datagrams until ctx ends, then those the kernel still holds. It closes the socket.
func (u *UDP) Serve(ctx context.Context, sink Sink) error {
	defer u.conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = u.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	buf := make([]byte, udpBatch*udpMax) // touched only as far as datagrams fill it
	msgs := make([]mmsghdr, udpBatch)
	iovs := make([]unix.Iovec, udpBatch)
	names := make([]unix.RawSockaddrInet6, udpBatch)
	for i := range msgs {
		iovs[i].Base = &buf[i*udpMax]
		iovs[i].SetLen(udpMax)
		msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&names[i]))
		msgs[i].hdr.Iov = &iovs[i]
		msgs[i].hdr.SetIovlen(1)
	}
	lines := make([]Line, 0, udpBatch)
	receive := func(fd uintptr) (n int, errno syscall.Errno) {
		for i := range msgs {
			msgs[i].hdr.Namelen = unix.SizeofSockaddrInet6
		}
		for {
			got, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&msgs[0])), udpBatch, unix.MSG_DONTWAIT, 0, 0)
			if errno != unix.EINTR {
				return int(got), errno
			}
		}
	}
	deliver := func(ctx context.Context, n int) error {
		now := u.o.Now().UnixNano()
		lines = lines[:0]
		for i := range n {
			text := buf[i*udpMax : i*udpMax+int(msgs[i].n)]
			if !u.o.Binary {
				text = trimEnd(text)
			}
			if len(text) == 0 {
				u.c.empty.Add(1)
				continue
			}
			line := Line{Created: now, Sender: address(&names[i]), Text: text}
			if len(text) > u.o.MaxLine && !u.o.Binary {
				line.Text, line.Cut = text[:u.o.MaxLine], true
				u.c.cut.Add(1)
			}
			u.c.lines.Add(1)
			u.c.bytes.Add(uint64(len(text)))
			lines = append(lines, line)
		}
		if len(lines) == 0 {
			return nil
		}
		return sink.Receive(ctx, lines)
	}
	drain, cancel := grace(ctx, u.o.Drain)
	defer cancel()
	var lastDrops time.Time
	for {
		var n int
		var errno syscall.Errno
		err := u.raw.Read(func(fd uintptr) bool {
			n, errno = receive(fd)
			return errno != unix.EAGAIN
		})
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
				break
			}
			return fmt.Errorf("read udp: %w", err)
		}
		if errno != 0 {
			return fmt.Errorf("read udp: %w", errno)
		}
		if err := deliver(drain, n); err != nil {
			return err
		}
		if now := u.o.Now(); now.Sub(lastDrops) > time.Second {
			lastDrops = now
			u.readDrops()
		}
	}
	// What the kernel holds was sent to us in time: take it, but no longer than Drain.
	for drain.Err() == nil {
		var n int
		var errno syscall.Errno
		if err := u.raw.Control(func(fd uintptr) { n, errno = receive(fd) }); err != nil || errno != 0 {
			break
		}
		if err := deliver(drain, n); err != nil {
			return err
		}
	}
	u.readDrops()
	return nil
}

// readDrops asks the kernel how many datagrams it had no room for (SO_MEMINFO, the number that /proc/net/udp shows).
func (u *UDP) readDrops() {
	const (
		soMeminfo = 55
		drops     = 8 // SK_MEMINFO_DROPS
	)
	var info [9]uint32
	_ = u.raw.Control(func(fd uintptr) {
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, soMeminfo, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 || size < (drops+1)*4 {
			return
		}
		u.drops.Add(uint64(info[drops] - u.dropped)) // wraps around after 2^32
		u.dropped = info[drops]
	})
}

func address(sa *unix.RawSockaddrInet6) netip.Addr {
	switch sa.Family {
	case unix.AF_INET:
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr)
	case unix.AF_INET6:
		return netip.AddrFrom16(sa.Addr).Unmap()
	}
	return netip.Addr{}
}
