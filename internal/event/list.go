package event

import (
	"net/netip"
	"unsafe"
)

// The values of an event lie in two slices of the same length and the same capacity, one of keys, so that a key is found without touching the
// values. A parser sets some twenty to fifty of them for every line, so what adds a value that is not there yet asks nothing twice: that there is
// room is known by one of the two capacities, and the place is reached without another check.

// header is how a slice lies in memory.
type header struct {
	p        unsafe.Pointer
	len, cap int
}

// more makes both slices longer by n, for which there is room, and gives the index of the first new place.
func (e *Event) more(n int) int {
	at := len(e.keys)
	(*header)(unsafe.Pointer(&e.keys)).len = at + n
	(*header)(unsafe.Pointer(&e.vals)).len = at + n
	return at
}

// next adds a place for a value of k behind those that are there, for which there is room.
func (e *Event) next(k Key) *Value {
	at := e.more(1)
	*(*Key)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(e.keys)), uintptr(at)*unsafe.Sizeof(k))) = k
	return (*Value)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(e.vals)), uintptr(at)*unsafe.Sizeof(Value{})))
}

// makeRoom moves the values to where n have room.
func (e *Event) makeRoom(n int) {
	e.keys, e.vals = append(make([]Key, 0, n), e.keys...), append(make([]Value, 0, n), e.vals...)
}

// room sees that there is room for n more values, n at most so many that there are MaxValues.
func (e *Event) room(n int) {
	if n += len(e.keys); n > cap(e.keys) {
		e.makeRoom(max(16, min(2*cap(e.keys), MaxValues), n))
	}
}

// isNew says whether k has no value yet and one can be put behind the others at once, and marks that it has one.
func (e *Event) isNew(k Key) bool {
	if k-1 >= bitsetWords*64-1 || len(e.keys) >= cap(e.keys) {
		return false
	}
	w, bit := &e.present[k>>6], uint64(1)<<(k&63)
	if *w&bit != 0 {
		return false
	}
	*w |= bit
	return true
}

// fresh gives the place for the value of a key that has none yet; nil when that is not sure or there is no room: then Set does it. Nearly every
// value that a parser sets comes this way, or the same way through SetString.
func (e *Event) fresh(k Key) *Value {
	if !e.isNew(k) {
		return nil
	}
	return e.next(k)
}

// SetString sets a string, which must live as long as the event: a part of Raw, a constant, or a Copy.
func (e *Event) SetString(k Key, s string) {
	if !e.isNew(k) {
		e.Set(k, StringValue(s))
		return
	}
	*e.next(k) = StringValue(s)
}

// SetNew is SetString for a field that has no value yet; otherwise it does nothing.
func (e *Event) SetNew(k Key, s string) {
	if !e.isNew(k) {
		if !e.Has(k) {
			e.Set(k, StringValue(s))
		}
		return
	}
	*e.next(k) = StringValue(s)
}

// append adds a value at the end, if there may be one more.
func (e *Event) append(k Key, v Value) {
	if len(e.keys) < MaxValues {
		e.room(1)
		*e.next(k) = v
		e.mark(k)
	}
}

// after gives the index behind the values that stand side by side with the one at i.
func (e *Event) after(i int) int {
	j := i + 1
	for j < len(e.keys) && e.keys[j] == e.keys[i] {
		j++
	}
	return j
}

// cut takes the values from i to j out.
func (e *Event) cut(i, j int) {
	e.keys, e.vals = append(e.keys[:i], e.keys[j:]...), append(e.vals[:i], e.vals[j:]...)
}

// find gives the index of the first value under k, or -1.
func (e *Event) find(k Key) int {
	if w := int(k >> 6); w < bitsetWords && e.present[w]&(1<<(k&63)) == 0 {
		return -1
	}
	for i, x := range e.keys {
		if x == k {
			return i
		}
	}
	return -1
}

// Keys gives the keys of all values in their order, as At numbers them. The slice is the event's own: read it, and not after a change.
func (e *Event) Keys() []Key { return e.keys }

// Append puts values behind those that are there, for keys that have none yet; the elements of a list must follow one another. Strings must
// live as long as the event. Beyond MaxValues nothing is taken.
func (e *Event) Append(keys []Key, vals []Value) {
	n := min(len(keys), MaxValues-len(e.keys))
	e.room(n)
	at := e.more(n)
	copy(e.keys[at:], keys)
	copy(e.vals[at:], vals)
	for _, k := range e.keys[at:] {
		e.mark(k)
	}
}

// Begin gives an event that was Reset all these fields at once: for each of keys a place that Fill or Put must set before anything else is asked
// of the event. set are the same fields; values of one key must follow one another. There may be MaxValues of them.
func (e *Event) Begin(keys []Key, set *KeySet) {
	e.keys, e.vals = e.keys[:0], e.vals[:0]
	keys = keys[:min(len(keys), MaxValues)]
	e.room(len(keys))
	e.more(len(keys))
	copy(e.keys, keys)
	e.present = *set
}

// Fill sets the values from the at-th on to those of src from the i-th to before the j-th, whose strings they share.
func (e *Event) Fill(at int, src *Event, i, j int) { copy(e.vals[at:], src.vals[i:j]) }

// Put sets the i-th value to another one, for the same field.
func (e *Event) Put(i int, v Value) { e.vals[i] = v }

// Drop takes the i-th value out.
func (e *Event) Drop(i int) {
	k := e.keys[i]
	e.cut(i, i+1)
	if w := int(k >> 6); w < bitsetWords {
		e.present[w] &^= 1 << (k & 63)
		for _, x := range e.keys {
			if x == k {
				e.present[w] |= 1 << (k & 63)
				return
			}
		}
	}
}

// PutString, PutInt, PutIPv4 and PutIP set the value of a place that Append has made for that kind.
func (e *Event) PutString(i int, s string) { e.vals[i] = StringValue(s) }

// PutInt is PutString for a number.
func (e *Event) PutInt(i int, n int64) { e.vals[i] = IntValue(n) }

// PutIPv4 is PutString for an address, the first byte the highest.
func (e *Event) PutIPv4(i int, a uint32) { e.vals[i] = tagged(IP, uint64(a)) }

// PutIP is PutIPv4 for an address of either kind.
func (e *Event) PutIP(i int, a netip.Addr) { e.vals[i] = e.IPValue(a) }

// Truncate takes all values out but the first n. The elements of a list go together.
func (e *Event) Truncate(n int) {
	for n > 0 && n < len(e.keys) && e.keys[n] == e.keys[n-1] {
		n--
	}
	for i := n; i < len(e.keys); i++ {
		if k := e.keys[i]; int(k>>6) < bitsetWords {
			e.present[k>>6] &^= 1 << (k & 63)
		}
	}
	if n < len(e.keys) {
		e.keys, e.vals = e.keys[:n], e.vals[:n]
	}
}
