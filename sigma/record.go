package sigma

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// Key is the number of a field name in a schema. The numbers should be small and dense: tables are indexed by them.
type Key uint16

// NoKey stands for a field that no rule asks for. Its value is still seen by keywords.
const NoKey Key = math.MaxUint16

// Schema gives field names their numbers.
type Schema interface {
	// Key gives the number of a field that a rule names, making one if need be. An error refuses the rule.
	Key(name string) (Key, error)
}

type fieldKind uint8

const (
	fieldNull fieldKind = iota
	fieldString
	fieldInt
	fieldFloat
	fieldBool
	fieldIP
	fieldTime
)

// field is one value of a record. Text and its folded form are made when first asked for.
type field struct {
	key     Key
	kind    fieldKind
	hasText bool
	hasLow  bool
	escaped bool  // text is the inside of a JSON string, with what escapes there are, while hasText is false
	next    int32 // the next value of the same key, -1 at the end
	num     int64
	text    string
	low     string
	ip      netip.Addr
}

type slot struct {
	gen        uint32
	head, tail int32
}

// Record is one event as the engine sees it: values by key. It is filled by the caller, can be reset and used again, and belongs to
// one goroutine. Strings are kept, not copied: they must stay as they are until the next Reset. A list is the same key several times.
type Record struct {
	fields []field
	slots  []slot // by key
	gen    uint32
	arena  []byte
	raw    string
	hay    string // if plain: a text in which every value is, with JSON's short escapes, and that no folding makes ASCII of
	plain  bool
	memory string // in which strings lie
	line   string // of JSON, in which rest lies
	rest   []span // values that no rule asks for by name, see spread
}

// span is a text in a record's line: from the first byte to before the last, a whole number or the inside of a JSON string.
type span struct{ from, end uint32 }

// keepArena bounds the memory that is kept from record to record: one huge event must not pin a megabyte for ever.
const keepArena = 1 << 18

// Reset empties r.
func (r *Record) Reset() {
	r.fields = r.fields[:0]
	if r.arena = r.arena[:0]; cap(r.arena) > keepArena {
		r.arena = nil
	}
	r.raw, r.hay, r.plain, r.memory, r.line, r.rest = "", "", false, "", "", r.rest[:0]
	if r.gen++; r.gen == 0 { // after 4 billion records the stamps begin again
		clear(r.slots)
		r.gen = 1
	}
}

func (r *Record) add(k Key, kind fieldKind) *field {
	i := int32(len(r.fields))
	if cap(r.fields) > len(r.fields) {
		r.fields = r.fields[:i+1]
	} else {
		r.fields = append(r.fields, field{})
	}
	f := &r.fields[i]
	f.key, f.kind, f.hasText, f.hasLow, f.escaped, f.next = k, kind, false, false, false, -1
	r.plain = false
	if k == NoKey {
		return f
	}
	if int(k) >= len(r.slots) {
		r.slots = append(r.slots, make([]slot, int(k)+1-len(r.slots)+64)...)
	}
	if r.gen == 0 { // the zero Record is ready to use
		r.gen = 1
	}
	s := &r.slots[k]
	if s.gen != r.gen {
		*s = slot{r.gen, i, i}
	} else {
		r.fields[s.tail].next = i
		s.tail = i
	}
	return f
}

// lend gives r the line of JSON that it is filled from, and room for values of n keys.
func (r *Record) lend(line string, n int) {
	if r.line = line; len(r.slots) < n {
		r.slots = append(r.slots, make([]slot, n-len(r.slots)+64)...)
	}
}

// put adds a text of a line of JSON, in which escapes may be.
func (r *Record) put(k Key, text string, escaped bool) {
	i := len(r.fields)
	if i == cap(r.fields) {
		r.fields = slices.Grow(r.fields, 1)
	}
	r.fields = r.fields[:i+1]
	f := &r.fields[i]
	f.key, f.kind, f.hasText, f.hasLow, f.escaped, f.next = k, fieldString, !escaped, false, escaped, -1
	f.text = text
	s := &r.slots[k]
	if s.gen != r.gen {
		*s = slot{r.gen, int32(i), int32(i)}
		return
	}
	r.fields[s.tail].next = int32(i)
	s.tail = int32(i)
}

