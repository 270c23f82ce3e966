package load

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"tocsin/internal/load/sample"
)

// kinds are the firewalls of the members, by turns: what they write of a denial and of a connection let through.
var kinds = []struct{ deny, allow string }{
	{"fortigate/deny", "fortigate/close"},
	{"draytek/block", "draytek/pass"},
	{"asa/deny-acl", "asa/built-tcp"},
	{"filterlog/block-syn", "filterlog/pass"},
	{"netfilter/ufw-block", "sonicwall/closed"},
}

// Shares of the lines, in thousandths.
const (
	globalShare  = 100 // of denials: from sources that call on everybody
	sshShare     = 40  // of what leaves: a failed sign-in
	idsShare     = 20  // of what leaves: a sensor's alert of no weight
	allowedShare = 800 // of raw lines: let through, so benign
)

const (
	globalSources = 64
	ownSources    = 900 // of a member's own callers
)

// generator makes one member's lines. The same seed and member give the same lines for the same times. It belongs to one goroutine.
type generator struct {
	member  int
	raw     bool // benign lines too
	rng     *rand.Rand
	zipf    *rand.Zipf
	set     *sample.Set
	seq     uint64
	values  sample.Values
	host    string
	sensor  string
	public  [4]netip.Addr
	inside  [3]byte
	scratch map[string]*sample.Template
}

func newGenerator(seed uint64, member int, raw bool) *generator {
	rng := rand.New(rand.NewPCG(seed, uint64(member)+1))
	g := &generator{member: member, raw: raw, rng: rng, zipf: rand.NewZipf(rng, 1.2, 8, ownSources-1), set: sample.All(), host: fmt.Sprintf("fw-%05d", member), sensor: fmt.Sprintf("ids-%05d", member)}
	for i := range g.public {
		// Four public addresses of each member, from 240.0.0.0/4, which nobody has.
		g.public[i] = netip.AddrFrom4([4]byte{240 | byte(member>>22&15), byte(member >> 14), byte(member >> 6), byte(member<<2 | i)})
	}
	g.inside = [3]byte{10, byte(member >> 8), byte(member)}
	return g
}

// next appends the next line, as if written at that time.
func (g *generator) next(dst []byte, at time.Time) []byte {
	kind := kinds[g.member%len(kinds)]
	n := g.rng.IntN(1000)
	template := kind.deny
	allowed := false
	switch {
	case g.raw && n < allowedShare:
		template, allowed = kind.allow, true
	case n >= 1000-sshShare:
		template = "sshd/invalid-user"
	case n >= 1000-sshShare-idsShare:
		template = "eve/alert-masscan"
	}
	g.fill(at, allowed)
	return g.template(template).Append(dst, &g.values)
}

// incident appends a line that must become an alert: a sensor saw an exploit go to one of the member's hosts. The n-th incident of a member has a source of
// its own, so that it is grouped with no other.
func (g *generator) incident(dst []byte, at time.Time, n int) []byte {
	g.fill(at, false)
	g.values.Src = netip.AddrFrom4([4]byte{198, 19, byte(128 + n>>8&127), byte(n)})
	return g.template("eve/alert-eternalblue").Append(dst, &g.values)
}

func (g *generator) template(key string) *sample.Template {
	if g.scratch == nil {
		g.scratch = map[string]*sample.Template{}
	}
	t := g.scratch[key]
	if t == nil {
		t = g.set.Template(key)
		g.scratch[key] = t
	}
	return t
}

func (g *generator) fill(at time.Time, allowed bool) {
	rng, v := g.rng, &g.values
	g.seq++
	x := g.set.Pick(rng, !allowed)
	*v = sample.Values{
		Time: at, Host: g.host, User: "admin", Seq: uint64(g.member)*1_000_003 + g.seq, NAT: g.public[0],
		SrcPort: uint16(1024 + g.seq%64512), NATPort: uint16(1024 + g.seq*7%64512), DstPort: x.Port,
		Sent: x.Sent, Rcvd: x.Rcvd, SentPkt: x.SentPkt, RcvdPkt: x.RcvdPkt, Seconds: x.Seconds,
	}
	inside := netip.AddrFrom4([4]byte{g.inside[0], g.inside[1], g.inside[2], byte(20 + rng.IntN(200))})
	if allowed {
		v.Src, v.Dst = inside, source(uint32(rng.IntN(1<<15)))
		return
	}
	var s uint32
	if rng.IntN(1000) < globalShare {
		s = uint32(rng.IntN(globalSources))
	} else {
		s = globalSources + uint32(g.member*ownSources+int(g.zipf.Uint64()))%(1<<16-globalSources)
	}
	v.Src = source(s)
	v.Dst = g.public[s%uint32(len(g.public))]
	v.DstPort = g.set.Denied[int(s)*7919%len(g.set.Denied)].Port
}

// source is the n-th address of the lower half of 198.18.0.0/15.
func source(n uint32) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}) }
