package parse

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"unsafe"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// memory is what a Set remembers of the key=value lines that it read with one pack: the names, in a table that is asked with the first eight
// bytes of a name as they stand in the line, and which name came behind which, because a device writes them in the same order again and again.
// It saves time and changes no answer.
type memory struct {
	names []*name // by number: the pack's, then others that were met
	own   int     // names below are the pack's slots
	keys  int     // how many fields the schema had when it was said which names are plain
	rows  []memoryRow
	shift uint
	start name // stands for the beginning of a line
	trails
	gap uint64 // what differs from a blank in the byte between two pairs
}

// name is one that a line may have before an equals sign.
type name struct {
	head, mask uint64   // a blank, and the first seven bytes with the equals sign behind, and which of them count
	tail       uint64   // the last eight bytes with the equals sign, of names of seven bytes or more
	next       [4]*name // that stood behind it, never nil
	size       int      // bytes of the name, of the byte before it and of the equals sign
	text       string
	slot       int // -1: the pack does not speak of it
	mapped     bool
	norm       []byte // as the dictionary writes it, of names that are not the pack's
	plain      bool   // good for an extra, and no field of the schema
	seen       uint32 // the turn of the line in which it was met last
}

// noName stands where none is known. It is found nowhere.
var (
	noName  = &name{head: 1, slot: -1, size: 2}
	noNames = [4]*name{noName, noName, noName, noName}
)

type memoryRow struct {
	head uint64 // the first eight bytes, zeros behind a shorter name
	name *name  // nil: an empty row
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
			r.places = 0
		}
		m = newMemory(p)
		r.memories[p] = m
	}
	if n := event.NumKeys(); m.keys != n {
		m.keys = n
		r.places -= m.places
		m.forgetTrails() // they know which names are fields
		for _, x := range m.names[m.own:] {
			x.plain = x.slot < 0 && isPlain(x.text)
		}
	}
	r.memory, r.last = m, p
}

