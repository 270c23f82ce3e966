package parse

import (
	"strings"
	"time"
)

// Times of devices. A civil time (year to second) is turned to UTC with arithmetic instead of time.Date, and the zone offset
// of the configured location is remembered for the stretch between two changes of it, because this runs for every line.

// civil is a time as written; year 0 means that the line gave none.
type civil struct {
	year, month, day, hour, min, sec int
	nsec                             int64
	offset                           int32 // seconds east of UTC, when zoned
	zoned                            bool
}

// days returns the days from 1970-01-01 to a civil date (H. Hinnant's algorithm).
func days(y, m, d int) int64 {
	if m <= 2 {
		y--
	}
	era := y / 400
	yoe := y - era*400
	mp := (m + 9) % 12
	doy := (153*mp+2)/5 + d - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return int64(era)*146097 + int64(doe) - 719468
}

// zoneCache holds one stretch of constant offset of a location: [start, end) in UTC seconds.
type zoneCache struct {
	start, end int64
	offset     int64
	valid      bool
}

// offsetAt returns the offset east of UTC in seconds at the wall-clock second w of the location. The stretch remembered is asked only where
// both instants that are looked at below lie in it, so that the hour that a clock shows twice does not depend on the lines before.
func (s *Set) offsetAt(w int64) int64 {
	z := &s.zone
	if z.valid && min(w, w-z.offset) >= z.start && max(w, w-z.offset) < z.end {
		return z.offset
	}
	if p := &s.past; p.valid && min(w, w-p.offset) >= p.start && max(w, w-p.offset) < p.end {
		*z, *p = *p, *z
		return z.offset
	}
	s.past = *z
	t := time.Unix(w, 0).In(s.loc)
	_, off := t.Zone()
	// One step of correction is enough: w minus the offset is within a day of the instant meant.
	t = time.Unix(w-int64(off), 0).In(s.loc)
	_, off = t.Zone()
	start, end := t.ZoneBounds()
	z.start, z.end, z.offset, z.valid = -1<<62, 1<<62, int64(off), true
	if !start.IsZero() {
		z.start = start.Unix()
	}
	if !end.IsZero() {
		z.end = end.Unix()
	}
	return z.offset
}

// unix turns a civil time to UTC nanoseconds; ok is false for times outside 1970..2260 and for impossible ones. A router without a
// clock says 1970: the collector puts the time of receipt in its place, keeps the device's, and counts it.
func (s *Set) unix(c *civil) (int64, bool) {
	if c.month < 1 || c.month > 12 || c.day < 1 || c.day > 31 || c.hour > 24 || c.min > 59 || c.sec > 60 {
		return 0, false
	}
	y := c.year
	if y == 0 {
		y = s.guessYear(c)
	}
	if y < 1970 || y > 2260 {
		return 0, false
	}
	sec := days(y, c.month, c.day)*86400 + int64(c.hour)*3600 + int64(c.min)*60 + int64(c.sec)
	if c.zoned {
		sec -= int64(c.offset)
	} else if !s.utc {
		sec -= s.offsetAt(sec)
	}
	return max(sec*1e9+c.nsec, 1), true // 0 is no time
}

// guessYear picks the year for a time that names none: the one that puts it nearest to the receipt of the line, because a
// line of 31 December may arrive in January and a fast clock may be ahead over New Year.
func (s *Set) guessYear(c *civil) int {
	ref := s.ref
	if ref == 0 {
		ref = s.now().UnixNano()
		s.ref = ref
	}
	if s.refYearOf != ref/(86400*1e9) || s.refYear == 0 {
		s.refYearOf = ref / (86400 * 1e9)
		s.refYear = time.Unix(0, ref).UTC().Year()
	}
	y := s.refYear
	d := days(y, c.month, c.day) - ref/(86400*1e9)
	// More than about five months ahead is last year's; as long behind and close to the year's end is next year's.
	switch {
	case d > 31:
		return y - 1
	case d < -334:
		return y + 1
	}
	if c.month == 2 && c.day == 29 && (y%4 != 0 || (y%100 == 0 && y%400 != 0)) {
		return y - y%4
	}
	return y
}

// month reads an English month abbreviation in any case; 0 when s does not start with one.
func month(s string) int {
	if len(s) < 3 {
		return 0
	}
	switch uint32(s[0]|0x20)<<16 | uint32(s[1]|0x20)<<8 | uint32(s[2]|0x20) {
	case 'j'<<16 | 'a'<<8 | 'n':
		return 1
	case 'f'<<16 | 'e'<<8 | 'b':
		return 2
	case 'm'<<16 | 'a'<<8 | 'r':
		return 3
	case 'a'<<16 | 'p'<<8 | 'r':
		return 4
	case 'm'<<16 | 'a'<<8 | 'y':
		return 5
	case 'j'<<16 | 'u'<<8 | 'n':
		return 6
	case 'j'<<16 | 'u'<<8 | 'l':
		return 7
	case 'a'<<16 | 'u'<<8 | 'g':
		return 8
	case 's'<<16 | 'e'<<8 | 'p':
		return 9
	case 'o'<<16 | 'c'<<8 | 't':
		return 10
	case 'n'<<16 | 'o'<<8 | 'v':
		return 11
	case 'd'<<16 | 'e'<<8 | 'c':
		return 12
	}
	return 0
}

