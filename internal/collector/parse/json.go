package parse

import (
	"strings"
	"unicode/utf8"
	"unsafe"

	"tocsin/internal/event"
)

// jsonWalk walks the scalars of one JSON object without building anything. The path of each is its keys joined by dots;
// elements of an array have the array's path. It is lenient: a truncated object gives what was there. Depth is bounded.
type jsonWalk struct {
	s     string
	i     int
	path  [200]byte
	n     int // length of path
	leaf  int // where the last key starts in path
	stack [32]jsonLevel
	depth int
	val   jsonValue
	index int  // index of the element in its array, 0 outside arrays
	bad   bool // ended before the object was closed
}

type jsonLevel struct {
	array bool
	n     int // length of the path of this level
	leaf  int
	count int
}

// jsonValue is one scalar: raw is the text between the quotes of a string, still escaped, or the literal.
type jsonValue struct {
	raw  string
	kind byte // 's' string, 'n' number, 'b' true or false, '0' null
	esc  bool // raw holds backslashes
}

func (w *jsonWalk) start(s string) bool {
	w.s, w.i, w.n, w.depth, w.bad = s, 0, 0, 0, false
	if len(s) == 0 || s[0] != '{' {
		return false
	}
	w.stack[0] = jsonLevel{}
	w.depth, w.i = 1, 1
	return true
}

func (w *jsonWalk) next() bool {
	s := w.s
	for {
		i := w.i
		for i < len(s) && (s[i] == ' ' || s[i] == ',' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r') {
			i++
		}
		if i >= len(s) {
			w.i, w.bad = i, true
			return false
		}
		top := &w.stack[w.depth-1]
		c := s[i]
		if c == '}' || c == ']' {
			w.i = i + 1
			w.depth--
			if w.depth == 0 {
				return false
			}
			continue
		}
		w.n, w.leaf, w.index = top.n, top.leaf, 0
		if top.array {
			w.index = top.count
			top.count++
		} else {
			if c != '"' {
				w.i, w.bad = i, true
				return false
			}
			end := quoteEnd1(s, i)
			if end < 0 {
				w.i, w.bad = len(s), true
				return false
			}
			key := s[i+1 : end]
			i = end + 1
			for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
				i++
			}
			if i >= len(s) || s[i] != ':' {
				w.i, w.bad = i, true
				return false
			}
			i++
			for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
				i++
			}
			if i >= len(s) {
				w.i, w.bad = i, true
				return false
			}
			if w.n > 0 && w.n < len(w.path) {
				w.path[w.n] = '.'
				w.n++
			}
			w.leaf = w.n
			w.n += copy(w.path[w.n:], key)
			c = s[i]
		}
		switch c {
		case '{', '[':
			if w.depth == len(w.stack) {
				w.i, w.bad = i, true
				return false
			}
			w.stack[w.depth] = jsonLevel{array: c == '[', n: w.n, leaf: w.leaf}
			w.depth++
			w.i = i + 1
			continue
		case '"':
			j := i + 1
			esc := false
			for {
				k := strings.IndexByte(s[j:], '"')
				if k < 0 {
					w.val = jsonValue{raw: s[i+1:], kind: 's', esc: strings.IndexByte(s[i+1:], '\\') >= 0}
					w.i, w.bad = len(s), true
					return true
				}
				j += k
				n := 0
				for s[j-n-1] == '\\' && j-n-1 > i {
					n++
				}
				if n%2 == 0 {
					break
				}
				esc = true
				j++
			}
			raw := s[i+1 : j]
			if !esc {
				esc = strings.IndexByte(raw, '\\') >= 0
			}
			w.val = jsonValue{raw: raw, kind: 's', esc: esc}
			w.i = j + 1
			return true
		}
		j := i
		for j < len(s) && s[j] != ',' && s[j] != '}' && s[j] != ']' && s[j] != ' ' && s[j] != '\n' && s[j] != '\r' && s[j] != '\t' {
			j++
		}
		if j == i {
			w.i, w.bad = i, true
			return false
		}
		lit := s[i:j]
		kind := byte('n')
		switch lit {
		case "true", "false":
			kind = 'b'
		case "null":
			kind = '0'
		}
		w.val = jsonValue{raw: lit, kind: kind}
		w.i = j
		return true
	}
}

// quoteEnd1 gives the index of the quote that closes the one at s[i], or -1.
func quoteEnd1(s string, i int) int {
	j := i + 1
	for {
		k := strings.IndexByte(s[j:], '"')
		if k < 0 {
			return -1
		}
		j += k
		n := 0
		for j-n-1 > i && s[j-n-1] == '\\' {
			n++
		}
		if n%2 == 0 {
			return j
		}
		j++
	}
}

// jstr gives the value's text: a part of the line, or a copy when it had escapes. null is "".
func (s *Set) jstr(v jsonValue) string {
	if v.kind == '0' {
		return ""
	}
	if !v.esc {
		return v.raw
	}
	b := s.buf[:0]
	r := v.raw
	for i := 0; i < len(r); i++ {
		c := r[i]
		if c != '\\' || i+1 >= len(r) {
			b = append(b, c)
			continue
		}
		i++
		switch r[i] {
		case 'n':
			b = append(b, '\n')
		case 't':
			b = append(b, '\t')
		case 'r':
			b = append(b, '\r')
		case 'b', 'f':
			b = append(b, ' ')
		case 'u':
			u, ok := hex4(r, i+1)
			if !ok {
				b = append(b, 'u')
				continue
			}
			i += 4
			if u >= 0xD800 && u < 0xDC00 && i+6 < len(r) && r[i+1] == '\\' && r[i+2] == 'u' {
				if lo, ok := hex4(r, i+3); ok && lo >= 0xDC00 && lo < 0xE000 {
					u = (u-0xD800)<<10 + (lo - 0xDC00) + 0x10000
					i += 6
				}
			}
			b = utf8.AppendRune(b, u)
		default:
			b = append(b, r[i])
		}
	}
	s.buf = b
	return s.e.Copy(b)
}

func hex4(r string, i int) (rune, bool) {
	if i+4 > len(r) {
		return 0, false
	}
	var u rune
	for _, c := range []byte(r[i : i+4]) {
		switch {
		case isDigit(c):
			u = u<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			u = u<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return u, true
}

// genericJSON reads any JSON object through the dictionary of words.go.
func (s *Set) genericJSON(msg string) bool {
	w := &s.json
	if !w.start(msg) {
		return false
	}
	n := 0
	s.utc, s.weak = true, ""
	defer func() { s.utc = false }()
	for pairs := 0; pairs < 2000 && w.next(); pairs++ {
		n++
		if w.val.kind == '0' || len(w.val.raw) == 0 {
			continue
		}
		s.jsonField(w)
	}
	if n == 0 {
		return false
	}
	s.genericDone("json.generic")
	return true
}

func (s *Set) jsonField(w *jsonWalk) {
	path := unsafe.String(&w.path[0], w.n)
	if !s.genericPath(path, path[w.leaf:], w.val) && len(s.e.Extras()) < event.MaxExtras && extraName(path) {
		s.extra(s.e.CopyString(path), s.jstr(w.val))
	}
}
