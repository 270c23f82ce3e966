package sigma

import (
	"encoding/binary"
	"unsafe"
)

// series is instants in ascending order, all with a value of eight bytes or all without. Only the first is kept whole; the others are
// differences from the one before, counted in the coarsest unit that gives them exactly and written as varints: one to three bytes for
// logs with seconds or milliseconds, up to five for nanoseconds. The last instant is known to the owner.
//
// The bytes are the value of the first, then for each other its difference and its value.
type series struct {
	first    int64
	buf      *byte // see room
	len, cap uint32
	front    uint32 // where the bytes begin in buf, times four, and the number of the unit
	n        uint32
}

var seriesUnits = [4]int64{1e9, 1e6, 1e3, 1}

func (s *series) bytes() []byte { return unsafe.Slice(s.buf, s.cap)[:s.len] }
func (s *series) off() uint32   { return s.front >> 2 }
func (s *series) unit() int64   { return seriesUnits[s.front&3] }

// clear empties s and keeps its room.
func (s *series) clear() { s.n, s.len, s.front = 0, 0, 0 }

// roomFor rounds a number of bytes up to what the allocator gives anyway, with some room to grow.
func roomFor(n int) int {
	switch {
	case n <= 8:
		return 8
	case n <= 256:
		return (n + 15) &^ 15
	}
	return (n + n/8 + 63) &^ 63
}

// write appends b to the bytes of s.
func (s *series) write(b []byte) {
	have := s.bytes()
	if len(have)+len(b) > int(s.cap) {
		rest := have[s.off():]
		if off := int(s.off()); off < len(b) || off < int(s.cap)/4 { // moving down would not pay
			to := make([]byte, roomFor(len(rest)+len(b)))
			s.buf, s.cap = unsafe.SliceData(to), uint32(len(to))
		}
		n := copy(unsafe.Slice(s.buf, s.cap), rest)
		s.len, s.front = uint32(n), s.front&3
		have = s.bytes()
	}
	s.len = uint32(len(append(have, b...)))
}

// push adds an instant that is not before the last one of s.
func (s *series) push(last, at int64, valued bool, value uint64) {
	var room [binary.MaxVarintLen64 + 8]byte
	e := room[:0]
	if s.n == 0 {
		s.clear()
		s.first = at
	} else {
		d := at - last
		q := d / s.unit()
		if q*s.unit() != d {
			s.refine(d, valued)
			q = d / s.unit()
		}
		e = binary.AppendUvarint(e, uint64(q))
	}
	if valued {
		e = binary.LittleEndian.AppendUint64(e, value)
	}
	s.write(e)
	s.n++
}

// refine writes s anew in the unit that gives the difference d, finer than the present one.
func (s *series) refine(d int64, valued bool) {
	u := s.front & 3
	for d%seriesUnits[u] != 0 {
		u++
	}
	if s.n == 1 {
		s.front = s.front&^3 | u
		return
	}
	scale := uint64(s.unit() / seriesUnits[u])
	b := s.bytes()[s.off():]
	out := make([]byte, 0, roomFor(len(b)+4*int(s.n)))
	for i := range s.n {
		if i > 0 {
			q, k := binary.Uvarint(b)
			out, b = binary.AppendUvarint(out, q*scale), b[k:]
		}
		if valued {
			out, b = append(out, b[:8]...), b[8:]
		}
	}
	s.buf, s.len, s.cap, s.front = unsafe.SliceData(out), uint32(len(out)), uint32(cap(out)), u
}

// pop drops the first instant.
func (s *series) pop(valued bool) {
	if s.n <= 1 {
		s.clear()
		return
	}
	s.n--
	at := s.off()
	if valued {
		at += 8
	}
	q, k := binary.Uvarint(s.bytes()[at:])
	s.first += int64(q) * s.unit()
	s.front = (at+uint32(k))<<2 | s.front&3
}

// remove drops the one at which c is, given the last instant of s, and gives the last one that is left.
func (s *series) remove(c *walk, last int64, valued bool) int64 {
	if c.i == 1 {
		s.pop(valued)
		return last
	}
	b := s.bytes()
	s.n--
	if len(c.rest) == 0 {
		s.len = c.from
		return c.before
	}
	q, k := binary.Uvarint(c.rest) // the next one's difference becomes that from the one before
	behind := c.rest[k:]
	var room [binary.MaxVarintLen64]byte
	d := binary.AppendUvarint(room[:0], uint64((c.at-c.before)/s.unit())+q)
	// It is no longer than the two differences and the value that it takes the place of.
	n := copy(b[c.from:], d)
	n += copy(b[int(c.from)+n:], behind)
	s.len = c.from + uint32(n)
	return last
}

// walk goes through a series: `for c := s.walk(v); c.next(); { c.at … }`.
type walk struct {
	rest   []byte
	end    uint32 // bytes of the series
	unit   int64
	left   uint32
	i      int // how many came, this one included
	valued bool

	at, before int64
	value      uint64
	from       uint32 // where the difference of this one begins
}

func (s *series) walk(valued bool) walk {
	return walk{rest: s.bytes()[s.off():], end: s.len, unit: s.unit(), left: s.n, valued: valued, at: s.first}
}

func (c *walk) next() bool {
	if c.left == 0 {
		return false
	}
	c.left--
	c.from = c.end - uint32(len(c.rest))
	c.before = c.at
	if c.i > 0 {
		if q := c.rest[0]; q < 0x80 {
			c.at += int64(q) * c.unit
			c.rest = c.rest[1:]
		} else {
			q, k := binary.Uvarint(c.rest)
			c.at += int64(q) * c.unit
			c.rest = c.rest[k:]
		}
	}
	c.i++
	if c.valued {
		c.value = binary.LittleEndian.Uint64(c.rest)
		c.rest = c.rest[8:]
	}
	return true
}

// points appends all of s to dst.
func (s *series) points(valued bool, dst []point) []point {
	for c := s.walk(valued); c.next(); {
		dst = append(dst, point{c.at, c.value})
	}
	return dst
}

// set makes s of a list in ascending order.
func (s *series) set(list []point, valued bool) {
	s.clear()
	last := int64(0)
	for _, p := range list {
		s.push(last, p.t, valued, p.h)
		last = p.t
	}
}

// since gives how many instants are not before from, and the first of them.
func (s *series) since(from int64, valued bool) (n int, first int64) {
	c := s.walk(valued)
	for c.next() {
		if c.at >= from {
			return int(c.left) + 1, c.at
		}
	}
	return 0, 0
}

// slots sees s as a list of n numbers, all 0 at first: for groups that need no series.
func (s *series) slots(n int) []int64 {
	if int(s.len) != 8*n {
		if int(s.cap) < 8*n {
			s.buf, s.cap = (*byte)(unsafe.Pointer(unsafe.SliceData(make([]int64, n)))), uint32(8*n)
		}
		s.len = uint32(8 * n)
		clear(unsafe.Slice((*int64)(unsafe.Pointer(s.buf)), n))
	}
	return unsafe.Slice((*int64)(unsafe.Pointer(s.buf)), n)
}
