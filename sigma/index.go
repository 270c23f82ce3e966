package sigma

import (
	"math"
	"slices"
	"strings"
	"sync"
	"unsafe"
)

// litSet seeks many literals in a value at once: equal values by a map, beginnings and ends by a hash of their outer four bytes,
// substrings by four-byte grams, a bitmap first and an exact table behind it. Everything is compared in full before it counts.
type litSet struct {
	eq      map[string][]int32
	lits    []*literal
	trigs   []int32   // by literal
	prefix  gramTable // by the first four bytes
	suffix  gramTable // by the last four
	prefix8 gramTable // by a hash of the first eight, of literals that are long enough: thousands end in .exe
	suffix8 gramTable
	inner   gramTable
	bitmap  []uint64
	shift   uint
	shorts  []int32 // contains, prefix and suffix literals of less than four bytes
	minimum int     // of the contains literals
}

// gramTable finds the literals that have a gram at a place.
type gramTable struct {
	slots []gramSlot
	mask  uint32
	lists [][]gramEntry
}

type gramSlot struct {
	gram uint32
	list int32 // position in lists plus one; 0 is free
}

type gramEntry struct {
	lit    int32
	offset int32 // of the gram in the literal
}

const gramMul = 0x9E3779B1

func gramAt(s string, i int) uint32 {
	return *(*uint32)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), i))
}

// gram8 mixes eight bytes into four. Literals are compared in full behind it.
func gram8(s string, i int) uint32 {
	x := *(*uint64)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), i))
	return uint32(x * 0x9E3779B97F4A7C15 >> 32)
}

func newLitSet() *litSet { return &litSet{eq: map[string][]int32{}} }

func (l *litSet) add(lit *literal, trig int32) {
	l.lits = append(l.lits, lit)
	l.trigs = append(l.trigs, trig)
}

// commonness guesses how often a byte is in the values of logs; grams of rare bytes make better filters.
func commonness(c byte) float64 {
	switch {
	case c == 'e' || c == 's' || c == 't' || c == 'i' || c == 'o' || c == 'r' || c == 'n' || c == 'a':
		return 8
	case c == '\\' || c == '.' || c == ' ' || c == '-':
		return 6
	case c == 'w' || c == 'd' || c == 'm' || c == 'c' || c == 'l' || c == 'p' || c == 'x':
		return 5
	case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
		return 3
	}
	return 1
}

func gramScore(g string) float64 {
	f := 1.0
	for i := 0; i < 4; i++ {
		f *= commonness(g[i])
	}
	for _, common := range []string{".exe", "wind", "indo", "ndow", "dows", "\\sys", "syst", "yste", "stem", "em32", "powe", "ower", "wers", "ersh", "rshe", "shel", "hell", "micr", "icro", "cros", "roso", "osof", "soft", "user", "prog", "rogr", "ogra", "gram", "http", "ttps", "tp:/", "p://", "\\win", "s\\sy", "m32\\", "c:\\w", "appd", "data", "file", "file"} {
		if g == common {
			return f * 100
		}
	}
	return f
}

func (l *litSet) build() {
	type entry struct {
		gram uint32
		e    gramEntry
	}
	var prefix, suffix, prefix8, suffix8, inner []entry
	l.minimum = math.MaxInt
	for i, lit := range l.lits {
		n := int32(i)
		t := lit.text
		switch {
		case lit.op == opEq:
			l.eq[t] = append(l.eq[t], n)
		case len(t) < 4:
			l.shorts = append(l.shorts, n)
		case lit.op == opPrefix && len(t) >= 8:
			prefix8 = append(prefix8, entry{gram8(t, 0), gramEntry{n, 0}})
		case lit.op == opSuffix && len(t) >= 8:
			suffix8 = append(suffix8, entry{gram8(t, len(t)-8), gramEntry{n, 0}})
		case lit.op == opPrefix:
			prefix = append(prefix, entry{gramAt(t, 0), gramEntry{n, 0}})
		case lit.op == opSuffix:
			suffix = append(suffix, entry{gramAt(t, len(t)-4), gramEntry{n, int32(len(t) - 4)}})
		default:
			l.minimum = min(l.minimum, len(t))
			best, at := math.MaxFloat64, 0
			for j := 0; j+4 <= len(t); j++ {
				if s := gramScore(t[j : j+4]); s < best {
					best, at = s, j
				}
			}
			inner = append(inner, entry{gramAt(t, at), gramEntry{n, int32(at)}})
		}
	}
	fill := func(list []entry) gramTable {
		var t gramTable
		if len(list) == 0 {
			return t
		}
		size := uint32(4)
		for size < uint32(len(list))*2 {
			size *= 2
		}
		t.slots, t.mask = make([]gramSlot, size), size-1
		for _, e := range list {
			h := e.gram * gramMul >> 7 & t.mask
			for t.slots[h].list != 0 && t.slots[h].gram != e.gram {
				h = (h + 1) & t.mask
			}
			if t.slots[h].list == 0 {
				t.lists = append(t.lists, nil)
				t.slots[h] = gramSlot{e.gram, int32(len(t.lists))}
			}
			at := t.slots[h].list - 1
			t.lists[at] = append(t.lists[at], e.e)
		}
		return t
	}
	l.prefix, l.suffix, l.prefix8, l.suffix8, l.inner = fill(prefix), fill(suffix), fill(prefix8), fill(suffix8), fill(inner)
	if len(inner) > 0 {
		bits := uint(9)
		for bits < 16 && 1<<bits < len(inner)*32 {
			bits++
		}
		l.bitmap, l.shift = make([]uint64, 1<<bits/64), 32-bits
		for _, e := range inner {
			h := e.gram * gramMul >> l.shift
			l.bitmap[h>>6] |= 1 << (h & 63)
		}
	}
}

