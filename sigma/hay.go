package sigma

import (
	"math/bits"
	"slices"
	"strings"
	"unsafe"
)

// haySet says whether a line of JSON, or the memory of values, can hold one of many literals in any of its values, without looking at the values one
// by one. It knows of each literal the longest part that JSON writes as it is; the line must be without \u escapes and what folds to ASCII.
type haySet struct {
	parts   []string
	table   gramTable
	bitmap  []uint64
	shift   uint
	step    int
	longest int       // part
	pairs   [][8]byte // every part has one of these pairs of bytes in it, with 0x20 set, four in each; nil: it takes more
	nibbles [64]byte  // the same for eightAVX512
}

// maxPairs bounds the pairs: each four are a pass over the line.
const maxPairs = 8

// caseless makes the grams of capitals and small letters equal; other characters meet too, which only costs a comparison.
const caseless = 0x20202020

// newHaySet gives nil when there is a literal without such a part.
func newHaySet(lits []literal, seen, lines gramCounts) *haySet {
	h := &haySet{}
	step := 8
	for i := range lits {
		part := ""
		for p := range strings.FieldsFuncSeq(lits[i].text, func(r rune) bool { return r < 0x20 || r >= 0x7f || r == '"' || r == '\\' || r == '/' }) {
			if len(p) > len(part) {
				part = p
			}
		}
		if len(part) < 4 {
			return nil
		}
		for step > 1 && len(part) < step+3 {
			step--
		}
		h.parts = append(h.parts, part)
		h.longest = max(h.longest, len(part))
	}
	h.step = step
	var list []gramEntry
	for i, p := range h.parts {
		list = appendGrams(list, p, int32(i), step, seen)
	}
	for i := range list {
		list[i].gram |= caseless
	}
	h.table = fillGrams(list)
	h.bitmap, h.shift = gramBitmap(list)
	if hasAVX2 {
		if h.choosePairs(lines); h.pairs == nil && lines != nil { // the rarest were too many
			h.choosePairs(nil)
		}
	}
	return h
}

// choosePairs seeks a few pairs of bytes, seldom met in lines, of which every part has one: again and again that which most of the parts
// left over have, for how common it is.
func (h *haySet) choosePairs(lines gramCounts) {
	rest := slices.Clone(h.parts)
	var pairs []byte
	for len(rest) > 0 {
		if len(pairs) == 2*maxPairs {
			return
		}
		have := map[[2]byte]int{}
		for _, p := range rest {
			mine := map[[2]byte]bool{}
			for i := 0; i+2 <= len(p); i++ {
				mine[[2]byte{p[i] | 0x20, p[i+1] | 0x20}] = true
			}
			for m := range mine {
				have[m]++
			}
		}
		var best [2]byte
		top := -1.0
		for m, k := range have {
			met := commonness[m[0]] * commonness[m[1]] / 100
			if lines != nil {
				met = float64(lines[pairAt(string(m[:]), 0)*gramMul>>(32-gramCountBits)])
			}
			score := float64(k) / (1 + met)
			if score > top || score == top && string(m[:]) < string(best[:]) {
				best, top = m, score
			}
		}
		rest = slices.DeleteFunc(rest, func(p string) bool {
			for i := 0; i+2 <= len(p); i++ {
				if p[i]|0x20 == best[0] && p[i+1]|0x20 == best[1] {
					return true
				}
			}
			return false
		})
		pairs = append(pairs, best[:]...)
	}
	for len(pairs)%8 != 0 { // those that are not needed repeat the last
		pairs = append(pairs, pairs[len(pairs)-2:]...)
	}
	for four := range slices.Chunk(pairs, 8) {
		h.pairs = append(h.pairs, [8]byte(four))
	}
	h.nibbles = nibblesOf(pairs)
}

