package packs

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// Texts finds, in one walk over a message, which of many texts occur in it. It is never changed.
//
// The walk looks at three bytes at every second place, so each text is known by three of its bytes and by the three that begin one byte later: by
// those that are rare in lines, so that few places need a second look. Texts that all begin with one byte are sought by that byte and the three
// behind it instead.
type Texts struct {
	list  []string
	bits  [1 << 10]uint64 // by hash: whether there are such bytes in a text
	heads [1 << 13]uint32 // by hash: the first of the rows that may fit, plus one
	rows  []textRow
	begin byte // all texts begin with this byte; 0 when they do not
}

// textRow is where a text shows.
type textRow struct {
	head uint32 // three bytes of it, or four where it has them
	mask uint32 // which bytes of head count
	text uint16
	off  int16  // the place of those bytes in the text
	next uint32 // another row of the same hash, plus one
}

// minText is the least number of bytes of a text that Texts can find; maxScan bounds the bytes of a message in which texts are sought.
const (
	minText = 3
	maxScan = 16384
)

func hash3(v uint32) uint32 { return v & 0xffffff * 0x9E3779B1 >> 16 }

// NewTexts makes the table of some texts of three bytes or more. The number of a text is its place in the list; none may come twice.
func NewTexts(list ...string) *Texts {
	x := &Texts{list: list}
	var common [1 << 16]uint8 // by hash: how often three bytes come
	count := func(t string) {
		for i := 0; i+3 <= len(t); i++ {
			if n := &common[hash3(three(t, i))]; *n < 255 {
				*n++
			}
		}
	}
	count(words)
	for i, t := range list {
		count(t)
		if i == 0 {
			x.begin = t[0]
		} else if x.begin != t[0] {
			x.begin = 0
		}
	}
	for k, t := range list {
		switch {
		case x.begin != 0:
			x.add(k, 0)
		case len(t) == minText: // any byte may stand before its first two
			x.add(k, 0)
			for c := range 256 {
				x.put(textRow{head: uint32(c) | uint32(t[0])<<8 | uint32(t[1])<<16, mask: 0xffffff, text: uint16(k), off: -1})
			}
		default:
			best, at := 1<<10, 0
			for i := 0; i+4 <= len(t); i++ {
				if n := int(common[hash3(three(t, i))]) + int(common[hash3(three(t, i+1))]); n < best {
					best, at = n, i
				}
			}
			x.add(k, at)
			x.add(k, at+1)
		}
	}
	return x
}

// words are such as many devices write, so that other parts of a text tell more.
const words = "src= dst= sport= dport= proto= protocol action= msg= user= User name= port= host= status= type= level= device dev= id= time= date= from to for " +
	"login Login failed Failed connection Connection session allow deny denied drop block firewall info error warning notice event policy rule service server " +
	"client address http:// https:// .com .example authentication password access denied traffic TCP UDP tcp udp ICMP interface source destination " +
	"\" \"=\" \", : = [ ] , - 000 111 222 255 192.168. 10.0. 203.0.113. 198.51.100. 2026-11-12 08:50:01 2025 2024 "

func three(t string, i int) uint32 { return uint32(t[i]) | uint32(t[i+1])<<8 | uint32(t[i+2])<<16 }

// add makes a text known by its bytes at off.
func (x *Texts) add(k, off int) {
	t := x.list[k]
	r := textRow{head: three(t, off), mask: 0xffffff, text: uint16(k), off: int16(off)}
	if off+3 < len(t) {
		r.head, r.mask = r.head|uint32(t[off+3])<<24, ^uint32(0)
	}
	x.put(r)
}

func (x *Texts) put(r textRow) {
	h := hash3(r.head)
	x.bits[h>>6] |= 1 << (h & 63)
	row := &x.heads[h>>3]
	r.next, *row = *row, uint32(len(x.rows)+1)
	x.rows = append(x.rows, r)
}

// Len is how many texts there are.
func (x *Texts) Len() int { return len(x.list) }