func (t *gramTable) find(gram uint32) []gramEntry {
	h := gram * gramMul >> 7 & t.mask
	for {
		s := &t.slots[h]
		if s.list == 0 {
			return nil
		}
		if s.gram == gram {
			return t.lists[s.list-1]
		}
		h = (h + 1) & t.mask
	}
}

// scan calls m.fire for every literal that is found in s. A literal may be reported more than once.
func (l *litSet) scan(s string, m *Matcher, set *index) {
	if len(l.eq) > 0 {
		for _, n := range l.eq[s] {
			m.fire(set, l.trigs[n])
		}
	}
	for _, n := range l.shorts {
		if l.lits[n].match(s) {
			m.fire(set, l.trigs[n])
		}
	}
	if len(s) < 4 {
		return
	}
	if len(s) >= 8 {
		if l.prefix8.slots != nil {
			for _, e := range l.prefix8.find(gram8(s, 0)) {
				if strings.HasPrefix(s, l.lits[e.lit].text) {
					m.fire(set, l.trigs[e.lit])
				}
			}
		}
		if l.suffix8.slots != nil {
			for _, e := range l.suffix8.find(gram8(s, len(s)-8)) {
				if strings.HasSuffix(s, l.lits[e.lit].text) {
					m.fire(set, l.trigs[e.lit])
				}
			}
		}
	}
	if l.prefix.slots != nil {
		for _, e := range l.prefix.find(gramAt(s, 0)) {
			if strings.HasPrefix(s, l.lits[e.lit].text) {
				m.fire(set, l.trigs[e.lit])
			}
		}
	}
	if l.suffix.slots != nil {
		for _, e := range l.suffix.find(gramAt(s, len(s)-4)) {
			if strings.HasSuffix(s, l.lits[e.lit].text) {
				m.fire(set, l.trigs[e.lit])
			}
		}
	}
	if l.bitmap != nil && len(s) >= l.minimum {
		shift, bitmap := l.shift, l.bitmap
		for i := 0; i+4 <= len(s); i++ {
			g := gramAt(s, i)
			h := g * gramMul >> shift
			if bitmap[h>>6]&(1<<(h&63)) == 0 {
				continue
			}
			for _, e := range l.inner.find(g) {
				if t := l.lits[e.lit].text; l.at(s, i-int(e.offset), t) {
					m.fire(set, l.trigs[e.lit])
				}
			}
		}
	}
}

