package packs

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// index finds, in one walk over a message, which of many ways to recognise a product may fit it: those all of whose literals occur.
type index struct {
	refs  []*Ref
	lits  []literal
	need  [][]uint16 // by ref: literals that must all occur
	asks  [][]uint16 // by literal: the refs that are looked at when it occurs; a ref is looked at for its longest literal
	short []uint16   // refs without a literal of four bytes or more: they are tried on every message
	bits  [1 << 10]uint64
	heads [1 << 12]uint16 // by hash: the first of the literals that begin with those four bytes, plus one
	begin byte            // all literals begin with this byte; 0 when they do not
}

type literal struct {
	text string
	head uint32 // its first four bytes
	next uint16 // another literal in the same row, plus one
}

// maxScan bounds the bytes of a message in which marks are sought.
const maxScan = 16384

func hash4(v uint32) uint32 { return v * 0x9E3779B1 >> 16 }

// newIndex makes the index of refs, in the order in which they are to be tried; texts gives the literals of one.
func newIndex(refs []*Ref, texts func(*Ref) []string) *index {
	x := &index{refs: refs, need: make([][]uint16, len(refs))}
	known := map[string]uint16{}
	for i, f := range refs {
		longest := -1
		for _, t := range texts(f) {
			if len(t) < 4 {
				continue
			}
			k, ok := known[t]
			if !ok {
				k = uint16(len(x.lits))
				known[t] = k
				x.lits = append(x.lits, literal{text: t, head: binary.LittleEndian.Uint32([]byte(t))})
				x.asks = append(x.asks, nil)
			}
			x.need[i] = append(x.need[i], k)
			if longest < 0 || len(t) > len(x.lits[longest].text) {
				longest = int(k)
			}
		}
		if longest < 0 {
			x.short = append(x.short, uint16(i))
		} else {
			x.asks[longest] = append(x.asks[longest], uint16(i))
		}
	}
	for i := range x.lits {
		l := &x.lits[i]
		h := hash4(l.head)
		x.bits[h>>6] |= 1 << (h & 63)
		row := &x.heads[h>>4]
		l.next, *row = *row, uint16(i+1)
		if i == 0 {
			x.begin = l.text[0]
		} else if x.begin != l.text[0] {
			x.begin = 0
		}
	}
	return x
}

// Finder walks over the refs that may fit a line, the more telling first. It is scratch memory of one goroutine.
type Finder struct {
	x     *index
	whole bool     // all of the message was walked over, so that what was not found is not there
	found []uint64 // literals that occur, a bit each
	marks []uint64 // refs that may fit, a bit each
}

// Seek begins with a message; data is further text in which literals may stand.
func (f *Finder) Seek(x *index, msg, data string) {
	f.x = x
	f.found = zeros(f.found, len(x.lits))
	f.marks = zeros(f.marks, len(x.refs))
	f.whole = len(msg) <= maxScan && len(data) <= maxScan
	f.walk(msg)
	if data != "" {
		f.walk(data)
	}
	for w, b := range f.found {
		for ; b != 0; b &= b - 1 {
		asking:
			for _, i := range x.asks[w<<6+bits.TrailingZeros64(b)] {
				if f.whole {
					for _, k := range x.need[i] {
						if f.found[k>>6]&(1<<(k&63)) == 0 {
							continue asking
						}
					}
				}
				f.marks[i>>6] |= 1 << (i & 63)
			}
		}
	}
	for _, i := range x.short {
		f.marks[i>>6] |= 1 << (i & 63)
	}
}

// zeros gives a cleared slice with a bit for each of n.
func zeros(s []uint64, n int) []uint64 {
	words := (n + 63) / 64
	if words > cap(s) {
		return make([]uint64, words)
	}
	s = s[:words]
	clear(s)
	return s
}

// walk notes the literals that occur in msg.
func (f *Finder) walk(msg string) {
	x := f.x
	if len(msg) > maxScan {
		msg = msg[:maxScan]
	}
	b := unsafe.Slice(unsafe.StringData(msg), len(msg))
	begin := x.begin
	for i := 0; i+4 <= len(b); i++ {
		if begin != 0 && b[i] != begin {
			continue
		}
		v := binary.LittleEndian.Uint32(b[i:])
		h := hash4(v)
		if x.bits[h>>6&(1<<10-1)]&(1<<(h&63)) == 0 {
			continue
		}
		for k := x.heads[h>>4&(1<<12-1)]; k != 0; {
			l := &x.lits[k-1]
			if l.head == v && len(l.text) <= len(b)-i && msg[i:i+len(l.text)] == l.text {
				f.found[(k-1)>>6] |= 1 << ((k - 1) & 63)
			}
			k = l.next
		}
	}
}

// Next gives the next ref that fits, nil at the end.
func (f *Finder) Next(line *Line) *Ref {
	for w := range f.marks {
		for b := f.marks[w]; b != 0; b = f.marks[w] {
			f.marks[w] = b & (b - 1)
			if r := f.x.refs[w<<6+bits.TrailingZeros64(b)]; r.head(line) && r.texts(line, f.whole) {
				return r
			}
		}
	}
	return nil
}
