package event

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

// MaxLine is the longest JSON form of one event that DecodeJSON takes, in bytes.
const MaxLine = 1 << 20

// maxExactInt is the largest integer that every JSON reader keeps exactly (RFC 7493, I-JSON); larger ones travel as strings.
const maxExactInt = 1<<53 - 1

// What DecodeJSON refuses, besides malformed text.
var (
	ErrDuplicate = errors.New("the same field twice")
	ErrNested    = errors.New("nested object: fields must be flat, with dotted names")
	ErrTooMany   = errors.New("too many fields or values")
	ErrTooLong   = errors.New("event longer than 1 MiB")
)

// AppendJSON appends the event as one flat JSON object with dotted names and no line end. Times are RFC 3339 strings in UTC, a list is an
// array, integers beyond 2^53 are strings. Bytes that are not UTF-8 become U+FFFD. The raw line is written only after IncludeRaw(true).
// Where the event stands (ID, Tenant) is not written: the stream says it.
func (e *Event) AppendJSON(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, '{')
	if e.Time != 0 {
		dst = append(dst, `,"@timestamp":"`...)
		dst = append(appendTime(dst, e.Time), '"')
	}
	if e.Created != 0 {
		dst = append(dst, `,"event.created":"`...)
		dst = append(appendTime(dst, e.Created), '"')
	}
	if e.Ingested != 0 {
		dst = append(dst, `,"event.ingested":"`...)
		dst = append(appendTime(dst, e.Ingested), '"')
	}
	quoted := registry.Load().quoted
	for i := 0; i < len(e.keys); {
		dst = append(dst, quoted[e.keys[i]]...)
		j := e.after(i)
		if j == i+1 {
			dst = appendValue(dst, e.vals[i])
			i = j
			continue
		}
		dst = append(dst, '[')
		for ; i < j; i++ {
			dst = append(appendValue(dst, e.vals[i]), ',')
		}
		dst[len(dst)-1] = ']'
	}
	for i := range e.extras {
		dst = append(dst, ',')
		dst = append(appendString(dst, e.extras[i].Name), ':')
		dst = appendString(dst, e.extras[i].Value)
	}
	if e.HasRawDigest {
		dst = append(dst, `,"event.hash":"`...)
		dst = append(hex.AppendEncode(dst, e.RawDigest[:]), '"')
	}
	if e.sendRaw {
		dst = append(dst, `,"event.original":`...)
		dst = appendString(dst, e.raw)
	}
	if len(dst) > start+1 { // every member was written with a comma before it
		copy(dst[start+1:], dst[start+2:])
		dst = dst[:len(dst)-1]
	}
	return append(dst, '}')
}

func appendValue(dst []byte, v Value) []byte {
	switch v.kind() {
	case String:
		return appendString(dst, v.str())
	case Int:
		if n := int64(v.n); n > maxExactInt || n < -maxExactInt {
			dst = append(dst, '"')
			return append(v.AppendText(dst), '"')
		}
		return v.AppendText(dst)
	case Float:
		if f := v.Float(); math.IsInf(f, 0) || math.IsNaN(f) {
			return append(dst, "null"...)
		}
		return v.AppendText(dst)
	case Bool:
		return v.AppendText(dst)
	case IP, Time:
		dst = append(dst, '"')
		return append(v.AppendText(dst), '"')
	}
	return append(dst, "null"...)
}

// plain marks the bytes that stand for themselves in a JSON string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x80; c++ {
		t[c] = c != '"' && c != '\\' && c != 0x7f
	}
	return t
}()

const hexDigits = "0123456789abcdef"

