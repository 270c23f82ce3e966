package parse

import (
	"slices"
	"strings"
	"unsafe"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// A device writes the same names in the same order again and again. A trail is such an order: the next line with the same names is gone along by
// comparing each with the one expected, and of the values only the places in the line are noted. The end of a trail knows which shape its lines
// have (see recipe), so that most lines become an event without a table of values ever being made.
//
// Trails branch where lines of one device differ. They change no answer: a line that leaves all of them is read on name by name, from where it
// did. They are bounded, may be forgotten at any time, and take up a new order only while most lines keep to old ones.

// place is one name on a trail.
type place struct {
	lit    [maxLit]byte // the byte before the name, the name, the equals sign
	mask   [maxLit]byte // which bytes of lit count
	size   int          // how many that are
	at     int          // where in treads.spans its value is noted
	next   *place       // what may stand behind it
	beside *place       // what may stand instead of it
	name   *name
	before *place
	depth  int
	end    *trailEnd // nil: no line has ended here yet
}

// trailEnd is what is known of lines that went a whole trail.
type trailEnd struct {
	all    []*place      // its names
	there  packs.Present // slots of its names
	others []*place      // names that the pack does not speak of, in their order
	odd    int           // of these that may be fields
	direct bool          // nothing else is to be read from the line, but for steps
	steps  []*packs.Step // line patterns of values that are there
	taken  []int16       // the slots that they may fill, none of which is in there
	shape  *shape        // of lines that have all values; nil: not known
	gen    int           // of recipes, when it was known
	extra  uint64        // r.extra then
	filled uint64        // r.filled then
}

// trails are those of one pack.
type trails struct {
	on     bool // the pack's lines are read so
	cef    bool // unless they are CEF
	bare   bool
	root   place
	places int
	full   int // orders that found no place
	pack   *packs.Pack
}

// span is where a value stands in the text. With from behind to it stands in run.slots.
type span struct{ from, to uint32 }

// Bounds: anybody who may send lines may make orders of names.
const (
	maxLit      = 32   // bytes of a name with what stands around it
	maxTrail    = 160  // names
	maxPlaces   = 4096 // of all packs
	maxBeside   = 12
	trailCredit = 2048 // places that may be made before lines have gone along trails; each that did brings trailGain more
	trailGain   = 2
	maxSpans    = 1024 // a power of two, above packs.MaxSlots + maxTrail
)

// treads is what going along trails needs.
type treads struct {
	spans  [maxSpans]span
	tail   [128]byte            // room for the end of a line, blanks behind it
	hollow [4 * maxTrail]uint16 // of spans: those found empty, once or twice
	pipes  bool                 // perhaps one stands among what was gone along
	holes  int                  // how many are in hollow
	extra  uint64               // which of the pack's values from outside the text are there, a bit each
	filled uint64               // which slots of the trail's end have been filled by steps, a bit each
	direct bool                 // values are looked up in spans
	text   string
	path   [maxTrail]*name
	gaps   [maxTrail]byte // what stood before each of them; 0 before the first
	depth  int
	known  bool // path is all of the line so far
	credit int
	tries  uint
	places int // of all packs
}

func (x *treads) start() {
	x.credit = trailCredit
	for i := range x.tail {
		x.tail[i] = ' '
	}
}

// trailsOf says whether and how the pack's lines are read by trails: its first step takes the message apart as key=value.
func trailsOf(p *packs.Pack) trails {
	t := trails{pack: p}
	if len(p.Read) == 0 || len(p.Special) > 64 {
		return t
	}
	message := func(st *packs.Step) bool { return p.Slots[st.In] == ".message" && st.After == "" }
	st := &p.Read[0]
	if !message(st) {
		return t
	}
	if st.Kind == packs.StepAny {
		if len(st.Any) != 2 || st.Any[0].Kind != packs.StepCEF || !message(&st.Any[0]) {
			return t
		}
		t.cef, st = true, &st.Any[1]
	}
	t.on = st.Kind == packs.StepKV && message(st) && st.Pairs == "" && st.Equals == "=" && st.Prefix == ""
	t.bare = st.Bare
	return t
}

// mayTrail is a look that tells most packs that are not read by trails.
func mayTrail(p *packs.Pack) bool {
	if len(p.Read) == 0 {
		return false
	}
	st := &p.Read[0]
	return st.Kind == packs.StepKV || st.Kind == packs.StepAny && len(st.Any) == 2 && st.Any[1].Kind == packs.StepKV
}

// set makes a place for what is compared.
func (n *place) set(lit string) {
	n.size = copy(n.lit[:], lit)
	for i := range lit {
		n.mask[i] = 0xff
	}
}

// along goes along the trails of m as far as t does. It gives the last place, the root if there is none, and where the text goes on behind its
// value. Up to there the places of all values are noted.
func (s *Set) along(t string, m *memory) (n *place, i int) {
	r := &s.run
	r.holes, r.pipes = 0, false
	n, skipped := &m.root, -1
	for {
		var done bool
		if n, i, done = tread(&r.treads, t, i, n, m.bare); !done {
			j, k := i+n.size, 0
			j, k, i = valueAt(t, j, m.bare)
			r.spans[n.at&(maxSpans-1)] = span{uint32(j), uint32(k)}
			if j == k {
				r.hollow[r.holes] = uint16(n.at)
				r.holes++
			}
			continue
		}
		if i == len(t) || i == skipped || n == &m.root {
			return n, i
		}
		skipped = i // perhaps there are more blanks or commas than usual
		for i+1 < len(t) && (t[i] == ' ' || t[i] == ',' && !m.bare) && (t[i+1] == ' ' || t[i+1] == ',' && !m.bare) {
			i++
		}
		if i == skipped {
			return n, i
		}
		skipped = i
	}
}

// treadPlain goes along the trails behind x, whose value has been read, from t[at:] on, and notes the values that are read easily. With done y is the
// last place, and what stands at t[i:] is not known there. Otherwise the name of y stands at t[i:], and its value is to be read otherwise.
func treadPlain(r *treads, t string, at int, x *place, bare bool) (y *place, i int, done bool) {
	i, r.pipes = at, true
	for open := false; ; {
		n := x.next
		for n != nil && !(len(t)-i >= n.size && t[i:i+n.size] == string(n.lit[:n.size])) {
			n = n.beside
		}
		if n == nil {
			if open && i < len(t) {
				return x, at, false
			}
			return x, i, true
		}
		x, at = n, i
		j, k := i+n.size, 0
		switch {
		case j < len(t) && t[j] == '"':
			j++
			if k = quoteAt(t, j); k < 0 || t[k-1] == '\\' {
				return x, at, false
			}
			i, open = k+1, false
		case j < len(t) && t[j] == '\'':
			return x, at, false
		default:
			k = valueEnd(t, j)
			r.spans[n.at&(maxSpans-1)] = span{uint32(j), uint32(k)}
			if open = bare; bare && (k < len(t) && t[k] != ' ' || k > j && t[k-1] <= ' ') {
				return x, at, false
			}
			i = k
		}
		r.spans[n.at&(maxSpans-1)] = span{uint32(j), uint32(k)}
		if j == k {
			r.hollow[r.holes] = uint16(n.at)
			r.holes++
		}
	}
}

// valueAt reads the value at t[i:] as stepPairs does, and gives its place and that behind it.
func valueAt(t string, i int, bare bool) (from, to, end int) {
	if i == len(t) {
		return i, i, i
	}
	var v string
	v, end = pairValue(t, i, bare)
	if v == "" {
		return i, i, end
	}
	from = int(uintptr(unsafe.Pointer(unsafe.StringData(v))) - uintptr(unsafe.Pointer(unsafe.StringData(t))))
	return from, from + len(v), end
}

// trail reads the message of a pack that is read by trails. end is the end of a trail that is all of the line: its values are in run.spans alone.
// Otherwise they are in run.slots and run.others, as the pack's first step would have put them; ok says what that step would have answered.
// done is false when nothing was done.
func (s *Set) trail(p *packs.Pack, t string) (end *trailEnd, ok, done bool) {
	r := &s.run
	s.memoryFor(p)
	m := r.memory
	if !m.on {
		return nil, false, false
	}
	n, i := s.along(t, m)
	if m.cef && (r.pipes || i < len(t)) && strings.IndexByte(t, '|') >= 0 {
		return nil, false, false
	}
	r.depth, r.known = 0, true
	if n == &m.root {
		return nil, s.pairs(t, 0, &m.start, maxPairs, m.bare), true
	}
	if i == len(t) && n.end != nil {
		r.credit = min(r.credit+trailGain, trailCredit)
		if n.end.direct {
			s.stepsOf(t, n.end)
			return n.end, true, true
		}
		s.spreadAll(t, n.end)
		return nil, true, true
	}
	s.spread(t, n)
	return nil, s.pairs(t, i, n.name, maxPairs-n.depth, m.bare), true
}

// stepsOf takes the pack's steps behind the first for a line that went a whole trail. What they find is put where values of the trail are.
func (s *Set) stepsOf(t string, end *trailEnd) {
	r := &s.run
	r.filled = 0
	for _, st := range end.steps {
		if v := r.cut(t, st.In); v != "" {
			r.slots.Put(st.In, v)
			s.step(st, t)
		}
	}
	base := uintptr(unsafe.Pointer(unsafe.StringData(t)))
	for i, slot := range end.taken {
		if v := r.slots.Get(int(slot)); v != "" { // a part of a value of the line
			from := uint32(uintptr(unsafe.Pointer(unsafe.StringData(v))) - base)
			r.spans[slot&(maxSpans-1)] = span{from, from + uint32(len(v))}
			r.filled |= 1 << (i & 63)
		}
	}
}

// spreadAll is spread for a line that went a whole trail.
func (s *Set) spreadAll(t string, end *trailEnd) {
	r := &s.run
	p := unsafe.Pointer(unsafe.StringData(t))
	for _, n := range end.all {
		sp := r.spans[n.at&(maxSpans-1)]
		if sp.from == sp.to {
			continue
		}
		v := unsafe.String((*byte)(unsafe.Add(p, sp.from)), sp.to-sp.from)
		x := n.name
		if x.slot >= 0 {
			r.slots.Put(x.slot, v) // no name of a trail has the slot of another, or one that has a value already
			if x.mapped {
				continue
			}
		}
		s.otherName(x, v)
	}
}

// spread puts the values of a trail up to n where those of other lines are put.
func (s *Set) spread(t string, n *place) {
	r := &s.run
	r.depth = n.depth
	at := [maxTrail]uint16{}
	for ; n.depth > 0; n = n.before {
		r.path[n.depth-1], at[n.depth-1], r.gaps[n.depth-1] = n.name, uint16(n.at), n.lit[0]
	}
	for d, x := range r.path[:r.depth] {
		v := r.cut(t, int(at[d]))
		if v == "" {
			continue
		}
		if x.slot >= 0 {
			r.slots.First(x.slot, v)
			if x.mapped {
				continue
			}
		}
		s.otherName(x, v)
	}
}

// cut gives a value that is noted in spans, which is of t.
func (x *treads) cut(t string, at int) string {
	sp := x.spans[at&(maxSpans-1)]
	if sp.from == sp.to { // perhaps behind the last byte of the text, where nothing may point
		return ""
	}
	return unsafe.String((*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(t)), sp.from)), sp.to-sp.from)
}

