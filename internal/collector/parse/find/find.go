// Package find seeks short texts and bytes in log lines, 32 or 64 bytes at a time where the processor can.
//
// Most texts that a line is searched for are not there, and letters are common, so a search by the first letter alone stops all the time.
// Here a place counts when the first and the last byte of the text are there both, which is seldom wrong. It keeps no state and answers as
// package strings does.
package find

import (
	"strings"
	"unsafe"
)

// Has says whether sub stands in s.
func Has(s, sub string) bool { return Index(s, sub) >= 0 }

// Index is strings.Index.
func Index(s, sub string) int {
	k := len(sub) - 1
	n := len(s) - k
	if !wide || k < 1 || n < 32 {
		return strings.Index(s, sub)
	}
	at := 0
	for wrong := 0; ; wrong++ {
		i := pairAt((*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), at)), n-at, k, sub[0], sub[k], 0)
		if i < 0 {
			return -1
		}
		at += i
		if s[at:at+k+1] == sub {
			return at
		}
		if at++; n-at < 32 || wrong > 8+at>>4 { // the rest is short, or the text was chosen to be hard to find
			break
		}
	}
	if i := strings.Index(s[at:], sub); i >= 0 {
		return at + i
	}
	return -1
}

// HasFold says whether the lower-case ASCII text sub stands in s, whatever the case of its letters. It must not be empty, and its first and last
// byte must be letters or others that have the bit 0x20, as blanks, digits and hyphens have. Letters beyond ASCII are never alike.
func HasFold(s, sub string) bool {
	k := len(sub) - 1
	n := len(s) - k
	at := 0
	if wide && k >= 1 {
		for n-at >= 32 {
			i := pairAt((*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), at)), n-at, k, sub[0], sub[k], 0x20)
			if i < 0 {
				return false
			}
			at += i
			if foldAt(s, at, sub) {
				return true
			}
			at++
		}
	}
	for ; at < n; at++ {
		if s[at]|0x20 == sub[0] && foldAt(s, at, sub) {
			return true
		}
	}
	return false
}

// foldAt says whether sub stands at s[at:], which is long enough.
func foldAt(s string, at int, sub string) bool {
	for i := 0; i < len(sub); i++ {
		c := s[at+i]
		if c-'A' <= 25 {
			c |= 0x20
		}
		if c != sub[i] {
			return false
		}
	}
	return true
}

// Masks sets a bit in out for each byte c of s, 64 bytes to a number, for as much of s as out has room for. Bits behind the end are zero.
func Masks(s string, c byte, out []uint64) {
	n := min(len(s), 64*len(out))
	p := unsafe.StringData(s)
	if n >= 64 {
		masks(p, n>>6, c, &out[0])
	}
	if rest := n & 63; rest != 0 {
		var b [64]byte
		copy(b[:], s[n-rest:n])
		masks(&b[0], 1, c, &out[n>>6])
		out[n>>6] &= 1<<rest - 1
	}
}

// Pairs is where the bytes stand at which values of key=value lines end, a bit for each byte.
type Pairs struct {
	Quotes [MaxPairs / 64]uint64 // "
	Ends   [MaxPairs / 64]uint64 // blanks, tabs, commas, semicolons
}

// MaxPairs is how many bytes of a line Pairs covers.
const MaxPairs = 2048

// Find looks through s, as far as there is room, and says how many bytes that was. A bit of Ends stands behind the last byte of s if that is
// covered.
func (x *Pairs) Find(s string) int {
	n := min(len(s), MaxPairs)
	p := unsafe.StringData(s)
	if n >= 64 {
		pairs(p, n>>6, &x.Quotes[0], &x.Ends[0])
	}
	if rest, w := n&63, n>>6; w < len(x.Ends) {
		var b [64]byte
		copy(b[:], s[n-rest:n])
		pairs(&b[0], 1, &x.Quotes[w], &x.Ends[w])
		x.Ends[w] |= 1 << rest
	}
	return n
}

// pairsPlain is pairs without wide registers.
func pairsPlain(p *byte, blocks int, quotes, ends *uint64) {
	b, q, e := unsafe.Slice(p, 64*blocks), unsafe.Slice(quotes, blocks), unsafe.Slice(ends, blocks)
	for i := range q {
		var mq, me uint64
		for j, x := range b[64*i : 64*i+64] {
			switch x {
			case '"':
				mq |= 1 << j
			case ' ', '\t', ',', ';':
				me |= 1 << j
			}
		}
		q[i], e[i] = mq, me
	}
}

// masksPlain is masks without wide registers.
func masksPlain(p *byte, blocks int, c byte, out *uint64) {
	b, o := unsafe.Slice(p, 64*blocks), unsafe.Slice(out, blocks)
	for i := range o {
		var m uint64
		for j, x := range b[64*i : 64*i+64] {
			if x == c {
				m |= 1 << j
			}
		}
		o[i] = m
	}
}
