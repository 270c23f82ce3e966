package parse

import (
	"math/bits"
	"strings"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// A device's lines differ in addresses, ports and numbers, seldom in what they are. So what a pack's messages, rules and ops made of one line
// is written down as a recipe: the fields that were the same for every such line, and the ops that take a value of the line, in order. The next
// line that has the same names, and the same values where a condition or a deciding op looked at one, is done by the recipe, without asking
// all conditions again.
//
// It changes no answer. What a condition looks at is noted while the line is read the long way, so nothing is guessed; an op that is done
// anew must set the same fields as it did then (a port 0 sets none), or the line is read the long way after all. Recipes are bounded and may
// be forgotten at any time.

// recipe is how to make the fields of one kind of line.
type recipe struct {
	same   []sameValue // values that decided something: they must be the same
	before []event.Key // fields that the reading of the line's form had set by then
	steps  []recipeStep
	words  string // of run.words
	fuel   int    // what the long way cost
}

type sameValue struct {
	slot  int
	value string
}

// recipeStep puts some fields at once, some of them with a value of the line, then does one op.
type recipeStep struct {
	keys   []event.Key   // while it is written
	values []event.Value // likewise; those of the line are to be filled in
	group  *event.Group  // of both; nil: none
	texts  []fill
	others []fill
	op     *packs.Op // nil in the last step
	quick  packs.Quick
	set    []event.Key // the fields that the op sets
	timed  bool        // the event has a time behind it
}

// fill puts a value of the line into a field.
type fill struct {
	verb packs.Verb
	slot int16
	at   int16 // among the step's fields
}

// shape is which names a line of one pack has values for.
type shape struct {
	pack    *packs.Pack
	there   packs.Present
	recipes []*recipe // the last one used first
}

// recipes are those of a Set.
type recipes struct {
	shapes [maxShapes]*shape
	count  int
	credit int // what may still be spent on writing recipes; lines done by one bring more
	tries  uint
	notes  notes
	off    bool // for tests
}

// Bounds: anybody who may send lines may make kinds of lines.
const (
	maxShapes      = 256 // a power of two
	shapeWays      = 4   // places where a shape may stand
	maxRecipes     = 512
	maxShapeWays   = 12      // recipes of one shape
	maxRecipeBytes = 4 << 10 // texts of one recipe
	recipeCost     = 4       // lines that a recipe must have done, on average, before another is written
	maxCredit      = 256
)

// notes is what is noted of a line while it is read the long way.
type notes struct {
	on     bool
	slots  packs.Present
	fields []event.Key // fields whose value was looked at
	steps  []noted
	set    []event.Key
}

type noted struct {
	op       *packs.Op
	quick    packs.Quick
	fields   int // how many fields the event had before
	from, to int // in notes.set: the fields that it set
	timed    bool
}

// recall does the line at hand by a recipe, if there is one for it.
func (s *Set) recall(p *packs.Pack) bool {
	c := &s.recipes
	slots := &s.run.slots
	sh := c.find(p, slots.Present())
	if sh == nil || c.off {
		return false
	}
recipes:
	for i, rc := range sh.recipes {
		for k := range rc.same {
			if g := &rc.same[k]; slots.Known(g.slot) != g.value {
				continue recipes
			}
		}
		if !s.follow(rc) {
			continue
		}
		if i > 0 {
			copy(sh.recipes[1:i+1], sh.recipes[:i])
			sh.recipes[0] = rc
		}
		c.credit = min(c.credit+1, maxCredit)
		return true
	}
	return false
}

// follow does what a recipe says. When it answers false, the event is as it was before.
func (s *Set) follow(rc *recipe) bool {
	e := s.e
	start := e.Len()
	if start != len(rc.before) || s.run.fuel < rc.fuel+packFuel/2 {
		return false
	}
	for i, k := range rc.before {
		if e.Keys()[i] != k {
			return false
		}
	}
	for i := range rc.steps {
		if !s.followStep(&rc.steps[i]) {
			e.Truncate(start)
			e.ClearExtras()
			e.Time = 0
			return false
		}
	}
	s.run.words = rc.words
	return true
}

func (s *Set) followStep(st *recipeStep) bool {
	e, slots := s.e, &s.run.slots
	at := e.Len()
	if st.group != nil {
		if !e.AppendGroup(st.group) {
			return false
		}
		for _, f := range st.texts {
			v := slots.Known(int(f.slot))
			if v == "" {
				return false
			}
			if v[0] <= ' ' || v[len(v)-1] <= ' ' {
				v = trim(v)
			}
			if len(v) <= 4 && empty(v) {
				return false
			}
			e.PutString(at+int(f.at), v)
		}
		for _, f := range st.others {
			if !s.fill(f.verb, at+int(f.at), slots.Known(int(f.slot))) {
				return false
			}
		}
		at += st.group.Len()
	}
	op := st.op
	if op == nil {
		return true
	}
	if q := &st.quick; q.Slot >= 0 {
		s.quick(q, slots.Get(int(q.Slot)))
	} else {
		v := ""
		if op.Slot >= 0 {
			v = slots.Get(op.Slot)
		}
		if op.Plain {
			s.op(op, v)
		} else {
			s.due(op, v)
		}
	}
	if e.Len() != at+len(st.set) || (e.Time != 0) != st.timed {
		return false
	}
	for k, key := range st.set {
		if e.Keys()[at+k] != key {
			return false
		}
	}
	return true
}

// fillable says whether a value goes into the event by fill: the op sets one field, whose value depends on nothing else.
func fillable(op *packs.Op, set []event.Key) bool {
	if !op.Plain || op.Slot < 0 || len(set) != 1 {
		return false
	}
	switch op.Verb {
	case packs.VerbText, packs.VerbLower, packs.VerbInt, packs.VerbIP, packs.VerbPort:
		return set[0] == op.Key
	case packs.VerbTransport:
		return set[0] == event.NetworkTransport
	case packs.VerbUser:
		return set[0] == op.Key || op.Key == 0 && set[0] == event.UserName
	case packs.VerbDuration:
		return set[0] == event.EventDuration
	}
	return false
}

// fill sets the value of the field at a place as quick and op would; false when they would set none.
func (s *Set) fill(verb packs.Verb, at int, v string) bool {
	switch verb {
	case packs.VerbInt, packs.VerbPort:
		n, ok := atoi(v)
		if !ok || verb == packs.VerbPort && (n <= 0 || n >= 65536) {
			return false
		}
		s.e.PutInt(at, n)
		return true
	case packs.VerbIP:
		if a, n := ipv4At(v); n > 0 && n == len(v) {
			s.e.PutIPv4(at, a)
			return true
		}
		a, _, ok := ipPort(v)
		if ok {
			s.e.PutIP(at, a)
		}
		return ok
	case packs.VerbDuration:
		n, ok := secondsOf(v)
		if ok {
			s.e.PutInt(at, n)
		}
		return ok
	case packs.VerbTransport:
		v = transportName(trim(v))
	case packs.VerbUser:
		v = person(v)
	default:
		if v != "" && (v[0] <= ' ' || v[len(v)-1] <= ' ') {
			v = trim(v)
		}
	}
	if len(v) <= 4 && empty(v) {
		return false
	}
	if verb == packs.VerbLower {
		v = s.lower(v)
	}
	s.e.PutString(at, v)
	return true
}

// note begins to note what the line is read by, if a recipe may be written of it.
func (s *Set) note() {
	c := &s.recipes
	if c.credit < recipeCost { // after many lines that were all different, now and then another try
		if c.tries++; c.tries%64 != 0 {
			return
		}
	}
	if c.off || len(s.e.Extras()) > 0 || s.e.Time != 0 {
		return
	}
	n := &c.notes
	*n = notes{on: true, fields: n.fields[:0], steps: n.steps[:0], set: n.set[:0]}
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
		x := noted{op: op, quick: ops.Quick[i], fields: countFields(e, at), from: len(n.set)}
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
		x.to, x.timed = len(n.set), e.Time != 0
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

// learn writes the recipe of the line that was noted. start is how many values the event had before, fuel what the line has cost since then.
func (s *Set) learn(p *packs.Pack, start, fuel int) {
	c := &s.recipes
	n := &c.notes
	n.on = false
	if s.run.fuel < 0 {
		return
	}
	rc := s.write(start, fuel)
	if rc == nil {
		return
	}
	c.credit = max(c.credit-recipeCost, 0)
	if c.count >= maxRecipes {
		c.shapes, c.count = [maxShapes]*shape{}, 0
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

func (s *Set) write(start, fuel int) *recipe {
	n, e, slots := &s.recipes.notes, s.e, &s.run.slots
	rc := &recipe{fuel: fuel, words: strings.Clone(s.run.words)}
	for i := range start {
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
					n.look(st.op)
				}
			}
		}
	}
	bytes := len(rc.words)
	for w, b := range n.slots {
		for ; b != 0; b &= b - 1 {
			slot := w<<6 + bits.TrailingZeros64(b)
			if v := slots.Get(slot); v != "" {
				rc.same = append(rc.same, sameValue{slot, strings.Clone(v)})
				bytes += len(v)
			}
		}
	}
	// Fields stand in the order in which they were set first; further values of a list stand beside its first.
	at, fields := start, countFields(e, start)
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
		for fields < st.fields {
			if at >= e.Len() {
				return nil
			}
			group()
		}
		set := n.set[st.from:st.to]
		inPlace := fillable(st.op, set)
		for _, k := range set {
			if at >= e.Len() || e.Keys()[at] != k || at+1 < e.Len() && e.Keys()[at+1] == k {
				return nil
			}
			if inPlace {
				_, v := e.At(at)
				if v.Kind() == event.String {
					v = event.StringValue("")
				}
				f := fill{verb: st.op.Verb, slot: int16(st.op.Slot), at: int16(len(now.keys))}
				if f.verb == packs.VerbText {
					now.texts = append(now.texts, f)
				} else {
					now.others = append(now.others, f)
				}
				now.keys, now.values = append(now.keys, k), append(now.values, v)
			}
			at++
			fields++
		}
		if !inPlace {
			now.op, now.quick, now.set, now.timed = st.op, st.quick, append([]event.Key(nil), set...), st.timed
			rc.steps = append(rc.steps, now)
			now = recipeStep{}
		}
	}
	for at < e.Len() {
		group()
	}
	if bytes > maxRecipeBytes {
		return nil
	}
	rc.steps = append(rc.steps, now)
	for i := range rc.steps {
		if st := &rc.steps[i]; len(st.keys) > 0 {
			if st.group = event.GroupOf(st.keys, st.values); st.group == nil {
				return nil
			}
			st.keys, st.values = nil, nil
		}
	}
	return rc
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
