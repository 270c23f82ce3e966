package demo

import (
	"net/netip"
	"sort"
	"time"

	"tocsin/internal/load/sample"
)

// scene is one line of the story: when it is sent after the story begins, by which device of which member.
type scene struct {
	at       time.Duration
	member   *member
	device   int
	template string
	values   sample.Values // Time is set when it is sent
}

// Lengths of the story's parts.
const (
	storyScan    = 8 * time.Second
	storyGuess   = 12 * time.Second // begins
	storySuccess = 26 * time.Second
	storyIDS     = 30 * time.Second
	storyCall    = 36 * time.Second
)

// story is every line of it in order of time.
//
// One address looks for open ports at all three members. It then tries passwords on the VPN of the firm and of the council; at the firm one of
// them is right. A minute's worth of seconds later the firm's sensor sees an exploit go from the VPN's address to a file server, and that server talks to an
// address on the indicator list.
func story() []scene {
	school, firm, council := cast[0], cast[1], cast[2]
	var s []scene
	seq := uint64(50_000_000)
	add := func(at time.Duration, m *member, device int, template string, v sample.Values) {
		seq += 7
		v.Seq, v.Host = seq, m.devices[device].name
		if !v.NAT.IsValid() {
			v.NAT = m.hosts[0]
		}
		s = append(s, scene{at, m, device, template, v})
	}

	ports := []uint16{21, 22, 23, 25, 80, 110, 135, 139, 143, 443, 445, 993, 1433, 1723, 3306, 3389, 5900, 8080, 8443, 10443}
	for _, who := range []struct {
		m        *member
		template string
		late     time.Duration
	}{{school, "draytek/block", 0}, {firm, "fortigate/deny", 700 * time.Millisecond}, {council, "asa/deny-acl", 1400 * time.Millisecond}} {
		n := 0
		for i, port := range ports {
			for _, dst := range who.m.hosts {
				at := who.late + storyScan*time.Duration(n)/time.Duration(len(ports)*len(who.m.hosts))
				add(at, who.m, 0, who.template, sample.Values{Src: attacker, Dst: dst, SrcPort: uint16(40000 + i), DstPort: port, Sent: 44, SentPkt: 1})
				n++
			}
		}
	}

	guesses := func(m *member, template string, users []string, count int, from, over time.Duration) {
		for i := range count {
			add(from+over*time.Duration(i)/time.Duration(count), m, 0, template, sample.Values{Src: attacker, Dst: m.hosts[0], SrcPort: uint16(50000 + i), DstPort: 10443, User: users[i%len(users)]})
		}
	}
	guesses(firm, "fortigate/vpn-fail", firm.staff, 24, storyGuess, 10*time.Second)
	guesses(council, "asa/vpn-fail", council.staff, 18, storyGuess+2*time.Second, 8*time.Second)

	add(storySuccess, firm, 0, "fortigate/vpn-up", sample.Values{Src: attacker, Dst: firm.hosts[0], User: "j.moss", NAT: vpnClient})

	for i := range 3 {
		add(storyIDS+time.Duration(i)*400*time.Millisecond, firm, 1, "eve/alert-eternalblue", sample.Values{Src: vpnClient, Dst: fileHost, SrcPort: uint16(41859 + i), DstPort: 445, Sent: 2946, Rcvd: 2118, SentPkt: 19, RcvdPkt: 12})
	}
	for i := range 3 {
		add(storyCall+time.Duration(i)*2*time.Second, firm, 0, "fortigate/close", sample.Values{Src: fileHost, Dst: c2, SrcPort: uint16(49700 + i), DstPort: 443, NATPort: uint16(33000 + i), Sent: 18320, Rcvd: 4410, SentPkt: 40, RcvdPkt: 31, Seconds: 12})
	}
	sort.SliceStable(s, func(i, j int) bool { return s[i].at < s[j].at })
	return s
}

// addresses lists every address the story uses, for the test that keeps the noise clear of them.
func storyAddresses() []netip.Addr { return []netip.Addr{attacker, c2, vpnClient, fileHost} }
