package sketch

import "math/bits"

// Filter remembers keys for a while, in Bloom filters laid over one another. A key that was added within the last half of the age is always
// known; one not added for the whole age is forgotten with its layer. A key never added is taken for a known one in at most 2 % of cases
// (measured in the test), so a Filter misses a few new things and invents none, unless it is full: then the oldest layer goes before its
// time, which Forgot counts.
type Filter struct {
	layers []layer // oldest first
	Forgot uint32  // layers dropped before their time
}

type layer struct {
	began, last uint16 // days
	n, room     uint32 // keys added, keys it is made for
	bits        []uint64
}

const (
	filterBits   = 12 // a key
	filterHashes = 8  // so 0.3 % false answers in a full layer
	filterFirst  = 64 // keys of the first layer; each further one holds four times as many
	filterLayers = 6
)

// FilterBytes is the most memory of a Filter whose layers hold at most most keys each.
func FilterBytes(most int) int { return 3*most*filterBits/8 + 64*filterLayers }

func newLayer(room uint32, day uint16) layer {
	return layer{began: day, last: day, room: room, bits: make([]uint64, (room*filterBits+63)/64)}
}

func (l *layer) has(h uint64) bool {
	m := uint64(len(l.bits)) * 64
	a, b := h, h>>32|1
	for range filterHashes {
		hi, _ := bits.Mul64(a, m)
		if l.bits[hi>>6]&(1<<(hi&63)) == 0 {
			return false
		}
		a = (a^a>>29)*0x9e3779b97f4a7c15 + b
	}
	return true
}

func (l *layer) add(h uint64, day uint16) {
	m := uint64(len(l.bits)) * 64
	a, b := h, h>>32|1
	for range filterHashes {
		hi, _ := bits.Mul64(a, m)
		l.bits[hi>>6] |= 1 << (hi & 63)
		a = (a^a>>29)*0x9e3779b97f4a7c15 + b
	}
	l.n++
	l.last = day
}

// Has says whether the key is known.
func (f *Filter) Has(h uint64) bool {
	for i := len(f.layers) - 1; i >= 0; i-- {
		if f.layers[i].has(h) {
			return true
		}
	}
	return false
}

// Add makes the key known and says whether it was before. day counts from any day on; age is in days; most is how many keys a layer may
// hold. The memory is at most FilterBytes(most).
func (f *Filter) Add(h uint64, day, age uint16, most int) (known bool) {
	f.expire(day, age)
	n := len(f.layers)
	if n > 0 {
		if f.layers[n-1].has(h) {
			f.layers[n-1].last = max(f.layers[n-1].last, day)
			return true
		}
		known = f.Has(h)
	}
	if n == 0 {
		f.layers = append(f.layers, newLayer(filterFirst, day))
	} else if l := &f.layers[n-1]; l.n >= l.room {
		room := min(l.room*4, uint32(max(most, filterFirst)))
		f.push(newLayer(room, day), most)
	} else if day > l.began && day-l.began >= max(age/2, 1) {
		room := uint32(filterFirst)
		for room < l.n && room < uint32(most) {
			room *= 4
		}
		f.push(newLayer(min(room, uint32(max(most, filterFirst))), day), most)
	}
	f.layers[len(f.layers)-1].add(h, day)
	return known
}

// push puts a layer on top; what does not fit any more goes, oldest first.
func (f *Filter) push(l layer, most int) {
	total := int(l.room)
	for i := range f.layers {
		total += int(f.layers[i].room)
	}
	for len(f.layers) > 0 && (len(f.layers) >= filterLayers || total > 2*max(most, filterFirst)+filterFirst) {
		total -= int(f.layers[0].room)
		f.layers = f.layers[1:]
		f.Forgot++
	}
	f.layers = append([]layer(nil), append(f.layers, l)...)
}

func (f *Filter) expire(day, age uint16) {
	for len(f.layers) > 0 && day > f.layers[0].last && day-f.layers[0].last > age/2 {
		f.layers = f.layers[1:]
	}
}

// Bytes is the memory in use.
func (f *Filter) Bytes() int {
	n := 0
	for i := range f.layers {
		n += 48 + 8*len(f.layers[i].bits)
	}
	return n
}

// Code saves or restores it. most is as for Add.
func (f *Filter) Code(c *Codec, most int) {
	c.U32(&f.Forgot)
	n := c.Len(len(f.layers), filterLayers)
	if c.Reading() {
		f.layers = make([]layer, n)
	}
	for i := range f.layers {
		l := &f.layers[i]
		c.U16(&l.began)
		c.U16(&l.last)
		c.U32(&l.n)
		c.U32(&l.room)
		if c.Reading() {
			if l.room < filterFirst || l.room > uint32(max(most, filterFirst)) {
				c.Fail("a filter's layer for %d keys", l.room)
			}
			if c.Err() != nil {
				f.layers = nil
				return
			}
			l.bits = make([]uint64, (l.room*filterBits+63)/64)
		}
		c.U64s(l.bits)
	}
	if c.Err() != nil {
		f.layers = nil
	}
}
