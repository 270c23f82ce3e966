package parse

import (
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
	same   []sameValue  // values that decided something: they must be the same
	before []event.Key  // fields that the reading of the line's form had set by then
	checks []recipeOp   // ops that set no field, which they must do again: read times, and ports 0
	steps  []recipeStep // the last one has no op
	words  string       // of run.words
	fuel   int          // what the long way cost
}

type sameValue struct {
	slot    int
	value   string
	lo, hi  uint64 // its first sixteen bytes
	mask    [2]uint64
	n       uint32
	special bool // not a value of the line's text
}

// recipeStep puts some fields at once, some of them with a value of the line, then does one op.
type recipeStep struct {
	keys   []event.Key   // while it is written
	values []event.Value // likewise; those of the line are to be filled in
	group  *event.Group  // of both; nil: none
	whole  *event.Group  // of the last step: the same, and what every line of the pack gets at its end; nil: not known
	fills  fills
	do     recipeOp    // do.op is nil in the last step
	set    []event.Key // the fields that the op sets
}

// recipeOp is an op that is done as the long way does it.
type recipeOp struct {
	op    *packs.Op
	quick packs.Quick
	need  []int16 // the slots that it looks at
	timed bool    // the event has a time behind it
	zoned bool    // a zone is among its values
	dated bool    // it reads a date and a clock (see dateMemory), and its conditions hold
}

// fill puts a value of the line into a field.
type fill struct {
	verb packs.Verb
	slot int16
	at   int16     // among the step's fields
	op   *packs.Op // whose conditions must hold; nil: none
	need []int16   // the slots that they look at
	both bool      // it fills the next field as well
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
	gen    int // rises when a shape is no longer to be used
	credit int // what may still be spent on writing recipes; lines done by one bring more
	tries  uint
	full   bool // there are as many recipes for the line's shape as may be, and none was for it
	notes  notes
	date   dateMemory
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
	on      bool
	start   int     // values that the event had before
	fuel    int     // what the line might cost then
	mid     int     // values that it had when the pack's ops had been done
	written *recipe // of the line at hand, but for its end
	slots   packs.Present
	fields  []event.Key // fields whose value was looked at
	steps   []noted
	set     []event.Key
}

type noted struct {
	do       recipeOp
	fields   int // how many fields the event had before
	from, to int // in notes.set: the fields that it set
}

// recall does the line at hand by a recipe, if there is one for it. whole says that this did all that packRead does at its end, but for the names
// that the pack does not speak of.
func (s *Set) recall(p *packs.Pack) (done, whole bool) {
	c := &s.recipes
	sh := c.find(p, s.run.slots.Present())
	if sh == nil || c.off {
		return false, false
	}
	return s.byShape(sh)
}

// byShape is recall for a line whose shape is known.
func (s *Set) byShape(sh *shape) (done, whole bool) {
recipes:
	for i, rc := range sh.recipes {
		for k := range rc.same {
			if g := &rc.same[k]; !g.same(&s.run) {
				if k > 0 { // what differs often is asked first
					rc.same[k-1], rc.same[k] = rc.same[k], rc.same[k-1]
				}
				continue recipes
			}
		}
		if done, whole = s.follow(rc); !done {
			continue
		}
		if i > 0 {
			copy(sh.recipes[1:i+1], sh.recipes[:i])
			sh.recipes[0] = rc
		}
		c := &s.recipes
		c.credit = min(c.credit+1, maxCredit)
		return true, whole
	}
	s.recipes.full = len(sh.recipes) == maxShapeWays
	return false, false
}

// follow does what a recipe says. When it answers false, the event is as it was before.
func (s *Set) follow(rc *recipe) (done, whole bool) {
	e := s.e
	start := e.Len()
	if start != len(rc.before) || s.run.fuel < rc.fuel+packFuel/2 {
		return false, false
	}
	for i, k := range rc.before {
		if e.Keys()[i] != k {
			return false, false
		}
	}
	if !s.steps(rc, start) {
		e.Truncate(start)
		e.ClearExtras()
		e.Time = 0
		return false, false
	}
	s.run.words = rc.words
	return true, s.run.odd == 0 && rc.steps[len(rc.steps)-1].whole != nil
}

func (s *Set) steps(rc *recipe, start int) bool {
	e := s.e
	for i := range rc.checks {
		do := &rc.checks[i]
		if do.dated && e.Time == 0 {
			if ns, ok := s.dated(do); ok {
				e.Time = ns
				continue
			}
		}
		if s.run.direct {
			s.run.bring(do.need)
		}
		s.do(do)
		if e.Len() != start || (e.Time != 0) != do.timed {
			return false
		}
	}
	for i := range rc.steps {
		if !s.followStep(&rc.steps[i]) {
			return false
		}
	}
	return true
}

// do does one op.
func (s *Set) do(do *recipeOp) {
	slots := &s.run.slots
	if q := &do.quick; q.Slot >= 0 {
		s.quick(q, slots.Get(int(q.Slot)))
		return
	}
	op, v := do.op, ""
	if op.Slot >= 0 {
		v = slots.Get(op.Slot)
	}
	if op.Plain {
		s.op(op, v)
	} else {
		s.due(op, v)
	}
}

func (s *Set) followStep(st *recipeStep) bool {
	e, r := s.e, &s.run
	at := e.Len()
	group := st.group
	if st.whole != nil && r.odd == 0 {
		group = st.whole
	}
	if group != nil {
		if !e.AppendGroup(group) {
			return false
		}
		if !s.fillAll(&st.fills, at) {
			return false
		}
	}
	if st.do.op == nil {
		return true
	}
	at = e.Len()
	if s.run.direct {
		s.run.bring(st.do.need)
	}
	s.do(&st.do)
	if e.Len() != at+len(st.set) {
		return false
	}
	for k, key := range st.set {
		if e.Keys()[at+k] != key {
			return false
		}
	}
	return true
}
