package packs

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// Texts finds, in one walk over a message, which of many texts occur in it. It is never changed.
//
// The walk looks at three bytes at every second place, so each text is known by the three that it begins with and by the three behind its first
// byte. Texts that all begin with one byte are sought by that byte and the three behind it instead.
type Texts struct {
	list  []string
	bits  [1 << 10]uint64 // by hash: whether there are such bytes in a text
	heads [1 << 12]uint16 // by hash: the first of the rows that may fit, plus one
	rows  []textRow
	known map[string]uint16 // while it is made
	begin byte              // all texts begin with this byte; 0 when they do not
}

// textRow is where a text shows.
type textRow struct {
	head uint32 // three bytes of it, or four where it has them
	mask uint32 // which bytes of head count
	text uint16
	off  uint16 // the place of those bytes
	next uint16 // another row of the same hash, plus one
}

// minText is the least number of bytes of a text that Texts can find; maxScan bounds the bytes of a message in which texts are sought.
const (
	minText = 4
	maxScan = 16384
)

func hash3(v uint32) uint32 { return v & 0xffffff * 0x9E3779B1 >> 16 }

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
	if k == 0 {
		x.begin = t[0]
	} else if x.begin != t[0] {
		x.begin = 0
	}
	x.list = append(x.list, t)
	for off := range 2 {
		r := textRow{head: uint32(t[off]) | uint32(t[off+1])<<8 | uint32(t[off+2])<<16, mask: 0xffffff, text: k, off: uint16(off)}
		if off+3 < len(t) {
			r.head, r.mask = r.head|uint32(t[off+3])<<24, ^uint32(0)
		}
		h := hash3(r.head)
		x.bits[h>>6] |= 1 << (h & 63)
		row := &x.heads[h>>4]
		r.next, *row = *row, uint16(len(x.rows)+1)
		x.rows = append(x.rows, r)
	}
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
	if begin := x.begin; begin != 0 {
		for i := 0; i+4 <= len(b); i++ {
			if b[i] != begin {
				continue
			}
			if v := binary.LittleEndian.Uint32(b[i:]); x.may(v) {
				x.mark(msg, i, v, found)
			}
		}
		return
	}
	i := 0
	for ; i+4 <= len(b); i += 2 {
		if v := binary.LittleEndian.Uint32(b[i:]); x.may(v) {
			x.mark(msg, i, v, found)
		}
	}
	if i+3 == len(b) {
		x.mark(msg, i, uint32(b[i])|uint32(b[i+1])<<8|uint32(b[i+2])<<16, found)
	}
}

// may says whether the three lower bytes of v may be a text's.
func (x *Texts) may(v uint32) bool {
	h := hash3(v)
	return x.bits[h>>6&(1<<10-1)]&(1<<(h&63)) != 0
}

// mark sets the bits of the texts that show by the bytes at msg[i:], of which v has four as a number, or three where the message ends.
func (x *Texts) mark(msg string, i int, v uint32, found []uint64) {
	for k := x.heads[hash3(v)>>4&(1<<12-1)]; k != 0; {
		r := &x.rows[k-1]
		if v&r.mask == r.head {
			t, at := x.list[r.text], i-int(r.off)
			if at >= 0 && len(t) <= len(msg)-at && msg[at:at+len(t)] == t {
				found[r.text>>6] |= 1 << (r.text & 63)
			}
		}
		k = r.next
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
			if longest < 0 || len(t) > len(x.texts.list[longest]) {
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
