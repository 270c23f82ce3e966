package sigma

import (
	"math/bits"
	"unsafe"
)

// seenValues remembers which literals were found in values that came before: programs, users and registry keys come again and again, and
// neither folding nor searching them a second time tells anything new. Values are compared in full, so what is remembered is exact.
// It belongs to one goroutine.
type seenValues struct {
	short, long seenTable
}

// seenTable has values up to a length: a matcher keeps at most 8 MB of short ones and as much of long ones, such as scripts.
type seenTable struct {
	entries []seenValue
	door    []uint32 // hashes of values that came once: only what comes twice is kept
	shift   uint
}

type seenValue struct {
	set     *litSet
	hash    uint64
	escaped bool
	text    []byte
	found   []int32 // what finding the literals means to the owner of set
}

const (
	shortBits, shortLimit = 13, 1 << 10
	longBits, longLimit   = 9, 1 << 14 // still longer values seldom come again
)

func (t *seenTable) make(bits uint) {
	t.entries, t.door, t.shift = make([]seenValue, 1<<bits), make([]uint32, 1<<bits), 64-bits
}

// hashText mixes all of s. It need not be unpredictable: values that meet push each other out, nothing more.
func hashText(s string, seed uint64) uint64 {
	const k0, k1 = 0x9E3779B97F4A7C15, 0xA24BAED4963EE407
	h := seed ^ uint64(len(s))*k0
	n := len(s)
	if n < 8 {
		var x uint64
		if n >= 4 {
			x = uint64(gramAt(s, 0)) | uint64(gramAt(s, n-4))<<32
		} else if n > 0 {
			x = uint64(s[0]) | uint64(s[n/2])<<8 | uint64(s[n-1])<<16
		}
		hi, lo := bits.Mul64(x^k1, h^k0)
		return hi ^ lo
	}
	for i := 0; i+16 <= n; i += 16 {
		hi, lo := bits.Mul64(load64(s, i)^k1, load64(s, i+8)^h)
		h = hi ^ lo
	}
	var a uint64
	if n >= 16 {
		a = load64(s, n-16)
	} else {
		a = load64(s, 0)
	}
	hi, lo := bits.Mul64(a^k1, load64(s, n-8)^h)
	return hi ^ lo
}

// shortText is the length up to which a value whose literals cannot be inside it is folded as quickly as looked up.
const shortText = 32

// scanField fires the triggers of l that are in f.
func (m *Matcher) scanField(x *index, l *litSet, r *Record, f *field) {
	if f.kind != fieldString || len(f.text) > longLimit || !l.worth && (!f.escaped || f.hasText || len(f.text) <= shortText) {
		m.scan(x, l, r.lowOf(f))
		return
	}
	c := &m.seen.short
	if len(f.text) > shortLimit {
		if c = &m.seen.long; c.entries == nil {
			c.make(longBits)
		}
	} else if c.entries == nil {
		c.make(shortBits)
	}
	h := hashText(f.text, uint64(uintptr(unsafe.Pointer(l))))
	e := &c.entries[h>>c.shift]
	// A text with escapes that were resolved since is not what it was: escaped says so no longer means the same.
	escaped := f.escaped && !f.hasText
	if e.hash == h && e.set == l && e.escaped == escaped && string(e.text) == f.text {
		for _, t := range e.found {
			m.fire(x, t)
		}
		return
	}
	text := f.text
	m.found = l.collect(r.lowOf(f), m.found[:0], false)
	for _, n := range m.found {
		m.fire(x, l.trigs[n])
	}
	if d := &c.door[h>>c.shift]; *d != uint32(h) {
		*d = uint32(h)
		return
	}
	e.set, e.hash, e.escaped = l, h, escaped
	e.text = append(e.text[:0], text...)
	e.found = e.found[:0]
	for _, n := range m.found {
		e.found = append(e.found, l.trigs[n])
	}
}
