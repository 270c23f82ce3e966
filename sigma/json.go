package sigma

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// Names is a Schema for events whose fields are not known beforehand: a name gets a number when a rule asks for it. All rules must be
// compiled before the first record is decoded; then it is safe for concurrent use.
type Names struct {
	keys map[string]Key
}

// Key implements Schema.
func (n *Names) Key(name string) (Key, error) {
	if k, ok := n.keys[name]; ok {
		return k, nil
	}
	if n.keys == nil {
		n.keys = map[string]Key{}
	}
	if len(n.keys) >= int(NoKey) {
		return 0, errors.New("too many field names")
	}
	k := Key(len(n.keys))
	n.keys[name] = k
	return k, nil
}

// Lookup gives the number of a name, or NoKey. Blanks in a name that is not known are left out: Windows calls a field "Threat Name",
// rules call it ThreatName.
func (n *Names) Lookup(name string) Key {
	if k, ok := n.keys[name]; ok {
		return k
	}
	if strings.IndexByte(name, ' ') >= 0 {
		if k, ok := n.keys[strings.ReplaceAll(name, " ", "")]; ok {
			return k
		}
	}
	return NoKey
}

// Decoder fills records from JSON objects. Names of nested objects are joined with dots, also through arrays; a literal name with a dot
// wins over a nested one. It belongs to one goroutine.
type Decoder struct {
	Names *Names

	data  string
	at    int
	path  []byte
	buf   []byte // unescaped texts
	nests []nested
}

// nested is a value found below the top level; it counts only if no literal name is the same.
type nested struct {
	key Key
	f   field
}

const maxJSONDepth = 64

// Decode reads one JSON object into r, after resetting it. The strings of r point into line and into the decoder: both must stay as
// they are while r is used.
func (d *Decoder) Decode(r *Record, line []byte) error {
	r.Reset()
	d.data = unsafe.String(unsafe.SliceData(line), len(line))
	d.at, d.path, d.buf, d.nests = 0, d.path[:0], d.buf[:0], d.nests[:0]
	// Unescaped text is never longer than the escaped; with this room the buffer does not move while strings point into it.
	if cap(d.buf) < len(line) {
		d.buf = make([]byte, 0, 2*len(line))
	}
	d.space()
	if d.at >= len(d.data) || d.data[d.at] != '{' {
		return d.fail("a JSON object is wanted")
	}
	if err := d.object(r, 0); err != nil {
		return err
	}
	d.space()
	if d.at != len(d.data) {
		return d.fail("something follows the object")
	}
	if len(d.nests) > 0 {
		// Which keys are literal is known only now; nested values must not hide each other.
		literal := func(k Key, upto int) bool {
			for i := range upto {
				if r.fields[i].key == k {
					return true
				}
			}
			return false
		}
		upto := len(r.fields)
		for i := range d.nests {
			n := &d.nests[i]
			k := n.key
			if k != NoKey && literal(k, upto) {
				k = NoKey // still seen by keywords
			}
			f := r.add(k, n.f.kind)
			f.num, f.text, f.hasText = n.f.num, n.f.text, n.f.hasText
		}
	}
	return nil
}

func (d *Decoder) fail(reason string) error {
	return fmt.Errorf("not a JSON object: %s at byte %d", reason, d.at)
}

