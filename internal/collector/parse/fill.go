package parse

import (
	"encoding/binary"
	"strings"
	"unsafe"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// How a recipe fills the values of a line that went a whole trail into the event's fields: from their places in the text, eight bytes at a time. What
// has another than the usual form is left to Set.fill.

// fills are the values of one step, by how they are filled in.
type fills struct {
	texts   []fill
	numbers []fill
	lowers  []fill
	ips     []fill
	others  []fill
}

// add puts one in its list. special says that the value is not one of a line's text.
func (x *fills) add(f fill, special bool) {
	list := &x.others
	if f.op == nil && !special {
		switch f.verb {
		case packs.VerbText:
			list = &x.texts
		case packs.VerbInt, packs.VerbPort, packs.VerbDuration:
			list = &x.numbers
		case packs.VerbLower:
			list = &x.lowers
		case packs.VerbIP:
			list = &x.ips
		}
	}
	*list = append(*list, f)
}

// fillAll fills in all values of a step, whose fields begin at a place of the event. It answers false when one of them would not be set.
func (s *Set) fillAll(x *fills, at int) bool {
	if s.run.direct {
		if !s.fillTexts(x.texts, at) || !s.fillNumbers(x.numbers, at) {
			return false
		}
		for i := range x.lowers {
			if f := &x.lowers[i]; !s.fillLower(f, at+int(f.at)) {
				return false
			}
		}
		for i := range x.ips {
			if f := &x.ips[i]; !s.fillIP(f, at+int(f.at)) {
				return false
			}
		}
		return s.fillEach(x.others, at)
	}
	return s.fillEach(x.texts, at) && s.fillEach(x.numbers, at) && s.fillEach(x.lowers, at) && s.fillEach(x.ips, at) && s.fillEach(x.others, at)
}

func (s *Set) fillEach(list []fill, at int) bool {
	r := &s.run
	for i := range list {
		f := &list[i]
		if f.op != nil {
			if r.direct {
				r.bring(f.need)
			}
			if !s.conds(f.op.When) {
				return false
			}
		}
		if !s.fillOne(f, at+int(f.at)) {
			return false
		}
	}
	return true
}

func (s *Set) fillOne(f *fill, at int) bool {
	v := s.run.value(int(f.slot))
	switch f.verb {
	case packs.VerbSource, packs.VerbDestination:
		return s.fillEndpoint(f, at, v)
	case packs.VerbService:
		return s.fillService(f, at, v)
	}
	return s.fill(f.verb, at, v)
}

// fillEndpoint is fill for VerbSource and VerbDestination.
func (s *Set) fillEndpoint(f *fill, at int, v string) bool {
	port := ""
	if a, n := ipv4At(v); n > 0 && (n == len(v) || n+1 < len(v) && v[n] == ':') {
		if n < len(v) {
			_, l := digits(v[n+1:])
			port = v[n+1 : n+1+l]
		}
		s.e.PutIPv4(at, a)
	} else {
		a, p, ok := ipPort(v)
		if !ok {
			return false
		}
		s.e.PutIP(at, a)
		port = p
	}
	n, ok := atoi(port)
	if ok = ok && n > 0 && n < 65536; ok && f.both {
		s.e.PutInt(at+1, n)
	}
	return ok == f.both
}

// fillService is fill for VerbService.
func (s *Set) fillService(f *fill, at int, v string) bool {
	p, name := v, ""
	if i := strings.IndexAny(v, "/:_"); i > 0 {
		p, name = v[:i], v[i+1:]
	}
	t := transportName(p)
	if t == "" || f.both != (name != "" && isAlpha(name[0]) && !empty(name)) {
		return false
	}
	s.e.PutString(at, t)
	if f.both {
		s.e.PutString(at+1, s.lower(name))
	}
	return true
}

// emptyStart marks the bytes with which a value that means none may begin (see empty).
var emptyStart = [256]bool{'-': true, ' ': true, '"': true, 'n': true, 'N': true, '(': true}

func (s *Set) fillTexts(list []fill, at int) bool {
	e, r := s.e, &s.run
	p := unsafe.Pointer(unsafe.StringData(r.text))
	for i := range list {
		f := &list[i]
		sp := r.spans[f.slot&(maxSpans-1)]
		n := int(sp.to - sp.from)
		b := (*byte)(unsafe.Add(p, sp.from)) // there is at least one byte
		v := unsafe.String(b, n)
		if c := *b; c <= ' ' || *(*byte)(unsafe.Add(p, sp.to-1)) <= ' ' {
			if v = trim(v); len(v) <= 4 && empty(v) {
				return false
			}
		} else if n <= 4 && emptyStart[c] && empty(v) {
			return false
		}
		e.PutString(at+int(f.at), v)
	}
	return true
}

func (s *Set) fillNumbers(list []fill, at int) bool {
	e, r := s.e, &s.run
	for i := range list {
		f := &list[i]
		sp := r.spans[f.slot&(maxSpans-1)]
		n, ok := digitsAt(r.text, sp)
		if !ok {
			if !s.fill(f.verb, at+int(f.at), r.value(int(f.slot))) {
				return false
			}
			continue
		}
		switch f.verb {
		case packs.VerbPort:
			if n-1 >= 65535 {
				return false
			}
		case packs.VerbDuration:
			n *= 1e9
		}
		e.PutInt(at+int(f.at), int64(n))
	}
	return true
}

// digitsAt reads a number of at most eight digits that stands in t; it answers false for others, and where there are no eight bytes before its end.
func digitsAt(t string, sp span) (n uint64, ok bool) {
	k := sp.to - sp.from
	if k-1 > 7 || sp.to < 8 {
		return 0, false
	}
	shift := (64 - 8*k) & 63
	w := (load(t, int(sp.to)-8) ^ '0'*ones) >> shift << shift // the first digit lowest, zeros before it
	if (w+(0x80-10)*ones|w)&highs != 0 {
		return 0, false
	}
	w = w*10 + w>>8 // two digits
	return (w&0x000000ff000000ff*(100+1000000<<32) + w>>16&0x000000ff000000ff*(1+10000<<32)) >> 32, true
}

// fillLower is fill for VerbLower.
func (s *Set) fillLower(f *fill, at int) bool {
	r := &s.run
	sp := r.spans[f.slot&(maxSpans-1)]
	n := sp.to - sp.from
	if n > 16 || int(sp.from)+16 > len(r.text) {
		return s.fill(f.verb, at, r.value(int(f.slot)))
	}
	v := r.cut(r.text, int(f.slot))
	if v[0] <= ' ' || v[n-1] <= ' ' || n <= 4 && emptyStart[v[0]] {
		return s.fill(f.verb, at, v)
	}
	lo, hi := load(r.text, int(sp.from)), load(r.text, int(sp.from)+8)
	if n <= 8 {
		lo &= ^uint64(0) >> ((64 - 8*n) & 63)
		hi = 0
	} else {
		hi &= ^uint64(0) >> ((128 - 8*n) & 63)
	}
	a, b := capitals(lo), capitals(hi)
	if a|b != 0 {
		var text [16]byte
		binary.LittleEndian.PutUint64(text[:], lo|a>>2)
		binary.LittleEndian.PutUint64(text[8:], hi|b>>2)
		v = s.e.Copy(text[:n])
	}
	s.e.PutString(at, v)
	return true
}

// capitals marks the bytes from A to Z by their highest bit.
func capitals(w uint64) uint64 {
	low := w &^ highs
	return (low + ones*(0x80-'A')) &^ (low + ones*(0x80-'Z'-1)) &^ w & highs
}

// fillIP is fill for VerbIP.
func (s *Set) fillIP(f *fill, at int) bool {
	r := &s.run
	sp := r.spans[f.slot&(maxSpans-1)]
	if a, ok := ipv4Within(r.text, sp); ok {
		s.e.PutIPv4(at, a)
		return true
	}
	return s.fill(f.verb, at, r.value(int(f.slot)))
}

// ipv4Within reads an IPv4 address that stands in t as ipv4At does; false for all else, and where fewer than four bytes stand behind it.
func ipv4Within(t string, sp span) (a uint32, ok bool) {
	if int(sp.to)+4 > len(t) {
		return 0, false
	}
	p := unsafe.Pointer(unsafe.StringData(t))
	i := uintptr(sp.from)
	for part := 0; ; part++ {
		w := *(*[4]byte)(unsafe.Add(p, i)) // i <= to
		n, b := uint32(w[0]-'0'), uint32(w[1]-'0')
		if uint8(n) > 9 {
			return 0, false
		}
		if n, b = n&0xff, b&0xff; b <= 9 {
			if n == 0 {
				return 0, false
			}
			i++
			n = n*10 + b
			if c := uint32(w[2]-'0') & 0xff; c <= 9 {
				i++
				if n = n*10 + c; n > 255 {
					return 0, false
				}
			}
		}
		i++
		a = a<<8 | n
		if part == 3 {
			return a, i == uintptr(sp.to)
		}
		if *(*byte)(unsafe.Add(p, i)) != '.' || i >= uintptr(sp.to) {
			return 0, false
		}
		i++
	}
}

// same says whether a value of a line is the one that decided.
func (g *sameValue) same(r *run) bool {
	if r.direct && !g.special && g.n <= 16 {
		sp := r.spans[g.slot&(maxSpans-1)]
		if sp.to-sp.from != g.n {
			return false
		}
		if i := int(sp.from); i+16 <= len(r.text) {
			return (load(r.text, i)^g.lo)&g.mask[0]|(load(r.text, i+8)^g.hi)&g.mask[1] == 0
		}
	}
	return r.value(g.slot) == g.value
}

func newSame(slot int, v string, special bool) sameValue {
	g := sameValue{slot: slot, value: v, n: uint32(len(v)), special: special}
	g.lo = headOf(v)
	if len(v) > 8 {
		g.hi = headOf(v[8:])
	}
	for i := range 8 {
		if i < len(v) {
			g.mask[0] |= 0xff << (8 * i)
		}
		if 8+i < len(v) {
			g.mask[1] |= 0xff << (8 * i)
		}
	}
	return g
}

// fillable says whether a value goes into the event by fill: the op sets one field, whose value depends on nothing else.
func fillable(op *packs.Op, set []event.Key, v string) bool {
	if op.Slot < 0 || len(set) == 0 || len(set) > 2 || len(op.Join) > 0 || op.After != "" || op.Before != "" || op.Table != nil {
		return false
	}
	if len(set) == 2 {
		switch op.Verb {
		case packs.VerbSource:
			return set[0] == event.SourceIP && set[1] == event.SourcePort
		case packs.VerbDestination:
			return set[0] == event.DestinationIP && set[1] == event.DestinationPort
		case packs.VerbService:
			return set[0] == event.NetworkTransport && set[1] == event.NetworkProtocol
		}
		return false
	}
	switch op.Verb {
	case packs.VerbSource:
		return set[0] == event.SourceIP
	case packs.VerbDestination:
		return set[0] == event.DestinationIP
	case packs.VerbService:
		return set[0] == event.NetworkTransport
	case packs.VerbDomain:
		return set[0] == op.Key && v[0] != '('
	case packs.VerbText, packs.VerbLower, packs.VerbInt, packs.VerbIP, packs.VerbPort:
		return set[0] == op.Key
	case packs.VerbMAC:
		return set[0] == op.Key && len(v) == 17
	case packs.VerbLevel:
		return set[0] == event.TocsinSeverity
	case packs.VerbTransport:
		return set[0] == event.NetworkTransport
	case packs.VerbUser:
		return set[0] == op.Key || op.Key == 0 && set[0] == event.UserName
	case packs.VerbDuration:
		return set[0] == event.EventDuration
	}
	return false
}

// fill sets the value of the field at a place as quick and op would; false when they would set none.
func (s *Set) fill(verb packs.Verb, at int, v string) bool {
	switch verb {
	case packs.VerbInt, packs.VerbPort:
		n, ok := atoi(v)
		if !ok || verb == packs.VerbPort && (n <= 0 || n >= 65536) {
			return false
		}
		s.e.PutInt(at, n)
		return true
	case packs.VerbIP:
		if a, n := ipv4At(v); n > 0 && n == len(v) {
			s.e.PutIPv4(at, a)
			return true
		}
		a, _, ok := ipPort(v)
		if ok {
			s.e.PutIP(at, a)
		}
		return ok
	case packs.VerbDuration:
		n, ok := secondsOf(v)
		if ok {
			s.e.PutInt(at, n)
		}
		return ok
	case packs.VerbMAC:
		if len(v) != 17 || v == "00:00:00:00:00:00" || !macBytes(load(v, 0)) || !macBytes(load(v, 8)) || !macBytes(load(v, 9)) {
			return false
		}
		s.e.PutString(at, v)
		return true
	case packs.VerbLevel:
		v = severityOf(v)
	case packs.VerbTransport:
		v = transportName(trim(v))
	case packs.VerbUser:
		v = person(v)
	case packs.VerbDomain:
		if v[0] == '(' || !domainLike(v) || v == "unknown" || empty(v) {
			return false
		}
		v = strings.TrimSuffix(v, ".")
	default:
		if v != "" && (v[0] <= ' ' || v[len(v)-1] <= ' ') {
			v = trim(v)
		}
	}
	if len(v) <= 4 && empty(v) {
		return false
	}
	if verb == packs.VerbLower {
		v = s.lower(v)
	}
	s.e.PutString(at, v)
	return true
}
