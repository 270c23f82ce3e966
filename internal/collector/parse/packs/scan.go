package packs

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// Texts finds, in one walk over a message, which of many texts occur in it. It is never changed.
type Texts struct {
	list  []text
	bits  [1 << 10]uint64   // by hash: whether a text begins with those four bytes
	heads [1 << 12]uint16   // by hash: the first of the texts that begin so, plus one
	known map[string]uint16 // while it is made
	begin byte              // all texts begin with this byte; 0 when they do not
}

type text struct {
	text string
	head uint32 // its first four bytes
	next uint16 // another text in the same row, plus one
}

// minText is the least number of bytes of a text that Texts can find; maxScan bounds the bytes of a message in which texts are sought.
const (
	minText = 4
	maxScan = 16384
)

func hash4(v uint32) uint32 { return v * 0x9E3779B1 >> 16 }

// NewTexts makes the table of some texts of four bytes or more. The number of a text is its place in the list.
func NewTexts(list ...string) *Texts {
	x := &Texts{known: map[string]uint16{}}
	for _, t := range list {
		x.add(t)
	}
	return x
}

// add gives the number of a text, which is new or there already.
func (x *Texts) add(t string) uint16 {
	if k, ok := x.known[t]; ok {
		return k
	}
	k := uint16(len(x.list))
	x.known[t] = k
	l := text{text: t, head: binary.LittleEndian.Uint32([]byte(t))}
	h := hash4(l.head)
	x.bits[h>>6] |= 1 << (h & 63)
	row := &x.heads[h>>4]
	l.next, *row = *row, k+1
	if k == 0 {
		x.begin = t[0]
	} else if x.begin != t[0] {
		x.begin = 0
	}
	x.list = append(x.list, l)
	return k
}

// Len is how many texts there are.
func (x *Texts) Len() int { return len(x.list) }

// Find sets the bits of the texts that occur in the first 16 KiB of msg. found has a bit for each.
func (x *Texts) Find(msg string, found []uint64) {
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
			l := &x.list[k-1]
			if l.head == v && len(l.text) <= len(b)-i && msg[i:i+len(l.text)] == l.text {
				found[(k-1)>>6] |= 1 << ((k - 1) & 63)
			}
			k = l.next
		}
	}
}

// index finds which of many ways to recognise a product may fit a message: those all of whose texts occur.
type index struct {
	refs  []*Ref
	texts *Texts
	need  [][]uint16 // by ref: texts that must all occur
	asks  [][]uint16 // by text: the refs that are looked at when it occurs; a ref is looked at for its longest text
	short []uint16   // refs without a text of four bytes or more: they are tried on every message
}

// newIndex makes the index of refs, in the order in which they are to be tried; texts gives the texts of one.
func newIndex(refs []*Ref, texts func(*Ref) []string) *index {
	x := &index{refs: refs, texts: NewTexts(), need: make([][]uint16, len(refs))}
	for i, f := range refs {
		longest := -1
		for _, t := range texts(f) {
			if len(t) < minText {
				continue
			}
			k := x.texts.add(t)
			if int(k) == len(x.asks) {
				x.asks = append(x.asks, nil)
			}
			x.need[i] = append(x.need[i], k)
			if longest < 0 || len(t) > len(x.texts.list[longest].text) {
				longest = int(k)
			}
		}
		if longest < 0 {
			x.short = append(x.short, uint16(i))
		} else {
			x.asks[longest] = append(x.asks[longest], uint16(i))
		}
	}
	return x
}

// Finder walks over the refs that may fit a line, the more telling first. It is scratch memory of one goroutine.
type Finder struct {
	x     *index
	whole bool     // all of the message was walked over, so that what was not found is not there
	found []uint64 // texts that occur, a bit each
	marks []uint64 // refs that may fit, a bit each
}

// Seek begins with a message; data is further text in which marks may stand.
func (f *Finder) Seek(x *index, msg, data string) {
	f.x = x
	f.found = zeros(f.found, x.texts.Len())
	f.marks = zeros(f.marks, len(x.refs))
	f.whole = len(msg) <= maxScan && len(data) <= maxScan
	x.texts.Find(msg, f.found)
	if data != "" {
		x.texts.Find(data, f.found)
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
