package event

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unsafe"
)

// TenantID is the number of a member in the scheme's database. Zero is the centre itself, never a member.
type TenantID uint32

// StreamID names a stream: the first 16 bytes of the SHA-256 of its canonical text (see package batch).
type StreamID [16]byte

// ID is where an event stands: stream, sequence number of its batch (from 1), index in the batch (from 0).
type ID struct {
	Stream StreamID
	Seq    uint64
	Index  uint32
}

// String is the ID as pages and exports write it: hex stream, sequence, index, joined by hyphens.
func (id ID) String() string {
	b := make([]byte, 0, 64)
	b = hex.AppendEncode(b, id.Stream[:])
	b = append(b, '-')
	b = strconv.AppendUint(b, id.Seq, 10)
	b = append(b, '-')
	b = strconv.AppendUint(b, uint64(id.Index), 10)
	return string(b)
}

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	var id ID
	parts := strings.Split(s, "-")
	if len(parts) == 3 && len(parts[0]) == 32 {
		_, err := hex.Decode(id.Stream[:], []byte(parts[0]))
		seq, err2 := strconv.ParseUint(parts[1], 10, 64)
		index, err3 := strconv.ParseUint(parts[2], 10, 32)
		if errors.Join(err, err2, err3) == nil {
			id.Seq, id.Index = seq, uint32(index)
			return id, nil
		}
	}
	return ID{}, fmt.Errorf("event id %q: want 32 hex digits, a sequence and an index joined by hyphens", s)
}

// MaxExtras bounds the fields without a key that one event may carry.
const MaxExtras = 64

// MaxValues bounds the values of one event, list elements counted one by one.
const MaxValues = 1024

// Extra is a field that neither the schema nor a rule names.
type Extra struct{ Name, Value string }

// bitsetWords covers the schema's keys and what rules and packs usually register; later keys are found by scanning.
const bitsetWords = 16

// Event is one normalised record. The zero value is ready to use.
type Event struct {
	ID     ID
	Tenant TenantID

	Time     int64 // @timestamp: when the device says it happened, UTC nanoseconds; 0 when unknown
	Created  int64 // event.created: when the collector received it
	Ingested int64 // event.ingested: when the hub planned its storage

	RawDigest    [32]byte // event.hash: keyed digest of the raw line
	HasRawDigest bool

	sendRaw bool
	raw     string  // points into arena
	keys    []Key   // of the values
	vals    []Value // as many, with room for as many, see list.go
	present [bitsetWords]uint64
	extras  []Extra
	hints   []Key  // see decoder
	arena   []byte // strings point into it, so it is only appended to, and replaced when full
}

// Reset empties the event and keeps its memory for the next. All strings got from it become invalid.
func (e *Event) Reset() {
	const keepArena = 1 << 16 // one huge line must not pin a megabyte for ever
	arena := e.arena[:0]
	if cap(arena) > keepArena {
		arena = nil
	}
	if len(e.extras) > 0 {
		clear(e.extras)
	}
	e.ID, e.Tenant = ID{}, 0
	e.Time, e.Created, e.Ingested = 0, 0, 0
	e.RawDigest, e.HasRawDigest = [32]byte{}, false
	e.sendRaw, e.raw = false, ""
	e.present = [bitsetWords]uint64{}
	e.keys, e.vals, e.extras, e.arena = e.keys[:0], e.vals[:0], e.extras[:0], arena
}

// SetRaw copies the line into the event and gives it back as a string that parsers may cut values from.
func (e *Event) SetRaw(line []byte) string {
	e.raw = e.Copy(line)
	return e.raw
}

// Raw is the line as received, "" when it was not kept.
func (e *Event) Raw() string { return e.raw }

// Memory is where most of the event's strings lie, with whatever else is there: those of its line and what was copied since. It is valid as they are.
func (e *Event) Memory() string { return unsafe.String(unsafe.SliceData(e.arena), len(e.arena)) }

