package evtx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// The binary XML of event files: tokens, names that stand once in a chunk, and templates whose gaps a record fills with typed values. The form is
// that of the libevtx project's description (Windows XML Event Log, sections 4 and 5). Nothing a file says is believed: every read is within the
// chunk, every length within its record, and a record and a chunk have budgets of tokens and of bytes, so that no file can make it large or slow.

const (
	chunkSize = 64 << 10
	maxNested = 24   // elements, templates and values within one another
	maxValues = 4096 // of one template instance
)

// budget is how much may be read: tokens, those of templates as often as they are used, and the bytes of names and values, those read and
// those written.
type budget struct{ tokens, bytes int }

// What a record and all records of a chunk have. Those of Windows need less than a tenth.
var (
	ofRecord = budget{1 << 15, 2 << 20}
	ofChunk  = budget{1 << 18, 8 << 20}
)

var errRecord = errors.New("this record is not whole")

// element is one XML element. Its text is what stands between its tags, with values in their gaps.
type element struct {
	name     string
	attrs    []attribute
	text     strings.Builder
	children []*element
}

type attribute struct{ name, value string }

// child is the first child of that name; nil when there is none.
func (e *element) child(name string) *element {
	if e != nil {
		for _, c := range e.children {
			if c.name == name {
				return c
			}
		}
	}
	return nil
}

// attr is the value of an attribute, "" without it.
func (e *element) attr(name string) string {
	if e != nil {
		for _, a := range e.attrs {
			if a.name == name {
				return a.value
			}
		}
	}
	return ""
}

// value is the text of the child of that name.
func (e *element) value(name string) string {
	if c := e.child(name); c != nil {
		return c.text.String()
	}
	return ""
}

// cursor reads bytes at..end of a chunk. A read beyond the end gives zero and sets bad.
type cursor struct {
	b       []byte
	at, end int
	bad     bool
}

func (c *cursor) bytes(n int) []byte {
	if n < 0 || n > c.end-c.at {
		c.bad = true
		return nil
	}
	c.at += n
	return c.b[c.at-n : c.at]
}

