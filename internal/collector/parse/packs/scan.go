package packs

import (
	"encoding/binary"
	"math/bits"
	"sort"
	"unsafe"
)

// index finds, in one walk over a message, which of many ways to recognise a product have their most telling literal in it.
type index struct {
	refs  []*Ref
	lits  []string // the literal of each
	bits  [1 << 10]uint64
	rows  map[uint32][]uint16 // by the first four bytes of the literal
	short []uint16            // literals of three bytes
}

// maxScan bounds the bytes of a message in which marks are sought.
const maxScan = 16384

func hash4(v uint32) uint32 { return v * 0x9E3779B1 >> 16 }

// newIndex makes the index of refs, in the order in which they are to be tried; lit gives the literal of one.
func newIndex(refs []*Ref, lit func(*Ref) string) *index {
	x := &index{refs: refs, rows: map[uint32][]uint16{}}
	for i, f := range refs {
		l := lit(f)
		x.lits = append(x.lits, l)
		if len(l) < 4 {
			x.short = append(x.short, uint16(i))
			continue
		}
		v := binary.LittleEndian.Uint32([]byte(l))
		x.rows[v] = append(x.rows[v], uint16(i))
		h := hash4(v)
		x.bits[h>>6] |= 1 << (h & 63)
	}
	return x
}

// Marks is which refs of an index may fit a message.
type Marks [MaxPacks * maxRecognise / 64]uint64

// find sets the bits of refs whose literal occurs in msg, and gives how many words of marks count.
func (x *index) find(msg string, marks *Marks) int {
	words := (len(x.refs) + 63) / 64
	for _, i := range x.short {
		marks[i>>6] |= 1 << (i & 63)
	}
	if len(msg) > maxScan {
		msg = msg[:maxScan]
	}
	b := unsafe.Slice(unsafe.StringData(msg), len(msg))
	for i := 0; i+4 <= len(b); i++ {
		v := binary.LittleEndian.Uint32(b[i:])
		h := hash4(v)
		if x.bits[h>>6&(1<<10-1)]&(1<<(h&63)) == 0 {
			continue
		}
		for _, k := range x.rows[v] {
			if l := x.lits[k]; len(l) <= len(b)-i && msg[i:i+len(l)] == l {
				marks[k>>6] |= 1 << (k & 63)
			}
		}
	}
	return words
}

// Finder walks over the refs that may fit a line, the more telling first.
type Finder struct {
	x     *index
	words int
	marks Marks
}

// Seek begins with a message; data is further text in which marks may stand.
func (f *Finder) Seek(x *index, msg, data string) {
	f.x = x
	if x == nil || len(x.refs) == 0 {
		f.words = 0
		return
	}
	clear(f.marks[:(len(x.refs)+63)/64])
	f.words = x.find(msg, &f.marks)
	if data != "" {
		x.find(data, &f.marks)
	}
}

// Next gives the next ref that may fit, nil at the end.
func (f *Finder) Next() *Ref {
	for w := range f.words {
		if b := f.marks[w]; b != 0 {
			f.marks[w] = b & (b - 1)
			return f.x.refs[w<<6+bits.TrailingZeros64(b)]
		}
	}
	return nil
}

// longest gives the longest of some literals, the first of equals.
func longest(list []string) string {
	out := append([]string(nil), list...)
	sort.SliceStable(out, func(i, j int) bool { return len(out[i]) > len(out[j]) })
	if len(out) == 0 {
		return ""
	}
	return out[0]
}