// value gives the value of a slot that has one, wherever it is.
func (r *run) value(slot int) string {
	if r.direct {
		sp := r.spans[slot&(maxSpans-1)]
		if sp.from == sp.to {
			return ""
		}
		if sp.from < sp.to {
			return unsafe.String((*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(r.text)), sp.from)), sp.to-sp.from)
		}
	}
	return r.slots.Known(slot)
}

// bring puts values of a trail where ops look for them.
func (r *run) bring(slots []int16) {
	for _, slot := range slots {
		if sp := r.spans[slot&(maxSpans-1)]; sp.from < sp.to {
			r.slots.Put(int(slot), r.cut(r.text, int(slot)))
		}
	}
}

// recallTrail is recall for a line that went a whole trail.
func (s *Set) recallTrail(p *packs.Pack, t string, end *trailEnd) (done, whole bool) {
	r, c := &s.run, &s.recipes
	if c.off {
		return false, false
	}
	sh := end.shape
	if r.holes > 0 || sh == nil || end.gen != c.gen || end.extra != r.extra || end.filled != r.filled {
		there := end.there
		for _, at := range r.hollow[:r.holes] {
			if sp := r.spans[at&(maxSpans-1)]; sp.from == sp.to && at < packs.MaxSlots {
				there[at>>6] &^= 1 << (at & 63)
			}
		}
		for w, b := range r.slots.Present() {
			there[w] |= b
		}
		if sh = c.find(p, &there); sh == nil {
			return false, false
		}
		if r.holes == 0 {
			end.shape, end.gen, end.extra, end.filled = sh, c.gen, r.extra, r.filled
		}
	}
	r.direct, r.text, r.odd = true, t, end.odd
	done, whole = s.byShape(sh)
	r.direct, r.text = false, ""
	if !done {
		r.odd = 0
		return false, false
	}
	e := s.e
	if !whole {
		r.odd = 0
		for _, n := range end.others {
			if v := r.cut(t, n.at); v != "" {
				s.otherName(n.name, v)
			}
		}
		return true, false
	}
	first := len(e.Extras()) == 0 // nothing can have taken a name before
	for _, n := range end.others {
		v := r.cut(t, n.at)
		switch {
		case len(v) <= 4 && empty(v):
		case first:
			e.AddExtra(n.name.text, v)
		default:
			e.SetExtra(n.name.text, v)
		}
	}
	return true, true
}

