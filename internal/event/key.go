package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Key is the number of a field name inside this process. Zero is no key.
type Key uint16

// Kind is the type of a value, and of a schema field.
type Kind uint8

// The kinds of values. None is an absent value.
const (
	None Kind = iota
	String
	Int   // 64-bit signed
	Float // 64-bit
	Bool
	IP   // an address without a zone; IPv4-mapped IPv6 is IPv4
	Time // UTC nanoseconds since 1970
)

// MaxKeys bounds the table of names: schema, rules and signed packs together.
const MaxKeys = 16384

// maxName is the longest field name that is taken, from rules as from the wire.
const maxName = 256

// ErrTooManyKeys is returned by Register when the table is full.
var ErrTooManyKeys = errors.New("too many field names")

type schemaField struct {
	name string
	kind Kind
}

// table is one immutable state of the registry; a registration replaces it.
type table struct {
	slots  []nameSlot // by hash of the name, a power of two of them, at most half taken
	fields []schemaField
	quoted []string // `,"source.ip":` by key, ready to append
}

// nameSlot is where a name is found: each field of each event is looked up.
type nameSlot struct {
	hash uint32
	key  Key // 0: free
}

// hashName mixes the length of a name and its outer bytes. Names that meet are compared in full; only those of the schema, rules and packs are there.
func hashName(s string) uint32 {
	var a, b uint64
	p := unsafe.Slice(unsafe.StringData(s), len(s))
	switch n := len(s); {
	case n >= 8:
		a, b = binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[n-8:])
	case n >= 4:
		a, b = uint64(binary.LittleEndian.Uint32(p)), uint64(binary.LittleEndian.Uint32(p[n-4:]))
	case n > 0:
		a, b = uint64(p[0])|uint64(p[n/2])<<8, uint64(p[n-1])
	}
	return uint32((a ^ bits.RotateLeft64(b, 29) ^ uint64(len(s))*0xA24BAED4963EE407) * 0x9E3779B97F4A7C15 >> 32)
}

func (t *table) find(name string) (Key, bool) {
	h := hashName(name)
	mask := uint32(len(t.slots) - 1)
	for i := h & mask; t.slots[i].key != 0; i = (i + 1) & mask {
		if s := t.slots[i]; s.hash == h && t.fields[s.key].name == name {
			return s.key, true
		}
	}
	return 0, false
}

// add gives a name that is not there the next key. t must be nobody else's yet.
func (t *table) add(f schemaField) Key {
	k := Key(len(t.fields))
	t.fields = append(t.fields, f)
	t.quoted = append(t.quoted, quoteName(f.name))
	if 2*len(t.fields) > len(t.slots) {
		t.slots = make([]nameSlot, max(1024, 2*len(t.slots)))
		for i := range t.fields {
			t.place(Key(i))
		}
	} else {
		t.place(k)
	}
	return k
}

func (t *table) place(k Key) {
	if k == 0 || t.fields[k].name == "" { // no key, or one that is not used any more
		return
	}
	h := hashName(t.fields[k].name)
	mask := uint32(len(t.slots) - 1)
	i := h & mask
	for t.slots[i].key != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = nameSlot{h, k}
}

var (
	registry   atomic.Pointer[table]
	registerMu sync.Mutex // held by the one writer of registry
)

func init() {
	t := &table{}
	for _, f := range schemaFields {
		t.add(f)
	}
	registry.Store(t)
}

func quoteName(name string) string {
	return string(append(appendString([]byte{','}, name), ':'))
}

// Lookup gives the key of a field name, if the schema, a rule or a signed pack has named it.
func Lookup(name string) (Key, bool) {
	return registry.Load().find(name)
}

// Register gives the key of a field name and makes one if there is none. It is for names from rules and signed packs only: names from
// data must stay extras, or a sender could fill the table. Safe for concurrent use.
func Register(name string) (Key, error) {
	return RegisterAll(name)
}

// RegisterAll registers names in one step, which is cheaper than one by one, and gives the key of the last.
func RegisterAll(names ...string) (Key, error) {
	registerMu.Lock()
	defer registerMu.Unlock()
	old := registry.Load()
	var last Key
	var next *table
	for _, name := range names {
		if name == "" || len(name) > maxName {
			return 0, fmt.Errorf("field name %q: must have 1 to %d bytes", name, maxName)
		}
		if isHeader(name) {
			return 0, fmt.Errorf("field name %q: is a header of the event, not a field", name)
		}
		t := old
		if next != nil {
			t = next
		}
		if k, ok := t.find(name); ok {
			last = k
			continue
		}
		if len(t.fields) >= MaxKeys {
			return 0, ErrTooManyKeys
		}
		if next == nil {
			next = &table{slots: slices.Clone(old.slots), fields: slices.Clone(old.fields), quoted: slices.Clone(old.quoted)}
		}
		last = next.add(schemaField{name, String})
	}
	if next != nil {
		registry.Store(next)
	}
	return last, nil
}

// NumKeys is one more than the highest key given so far.
func NumKeys() int { return len(registry.Load().fields) }

// Name is the ECS or native name of the field, "" for no key.
func (k Key) Name() string {
	if t := registry.Load(); int(k) < len(t.fields) {
		return t.fields[k].name
	}
	return ""
}

// Kind is the kind the schema gives the field; String for fields named by rules and packs.
func (k Key) Kind() Kind {
	if k < schemaEnd {
		return schemaFields[k].kind
	}
	return String
}

// String makes keys readable in test failures.
func (k Key) String() string {
	if n := k.Name(); n != "" {
		return n
	}
	return "Key(" + strconv.Itoa(int(k)) + ")"
}

// The names of the header fields, which are members of Event and not in its list.
const (
	nameTime     = "@timestamp"
	nameCreated  = "event.created"
	nameIngested = "event.ingested"
	nameHash     = "event.hash"
	nameOriginal = "event.original"
)

func isHeader(name string) bool {
	switch name {
	case nameTime, nameCreated, nameIngested, nameHash, nameOriginal:
		return true
	}
	return false
}
