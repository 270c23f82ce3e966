package doctor

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"tocsin/internal/collector"

	"golang.org/x/sys/unix"
)

// seen counts packets of one sender to one port.
type seen struct {
	from    netip.Addr
	network string
	port    int
	syslog  bool // the first bytes are a syslog priority
}

// watch looks at what reaches the machine, before its packet filter, while the collector is silent. It tells the three commonest reasons
// apart: the device sends nothing, it sends to another port, or this machine holds it back.
func (r *run) watch(ctx context.Context) {
	if r.o.Watch <= 0 || onlyFiles(r.c) {
		return
	}
	if !mayCapture() {
		r.add("network", "not_watched", Skip, "this user may not look at the network", "Run doctor with sudo: it then watches for some seconds what reaches this machine.")
		return
	}
	before := r.status.Counts["received"]
	packets, err := capture(ctx, r.o.Watch)
	if err != nil {
		r.add("network", "not_watched", Skip, "cannot look at the network: "+err.Error(), "")
		return
	}
	after := before
	if st, err := collector.FetchStatus(ctx, r.c); err == nil {
		after = st.Counts["received"]
	}
	ours := map[string]bool{}
	for _, p := range r.c.Ports() {
		ours[p.Network+" "+portOf(p.Addr)] = true
	}
	var here, elsewhere []string
	for s, n := range packets {
		port := strings.ToUpper(s.network) + " port " + strconv.Itoa(s.port)
		switch {
		case ours[s.network+" "+strconv.Itoa(s.port)]:
			here = append(here, fmt.Sprintf("%d packets from %s to %s", n, s.from, port))
		case s.syslog && s.network == "udp":
			elsewhere = append(elsewhere, fmt.Sprintf("%s sends syslog to %s", s.from, port))
		}
	}
	slices.Sort(here)
	slices.Sort(elsewhere)
	list := func(what []string) string {
		if len(what) > 5 {
			return strings.Join(what[:5], ", ") + fmt.Sprintf(" and %d more", len(what)-5)
		}
		return strings.Join(what, ", ")
	}
	switch {
	case len(here) > 0 && after > before:
		r.add("network", "arrives", OK, fmt.Sprintf("in %s: %s; the collector received %d lines", r.o.Watch, list(here), after-before), "")
	case len(here) > 0:
		r.add("network", "held_back", Fail, fmt.Sprintf("in %s %s reached this machine, and none of it the collector", r.o.Watch, list(here)),
			"This machine's own packet filter (nft, ufw, firewalld) holds it back: let it in. "+allow(r.c.Ports()))
	}
	if len(elsewhere) > 0 {
		r.add("network", "wrong_port", Fail, list(elsewhere)+", where the collector does not listen", "Change the port on the device, or add that port to listen.syslog in the settings.")
	}
	if len(here) == 0 && len(elsewhere) == 0 {
		r.add("network", "nothing_comes", Warn, fmt.Sprintf("in %s no syslog reached this machine on any port", r.o.Watch), r.sendHere()+" Look also at what stands between the two: VLANs, routes, another firewall.")
	}
}

// allow says how to let the ports in.
func allow(ports []collector.Port) string {
	var ufw []string
	for _, p := range ports {
		ufw = append(ufw, "ufw allow "+portOf(p.Addr)+"/"+p.Network)
	}
	return "With ufw: " + strings.Join(ufw, "; ")
}

// capture counts for d the packets that reach this machine: UDP, and the first packets of TCP connections.
func capture(ctx context.Context, d time.Duration) (map[seen]int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		return nil, err
	}
	const most = 4096 // senders and ports remembered
	found := map[seen]int{}
	buf := make([]byte, 256) // headers and the first bytes; the rest is cut off by the kernel
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if sa, ok := from.(*unix.SockaddrLinklayer); ok && sa.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if s, ok := dissect(buf[:n]); ok {
			if _, known := found[s]; known || len(found) < most {
				found[s]++
			}
		}
	}
	return found, nil
}

func htons(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

// dissect reads an IPv4 or IPv6 packet as far as the first bytes of UDP, or the flags of TCP. Fragments but the first, and IPv6 with
// extension headers, are passed over.
func dissect(b []byte) (seen, bool) {
	var s seen
	var proto byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		head := int(b[0]&15) * 4
		if head < 20 || len(b) < head || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return s, false
		}
		proto, s.from = b[9], netip.AddrFrom4([4]byte(b[12:16]))
		b = b[head:]
	case len(b) >= 40 && b[0]>>4 == 6:
		proto, s.from = b[6], netip.AddrFrom16([16]byte(b[8:24]))
		b = b[40:]
	default:
		return s, false
	}
	switch {
	case proto == unix.IPPROTO_UDP && len(b) >= 8:
		s.network, s.port = "udp", int(binary.BigEndian.Uint16(b[2:]))
		s.syslog = isPriority(b[8:])
	case proto == unix.IPPROTO_TCP && len(b) >= 14 && b[13]&0x12 == 0x02: // SYN without ACK
		s.network, s.port = "tcp", int(binary.BigEndian.Uint16(b[2:]))
	default:
		return s, false
	}
	return s, true
}

// isPriority: "<" one to three digits ">" (RFC 5424, section 6.2.1).
func isPriority(b []byte) bool {
	if len(b) < 3 || b[0] != '<' {
		return false
	}
	for i := 1; i < len(b) && i < 5; i++ {
		if b[i] == '>' {
			return i > 1
		}
		if b[i] < '0' || b[i] > '9' {
			return false
		}
	}
	return false
}
