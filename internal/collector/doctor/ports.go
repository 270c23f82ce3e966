package doctor

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"tocsin/internal/collector"
	"tocsin/internal/collector/listen"

	"golang.org/x/sys/unix"
)

// smallBuffer is the kernel buffer below which bursts of UDP are lost.
const smallBuffer = 4 << 20

// ports tries each port, unless a running collector has them.
func (r *run) ports() {
	ports := r.c.Ports()
	if onlyFiles(r.c) {
		return
	}
	if len(ports) == 0 {
		r.add("listeners", "no_listeners", Fail, "no listener is set: nothing can arrive", "Add one to the settings, such as listen: {syslog: [{udp: 0.0.0.0:5514, tcp: 0.0.0.0:5514}]}")
		return
	}
	if r.status != nil {
		for _, l := range r.status.Listeners {
			if l.Network == "udp" && l.ReadBuffer < smallBuffer {
				r.smallBuffer("port "+l.Network+" "+l.Address, l.ReadBuffer)
			}
		}
	}
	all := true
	for _, p := range ports {
		all = all && loopback(p.Addr)
		if r.status == nil {
			r.port(p)
		}
	}
	if all {
		r.add("listeners", "only_loopback", Warn, "all listeners take lines from this machine only (127.0.0.1)", "If your firewall is to send here, listen on 0.0.0.0 or on this machine's own address.")
	}
}

func (r *run) smallBuffer(check string, n int) {
	r.add(check, "small_buffer", Warn, fmt.Sprintf("the kernel gives a buffer of only %d KiB: bursts of UDP may be lost", n>>10), "As root, once: echo net.core.rmem_max=16777216 > /etc/sysctl.d/60-tocsin.conf && sysctl --system, then restart the collector.")
}

func (r *run) port(p collector.Port) {
	check := fmt.Sprintf("port %s %s", p.Network, p.Addr)
	buffer, err := tryPort(p)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		who := portHolder(p)
		detail := fmt.Sprintf("%s: another program has the port", p.Key)
		next := "Find it with ss -lnp (as root), stop it, or choose another port here and on the firewall."
		if who != "" {
			detail = fmt.Sprintf("%s: %s has the port", p.Key, who)
			next = fmt.Sprintf("Stop %s, or choose another port here and on the firewall.", strings.Fields(who)[0])
			if strings.HasPrefix(who, "rsyslogd") {
				next = "Take the imudp and imtcp lines out of /etc/rsyslog.conf and restart rsyslog, or choose another port here and on the firewall."
			}
		}
		r.add(check, "port_in_use", Fail, detail, next)
	case errors.Is(err, syscall.EACCES):
		r.add(check, "port_denied", r.deniedLevel(), fmt.Sprintf("%s: this user may not open ports below %d", p.Key, firstFreePort()),
			"The service of the package has the right; by hand give it: setcap cap_net_bind_service=+ep /usr/bin/tocsin-collector. Or use a port from 1024 on.")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		r.add(check, "no_such_address", Fail, fmt.Sprintf("%s: this machine does not have the address %s", p.Key, p.Addr), "Use 0.0.0.0 for all addresses, or one of: "+strings.Join(ownAddresses(), ", "))
	case err != nil:
		r.add(check, "port_failed", Fail, fmt.Sprintf("%s: %v", p.Key, err), "")
	case p.Network == "udp" && buffer < smallBuffer && os.Geteuid() != 0:
		r.smallBuffer(check, buffer)
	default:
		r.add(check, "port_free", OK, "free", "")
	}
}

// deniedLevel: where the service's unit may have the right that this shell has not, it is no fault yet.
func (r *run) deniedLevel() string {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		if _, err := os.Stat("/lib/systemd/system/tocsin-collector.service"); err == nil {
			return Skip
		}
	}
	return Fail
}

func firstFreePort() int {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if n, aerr := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && aerr == nil {
		return n
	}
	return 1024
}

func tryPort(p collector.Port) (buffer int, err error) {
	if p.Network == "udp" {
		u, err := listen.ListenUDP(p.Addr, listen.Options{})
		if err != nil {
			return 0, err
		}
		defer u.Close()
		return u.Stats().ReadBuffer, nil
	}
	ln, err := net.Listen("tcp", p.Addr)
	if err != nil {
		return 0, err
	}
	return 0, ln.Close()
}

func ownAddresses() (list []string) {
	as, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range as {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			list = append(list, n.IP.String())
		}
	}
	return list
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func portOf(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return port
}

// portKey names a port so that 0.0.0.0, [::] and an empty host are one.
func portKey(network, addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return network + " " + addr
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = "*"
	}
	return network + " " + host + " " + port
}

// portHolder names the program that has a port, by the kernel's table of sockets and the open files of processes; "" when it cannot be
// seen (another user's process, and we are not root).
func portHolder(p collector.Port) string {
	port, err := strconv.Atoi(portOf(p.Addr))
	if err != nil {
		return ""
	}
	inodes := map[string]bool{}
	for _, table := range []string{p.Network, p.Network + "6"} {
		f, err := os.Open("/proc/net/" + table)
		if err != nil {
			continue
		}
		sc := bufio.NewScanner(f)
		for sc.Scan() { // "  1: 00000000:0202 00000000:0000 07 … uid timeout inode"
			w := strings.Fields(sc.Text())
			if len(w) < 10 || p.Network == "tcp" && w[3] != "0A" { // TCP_LISTEN
				continue
			}
			_, hex, _ := strings.Cut(w[1], ":")
			if n, err := strconv.ParseUint(hex, 16, 16); err == nil && int(n) == port {
				inodes["socket:["+w[9]+"]"] = true
			}
		}
		f.Close()
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	if err != nil || len(inodes) == 0 {
		return ""
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && inodes[target] {
			pid := strings.Split(fd, "/")[2]
			name, err := os.ReadFile("/proc/" + pid + "/comm")
			if err != nil {
				continue
			}
			return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), pid)
		}
	}
	return ""
}

// mayCapture says whether this process may look at packets.
func mayCapture() bool {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}