// two reads two digits at s[i]; a blank may stand for a leading zero.
func two(s string, i int) int {
	if i+1 >= len(s) {
		return -1
	}
	a, b := s[i], s[i+1]
	if a == ' ' {
		a = '0'
	}
	if !isDigit(a) || !isDigit(b) {
		return -1
	}
	return int(a-'0')*10 + int(b-'0')
}

// clock8 reads "hh:mm:ss", two digits each, from eight bytes as load gives them.
func clock8(w uint64, c *civil) bool {
	const colons, digit = 0x00ff0000ff0000, 0x30303a30303a3030 // bytes 2 and 5
	w ^= digit                                                 // digits become their numbers, colons nothing
	if (w+(ones*(0x80-10)|colons&(ones*0x7f))|w)&highs != 0 {
		return false
	}
	w = w*10 + w>>8 // each two digits stand in the first one's byte
	c.hour, c.min, c.sec = int(byte(w)), int(byte(w>>24)), int(byte(w>>48))
	return true
}

// clockAt reads "hh:mm:ss" with an optional fraction at the start of s and says how long it was.
func clockAt(s string, c *civil) int {
	i := 0
	if len(s) >= 8 && clock8(load(s, 0), c) {
		return fractionAt(s, 8, c)
	}
	if len(s) >= 7 && isDigit(s[0]) && s[1] == ':' { // 9:05:01
		c.hour = int(s[0] - '0')
		i = 1
	} else {
		if len(s) < 8 || s[2] != ':' {
			return 0
		}
		c.hour = two(s, 0)
		i = 2
	}
	if c.hour < 0 || i+6 > len(s) || s[i+3] != ':' {
		return 0
	}
	c.min, c.sec = two(s, i+1), two(s, i+4)
	if c.min < 0 || c.sec < 0 || s[i+1] == ' ' || s[i+4] == ' ' {
		return 0
	}
	return fractionAt(s, i+6, c)
}

// fractionAt reads the fraction of a second that may stand at s[i:], and gives the place behind it.
func fractionAt(s string, i int, c *civil) int {
	if i+1 < len(s) && (s[i] == '.' || s[i] == ',') && isDigit(s[i+1]) {
		i++
		mult := int64(100_000_000)
		for i < len(s) && isDigit(s[i]) {
			c.nsec += int64(s[i]-'0') * mult
			mult /= 10
			i++
		}
	}
	return i
}

// zoneAt reads "Z", "+01:00", "+0100", "+01", "UTC", "GMT" at the start of s and says how long it was. Other abbreviations
// are ambiguous (BST, CST, IST …) and are passed over without setting a zone, except BST, which devices here mean as British
// summer time.
func zoneAt(s string, c *civil) int {
	if s == "" {
		return 0
	}
	switch s[0] {
	case 'Z', 'z':
		if len(s) > 1 && isAlpha(s[1]) {
			return 0
		}
		c.zoned, c.offset = true, 0
		return 1
	case '+', '-':
		if len(s) < 3 || !isDigit(s[1]) || !isDigit(s[2]) {
			return 0
		}
		h := two(s, 1)
		m, n := 0, 3
		if n < len(s) && s[n] == ':' && n+2 < len(s) && isDigit(s[n+1]) && isDigit(s[n+2]) {
			m = two(s, n+1)
			n += 3
		} else if n+1 < len(s) && isDigit(s[n]) && isDigit(s[n+1]) {
			m = two(s, n)
			n += 2
		}
		if h > 14 || m > 59 {
			return 0
		}
		c.zoned, c.offset = true, int32(h*3600+m*60)
		if s[0] == '-' {
			c.offset = -c.offset
		}
		if n < len(s) && s[n] == 'Z' { // "+00:00Z", seen behind some relays
			n++
		}
		return n
	}
	if len(s) >= 3 && (len(s) == 3 || !isAlpha(s[3])) {
		switch s[:3] {
		case "UTC", "GMT":
			c.zoned, c.offset = true, 0
			if len(s) > 5 && (s[3] == '+' || s[3] == '-') {
				if n := zoneAt(s[3:], c); n > 0 {
					return 3 + n
				}
			}
			return 3
		case "BST":
			c.zoned, c.offset = true, 3600
			return 3
		}
	}
	return 0
}

