package minimise

import (
	"slices"
	"strings"
	"unsafe"

	"tocsin/internal/event"
)

// A site's lines are of few kinds, and all lines of a kind have the same fields in the same order. What follows from the fields alone is found
// once for each such row of keys and remembered: where the parts stand that Prepare looks at, which values Decide must compare, what Reduce
// copies in one go. A row is compared whole before anything remembered of it is used. At most 1,024 are remembered, some 700 bytes each, and as
// much again of what was decided of some.

// shape is what follows from a row of keys.
type shape struct {
	row   string // the keys as they lie in memory; "" for the shape of no keys
	next  *shape // the one that was asked for after this one; it may have become another row's since
	view  view
	named bool // one of the fields is listed, see match

	// For Decide, see decide.go.
	answer []uint64 // the bits of the fields that are there
	asked  []asked
	known  *[4]known // what was decided of values lately, nil before the first
	turn   uint8     // the one of known that was right last

	// For Reduce: the fields that leave if none of their values stays, and how they come about.
	out     []event.Key
	leaving event.KeySet // of out
	steps   []step
}

// asked is a value that a question compares.
type asked struct{ at, question uint16 }

// step is what Reduce does with the values from at to end, of which the first comes to stand at to.
type step struct {
	at, end, to uint16
	as          treatment
}

const (
	shapeBits = 10
	maxShape  = 256 // keys of a row that is remembered
)

// rowOf is the row of keys as a string that lives as long as nobody writes to them.
func rowOf(keys []event.Key) string {
	return unsafe.String((*byte)(unsafe.Pointer(unsafe.SliceData(keys))), len(keys)*int(unsafe.Sizeof(event.Key(0))))
}

// shapeOf is the shape of an event's keys. It is good until the next one is asked for. An event is asked about again when it has got more fields,
// and the next one is often of the same kind as the one before.
func (m *Minimiser) shapeOf(e *event.Event) *shape {
	row := rowOf(e.Keys())
	last := m.last
	if last.row != row {
		if next := last.next; next != nil && next.row == row {
			m.last = next
		} else {
			m.last = m.search(e, row)
			last.next = m.last
		}
	}
	return m.last
}

// search finds or makes the shape of a row. Each row has two places where it may be remembered, and a new one takes one of them from whatever
// row was there, so that those of a site soon stand beside one another.
func (m *Minimiser) search(e *event.Event, row string) *shape {
	place := &m.long
	if len(e.Keys()) <= maxShape {
		h := e.Fingerprint()
		place = &m.shapes[h>>(64-shapeBits)]
		if s := *place; s != nil && s.row != row {
			other := &m.shapes[h>>(64-2*shapeBits)&(1<<shapeBits-1)]
			if o := *other; o == nil || o.row == row || m.turn {
				place = other
			}
		}
	}
	s := *place
	if s == nil {
		s = &shape{answer: make([]uint64, len(m.answer))}
		*place = s
		m.shape(s, e.Keys())
	} else if s.row != row {
		m.turn = !m.turn
		m.shape(s, e.Keys())
	}
	return s
}

// shape fills s for a row of keys.
func (m *Minimiser) shape(s *shape, keys []event.Key) {
	s.row, s.view, s.next = strings.Clone(rowOf(keys)), look(keys), nil
	clear(s.answer)
	s.asked, s.known, s.turn = s.asked[:0], nil, 0
	s.out, s.leaving, s.steps = s.out[:0], event.KeySet{}, s.steps[:0]
	s.named = slices.ContainsFunc(keys, listed)
	// Without a value to take out of them, what devices call something leaves as it is, sentences apart.
	plain := !m.o.PseudonymAddresses && !slices.ContainsFunc(keys, m.staying.Has)
	for i, k := range keys {
		if q := m.questionOf(k); q != nil {
			s.answer[q.base/64] |= 1 << (q.base % 64)
			if len(q.vals) > 0 {
				s.asked = append(s.asked, asked{uint16(i), m.asked[k] - 1})
			}
		}
		as := m.treatment(k)
		if as == tidied && plain {
			if as = leaves; k == event.EventAction && !m.sentences {
				as = worded
			}
		}
		if as == stays {
			continue
		}
		if n := len(s.steps) - 1; as == leaves && n >= 0 && s.steps[n].as == leaves && int(s.steps[n].end) == i {
			s.steps[n].end++
		} else {
			s.steps = append(s.steps, step{uint16(i), uint16(i + 1), uint16(len(s.out)), as})
		}
		s.out = append(s.out, k)
		s.leaving.Add(k)
	}
}
