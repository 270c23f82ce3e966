package sigma

import (
	"math"
	"math/bits"
	"slices"
	"strings"
	"unsafe"
)

// blockMasks says of 64 bytes of a line, a bit for each, which are quotes, backslashes and control characters.
type blockMasks struct{ quotes, backslashes, controls uint64 }

// masksGeneric fills out for blocks of 64 bytes from p on, and says whether any of them is not ASCII. masks, which does the same, takes
// the processor's wide registers where there are any.
func masksGeneric(p *byte, blocks int, out *blockMasks) (high bool) {
	const quote, backslash = '"' * swarOnes, '\\' * swarOnes
	in := unsafe.Slice((*[8]uint64)(unsafe.Pointer(p)), blocks)
	res := unsafe.Slice(out, blocks)
	all := uint64(0)
	// zeros has the high bit of each byte of x that is zero; bits are gathered by a multiplication.
	zeros := func(x uint64) uint64 { return ^(x&^swarHighs + ^uint64(swarHighs) | x) & swarHighs }
	gather := func(x uint64) uint64 { return x >> 7 * 0x0102040810204080 >> 56 }
	for i := range in {
		var m blockMasks
		for j, x := range &in[i] {
			all |= x
			// Mostly there is none of them; this may see one where there is none, but misses none.
			if ((x-0x20*swarOnes)|((x^quote)-swarOnes)|((x^backslash)-swarOnes))&^x&swarHighs == 0 {
				continue
			}
			m.quotes |= gather(zeros(x^quote)) << (8 * j)
			m.backslashes |= gather(zeros(x^backslash)) << (8 * j)
			m.controls |= gather(zeros(x&(0xe0*swarOnes))) << (8 * j)
		}
		res[i] = m
	}
	return all&swarHighs != 0
}

var blanks = [64]byte([]byte(strings.Repeat(" ", 64)))

// index finds the quotes of the line and checks escapes and what is between quotes. It gives the reason when the line cannot be JSON;
// d.at is the place then.
func (d *Decoder) index() (reason string) {
	if uint64(len(d.data)) >= math.MaxUint32 {
		return "it is too long"
	}
	if hasQuotes && d.indexWide() {
		return ""
	}
	return d.indexBlocks()
}

// indexWide is index by the widest registers. It does nothing, and says false, when there is anything unusual.
func (d *Decoder) indexWide() bool {
	const chunk = 4096
	s := d.data
	n, carry, highs := 0, uint64(0), uint64(0)
	for at := 0; at < len(s); at += chunk {
		size := min(chunk, len(s)-at)
		if cap(d.quotes)-n < size+64 {
			d.quotes = slices.Grow(d.quotes[:n], size+64)
		}
		count, odd, high, over := quotesAVX512((*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), at)), size, uint32(at), uint32(carry), &d.quotes[n : n+1][0])
		if odd != 0 {
			return false
		}
		n, carry, highs = n+count, over, highs|high
	}
	if carry != 0 || n&1 == 1 {
		return false
	}
	d.plain = highs == 0 || !foldsToASCII(s)
	d.quotes = d.quotes[:n]
	return true
}

// indexBlocks is index for any line and processor.
func (d *Decoder) indexBlocks() (reason string) {
	s := d.data
	blocks := (len(s) + 63) / 64
	if cap(d.masks) < blocks {
		d.masks = make([]blockMasks, 2*blocks)
	}
	list := d.masks[:blocks]
	high := false
	if n := len(s) / 64; n > 0 {
		high = masks(unsafe.StringData(s), n, &list[0])
	}
	if rest := len(s) % 64; rest > 0 {
		last := blanks
		copy(last[:], s[len(s)-rest:])
		high = masks(&last[0], 1, &list[blocks-1]) || high
	}
	d.plain = !high || !foldsToASCII(s)
	quotes := d.quotes[:0]
	carry := uint64(0) // 1: the first byte of the block is escaped
	for b := range list {
		m := &list[b]
		base := uint32(b) * 64
		q := m.quotes
		if m.backslashes|carry != 0 {
			// Of a run of backslashes the first, third … escape what follows them. Runs are told apart by whether they begin at an
			// even or an odd place: adding their beginnings carries through to their ends.
			const even = 0x5555555555555555
			bs := m.backslashes &^ carry
			follows := bs<<1 | carry
			sum, over := bits.Add64(bs&^even&^follows, bs, 0)
			escaped := (even ^ sum<<1) & follows
			carry = over
			q &^= escaped
			// Escaped backslashes and quotes are nearly all there are; the others are looked at.
			for e := escaped &^ (m.backslashes | m.quotes); e != 0; e &= e - 1 {
				at := base + uint32(bits.TrailingZeros64(e))
				if int(at) >= len(s) {
					d.at = len(s)
					return "a string is not closed"
				}
				if escapes[s[at]] != 0 {
					continue
				}
				d.at = int(at)
				if s[at] != 'u' {
					return "unknown escape"
				}
				if _, ok := hex4(s[at+1:]); !ok {
					return "four hexadecimal digits are wanted"
				}
				d.plain = false
			}
		}
		if m.controls != 0 { // controls between strings are for the parser
			for c := m.controls; c != 0; c &= c - 1 {
				i := bits.TrailingZeros64(c)
				if (len(quotes)+bits.OnesCount64(q&(1<<i-1)))&1 == 1 {
					d.at = int(base) + i
					return "a control character in a string"
				}
			}
		}
		if cap(quotes)-len(quotes) < 64 {
			quotes = slices.Grow(quotes, 64)
		}
		room := (*[64]uint32)(quotes[len(quotes) : len(quotes)+64])
		n := bits.OnesCount64(q)
		for i := 0; i < n; i += 8 { // those too many are written over by the next block
			some := (*[8]uint32)(room[i&56:])
			some[0] = base + uint32(bits.TrailingZeros64(q))
			q &= q - 1
			some[1] = base + uint32(bits.TrailingZeros64(q))
			q &= q - 1
			some[2] = base + uint32(bits.TrailingZeros64(q))
			q &= q - 1
			some[3] = base + uint32(bits.TrailingZeros64(q))
			q &= q - 1
			some[4] = base + uint32(bits.TrailingZeros64(q))
			q &= q - 1
			some[5] = base + uint32(bits.TrailingZeros64(q))
			q &= q - 1
			some[6] = base + uint32(bits.TrailingZeros64(q))
			q &= q - 1
			some[7] = base + uint32(bits.TrailingZeros64(q))
			q &= q - 1
		}
		quotes = quotes[:len(quotes)+n]
	}
	d.at = 0
	d.quotes = quotes
	if carry != 0 || len(quotes)&1 == 1 {
		d.at = len(s)
		return "a string is not closed"
	}
	return ""
}
