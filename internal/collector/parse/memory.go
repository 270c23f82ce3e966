package parse

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"unsafe"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// memory is what a Set remembers of the key=value lines that it read with one pack: in which order the names came, because a device writes
// them in the same order again and again, and the names themselves, in a table that is asked with the first eight bytes of a name as they
// stand in the line. It saves time and changes no answer.
type memory struct {
	own   int      // names below are the pack's slots
	names []string // by number: the pack's, then others that were met
	plain []bool   // by number, of those that were met: good for an extra, and no field of the schema
	keys  int      // how many fields the schema had when that was said
	rows  []memoryRow
	shift uint
	order []guess
	place []uint16 // by number: behind which place in order the name stands; 0: in none
}

// guess is a name that is expected next.
type guess struct {
	head, mask     uint64 // the first eight bytes with the equals sign behind, and which of them count
	length, number uint16
}

type memoryRow struct {
	head   uint64 // the first eight bytes, zeros behind a shorter name
	length uint8  // 0: an empty row
	number uint16
}

// maxMet bounds the names, beside its own, that are remembered for a pack.
const maxMet = 128

// remember takes up the pack's memory.
func (s *Set) remember(p *packs.Pack) {
	r := &s.run
	m, ok := r.memories[p]
	if !ok {
		if r.memories == nil || len(r.memories) > 2*packs.MaxPacks { // packs that were exchanged long ago
			r.memories = map[*packs.Pack]*memory{}
		}
		m = newMemory(p)
		r.memories[p] = m
	}
	if n := event.NumKeys(); m.keys != n {
		m.keys = n
		for i, name := range m.names[m.own:] {
			m.plain[i] = isPlain(name)
		}
	}
	r.memory, r.last = m, p
}

func newMemory(p *packs.Pack) *memory {
	n := len(p.Slots)
	m := &memory{own: n, names: make([]string, n, n+maxMet), plain: make([]bool, 0, maxMet), keys: event.NumKeys()}
	copy(m.names, p.Slots)
	size := bits.Len(uint(2 * (n + maxMet)))
	m.rows, m.shift = make([]memoryRow, 1<<size), uint(64-size)
	m.place, m.order = make([]uint16, n+maxMet), make([]guess, 0, n+maxMet)
	for i, name := range p.Slots {
		if keyName(name) {
			m.add(name, i)
		}
	}
	return m
}

// keyName says whether a name can stand before an equals sign.
func keyName(name string) bool {
	for i := 0; i < len(name); i++ {
		if !keyByte(name[i]) {
			return false
		}
	}
	return name != "" && len(name) <= 64
}

func isPlain(name string) bool {
	_, field := event.Lookup(name)
	return !field && extraName(name)
}

func (m *memory) add(name string, number int) {
	head := headOf(name)
	i := m.row(head, len(name))
	for m.rows[i].length != 0 {
		i = (i + 1) & (len(m.rows) - 1)
	}
	m.rows[i] = memoryRow{head, uint8(len(name)), uint16(number)}
}

func (m *memory) row(head uint64, length int) int {
	return int((head ^ uint64(length)<<59) * 0x9E3779B97F4A7C15 >> m.shift)
}

// headOf is the first eight bytes of a name as a number.
func headOf(name string) uint64 {
	var b [8]byte
	copy(b[:], name)
	return binary.LittleEndian.Uint64(b[:])
}

// at gives the number of the name that stands at t[i:] before an equals sign, and the place behind that; -1 when it is none of those
// remembered, or stands at the very end.
func (m *memory) at(t string, i int) (number, end int) {
	if i+9 > len(t) {
		return -1, i
	}
	head := load(t, i)
	n := 8
	if found := zeroBytes(head ^ '='*ones); found != 0 {
		n = bits.TrailingZeros64(found) >> 3
		head &= 1<<(8*n) - 1
		if n == 0 {
			return -1, i
		}
	} else {
		for stop := min(len(t), i+65); i+n < stop && t[i+n] != '='; {
			n++
		}
		if i+n >= len(t) || n > 64 {
			return -1, i
		}
	}
	for k := m.row(head, n); ; k = (k + 1) & (len(m.rows) - 1) {
		r := &m.rows[k]
		if r.length == 0 {
			return -1, i
		}
		if r.head == head && int(r.length) == n && (n <= 8 || m.names[r.number][8:] == t[i+8:i+n]) {
			return int(r.number), i + n + 1
		}
	}
}

// load is the eight bytes of t at i as a number, the first byte the lowest. The caller knows that i+8 <= len(t).
func load(t string, i int) uint64 {
	b := (*[8]byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(t)), i))
	return binary.LittleEndian.Uint64(b[:])
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// zeroBytes marks the bytes of x that are zero by their highest bit. Above a zero byte others may be marked by mistake, so only the lowest
// mark counts.
func zeroBytes(x uint64) uint64 { return (x - ones) &^ x & highs }

// valueEnd gives the place of the first blank, tab, comma or semicolon of t at or behind i, or its length.
func valueEnd(t string, i int) int {
	for ; i+8 <= len(t); i += 8 {
		w := load(t, i)
		if f := zeroBytes(w^' '*ones) | zeroBytes(w^','*ones) | zeroBytes(w^';'*ones) | zeroBytes(w^'\t'*ones); f != 0 {
			return i + bits.TrailingZeros64(f)>>3
		}
	}
	for i < len(t) && t[i] != ' ' && t[i] != ',' && t[i] != ';' && t[i] != '\t' {
		i++
	}
	return i
}

// follow gives the place of the name that is expected behind the one of the given number, which came unexpected at a place.
func (m *memory) follow(place, number int) int {
	if p := int(m.place[number]); p > 0 {
		return p
	}
	name := m.names[number]
	if !keyName(name) {
		return place
	}
	g := guess{head: headOf(name + "="), mask: ^uint64(0), length: uint16(len(name)), number: uint16(number)}
	if len(name) < 7 {
		g.mask = 1<<(8*len(name)+8) - 1
	}
	m.order = append(m.order, g)
	m.place[number] = uint16(len(m.order))
	if place == len(m.order)-1 {
		return place + 1
	}
	return place
}

// meet gives the number of a name that is not in the table, and remembers it; -1 when there is no room for it.
func (m *memory) meet(p *packs.Pack, name string) int {
	if slot, ok := p.Names.Slot(name); ok {
		return int(slot) // the pack does not mind the case, or the name stands at the line's end
	}
	for i := m.own; i < len(m.names); i++ {
		if m.names[i] == name {
			return i
		}
	}
	if len(m.names) == cap(m.names) {
		return -1
	}
	name = strings.Clone(name)
	m.names, m.plain = append(m.names, name), append(m.plain, isPlain(name))
	m.add(name, len(m.names)-1)
	return len(m.names) - 1
}