// pass notes the next name of a line, and the byte before it.
func (x *treads) pass(n *name, gap byte) {
	if x.depth == len(x.path) {
		x.known = false
		return
	}
	x.path[x.depth], x.gaps[x.depth] = n, gap
	x.depth++
}

// keepTrail takes up the order of names of a line, which is known as a whole.
func (s *Set) keepTrail(m *memory) {
	r := &s.run
	if r.credit < r.depth { // after many lines that were all different, now and then another try
		if r.tries++; r.tries%64 != 0 {
			return
		}
	}
	n, d := &m.root, 0
search:
	for ; d < r.depth; d++ {
		for c := n.next; c != nil; c = c.beside {
			if c.name == r.path[d] && (d == 0 || c.lit[0] == r.gaps[d]) {
				n = c
				continue search
			}
		}
		break
	}
	if m.full > 256 { // the trails of other packs are none of these senders' business
		r.places -= m.places
		m.forgetTrails()
		n, d = &m.root, 0
	}
	if r.places+r.depth-d > maxPlaces {
		for _, m := range r.memories {
			m.forgetTrails()
		}
		r.places = 0
		n, d = &m.root, 0
	}
	for ; d < r.depth; d++ {
		c, full := m.branch(n, r.path[d], r.gaps[d])
		if full {
			m.full++
			r.credit = max(r.credit-1, 0)
		}
		if c == nil {
			return
		}
		n = c
		r.places++
		m.places++
		r.credit = max(r.credit-1, 0)
	}
	if n.end == nil {
		n.end = m.endAt(n)
	}
}

