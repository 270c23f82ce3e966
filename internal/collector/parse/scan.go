package parse

import (
	"math/bits"
	"net/netip"
	"strings"
	"unsafe"

	"tocsin/internal/collector/parse/find"
)

// The functions of this file read one thing from a string without allocating. They are the hot path: loops over bytes, no
// regular expressions, no strings.Split.

func isDigit(c byte) bool { return c-'0' <= 9 }

func isAlpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func isHex(c byte) bool { return isDigit(c) || (c|0x20 >= 'a' && c|0x20 <= 'f') }

// atoi reads a whole decimal number of at most 18 digits.
func atoi(s string) (int64, bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := 0; i < len(s); i++ {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int64(c)
	}
	return n, true
}

// digits reads a decimal prefix of s and says how long it was; numbers of more than 18 digits stop there.
func digits(s string) (n int64, length int) {
	for length < len(s) && length < 18 && isDigit(s[length]) {
		n = n*10 + int64(s[length]-'0')
		length++
	}
	return n, length
}

// allDigits says whether s is not empty and made of digits alone.
func allDigits(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return false
		}
	}
	return true
}

// ipv4Prefix reads an IPv4 address at the start of s (fast path) and says how long it was; 0 when there is none.
// Parts with leading zeros are refused, as netip does: their meaning differs between systems.
func ipv4Prefix(s string) (netip.Addr, int) {
	a, n := ipv4At(s)
	if n == 0 {
		return netip.Addr{}, 0
	}
	return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}), n
}

// ipv4At is ipv4Prefix for an address as a number, the first byte the highest.
func ipv4At(s string) (a uint32, length int) {
	i := 0
	for part := 0; ; part++ {
		if i >= len(s) || s[i]-'0' > 9 {
			return 0, 0
		}
		n := uint32(s[i] - '0')
		i++
		if i < len(s) && s[i]-'0' <= 9 {
			if n == 0 {
				return 0, 0
			}
			n = n*10 + uint32(s[i]-'0')
			i++
			if i < len(s) && s[i]-'0' <= 9 {
				n = n*10 + uint32(s[i]-'0')
				i++
				if n > 255 {
					return 0, 0
				}
			}
		}
		a = a<<8 | n
		if part == 3 {
			break
		}
		if i >= len(s) || s[i] != '.' {
			return 0, 0
		}
		i++
	}
	if i < len(s) && s[i]-'0' <= 9 {
		return 0, 0
	}
	return a, i
}

// parseIP reads an address that fills s; brackets, a zone id and an IPv4-mapped form are undone.
func parseIP(s string) (netip.Addr, bool) {
	if a, n := ipv4Prefix(s); n > 0 {
		if n == len(s) {
			return a, true
		}
		return netip.Addr{}, false
	}
	if len(s) < 2 || len(s) > 64 {
		return netip.Addr{}, false
	}
	if a, ok := ipv6Hex(s); ok {
		return a, true
	}
	if s[0] == '[' && s[len(s)-1] == ']' {
		s = s[1 : len(s)-1]
	}
	// netip makes an error with every refusal, so what cannot be IPv6 is turned away first.
	colons := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ':':
			colons++
		case isHex(c) || c == '.':
		case c == '%' && i > 1:
			s = s[:i]
		default:
			return netip.Addr{}, false
		}
	}
	if colons < 2 || colons > 8 || colons < 7 && !find.Has(s, "::") && strings.IndexByte(s, '.') < 0 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, false
	}
	return a.WithZone("").Unmap(), true
}

// hexDigit is the number of a hexadecimal digit, 16 for other bytes.
var hexDigit = func() (t [256]byte) {
	for i := range t {
		switch c := byte(i); {
		case isDigit(c):
			t[i] = c - '0'
		case isHex(c):
			t[i] = c | 0x20 - 'a' + 10
		default:
			t[i] = 16
		}
	}
	return t
}()

