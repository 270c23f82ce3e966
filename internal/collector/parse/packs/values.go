package packs

import (
	"math/bits"

	"tocsin/internal/event"
)

// Values are the native values of one line by slot, with a bit for each that is there, so that neither clearing nor going through them
// costs more than there are.
type Values struct {
	v     [MaxSlots]string
	there Present
	got   [maxParts]string // scratch of Match
}

// Present is which slots have a value, a bit each.
type Present [(MaxSlots + 63) / 64]uint64

// Add puts a slot in.
func (p *Present) Add(slot int) { p[slot>>6] |= 1 << (slot & 63) }

// Has says whether a slot is in.
func (p *Present) Has(slot int) bool { return p[slot>>6]&(1<<(slot&63)) != 0 }

// Present is which slots have a value.
func (x *Values) Present() *Present { return &x.there }

// Get gives the value of a slot, "" when there is none.
func (x *Values) Get(slot int) string {
	if x.there[slot>>6]&(1<<(slot&63)) == 0 {
		return ""
	}
	return x.v[slot]
}

// Known is Get for a slot that has a value.
func (x *Values) Known(slot int) string { return x.v[slot] }

// Put sets a value in place of one that was there.
func (x *Values) Put(slot int, s string) {
	x.v[slot] = s
	x.there[slot>>6] |= 1 << (slot & 63)
}

// First sets a value unless there is one.
func (x *Values) First(slot int, s string) {
	if x.there[slot>>6]&(1<<(slot&63)) == 0 {
		x.Put(slot, s)
	}
}

// Clear takes all values out. Their memory is let go when others come in their places, or by Forget.
func (x *Values) Clear() { x.there = Present{} }

// Forget is Clear, and lets go of the memory.
func (x *Values) Forget() { *x = Values{} }

// Ops is a list of ops that can be gone through without looking at those whose value is not there.
type Ops struct {
	List   []Op
	Quick  []Quick  // by op
	words  int      // of 64 ops
	word   []uint8  // by slot: the word in which most of the ops stand that need it,
	mask   []uint64 // and their bits in it
	rest   [][]int  // by slot: ops in other words
	far    bool     // there are such
	always []uint64 // ops without a slot
}

// Quick is what is needed of most ops, in little memory: for VerbText, VerbInt, VerbIP, VerbPort and VerbLower without anything to be done
// before. Slot is negative for all others.
type Quick struct {
	Verb Verb
	Slot int16
	Key  event.Key
}

// Todo is which ops of a list are to be done, a bit each.
type Todo [(maxOps + 63) / 64]uint64

func newOps(list []Op, slots int) Ops {
	o := Ops{List: list, Quick: make([]Quick, len(list)), words: (len(list) + 63) / 64}
	o.always = make([]uint64, o.words)
	o.word, o.mask, o.rest = make([]uint8, slots), make([]uint64, slots), make([][]int, slots)
	for i := range list {
		op := &list[i]
		op.Plain = len(op.When) == 0 && len(op.Join) == 0 && op.After == "" && op.Before == "" && op.Table == nil
		op.Free = op.free()
		o.Quick[i].Slot = -1
		if op.Verb == VerbDrop { // its slot is known, which is all there is to do
			continue
		}
		s := op.Slot
		if s < 0 {
			o.always[i>>6] |= 1 << (i & 63)
			continue
		}
		switch op.Verb {
		case VerbText, VerbInt, VerbIP, VerbPort, VerbLower:
			if op.Plain {
				o.Quick[i] = Quick{Verb: op.Verb, Slot: int16(s), Key: op.Key}
			}
		}
		switch w := i >> 6; {
		case o.mask[s] == 0:
			o.word[s], o.mask[s] = uint8(w), 1<<(i&63)
		case int(o.word[s]) == w:
			o.mask[s] |= 1 << (i & 63)
		default:
			o.rest[s] = append(o.rest[s], i)
			o.far = true
		}
	}
	return o
}

// Due fills todo with the ops whose value is there and gives how many words of it count.
func (o *Ops) Due(x *Values, todo *Todo) int {
	copy(todo[:], o.always)
	for w, b := range x.there {
		for ; b != 0; b &= b - 1 {
			s := w<<6 + bits.TrailingZeros64(b)
			if s >= len(o.mask) {
				break
			}
			todo[o.word[s]] |= o.mask[s]
			if o.far {
				for _, i := range o.rest[s] {
					todo[i>>6] |= 1 << (i & 63)
				}
			}
		}
	}
	return o.words
}

// free says whether an op only sets fields that have no value yet, from its own values, and does that alike whatever other fields hold: so it
// can be done anew on the next line while what was decided on the last line stands. Fields that hold lists, and event.outcome, which some
// verbs overwrite, are not free; nor are verbs that decide.
func (op *Op) free() bool {
	if op.Slot < 0 && len(op.Join) == 0 {
		return false
	}
	switch op.Verb {
	case VerbText, VerbLower, VerbInt, VerbIP, VerbPort, VerbDomain, VerbMAC, VerbField, VerbTime, VerbTimeField, VerbUser, VerbSource, VerbDestination,
		VerbSourceNAT, VerbDestinationNAT, VerbTransport, VerbService, VerbURL, VerbMethod, VerbHash, VerbLevel, VerbDuration, VerbDurationMS, VerbFile, VerbKeep:
	default:
		return false
	}
	switch op.Key {
	case event.EventCategory, event.EventType, event.Tags, event.EventOutcome:
		return false
	}
	for _, all := range op.When {
		for i := range all {
			if all[i].Slot < 0 {
				return false
			}
		}
	}
	return true
}
