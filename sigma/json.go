package sigma

import (
	"errors"
	"fmt"
	"math/bits"
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
// A line is read in two steps: first the places of all quotes are found, 64 bytes at a time, and escapes are checked; then the object is
// walked from quote to quote. Texts are left as they stand in the line, escapes and all, until somebody asks for them.
type Decoder struct {
	Names *Names

	data   string
	at     int
	q      int      // how many of quotes are behind at
	quotes []uint32 // places of the quotes around strings
	plain  bool     // no \u, and nothing that folds to ASCII
	masks  []blockMasks
	table  nameTable
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
	}
	r.lend(d.data, d.table.n)
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

// top reads the object of the whole line. Nearly all names there are known, and follow each other as they did in an event of the kind
// before: those are compared with the bytes that are expected, name, colon and all, and their values, if they are texts or numbers, are
// read in one go here; all else by the parts that this shares with inner objects.
func (d *Decoder) top(r *Record) error {
	d.at++ // {
	d.space()
	if d.at < len(d.data) && d.data[d.at] == '}' {
		d.at++
		return nil
	}
	data, quotes, t := d.data, d.quotes, &d.table
	at, q := d.at, 0
	path := uint16(pathRoot)
	for {
		if at < len(data) && data[at] == ' ' {
			at++
		}
		next := t.paths[path].child
		s := &t.slots[t.paths[next].slot]
		if !s.at(data, at) {
			if next = t.other(path, next, data, at); next == 0 {
				d.at, d.q = at, q
				var err error
				if path, err = d.unknown(r, path); err != nil {
					return err
				}
				at, q = d.at, d.q
				goto behind
			}
			s = &t.slots[t.paths[next].slot]
		}
		path = next
		at += int(s.n)
		if c := data[at]; c == '"' {
			from, end := uint32(at+1), quotes[q+3]
			q += 4
			at = int(end) + 1
			if s.key == NoKey {
				r.rest = append(r.rest, span{from, end})
			} else {
				r.put(s.key, data[from:end], true)
			}
		} else if end := wholeNumber(data, at); end > at {
			q += 2
			if s.key == NoKey {
				r.rest = append(r.rest, span{uint32(at), uint32(end)})
			} else {
				r.put(s.key, data[at:end], false)
			}
			at = end
		} else {
			d.at, d.q = at, q+2
			if err := d.topValue(r, s.key, s.name); err != nil {
				return err
			}
			at, q = d.at, d.q
		}
	behind:
		if at < len(data) && data[at] == ',' {
			at++
			continue
		}
		d.at, d.q = at, q
		if more, err := d.next(); err != nil || !more {
			return err
		}
		at = d.at
	}
}

// unknown reads a name that was not expected, and its value, and expects it behind path from now on. It gives the path with it.
func (d *Decoder) unknown(r *Record, path uint16) (uint16, error) {
	d.space()
	if d.at >= len(d.data) || d.data[d.at] != '"' {
		return 0, d.fail("a name is wanted")
	}
	from := d.at
	name := d.name()
	if err := d.colon(); err != nil {
		return 0, err
	}
	key, slot := d.table.find(name)
	path = d.table.follow(path, slot, d.data[from:d.at])
	return path, d.topValue(r, key, name)
}

// topValue reads the value of a name of the top level.
func (d *Decoder) topValue(r *Record, key Key, name string) error {
	d.space()
	if d.at >= len(d.data) {
		return d.fail("a value is wanted")
	}
	if c := d.data[d.at]; c == '{' || c == '[' { // the path is needed only when there is something below
		d.path = append(d.path[:0], name...)
	}
	return d.value(r, key, 0, false)
}

// wholeNumber gives the end of a whole number at a place of s, if it is one that a comma or brace follows at once; nearly all are. It gives
// 0 when that cannot be said.
func wholeNumber(s string, at int) int {
	i := at
	if s[i] == '-' {
		i++
	}
	for first := i; i+8 <= len(s); i += 8 {
		x := load64(s, i) ^ 0x30*swarOnes // digits are 0 to 9
		m := (x + 0x76*swarOnes | x) & swarHighs
		if m == 0 {
			continue
		}
		i += bits.TrailingZeros64(m) >> 3
		if c := s[i]; i > first && (c == ',' || c == '}') && (s[first] != '0' || i == first+1) {
			return i
		}
		return 0
	}
	return 0
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
	name := d.str()
	if strings.IndexByte(name, '\\') >= 0 {
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

// str takes the string that begins at d.at: what is between its quotes. There may be escapes in it.
func (d *Decoder) str() string {
	from, end := d.at+1, d.quotes[d.q+1]
	d.q += 2
	d.at = int(end) + 1
	return d.data[from:end]
}

func (d *Decoder) value(r *Record, key Key, depth int, below bool) error {
	d.space()
	if d.at >= len(d.data) {
		return d.fail("a value is wanted")
	}
	var f field
	switch c := d.data[d.at]; c {
	case '"':
		f.kind, f.escaped = fieldString, true
		f.text = d.str()
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