// ipv6Hex reads an IPv6 address of groups in hexadecimal that fills s; all other forms are left to netip.
func ipv6Hex(s string) (netip.Addr, bool) {
	if len(s) < 2 || len(s) > 39 {
		return netip.Addr{}, false
	}
	var b [16]byte
	groups, gap, i := 0, -1, 0
	if s[0] == ':' {
		if s[1] != ':' {
			return netip.Addr{}, false
		}
		gap, i = 0, 2
	}
	for i < len(s) {
		v := uint32(hexDigit[s[i]])
		if v >= 16 || groups == 8 {
			return netip.Addr{}, false
		}
		start, c := i, byte(0)
		for i++; i < len(s); i++ {
			c = s[i]
			d := uint32(hexDigit[c])
			if d >= 16 {
				break
			}
			v = v<<4 | d
		}
		if i-start > 4 {
			return netip.Addr{}, false
		}
		b[2*groups&15], b[(2*groups+1)&15] = byte(v>>8), byte(v)
		groups++
		if i == len(s) {
			break
		}
		if c != ':' || i+1 == len(s) {
			return netip.Addr{}, false
		}
		if i++; s[i] == ':' {
			if gap >= 0 {
				return netip.Addr{}, false
			}
			gap = groups
			i++
		}
	}
	switch {
	case gap < 0 && groups < 8, gap >= 0 && groups == 8:
		return netip.Addr{}, false
	case gap >= 0:
		from := 16 - 2*(groups-gap)
		copy(b[from:], b[2*gap:2*groups])
		clear(b[2*gap : from])
	}
	return netip.AddrFrom16(b).Unmap(), true
}

// ipPort reads "addr", "addr:port", "[addr]:port" and "v6addr:port" is left alone (it is an address). port is "" when absent.
func ipPort(s string) (a netip.Addr, port string, ok bool) {
	if a, n := ipv4Prefix(s); n > 0 {
		if n == len(s) {
			return a, "", true
		}
		if (s[n] == ':' || s[n] == '/' || s[n] == '#') && n+1 < len(s) {
			_, l := digits(s[n+1:])
			return a, s[n+1 : n+1+l], true
		}
		return a, "", s[n] == '/' || s[n] == ':' || s[n] == ',' || s[n] == ' ' || s[n] == '('
	}
	if len(s) > 2 && s[0] == '[' {
		if end := strings.IndexByte(s, ']'); end > 0 {
			if a, ok := parseIP(s[:end+1]); ok {
				rest := s[end+1:]
				if len(rest) > 1 && rest[0] == ':' {
					_, l := digits(rest[1:])
					return a, rest[1 : 1+l], true
				}
				return a, "", true
			}
		}
		return netip.Addr{}, "", false
	}
	if a, ok := parseIP(s); ok {
		return a, "", true
	}
	// A fully written IPv6 address with the port behind an eighth colon.
	if i := strings.LastIndexByte(s, ':'); i > 14 && i+1 < len(s) && len(s)-i < 7 && strings.Count(s[:i], ":") == 7 && allDigits(s[i+1:]) {
		if a, ok := parseIP(s[:i]); ok {
			return a, s[i+1:], true
		}
	}
	// An IPv6 address with a slash, hash or dot before the port.
	if i := strings.LastIndexAny(s, "/#."); i > 0 && allDigits(s[i+1:]) {
		if a, ok := parseIP(s[:i]); ok {
			return a, s[i+1:], true
		}
	}
	return netip.Addr{}, "", false
}

// cutSpace returns the text before the first blank and what follows the run of blanks.
func cutSpace(s string) (word, rest string) {
	i := strings.IndexByte(s, ' ')
	if i < 0 {
		return s, ""
	}
	word = s[:i]
	for i < len(s) && s[i] == ' ' {
		i++
	}
	return word, s[i:]
}

// trimLeft drops blanks and tabs at the start.
func trimLeft(s string) string {
	i := 0
	for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	return s[i:]
}

// trim drops blanks, tabs and line ends on both sides.
func trim(s string) string {
	s = trimLeft(s)
	j := len(s)
	for j > 0 && (s[j-1] == ' ' || s[j-1] == '\t' || s[j-1] == '\r' || s[j-1] == '\n') {
		j--
	}
	return s[:j]
}

// unquote drops one pair of quotes (double or single) around s.
func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// between returns what stands between the first a and the next b; ok is false when either is missing.
func between(s, a, b string) (string, bool) {
	i := find.Index(s, a)
	if i < 0 {
		return "", false
	}
	s = s[i+len(a):]
	j := find.Index(s, b)
	if j < 0 {
		return "", false
	}
	return s[:j], true
}

// after returns the word (up to a blank, comma, semicolon, quote or bracket) that follows the first a.
func after(s, a string) string {
	i := find.Index(s, a)
	if i < 0 {
		return ""
	}
	return wordOf(s[i+len(a):])
}

