package parse

import "unsafe"

// A sender writes the same priority, date, name and program before every message, for as long as the date is the same. So what stands before a
// message with a program's tag is remembered, and recognised when all of it but the clock is there again. It changes no answer: nothing that the
// envelope decides there depends on what stands behind, but that there is a message. Openings are bounded, hold no pointers, and are written
// over by others that fall on the same place.

// opening is what stands before a message: a date, "hh:mm:ss", a rest up to the message.
type opening struct {
	before [2]uint64 // bytes before the clock
	date   civil
	clock  uint8 // place of the clock; 0: empty
	n      uint8 // bytes of rest
	host   part  // where they stand in the rest
	app    part
	pid    part
	rest   [maxOpening]byte
}

type part struct{ from, to uint8 }

const (
	maxOpening = 96
	minOpening = 16 // bytes behind a clock that reading a time may look at: year and zone
)

// clockPlace gives the place of the clock where dates are of the usual lengths, and 0 for others.
func clockPlace(p string) int {
	if len(p) < 12+8+minOpening {
		return 0
	}
	switch {
	case p[9] == ':' && p[12] == ':': // Nov 12 08:50:01
		return 7
	case p[13] == ':' && p[16] == ':': // 2026-11-12T08:50:01
		return 11
	case p[14] == ':' && p[17] == ':': // Nov 12 2026 08:50:01
		return 12
	}
	return 0
}

// beforeClock gives the bytes before the clock as numbers.
func beforeClock(p string, at int) [2]uint64 {
	if at < 8 {
		return [2]uint64{load(p, 0) << 8, 0} // the clock's first byte is left out
	}
	return [2]uint64{load(p, 0), load(p, at-8)}
}

// place gives the place where the opening of p would be kept.
func (s *Set) place(p string, at int, before [2]uint64) *opening {
	h := (before[0] ^ before[1]<<1 ^ load(p, at+8)*0x9E3779B97F4A7C15 ^ load(p, at+16)) * 0xD6E8FEB86659FD93
	return &s.openings[h>>56%uint64(len(s.openings))]
}

// opened reads the opening of p if it is known. It answers false otherwise, and has done nothing then.
func (s *Set) opened(p string) bool {
	at := clockPlace(p)
	if at == 0 {
		return false
	}
	before := beforeClock(p, at)
	o := s.place(p, at, before)
	from := at + 8
	m := from + int(o.n)
	if int(o.clock) != at || o.before != before || m >= len(p) || p[m] == ' ' || p[from:m] != string(o.rest[:o.n]) {
		return false
	}
	c := o.date
	if !clock8(load(p, at), &c) {
		return false
	}
	h := &s.h
	if t, ok := s.unix(&c); ok {
		h.time, h.has = t, true
	}
	rest := p[from:m]
	h.host, h.app, h.pid, h.msg = rest[o.host.from:o.host.to], rest[o.app.from:o.app.to], rest[o.pid.from:o.pid.to], p[m:]
	return true
}

// open remembers the opening of p, which has been read the long way.
func (s *Set) open(p string) {
	h := &s.h
	at := clockPlace(p)
	m := len(p) - len(h.msg)
	from := at + 8
	if at == 0 || h.app == "" || h.id != "" || h.sd != "" || m-from < minOpening || m-from > maxOpening || h.msg == "" || p[m-1] != ' ' {
		return
	}
	date := s.stamped
	switch { // only what is read by fixed places: the clock that was read is this one
	case date.month == 0 || p[from] == '.' || p[from] == ',' || month(p) != 0 != (at != 11):
		return
	case at == 11 && !(isDigit(p[0]) && !isDigit(p[4]) && isDigit(p[8]) && isDigit(p[9]) && (p[10] == 'T' || p[10] == ' ')):
		return
	case at != 11 && !(p[3] == ' ' && p[6] == ' ' && isDigit(p[5]) && (p[4] == ' ' || isDigit(p[4]))):
		return
	case at == 12 && !(isDigit(p[7]) && isDigit(p[8]) && isDigit(p[9]) && isDigit(p[10]) && p[11] == ' '):
		return
	}
	if c := date; !clock8(load(p, at), &c) || c != date {
		return
	}
	rest := p[from:m]
	o := opening{before: beforeClock(p, at), date: date, clock: uint8(at), n: uint8(len(rest))}
	var ok [3]bool
	o.host, ok[0] = partOf(rest, h.host)
	o.app, ok[1] = partOf(rest, h.app)
	o.pid, ok[2] = partOf(rest, h.pid)
	first := o.app
	if h.host != "" {
		first = o.host
	}
	if !ok[0] || !ok[1] || !ok[2] || first.from > 9 { // a name further behind the clock is looked at further than minOpening
		return
	}
	copy(o.rest[:], rest)
	*s.place(p, at, o.before) = o
}

// partOf says where in rest a part of it stands. "" stands at its beginning.
func partOf(rest, v string) (part, bool) {
	if v == "" {
		return part{}, true
	}
	i := int(uintptr(unsafe.Pointer(unsafe.StringData(v))) - uintptr(unsafe.Pointer(unsafe.StringData(rest))))
	if i < 0 || i+len(v) > len(rest) {
		return part{}, false
	}
	return part{uint8(i), uint8(i + len(v))}, true
}