// Find sets the bits of the texts that occur in the first 16 KiB of msg. found has a bit for each.
func (x *Texts) Find(msg string, found []uint64) {
	if len(msg) > maxScan {
		msg = msg[:maxScan]
	}
	b := unsafe.Slice(unsafe.StringData(msg), len(msg))
	i, begin := 0, x.begin
	if begin != 0 {
		for ; i+4 <= len(b); i++ {
			if b[i] != begin {
				continue
			}
			if v := binary.LittleEndian.Uint32(b[i:]); x.may(v) {
				x.mark(msg, i, v, found)
			}
		}
	} else {
		for ; i+8 <= len(b); i += 4 {
			v := binary.LittleEndian.Uint64(b[i:])
			if x.may(uint32(v)) {
				x.mark(msg, i, uint32(v), found)
			}
			if x.may(uint32(v >> 16)) {
				x.mark(msg, i+2, uint32(v>>16), found)
			}
		}
		for ; i+4 <= len(b); i += 2 {
			if v := binary.LittleEndian.Uint32(b[i:]); x.may(v) {
				x.mark(msg, i, v, found)
			}
		}
	}
	if i+3 == len(b) {
		x.mark(msg, i, three(msg, i), found)
	}
}

// may says whether the three lower bytes of v may be a text's.
func (x *Texts) may(v uint32) bool {
	h := hash3(v)
	return x.bits[h>>6&(1<<10-1)]&(1<<(h&63)) != 0
}

// mark sets the bits of the texts that show by the bytes at msg[i:], of which v has four as a number, or three where the message ends.
func (x *Texts) mark(msg string, i int, v uint32, found []uint64) {
	for k := x.heads[hash3(v)>>3&(1<<13-1)]; k != 0; {
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

// index finds which of many ways to recognise a product may fit a message: those all of whose texts occur. Each is looked at for the longest of
// its texts; the others are sought when that is there.
type index struct {
	refs  []*Ref
	texts *Texts
	asks  [][]uint16 // by text: the refs that are looked at when it occurs
	need  [][]uint16 // by ref: other texts of the table that must occur
	rest  [][]string // by ref: those of its texts that are not in the table
	short []uint16   // refs without a text that the table can hold: they are tried on every message
}

// newIndex makes the index of refs, in the order in which they are to be tried: by their texts or, where json says so, by their names, all of which
// are in the table then. The walk finds further texts as well, which come first in the table.
func newIndex(refs []*Ref, json bool, further ...string) *index {
	x := &index{refs: refs, need: make([][]uint16, len(refs)), rest: make([][]string, len(refs))}
	var list []string
	known := map[string]uint16{}
	number := func(t string) uint16 {
		k, ok := known[t]
		if !ok {
			k = uint16(len(list))
			known[t] = k
			list, x.asks = append(list, t), append(x.asks, nil)
		}
		return k
	}
	for _, t := range further {
		number(t)
	}
	for i, f := range refs {
		texts := f.contains
		if json {
			texts = f.json
		}
		longest := ""
		for _, t := range texts {
			if len(t) < minText {
				continue
			}
			if len(t) > len(longest) {
				longest = t
			}
			if json {
				number(t)
			}
		}
		if longest == "" {
			x.short = append(x.short, uint16(i))
		} else {
			k := number(longest)
			x.asks[k] = append(x.asks[k], uint16(i))
		}
	}
	for i, f := range refs {
		if json {
			x.rest[i] = f.contains
			for _, t := range f.json {
				x.need[i] = append(x.need[i], known[t])
			}
			continue
		}
		for _, t := range f.contains {
			if k, ok := known[t]; ok {
				x.need[i] = append(x.need[i], k)
			} else {
				x.rest[i] = append(x.rest[i], t)
			}
		}
	}
	x.texts = NewTexts(list...)
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

// Code says which texts of the list Code may stand in the message, a bit each.
func (f *Finder) Code() uint64 {
	if !f.whole {
		return ^uint64(0)
	}
	return f.found[0]
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
			i := w<<6 + bits.TrailingZeros64(b)
			r := f.x.refs[i]
			if !r.head(line) {
				continue
			}
			if f.whole && r.rest(line, f.x.rest[i]) || !f.whole && r.texts(line) {
				return r
			}
		}
	}
	return nil
}