// isoAt reads "2026-11-12T08:50:01.123+01:00" and its many relatives (blank for T, slashes, no zone) at the start of s and
// says how long it was; the zone may be missing.
func isoAt(s string, c *civil) int {
	if len(s) < 10 || !isDigit(s[0]) || !isDigit(s[1]) || !isDigit(s[2]) || !isDigit(s[3]) {
		return 0
	}
	sep := s[4]
	if sep != '-' && sep != '/' && sep != '.' && sep != ':' { // Sophos UTM writes 2026:11:12-08:50:01
		return 0
	}
	c.year = int(s[0]-'0')*1000 + int(s[1]-'0')*100 + int(s[2]-'0')*10 + int(s[3]-'0')
	if len(s) >= 19 && s[7] == sep && (s[10] == 'T' || s[10] == ' ') && isDigit(s[5]) && isDigit(s[6]) && isDigit(s[8]) && isDigit(s[9]) && clock8(load(s, 11), c) { // most
		c.month, c.day = int(s[5]-'0')*10+int(s[6]-'0'), int(s[8]-'0')*10+int(s[9]-'0')
		return isoZone(s, fractionAt(s, 19, c), c)
	}
	i := 5
	n, l := digits(s[i:])
	if l < 1 || l > 2 || i+l >= len(s) || s[i+l] != sep {
		return 0
	}
	c.month = int(n)
	i += l + 1
	n, l = digits(s[i:])
	if l < 1 || l > 2 {
		return 0
	}
	c.day = int(n)
	i += l
	if i >= len(s) {
		return 0
	}
	switch {
	case s[i] == 'T' || s[i] == ' ' || s[i] == '-' || s[i] == ':' || s[i] == '_':
		i++
		for i < len(s) && (s[i] == ' ' || s[i] == '-') {
			i++
		}
	default:
		return 0
	}
	l = clockAt(s[i:], c)
	if l == 0 {
		return 0
	}
	return isoZone(s, i+l, c)
}

// isoZone reads the zone that may stand at s[i:], and gives the place behind it.
func isoZone(s string, i int, c *civil) int {
	if i == len(s) {
		c.zoned = false
		return i
	}
	j := i
	if j < len(s) && s[j] == ' ' {
		j++
	}
	if n := zoneAt(s[j:], c); n > 0 && (j+n == len(s) || !isAlpha(s[j+n])) {
		// A minus after a blank is not a zone: "2026-11-12 08:50:01 - text".
		return j + n
	}
	c.zoned = false
	return i
}

// bsdAt reads "Nov 12 08:50:01", with an optional year before or after the clock, fraction and zone.
func bsdAt(s string, c *civil) int {
	i := 0
	if len(s) > 5 && isDigit(s[0]) && isDigit(s[3]) && s[4] == ' ' { // 2026 Nov 12 08:50:01
		n, l := digits(s)
		if l != 4 {
			return 0
		}
		c.year = int(n)
		i = 5
	}
	if len(s) < i+12 {
		return 0
	}
	c.month = month(s[i:])
	if c.month == 0 || s[i+3] != ' ' {
		return 0
	}
	if t := s[i:]; t[6] == ' ' && isDigit(t[5]) && (t[4] == ' ' || isDigit(t[4])) && isDigit(t[7]) { // most
		c.day = int(t[5] - '0')
		if t[4] != ' ' {
			c.day += 10 * int(t[4]-'0')
		}
		i += 7
	} else {
		i += 4
		for i < len(s) && s[i] == ' ' {
			i++
		}
		n, l := digits(s[i:])
		if l < 1 || l > 2 {
			return 0
		}
		c.day = int(n)
		i += l
		if i < len(s) && s[i] == ',' {
			i++
		}
		if i >= len(s) || s[i] != ' ' {
			return 0
		}
		for i < len(s) && s[i] == ' ' {
			i++
		}
	}
	if i+4 < len(s) && s[i+4] == ' ' {
		if n, l := digits(s[i:]); l == 4 { // Nov 12 2026 08:50:01
			c.year = int(n)
			i += 5
		}
	}
	l := clockAt(s[i:], c)
	if l == 0 {
		return 0
	}
	i += l
	if i+5 <= len(s) && s[i] == ' ' { // Nov 12 08:50:01 2026
		if n, l := digits(s[i+1:]); l == 4 && n >= 1970 && n < 2100 && (i+5 == len(s) || s[i+5] == ' ' || s[i+5] == ':') {
			c.year = int(n)
			i += 5
		}
	}
	if i < len(s) && (s[i] == 'Z' || s[i] == '+' || s[i] == '-') {
		i += zoneAt(s[i:], c)
	} else if i+4 <= len(s) && s[i] == ' ' {
		if n := zoneAt(s[i+1:], c); n > 1 {
			i += 1 + n
		}
	}
	return i
}