func (c *cursor) u8() byte {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() int {
	if b := c.bytes(2); b != nil {
		return int(binary.LittleEndian.Uint16(b))
	}
	return 0
}

func (c *cursor) u32() int {
	if b := c.bytes(4); b != nil {
		return int(binary.LittleEndian.Uint32(b))
	}
	return 0
}

// sub is a cursor over the next n bytes, which are passed.
func (c *cursor) sub(n int) cursor {
	from := c.at
	if c.bytes(n); c.bad {
		return cursor{bad: true}
	}
	return cursor{b: c.b, at: from, end: from + n}
}

// over is a cursor from one place of the chunk to the chunk's end.
func (c *cursor) over(at int) cursor {
	if at < 0 || at > len(c.b) {
		return cursor{bad: true}
	}
	return cursor{b: c.b, at: at, end: len(c.b)}
}

// value is one of a template instance's: its bytes and their type.
type value struct {
	kind byte
	at   cursor
}

// scope is what tokens are read in: the values of the template they belong to, and whether its elements carry a dependency number.
type scope struct {
	values   []value
	template bool
}

// decoder reads the records of one chunk.
type decoder struct{ chunk, record budget }

// read gives a record's root element, which holds the event as its child.
func (d *decoder) read(c cursor) (*element, error) {
	d.record = ofRecord
	root := &element{}
	if !d.content(&c, root, scope{}, 0) {
		return nil, errRecord
	}
	return root, nil
}

func (d *decoder) token() bool {
	d.record.tokens--
	d.chunk.tokens--
	return d.record.tokens >= 0 && d.chunk.tokens >= 0
}

// spend takes bytes from the budgets.
func (d *decoder) spend(n int) bool {
	d.record.bytes -= n
	d.chunk.bytes -= n
	return d.record.bytes >= 0 && d.chunk.bytes >= 0
}

func (d *decoder) say(to *strings.Builder, s string) bool {
	to.WriteString(s)
	return d.spend(len(s))
}

// content reads what stands in an element, to its end tag or the end of the fragment.
func (d *decoder) content(c *cursor, in *element, s scope, depth int) bool {
	if depth > maxNested {
		return false
	}
	for c.at < c.end {
		if !d.token() {
			return false
		}
		ok := true
		switch token := c.u8(); token {
		case 0x00, 0x04: // end of the fragment; end tag
			return true
		case 0x0f: // fragment header: version and flags
			c.bytes(3)
		case 0x01, 0x41:
			ok = d.element(c, in, token == 0x41, s, depth)
		case 0x0c:
			ok = d.instance(c, in, depth)
		case 0x0a: // target of a processing instruction
			d.name(c)
		case 0x0b:
			c.bytes(2 * c.u16())
		default:
			ok = d.piece(c, token, &in.text, in, s, depth)
		}
		if !ok || c.bad {
			return false
		}
	}
	return true
}

// isPiece says whether a token is a piece of text.
func isPiece(token byte) bool {
	switch token {
	case 0x05, 0x45, 0x07, 0x47, 0x08, 0x48, 0x09, 0x49, 0x0d, 0x0e:
		return true
	}
	return false
}

// piece adds one piece of text. A value that is itself XML becomes children of in, where there is an in.
func (d *decoder) piece(c *cursor, token byte, to *strings.Builder, in *element, s scope, depth int) bool {
	switch token {
	case 0x05, 0x45: // text, with its type, which is always a string's
		c.u8()
		return d.say(to, wide(d.bytes(c, 2*c.u16())))
	case 0x07, 0x47: // CDATA
		return d.say(to, wide(d.bytes(c, 2*c.u16())))
	case 0x08, 0x48:
		return d.say(to, string(rune(c.u16())))
	case 0x09, 0x49:
		name := d.name(c)
		if r, ok := map[string]string{"amp": "&", "lt": "<", "gt": ">", "quot": `"`, "apos": "'"}[name]; ok {
			name = r
		}
		return d.say(to, name)
	case 0x0d, 0x0e: // the gap's number and the type it expects; what stands in the record counts
		n := c.u16()
		c.u8()
		if c.bad || n >= len(s.values) {
			return !c.bad // a gap that the record does not fill
		}
		v := s.values[n]
		if v.kind == 0x21 {
			if in == nil {
				return true
			}
			return d.content(&v.at, in, scope{}, depth+1)
		}
		return d.spend(v.at.end-v.at.at) && d.say(to, v.String())
	}
	return false
}

// bytes are the next n that become text; none when that is too much.
func (d *decoder) bytes(c *cursor, n int) []byte {
	if !d.spend(n) {
		c.bad = true
		return nil
	}
	return c.bytes(n)
}

func (d *decoder) element(c *cursor, in *element, hasAttrs bool, s scope, depth int) bool {
	if s.template {
		c.u16() // dependency number
	}
	c.u32() // length
	e := &element{name: d.name(c)}
	in.children = append(in.children, e)
	if hasAttrs {
		c.u32() // length of the list
		for c.at < c.end && (c.b[c.at] == 0x06 || c.b[c.at] == 0x46) {
			c.u8()
			name := d.name(c)
			if !d.token() || c.bad {
				return false
			}
			var text strings.Builder
			for c.at < c.end && isPiece(c.b[c.at]) {
				if !d.token() || !d.piece(c, c.u8(), &text, nil, s, depth) {
					return false
				}
			}
			e.attrs = append(e.attrs, attribute{name, text.String()})
		}
	}
	switch c.u8() {
	case 0x02:
		return !c.bad && d.content(c, e, s, depth+1)
	case 0x03: // an empty element
		return !c.bad
	}
	return false
}

// name reads the name that stands here or elsewhere in the chunk.
func (d *decoder) name(c *cursor) string {
	at := c.u32()
	if c.bad {
		return ""
	}
	from := c
	if at != c.at {
		o := c.over(at)
		from = &o
	}
	from.bytes(4 + 2) // the next name of its bucket; its hash
	s := wide(d.bytes(from, 2*from.u16()))
	from.u16() // a zero
	if !d.spend(len(s)) || from.bad {
		c.bad = true
		return ""
	}
	return s
}

// instance reads a template with the values of this record.
func (d *decoder) instance(c *cursor, in *element, depth int) bool {
	c.u8()
	c.u32() // the template's number
	at := c.u32()
	if c.bad {
		return false
	}
	def := c
	if at != c.at {
		o := c.over(at)
		def = &o
	}
	def.bytes(4 + 16) // the next template of its bucket; its GUID
	body := def.sub(def.u32())
	n := c.u32()
	if c.bad || def.bad || body.bad || n > maxValues || n > (c.end-c.at)/4 || !d.spend(64*n) { // as much as they take in memory
		return false
	}
	kinds := c.sub(4 * n)
	s := scope{template: true, values: make([]value, n)}
	for i := range s.values {
		size := kinds.u16()
		s.values[i].kind = kinds.u8()
		kinds.u8()
		s.values[i].at = c.sub(size)
	}
	return !c.bad && !kinds.bad && d.content(&body, in, s, depth+1)
}

// wide is UTF-16 text without the zeros at its end.
func wide(b []byte) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	for len(u) > 0 && u[len(u)-1] == 0 {
		u = u[:len(u)-1]
	}
	return string(utf16.Decode(u))
}