// IncludeRaw says whether AppendJSON writes the raw line as event.original.
func (e *Event) IncludeRaw(yes bool) { e.sendRaw = yes }

// Copy copies b into the event's own memory.
func (e *Event) Copy(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	at := e.grow(len(b))
	e.arena = append(e.arena, b...)
	return unsafe.String(&e.arena[at], len(b))
}

// CopyString copies s into the event's own memory.
func (e *Event) CopyString(s string) string {
	if s == "" {
		return ""
	}
	at := e.grow(len(s))
	e.arena = append(e.arena, s...)
	return unsafe.String(&e.arena[at], len(s))
}

// grow makes room for n bytes without moving what strings point to: a full arena is left behind and a new one begun.
func (e *Event) grow(n int) int {
	if cap(e.arena)-len(e.arena) < n {
		e.arena = make([]byte, 0, max(1024, 2*cap(e.arena), n))
	}
	return len(e.arena)
}

// Has says whether the event has a value under k.
func (e *Event) Has(k Key) bool {
	if w := int(k >> 6); w < bitsetWords {
		return e.present[w]&(1<<(k&63)) != 0
	}
	return e.find(k) >= 0
}

// KeySet is some of the keys that the bits of an event cover: the schema's, and the first that rules and packs register.
type KeySet [bitsetWords]uint64

// Add puts a key in; the answer is false when the set cannot hold it.
func (s *KeySet) Add(k Key) bool {
	if int(k>>6) >= bitsetWords {
		return false
	}
	s[k>>6] |= 1 << (k & 63)
	return true
}

// Has says whether a key is in the set.
func (s *KeySet) Has(k Key) bool {
	return int(k>>6) < bitsetWords && s[k>>6]&(1<<(k&63)) != 0
}

// mixers are odd, one for each word of bits that has fields of the schema.
var mixers = func() (m [(schemaEnd + 63) / 64]uint64) {
	for i := range m {
		m[i] = 0x9E3779B97F4A7C15 + 0xC2B2AE3D27D4EB4E*uint64(i)
	}
	return m
}()

// Fingerprint is a number that events with the same fields of the schema share, and others seldom. It differs between builds.
func (e *Event) Fingerprint() (h uint64) {
	for i := range mixers {
		h += e.present[i] * mixers[i]
	}
	return h ^ h>>29
}

// HasAny says whether the event has a value under one of the keys.
func (e *Event) HasAny(s *KeySet) bool {
	var any uint64
	for w := range e.present {
		any |= e.present[w] & s[w]
	}
	return any != 0
}

func (e *Event) mark(k Key) {
	if w := int(k >> 6); w < bitsetWords {
		e.present[w] |= 1 << (k & 63)
	}
}

// Find gives the index, for At, of the first value under k; further ones follow it. -1: there is none.
func (e *Event) Find(k Key) int { return e.find(k) }

// Set replaces whatever stands under k. An absent value (None) deletes. A new key beyond MaxValues is not taken.
func (e *Event) Set(k Key, v Value) {
	if k == 0 {
		return
	}
	if v.kind() == None {
		e.Del(k)
		return
	}
	if p := e.fresh(k); p != nil {
		*p = v
		return
	}
	i := e.find(k)
	if i < 0 {
		e.append(k, v)
		return
	}
	e.vals[i] = v
	if j := e.after(i); j > i+1 { // a list shrinks to one value
		e.cut(i+1, j)
	}
}

// SetInt sets an integer.
func (e *Event) SetInt(k Key, n int64) {
	if p := e.fresh(k); p != nil {
		*p = IntValue(n)
		return
	}
	e.Set(k, IntValue(n))
}

// SetFloat sets a floating-point number.
func (e *Event) SetFloat(k Key, f float64) { e.Set(k, FloatValue(f)) }

// SetBool sets a truth value.
func (e *Event) SetBool(k Key, b bool) { e.Set(k, BoolValue(b)) }

