package packs

import (
	"math/bits"

	"tocsin/internal/event"
)

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
	Quick  []Quick  // by op
	words  int      // of 64 ops
	one    []int16  // by slot: the only op that needs it, or none or several
	needs  []uint64 // by slot, words of each: the ops that need it, a bit each
	always []uint64 // ops without a slot
}

// Quick is what is needed of most ops, in little memory: for VerbText, VerbInt, VerbIP, VerbPort and VerbLower without anything to be done
// before. Slot is negative for all others.
type Quick struct {
	Verb Verb
	Slot int16
	Key  event.Key
}

const (
	noOp  = -1
	anyOp = -2
)

// Todo is which ops of a list are to be done, a bit each.
type Todo [(maxOps + 63) / 64]uint64

func newOps(list []Op, slots int) Ops {
	o := Ops{List: list, Quick: make([]Quick, len(list)), words: (len(list) + 63) / 64}
	o.always = make([]uint64, o.words)
	o.one = make([]int16, slots)
	for s := range o.one {
		o.one[s] = noOp
	}
	for i := range list {
		op := &list[i]
		op.Plain = len(op.When) == 0 && len(op.Join) == 0 && op.After == "" && op.Before == "" && op.Table == nil
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
		if o.one[s] == noOp {
			o.one[s] = int16(i)
		} else {
			o.one[s] = anyOp
		}
		if o.needs == nil {
			o.needs = make([]uint64, slots*o.words)
		}
		o.needs[s*o.words+i>>6] |= 1 << (i & 63)
	}
	return o
}

// Due fills todo with the ops whose value is there and gives how many words of it count.
func (o *Ops) Due(x *Values, todo *Todo) int {
	copy(todo[:], o.always)
	for w, b := range x.there {
		for ; b != 0; b &= b - 1 {
			s := w<<6 + bits.TrailingZeros64(b)
			if s >= len(o.one) {
				break
			}
			switch i := o.one[s]; i {
			case noOp:
			case anyOp:
				for k, m := range o.needs[s*o.words : (s+1)*o.words] {
					todo[k] |= m
				}
			default:
				todo[i>>6] |= 1 << (i & 63)
			}
		}
	}
	return o.words
}