// size of values of a fixed size, by type.
var size = [...]int{0x03: 1, 0x04: 1, 0x05: 2, 0x06: 2, 0x07: 4, 0x08: 4, 0x09: 8, 0x0a: 8, 0x0b: 4, 0x0c: 8, 0x0d: 4, 0x0f: 16, 0x11: 8, 0x12: 16, 0x14: 4, 0x15: 8}

// String is the value as Windows writes it.
func (v *value) String() string {
	b := v.at.b[v.at.at:v.at.end]
	if v.kind&0x80 == 0 {
		return scalar(v.kind, b)
	}
	kind := v.kind &^ 0x80
	switch {
	case kind == 0x01:
		return strings.ReplaceAll(wide(b), "\x00", ", ")
	case kind == 0x02:
		return strings.ReplaceAll(narrow(b), "\x00", ", ")
	case int(kind) >= len(size) || size[kind] == 0:
		return fmt.Sprintf("%X", b)
	}
	var out []string
	for n := size[kind]; len(b) >= n; b = b[n:] {
		out = append(out, scalar(kind, b[:n]))
	}
	return strings.Join(out, ", ")
}

// narrow is text of one byte a letter: ASCII in practice; other letters are taken as Latin-1.
func narrow(b []byte) string {
	r := make([]rune, 0, len(b))
	for _, c := range b {
		r = append(r, rune(c))
	}
	return strings.TrimRight(string(r), "\x00")
}

func scalar(kind byte, b []byte) string {
	if int(kind) < len(size) && len(b) < size[kind] && kind != 0x0d {
		return ""
	}
	var n uint64
	for i := min(len(b), 8) - 1; i >= 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	switch kind {
	case 0x00:
		return ""
	case 0x01:
		return wide(b)
	case 0x02:
		return narrow(b)
	case 0x03:
		return strconv.Itoa(int(int8(n)))
	case 0x05:
		return strconv.Itoa(int(int16(n)))
	case 0x07:
		return strconv.Itoa(int(int32(n)))
	case 0x09:
		return strconv.FormatInt(int64(n), 10)
	case 0x04, 0x06, 0x08, 0x0a:
		return strconv.FormatUint(n&(1<<(8*size[kind])-1), 10)
	case 0x0b:
		return strconv.FormatFloat(float64(math.Float32frombits(uint32(n))), 'g', -1, 32)
	case 0x0c:
		return strconv.FormatFloat(math.Float64frombits(n), 'g', -1, 64)
	case 0x0d:
		return strconv.FormatBool(n != 0)
	case 0x0f:
		return fmt.Sprintf("{%08x-%04x-%04x-%x-%x}", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:16])
	case 0x10, 0x15:
		return "0x" + strconv.FormatUint(n, 16)
	case 0x14:
		return "0x" + strconv.FormatUint(n&math.MaxUint32, 16)
	case 0x11:
		return stamp(n)
	case 0x12:
		u := func(i int) int { return int(binary.LittleEndian.Uint16(b[2*i:])) }
		return time.Date(u(0), time.Month(u(1)), u(3), u(4), u(5), u(6), u(7)*1e6, time.UTC).Format("2006-01-02T15:04:05.000Z")
	case 0x13:
		return sid(b)
	}
	return fmt.Sprintf("%X", b)
}

// stamp is a FILETIME (tenths of microseconds since 1601) as Windows writes it.
func stamp(n uint64) string {
	const unix = 116_444_736_000_000_000
	if n > math.MaxInt64 {
		return ""
	}
	t := int64(n) - unix
	sec, rest := t/1e7, t%1e7
	return time.Unix(sec, rest*100).UTC().Format("2006-01-02T15:04:05.0000000Z")
}

// sid is a security identifier, such as S-1-5-18.
func sid(b []byte) string {
	if len(b) < 8 || len(b) < 8+4*int(b[1]) {
		return ""
	}
	var authority uint64
	for _, c := range b[2:8] {
		authority = authority<<8 | uint64(c)
	}
	s := fmt.Sprintf("S-%d-%d", b[0], authority)
	for i := range int(b[1]) {
		s += "-" + strconv.FormatUint(uint64(binary.LittleEndian.Uint32(b[8+4*i:])), 10)
	}
	return s
}