// spread makes fields of the values that no rule asks for by name: keywords are sought in them too.
func (r *Record) spread() {
	if len(r.rest) == 0 {
		return
	}
	plain := r.plain
	for _, s := range r.rest {
		f := r.add(NoKey, fieldString)
		f.text, f.escaped = r.line[s.from:s.end], true
	}
	r.rest, r.plain = r.rest[:0], plain
}

// AddString adds a text.
func (r *Record) AddString(k Key, s string) {
	f := r.add(k, fieldString)
	f.text, f.hasText = s, true
}

// AddInt adds a whole number.
func (r *Record) AddInt(k Key, n int64) { r.add(k, fieldInt).num = n }

// AddFloat adds a number.
func (r *Record) AddFloat(k Key, x float64) { r.add(k, fieldFloat).num = int64(math.Float64bits(x)) }

// AddBool adds true or false.
func (r *Record) AddBool(k Key, b bool) {
	f := r.add(k, fieldBool)
	f.text, f.hasText = "false", true
	if b {
		f.text = "true"
	}
}

// AddIP adds an address.
func (r *Record) AddIP(k Key, a netip.Addr) { r.add(k, fieldIP).ip = a }

// AddTime adds an instant in UTC nanoseconds. As text it is RFC 3339.
func (r *Record) AddTime(k Key, ns int64) { r.add(k, fieldTime).num = ns }

// AddNull adds a field without a value.
func (r *Record) AddNull(k Key) {
	f := r.add(k, fieldNull)
	f.text, f.hasText = "", true
}

// SetRaw gives the event's raw text, in which keywords are sought beside the values.
func (r *Record) SetRaw(s string) { r.raw = s }

// SetMemory says that strings of the record, the raw text too, lie in the memory of s, so that keywords, of which hardly ever one is there, can be
// sought in s as a whole. What else is in s does no harm, nor do strings that lie elsewhere. It changes no answer.
func (r *Record) SetMemory(s string) { r.memory = s }

// inMemory says whether s lies there.
func (r *Record) inMemory(s string) bool {
	at := uintptr(unsafe.Pointer(unsafe.StringData(s))) - uintptr(unsafe.Pointer(unsafe.StringData(r.memory)))
	return at <= uintptr(len(r.memory)) && at+uintptr(len(s)) <= uintptr(len(r.memory))
}

// Len is the number of values.
func (r *Record) Len() int { return len(r.fields) + len(r.rest) }

// Has says whether k has a value, null included.
func (r *Record) Has(k Key) bool { return r.first(k) >= 0 }

// Text gives the first value of k as text, valid until the next Reset. Null counts as absent.
func (r *Record) Text(k Key) (string, bool) {
	for i := r.first(k); i >= 0; i = r.fields[i].next {
		if r.fields[i].kind != fieldNull {
			return r.textOf(&r.fields[i]), true
		}
	}
	return "", false
}

func (r *Record) first(k Key) int32 {
	if int(k) < len(r.slots) {
		if s := &r.slots[k]; s.gen == r.gen {
			return s.head
		}
	}
	return -1
}

// room makes space for n bytes in the arena. What was there before stays valid: a full block is left to the strings that use it.
func (r *Record) room(n int) {
	if cap(r.arena)-len(r.arena) < n {
		r.arena = make([]byte, 0, max(2*cap(r.arena), n, 4096))
	}
}

func (r *Record) textOf(f *field) string {
	if f.hasText {
		return f.text
	}
	if f.kind == fieldString && strings.IndexByte(f.text, '\\') < 0 {
		f.hasText = true
		return f.text
	}
	r.room(max(64, len(f.text)))
	from := len(r.arena)
	switch f.kind {
	case fieldString: // with escapes
		r.arena = appendUnescaped(r.arena, f.text)
	case fieldInt:
		r.arena = strconv.AppendInt(r.arena, f.num, 10)
	case fieldFloat:
		r.arena = strconv.AppendFloat(r.arena, math.Float64frombits(uint64(f.num)), 'f', -1, 64)
	case fieldIP:
		r.arena = f.ip.AppendTo(r.arena)
	case fieldTime:
		r.arena = time.Unix(0, f.num).UTC().AppendFormat(r.arena, time.RFC3339Nano)
	}
	b := r.arena[from:]
	f.text, f.hasText = unsafe.String(unsafe.SliceData(b), len(b)), true
	return f.text
}

