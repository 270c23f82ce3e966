package parse

import "unsafe"

// A sender writes the same priority, date, name and program before every message, for as long as the date is the same. So what stands before a
// message with a program's tag is remembered, and recognised when all of it but the clock is there again. It changes no answer: nothing that the
// envelope decides there depends on what stands behind, but that there is a message. Of lines without a tag what stands up to the host's name is
// remembered, and the rest read as ever. Openings are bounded, hold no pointers, and are written over by others that fall on the same place.

// opening is what stands before a message: a date, "hh:mm:ss", a rest up to the message.
type opening struct {
	before [2]uint64 // bytes before the clock
	date   civil
	clock  uint8 // place of the clock; 0: empty
	bare   bool  // it ends behind the host's name
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

// What opened has read.
const (
	openedNot  = iota // nothing: it has done nothing
	openedTag         // everything before the message
	openedHost        // everything up to the host's name; what follows stands as the message
)

// opened reads the opening of p if it is known.
func (s *Set) opened(p string) int {
	at := clockPlace(p)
	if at == 0 {
		return openedNot
	}
	before := beforeClock(p, at)
	o := s.place(p, at, before)
	from := at + 8
	m := from + int(o.n)
	if int(o.clock) != at || o.before != before || m >= len(p) || p[m] == ' ' || p[from:m] != string(o.rest[:o.n]) {
		return openedNot
	}
	c := o.date
	if !clock8(load(p, at), &c) {
		return openedNot
	}
	h := &s.h
	if t, ok := s.unix(&c); ok {
		h.time, h.has = t, true
	}
	rest := p[from:m]
	h.host, h.msg = rest[o.host.from:o.host.to], p[m:]
	if o.bare {
		s.stamped = c
		return openedHost
	}
	h.app, h.pid = rest[o.app.from:o.app.to], rest[o.pid.from:o.pid.to]
	return openedTag
}

// open remembers the opening of p, which has been read the long way.
func (s *Set) open(p string) {
	h := &s.h
	at := clockPlace(p)
	m := len(p) - len(h.msg)
	from := at + 8
	if h.app == "" || h.id != "" || h.sd != "" || h.msg == "" || m-from < minOpening || m-from > maxOpening || !s.fixed(p, at, m) {
		return
	}
	rest := p[from:m]
	o := opening{before: beforeClock(p, at), date: s.stamped, clock: uint8(at), n: uint8(len(rest))}
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

// openHost remembers what stands before the message of p up to the blanks behind the host's name. All that stamp looks at must be in it, and all
// that hostTag looks at before behindHost: for that the name must be of six bytes and be no zone's.
func (s *Set) openHost(p string) {
	h := &s.h
	n := len(h.host)
	at := clockPlace(p)
	from := at + 8
	if n < 6 || at == 0 {
		return
	}
	host, ok := partOf(p[from:min(len(p), from+maxOpening)], h.host)
	if !ok || host.from == 0 {
		return
	}
	m := from + int(host.to)
	if m >= len(p) || p[m] != ' ' { // a colon ends it
		return
	}
	for m < len(p) && p[m] == ' ' {
		m++
	}
	if m == len(p) || m-from > maxOpening || !s.fixed(p, at, m) {
		return
	}
	rest := p[from:m]
	switch {
	case len(rest) >= minOpening && host.from <= 9:
	case host.from == 1 && rest[0] == ' ' && isAlpha(rest[1]) && rest[1]|0x20 != 'z' && rest[1:4] != "UTC" && rest[1:4] != "GMT" && rest[1:4] != "BST":
	default:
		return
	}
	before := beforeClock(p, at)
	o := s.place(p, at, before)
	if o.clock != 0 && !o.bare && o.before == before { // one with a program is worth more
		return
	}
	*o = opening{before: before, date: s.stamped, clock: uint8(at), n: uint8(len(rest)), bare: true, host: host}
	copy(o.rest[:], rest)
}

// fixed says whether the header of p, whose clock stands at that place and whose opening ends before m, was read by fixed places: then the clock
// that was read is this one.
func (s *Set) fixed(p string, at, m int) bool {
	from := at + 8
	date := s.stamped
	switch {
	case at == 0 || p[m-1] != ' ':
		return false
	case date.month == 0 || p[from] == '.' || p[from] == ',' || month(p) != 0 != (at != 11):
		return false
	case at == 11 && !(isDigit(p[0]) && !isDigit(p[4]) && isDigit(p[8]) && isDigit(p[9]) && (p[10] == 'T' || p[10] == ' ')):
		return false
	case at != 11 && !(p[3] == ' ' && p[6] == ' ' && isDigit(p[5]) && (p[4] == ' ' || isDigit(p[4]))):
		return false
	case at == 12 && !(isDigit(p[7]) && isDigit(p[8]) && isDigit(p[9]) && isDigit(p[10]) && p[11] == ' '):
		return false
	}
	c := date
	return clock8(load(p, at), &c) && c == date
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
