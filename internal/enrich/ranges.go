package enrich

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// ranges maps every address to a value, with nothing for the gaps. It is two sorted arrays of boundaries: boundary i
// begins a range that ends where boundary i+1 begins. value 0 is "nothing known".
type ranges[V comparable] struct {
	values []V // values[0] is the zero V

	start4 []uint32
	value4 []uint32
	// first4[h] is the first boundary whose upper 16 bits are h or more: it cuts the search to a few steps.
	first4 []uint32

	// top6 are the distinct upper 32 bits of start6, in order, and first6[i] the first boundary with top6[i] or more:
	// the long search runs in an array that fits the cache.
	start6 []addr6
	value6 []uint32
	top6   []uint32
	first6 []uint32
}

type addr6 struct{ hi, lo uint64 }

func (a addr6) compare(b addr6) int {
	if c := cmp.Compare(a.hi, b.hi); c != 0 {
		return c
	}
	return cmp.Compare(a.lo, b.lo)
}

func (a addr6) next() (addr6, bool) {
	a.lo++
	if a.lo == 0 {
		a.hi++
		return a, a.hi != 0
	}
	return a, true
}

// from4 and from6 put an address on one number line per family.
func from4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func from6(a netip.Addr) addr6 {
	b := a.As16()
	return addr6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// get returns the value of the range that holds a, the zero V when there is none. A nil table knows nothing.
func (r *ranges[V]) get(a netip.Addr) V {
	if r == nil {
		var zero V
		return zero
	}
	if a.Is4() {
		return r.values[r.find4(from4(a))]
	}
	return r.values[r.find6(from6(a))]
}

func (r *ranges[V]) find4(n uint32) uint32 {
	if len(r.start4) == 0 {
		return 0
	}
	h := n >> 16
	// The wanted boundary is the last one not after n: in [first4[h]-1, first4[h+1]).
	lo, hi := int(r.first4[h]), int(r.first4[h+1])
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if r.start4[mid] <= n {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return 0
	}
	return r.value4[lo-1]
}

func (r *ranges[V]) find6(n addr6) uint32 {
	h := uint32(n.hi >> 32)
	lo, hi := 0, len(r.top6)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if r.top6[mid] <= h {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return 0
	}
	// Boundaries before first6[lo-1] are not after n, those from first6[lo] on are.
	lo, hi = int(r.first6[lo-1]), int(r.first6[lo])
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s := r.start6[mid]; s.hi < n.hi || s.hi == n.hi && s.lo <= n.lo {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return 0
	}
	return r.value6[lo-1]
}

// builder collects ranges in any order, possibly nested or overlapping, and makes the table.
type builder[V comparable] struct {
	values []V
	index  map[V]uint32
	v4     []span[uint32]
	v6     []span[addr6]
	added  int // ranges as published, before joining
}

type span[A any] struct {
	from, to A // inclusive
	value    uint32
}

func newBuilder[V comparable]() *builder[V] {
	var zero V
	return &builder[V]{values: []V{zero}, index: map[V]uint32{zero: 0}}
}

// intern returns the number under which add knows v.
func (b *builder[V]) intern(v V) uint32 {
	i, ok := b.index[v]
	if !ok {
		i = uint32(len(b.values))
		b.values = append(b.values, v)
		b.index[v] = i
	}
	return i
}

// add notes that from..to (inclusive, of one family) has the value numbered v. A range that only continues the one
// before it is joined to it: published data come in order and in small pieces.
func (b *builder[V]) add(from, to netip.Addr, v uint32) {
	b.added++
	if from.Is4() {
		b.add4(from4(from), from4(to), v)
	} else {
		b.add6(from6(from), from6(to), v)
	}
}

func (b *builder[V]) add4(from, to uint32, v uint32) {
	if n := len(b.v4); n > 0 && b.v4[n-1].value == v && b.v4[n-1].to+1 == from && from != 0 {
		b.v4[n-1].to = to
		return
	}
	b.v4 = append(b.v4, span[uint32]{from, to, v})
}

func (b *builder[V]) add6(from, to addr6, v uint32) {
	if n := len(b.v6); n > 0 && b.v6[n-1].value == v {
		if next, ok := b.v6[n-1].to.next(); ok && next == from {
			b.v6[n-1].to = to
			return
		}
	}
	b.v6 = append(b.v6, span[addr6]{from, to, v})
}

// addPrefix notes that the prefix has the value numbered v.
func (b *builder[V]) addPrefix(p netip.Prefix, v uint32) {
	b.added++
	if p.Addr().Is4() {
		mask := ^uint32(0) >> p.Bits() // a shift by 32 gives 0
		from := from4(p.Addr()) &^ mask
		b.add4(from, from|mask, v)
		return
	}
	from := from6(p.Addr())
	hi, lo := ^uint64(0)>>p.Bits(), ^uint64(0)
	if p.Bits() > 64 {
		lo >>= p.Bits() - 64
	}
	from.hi, from.lo = from.hi&^hi, from.lo&^lo
	b.add6(from, addr6{from.hi | hi, from.lo | lo}, v)
}

func (b *builder[V]) table() *ranges[V] {
	r := &ranges[V]{values: b.values}
	r.start4, r.value4 = flatten(b.v4, cmp.Compare[uint32], func(a uint32) (uint32, bool) { return a + 1, a != 1<<32-1 })
	r.start6, r.value6 = flatten(b.v6, addr6.compare, addr6.next)
	if len(r.start4) > 0 {
		r.first4 = make([]uint32, 1<<16+1)
		at := 0
		for h := range r.first4 {
			for at < len(r.start4) && r.start4[at]>>16 < uint32(h) {
				at++
			}
			r.first4[h] = uint32(at)
		}
	}
	for i, s := range r.start6 {
		if h := uint32(s.hi >> 32); len(r.top6) == 0 || r.top6[len(r.top6)-1] != h {
			r.top6, r.first6 = append(r.top6, h), append(r.first6, uint32(i))
		}
	}
	r.first6 = append(r.first6, uint32(len(r.start6)))
	return r
}

// flatten turns spans into boundaries. Where spans overlap, the one that begins later wins, and of two that begin
// together the shorter: with nested spans that is the most specific. Neighbours of equal value become one.
func flatten[A comparable](spans []span[A], compare func(a, b A) int, next func(A) (A, bool)) ([]A, []uint32) {
	order := func(x, y span[A]) int {
		if c := compare(x.from, y.from); c != 0 {
			return c
		}
		return compare(y.to, x.to)
	}
	if !slices.IsSortedFunc(spans, order) {
		slices.SortStableFunc(spans, order)
	}
	var starts []A
	var values []uint32
	emit := func(at A, v uint32) {
		n := len(starts)
		if n > 0 && starts[n-1] == at { // a shorter span begins at the same place: it takes over
			values[n-1] = v
			if n > 1 && values[n-2] == v {
				starts, values = starts[:n-1], values[:n-1]
			}
			return
		}
		if n > 0 && values[n-1] == v || n == 0 && v == 0 {
			return
		}
		starts, values = append(starts, at), append(values, v)
	}
	var open []span[A] // spans that hold the current place, the innermost last
	// closeBefore ends the open spans that are over before at (all of them when end is true).
	closeBefore := func(at A, end bool) {
		for len(open) > 0 {
			top := open[len(open)-1]
			if !end && compare(top.to, at) >= 0 {
				return
			}
			open = open[:len(open)-1]
			after, ok := next(top.to)
			if !ok {
				return // it reaches the end of the number line, so nothing comes after
			}
			// What lies under top goes on, unless it is over as well.
			for len(open) > 0 && compare(open[len(open)-1].to, top.to) <= 0 {
				open = open[:len(open)-1]
			}
			if len(open) > 0 {
				emit(after, open[len(open)-1].value)
			} else {
				emit(after, 0)
			}
		}
	}
	for _, s := range spans {
		closeBefore(s.from, false)
		open = append(open, s)
		emit(s.from, s.value)
	}
	var last A
	closeBefore(last, true)
	return slices.Clip(starts), slices.Clip(values)
}
