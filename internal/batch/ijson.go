package batch

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/bits"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// errJSON and errRepeated are the two ways in which a line is no I-JSON object.
var (
	errJSON     = errors.New("not one JSON object in valid UTF-8")
	errRepeated = errors.New("a member is repeated")
)

// maxDepth bounds nesting. Events are flat; lists are one deep.
const maxDepth = 16

// CheckObject says whether b is exactly one JSON object (RFC 8259) without repeated members at any depth and in valid UTF-8 without
// unpaired surrogates (RFC 7493, sections 2.1 and 2.3), with no white space around it. Nesting is at most 16 deep. It does not allocate
// for ordinary lines.
func CheckObject(b []byte) error {
	c := checkers.Get().(*checker)
	defer checkers.Put(c)
	c.b, c.i, c.names = b, 0, c.names[:0]
	c.repeated = false
	ok := len(b) > 0 && b[0] == '{' && c.object(1) && c.i == len(b)
	c.b = nil
	if c.repeated {
		return errRepeated
	}
	if !ok {
		return errJSON
	}
	return nil
}

var checkers = sync.Pool{New: func() any { return new(checker) }}

type checker struct {
	b        []byte
	i        int
	names    []name // of all open objects, innermost last
	repeated bool
}

type name struct {
	mark       uint64
	start, end int // within b, without the quotes
	escaped    bool
}

// mark is equal for equal names and rarely for others. Names chosen to have equal marks only cost their comparison, and of those at most 64
// are compared before a map takes over.
func mark(b []byte) uint64 {
	n := len(b)
	h := uint64(n) * 0x9e3779b97f4a7c15
	switch {
	case n >= 8:
		h ^= binary.LittleEndian.Uint64(b) ^ bits.RotateLeft64(binary.LittleEndian.Uint64(b[n-8:]), 23)
		if n > 16 {
			h ^= bits.RotateLeft64(binary.LittleEndian.Uint64(b[n/2-4:]), 41)
		}
	default:
		for _, c := range b {
			h = h*131 + uint64(c)
		}
	}
	return h * 0xff51afd7ed558ccd
}

// plain marks the bytes that stand for themselves in a string.
var plain = func() (t [256]bool) {
	for i := 0x20; i < 0x80; i++ {
		t[i] = i != '"' && i != '\\'
	}
	return t
}()

func (c *checker) space() {
	if c.i < len(c.b) && c.b[c.i] > ' ' {
		return
	}
	c.spaces()
}

func (c *checker) spaces() {
	for c.i < len(c.b) {
		switch c.b[c.i] {
		case ' ', '\t', '\r', '\n':
			c.i++
		default:
			return
		}
	}
}

func (c *checker) peek() byte {
	if c.i < len(c.b) {
		return c.b[c.i]
	}
	return 0
}

func (c *checker) object(depth int) bool {
	base := len(c.names)
	defer func() { c.names = c.names[:base] }()
	c.i++ // {
	c.space()
	if c.peek() == '}' {
		c.i++
		return true
	}
	var seen uint64              // a bit for each mark, to skip most looking through the list
	var many map[string]struct{} // for objects so wide that looking through the list would take long
	for {
		if c.peek() != '"' {
			return false
		}
		start := c.i + 1
		escaped, ok := c.str()
		if !ok {
			return false
		}
		n := name{start: start, end: c.i - 1, escaped: escaped}
		text := c.text(n)
		n.mark = mark(text)
		bit := uint64(1) << (n.mark >> 58)
		if many == nil {
			if seen&bit != 0 {
				for i := base; i < len(c.names); i++ {
					if o := &c.names[i]; o.mark == n.mark && string(c.text(*o)) == string(text) {
						c.repeated = true
						return false
					}
				}
			}
			seen |= bit
			if len(c.names)-base >= 64 {
				many = make(map[string]struct{}, 256)
				for _, o := range c.names[base:] {
					many[string(c.text(o))] = struct{}{}
				}
			}
		}
		if many != nil {
			if _, ok := many[string(text)]; ok {
				c.repeated = true
				return false
			}
			many[string(text)] = struct{}{}
		} else {
			c.names = append(c.names, n)
		}
		c.space()
		if c.peek() != ':' {
			return false
		}
		c.i++
		if !c.value(depth) {
			return false
		}
		switch c.peek() {
		case ',':
			c.i++
			c.space()
		case '}':
			c.i++
			return true
		default:
			return false
		}
	}
}

