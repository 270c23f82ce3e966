package demo

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"tocsin/internal/load/sample"
)

// generator makes a member's background lines. The same seed gives the same lines but for their times.
//
// A stranger of the noise keeps to one port of one host, as most of the Internet's scanners do at the rate one member sees them, and
// no stranger calls on two members: so no rule about scans or about several members may fire on it.
type generator struct {
	m      *member
	rng    *rand.Rand
	set    *sample.Set
	sum    int
	seq    uint64
	values sample.Values
}

func newGenerator(m *member, seed uint64) *generator {
	g := &generator{m: m, rng: rand.New(rand.NewPCG(seed, uint64(m.number))), set: sample.All(), seq: uint64(m.number) * 1_000_000}
	for _, l := range m.background {
		g.sum += l.weight
	}
	return g
}

// next appends one line to dst and says which device sends it.
func (g *generator) next(dst []byte, now time.Time) (out []byte, device int) {
	n := g.rng.IntN(g.sum)
	var l line
	for _, l = range g.m.background {
		if n -= l.weight; n < 0 {
			break
		}
	}
	g.fill(l, now)
	return g.set.Template(l.template).Append(dst, &g.values), l.device
}

func (g *generator) fill(l line, now time.Time) {
	v, rng, m := &g.values, g.rng, g.m
	g.seq += 1 + rng.Uint64N(3)
	*v = sample.Values{Time: now, Host: m.devices[l.device].name, Seq: g.seq, NAT: m.hosts[0], SrcPort: ephemeral(rng), NATPort: ephemeral(rng), UDP: l.udp, User: m.staff[rng.IntN(len(m.staff))]}
	x := g.set.Pick(rng, l.flow == noise)
	v.Sent, v.Rcvd, v.SentPkt, v.RcvdPkt, v.Seconds = x.Sent, x.Rcvd, x.SentPkt, x.RcvdPkt, x.Seconds
	v.Src6, v.Dst6 = inside6(m, rng), inside6(m, rng)
	switch l.flow {
	case outbound:
		v.Src, v.Dst, v.DstPort = host(m, rng), server(rng), 443
		if l.udp {
			v.DstPort = 53
		} else if rng.IntN(5) == 0 {
			v.DstPort = 80
		}
	case noise:
		stranger := rng.IntN(strangers)
		v.Src = strangerAddr(m, stranger)
		v.Src6 = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x02, byte(m.number), 0, byte(stranger), 15: 1})
		v.Dst = m.hosts[stranger%len(m.hosts)]
		v.Dst6 = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x01, byte(m.number), 15: byte(1 + stranger%len(m.hosts))})
		v.DstPort = habit(m, stranger)
	case guess:
		v.Src, v.Dst, v.DstPort, v.User = strangerAddr(m, rng.IntN(strangers)), m.hosts[0], 22, "admin"
	case staff:
		// Everybody has two addresses, at home and on the way: one account from many addresses would be a finding.
		v.Src, v.Dst = netip.AddrFrom4([4]byte{192, 0, 2, byte(128 + m.number*16 + 2*slices.Index(m.staff, v.User) + rng.IntN(2))}), m.hosts[0]
		v.NAT = m.inside.Addr().Next() // the address the VPN gives
	case within:
		v.Src, v.Dst, v.DstPort = host(m, rng), host(m, rng), 443
	}
}

// strangers is how many unsolicited callers a member has.
const strangers = 60

// strangerAddr gives each member its own callers, clear of every address of the story.
func strangerAddr(m *member, n int) netip.Addr {
	n = (m.number-1)*strangers + n // 0..179
	if n < 60 {
		return netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + n)}) // .1 to .60
	}
	if n < 120 {
		return netip.AddrFrom4([4]byte{203, 0, 113, byte(70 + n)}) // .130 to .189
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(192 + n - 120)}) // .192 to .251
}

// habit is the one port a stranger tries.
func habit(m *member, n int) uint16 {
	denied := sample.All().Denied
	return denied[(m.number*7919+n*104729)%len(denied)].Port
}

func host(m *member, rng *rand.Rand) netip.Addr {
	b := m.inside.Addr().As4()
	b[2], b[3] = byte(1+rng.IntN(3)), byte(30+rng.IntN(180))
	return netip.AddrFrom4(b)
}

// inside6 is the member's own IPv6.
func inside6(m *member, rng *rand.Rand) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x01, byte(m.number), 15: byte(1 + rng.IntN(200))})
}

// server is somewhere ordinary on the Internet.
func server(rng *rand.Rand) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + rng.IntN(120))})
}

func ephemeral(rng *rand.Rand) uint16 { return uint16(32768 + rng.IntN(28000)) }