func (m *memory) forgetTrails() { m.root.next, m.places, m.full = nil, 0, 0 }

// branch makes a place for x behind n; nil when the name stands on the trail already, or when it is full there.
func (m *memory) branch(n *place, x *name, gap byte) (c *place, full bool) {
	if len(x.text)+2 > maxLit {
		return nil, false
	}
	others := 0
	for q := n; q != &m.root; q = q.before {
		if q.name == x || q.name.text == x.text || x.slot >= 0 && q.name.slot == x.slot {
			return nil, false
		}
		if q.name.slot < 0 {
			others++
		}
	}
	for i := range m.pack.Special {
		if m.pack.Special[i].Slot == x.slot {
			return nil, false
		}
	}
	last, count := &n.next, 0
	for ; *last != nil; last = &(*last).beside {
		if count++; count == maxBeside {
			return nil, true
		}
	}
	c = &place{name: x, before: n, depth: n.depth + 1, at: x.slot}
	if x.slot < 0 {
		c.at = packs.MaxSlots + others
	}
	if n == &m.root {
		c.set(x.text + "=")
	} else {
		c.set(string(rune(gap)) + x.text + "=")
	}
	*last = c
	return c, false
}

// endAt says what there is to know of lines that end at n.
func (m *memory) endAt(n *place) *trailEnd {
	p := m.pack
	end := &trailEnd{all: make([]*place, n.depth)}
	for q := n; q != &m.root; q = q.before {
		end.all[q.depth-1] = q
	}
	for _, q := range end.all {
		x := q.name
		if x.slot >= 0 {
			end.there.Add(x.slot)
		}
		if (x.slot < 0 || !x.mapped) && p.Others != packs.OthersDrop {
			end.others = append(end.others, q)
			if !x.plain {
				end.odd++
			}
		}
	}
	end.direct = (p.Others == packs.OthersKeep || p.Others == packs.OthersDrop) && len(end.others) <= packMaxOthers
	for i := range p.Read[1:] {
		end.direct = end.direct && end.take(p, &p.Read[1+i])
	}
	return end
}

// take says whether a step is one that lines of the trail can do without their values being spread, or that they have nothing for.
func (end *trailEnd) take(p *packs.Pack, st *packs.Step) bool {
	if !st.Optional || p.Slots[st.In][0] == '.' || slices.Contains(end.taken, int16(st.In)) {
		return false
	}
	if !end.there.Has(st.In) {
		return true
	}
	if st.Kind != packs.StepLine || st.After != "" {
		return false
	}
	for _, slot := range st.Captures() {
		if end.there.Has(slot) || p.Slots[slot][0] == '.' || slices.ContainsFunc(p.Special, func(x packs.Special) bool { return x.Slot == slot }) {
			return false
		}
		if !slices.Contains(end.taken, int16(slot)) {
			end.taken = append(end.taken, int16(slot))
		}
	}
	end.steps = append(end.steps, st)
	return len(end.taken) <= 64
}

// memoryFor takes up the pack's memory if another is at hand.
func (s *Set) memoryFor(p *packs.Pack) {
	if r := &s.run; r.last != p || r.memory.keys != event.NumKeys() {
		s.remember(p)
	}
}
