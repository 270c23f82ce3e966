package local

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
)

// Free says whether a TCP (and, if asked, UDP) port of 127.0.0.1 can be had.
func Free(port int, udp bool) bool {
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	l, err := net.Listen("tcp", at)
	if err != nil {
		return false
	}
	defer l.Close()
	if udp {
		p, err := net.ListenPacket("udp", at)
		if err != nil {
			return false
		}
		defer p.Close()
	}
	return true
}

// FreePort returns the first free of the wishes, else one the system chooses, free for TCP and UDP. Another program may take it before it is used:
// who starts a program on it must be ready for that.
func FreePort(wishes ...int) (int, error) {
	for _, p := range wishes {
		if Free(p, true) {
			return p, nil
		}
	}
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		p := int(netip.MustParseAddrPort(l.Addr().String()).Port())
		if err := l.Close(); err != nil {
			return 0, err
		}
		if Free(p, true) {
			return p, nil
		}
	}
	return 0, errors.New("no free port on 127.0.0.1")
}
