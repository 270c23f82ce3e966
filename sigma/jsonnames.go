package sigma

import (
	"math"
	"math/bits"
	"strings"
)

// nameTable finds keys of names by a hash of their length and outer bytes. It is what one decoder has met, and stands before a Names:
// each name is there once it was met, names that no rule asks for too, in the order in which they came, and each remembers which
// came next the last time. Events of a kind have their names in the same order, so what is looked at next is mostly beside it.
type nameTable struct {
	names *Names
	n     int // names of Names when the table was made
	more  int // names met that no rule asks for, or only without their blanks
	slots []nameSlot
	index []uint16 // by hash: slot, 0 for none; the first slot is empty
}

type nameSlot struct {
	a, b   uint64 // nameEnds of name
	name   string
	n      int32 // its length; -1 in the first slot
	next   uint16
	key    Key
	quoted bool // it cannot stand in JSON as it is
}

// maxMoreNames bounds the names that are remembered beside those of Names: they are data.
const maxMoreNames = 2000

// nameEnds gives the outer bytes of s: with its length they are all of it, up to sixteen.
func nameEnds(s string) (a, b uint64) {
	switch n := len(s); {
	case n >= 8:
		return load64(s, 0), load64(s, n-8)
	case n >= 4:
		return uint64(gramAt(s, 0)), uint64(gramAt(s, n-4))
	case n > 0:
		return uint64(s[0]) | uint64(s[n/2])<<8, uint64(s[n-1])
	}
	return 0, 0
}

func hashName(s string) uint32 {
	a, b := nameEnds(s)
	return hashEnds(len(s), a, b)
}

func hashEnds(n int, a, b uint64) uint32 {
	h := (a ^ bits.RotateLeft64(b, 29) ^ uint64(n)*0xA24BAED4963EE407) * 0x9E3779B97F4A7C15
	return uint32(h >> 32)
}

func (s *nameSlot) is(n int, a, b uint64, name string) bool {
	return s.a == a && s.b == b && int(s.n) == n && (n <= 16 || s.name == name)
}

// stale says whether t has to be made (anew): names are asked for while rules are compiled.
func (t *nameTable) stale(names *Names) bool { return t.names != names || t.n != len(names.keys) }

func (t *nameTable) build(names *Names) {
	*t = nameTable{names: names, n: len(names.keys), slots: make([]nameSlot, 1, 256), index: make([]uint16, 1024)}
	t.slots[0].n = -1
}

// enter adds a name that is not there.
func (t *nameTable) enter(name string, key Key) uint16 {
	if 2*len(t.slots) > len(t.index) {
		t.index = make([]uint16, 2*len(t.index))
		for i := range t.slots[1:] {
			t.place(uint16(i + 1))
		}
	}
	a, b := nameEnds(name)
	t.slots = append(t.slots, nameSlot{a: a, b: b, n: int32(len(name)), key: key, name: name, quoted: strings.ContainsAny(name, "\"\\")})
	at := uint16(len(t.slots) - 1)
	t.place(at)
	return at
}

func (t *nameTable) place(at uint16) {
	s := &t.slots[at]
	mask := uint32(len(t.index) - 1)
	h := hashEnds(int(s.n), s.a, s.b) & mask
	for t.index[h] != 0 {
		h = (h + 1) & mask
	}
	t.index[h] = at
}

// find gives the key of a name, and its slot if it has one.
func (t *nameTable) find(name string) (Key, uint16) {
	a, b := nameEnds(name)
	mask := uint32(len(t.index) - 1)
	for h := hashEnds(len(name), a, b) & mask; t.index[h] != 0; h = (h + 1) & mask {
		if s := &t.slots[t.index[h]]; s.is(len(name), a, b, name) {
			return s.key, t.index[h]
		}
	}
	key, asked := t.names.keys[name]
	if !asked { // not in so many letters
		if key = t.names.Lookup(name); t.more >= maxMoreNames || len(name) > 200 {
			return key, 0
		}
		t.more++
	}
	if len(t.slots) == math.MaxUint16 {
		return key, 0
	}
	return key, t.enter(strings.Clone(name), key)
}

// after does what find does for a name that follows the one in slot last.
func (t *nameTable) after(last uint16, name string) (Key, uint16) {
	key, at := t.find(name)
	if at == 0 {
		return key, last
	}
	t.slots[last].next = at
	return key, at
}
