package sigma

import (
	"math/bits"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// load64 reads eight bytes of s at i, which must be there.
func load64(s string, i int) uint64 {
	return *(*uint64)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), i))
}

func hex4(s string) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	var u rune
	for i := range 4 {
		c := s[i]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		u = u<<4 | rune(c)
	}
	return u, true
}

// escapes gives what the character behind a backslash stands for.
var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// appendUnescaped appends what the JSON string s, which was checked, stands for. The result is never longer than s. A half of a surrogate
// pair alone becomes U+FFFD.
func appendUnescaped(dst []byte, s string) []byte {
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:i]...)
		c := s[i+1]
		s = s[i+2:]
		if c != 'u' {
			dst = append(dst, escapes[c])
			continue
		}
		u, _ := hex4(s)
		s = s[4:]
		if utf16.IsSurrogate(u) {
			pair := rune(utf8.RuneError)
			if strings.HasPrefix(s, `\u`) {
				v, _ := hex4(s[2:])
				pair = utf16.DecodeRune(u, v)
			}
			if u = pair; u != utf8.RuneError {
				s = s[6:]
			}
		}
		dst = utf8.AppendRune(dst, u)
	}
}

// lowUnescaped writes what the JSON string s stands for, in lower case, into dst, which has room for it and eight bytes more. It gives
// up, with ok false, at what is not ASCII or is written as \u.
func lowUnescaped(dst []byte, s string) (n int, ok bool) {
	const backslash = '\\' * swarOnes
	dst = dst[:cap(dst)]
	out := unsafe.Pointer(unsafe.SliceData(dst))
	i := 0
	for i+8 <= len(s) {
		x := load64(s, i)
		if x&swarHighs != 0 {
			return 0, false
		}
		*(*uint64)(unsafe.Add(out, n)) = lower8(x)
		m := ((x ^ backslash) - swarOnes) & ^(x ^ backslash) & swarHighs
		if m == 0 {
			i, n = i+8, n+8
			continue
		}
		t := bits.TrailingZeros64(m) >> 3
		i, n = i+t, n+t
		c := escapes[s[i+1]]
		if c == 0 {
			return 0, false
		}
		dst[n] = c
		i, n = i+2, n+1
	}
	for i < len(s) {
		c := s[i]
		i++
		switch {
		case c >= utf8.RuneSelf:
			return 0, false
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c == '\\':
			if c = escapes[s[i]]; c == 0 {
				return 0, false
			}
			i++
		}
		dst[n] = c
		n++
	}
	return n, true
}

// nameTable finds keys of names by a hash of their length and outer bytes. It is a copy of a Names for one decoder. Names of the top level
// that no rule asks for are entered too when they are met, and each remembers which came next the last time: events of a kind have
// their names in the same order.
type nameTable struct {
	n     int // names of Names
	more  int // others
	mask  uint32
	slots []nameSlot
}

type nameSlot struct {
	a, b uint64 // nameEnds of name
	n    int32  // its length; -1: free
	next uint32 // slot
	key  Key
	name string
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

func (t *nameTable) build(names *Names) {
	size := 16
	for size < 2*(len(names.keys)+maxMoreNames) {
		size *= 2
	}
	*t = nameTable{n: len(names.keys), mask: uint32(size - 1), slots: make([]nameSlot, size)}
	for i := range t.slots {
		t.slots[i].n = -1
	}
	for name, key := range names.keys {
		t.enter(name, key)
	}
}

func (t *nameTable) enter(name string, key Key) uint32 {
	a, b := nameEnds(name)
	h := hashEnds(len(name), a, b) & t.mask
	for t.slots[h].n >= 0 {
		h = (h + 1) & t.mask
	}
	t.slots[h] = nameSlot{a: a, b: b, n: int32(len(name)), key: key, name: name}
	return h
}

// after does what find does for a name that follows the one in slot last, and gives its slot.
func (t *nameTable) after(last uint32, name string) (Key, uint32) {
	a, b := nameEnds(name)
	at := t.slots[last].next
	if s := &t.slots[at]; s.is(len(name), a, b, name) {
		return s.key, at
	}
	at = hashEnds(len(name), a, b) & t.mask
	for !t.slots[at].is(len(name), a, b, name) {
		if t.slots[at].n < 0 {
			key := t.find(name)
			if t.more >= maxMoreNames || len(name) > 200 {
				return key, last
			}
			t.more++
			at = t.enter(strings.Clone(name), key)
			break
		}
		at = (at + 1) & t.mask
	}
	t.slots[last].next = at
	return t.slots[at].key, at
}

// find does what Names.Lookup does.
func (t *nameTable) find(name string) Key {
	if k := t.exact(name); k != NoKey {
		return k
	}
	if strings.IndexByte(name, ' ') < 0 {
		return NoKey
	}
	var room [64]byte // no rule names a longer one with blanks in it; longer ones move to the heap
	short := room[:0]
	for i := range len(name) {
		if name[i] != ' ' {
			short = append(short, name[i])
		}
	}
	return t.exact(unsafe.String(unsafe.SliceData(short), len(short)))
}

func (t *nameTable) exact(name string) Key {
	a, b := nameEnds(name)
	for h := hashEnds(len(name), a, b) & t.mask; t.slots[h].n >= 0; h = (h + 1) & t.mask {
		if s := &t.slots[h]; s.is(len(name), a, b, name) {
			return s.key
		}
	}
	return NoKey
}
