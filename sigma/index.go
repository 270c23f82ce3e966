package sigma

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"sync"
	"unsafe"
)

// cover is a set of literals such that the condition can only be true if one of them is found.
type cover struct {
	preds []*predicate
	cost  float64 // guessed frequency of finding one
}

// coverOf chooses the cheapest cover of n, or reports that there is none. And: the best child; or: all children; not: none, since
// absence makes it true.
func coverOf(n *node, seen *learner) (cover, bool) {
	switch n.op {
	case nodeLeaf:
		lits, _ := n.p.literals()
		if len(lits) == 0 {
			return cover{}, false
		}
		c := cover{preds: []*predicate{n.p}}
		for i, l := range lits {
			guess := n.p.guess(i, l)
			if seen != nil {
				guess = seen.frequency(n.p, l, guess)
			}
			c.cost += guess
		}
		return c, true
	case nodeAnd:
		var best cover
		found := false
		for _, k := range n.kids {
			if c, ok := coverOf(k, seen); ok && (!found || c.cost < best.cost) {
				best, found = c, true
			}
		}
		return best, found
	case nodeOr:
		var all cover
		for _, k := range n.kids {
			c, ok := coverOf(k, seen)
			if !ok {
				return cover{}, false
			}
			all.preds = append(all.preds, c.preds...)
			all.cost += c.cost
		}
		return all, true
	}
	return cover{}, false
}

// guess is frequency of the i-th literal, reckoned once. Sets are made and learn under the engine's lock.
func (p *predicate) guess(i int, l *literal) float64 {
	if len(p.guesses) <= i {
		p.guesses = append(p.guesses, frequency(p, l))
	}
	return p.guesses[i]
}

// frequency guesses the share of events in which a literal is found: from the events that the engine was trained with, and from its
// operation and length.
func frequency(p *predicate, l *literal) float64 {
	f := 0.0
	switch n := len(l.text); {
	case n == 0:
		f = 0.5
	case l.op == opEq && n < 6 && isDigits(l.text): // event ids and other numbers
		f = 0.08
	case n < 4:
		f = 0.4 / float64(n)
	case l.op == opEq:
		f = trained.share(p.trainedAs, l.text) + 0.02*math.Pow(0.85, float64(min(n, 24)))
	default:
		f = trained.share(p.trainedAs, l.text) + 0.1*math.Pow(0.72, float64(min(n, 16)))
	}
	if l.op == opContains && len(l.text) < 7 { // it makes the scan of each value slower
		f += 0.02
		if len(l.text) < 4 {
			f += 0.03
		}
	}
	if p.keyword {
		f *= 8 // every value has to be searched
	}
	return f
}

func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// newIndex makes the trigger index of s. seen, if any, corrects guesses of what is frequent.
func newIndex(set *Set, bound []*node, local map[*predicate]int32, seen *learner) *index {
	s := &index{known: make([]bool, len(set.preds))}
	type place struct {
		key     Key
		keyword bool
		lit     literal
	}
	triggers := map[place]int32{}
	trigger1 := func(p *predicate, lit *literal) int32 {
		at := place{p.key, p.keyword, *lit}
		t, ok := triggers[at]
		if !ok {
			t = int32(len(s.trigs))
			triggers[at] = t
			s.trigs = append(s.trigs, trigger{})
			set := &s.keyword
			if !p.keyword {
				for int(p.key) >= len(s.byKey) {
					s.byKey = append(s.byKey, nil)
				}
				set = &s.byKey[p.key]
			}
			if *set == nil {
				*set = newLitSet()
			}
			(*set).add(lit, t)
		}
		return t
	}
	for i, n := range bound {
		c, ok := coverOf(n, seen)
		if !ok {
			s.always = append(s.always, int32(i))
			continue
		}
		for _, p := range c.preds {
			lits, exact := p.literals()
			for _, lit := range lits {
				t := &s.trigs[trigger1(p, lit)]
				if exact {
					s.known[local[p]] = true
					if !slices.Contains(t.preds, local[p]) {
						t.preds = append(t.preds, local[p])
					}
				}
				if len(t.rules) == 0 || t.rules[len(t.rules)-1] != int32(i) {
					t.rules = append(t.rules, int32(i))
				}
			}
		}
	}
	grams, lines := trained.grams, trained.grams // pairs of bytes in values are about those in lines
	if seen != nil {
		grams, lines = seen.grams, seen.lines
	}
	for k, l := range s.byKey {
		if l != nil {
			l.build(grams, seen.length(k))
		}
	}
	if s.keyword != nil {
		s.keyword.build(grams, 0)
		s.hay = newHaySet(s.keyword.lits, grams, lines)
		s.numeric = slices.ContainsFunc(s.keyword.lits, inNumbers)
	}
	return s
}