// nibblesOf gives the tables of up to eight pairs for eightAVX512.
func nibblesOf(pairs []byte) (t [64]byte) {
	for i := 0; i+1 < len(pairs); i += 2 {
		bit := byte(1) << (i / 2)
		t[pairs[i]&15] |= bit
		t[16+pairs[i]>>4] |= bit
		t[32+pairs[i+1]&15] |= bit
		t[48+pairs[i+1]>>4] |= bit
	}
	return t
}

// foldsToASCII says whether a character beyond ASCII may be in s that is ASCII when folded: the dotted and dotless i, the long s and the sign of kelvin.
func foldsToASCII(s string) bool {
	return strings.IndexByte(s, 0xc4) >= 0 && (strings.Contains(s, "\u0130") || strings.Contains(s, "\u0131")) ||
		strings.IndexByte(s, 0xc5) >= 0 && strings.Contains(s, "\u017f") || strings.IndexByte(s, 0xe2) >= 0 && strings.Contains(s, "\u212a")
}

// inNumbers says whether a literal may be in the text of a number, an address, an instant or a truth value.
func inNumbers(l literal) bool {
	for _, word := range []string{"true", "false", "nan", "+inf", "-inf"} {
		if strings.Contains(word, l.text) {
			return true
		}
	}
	return strings.Trim(l.text, "0123456789abcdef.:+-tz") == ""
}

// possible says whether one of the literals may be in a value of the line.
func (h *haySet) possible(s string) bool {
	if h.pairs == nil || len(s) < 33 {
		return h.scan(s)
	}
	if hasAVX512 {
		return h.possibleWide(s)
	}
	blocks := (len(s) - 1) / 32
	for i := range h.pairs {
		for b := 0; b < blocks; b++ {
			if b += findPairs((*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), b*32)), blocks-b, &h.pairs[i]); b >= blocks {
				break
			}
			if h.scan(s[max(0, b*32-h.longest):min(len(s), b*32+33+h.longest)]) {
				return true
			}
		}
	}
	return h.scan(s[max(0, blocks*32-h.longest):])
}

// possibleWide is possible by the widest registers.
func (h *haySet) possibleWide(s string) bool {
	blocks := (len(s) - 1) / 64
	for b := 0; b < blocks; b++ {
		n, hits := eightAVX512((*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), b*64)), blocks-b, &h.nibbles)
		if b += n; b >= blocks {
			break
		}
		first, last := b*64+bits.TrailingZeros64(hits), b*64+bits.Len64(hits)
		if h.scan(s[max(0, first-h.longest):min(len(s), last+1+h.longest)]) {
			return true
		}
	}
	return h.scan(s[max(0, blocks*64-h.longest):])
}

func (h *haySet) scan(s string) bool {
	shift, bitmap, step := h.shift, h.bitmap, h.step
	i := 0
	for ; i+3*step+4 <= len(s); i += 4 * step {
		h0 := (gramAt(s, i) | caseless) * gramMul >> shift
		h1 := (gramAt(s, i+step) | caseless) * gramMul >> shift
		h2 := (gramAt(s, i+2*step) | caseless) * gramMul >> shift
		h3 := (gramAt(s, i+3*step) | caseless) * gramMul >> shift
		if (bitmap[h0>>6]>>(h0&63)|bitmap[h1>>6]>>(h1&63)|bitmap[h2>>6]>>(h2&63)|bitmap[h3>>6]>>(h3&63))&1 == 0 {
			continue
		}
		for j := i; j <= i+3*step; j += step {
			if h.at(s, j) {
				return true
			}
		}
	}
	for ; i+4 <= len(s); i += step {
		if h.at(s, i) {
			return true
		}
	}
	return false
}

func (h *haySet) at(s string, i int) bool {
next:
	for _, e := range h.table.find(gramAt(s, i) | caseless) {
		p := h.parts[e.lit]
		from := i - int(e.offset)
		if from < 0 || from+len(p) > len(s) {
			continue
		}
		for j := range len(p) {
			if s[from+j]|0x20 != p[j]|0x20 {
				continue next
			}
		}
		return true
	}
	return false
}
