package parse

import (
	"math/bits"
	"strings"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// How a recipe is written: what a line's reading looked at is noted while it goes on, and written down at its end.

// note begins to note what the line is read by, if a recipe may be written of it.
func (s *Set) note() {
	c := &s.recipes
	full := c.full
	c.full = false
	if full || c.credit < recipeCost { // where no two lines are alike, and after many lines that were all different, now and then another try
		if c.tries++; c.tries%64 != 0 {
			return
		}
	}
	if c.off || len(s.e.Extras()) > 0 || s.e.Time != 0 {
		return
	}
	n := &c.notes
	*n = notes{on: true, start: s.e.Len(), fuel: s.run.fuel, fields: n.fields[:0], steps: n.steps[:0], set: n.set[:0]}
}

// noteOps does ops as Set.ops does them, and notes them.
func (s *Set) noteOps(ops *packs.Ops) {
	n, e, slots := &s.recipes.notes, s.e, &s.run.slots
	for i := range ops.List {
		op := &ops.List[i]
		v := ""
		if op.Slot >= 0 {
			if v = slots.Get(op.Slot); v == "" {
				continue
			}
		}
		if op.Verb == packs.VerbDrop {
			continue
		}
		at := e.Len()
		if op.Free {
			n.on = false // what it looks at is looked at again
		} else {
			n.look(op)
		}
		if op.Verb == packs.VerbTime && e.Time != 0 { // as it will be in each such line
			continue
		}
		known := op.Key != 0 && e.Has(op.Key)
		x := noted{do: recipeOp{op: op, quick: ops.Quick[i]}, fields: countFields(e, at), from: len(n.set)}
		if op.Plain {
			s.op(op, v)
		} else {
			s.due(op, v)
		}
		n.on = true
		if !op.Free || known && e.Len() == at { // the field has a value, and will have one in each such line
			continue
		}
		for ; at < e.Len(); at++ {
			n.set = append(n.set, e.Keys()[at])
		}
		x.to, x.do.timed = len(n.set), e.Time != 0
		n.steps = append(n.steps, x)
	}
}

// look notes that the values of an op decided something.
func (n *notes) look(op *packs.Op) {
	for _, slot := range [...]int{op.Slot, op.ZoneSlot} {
		if slot >= 0 {
			n.slots.Add(slot)
		}
	}
	for i := range op.Join {
		if slot := op.Join[i].Slot; slot >= 0 {
			n.slots.Add(slot)
		}
	}
}

// countFields is how many different fields stand among the first n values.
func countFields(e *event.Event, n int) int {
	count := 0
	for i := range n {
		if i == 0 || e.Keys()[i] != e.Keys()[i-1] {
			count++
		}
	}
	return count
}

// learn keeps the recipe of the line that was noted. alike says that what was set since the pack's ops is the same for each line with these fields.
func (s *Set) learn(p *packs.Pack, alike bool) {
	c := &s.recipes
	rc := c.notes.written
	c.notes.written = nil
	if !s.finish(rc, alike) {
		return
	}
	c.credit = max(c.credit-recipeCost, 0)
	if c.count >= maxRecipes {
		c.shapes, c.count = [maxShapes]*shape{}, 0
		c.gen++
	}
	there := s.run.slots.Present()
	sh := c.find(p, there)
	if sh == nil {
		sh = &shape{pack: p, there: *there}
		c.put(sh)
	}
	if len(sh.recipes) == maxShapeWays {
		sh.recipes = sh.recipes[:maxShapeWays-1]
		c.count--
	}
	c.count++
	sh.recipes = append([]*recipe{rc}, sh.recipes...)
}

// write writes the recipe as far as the pack's ops go. nil: the line is not one for recipes.
func (s *Set) write() *recipe {
	n, e, slots := &s.recipes.notes, s.e, &s.run.slots
	if s.run.fuel < 0 {
		return nil
	}
	rc := &recipe{fuel: n.fuel - s.run.fuel, words: strings.Clone(s.run.words)}
	for i := range n.start {
		rc.before = append(rc.before, e.Keys()[i])
	}
	for i := range n.steps {
		st := &n.steps[i]
		for _, k := range n.set[st.from:st.to] {
			switch k {
			case event.EventCategory, event.EventType, event.Tags, event.EventOutcome:
				return nil
			}
			for _, f := range n.fields {
				if f == k {
					n.look(st.do.op)
				}
			}
		}
	}
	bytes := len(rc.words)
	for w, b := range n.slots {
		for ; b != 0; b &= b - 1 {
			slot := w<<6 + bits.TrailingZeros64(b)
			if v := slots.Get(slot); v != "" {
				rc.same = append(rc.same, newSame(slot, strings.Clone(v), s.isSpecial(slot)))
				bytes += len(v)
			}
		}
	}
	// Fields stand in the order in which they were set first; further values of a list stand beside its first.
	at, fields := n.start, countFields(e, n.start)
	var now recipeStep
	group := func() { // takes the next field as a constant one
		for k := e.Keys()[at]; at < e.Len() && e.Keys()[at] == k; at++ {
			_, v := e.At(at)
			if v.Kind() == event.String {
				bytes += len(v.Str())
				v = event.StringValue(strings.Clone(v.Str()))
			}
			now.keys, now.values = append(now.keys, k), append(now.values, v)
		}
		fields++
	}
	for i := range n.steps {
		st := &n.steps[i]
		op, set := st.do.op, n.set[st.from:st.to]
		if len(set) == 0 && anywhere(op) {
			if len(op.When) > 0 && byNames(op) && !s.conds(op.When) { // nor will they hold for any such line
				continue
			}
			st.do.zoned = op.ZoneSlot >= 0 && slots.Get(op.ZoneSlot) != ""
			st.do.need = needs(op, slots)
			st.do.dated = st.do.timed && datedOp(op) // so its conditions hold
			rc.checks = append(rc.checks, st.do)
			continue
		}
		for fields < st.fields {
			if at >= e.Len() {
				return nil
			}
			group()
		}
		inPlace := op.Slot >= 0 && fillable(op, set, slots.Get(op.Slot))
		for j, k := range set {
			if at >= e.Len() || e.Keys()[at] != k || at+1 < e.Len() && e.Keys()[at+1] == k {
				return nil
			}
			if inPlace {
				_, v := e.At(at)
				if v.Kind() == event.String {
					v = event.StringValue("")
				}
				if j == 0 {
					f := fill{verb: op.Verb, slot: int16(op.Slot), at: int16(len(now.keys)), both: len(set) == 2}
					if len(op.When) > 0 && !byNames(op) { // else they hold for each such line
						f.op, f.need = op, needs(op, slots)
					}
					now.fills.add(f, s.isSpecial(op.Slot))
				}
				now.keys, now.values = append(now.keys, k), append(now.values, v)
			}
			at++
			fields++
		}
		if !inPlace {
			st.do.need = needs(op, slots)
			now.do, now.set = st.do, append([]event.Key(nil), set...)
			rc.steps = append(rc.steps, now)
			now = recipeStep{}
		}
	}
	for at < e.Len() {
		group()
	}
	rc.steps = append(rc.steps, now)
	if bytes > maxRecipeBytes {
		return nil
	}
	n.mid = e.Len()
	return rc
}

// finish makes a recipe ready for use when the line has been read to its end. The answer is false when it cannot be.
func (s *Set) finish(rc *recipe, alike bool) bool {
	e, mid := s.e, s.recipes.notes.mid
	if alike && mid > 0 && mid < e.Len() && e.Keys()[mid-1] != e.Keys()[mid] {
		last := &rc.steps[len(rc.steps)-1]
		keys, values := last.keys, last.values
		for ; mid < e.Len(); mid++ {
			k, v := e.At(mid)
			keys, values = append(keys, k), append(values, v) // constants of the pack
		}
		last.whole = event.GroupOf(keys, values)
	}
	for i := range rc.steps {
		if st := &rc.steps[i]; len(st.keys) > 0 {
			if st.group = event.GroupOf(st.keys, st.values); st.group == nil {
				return false
			}
			st.keys, st.values = nil, nil
		}
	}
	return true
}

// isSpecial says whether a slot of the pack at work has its value from outside the message.
func (s *Set) isSpecial(slot int) bool {
	for i := range s.run.pack.Special {
		if s.run.pack.Special[i].Slot == slot {
			return true
		}
	}
	return false
}

// byNames says whether an op's conditions ask only which names have values, so that they hold for all lines of a shape or for none.
func byNames(op *packs.Op) bool {
	for _, all := range op.When {
		for i := range all {
			if all[i].Kind != packs.CondPresent || all[i].Slot < 0 {
				return false
			}
		}
	}
	return true
}

// needs gives the slots with a value that an op looks at.
func needs(op *packs.Op, there *packs.Values) (slots []int16) {
	add := func(slot int) {
		if slot >= 0 && there.Get(slot) != "" {
			slots = append(slots, int16(slot))
		}
	}
	add(op.Slot)
	add(op.ZoneSlot)
	for i := range op.Join {
		add(op.Join[i].Slot)
	}
	for _, all := range op.When {
		for i := range all {
			add(all[i].Slot)
		}
	}
	return slots
}

// anywhere says whether an op that set nothing would have done so too before all others: because of its value or its conditions, not because of a
// field that was there.
func anywhere(op *packs.Op) bool {
	switch op.Verb {
	case packs.VerbTime:
		return true
	case packs.VerbText, packs.VerbLower, packs.VerbInt, packs.VerbIP, packs.VerbPort, packs.VerbDomain, packs.VerbMAC, packs.VerbField, packs.VerbTimeField:
		return op.Key != 0
	}
	return false
}

func (c *recipes) find(p *packs.Pack, there *packs.Present) *shape {
	h := shapeHash(p, there)
	for i := range shapeWays {
		if sh := c.shapes[h^i]; sh != nil && sh.pack == p && sh.there == *there {
			return sh
		}
	}
	return nil
}

// put takes up a shape, in place of another when there is no room.
func (c *recipes) put(sh *shape) {
	h := shapeHash(sh.pack, &sh.there)
	place := &c.shapes[h^int(c.tries%shapeWays)]
	for i := range shapeWays {
		if c.shapes[h^i] == nil {
			place = &c.shapes[h^i]
			break
		}
	}
	if old := *place; old != nil {
		c.count -= len(old.recipes)
		c.tries++
		c.gen++
	}
	*place = sh
}

func shapeHash(p *packs.Pack, there *packs.Present) int {
	h := p.Seed
	for _, w := range there {
		h = (h ^ w) * 0x9E3779B97F4A7C15
		h ^= h >> 29
	}
	return int(h & (maxShapes - 1))
}