// value reads one value and the white space on both sides of it.
func (c *checker) value(depth int) bool {
	c.space()
	ok := false
	switch p := c.peek(); {
	case p == '"':
		_, ok = c.str()
	case p == '{':
		ok = depth < maxDepth && c.object(depth+1)
	case p == '[':
		ok = depth < maxDepth && c.array(depth+1)
	case p == '-' || p >= '0' && p <= '9':
		ok = c.number()
	case p == 't':
		ok = c.word("true")
	case p == 'f':
		ok = c.word("false")
	case p == 'n':
		ok = c.word("null")
	}
	c.space()
	return ok
}

func (c *checker) array(depth int) bool {
	c.i++ // [
	c.space()
	if c.peek() == ']' {
		c.i++
		return true
	}
	for {
		if !c.value(depth) {
			return false
		}
		switch c.peek() {
		case ',':
			c.i++
		case ']':
			c.i++
			return true
		default:
			return false
		}
	}
}

func (c *checker) word(w string) bool {
	if len(c.b)-c.i < len(w) || string(c.b[c.i:c.i+len(w)]) != w {
		return false
	}
	c.i += len(w)
	return true
}

func (c *checker) digits() bool {
	start := c.i
	for c.i < len(c.b) && c.b[c.i] >= '0' && c.b[c.i] <= '9' {
		c.i++
	}
	return c.i > start
}

func (c *checker) number() bool {
	if c.peek() == '-' {
		c.i++
	}
	if c.peek() == '0' {
		c.i++
	} else if !c.digits() {
		return false
	}
	if c.peek() == '.' {
		c.i++
		if !c.digits() {
			return false
		}
	}
	if p := c.peek(); p == 'e' || p == 'E' {
		c.i++
		if p := c.peek(); p == '+' || p == '-' {
			c.i++
		}
		return c.digits()
	}
	return true
}

// str reads a string from its opening to past its closing quote.
func (c *checker) str() (escaped, ok bool) {
	b, i := c.b, c.i+1
	for i < len(b) {
		// Eight at a time while none is a quote, a backslash, a control character or outside ASCII.
		for i+8 <= len(b) {
			x := binary.LittleEndian.Uint64(b[i:])
			if odd := special(x); odd != 0 {
				i += bits.TrailingZeros64(odd) / 8
				break
			}
			i += 8
		}
		if i == len(b) {
			break
		}
		p := b[i]
		switch {
		case plain[p]:
			i++
		case p == '"':
			c.i = i + 1
			return escaped, true
		case p == '\\':
			escaped = true
			if i+1 >= len(b) {
				return escaped, false
			}
			switch b[i+1] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i += 2
			case 'u':
				r, ok := hex4(b, i+2)
				if !ok {
					return escaped, false
				}
				i += 6
				if utf16.IsSurrogate(r) {
					if i+1 >= len(b) || b[i] != '\\' || b[i+1] != 'u' {
						return escaped, false
					}
					r2, ok := hex4(b, i+2)
					if !ok || utf16.DecodeRune(r, r2) == utf8.RuneError {
						return escaped, false
					}
					i += 6
				}
			default:
				return escaped, false
			}
		case p < 0x20:
			return escaped, false
		default:
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n == 1 {
				return escaped, false
			}
			i += n
		}
	}
	return escaped, false
}

// special has the high bit set in the lowest byte of x that is a quote, a backslash, below 0x20 or above 0x7f, and perhaps in bytes above it;
// it is zero if there is no such byte. (A subtraction borrows only out of a byte that is itself one of these, so the lowest is exact.)
func special(x uint64) uint64 {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quote := x ^ ones*'"'
	back := x ^ ones*'\\'
	return ((x-ones*0x20)&^x | (quote-ones)&^quote | (back-ones)&^back | x) & highs
}

func hex4(b []byte, i int) (rune, bool) {
	if i+4 > len(b) {
		return 0, false
	}
	var r rune
	for _, d := range b[i : i+4] {
		switch {
		case d >= '0' && d <= '9':
			r = r<<4 | rune(d-'0')
		case d >= 'a' && d <= 'f':
			r = r<<4 | rune(d-'a'+10)
		case d >= 'A' && d <= 'F':
			r = r<<4 | rune(d-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// text is a member's name with its escapes taken out.
func (c *checker) text(n name) []byte {
	if !n.escaped {
		return c.b[n.start:n.end]
	}
	var s string
	if json.Unmarshal(c.b[n.start-1:n.end+1], &s) != nil {
		return nil // str has accepted it, so this cannot happen
	}
	return []byte(s)
}
