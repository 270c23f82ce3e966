package sigma

// Matcher evaluates events. It belongs to one goroutine; one Matcher serves any number of sets and engines.
type Matcher struct {
	gen   uint32
	memo  []uint32 // by predicate: generation<<1 | result
	cand  []uint32 // by position of a rule: generation in which it became a candidate
	queue []int32
	found []int32 // literals of one value
	seen  seenValues
	stats MatchStats

	unlearned int // events since the last that was given to a set to learn from

	automata map[*predicate]*automaton // of regular expressions; nil: left to the standard library
	autoSize int                       // bytes of them, about
}

// maxAutomata bounds what automata take, in bytes: then they are made anew.
const maxAutomata = 8 << 20

// regex says whether the regular expression of p matches text.
func (m *Matcher) regex(p *predicate, text string) bool {
	a, ok := m.automata[p]
	if !ok {
		if m.automata == nil || len(m.automata) > 4096 {
			m.automata, m.autoSize = map[*predicate]*automaton{}, 0
		}
		a = p.guard.shared.automaton(p.text)
		m.automata[p] = a
		if a != nil {
			m.autoSize += a.size
		}
	}
	if a == nil {
		return p.re.MatchString(text)
	}
	before := a.size
	matches, ok := a.match(text)
	if m.autoSize += a.size - before; m.autoSize > maxAutomata {
		m.automata = nil
	}
	if !ok {
		return p.re.MatchString(text)
	}
	return matches
}

// MatchStats says what the index saved.
type MatchStats struct {
	Events     uint64
	Rules      uint64 // rules that applied to the events, summed up
	Candidates uint64 // rules that were evaluated
	Matches    uint64
}

// Stats gives the totals since m was made.
func (m *Matcher) Stats() MatchStats { return m.stats }

const maxGen = 1<<31 - 1

func (m *Matcher) begin(s *Set) {
	if m.gen++; m.gen >= maxGen {
		clear(m.memo)
		clear(m.cand)
		m.gen = 1
	}
	if len(m.memo) < len(s.preds) {
		m.memo = append(m.memo, make([]uint32, len(s.preds)-len(m.memo))...)
	}
	if len(m.cand) < len(s.rules) {
		m.cand = append(m.cand, make([]uint32, len(s.rules)-len(m.cand))...)
	}
	m.queue = m.queue[:0]
}

// Match appends the numbers of the rules of s that match r, in no particular order.
func (m *Matcher) Match(s *Set, r *Record, dst []int32) []int32 {
	m.begin(s)
	if l := s.learning.Load(); l != nil {
		// Matchers of other goroutines learn too: each comes with every so many events only, so that they do not wait for one another's memory.
		if m.unlearned++; m.unlearned >= learnEvery {
			m.unlearned = 0
			s.learn(l, r)
		}
	}
	x := s.index.Load()
	m.stats.Events++
	m.stats.Rules += uint64(len(s.rules))
	// Keywords are sought in the whole line first, or in the memory of the values, if there is one: hardly ever is one there.
	keyword := x.keyword
	gone := false // none is in that memory
	if keyword != nil && x.hay != nil {
		if r.plain {
			if !x.hay.possible(r.hay) {
				keyword = nil
			}
		} else if r.memory != "" {
			gone = !foldsToASCII(r.memory) && !x.hay.possible(r.memory)
		}
	}
	if keyword != nil {
		r.spread()
	}
	for i := range r.fields {
		f := &r.fields[i]
		if f.kind == fieldNull {
			continue
		}
		if int(f.key) < len(x.byKey) {
			if l := x.byKey[f.key]; l != nil {
				m.scanField(x, l, r, f)
			}
		}
		if keyword != nil {
			if f.kind == fieldString {
				if gone && f.hasText && r.inMemory(f.text) {
					continue
				}
			} else if !x.numeric && (f.kind != fieldIP || f.ip.Zone() == "") {
				continue
			}
			m.scan(x, keyword, r.lowOf(f))
		}
	}
	if x.keyword != nil && r.raw != "" && !(gone && r.inMemory(r.raw)) {
		m.scan(x, x.keyword, r.lowRaw())
	}
	n := len(dst)
	for _, at := range m.queue {
		if m.eval(s, x, r, s.roots[at]) {
			dst = append(dst, s.rules[at])
		}
	}
	for _, at := range x.always {
		if m.eval(s, x, r, s.roots[at]) {
			dst = append(dst, s.rules[at])
		}
	}
	m.stats.Candidates += uint64(len(m.queue) + len(x.always))
	m.stats.Matches += uint64(len(dst) - n)
	return dst
}

// scan fires the triggers of l that are in s.
func (m *Matcher) scan(x *index, l *litSet, s string) {
	m.found = l.collect(s, m.found[:0], false)
	for _, n := range m.found {
		m.fire(x, l.trigs[n])
	}
}

// fire notes that the literal of a trigger was found.
func (m *Matcher) fire(x *index, trig int32) {
	t := &x.trigs[trig]
	for _, p := range t.preds {
		m.memo[p] = m.gen<<1 | 1
	}
	for _, at := range t.rules {
		if m.cand[at] != m.gen {
			m.cand[at] = m.gen
			m.queue = append(m.queue, at)
		}
	}
}

func (m *Matcher) eval(s *Set, x *index, r *Record, at int32) bool {
	n := &s.nodes[at]
	switch n.op {
	case nodeLeaf:
		v := m.memo[n.pred]
		if v>>1 == m.gen {
			return v&1 == 1
		}
		if x.known[n.pred] {
			return false // the scan would have found it
		}
		v = m.gen << 1
		if s.preds[n.pred].test(r, m) {
			v |= 1
		}
		m.memo[n.pred] = v
		return v&1 == 1
	case nodeAnd:
		for _, k := range s.kids[n.lo:n.hi] {
			if !m.eval(s, x, r, k) {
				return false
			}
		}
		return true
	case nodeOr:
		for _, k := range s.kids[n.lo:n.hi] {
			if m.eval(s, x, r, k) {
				return true
			}
		}
		return false
	}
	return !m.eval(s, x, r, s.kids[n.lo])
}

// MatchAll does what Match does without the index and without remembering results: every rule is evaluated. It is the reference that
// tests and doubtful operators compare Match with.
func (s *Set) MatchAll(r *Record, dst []int32) []int32 {
	for i, root := range s.roots {
		if s.evalAll(r, root) {
			dst = append(dst, s.rules[i])
		}
	}
	return dst
}

func (s *Set) evalAll(r *Record, at int32) bool {
	n := &s.nodes[at]
	if n.op == nodeLeaf {
		return s.preds[n.pred].test(r, nil)
	}
	for _, k := range s.kids[n.lo:n.hi] {
		v := s.evalAll(r, k)
		switch {
		case n.op == nodeNot:
			return !v
		case n.op == nodeOr && v:
			return true
		case n.op == nodeAnd && !v:
			return false
		}
	}
	return n.op == nodeAnd
}