func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			dst = append(dst, s[from:i]...)
			dst = append(dst, `�`...)
		} else {
			dst = append(dst, s[from:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
		}
		i++
		from = i
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

// DecodeJSON reads one flat JSON object, as AppendJSON writes it, into e, which it resets first. It is strict (I-JSON, RFC 7493): duplicate
// names, nested objects, invalid UTF-8, lone surrogates, trailing text and more than MaxExtras unknown fields or MaxValues values are
// errors. A string under a typed field is converted; one that does not fit is kept as a string. null is an absent field. On an error the
// event's content is undefined.
func DecodeJSON(e *Event, line []byte) error {
	e.Reset()
	if len(line) > MaxLine {
		return ErrTooLong
	}
	d := decoder{e: e, s: e.Copy(line)}
	if err := d.object(); err != nil {
		return fmt.Errorf("event at byte %d: %w", d.i, err)
	}
	return nil
}

type decoder struct {
	e       *Event
	s       string // the line, in the event's own memory: values are cut from it
	i       int
	headers uint8 // header fields seen
	values  int
	nulls   []Key // known fields given as null: absent, but named once all the same
}

var (
	errEnd    = errors.New("unexpected end")
	errSyntax = errors.New("not JSON")
	errString = errors.New("malformed string")
	errNumber = errors.New("malformed number")
	errKind   = errors.New("wrong type of value")
)

func (d *decoder) space() {
	for d.i < len(d.s) {
		switch d.s[d.i] {
		case ' ', '\t', '\r', '\n':
			d.i++
		default:
			return
		}
	}
}

func (d *decoder) take(c byte) error {
	d.space()
	if d.i >= len(d.s) {
		return errEnd
	}
	if d.s[d.i] != c {
		return errSyntax
	}
	d.i++
	return nil
}

func (d *decoder) object() error {
	if err := d.take('{'); err != nil {
		return err
	}
	d.space()
	if d.i < len(d.s) && d.s[d.i] == '}' {
		d.i++
	} else {
		for {
			if err := d.member(); err != nil {
				return err
			}
			d.space()
			if d.i >= len(d.s) {
				return errEnd
			}
			c := d.s[d.i]
			d.i++
			if c == '}' {
				break
			}
			if c != ',' {
				return errSyntax
			}
		}
	}
	d.space()
	if d.i != len(d.s) {
		return errSyntax
	}
	return nil
}

func (d *decoder) member() error {
	d.space()
	name, err := d.str()
	if err != nil {
		return err
	}
	if err := d.take(':'); err != nil {
		return err
	}
	d.space()
	if k, ok := Lookup(name); ok {
		if d.e.Has(k) || slices.Contains(d.nulls, k) {
			return ErrDuplicate
		}
		if err := d.known(k); err != nil {
			return err
		}
		if !d.e.Has(k) {
			d.nulls = append(d.nulls, k)
		}
		return nil
	}
	if isHeader(name) {
		return d.header(name)
	}
	return d.extra(name)
}

func (d *decoder) header(name string) error {
	bit := uint8(1)
	for _, n := range [...]string{nameTime, nameCreated, nameIngested, nameHash} {
		if n == name {
			break
		}
		bit <<= 1
	}
	if d.headers&bit != 0 {
		return ErrDuplicate
	}
	d.headers |= bit
	s, err := d.str()
	if err != nil {
		return err
	}
	if name == nameOriginal {
		d.e.raw = s
		d.e.sendRaw = true
		return nil
	}
	if name == nameHash {
		if len(s) != 64 {
			return errKind
		}
		if _, err := hex.Decode(d.e.RawDigest[:], unsafe.Slice(unsafe.StringData(s), len(s))); err != nil {
			return errKind
		}
		d.e.HasRawDigest = true
		return nil
	}
	ns, ok := parseTime(s)
	if !ok {
		return errKind
	}
	switch name {
	case nameTime:
		d.e.Time = ns
	case nameCreated:
		d.e.Created = ns
	default:
		d.e.Ingested = ns
	}
	return nil
}

func (d *decoder) known(k Key) error {
	if d.i >= len(d.s) {
		return errEnd
	}
	if d.s[d.i] != '[' {
		v, err := d.value(k.Kind())
		if err != nil {
			return err
		}
		if v.kind() != None {
			if d.values++; d.values > MaxValues {
				return ErrTooMany
			}
			d.e.append(k, v)
		}
		return nil
	}
	d.i++
	d.space()
	if d.i < len(d.s) && d.s[d.i] == ']' {
		d.i++
		return nil
	}
	for {
		d.space()
		v, err := d.value(k.Kind())
		if err != nil {
			return err
		}
		if v.kind() != None {
			if d.values++; d.values > MaxValues {
				return ErrTooMany
			}
			d.e.append(k, v)
		}
		d.space()
		if d.i >= len(d.s) {
			return errEnd
		}
		c := d.s[d.i]
		d.i++
		if c == ']' {
			return nil
		}
		if c != ',' {
			return errSyntax
		}
	}
}

// extra takes an unknown field: a scalar as text, a list of scalars as its JSON text.
func (d *decoder) extra(name string) error {
	if d.i >= len(d.s) {
		return errEnd
	}
	for i := range d.e.extras {
		if d.e.extras[i].Name == name {
			return ErrDuplicate
		}
	}
	if len(d.e.extras) >= MaxExtras || name == "" || len(name) > maxName {
		return ErrTooMany
	}
	from := d.i
	if d.s[d.i] == '[' {
		d.i++
		for n := 0; ; n++ {
			d.space()
			if n == 0 && d.i < len(d.s) && d.s[d.i] == ']' {
				d.i++
				break
			}
			var err error
			if d.i < len(d.s) && d.s[d.i] == '"' {
				err = d.skip() // the list stays as it is written
			} else {
				_, err = d.value(String)
			}
			if err != nil {
				return err
			}
			if d.values++; d.values > MaxValues {
				return ErrTooMany
			}
			d.space()
			if d.i >= len(d.s) {
				return errEnd
			}
			c := d.s[d.i]
			d.i++
			if c == ']' {
				break
			}
			if c != ',' {
				return errSyntax
			}
		}
		d.e.extras = append(d.e.extras, Extra{name, d.s[from:d.i]})
		return nil
	}
	isString := d.s[d.i] == '"'
	v, err := d.value(String)
	if err != nil || v.kind() == None {
		return err
	}
	text := d.s[from:d.i]
	if isString {
		text = v.str()
	}
	d.e.extras = append(d.e.extras, Extra{name, text})
	return nil
}

func (d *decoder) value(want Kind) (Value, error) {
	if d.i >= len(d.s) {
		return Value{}, errEnd
	}
	switch c := d.s[d.i]; {
	case c == '"':
		s, err := d.str()
		if err != nil {
			return Value{}, err
		}
		if want != String {
			if v, ok := d.e.parse(want, s); ok {
				return v, nil
			}
		}
		return StringValue(s), nil
	case c == '-' || c >= '0' && c <= '9':
		return d.number(want)
	case c == 't':
		return BoolValue(true), d.word("true")
	case c == 'f':
		return BoolValue(false), d.word("false")
	case c == 'n':
		return Value{}, d.word("null")
	case c == '{' || c == '[':
		return Value{}, ErrNested
	}
	return Value{}, errSyntax
}

func (d *decoder) word(w string) error {
	if len(d.s)-d.i < len(w) || d.s[d.i:d.i+len(w)] != w {
		return errSyntax
	}
	d.i += len(w)
	return nil
}

// number reads a JSON number: an integer that fits as Int, any other as Float.
func (d *decoder) number(want Kind) (Value, error) {
	from := d.i
	if d.s[d.i] == '-' {
		d.i++
	}
	intFrom := d.i
	for d.i < len(d.s) && d.s[d.i] >= '0' && d.s[d.i] <= '9' {
		d.i++
	}
	if d.i == intFrom || d.s[intFrom] == '0' && d.i > intFrom+1 {
		return Value{}, errNumber
	}
	isInt := true
	if d.i < len(d.s) && d.s[d.i] == '.' {
		isInt = false
		d.i++
		at := d.i
		for d.i < len(d.s) && d.s[d.i] >= '0' && d.s[d.i] <= '9' {
			d.i++
		}
		if d.i == at {
			return Value{}, errNumber
		}
	}
	if d.i < len(d.s) && (d.s[d.i] == 'e' || d.s[d.i] == 'E') {
		isInt = false
		d.i++
		if d.i < len(d.s) && (d.s[d.i] == '+' || d.s[d.i] == '-') {
			d.i++
		}
		at := d.i
		for d.i < len(d.s) && d.s[d.i] >= '0' && d.s[d.i] <= '9' {
			d.i++
		}
		if d.i == at {
			return Value{}, errNumber
		}
	}
	text := d.s[from:d.i]
	if isInt && want != Float {
		if len(text) <= 18 {
			var n int64
			for i := intFrom; i < d.i; i++ {
				n = n*10 + int64(d.s[i]-'0')
			}
			if from != intFrom {
				n = -n
			}
			return IntValue(n), nil
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return IntValue(n), nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return Value{}, errNumber // out of range
	}
	return FloatValue(f), nil
}

// str reads a JSON string. Without escapes it is cut from the line; with escapes it is put together there.
func (d *decoder) str() (string, error) {
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
	for ; i+8 <= len(s); i += 8 {
		if found := special(binary.LittleEndian.Uint64(unsafe.Slice(unsafe.StringData(s[i:]), 8))); found != 0 {
			return i + bits.TrailingZeros64(found)>>3
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
