// Package find seeks short texts and bytes in log lines, 32 or 64 bytes at a time where the processor can.
//
// Most texts that a line is searched for are not there, and letters are common, so a search by the first letter alone stops all the time.
// Here a place counts when the first and the last byte of the text are there both, which is seldom wrong. It keeps no state and answers as
// package strings does.
package find

import (
	"math/bits"
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

// Marks is where certain bytes stand in a text, a bit for each place. Behind the last word that counts stands one whose bits are all set, so that
// whoever looks for the next bit need not look for the end.
type Marks struct {
	One [2 * maxWords]uint64 // one byte
	Any [2 * maxWords]uint64 // one of four bytes
}

// MaxMarks is how many bytes of a text Marks covers.
const MaxMarks = 2048

const maxWords = MaxMarks / 64

// Find looks through s, as far as there is room, for the byte one and for the four bytes of any. It says up to where bits are to be believed:
// behind that are only those that say nothing. If all of s is covered, a bit of Any stands behind its last byte.
func (x *Marks) Find(s string, one byte, any uint32) (limit int) {
	n := min(len(s), MaxMarks)
	p := unsafe.StringData(s)
	w := n >> 6
	if w > 0 {
		marks(p, w, one, any, &x.One[0], &x.Any[0])
	}
	if w < maxWords {
		rest := n & 63
		var b [64]byte
		copy(b[:], s[n-rest:n])
		marks(&b[0], 1, one, any, &x.One[w], &x.Any[w])
		x.Any[w] |= 1 << rest
		n++
		w++
	}
	x.One[w], x.Any[w] = ^uint64(0), ^uint64(0)
	return n
}

// NextOne gives the place of the next bit of One at or behind i, which is at most what Find gave. What it gives may lie behind that.
func (x *Marks) NextOne(i int) int { return next(&x.One, i) }

// NextAny is NextOne for Any.
func (x *Marks) NextAny(i int) int { return next(&x.Any, i) }

func next(words *[2 * maxWords]uint64, i int) int {
	at := uint(i) >> 6
	f := words[at&(2*maxWords-1)] >> (uint(i) & 63) << (uint(i) & 63)
	for f == 0 {
		at++
		f = words[at&(2*maxWords-1)]
	}
	return int(at<<6) + bits.TrailingZeros64(f)
}

// marksPlain is marks without wide registers.
func marksPlain(p *byte, blocks int, one byte, any uint32, ones, anys *uint64) {
	b, o, a := unsafe.Slice(p, 64*blocks), unsafe.Slice(ones, blocks), unsafe.Slice(anys, blocks)
	for i := range o {
		var mo, ma uint64
		for j, x := range b[64*i : 64*i+64] {
			if x == one {
				mo |= 1 << j
			}
			if x == byte(any) || x == byte(any>>8) || x == byte(any>>16) || x == byte(any>>24) {
				ma |= 1 << j
			}
		}
		o[i], a[i] = mo, ma
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
