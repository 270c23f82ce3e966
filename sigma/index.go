package sigma

import (
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
		for _, l := range lits {
			c.cost += frequency(n.p, l)
		}
		if seen != nil {
			c.cost = seen.frequency(n.p, c.cost)
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

// frequency guesses the share of events in which a literal is found, from its operation and length; texts that nearly every event of a
// kind has are known to be common.
func frequency(p *predicate, l *literal) float64 {
	f := 0.0
	text := l.text
	for _, c := range commonTexts {
		text = strings.ReplaceAll(text, c, "")
	}
	// Nearly every value of a Windows field has such parts: only the rest tells values apart.
	switch n := len(text); {
	case n == 0:
		f = 0.5
	case l.op == opEq && n < 6 && isDigits(l.text): // event ids and other numbers
		f = 0.08
	case l.op == opEq:
		f = 0.02 * math.Pow(0.85, float64(min(n, 24)))
	case n < 4:
		f = 0.4 / float64(n)
	default:
		f = 0.3 * math.Pow(0.72, float64(min(n, 16)))
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

// commonTexts are in most values of paths, registry keys and command lines. Longer ones come first.
var commonTexts = []string{"\\registry\\machine\\", "currentcontrolset", "\\currentversion", "program files (x86)", "program files", "\\programdata\\", "powershell", "microsoft", "\\software\\", "\\system32\\",
	"\\syswow64\\", "\\windows\\", "\\services\\", "\\control\\", "\\appdata\\", "\\roaming\\", "rundll32", "explorer", "wmiprvse", "services.exe", "\\local\\", "\\temp\\", "\\users\\", "svchost", "\\lsass", "ntdll", "kernel",
	"conhost", "cmd.exe", "https", "http", "hklm", "hkcu", ".exe", ".dll", "c:\\", "true", "false", "success", "system", "0x"}

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
	var grams, lines gramCounts
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
	}
	return s
}

// learnFrom is the number of rules from which it pays to learn, learnEvents the number of events that are looked at.
const (
	learnFrom   = 24
	learnEvents = 32
)

// learner counts in how many events the literals of each predicate are found.
type learner struct {
	mu      sync.Mutex // whoever finds it taken goes on without learning
	bound   []*node
	local   map[*predicate]int32
	byKey   []*litSet // all literals of all predicates by key; what finding one means is the predicate
	keyword *litSet
	hits    []int
	last    []int      // the event that last counted for a predicate
	grams   gramCounts // of values
	lines   gramCounts // of whole lines, 0x20 set in all bytes
	line    []byte
	lengths []int // of values, summed up, by key
	values  []int // how many, by key
	found   []int32
	n       int
}

func (l *learner) prepare(s *Set) {
	l.grams, l.lines = newGramCounts(), newGramCounts()
	l.hits, l.last = make([]int, len(s.preds)), make([]int, len(s.preds))
	for i, p := range s.preds {
		lits, _ := p.literals()
		for _, lit := range lits {
			at := &l.keyword
			if !p.keyword {
				for int(p.key) >= len(l.byKey) {
					l.byKey = append(l.byKey, nil)
				}
				at = &l.byKey[p.key]
			}
			if *at == nil {
				*at = newLitSet()
			}
			(*at).add(lit, int32(i))
		}
	}
	l.lengths, l.values = make([]int, len(l.byKey)), make([]int, len(l.byKey))
	for _, set := range append(slices.Clone(l.byKey), l.keyword) {
		if set != nil {
			set.build(nil, 0)
		}
	}
}

func (l *learner) count(set *litSet, low string) {
	l.found = set.collect(low, l.found[:0], false)
	for _, n := range l.found {
		if p := set.trigs[n]; l.last[p] != l.n {
			l.last[p] = l.n
			l.hits[p]++
		}
	}
}

// frequency is the share of events in which a literal of p is found. The guess weighs as much as eight events.
func (l *learner) frequency(p *predicate, guess float64) float64 {
	return (float64(l.hits[l.local[p]]) + 8*guess) / float64(l.n+8)
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
	if l.n++; l.n == 1 {
		l.prepare(s)
	}
	for i := range r.fields {
		f := &r.fields[i]
		if f.kind == fieldNull {
			continue
		}
		if int(f.key) < len(l.byKey) && l.byKey[f.key] != nil {
			l.count(l.byKey[f.key], r.lowOf(f))
			l.grams.note(r.lowOf(f))
			l.lengths[f.key] += len(r.lowOf(f))
			l.values[f.key]++
		}
		if l.keyword != nil {
			l.count(l.keyword, r.lowOf(f))
		}
	}
	if l.keyword != nil && r.plain {
		l.line = append(l.line[:0], r.hay...)
		for i := range l.line {
			l.line[i] |= 0x20
		}
		l.lines.note(unsafe.String(unsafe.SliceData(l.line), len(l.line)))
	}
	if l.n < learnEvents {
		return
	}
	s.index.Store(newIndex(s, l.bound, l.local, l))
	s.learning.Store(nil)
}