func (d *Decoder) space() {
	for d.at < len(d.data) {
		switch d.data[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

func (d *Decoder) object(r *Record, depth int) error {
	if depth > maxJSONDepth {
		return d.fail("nested too deeply")
	}
	d.at++ // {
	d.space()
	if d.at < len(d.data) && d.data[d.at] == '}' {
		d.at++
		return nil
	}
	for {
		d.space()
		if d.at >= len(d.data) || d.data[d.at] != '"' {
			return d.fail("a name is wanted")
		}
		name, err := d.str()
		if err != nil {
			return err
		}
		d.space()
		if d.at >= len(d.data) || d.data[d.at] != ':' {
			return d.fail("a colon is wanted")
		}
		d.at++
		before := len(d.path)
		var key Key
		if depth == 0 {
			key = d.Names.Lookup(name)
		} else {
			d.path = append(d.path, '.')
			d.path = append(d.path, name...)
			key = d.Names.Lookup(unsafe.String(unsafe.SliceData(d.path), len(d.path)))
		}
		// The path is needed only when there is something below.
		d.space()
		if depth == 0 && d.at < len(d.data) && (d.data[d.at] == '{' || d.data[d.at] == '[') {
			d.path = append(d.path, name...)
		}
		if err := d.value(r, key, depth, depth > 0); err != nil {
			return err
		}
		d.path = d.path[:before]
		d.space()
		if d.at >= len(d.data) {
			return d.fail("the object is not closed")
		}
		switch d.data[d.at] {
		case ',':
			d.at++
		case '}':
			d.at++
			return nil
		default:
			return d.fail("a comma is wanted")
		}
	}
}

func (d *Decoder) value(r *Record, key Key, depth int, below bool) error {
	d.space()
	if d.at >= len(d.data) {
		return d.fail("a value is wanted")
	}
	var f field
	switch c := d.data[d.at]; c {
	case '"':
		s, err := d.str()
		if err != nil {
			return err
		}
		f.kind, f.text, f.hasText = fieldString, s, true
	case '{':
		return d.object(r, depth+1)
	case '[':
		if depth++; depth > maxJSONDepth {
			return d.fail("nested too deeply")
		}
		d.at++
		d.space()
		if d.at < len(d.data) && d.data[d.at] == ']' {
			d.at++
			return nil
		}
		for {
			if err := d.value(r, key, depth, below); err != nil {
				return err
			}
			d.space()
			if d.at >= len(d.data) {
				return d.fail("the list is not closed")
			}
			if d.data[d.at] == ']' {
				d.at++
				return nil
			}
			if d.data[d.at] != ',' {
				return d.fail("a comma is wanted")
			}
			d.at++
		}
	case 't':
		if !d.word("true") {
			return d.fail("unknown word")
		}
		f.kind, f.text, f.hasText = fieldBool, "true", true
	case 'f':
		if !d.word("false") {
			return d.fail("unknown word")
		}
		f.kind, f.text, f.hasText = fieldBool, "false", true
	case 'n':
		if !d.word("null") {
			return d.fail("unknown word")
		}
		f.kind, f.hasText = fieldNull, true
	default:
		s, err := d.number()
		if err != nil {
			return err
		}
		// A number stays as it was written: rules compare its text, and 64-bit integers keep every digit.
		f.kind, f.text, f.hasText = fieldString, s, true
	}
	if below {
		d.nests = append(d.nests, nested{key, f})
		return nil
	}
	g := r.add(key, f.kind)
	g.text, g.hasText = f.text, f.hasText
	return nil
}

func (d *Decoder) word(w string) bool {
	if strings.HasPrefix(d.data[d.at:], w) {
		d.at += len(w)
		return true
	}
	return false
}

func (d *Decoder) number() (string, error) {
	from := d.at
	digits := func() bool {
		n := d.at
		for d.at < len(d.data) && d.data[d.at] >= '0' && d.data[d.at] <= '9' {
			d.at++
		}
		return d.at > n
	}
	peek := func(set string) bool { return d.at < len(d.data) && strings.IndexByte(set, d.data[d.at]) >= 0 }
	if peek("-") {
		d.at++
	}
	zero := peek("0")
	start := d.at
	if !digits() || zero && d.at > start+1 {
		return "", d.fail("a value is wanted")
	}
	if peek(".") {
		d.at++
		if !digits() {
			return "", d.fail("a digit is wanted")
		}
	}
	if peek("eE") {
		d.at++
		if peek("+-") {
			d.at++
		}
		if !digits() {
			return "", d.fail("a digit is wanted")
		}
	}
	return d.data[from:d.at], nil
}

// str reads a string. Without escapes it points into the line.
func (d *Decoder) str() (string, error) {
	d.at++
	from := d.at
	for d.at < len(d.data) {
		switch c := d.data[d.at]; {
		case c == '"':
			s := d.data[from:d.at]
			d.at++
			return s, nil
		case c == '\\':
			return d.escaped(from)
		case c < 0x20:
			return "", d.fail("a control character in a string")
		}
		d.at++
	}
	return "", d.fail("a string is not closed")
}

func (d *Decoder) escaped(from int) (string, error) {
	start := len(d.buf)
	d.buf = append(d.buf, d.data[from:d.at]...)
	for d.at < len(d.data) {
		c := d.data[d.at]
		switch {
		case c == '"':
			d.at++
			b := d.buf[start:]
			return unsafe.String(unsafe.SliceData(b), len(b)), nil
		case c < 0x20:
			return "", d.fail("a control character in a string")
		case c != '\\':
			n := d.at + 1
			for n < len(d.data) && d.data[n] != '"' && d.data[n] != '\\' && d.data[n] >= 0x20 {
				n++
			}
			d.buf = append(d.buf, d.data[d.at:n]...)
			d.at = n
			continue
		}
		if d.at+1 >= len(d.data) {
			return "", d.fail("a string is not closed")
		}
		c = d.data[d.at+1]
		d.at += 2
		switch c {
		case '"', '\\', '/':
			d.buf = append(d.buf, c)
		case 'b':
			d.buf = append(d.buf, '\b')
		case 'f':
			d.buf = append(d.buf, '\f')
		case 'n':
			d.buf = append(d.buf, '\n')
		case 'r':
			d.buf = append(d.buf, '\r')
		case 't':
			d.buf = append(d.buf, '\t')
		case 'u':
			u, ok := d.hex4()
			if !ok {
				return "", d.fail("four hexadecimal digits are wanted")
			}
			if utf16.IsSurrogate(u) {
				lone := true
				if strings.HasPrefix(d.data[d.at:], `\u`) {
					d.at += 2
					v, ok := d.hex4()
					if !ok {
						return "", d.fail("four hexadecimal digits are wanted")
					}
					if c := utf16.DecodeRune(u, v); c != utf8.RuneError {
						u, lone = c, false
					} else {
						d.at -= 6 // the second escape stands for itself
					}
				}
				if lone {
					u = utf8.RuneError
				}
			}
			d.buf = utf8.AppendRune(d.buf, u)
		default:
			return "", d.fail("unknown escape")
		}
	}
	return "", d.fail("a string is not closed")
}

func (d *Decoder) hex4() (rune, bool) {
	if d.at+4 > len(d.data) {
		return 0, false
	}
	var u rune
	for i := range 4 {
		c := d.data[d.at+i]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		u = u<<4 | rune(c)
	}
	d.at += 4
	return u, true
}