func newMemory(p *packs.Pack) *memory {
	n := len(p.Slots)
	m := &memory{own: n, names: make([]*name, 0, n+maxMet), keys: event.NumKeys(), start: *noName, trails: trailsOf(p)}
	size := bits.Len(uint(2 * (n + maxMet)))
	m.rows, m.shift = make([]memoryRow, 1<<size), uint(64-size)
	m.start.next = noNames
	for i, text := range p.Slots {
		m.add(text, i, p.Mapped[i])
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
	return !field && extraName(name) && name != "@timestamp" // no field, and no extra either
}

// add makes a name, and puts it in the table if it can stand before an equals sign.
func (m *memory) add(text string, slot int, mapped bool) *name {
	x := &name{head: 1, next: noNames, size: len(text) + 2, text: text, slot: slot, mapped: mapped}
	m.names = append(m.names, x)
	if !keyName(text) {
		return x
	}
	x.head, x.mask = headOf(" "+text+"="), ^uint64(0)
	switch n := len(text); {
	case n < 6:
		x.mask = 1<<(8*n+16) - 1
		x.head &= x.mask
	case n > 6:
		x.tail = headOf(text[n-7:] + "=")
	}
	head := headOf(text)
	i := m.row(head, len(text))
	for m.rows[i].name != nil {
		i = (i + 1) & (len(m.rows) - 1)
	}
	m.rows[i] = memoryRow{head, x}
	return x
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

// at gives the name that stands at t[i:] before an equals sign, and the place behind that; nil when it is none of those remembered, or stands
// at the very end.
func (m *memory) at(t string, i int) (x *name, end int) {
	if i+9 > len(t) {
		return nil, i
	}
	head := load(t, i)
	n := 8
	if found := zeroBytes(head ^ '='*ones); found != 0 {
		n = bits.TrailingZeros64(found) >> 3
		head &= 1<<(8*n) - 1
		if n == 0 {
			return nil, i
		}
	} else {
		for stop := min(len(t), i+65); i+n < stop && t[i+n] != '='; {
			n++
		}
		if i+n >= len(t) || n > 64 {
			return nil, i
		}
	}
	for k := m.row(head, n); ; k = (k + 1) & (len(m.rows) - 1) {
		r := &m.rows[k]
		if r.name == nil {
			return nil, i
		}
		if r.head == head && len(r.name.text) == n && (n <= 8 || r.name.text[8:] == t[i+8:i+n]) {
			return r.name, i + n + 1
		}
	}
}

// long says whether the rest of a name of more than six bytes stands at t[i:], whose first eight bytes fit.
func (x *name) long(t string, i int) bool {
	end := i + x.size
	return end <= len(t) && load(t, end-8) == x.tail && (x.size <= 16 || t[i+8:end-8] == x.text[7:x.size-9])
}

// expected gives the name that stands at t[i:] if it is one of those that stood behind x in lines before; w is the eight bytes there.
func (x *name) expected(t string, i int, w uint64) *name {
	for _, y := range x.next {
		if w&y.mask == y.head && (y.size <= 8 || y.long(t, i)) {
			return y
		}
	}
	return nil
}

// walk takes the pairs from t[i:] on whose names stand as they did in lines before, up to the first other one, and gives the place there, the
// last name and how many pairs may still come. It goes by where quotes and the ends of values are (see find.Marks). Values in single quotes
// and those with backslashes before a quote are left to the caller, and with bare all that are not quoted.
func (s *Set) walk(t string, i int, last *name, left int, bare bool) (int, *name, int) {
	r := &s.run
	const words = uint(len(r.marks.Any)) - 1 // to spare a check of bounds: no index is beyond
	p, gap := unsafe.Pointer(unsafe.StringData(t)), r.memory.gap
	if left < find.MaxMarks/3 { // so many pairs may stand there: none need be counted on the way
		return i, last, left
	}
	stop := min(len(t), find.MaxMarks)
	for end := stop - 8; i <= end; {
		w := load(t, i) ^ gap
		x := last.next[0]
		if w&x.mask != x.head {
			if x = last.next[1]; w&x.mask != x.head {
				if x = last.next[2]; w&x.mask != x.head {
					if x = last.next[3]; w&x.mask != x.head {
						break
					}
				}
			}
		}
		if x.size > 8 && !x.long(t, i) {
			break
		}
		j := i + x.size
		if j >= stop {
			break
		}
		k := 0
		if c := *(*byte)(unsafe.Add(p, j)); c == '"' {
			j++
			at := uint(j) >> 6
			f := r.marks.One[at&words] & (^uint64(0) << (uint(j) & 63))
			for f == 0 {
				at++
				f = r.marks.One[at&words]
			}
			k = int(at<<6) + bits.TrailingZeros64(f)
			if k >= r.limit || *(*byte)(unsafe.Add(p, k-1)) == '\\' {
				break
			}
			i = k + 1
		} else {
			if c == '\'' || bare {
				break
			}
			at := uint(j) >> 6
			f := r.marks.Any[at&words] & (^uint64(0) << (uint(j) & 63))
			for f == 0 {
				at++
				f = r.marks.Any[at&words]
			}
			if k = int(at<<6) + bits.TrailingZeros64(f); k >= r.limit {
				break
			}
			i = k
		}
		left--
		last = x
		r.pass(x, byte(gap^' '))
		if j == k {
			continue
		}
		v := unsafe.String((*byte)(unsafe.Add(p, j)), k-j) // j < k <= len(t)
		if x.slot >= 0 {
			r.slots.First(x.slot, v)
			if x.mapped {
				continue
			}
		}
		s.otherName(x, v)
	}
	return i, last, left
}

// otherName is other for a name that is remembered.
func (s *Set) otherName(x *name, v string) {
	r := &s.run
	if r.n < packMaxOthers && r.pack.Others != packs.OthersDrop {
		o := &r.others[r.n]
		r.n++
		o.name, o.value, o.leaf, o.plain, o.norm, o.fresh = x.text, v, 0, x.plain, x.norm, x.seen != r.turn
		x.seen = r.turn
		if !x.plain {
			r.odd++
		}
	}
}

// after notes that y stood behind x.
func (x *name) after(y *name) {
	for _, z := range x.next {
		if z == y {
			return
		}
	}
	copy(x.next[1:], x.next[:])
	x.next[0] = y
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

// lowBytes marks the bytes of x below n (at most 0x80), with the same mistake above the lowest.
func lowBytes(x, n uint64) uint64 { return (x - n*ones) &^ x & highs }

// valueEnd gives the place of the first blank, tab, comma or semicolon of t at or behind i, or its length.
func valueEnd(t string, i int) int {
	for i+8 <= len(t) {
		w := load(t, i)
		f := lowBytes(w, ','+1) | zeroBytes(w^';'*ones) // blanks and commas are the commonest of the low bytes
		if f == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(f) >> 3
		if c := t[i]; c == ' ' || c == ',' || c == ';' || c == '\t' {
			return i
		}
		i++
	}
	for i < len(t) && t[i] != ' ' && t[i] != ',' && t[i] != ';' && t[i] != '\t' {
		i++
	}
	return i
}

// quoteAt is strings.IndexByte(t[i:], '"') + i for short values; -1 when there is none.
func quoteAt(t string, i int) int {
	for end := i + 32; i < end; i += 8 {
		if i+8 > len(t) {
			break
		}
		if f := zeroBytes(load(t, i) ^ '"'*ones); f != 0 {
			return i + bits.TrailingZeros64(f)>>3
		}
	}
	if k := strings.IndexByte(t[i:], '"'); k >= 0 {
		return i + k
	}
	return -1
}

// meet gives the name of a text that is not in the table, and remembers it; nil when there is no room for it.
func (m *memory) meet(p *packs.Pack, text string) *name {
	slot, ok := p.Names.Slot(text)
	if ok && p.Slots[slot] == text {
		return m.names[slot] // it stands at the line's end
	}
	for _, x := range m.names[m.own:] {
		if x.text == text {
			return x
		}
	}
	if len(m.names) == cap(m.names) {
		if ok {
			return m.names[slot]
		}
		return nil
	}
	text = strings.Clone(text)
	if ok { // the pack does not mind the case
		return m.add(text, int(slot), p.Mapped[slot])
	}
	x := m.add(text, -1, false)
	x.plain, x.norm = isPlain(text), norm(nil, text)
	return x
}
