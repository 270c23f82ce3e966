package packs

import "unsafe"

// Names finds the slot of a native name without allocating: an open table with linear steps, at most half full.
type Names struct {
	mask uint32
	rows []nameRow
	used int
	fold bool // names are compared without regard to case
}

type nameRow struct {
	name string
	slot uint16
	used bool
}

func newNames(fold bool) *Names { return &Names{fold: fold, rows: make([]nameRow, 16), mask: 15} }

func (t *Names) hash(s string) uint32 {
	n := len(s)
	if n == 0 {
		return 0
	}
	// Length and four bytes tell the names of one product well apart; equality is checked anyway.
	a, b, c, d := s[0], s[n-1], s[n>>1], s[n>>2]
	if t.fold {
		a, b, c, d = a|0x20, b|0x20, c|0x20, d|0x20
	}
	h := uint32(n)*0x9E3779B1 ^ (uint32(a)|uint32(b)<<8|uint32(c)<<16|uint32(d)<<24)*0x85EBCA6B
	return h ^ h>>15
}

func (t *Names) equal(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	if !t.fold {
		return a == b
	}
	return foldEqual(a, b)
}

// Slot gives the slot of name.
func (t *Names) Slot(name string) (uint16, bool) {
	for i := t.hash(name) & t.mask; ; i = (i + 1) & t.mask {
		r := &t.rows[i]
		if !r.used {
			return 0, false
		}
		if t.equal(r.name, name) {
			return r.slot, true
		}
	}
}

// SlotBytes is Slot for a name in scratch memory.
func (t *Names) SlotBytes(name []byte) (uint16, bool) {
	return t.Slot(unsafe.String(unsafe.SliceData(name), len(name)))
}

func (t *Names) add(name string, slot uint16) {
	if n := len(t.rows); t.used*2 >= n {
		old := t.rows
		t.rows, t.mask = make([]nameRow, 2*n), uint32(2*n-1)
		for _, r := range old {
			if r.used {
				t.put(r)
			}
		}
	}
	t.used++
	t.put(nameRow{name, slot, true})
}

func (t *Names) put(row nameRow) {
	i := t.hash(row.name) & t.mask
	for t.rows[i].used {
		i = (i + 1) & t.mask
	}
	t.rows[i] = row
}

// foldEqual compares ASCII without regard to case.
func foldEqual(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if x-'A' <= 25 {
			x |= 0x20
		}
		if y-'A' <= 25 {
			y |= 0x20
		}
		if x != y {
			return false
		}
	}
	return true
}

// foldPrefix says whether a starts with b, without regard to case.
func foldPrefix(a, b string) bool { return len(a) >= len(b) && foldEqual(a[:len(b)], b) }

// foldContains says whether b stands in a, without regard to case.
func foldContains(a, b string) bool {
	if b == "" {
		return true
	}
	lo, up := b[0], b[0]
	if lo-'A' <= 25 {
		lo |= 0x20
	}
	if up-'a' <= 25 {
		up &^= 0x20
	}
	for i := 0; i+len(b) <= len(a); i++ {
		if (a[i] == lo || a[i] == up) && foldEqual(a[i:i+len(b)], b) {
			return true
		}
	}
	return false
}