// A set of at least learnFrom rules learns from the events it gets, once there were enough of them for that to pay: after learnAfter
// events each learnEvery-th of a Matcher, learnEvents in all. Tests set them lower.
var (
	learnFrom   = 24
	learnAfter  = 8192
	learnEvery  = 32
	learnEvents = 16
)

// learner counts which pieces of text the first events of a set have, so that covers and filters are made of rare ones.
type learner struct {
	mu      sync.Mutex // whoever finds it taken goes on without learning
	bound   []*node
	local   map[*predicate]int32
	hits    []eventCount // by a hash of key and gram: in how many events it was
	short   map[shortValue]int
	grams   gramCounts // of values
	lines   gramCounts // of whole lines, 0x20 set in all bytes
	line    []byte
	lengths []int // of values, summed up, by key
	values  []int // how many, by key
	wanted  []bool
	keyword bool
	events  int // that the set got, about
	n       int // that were looked at
}

type eventCount struct{ n, last uint8 }

// shortValue is a value of less than four bytes, such as a port or an event id.
type shortValue struct {
	key  Key
	text string
}

const hitBits = 16

func hitAt(k Key, gram uint32) uint32 {
	return (gram*gramMul ^ uint32(k)*0x85EBCA6B) * 0xC2B2AE35 >> (32 - hitBits)
}

func (l *learner) prepare(s *Set) {
	l.grams, l.lines, l.hits, l.short = newGramCounts(), newGramCounts(), make([]eventCount, 1<<hitBits), map[shortValue]int{}
	for _, p := range s.preds {
		if p.keyword {
			l.keyword = true
			continue
		}
		for int(p.key) >= len(l.wanted) {
			l.wanted = append(l.wanted, false)
		}
		l.wanted[p.key] = true
	}
	l.lengths, l.values = make([]int, len(l.wanted)), make([]int, len(l.wanted))
}

// note counts the grams of a value.
func (l *learner) note(k Key, low string) {
	for i := 0; i+4 <= len(low); i++ {
		if h := &l.hits[hitAt(k, gramAt(low, i))]; int(h.last) != l.n {
			h.n++
			h.last = uint8(l.n)
		}
	}
	if len(low) < 4 && len(l.short) < 1000 {
		l.short[shortValue{k, strings.Clone(low)}]++
	}
}

// frequency is about the share of events in which lit is found: at most that of its rarest gram. The guess weighs as much as four events.
func (l *learner) frequency(p *predicate, lit *literal, guess float64) float64 {
	t := lit.text
	hits := uint8(0)
	switch {
	case p.keyword:
		return guess
	case len(t) >= 4:
		hits = math.MaxUint8
		for i := 0; i+4 <= len(t); i++ {
			hits = min(hits, l.hits[hitAt(p.key, gramAt(t, i))].n)
		}
	case lit.op == opEq:
		hits = uint8(min(l.short[shortValue{p.key, t}], l.n))
	default:
		return guess // too short to say
	}
	return (float64(hits) + 4*guess) / float64(l.n+4)
}

// length is that of usual values of key k, 0 when none was seen.
func (l *learner) length(k int) float64 {
	if l == nil || k >= len(l.values) || l.values[k] == 0 {
		return 0
	}
	return float64(l.lengths[k]) / float64(l.values[k])
}

func (s *Set) learn(l *learner, r *Record) {
	if !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	if s.learning.Load() != l {
		return
	}
	if l.events += learnEvery; l.events <= learnAfter {
		return
	}
	if l.n++; l.n == 1 {
		l.prepare(s)
	}
	for i := range r.fields {
		f := &r.fields[i]
		if f.kind == fieldNull || int(f.key) >= len(l.wanted) || !l.wanted[f.key] {
			continue
		}
		low := r.lowOf(f)
		l.note(f.key, low)
		l.grams.note(low)
		l.lengths[f.key] += len(low)
		l.values[f.key]++
	}
	if line := cmp.Or(r.hay, r.memory); l.keyword && line != "" {
		l.line = append(l.line[:0], line...)
		for i := range l.line {
			l.line[i] |= 0x20
		}
		l.lines.note(unsafe.String(unsafe.SliceData(l.line), len(l.line)))
	}
	if l.n < learnEvents {
		return
	}
	s.e.mu.Lock()
	s.index.Store(newIndex(s, l.bound, l.local, l))
	s.e.mu.Unlock()
	s.learning.Store(nil)
}
