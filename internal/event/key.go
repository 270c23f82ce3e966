package event

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
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
	byName map[string]Key
	fields []schemaField
	quoted [][]byte // `,"source.ip":` by key, ready to append
}

var (
	registry   atomic.Pointer[table]
	registerMu sync.Mutex // held by the one writer of registry
)

func init() {
	t := &table{byName: make(map[string]Key, len(schemaFields))}
	for k, f := range schemaFields {
		t.fields = append(t.fields, f)
		t.quoted = append(t.quoted, quoteName(f.name))
		if f.name != "" {
			t.byName[f.name] = Key(k)
		}
	}
	registry.Store(t)
}

func quoteName(name string) []byte {
	return append(appendString([]byte{','}, name), ':')
}

// Lookup gives the key of a field name, if the schema, a rule or a signed pack has named it.
func Lookup(name string) (Key, bool) {
	k, ok := registry.Load().byName[name]
	return k, ok
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
		if k, ok := t.byName[name]; ok {
			last = k
			continue
		}
		if len(t.fields) >= MaxKeys {
			return 0, ErrTooManyKeys
		}
		if next == nil {
			next = &table{
				byName: make(map[string]Key, len(old.byName)+len(names)),
				fields: append([]schemaField(nil), old.fields...),
				quoted: append([][]byte(nil), old.quoted...),
			}
			for n, k := range old.byName {
				next.byName[n] = k
			}
		}
		last = Key(len(next.fields))
		next.byName[name] = last
		next.fields = append(next.fields, schemaField{name, String})
		next.quoted = append(next.quoted, quoteName(name))
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