// wordOf returns the first word of s; a quoted word is unquoted.
func wordOf(s string) string {
	s = trimLeft(s)
	if s == "" {
		return ""
	}
	if c := s[0]; c == '"' || c == '\'' {
		if j := strings.IndexByte(s[1:], c); j >= 0 {
			return s[1 : 1+j]
		}
		s = s[1:]
	}
	for j := 0; j < len(s); j++ {
		switch s[j] {
		case ' ', ',', ';', '"', '\'', ')', ']', '>', '\t':
			return s[:j]
		}
	}
	return s
}

// csv is a walk over comma-separated values; a field in double quotes may hold commas, doubled quotes are left as they are.
type csv struct {
	s    string
	done bool
}

func (c *csv) next() (string, bool) {
	if c.done {
		return "", false
	}
	s := c.s
	if len(s) > 0 && s[0] == '"' {
		for i := 1; ; i++ {
			k := strings.IndexByte(s[i:], '"')
			if k < 0 {
				break
			}
			i += k
			if i+1 < len(s) && s[i+1] == '"' {
				i++
				continue
			}
			v := s[1:i]
			if i+1 < len(s) && s[i+1] == ',' {
				c.s = s[i+2:]
			} else if j := strings.IndexByte(s[i:], ','); j >= 0 {
				c.s = s[i+j+1:]
			} else {
				c.s, c.done = "", true
			}
			return v, true
		}
	}
	if i := strings.IndexByte(s, ','); i >= 0 {
		c.s = s[i+1:]
		return s[:i], true
	}
	c.s, c.done = "", true
	return s, true
}

// split fills dst with the comma-separated values of s and returns how many there are, at most len(dst).
func split(dst []string, s string) int {
	const most = 2048 // bytes of a text whose commas are found at once; longer ones are cut value by value
	var commas [most / 64]uint64
	if len(s) > most {
		return splitSlow(dst, s)
	}
	words := (len(s) + 63) >> 6
	find.Masks(s, ',', commas[:words])
	if strings.IndexByte(s, '"') < 0 {
		return splitPlain(dst, s, commas[:words])
	}
	return splitQuoted(dst, s, commas[:words])
}

// splitQuoted is splitPlain where some values stand in quotes, with commas that are theirs.
func splitQuoted(dst []string, s string, commas []uint64) int {
	start, n := 0, 0
	for w, bit := range commas {
		for ; bit != 0; bit &= bit - 1 {
			i := w<<6 + bits.TrailingZeros64(bit)
			if i < start { // in the quotes that have been passed
				continue
			}
			if n >= len(dst) {
				return n
			}
			if s[start] == '"' {
				c := csv{s: s[start:]}
				dst[n], _ = c.next()
				n++
				if c.done {
					return n
				}
				start = len(s) - len(c.s)
				continue
			}
			dst[n] = s[start:i]
			n++
			start = i + 1
		}
	}
	if n < len(dst) {
		c := csv{s: s[start:]}
		dst[n], _ = c.next()
		n++
	}
	return n
}

// splitPlain is split for a text without quotes, whose commas are known.
func splitPlain(dst []string, s string, commas []uint64) int {
	p, start, n := unsafe.Pointer(unsafe.StringData(s)), 0, 0
	for w, bit := range commas {
		for ; bit != 0; bit &= bit - 1 {
			if n >= len(dst) {
				return n
			}
			i := w<<6 + bits.TrailingZeros64(bit) // start <= i < len(s)
			dst[n] = unsafe.String((*byte)(unsafe.Add(p, start)), i-start)
			n++
			start = i + 1
		}
	}
	if n < len(dst) {
		dst[n] = s[start:]
		n++
	}
	return n
}

// splitSlow is split, value by value.
func splitSlow(dst []string, s string) int {
	c := csv{s: s}
	for n := range dst {
		v, ok := c.next()
		if !ok {
			return n
		}
		dst[n] = v
	}
	return len(dst)
}

// hasFold says whether s starts with the lower-case ASCII prefix p, whatever the case of s.
func hasFold(s, p string) bool {
	if len(s) < len(p) {
		return false
	}
	for i := 0; i < len(p); i++ {
		c := s[i]
		if c-'A' <= 25 {
			c |= 0x20
		}
		if c != p[i] {
			return false
		}
	}
	return true
}

// equalFold is hasFold for the whole of s.
func equalFold(s, p string) bool { return len(s) == len(p) && hasFold(s, p) }
