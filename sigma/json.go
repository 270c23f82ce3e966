package sigma

import (
	"errors"
	"fmt"
	"strings"
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
//
// A line is read in two steps: first the places of all quotes and escapes are found, 64 bytes at a time, then the object is walked
// from quote to quote. Escaped texts are checked, and left as they are until somebody asks for them.
type Decoder struct {
	Names *Names

	data   string
	at     int
	q      int      // how many of quotes are behind at
	quotes []uint32 // places of the quotes around strings
	plain  bool     // no \u, and nothing that folds to ASCII
	masks  []blockMasks
	table  nameTable
	last   uint16 // slot of the last name of the top level
	path   []byte
	buf    []byte // unescaped names
	nests  []nested
}

// nested is a value found below the top level; it counts only if no literal name is the same.
type nested struct {
	key Key
	f   field
}

const maxJSONDepth = 64

// Decode reads one JSON object into r, after resetting it. The strings of r point into line, which must stay as it is while r is used.
func (d *Decoder) Decode(r *Record, line []byte) error {
	r.Reset()
	d.data = unsafe.String(unsafe.SliceData(line), len(line))
	d.at, d.q, d.path, d.buf, d.nests = 0, 0, d.path[:0], d.buf[:0], d.nests[:0]
	if reason := d.index(); reason != "" {
		return d.fail(reason)
	}
	if d.table.stale(d.Names) {
		d.table.build(d.Names)
		d.last = 0
	}
	d.space()
	if d.at >= len(d.data) || d.data[d.at] != '{' {
		return d.fail("a JSON object is wanted")
	}
	if err := d.top(r); err != nil {
		return err
	}
	d.space()
	if d.at != len(d.data) {
		return d.fail("something follows the object")
	}
	if len(d.nests) > 0 {
		d.flatten(r)
	}
	if d.plain {
		r.hay, r.plain = d.data, true
	}
	return nil
}

// flatten adds the nested values. Which keys are literal is known only now; nested values must not hide each other.
func (d *Decoder) flatten(r *Record) {
	upto := len(r.fields)
	for i := range d.nests {
		n := &d.nests[i]
		k := n.key
		if k != NoKey {
			for j := r.first(k); j >= 0; j = r.fields[j].next {
				if int(j) < upto {
					k = NoKey // still seen by keywords
					break
				}
			}
		}
		f := r.add(k, n.f.kind)
		f.text, f.hasText, f.escaped = n.f.text, n.f.hasText, n.f.escaped
	}
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

// top reads the object of the whole line. Nearly all names there are known, and follow each other as they did in the last event of the
// kind, and nearly all values are texts: those are read in one go here, all else by the parts that they share with inner objects.
func (d *Decoder) top(r *Record) error {
	d.at++ // {
	d.space()
	if d.at < len(d.data) && d.data[d.at] == '}' {
		d.at++
		return nil
	}
	data := d.data
	for {
		if d.at >= len(data) || data[d.at] != '"' {
			return d.fail("a name is wanted")
		}
		end := int(d.quotes[d.q+1])
		name := data[d.at+1 : end]
		a, b := nameEnds(name)
		guess := d.table.slots[d.last].next
		var key Key
		if s := &d.table.slots[guess]; s.is(len(name), a, b, name) && !s.quoted {
			key, d.last = s.key, guess
			d.q += 2
			d.at = end + 1
		} else {
			name = d.name()
			key, d.last = d.table.after(d.last, name)
		}
		at := d.at
		if at+2 < len(data) && data[at] == ':' {
			if at++; data[at] == ' ' {
				at++
			}
			if data[at] == '"' {
				from, end := uint32(at+1), d.quotes[d.q+1]
				d.q += 2
				f := r.add(key, fieldString)
				f.text = data[from:end]
				w := from >> 6
				m := d.masks[w].backslashes >> (from & 63)
				if end>>6 == w {
					f.escaped = m&(1<<(end-from)-1) != 0
				} else {
					f.escaped = m != 0 || d.backslash(w+1, end)
				}
				f.hasText = !f.escaped
				if at = int(end) + 1; at+2 < len(data) && data[at] == ',' {
					if at++; data[at] == ' ' {
						at++
					}
					if data[at] == '"' {
						d.at = at
						continue
					}
					at = int(end) + 1
				}
				d.at = at
				if more, err := d.next(); err != nil || !more {
					return err
				}
				continue
			}
		}
		if err := d.colon(); err != nil {
			return err
		}
		if c := data[d.at]; c == '{' || c == '[' { // the path is needed only when there is something below
			d.path = append(d.path[:0], name...)
		}
		if err := d.value(r, key, 0, false); err != nil {
			return err
		}
		if more, err := d.next(); err != nil || !more {
			return err
		}
	}
}

// object reads an object below the top level; d.path is where it stands.
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
		if d.at >= len(d.data) || d.data[d.at] != '"' {
			return d.fail("a name is wanted")
		}
		name := d.name()
		if err := d.colon(); err != nil {
			return err
		}
		before := len(d.path)
		d.path = append(d.path, '.')
		d.path = append(d.path, name...)
		key, _ := d.table.find(unsafe.String(unsafe.SliceData(d.path), len(d.path)))
		if err := d.value(r, key, depth, true); err != nil {
			return err
		}
		d.path = d.path[:before]
		if more, err := d.next(); err != nil || !more {
			return err
		}
	}
}

