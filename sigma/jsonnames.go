package sigma

import (
	"math"
	"math/bits"
	"strings"
	"unsafe"
)

// nameTable finds keys of names by a hash of their length and outer bytes. It is what one decoder has met, and stands before a Names:
// each name is there once it was met, names that no rule asks for too, in the order in which they came. Events of a kind have their
// names in the same order: paths are the orders that were met, as a tree from the first name on.
type nameTable struct {
	names *Names
	n     int // names of Names when the table was made
	more  int // names met that no rule asks for, or only without their blanks
	slots []nameSlot
	index []uint16 // by hash: slot, 0 for none; the first slot is empty
	paths []namePath
}

// nameSlot is a name, and how it stood before its value the last time: from its first quote to the value, such as "name": with what blanks
// there are. That is compared in four pieces of eight bytes that lap over each other, or as one piece under a mask when it is shorter.
type nameSlot struct {
	w    [4]uint64
	mask uint64
	room int32    // bytes that the line must have from there on for the comparison and one more; too many when it does not stand so
	n    uint8    // length of it all
	o    [3]uint8 // where the second piece and those behind it begin
	key  Key
	name string
}

// namePath is a name that came behind those before it.
type namePath struct {
	slot    uint16
	child   uint16 // the name that came behind it lately, 0 for none
	sibling uint16 // another one that came in its place
}

const (
	pathRoot = 1       // before the first name; number 0 is nowhere: its slot matches nothing, and it has no child
	maxPaths = 1 << 14 // then they are learnt anew
	maxLead  = 32      // bytes of a slot that are compared
	maxTries = 12      // names that are compared in one place
)

// 64-bit processors only: a place in a line and a room of math.MaxInt32 must fit an int together. Elsewhere this does not compile.
const _ = uint(unsafe.Sizeof(uintptr(0)) - 8)

// at says whether the name stands in data at a place, before a value. The first slot never does.
func (s *nameSlot) at(data string, at int) bool {
	if at+int(s.room) > len(data) {
		return false
	}
	p := unsafe.Add(unsafe.Pointer(unsafe.StringData(data)), at)
	x := *(*uint64)(p) ^ s.w[0]
	x |= *(*uint64)(unsafe.Add(p, s.o[0])) ^ s.w[1]
	x |= *(*uint64)(unsafe.Add(p, s.o[1])) ^ s.w[2]
	x |= *(*uint64)(unsafe.Add(p, s.o[2])) ^ s.w[3]
	return x&s.mask == 0
}

// stands notes how the name stood.
func (s *nameSlot) stands(lead string) {
	if len(lead) > maxLead || strings.IndexByte(lead, '\\') >= 0 {
		return
	}
	var b [maxLead]byte
	copy(b[:], lead)
	s.n, s.mask = uint8(len(lead)), math.MaxUint64
	if len(lead) < 8 {
		s.mask = 1<<(8*len(lead)) - 1
	}
	last := max(len(lead)-8, 0)
	for i := range s.w {
		o := min(8*i, last)
		if i > 0 {
			s.o[i-1] = uint8(o)
		}
		s.w[i] = load64(unsafe.String(&b[0], len(b)), o)
	}
	s.room = int32(max(len(lead), 8) + 1)
}

// other seeks the name at a place of data among those that came behind path, but for the first, which is not it. It is the first then.
func (t *nameTable) other(path, first uint16, data string, at int) uint16 {
	before := first
	for range maxTries {
		x := t.paths[before].sibling
		if x == 0 {
			break
		}
		if t.slots[t.paths[x].slot].at(data, at) {
			t.paths[before].sibling = t.paths[x].sibling
			t.paths[x].sibling = first
			t.paths[path].child = x
			return x
		}
		before = x
	}
	return 0
}

// follow expects the name in slot, which stands as lead before its value, behind path, and gives the path with it.
func (t *nameTable) follow(path, slot uint16, lead string) uint16 {
	if slot == 0 {
		return path // as if it had not been there
	}
	t.slots[slot].stands(lead)
	first := t.paths[path].child
	for x, before := first, uint16(0); x != 0; x, before = t.paths[x].sibling, x {
		if t.paths[x].slot == slot {
			if x != first {
				t.paths[before].sibling = t.paths[x].sibling
				t.paths[x].sibling = first
				t.paths[path].child = x
			}
			return x
		}
	}
	if len(t.paths) >= maxPaths {
		clear(t.paths)
		t.paths = t.paths[:pathRoot+1]
		return pathRoot
	}
	x := uint16(len(t.paths))
	t.paths = append(t.paths, namePath{slot: slot, sibling: first})
	t.paths[path].child = x
	return x
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
	h := (a ^ bits.RotateLeft64(b, 29) ^ uint64(len(s))*0xA24BAED4963EE407) * 0x9E3779B97F4A7C15
	return uint32(h >> 32)
}

// stale says whether t has to be made (anew): names are asked for while rules are compiled.
func (t *nameTable) stale(names *Names) bool { return t.names != names || t.n != len(names.keys) }

func (t *nameTable) build(names *Names) {
	*t = nameTable{names: names, n: len(names.keys), slots: make([]nameSlot, 1, 256), index: make([]uint16, 1024), paths: make([]namePath, pathRoot+1, 256)}
	t.slots[0].room = math.MaxInt32
}

// enter adds a name that is not there.
func (t *nameTable) enter(name string, key Key) uint16 {
	if 2*len(t.slots) > len(t.index) {
		t.index = make([]uint16, 2*len(t.index))
		for i := range t.slots[1:] {
			t.place(uint16(i + 1))
		}
	}
	t.slots = append(t.slots, nameSlot{room: math.MaxInt32, key: key, name: name})
	at := uint16(len(t.slots) - 1)
	t.place(at)
	return at
}

func (t *nameTable) place(at uint16) {
	mask := uint32(len(t.index) - 1)
	h := hashName(t.slots[at].name) & mask
	for t.index[h] != 0 {
		h = (h + 1) & mask
	}
	t.index[h] = at
}

// find gives the key of a name, and its slot if it has one.
func (t *nameTable) find(name string) (Key, uint16) {
	mask := uint32(len(t.index) - 1)
	for h := hashName(name) & mask; t.index[h] != 0; h = (h + 1) & mask {
		if s := &t.slots[t.index[h]]; s.name == name {
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
