package minimise

import (
	"hash/maphash"
	"slices"
	"strings"
	"unsafe"

	"tocsin/internal/event"
)

// A site's lines are of few kinds, and all lines of a kind have the same fields in the same order. What follows from the fields alone is found
// once for each such row of keys and remembered: where the parts stand that Prepare looks at, which values Decide must compare, what Reduce
// copies in one go. A row is compared whole before anything remembered of it is used. At most 512 are remembered, some 500 bytes each.

// shape is what follows from a row of keys.
type shape struct {
	row    string // the keys as they lie in memory; "" for the shape of no keys
	n      int    // how many
	view   view
	named  bool     // one of the fields is listed, see match
	answer []uint64 // the bits of the fields that are there
	asked  []asked
	steps  []step
	// leaving are the fields of the steps that leave as they are.
	leaving event.KeySet
}

// asked is a value that a question compares.
type asked struct{ at, question uint16 }

// step is what Reduce does with the values from at to end.
type step struct {
	at, end uint16
	as      treatment
}

const (
	shapeBits = 9
	maxShape  = 256 // keys of a row that is remembered
)

// rowOf is the row of keys as a string that lives as long as nobody writes to them.
func rowOf(keys []event.Key) string {
	return unsafe.String((*byte)(unsafe.Pointer(unsafe.SliceData(keys))), len(keys)*int(unsafe.Sizeof(event.Key(0))))
}

// shapeOf finds or makes the shape of an event's keys. Each row has two places where it may be remembered, and a new one takes one of them from
// whatever row was there, so that those of a site soon stand beside one another.
func (m *Minimiser) shapeOf(e *event.Event) *shape {
	keys := e.Keys()
	row := rowOf(keys)
	place := &m.long
	if len(keys) <= maxShape {
		h := maphash.String(m.seed, row)
		place = &m.shapes[h>>(64-shapeBits)]
		if s := *place; s != nil && s.row != row {
			other := &m.shapes[h&(1<<shapeBits-1)]
			if o := *other; o == nil || o.row == row || m.turn {
				place = other
			}
		}
	}
	s := *place
	if s == nil {
		s = &shape{answer: make([]uint64, len(m.answer))}
		*place = s
		m.shape(s, keys)
	} else if s.row != row {
		m.turn = !m.turn
		m.shape(s, keys)
	}
	m.last = s
	return s
}

// prepared is the shape that the event had when Prepare looked at it, or that of a part of its keys or of all: what stands behind the first n
// keys of the shape must be looked at key by key.
func (m *Minimiser) prepared(e *event.Event) *shape {
	if s, keys := m.last, e.Keys(); s != nil && len(keys) >= s.n && s.row == rowOf(keys[:s.n]) {
		return s
	}
	return m.shapeOf(e)
}

// shape fills s for a row of keys.
func (m *Minimiser) shape(s *shape, keys []event.Key) {
	s.row, s.n, s.view = strings.Clone(rowOf(keys)), len(keys), look(keys)
	clear(s.answer)
	s.asked, s.steps, s.leaving = s.asked[:0], s.steps[:0], event.KeySet{}
	s.named = slices.ContainsFunc(keys, listed)
	for i, k := range keys {
		if q := m.questionOf(k); q != nil {
			s.answer[q.base/64] |= 1 << (q.base % 64)
			if len(q.vals) > 0 {
				s.asked = append(s.asked, asked{uint16(i), m.asked[k] - 1})
			}
		}
		as := m.treatment(k)
		if as == stays {
			continue
		}
		if as == leaves {
			s.leaving.Add(k)
		}
		if n := len(s.steps) - 1; as == leaves && n >= 0 && s.steps[n].as == leaves && int(s.steps[n].end) == i {
			s.steps[n].end++
		} else {
			s.steps = append(s.steps, step{uint16(i), uint16(i + 1), as})
		}
	}
}
