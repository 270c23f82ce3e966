package event

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
	"unsafe"
)

// How DecodeJSON reads strings: most are short and stand for themselves.

// str reads a JSON string. Without escapes it is cut from the line; with escapes it is put together there.
func (d *decoder) str() (string, error) {
	if from := d.i + 1; from < len(d.s) && d.s[d.i] == '"' {
		if end := skipPlain(d.s, from); end < len(d.s) && d.s[end] == '"' {
			d.i = end + 1
			return d.s[from:end], nil
		}
	}
	return d.anyStr()
}

// anyStr is str for every string.
func (d *decoder) anyStr() (string, error) {
	if d.i >= len(d.s) {
		return "", errEnd
	}
	if d.s[d.i] != '"' {
		return "", errKind
	}
	d.i++
	from := d.i
	end, err := d.run()
	if err != nil {
		return "", err
	}
	if d.i = end; end >= len(d.s) {
		return "", errEnd
	}
	switch c := d.s[end]; {
	case c == '"':
		d.i++
		return d.s[from:end], nil
	case c == '\\':
		return d.escaped(from)
	}
	return "", errString
}

// special marks, by its highest bit, the first of eight bytes that is a quote, a backslash, a control or beyond ASCII; what is marked above that
// one says nothing. These are the usual tests for "has a byte less than" and "has a byte equal to".
func special(w uint64) uint64 {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quote, slash := w^ones*'"', w^ones*'\\'
	return ((w - ones*0x20) | (quote - ones) | (slash - ones) | w) & highs
}

// skipPlain gives the first index from i on at which s has a quote, a backslash, a control or a byte beyond ASCII.
func skipPlain(s string, i int) int {
	p := unsafe.Pointer(unsafe.StringData(s))
	for steps := 0; i+8 <= len(s); i += 8 {
		if found := special(binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(p, i))[:])); found != 0 {
			return i + bits.TrailingZeros64(found)>>3
		}
		if steps++; steps == 3 && wide && len(s)-i >= 40 { // a long one
			i += 8
			n := (len(s) - i) &^ 31
			if at := plainAVX2((*byte)(unsafe.Add(p, i)), n); at < n {
				return i + at
			}
			i += n - 8
		}
	}
	for i < len(s) && plain[s[i]] {
		i++
	}
	return i
}

// escaped reads on in a string that began at from and has its first escape at d.i. What it stands for is never longer than what is written,
// so it is put in its place: the line is the event's own copy.
func (d *decoder) escaped(from int) (string, error) {
	mem := unsafe.Slice(unsafe.StringData(d.s), len(d.s))
	i, to := d.i, d.i
	for i < len(mem) {
		// What stands for itself is moved, eight bytes at a time; to never comes nearer to i.
		for i+8 <= len(mem) {
			w := binary.LittleEndian.Uint64(mem[i:])
			found := special(w)
			if found == 0 {
				binary.LittleEndian.PutUint64(mem[to:], w)
				i, to = i+8, to+8
				continue
			}
			n := bits.TrailingZeros64(found) >> 3
			if to+8 <= i {
				binary.LittleEndian.PutUint64(mem[to:], w)
			} else {
				copy(mem[to:], mem[i:i+n])
			}
			i, to = i+n, to+n
			if mem[i] != '\\' || i+1 >= len(mem) {
				break
			}
			e := escapes[mem[i+1]]
			if e == 0 {
				break
			}
			mem[to] = e
			i, to = i+2, to+1
		}
		if i >= len(mem) {
			break
		}
		switch c := mem[i]; {
		case c == '"':
			d.i = i + 1
			return d.s[from:to], nil
		case c == '\\':
			d.i = i
			r, err := d.escape()
			if err != nil {
				return "", err
			}
			i = d.i
			to += utf8.EncodeRune(mem[to:], r)
		case c < 0x20:
			d.i = i
			return "", errString
		case c < utf8.RuneSelf:
			mem[to] = c
			i, to = i+1, to+1
		default:
			r, n := utf8.DecodeRune(mem[i:])
			if r == utf8.RuneError && n == 1 {
				d.i = i
				return "", errString
			}
			copy(mem[to:], mem[i:i+n])
			i, to = i+n, to+n
		}
	}
	d.i = i
	return "", errEnd
}

// skip goes over a string and leaves it as it is written.
func (d *decoder) skip() error {
	for d.i++; d.i < len(d.s); {
		switch c := d.s[d.i]; {
		case c == '\\':
			if _, err := d.escape(); err != nil {
				return err
			}
		case c == '"':
			d.i++
			return nil
		case c < 0x20:
			return errString
		default:
			end, err := d.run()
			if err != nil {
				return err
			}
			d.i = end
		}
	}
	return errEnd
}

// run gives the end of what stands for itself from d.i on; a byte is there that does.
func (d *decoder) run() (end int, err error) {
	end = d.i
	for {
		if end = skipPlain(d.s, end); end >= len(d.s) {
			return end, nil
		}
		switch c := d.s[end]; {
		case c == '"' || c == '\\' || c < 0x20:
			return end, nil
		case c < utf8.RuneSelf:
			end++ // DEL, which stands for itself
		default:
			r, n := utf8.DecodeRuneInString(d.s[end:])
			if r == utf8.RuneError && n == 1 {
				return 0, errString
			}
			end += n
		}
	}
}

// escapes gives what the character behind a backslash stands for, 0 where it is more than that.
var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escape reads the escape at d.i.
func (d *decoder) escape() (rune, error) {
	if d.i+1 >= len(d.s) {
		return 0, errEnd
	}
	c := d.s[d.i+1]
	d.i += 2
	if e := escapes[c]; e != 0 {
		return rune(e), nil
	}
	if c != 'u' {
		return 0, errString
	}
	r, err := d.hex4()
	if err != nil || r < 0xd800 || r >= 0xe000 {
		return r, err
	}
	// A surrogate: only a pair is a character.
	if r >= 0xdc00 || len(d.s)-d.i < 2 || d.s[d.i] != '\\' || d.s[d.i+1] != 'u' {
		return 0, errString
	}
	d.i += 2
	low, err := d.hex4()
	if err != nil || low < 0xdc00 || low >= 0xe000 {
		return 0, errString
	}
	return (r-0xd800)<<10 + (low - 0xdc00) + 0x10000, nil
}

func (d *decoder) hex4() (rune, error) {
	if len(d.s)-d.i < 4 {
		return 0, errEnd
	}
	var r rune
	for _, c := range []byte(d.s[d.i : d.i+4]) {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, errString
		}
	}
	d.i += 4
	return r, nil
}
