package minimise

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"tocsin/internal/event"
)

// private4 are the IPv4 ranges that are own without being named: RFC 1918, 3927, 6598, this machine, and what a packet inside may be sent to
// all or many with.
var private4 = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "0.0.0.0/32")

func prefixes(s ...string) (ps []netip.Prefix) {
	for _, p := range s {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	return ps
}

// ranges are the addresses that are the member's own. It is asked twice for every line.
type ranges struct {
	first [256]octet // by the first byte of an IPv4 address
	v4    []span4    // in order, and apart
	v6    []netip.Prefix
	named []netip.Prefix // by the member
}

type span4 struct{ from, to uint32 }

// octet says of all addresses that begin with one byte whether none, all or some are own, and which of the spans reach into them.
type octet struct {
	own      uint8
	from, to uint32
}

const (
	noneOwn = iota
	allOwn
	someOwn
)

// newRanges adds the member's ranges to those that are private.
func newRanges(member []netip.Prefix) *ranges {
	r := &ranges{named: member}
	for _, p := range slices.Concat(private4, member) {
		if !p.Addr().Is4() {
			r.v6 = append(r.v6, p)
			continue
		}
		b := p.Masked().Addr().As4()
		from := binary.BigEndian.Uint32(b[:])
		r.v4 = append(r.v4, span4{from, from | uint32(1<<(32-p.Bits())-1)})
	}
	slices.SortFunc(r.v4, func(a, b span4) int { return cmp.Compare(a.from, b.from) })
	joined := r.v4[:1]
	for _, s := range r.v4[1:] {
		if last := &joined[len(joined)-1]; s.from <= last.to || s.from == last.to+1 {
			last.to = max(last.to, s.to)
		} else {
			joined = append(joined, s)
		}
	}
	r.v4 = joined
	for i, s := range r.v4 {
		for b := s.from >> 24; b <= s.to>>24; b++ {
			o := &r.first[b]
			if o.own == noneOwn {
				o.own, o.from = someOwn, uint32(i)
			}
			o.to = uint32(i + 1)
			if s.from <= b<<24 && s.to >= b<<24|0xffffff {
				o.own = allOwn
			}
		}
	}
	return r
}

func (r *ranges) has4(n uint32) bool {
	o := &r.first[n>>24]
	if o.own != someOwn {
		return o.own == allOwn
	}
	lo, hi := o.from, o.to
	for lo < hi {
		if mid := (lo + hi) / 2; r.v4[mid].to < n {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < o.to && r.v4[lo].from <= n
}

func (r *ranges) has(a netip.Addr) bool {
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return r.has4(binary.BigEndian.Uint32(b[:]))
	}
	if b := a.As16(); b[0]&0xfe == 0xfc || b[0] == 0xff || b[0] == 0xfe && b[1]&0xc0 == 0x80 || a.IsLoopback() || a.IsUnspecified() { // RFC 4193, 4291
		return true
	}
	for _, p := range r.v6 {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// IsOwn says whether an address is one of the member's: private, or in the ranges the member named.
func (m *Minimiser) IsOwn(a netip.Addr) bool { return m.own.has(a) }

// ownAt says whether the i-th value of an event, an address, is one of the member's.
func (m *Minimiser) ownAt(e *event.Event, i int) bool {
	if n, ok := e.Ref(i).IPv4(); ok {
		return m.own.has4(n)
	}
	return m.own.has(e.Ref(i).IP())
}
