package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"unsafe"
)

// MaxLine is the longest JSON form of one event that DecodeJSON takes, in bytes.
const MaxLine = 1 << 20

// What DecodeJSON refuses, besides malformed text.
var (
	ErrDuplicate = errors.New("the same field twice")
	ErrNested    = errors.New("nested object: fields must be flat, with dotted names")
	ErrTooMany   = errors.New("too many fields or values")
	ErrTooLong   = errors.New("event longer than 1 MiB")
)

// DecodeJSON reads one flat JSON object, as AppendJSON writes it, into e, which it resets first. It is strict (I-JSON, RFC 7493): duplicate
// names, nested objects, invalid UTF-8, lone surrogates, trailing text and more than MaxExtras unknown fields or MaxValues values are
// errors. A string under a typed field is converted; one that does not fit is kept as a string. null is an absent field. On an error the
// event's content is undefined.
func DecodeJSON(e *Event, line []byte) error {
	e.hints = append(e.hints[:0], e.keys...)
	e.Reset()
	if len(line) > MaxLine {
		return ErrTooLong
	}
	d := decoder{e: e, s: e.Copy(line), t: registry.Load(), hints: e.hints}
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
	t       *table
	hints   []Key // the fields that may come next, in their order: those of the event before this one in the same memory
}

// swift takes members, each behind its comma, as long as their names are those of the next fields of the event before, and their values are
// strings without escapes, whole numbers or IPv4 addresses: most events of a batch are of a few kinds, and are written with their fields in the
// same order. What it leaves is for member, which takes everything.
func (d *decoder) swift() {
	if len(d.nulls) > 0 {
		return
	}
	e, s, i, hints := d.e, d.s, d.i, d.hints
	for len(hints) > 0 && d.values < MaxValues {
		k := hints[0]
		if k >= covered {
			break
		}
		name := d.t.quoted[k]
		at := i + len(name)
		if at >= len(s) || !alike(s, i, name) {
			break
		}
		var v Value
		if c := s[at]; c == '"' {
			from := at + 1
			at = from
			if found := specialAt(s, at); found != 0 { // most are short
				at += bits.TrailingZeros64(found) >> 3
			} else {
				at = skipPlain(s, at)
			}
			if at >= len(s) || s[at] != '"' {
				break
			}
			switch text := s[from:at]; kinds[k] {
			case String:
				v = StringValue(text)
			case IP:
				n, ok := quad(text)
				if !ok {
					break
				}
				v = tagged(IP, uint64(n))
			}
			at++
		} else if c-'0' <= 9 && kinds[k] != Float {
			var n int64
			if n, at = natural(s, at); at > 0 {
				v = IntValue(n)
			}
		}
		if v.p == nil {
			break
		}
		p := e.fresh(k)
		if p == nil {
			break
		}
		*p = v
		d.values++
		i = at
		for hints = hints[1:]; len(hints) > 0 && hints[0] == k; hints = hints[1:] { // the rest of a list
		}
		if i >= len(s) || s[i] != ',' {
			break
		}
	}
	d.i, d.hints = i, hints
}

// covered are the keys that the bits of an event cover, kinds their kinds.
const covered = bitsetWords * 64

var kinds = func() (t [covered]Kind) {
	for k := range t {
		t[k] = Key(k).Kind()
	}
	return t
}()

// alike says whether s has name at i; len(s) must be more than i+len(name).
func alike(s string, i int, name string) bool {
	n := len(name)
	if n < 8 {
		return s[i:i+n] == name
	}
	p, q := unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), i), unsafe.Pointer(unsafe.StringData(name))
	for at := 0; at <= n-8; at += 8 {
		if *(*[8]byte)(unsafe.Add(p, at)) != *(*[8]byte)(unsafe.Add(q, at)) {
			return false
		}
	}
	return *(*[8]byte)(unsafe.Add(p, n-8)) == *(*[8]byte)(unsafe.Add(q, n-8))
}

// specialAt is special of the eight bytes at i, 0 when there are fewer.
func specialAt(s string, i int) uint64 {
	if i+8 > len(s) {
		return 0
	}
	return special(binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), i))[:]))
}

// natural reads a number of up to 18 digits, without a 0 before others, behind which the next member comes or the end. It gives the place behind
// it, 0 when it is something else.
func natural(s string, from int) (n int64, end int) {
	i := from
	for ; i < len(s) && s[i]-'0' <= 9; i++ {
		n = n*10 + int64(s[i]-'0')
	}
	if l := i - from; l > 0 && l <= 18 && i < len(s) && (s[i] == ',' || s[i] == '}') && (l == 1 || s[from] != '0') {
		return n, i
	}
	return 0, 0
}

// found says that a field came, which may be the next of the hints or one soon behind it.
func (d *decoder) found(k Key) {
	const near = 8
	i := slices.Index(d.hints[:min(len(d.hints), near)], k)
	if i < 0 {
		return
	}
	for i++; i < len(d.hints) && d.hints[i] == k; i++ { // the rest of a list
	}
	d.hints = d.hints[i:]
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
			if d.i < len(d.s) && d.s[d.i] == ',' {
				if d.swift(); d.i < len(d.s) && d.s[d.i] != ',' {
					d.space()
				}
			}
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
	if isHeader(name) {
		return d.header(name)
	}
	k, ok := d.t.find(name)
	if !ok {
		return d.extra(name)
	}
	d.found(k)
	if d.e.Has(k) || len(d.nulls) > 0 && slices.Contains(d.nulls, k) {
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
		for i := range 8 {
			n, ok := hex8(s[8*i:])
			if !ok {
				return errKind
			}
			binary.LittleEndian.PutUint32(d.e.RawDigest[4*i:], n)
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

// hex8 reads eight hexadecimal digits, of either case, as four bytes, the first the lowest. In each byte of a number stands a digit.
func hex8(s string) (n uint32, ok bool) {
	const ones = 0x0101010101010101
	w := binary.LittleEndian.Uint64([]byte(s[:8]))
	letter := w >> 6 & ones
	v := w&(0x0f*ones) + 9*letter // a digit's value, if it is one
	// It is one when writing it again gives the same, and letters are from 10 to 15.
	if v+0x30*ones+0x27*letter != w|letter<<5 || (v+6*ones)>>4&(0x0f*ones) != letter || v&(0xf0*ones) != 0 {
		return 0, false
	}
	v = (v<<4 | v>>8) & 0x00ff00ff00ff00ff
	v = (v | v>>8) & 0x0000ffff0000ffff
	return uint32(v | v>>16), true
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
		if v.p != nil { // not None
			if d.values++; d.values > MaxValues {
				return ErrTooMany
			}
			if p := d.e.fresh(k); p != nil {
				*p = v
			} else {
				d.e.append(k, v)
			}
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
		switch want {
		case String:
			return StringValue(s), nil
		case IP:
			if n, ok := quad(s); ok {
				return tagged(IP, uint64(n)), nil
			}
		}
		if v, ok := d.e.parse(want, s); ok {
			return v, nil
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
	if want != Float {
		if n, end := natural(d.s, d.i); end > 0 {
			d.i = end
			return IntValue(n), nil
		}
	}
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
