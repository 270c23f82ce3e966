package parse

import "tocsin/internal/collector/parse/packs"

// Many devices write the time as a date, a clock and perhaps a zone, each under its own name, and the date and the zone are the same for a whole
// day. So what they mean is remembered, and only the clock is read. It changes no answer: other forms are left to Set.layout.

// dateMemory is the last date and the last zone that were read.
type dateMemory struct {
	head uint64 // "2026-11-"
	tail uint16 // "12"; 0: none
	day  int64  // its first second, in no zone

	zone   [10]byte
	length uint8 // of zone, 0: none
	offset int64 // seconds east of UTC
}

// datedOp says whether an op reads a time from a date, a blank and a clock, each with nothing else.
func datedOp(op *packs.Op) bool {
	if op.Verb != packs.VerbTime || op.Layout.Kind != packs.LayoutAuto || op.ZoneSlot < 0 || len(op.Join) != 3 || op.After != "" || op.Before != "" || op.Table != nil {
		return false
	}
	return byNames(op) && op.Join[0].Slot >= 0 && op.Join[1].Slot < 0 && op.Join[1].Text == " " && op.Join[2].Slot >= 0
}

// dated does such an op, whose date and clock are there. It answers false, and has done nothing, when one of them has another form than the usual.
func (s *Set) dated(do *recipeOp) (ns int64, ok bool) {
	op, r := do.op, &s.run
	date, clock := r.value(op.Join[0].Slot), r.value(op.Join[2].Slot)
	if len(date) != 10 || len(clock) != 8 {
		return 0, false
	}
	m := &s.recipes.date
	if head, tail := load(date, 0), uint16(date[8])|uint16(date[9])<<8; m.tail == 0 || head != m.head || tail != m.tail {
		var c civil
		const form = "2026-11-12 00:00:00"
		var b [len(form)]byte
		copy(b[copy(b[:], date):], form[10:])
		if date[4] != '-' || date[7] != '-' || isoAt(string(b[:]), &c) != len(b) || c.month < 1 || c.month > 12 || c.day < 1 || c.day > 31 || c.year < 1970 || c.year > 2260 {
			return 0, false
		}
		m.head, m.tail, m.day = head, tail, days(c.year, c.month, c.day)*86400
	}
	var c civil
	if !clock8(load(clock, 0), &c) || c.hour > 24 || c.min > 59 || c.sec > 60 {
		return 0, false
	}
	sec := m.day + int64(c.hour)*3600 + int64(c.min)*60 + int64(c.sec)
	zone := ""
	if do.zoned {
		zone = r.value(op.ZoneSlot)
	}
	if m.length != 0 && zone == string(m.zone[:m.length&15]) {
		return max((sec-m.offset)*1e9, 1), true
	}
	if do.zoned {
		r.slots.Put(op.ZoneSlot, zone)
	}
	s.zoneOf(op, &c)
	switch {
	case c.zoned:
		if m.length = 0; len(zone) <= len(m.zone) {
			m.offset, m.length = int64(c.offset), uint8(copy(m.zone[:], zone))
		}
		sec -= int64(c.offset)
	case !s.utc:
		sec -= s.offsetAt(sec)
	}
	return max(sec*1e9, 1), true
}
