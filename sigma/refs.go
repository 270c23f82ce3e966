package sigma

import (
	"encoding/binary"
	"unsafe"
)

// refList is the references of a group in a few bytes each. The first sixteen bytes of a reference, the same in many, are kept once, in a
// streamTable; the next eight are taken for a number (the sequence of a batch) and kept as the difference from that of the first
// reference of the list, the last four for another (the place in the batch). Any bytes come back as they were.
//
// The first is written as stream, number, place; each other as twice the difference and place, or, when its stream is another, as
// twice the stream and one, number, place.
type refList struct {
	buf      *byte
	len, cap uint16
	n        uint8
}

// maxRefs is the longest list: its bytes are counted in sixteen bits.
const maxRefs = 255

func (l *refList) bytes() []byte { return unsafe.Slice(l.buf, l.cap)[:l.len] }

func zigzag(d uint64) uint64   { return d<<1 ^ uint64(int64(d)>>63) }
func unzigzag(x uint64) uint64 { return x>>1 ^ -(x & 1) }

// refAt is one entry of a list.
type refAt struct {
	stream uint32
	seq    uint64
	place  uint32
	from   int // in the bytes
}

// walk calls f for each, from the oldest, until it says false.
func (l *refList) walk(f func(refAt) bool) {
	var base refAt
	b := l.bytes()
	read := func(at *int) uint64 {
		x, k := binary.Uvarint(b[*at:])
		*at += k
		return x
	}
	for i, at := 0, 0; i < int(l.n); i++ {
		e := refAt{from: at}
		switch x := read(&at); {
		case i == 0:
			e.stream, e.seq = uint32(x), read(&at)
		case x&1 == 0:
			e.stream, e.seq = base.stream, base.seq+unzigzag(x>>1)
		default:
			e.stream, e.seq = uint32(x>>1), read(&at)
		}
		e.place = uint32(read(&at))
		if i == 0 {
			base = e
		}
		if !f(e) {
			return
		}
	}
}

// add appends a reference of which the beginning is stream.
func (l *refList) add(stream uint32, ref Ref) {
	var room [3 * binary.MaxVarintLen64]byte
	e := room[:0]
	seq, place := binary.BigEndian.Uint64(ref[16:]), binary.BigEndian.Uint32(ref[24:])
	var base refAt
	l.walk(func(r refAt) bool { base = r; return false })
	d := zigzag(seq - base.seq)
	switch {
	case l.n == 0:
		e = binary.AppendUvarint(binary.AppendUvarint(e, uint64(stream)), seq)
	case stream == base.stream && d < 1<<63:
		e = binary.AppendUvarint(e, d<<1)
	default:
		e = binary.AppendUvarint(binary.AppendUvarint(e, uint64(stream)<<1|1), seq)
	}
	e = binary.AppendUvarint(e, uint64(place))
	have := l.bytes()
	if n := len(have) + len(e); n > int(l.cap) {
		to := make([]byte, roomFor(n))
		copy(to, have)
		l.buf, l.cap = unsafe.SliceData(to), uint16(len(to))
		have = to[:len(have)]
	}
	l.len = uint16(len(append(have, e...)))
	l.n++
}

// remove drops the i-th, which must not be the first, and gives its stream.
func (l *refList) remove(i int) (stream uint32) {
	k, from, to := 0, 0, int(l.len)
	l.walk(func(r refAt) bool {
		switch k {
		case i:
			from, stream = r.from, r.stream
		case i + 1:
			to = r.from
			return false
		}
		k++
		return true
	})
	b := l.bytes()
	l.len = uint16(from + copy(b[from:], b[to:]))
	l.n--
	return stream
}

// streamTable keeps the beginnings of references and how many references use each.
type streamTable struct {
	numbers map[[16]byte]uint32
	list    []stream
	free    []uint32
}

type stream struct {
	id [16]byte
	n  int
}

func (t *streamTable) bytes() int { return 48 * len(t.list) }

// use gives the number of the beginning of r, for one reference more.
func (t *streamTable) use(r Ref) uint32 {
	id := [16]byte(r[:16])
	n, ok := t.numbers[id]
	if !ok {
		if t.numbers == nil {
			t.numbers = map[[16]byte]uint32{}
		}
		if k := len(t.free); k > 0 {
			n = t.free[k-1]
			t.free = t.free[:k-1]
		} else {
			n = uint32(len(t.list))
			t.list = append(t.list, stream{})
		}
		t.list[n].id = id
		t.numbers[id] = n
	}
	t.list[n].n++
	return n
}

// drop takes back one use.
func (t *streamTable) drop(n uint32) {
	if s := &t.list[n]; s.n > 1 {
		s.n--
	} else {
		delete(t.numbers, s.id)
		*s = stream{}
		t.free = append(t.free, n)
	}
}

// add notes ref in l. Beyond limit, at least 2, the first half stays and the latest take turns in the rest.
func (t *streamTable) add(l *refList, ref Ref, limit int) {
	if int(l.n) >= limit {
		t.drop(l.remove(max(limit/2, 1)))
	}
	l.add(t.use(ref), ref)
}

// unpack gives the references of l, oldest first.
func (t *streamTable) unpack(l *refList) []Ref {
	if l.n == 0 {
		return nil
	}
	out := make([]Ref, 0, l.n)
	l.walk(func(e refAt) bool {
		var r Ref
		copy(r[:16], t.list[e.stream].id[:])
		binary.BigEndian.PutUint64(r[16:], e.seq)
		binary.BigEndian.PutUint32(r[24:], e.place)
		out = append(out, r)
		return true
	})
	return out
}

// release empties l, and keeps its room.
func (t *streamTable) release(l *refList) {
	l.walk(func(e refAt) bool { t.drop(e.stream); return true })
	l.n, l.len = 0, 0
}