func (r *Record) lowOf(f *field) string {
	if f.hasLow {
		return f.low
	}
	f.hasLow = true
	if f.escaped && !f.hasText {
		r.room(len(f.text) + 8)
		from := len(r.arena)
		if n, ok := lowUnescaped(r.arena[from:], f.text); ok {
			r.arena = r.arena[:from+n]
			f.low = unsafe.String(unsafe.SliceData(r.arena[from:]), n)
			return f.low
		}
	}
	text := r.textOf(f)
	if f.kind == fieldInt || f.kind == fieldBool || f.kind == fieldIP || text == "" {
		f.low = text // already without capitals
		return text
	}
	f.low = r.fold(text)
	return f.low
}

func (r *Record) fold(text string) string {
	r.room(3 * len(text)) // folding can lengthen a character, at most from two bytes to three
	from := len(r.arena)
	r.arena = appendFold(r.arena, text)
	b := r.arena[from:]
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func (r *Record) numberOf(f *field) (float64, bool) {
	switch f.kind {
	case fieldInt:
		return float64(f.num), true
	case fieldFloat:
		return math.Float64frombits(uint64(f.num)), true
	case fieldString:
		return parseNumber(r.textOf(f))
	}
	return 0, false
}

func (r *Record) addrOf(f *field) (netip.Addr, bool) {
	if f.kind == fieldIP {
		return f.ip.Unmap(), f.ip.IsValid()
	}
	if f.kind != fieldString {
		return netip.Addr{}, false
	}
	text := r.textOf(f)
	if len(text) < 2 || len(text) > 64 {
		return netip.Addr{}, false
	}
	// ParseAddr makes its error on the heap: keep it from seeing most of what cannot be an address.
	for i := 0; i < len(text); i++ {
		c := text[i]
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' || c == '.' || c == ':' || c == '%') {
			return netip.Addr{}, false
		}
		if c == '%' {
			break
		}
	}
	a, err := netip.ParseAddr(text)
	return a.Unmap().WithZone(""), err == nil
}

// test evaluates p on r. With a matcher it takes all shortcuts there are, without one none: that is the reference which tests compare with.
func (p *predicate) test(r *Record, m *Matcher) bool {
	if p.keyword {
		if p.op == opNever {
			return false
		}
		r.spread()
		for i := range r.fields {
			f := &r.fields[i]
			if f.kind != fieldNull && p.testField(r, m, f) {
				return true
			}
		}
		return r.raw != "" && p.testText(m, r.raw, r.lowRaw())
	}
	switch p.op {
	case opNever:
		return false
	case opExists:
		return r.Has(p.key) == p.want
	case opNull:
		for i := r.first(p.key); i >= 0; i = r.fields[i].next {
			if r.fields[i].kind != fieldNull {
				return false
			}
		}
		return true
	}
	for i := r.first(p.key); i >= 0; i = r.fields[i].next {
		f := &r.fields[i]
		if f.kind != fieldNull && p.testField(r, m, f) {
			return true
		}
	}
	return false
}

func (p *predicate) testField(r *Record, m *Matcher, f *field) bool {
	switch p.op {
	case opNumber:
		n, ok := r.numberOf(f)
		return ok && p.testNumber(n)
	case opCIDR:
		a, ok := r.addrOf(f)
		return ok && p.nets.Contains(a)
	case opTime:
		if f.kind == fieldTime {
			return p.testTime(time.Unix(0, f.num).UTC())
		}
		t, ok := parseInstant(r.textOf(f))
		return ok && p.testTime(t)
	case opRef:
		for j := r.first(p.ref); j >= 0; j = r.fields[j].next {
			g := &r.fields[j]
			if g.kind == fieldNull {
				continue
			}
			l := literal{op: p.sub}
			text := ""
			if p.cased {
				l.text, text = r.textOf(g), r.textOf(f)
			} else {
				l.text, text = r.lowOf(g), r.lowOf(f)
			}
			if l.match(text) {
				return true
			}
		}
		return false
	case opRegex:
		if m != nil && p.guard.run == 0 && !p.guard.inLow(r.lowOf(f)) {
			return false // before escapes are resolved
		}
		return p.testText(m, r.textOf(f), r.lowOf(f))
	}
	if p.cased {
		return p.testText(m, r.textOf(f), "")
	}
	return p.testText(m, "", r.lowOf(f))
}

// lowRaw folds the raw text. It is not kept: keyword predicates are few, and memoised.
func (r *Record) lowRaw() string { return r.fold(r.raw) }