// name takes the name that begins at d.at.
func (d *Decoder) name() string {
	name, escaped := d.str()
	if escaped {
		from := len(d.buf)
		d.buf = appendUnescaped(d.buf, name)
		b := d.buf[from:]
		name = unsafe.String(unsafe.SliceData(b), len(b))
	}
	return name
}

// colon goes over the colon behind a name to the value.
func (d *Decoder) colon() error {
	d.space()
	if d.at >= len(d.data) || d.data[d.at] != ':' {
		return d.fail("a colon is wanted")
	}
	d.at++
	d.space()
	if d.at >= len(d.data) {
		return d.fail("a value is wanted")
	}
	return nil
}

// next goes over the comma behind a value to the next name, or over the brace that ends the object.
func (d *Decoder) next() (more bool, err error) {
	d.space()
	if d.at >= len(d.data) {
		return false, d.fail("the object is not closed")
	}
	switch d.data[d.at] {
	case ',':
		d.at++
		d.space()
		return true, nil
	case '}':
		d.at++
		return false, nil
	}
	return false, d.fail("a comma is wanted")
}

// str takes the string that begins at d.at: what is between its quotes, and whether there are escapes in it.
func (d *Decoder) str() (s string, escaped bool) {
	from, end := d.at+1, d.quotes[d.q+1]
	s = d.data[from:end]
	d.q += 2
	d.at = int(end) + 1
	w := uint32(from) >> 6
	m := d.masks[w].backslashes >> (from & 63)
	if end>>6 == w {
		return s, m&(1<<(end-uint32(from))-1) != 0
	}
	return s, m != 0 || d.backslash(w+1, end)
}

// backslash says whether there is one from block w on and before end.
func (d *Decoder) backslash(w, end uint32) bool {
	last := end >> 6
	for ; w < last; w++ {
		if d.masks[w].backslashes != 0 {
			return true
		}
	}
	return d.masks[last].backslashes&(1<<(end&63)-1) != 0
}

func (d *Decoder) value(r *Record, key Key, depth int, below bool) error {
	d.space()
	if d.at >= len(d.data) {
		return d.fail("a value is wanted")
	}
	var f field
	switch c := d.data[d.at]; c {
	case '"':
		f.kind = fieldString
		f.text, f.escaped = d.str()
		f.hasText = !f.escaped
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
	g.text, g.hasText, g.escaped = f.text, f.hasText, f.escaped
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
	// Nearly all are whole and end at a comma or brace.
	i := from
	for i < len(d.data) && d.data[i]-'0' <= 9 {
		i++
	}
	if i > from && i < len(d.data) && (d.data[i] == ',' || d.data[i] == '}') && (d.data[from] != '0' || i == from+1) {
		d.at = i
		return d.data[from:i], nil
	}
	digits := func() bool {
		n := d.at
		for d.at < len(d.data) && d.data[d.at] >= '0' && d.data[d.at] <= '9' {
			d.at++
		}
		return d.at > n
	}
	peek := func(a, b byte) bool { return d.at < len(d.data) && (d.data[d.at] == a || d.data[d.at] == b) }
	if peek('-', '-') {
		d.at++
	}
	zero := peek('0', '0')
	start := d.at
	if !digits() || zero && d.at > start+1 {
		return "", d.fail("a value is wanted")
	}
	if peek('.', '.') {
		d.at++
		if !digits() {
			return "", d.fail("a digit is wanted")
		}
	}
	if peek('e', 'E') {
		d.at++
		if peek('+', '-') {
			d.at++
		}
		if !digits() {
			return "", d.fail("a digit is wanted")
		}
	}
	return d.data[from:d.at], nil
}