// SetIP sets an address; the zero Addr deletes.
func (e *Event) SetIP(k Key, a netip.Addr) {
	if a.Is4() {
		b := a.As4()
		e.SetIPv4(k, binary.BigEndian.Uint32(b[:]))
		return
	}
	e.Set(k, e.IPValue(a))
}

// IPValue is IPValue in the event's own memory.
func (e *Event) IPValue(a netip.Addr) Value {
	if !a.Is6() || a.Is4In6() {
		return IPValue(a)
	}
	b := a.As16()
	return Value{p: unsafe.Pointer(unsafe.StringData(e.Copy(b[:]))), n: sixteen}
}

// SetIPv4 sets an IPv4 address, the first byte the highest.
func (e *Event) SetIPv4(k Key, a uint32) {
	if p := e.fresh(k); p != nil {
		*p = tagged(IP, uint64(a))
		return
	}
	e.Set(k, tagged(IP, uint64(a)))
}

// SetTime sets an instant in UTC nanoseconds.
func (e *Event) SetTime(k Key, ns int64) { e.Set(k, TimeValue(ns)) }

// SetText sets s converted to the field's kind. When it does not fit it is kept as a string and the answer is false.
func (e *Event) SetText(k Key, s string) bool {
	v, ok := e.parse(k.Kind(), s)
	if !ok {
		v = StringValue(s)
	}
	e.Set(k, v)
	return ok
}

// parse is ParseValue in the event's own memory.
func (e *Event) parse(kind Kind, s string) (Value, bool) {
	if kind == IP {
		a, ok := ParseIP(s)
		return e.IPValue(a), ok
	}
	return ParseValue(kind, s)
}

// SetNamed sets a field by name: a known one as SetText does, any other as an Extra. The first of two equal names wins. The answer is
// false when the event is full and the field was not taken.
func (e *Event) SetNamed(name, s string) bool {
	if k, ok := Lookup(name); ok {
		if !e.Has(k) {
			e.SetText(k, s)
		}
		return true
	}
	return e.SetExtra(name, s)
}

// SetExtra is SetNamed for a name that Lookup does not know.
func (e *Event) SetExtra(name, s string) bool {
	for i := range e.extras {
		if e.extras[i].Name == name {
			return true
		}
	}
	if len(e.extras) >= MaxExtras || name == "" || len(name) > maxName || isHeader(name) {
		return false
	}
	e.extras = append(e.extras, Extra{name, s})
	return true
}

// AddExtra is SetExtra for a name of which the caller knows that the event has none such yet, and that it is no field, no header and not too
// long.
func (e *Event) AddExtra(name, s string) {
	if len(e.extras) < MaxExtras {
		e.extras = append(e.extras, Extra{name, s})
	}
}

// Add appends one more value under k; values under one key stay side by side. Beyond MaxValues it does nothing.
func (e *Event) Add(k Key, v Value) {
	if k == 0 || v.kind() == None || len(e.keys) >= MaxValues {
		return
	}
	i := e.find(k)
	e.append(k, v)
	if i < 0 {
		return
	}
	if i = e.after(i); i < len(e.keys)-1 {
		copy(e.keys[i+1:], e.keys[i:])
		copy(e.vals[i+1:], e.vals[i:])
		e.keys[i], e.vals[i] = k, v
	}
}

// AddString appends one more string under k.
func (e *Event) AddString(k Key, s string) { e.Add(k, StringValue(s)) }

// Get gives the first value under k.
func (e *Event) Get(k Key) (Value, bool) {
	if i := e.find(k); i >= 0 {
		return e.vals[i], true
	}
	return Value{}, false
}

// Str gives the first value under k if it is a string, else "".
func (e *Event) Str(k Key) string {
	if i := e.find(k); i >= 0 {
		return e.vals[i].str()
	}
	return ""
}