// any says whether any literal is in s.
func (l *litSet) any(s string) bool {
	if len(l.eq) > 0 && l.eq[s] != nil {
		return true
	}
	for _, n := range l.shorts {
		if l.lits[n].match(s) {
			return true
		}
	}
	if len(s) < 4 {
		return false
	}
	if len(s) >= 8 {
		if l.prefix8.slots != nil {
			for _, e := range l.prefix8.find(gram8(s, 0)) {
				if strings.HasPrefix(s, l.lits[e.lit].text) {
					return true
				}
			}
		}
		if l.suffix8.slots != nil {
			for _, e := range l.suffix8.find(gram8(s, len(s)-8)) {
				if strings.HasSuffix(s, l.lits[e.lit].text) {
					return true
				}
			}
		}
	}
	if l.prefix.slots != nil {
		for _, e := range l.prefix.find(gramAt(s, 0)) {
			if strings.HasPrefix(s, l.lits[e.lit].text) {
				return true
			}
		}
	}
	if l.suffix.slots != nil {
		for _, e := range l.suffix.find(gramAt(s, len(s)-4)) {
			if strings.HasSuffix(s, l.lits[e.lit].text) {
				return true
			}
		}
	}
	if l.bitmap != nil && len(s) >= l.minimum {
		shift, bitmap := l.shift, l.bitmap
		for i := 0; i+4 <= len(s); i++ {
			g := gramAt(s, i)
			h := g * gramMul >> shift
			if bitmap[h>>6]&(1<<(h&63)) == 0 {
				continue
			}
			for _, e := range l.inner.find(g) {
				if l.at(s, i-int(e.offset), l.lits[e.lit].text) {
					return true
				}
			}
		}
	}
	return false
}

func (l *litSet) at(s string, from int, t string) bool {
	return from >= 0 && from+len(t) <= len(s) && s[from:from+len(t)] == t
}

func (l *literal) match(s string) bool {
	switch l.op {
	case opEq:
		return s == l.text
	case opPrefix:
		return strings.HasPrefix(s, l.text)
	case opSuffix:
		return strings.HasSuffix(s, l.text)
	}
	return strings.Contains(s, l.text)
}

// cover is a set of literals such that the condition can only be true if one of them is found.
type cover struct {
	preds []*predicate
	cost  float64 // guessed frequency of finding one
}

// coverOf chooses the cheapest cover of n, or reports that there is none. And: the best child; or: all children; not: none, since
// absence makes it true.
func coverOf(n *node, learnt func(*predicate, float64) float64) (cover, bool) {
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
		if learnt != nil {
			c.cost = learnt(n.p, c.cost)
		}
		return c, true
	case nodeAnd:
		var best cover
		found := false
		for _, k := range n.kids {
			if c, ok := coverOf(k, learnt); ok && (!found || c.cost < best.cost) {
				best, found = c, true
			}
		}
		return best, found
	case nodeOr:
		var all cover
		for _, k := range n.kids {
			c, ok := coverOf(k, learnt)
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

// newIndex makes the trigger index of s. learnt, if any, corrects the guessed frequency of a predicate's literals.
func newIndex(set *Set, bound []*node, local map[*predicate]int32, learnt func(*predicate, float64) float64) *index {
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
		c, ok := coverOf(n, learnt)
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
	for _, l := range s.byKey {
		if l == nil {
			continue
		}
		if s.keyword != nil { // one pass over a value finds both
			for i, lit := range s.keyword.lits {
				l.add(lit, s.keyword.trigs[i])
			}
		}
		l.build()
	}
	if s.keyword != nil {
		s.keyword.build()
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
	mu    sync.Mutex // whoever finds it taken goes on without learning
	bound []*node
	local map[*predicate]int32
	lits  [][]*literal // by predicate
	hits  []int
	n     int
}

func (s *Set) learn(l *learner, r *Record) {
	if !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	if s.learning.Load() != l {
		return
	}
	if l.lits == nil {
		for _, p := range s.preds {
			lits, _ := p.literals()
			l.lits = append(l.lits, lits)
		}
	}
	for i, p := range s.preds {
		if p.found(l.lits[i], r) {
			l.hits[i]++
		}
	}
	if l.n++; l.n < learnEvents {
		return
	}
	// The guess weighs as much as eight events.
	s.index.Store(newIndex(s, l.bound, l.local, func(p *predicate, guess float64) float64 {
		return (float64(l.hits[l.local[p]]) + 8*guess) / float64(l.n+8)
	}))
	s.learning.Store(nil)
}

// found says whether one of the literals is in a value that p looks at.
func (p *predicate) found(lits []*literal, r *Record) bool {
	in := func(f *field) bool {
		if f.kind == fieldNull {
			return false
		}
		low := r.lowOf(f)
		for _, l := range lits {
			if l.match(low) {
				return true
			}
		}
		return false
	}
	if len(lits) == 0 {
		return false
	}
	if p.keyword {
		for i := range r.fields {
			if in(&r.fields[i]) {
				return true
			}
		}
		return false
	}
	for i := r.first(p.key); i >= 0; i = r.fields[i].next {
		if in(&r.fields[i]) {
			return true
		}
	}
	return false
}
