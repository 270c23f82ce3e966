package event

import "strings"

// Group is some fields with values that never change, which are set together: what every line of one product carries, or what an action
// means. It is never changed.
type Group struct {
	keys []Key
	vals []Value
	set  KeySet
	from uint8 // the words of set from..to-1 have bits
	to   uint8
}

// NewGroup makes a group of strings: keys[i] gets values[i]. The values of a list follow one another under the same key. Fields whose value is
// "" are left out. It panics when a key is not the schema's.
func NewGroup(keys []Key, values ...string) *Group {
	g := &Group{from: bitsetWords}
	for i, k := range keys {
		if values[i] == "" {
			continue
		}
		if k == 0 || k >= schemaEnd || !g.set.Add(k) {
			panic("event: a group of fields that are not the schema's")
		}
		g.keys, g.vals = append(g.keys, k), append(g.vals, StringValue(values[i]))
		g.from, g.to = min(g.from, uint8(k>>6)), max(g.to, uint8(k>>6)+1)
	}
	g.from = min(g.from, g.to)
	return g
}

// SetGroup sets the fields of g, in their order, if the event has none of them yet. When it has one, or no room, nothing is done and the
// answer is false.
func (e *Event) SetGroup(g *Group) bool {
	if len(e.keys)+len(g.keys) > cap(e.keys) {
		return false
	}
	there := e.present[g.from:g.to]
	set := g.set[g.from:g.to][:len(there)]
	for w, b := range set {
		if there[w]&b != 0 {
			return false
		}
	}
	for w, b := range set {
		there[w] |= b
	}
	e.take(g)
	return true
}

// take puts the values of a group behind those that are there; there is room for them.
func (e *Event) take(g *Group) {
	at := e.more(len(g.keys))
	copy(e.keys[at:], g.keys)
	copy(e.vals[at:], g.vals)
}

// GroupOf makes a group of fields of any kinds; the values of a list follow one another. It answers nil when a key is one that the bits of an
// event do not cover. The values are copied, the strings in them are not.
func GroupOf(keys []Key, vals []Value) *Group {
	g := &Group{from: bitsetWords, keys: append([]Key(nil), keys...), vals: append([]Value(nil), vals...)}
	for i, k := range keys {
		if v := &g.vals[i]; v.kind() == IP && !v.is(IP) { // it lies in its event
			v.setBytes(strings.Clone(v.bytes()))
		}
		if !g.set.Add(k) {
			return nil
		}
		g.from, g.to = min(g.from, uint8(k>>6)), max(g.to, uint8(k>>6)+1)
	}
	g.from = min(g.from, g.to)
	return g
}

// Len is how many values a group has.
func (g *Group) Len() int { return len(g.keys) }

// AppendGroup is Append for the fields of a group, none of which the event may have yet. It does nothing and answers false when there is no
// room for all.
func (e *Event) AppendGroup(g *Group) bool {
	if m := len(e.keys) + len(g.keys); m > cap(e.keys) {
		if m > MaxValues {
			return false
		}
		e.Append(g.keys, g.vals)
		return true
	}
	there := e.present[g.from:g.to]
	set := g.set[g.from:g.to][:len(there)]
	for w, b := range set {
		there[w] |= b
	}
	e.take(g)
	return true
}