// Text gives the first value under k as text, whatever its kind.
func (e *Event) Text(k Key) string {
	if i := e.find(k); i >= 0 {
		return e.vals[i].Text()
	}
	return ""
}

// Int gives the first value under k if it is an integer.
func (e *Event) Int(k Key) (int64, bool) {
	if i := e.find(k); i >= 0 && e.vals[i].is(Int) {
		return int64(e.vals[i].n), true
	}
	return 0, false
}

// IP gives the first value under k if it is an address.
func (e *Event) IP(k Key) (netip.Addr, bool) {
	if i := e.find(k); i >= 0 && e.vals[i].kind() == IP {
		return e.vals[i].IP(), true
	}
	return netip.Addr{}, false
}

// HasString says whether s is one of the strings under k.
func (e *Event) HasString(k Key, s string) bool {
	for i := e.find(k); i >= 0 && i < len(e.keys) && e.keys[i] == k; i++ {
		if v := &e.vals[i]; v.kind() == String && v.str() == s {
			return true
		}
	}
	return false
}

// Del removes all values under k.
func (e *Event) Del(k Key) {
	i := e.find(k)
	if i < 0 {
		return
	}
	e.cut(i, e.after(i))
	if w := int(k >> 6); w < bitsetWords {
		e.present[w] &^= 1 << (k & 63)
	}
}

// Len is the number of values, list elements counted one by one.
func (e *Event) Len() int { return len(e.keys) }

// At gives the i-th value and its key; the elements of a list follow one another.
func (e *Event) At(i int) (Key, Value) { return e.keys[i], e.vals[i] }

// Ref gives the i-th value where it stands, good until the event is changed. It is not to be written to.
func (e *Event) Ref(i int) *Value { return &e.vals[i] }

// StrAt is the i-th value if it is a string, else "".
func (e *Event) StrAt(i int) string { return e.vals[i].str() }

// KindAt is the kind of the i-th value.
func (e *Event) KindAt(i int) Kind { return e.vals[i].kind() }

// Extras are the fields without a key. The slice belongs to the event.
func (e *Event) Extras() []Extra { return e.extras }

// DelExtra removes the extra of that name.
func (e *Event) DelExtra(name string) {
	for i := range e.extras {
		if e.extras[i].Name == name {
			e.extras = append(e.extras[:i], e.extras[i+1:]...)
			return
		}
	}
}

// ClearExtras removes all fields without a key.
func (e *Event) ClearExtras() {
	clear(e.extras)
	e.extras = e.extras[:0]
}

// Clone is a deep copy that shares no memory with e.
func (e *Event) Clone() *Event {
	c := &Event{}
	e.CopyTo(c)
	return c
}

// CopyTo makes dst a deep copy of e, using the memory that dst has.
func (e *Event) CopyTo(dst *Event) {
	dst.Reset()
	keys, vals, extras, arena, hints := dst.keys, dst.vals, dst.extras, dst.arena, dst.hints
	*dst = *e
	need := len(e.raw)
	for i := range e.vals {
		need += len(e.vals[i].bytes())
	}
	for i := range e.extras {
		need += len(e.extras[i].Name) + len(e.extras[i].Value)
	}
	if cap(arena) < need {
		arena = make([]byte, 0, need)
	}
	dst.arena, dst.hints = arena, hints
	if dst.keys, dst.vals = keys, vals; cap(keys) < len(e.keys) {
		dst.makeRoom(len(e.keys))
	}
	dst.keys, dst.vals = append(dst.keys, e.keys...), append(dst.vals, e.vals...)
	dst.extras = append(extras, e.extras...)
	dst.raw = dst.CopyString(e.raw)
	for i := range dst.vals {
		if v := &dst.vals[i]; len(v.bytes()) > 0 {
			v.setBytes(dst.CopyString(v.bytes()))
		}
	}
	for i := range dst.extras {
		x := &dst.extras[i]
		x.Name, x.Value = dst.CopyString(x.Name), dst.CopyString(x.Value)
	}
}
