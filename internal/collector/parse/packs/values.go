package packs

import "math/bits"

// Values are the native values of one line by slot, with a bit for each that is there, so that neither clearing nor going through them
// costs more than there are.
type Values struct {
	v     [MaxSlots]string
	there [slotWords]uint64
}

const slotWords = (MaxSlots + 63) / 64

// Get gives the value of a slot, "" when there is none.
func (x *Values) Get(slot int) string { return x.v[slot] }

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

// Clear takes all values out.
func (x *Values) Clear() {
	for w, b := range x.there {
		for ; b != 0; b &= b - 1 {
			x.v[w<<6+bits.TrailingZeros64(b)] = ""
		}
		x.there[w] = 0
	}
}

// Ops is a list of ops that can be gone through without looking at those whose value is not there.
type Ops struct {
	List   []Op
	bySlot [][]uint64 // for each slot the ops that need it, a bit each; nil for none
	always []uint64   // ops without a slot
}

// Todo is which ops of a list are to be done, a bit each.
type Todo [(maxOps + 63) / 64]uint64

func newOps(list []Op, slots int) Ops {
	o := Ops{List: list}
	words := (len(list) + 63) / 64
	o.always = make([]uint64, words)
	for i := range list {
		op := &list[i]
		op.Plain = len(op.When) == 0 && len(op.Join) == 0 && op.After == "" && op.Before == "" && op.Table == nil
		if op.Verb == VerbDrop { // its slot is known, which is all there is to do
			continue
		}
		at := o.always
		if s := list[i].Slot; s >= 0 {
			if o.bySlot == nil {
				o.bySlot = make([][]uint64, slots)
			}
			if o.bySlot[s] == nil {
				o.bySlot[s] = make([]uint64, words)
			}
			at = o.bySlot[s]
		}
		at[i>>6] |= 1 << (i & 63)
	}
	return o
}

// Due fills todo with the ops whose value is there and gives how many words of it count.
func (o *Ops) Due(x *Values, todo *Todo) int {
	copy(todo[:], o.always)
	if o.bySlot == nil {
		return len(o.always)
	}
	for w, b := range x.there {
		for ; b != 0; b &= b - 1 {
			s := w<<6 + bits.TrailingZeros64(b)
			if s >= len(o.bySlot) {
				break
			}
			for i, m := range o.bySlot[s] {
				todo[i] |= m
			}
		}
	}
	return len(o.always)
}