// dmyAt reads "12/Nov/2026:08:50:01 +0000", "12-Nov-2026 08:50:01", "12 Nov 2026 08:50:01".
func dmyAt(s string, c *civil) int {
	n, l := digits(s)
	if l < 1 || l > 2 || len(s) < l+16 {
		return 0
	}
	i := l
	if s[i] != '/' && s[i] != '-' && s[i] != ' ' {
		return 0
	}
	c.day = int(n)
	c.month = month(s[i+1:])
	if c.month == 0 || s[i+4] != s[i] {
		return 0
	}
	i += 5
	n, l = digits(s[i:])
	if l != 4 || i+4 >= len(s) {
		return 0
	}
	c.year = int(n)
	i += 5
	l = clockAt(s[i:], c)
	if l == 0 {
		return 0
	}
	i += l
	if i+1 < len(s) && s[i] == ' ' {
		if n := zoneAt(s[i+1:], c); n > 0 {
			i += 1 + n
		}
	}
	return i
}

// usAt reads "11/12/2026 08:50:01" (month first) and "11/12/2026:08:50:01", with an optional AM or PM.
func usAt(s string, c *civil) int {
	n, l := digits(s)
	if l < 1 || l > 2 || l >= len(s) || s[l] != '/' {
		return 0
	}
	c.month = int(n)
	i := l + 1
	n, l = digits(s[i:])
	if l < 1 || l > 2 || i+l >= len(s) || s[i+l] != '/' {
		return 0
	}
	c.day = int(n)
	i += l + 1
	n, l = digits(s[i:])
	if l != 4 || i+l >= len(s) || (s[i+l] != ' ' && s[i+l] != ':' && s[i+l] != '-') {
		return 0
	}
	c.year = int(n)
	i += l + 1
	if l = clockAt(s[i:], c); l == 0 {
		return 0
	}
	i += l
	if i+3 <= len(s) && s[i] == ' ' && s[i+2] == 'M' {
		switch {
		case s[i+1] == 'P' && c.hour < 12:
			c.hour += 12
		case s[i+1] == 'A' && c.hour == 12:
			c.hour = 0
		}
		i += 3
	}
	if c.month > 12 && c.day <= 12 { // written day first after all
		c.month, c.day = c.day, c.month
	}
	return i
}

// epoch turns a count since 1970 in seconds (optionally with a fraction), milli-, micro- or nanoseconds to nanoseconds: the
// number of digits tells which. ok is false for times before 2001 and after 2286.
func epoch(s string) (int64, bool) {
	n, l := digits(s)
	if l < 10 {
		return 0, false
	}
	if l == 18 && len(s) > 18 { // 19 digits: nanoseconds
		if len(s) != 19 || !isDigit(s[18]) || s[0] > '7' {
			return 0, false
		}
		return n*10 + int64(s[18]-'0'), true
	}
	switch l {
	case 10:
		ns := n * 1e9
		if l < len(s) {
			if s[l] != '.' {
				return 0, false
			}
			mult := int64(100_000_000)
			for i := l + 1; i < len(s); i++ {
				if !isDigit(s[i]) {
					return 0, false
				}
				ns += int64(s[i]-'0') * mult
				mult /= 10
			}
		}
		return ns, true
	case 13:
		if l < len(s) && s[l] != '.' {
			return 0, false
		}
		return n * 1e6, true
	case 16:
		return n * 1e3, l == len(s)
	}
	return 0, false
}

// anyTime reads a time that fills s (or starts it) in any of the forms above.
func (s *Set) anyTime(v string) (int64, bool) {
	v = trimLeft(v)
	if len(v) < 8 {
		return 0, false
	}
	if t, ok := epoch(v); ok {
		return t, true
	}
	var c civil
	if isAlpha(v[0]) { // "Mon Nov 12 ..." or "Nov 12 ..."
		if len(v) > 4 && (v[3] == ' ' || v[3] == ',') && month(v) == 0 {
			v = trimLeft(v[4:])
		}
		if bsdAt(v, &c) > 0 {
			return s.unix(&c)
		}
		c = civil{}
		if dmyAt(v, &c) > 0 {
			return s.unix(&c)
		}
		return 0, false
	}
	if isoAt(v, &c) > 0 {
		return s.unix(&c)
	}
	c = civil{}
	if dmyAt(v, &c) > 0 {
		return s.unix(&c)
	}
	c = civil{}
	if usAt(v, &c) > 0 {
		return s.unix(&c)
	}
	c = civil{}
	if bsdAt(v, &c) > 0 {
		return s.unix(&c)
	}
	if len(v) > 11 && v[0] == '[' {
		return s.anyTime(strings.TrimSuffix(v[1:], "]"))
	}
	return 0, false
}
