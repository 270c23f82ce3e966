package sigma

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Options for Compile.
type Options struct {
	Schema Schema // required
	// Placeholders gives the values of %name% for the expand modifier. A rule with a placeholder that is not supplied never matches.
	Placeholders map[string][]string
}

// Source is one reading of an event's log source. An event can have several: a Sysmon process event is a windows/sysmon event and a
// windows/process_creation one. Rename maps field names of rules to those that events of this source carry.
type Source struct {
	LogSource
	Rename map[string]string
}

// Engine holds compiled rules. It is safe for concurrent use.
type Engine struct {
	Rules        []*Rule        // those that compiled, numbered by position
	Correlations []*Correlation // likewise
	Errors       []*Error       // what did not compile, and why
	// Unexpanded lists rules with a placeholder that was not supplied: they compile and never match.
	Unexpanded []*Rule

	opts  Options
	rules []*compiledRule
	cors  []*compiledCorrelation
	quiet []bool // rules that only feed correlations
	feeds feedTable

	mu       sync.Mutex
	preds    map[predKey]*predicate // interned
	gathered map[string]*predicate  // likewise, those of gather, by the numbers of what they gather
	sets     map[string]*Set
}

// compiledRule is a rule with its values prepared, independent of any log source.
type compiledRule struct {
	rule  *Rule
	cond  *node
	bound *node // cond with the fields as rules name them, made when first needed
}

// node is a condition tree over drafts, and after binding over predicates.
type node struct {
	op   nodeOp
	kids []*node
	d    *draft
	p    *predicate
	cost int // among its siblings, once bound
}

type nodeOp uint8

const (
	nodeLeaf nodeOp = iota
	nodeAnd
	nodeOr
	nodeNot
)

// Compile makes an engine of c. It fails only for a missing schema; rules that cannot be compiled are in Errors, the rest work.
func Compile(c *Collection, opts Options) (*Engine, error) {
	if opts.Schema == nil {
		return nil, errors.New("sigma: compile: no schema")
	}
	e := &Engine{opts: opts, preds: map[predKey]*predicate{}, gathered: map[string]*predicate{}, sets: map[string]*Set{}}
	refused := func(m *Meta, err error) {
		x := &Error{File: m.File, Line: m.Line, Rule: m.Label(), Reason: err.Error()}
		var at *lineError
		if errors.As(err, &at) && at.line > 0 {
			x.Line = at.line
		}
		e.Errors = append(e.Errors, x)
	}
	filters := c.usableFilters(refused)
	byID := map[string]*Meta{}
	tests := 0
	for _, r := range c.Rules {
		if r.ID != "" && byID[r.ID] != nil {
			refused(&r.Meta, fmt.Errorf("the id %s is already used by %s", r.ID, byID[r.ID].File))
			continue
		}
		byID[r.ID] = &r.Meta
		b := &binder{e: e}
		cond, err := b.rule(r)
		if err == nil {
			err = b.filters(r, filters, &cond)
		}
		if err == nil {
			// Fields are numbered now, so that a name the schema refuses is an error of the rule and not of the first event.
			err = e.number(cond)
		}
		if err != nil {
			refused(&r.Meta, err)
			continue
		}
		if b.unexpanded {
			e.Unexpanded = append(e.Unexpanded, r)
		}
		e.Rules = append(e.Rules, r)
		e.rules = append(e.rules, &compiledRule{rule: r, cond: cond})
		tests += b.nodes
	}
	e.preds = make(map[predKey]*predicate, tests*3/4) // in upstream rules a quarter is asked for twice
	e.quiet = make([]bool, len(e.Rules))
	e.correlations(c.Correlations, refused)
	return e, nil
}

// Alerts says whether matches of rule i are results of their own. Rules that a correlation refers to are not, unless it says generate.
func (e *Engine) Alerts(i int32) bool { return !e.quiet[i] }

type binder struct {
	e          *Engine
	nodes      int
	unexpanded bool
}

func (b *binder) rule(r *Rule) (*node, error) { return b.any(r.conditions, r.searches) }

func (b *binder) any(conds []*expr, searches map[string]*search) (*node, error) {
	var kids []*node
	for _, c := range conds {
		n, err := b.expr(c, searches)
		if err != nil {
			return nil, err
		}
		kids = append(kids, n)
	}
	return join(nodeOr, kids), nil
}

func (b *binder) filters(r *Rule, filters []*Filter, cond **node) error {
	for _, f := range filters {
		if !f.narrows(r) {
			continue
		}
		n, err := b.any(f.conditions, f.searches)
		if err != nil {
			return fmt.Errorf("filter %s (%s): %w", f.Label(), f.File, err)
		}
		*cond = join(nodeAnd, []*node{*cond, n})
	}
	return nil
}

// join makes a node of kids, flattened.
func join(op nodeOp, kids []*node) *node {
	if len(kids) == 1 {
		return kids[0]
	}
	n := &node{op: op}
	for _, k := range kids {
		if k.op == op {
			n.kids = append(n.kids, k.kids...)
		} else {
			n.kids = append(n.kids, k)
		}
	}
	return n
}

func (b *binder) count() error {
	if b.nodes++; b.nodes > 2*maxValues {
		return fmt.Errorf("the rule expands to more than %d tests", 2*maxValues)
	}
	return nil
}

func (b *binder) expr(x *expr, searches map[string]*search) (*node, error) {
	switch x.op {
	case exprName:
		return b.search(searches[x.name])
	case exprNot:
		n, err := b.expr(x.kids[0], searches)
		if err != nil {
			return nil, err
		}
		return &node{op: nodeNot, kids: []*node{n}}, nil
	}
	var kids []*node
	for _, k := range x.kids {
		n, err := b.expr(k, searches)
		if err != nil {
			return nil, err
		}
		kids = append(kids, n)
	}
	return join(map[exprOp]nodeOp{exprAnd: nodeAnd, exprOr: nodeOr}[x.op], kids), nil
}

func (b *binder) search(s *search) (*node, error) {
	if s.item != nil {
		return b.item(s.item)
	}
	var kids []*node
	for _, k := range s.kids {
		n, err := b.search(k)
		if err != nil {
			return nil, err
		}
		kids = append(kids, n)
	}
	if s.any {
		return join(nodeOr, kids), nil
	}
	return join(nodeAnd, kids), nil
}

func (b *binder) item(it *item) (*node, error) {
	expand := func(name string) ([]string, bool) {
		v, ok := b.e.opts.Placeholders[name]
		if !ok {
			b.unexpanded = true
		}
		return v, ok
	}
	groups, all, negate, err := draftItem(it, expand)
	if err != nil {
		return nil, err
	}
	var kids []*node
	for _, g := range groups {
		var alts []*node
		for i := range g {
			if err := b.count(); err != nil {
				return nil, &lineError{it.line, err.Error()}
			}
			g[i].name = it.field
			alts = append(alts, &node{d: &g[i]})
		}
		kids = append(kids, join(nodeOr, alts))
	}
	n := join(nodeOr, kids)
	if all {
		n = join(nodeAnd, kids)
	}
	if negate {
		n = &node{op: nodeNot, kids: []*node{n}}
	}
	return n, nil
}

// number asks the schema for the keys of all fields of a condition.
func (e *Engine) number(n *node) error {
	if n.op == nodeLeaf {
		for _, name := range []string{n.d.name, n.d.refName} {
			if name == "" {
				continue
			}
			if _, err := e.opts.Schema.Key(name); err != nil {
				return fmt.Errorf("field %q: %w", name, err)
			}
		}
		return nil
	}
	for _, k := range n.kids {
		if err := e.number(k); err != nil {
			return err
		}
	}
	return nil
}

// predKey is what makes two predicates the same.
type predKey struct {
	op, sub              predOp
	keyword, cased, want bool
	key, ref             Key
	num                  float64
	cmp, text            string
	nets                 netip.Prefix
}

// bind turns drafts into predicates with keys, for one naming of fields.
func (e *Engine) bind(n *node, rename map[string]string) (*node, error) {
	if n.op == nodeLeaf {
		p, err := e.intern(n.d, rename)
		return &node{p: p}, err
	}
	out := &node{op: n.op}
	for _, k := range n.kids {
		b, err := e.bind(k, rename)
		if err != nil {
			return nil, err
		}
		out.kids = append(out.kids, b)
	}
	if n.op == nodeOr {
		e.gather(out)
	}
	for _, k := range out.kids {
		k.cost = cost(k)
	}
	slices.SortStableFunc(out.kids, func(a, b *node) int { return a.cost - b.cost })
	return out, nil
}

// gatherFrom is how many literals of one field make a set: fewer are faster one by one.
const gatherFrom = 4

// gather replaces literals of one field in an or by one predicate that seeks all of them in one pass.
func (e *Engine) gather(n *node) {
	byKey := map[Key][]*node{}
	for _, k := range n.kids {
		if p := k.p; p != nil && p.op <= opContains && p.op != opNull && p.op != opExists && p.op != opNumber && p.op != opSet && !p.keyword && !p.cased && (p.text != "" || p.op == opEq) {
			byKey[p.key] = append(byKey[p.key], k)
		}
	}
	for key, list := range byKey {
		if len(list) < gatherFrom {
			continue
		}
		slices.SortFunc(list, func(a, b *node) int { return cmp.Compare(a.p.id, b.p.id) })
		id := binary.LittleEndian.AppendUint16(nil, uint16(key))
		for _, k := range list {
			id = binary.LittleEndian.AppendUint32(id, uint32(k.p.id))
		}
		p := e.gathered[string(id)]
		if p == nil {
			p = &predicate{op: opSet, key: key, id: e.nextID(), set: &lazySet{}, trainedAs: list[0].p.trainedAs}
			for _, k := range list {
				p.lits = append(p.lits, &literal{k.p.op, k.p.text})
			}
			p.set.lits = p.lits
			e.gathered[string(id)] = p
		}
		gone := map[*node]bool{}
		for _, k := range list {
			gone[k] = true
		}
		n.kids = append(slices.DeleteFunc(n.kids, func(k *node) bool { return gone[k] }), &node{p: p})
	}
}

func (e *Engine) intern(d *draft, rename map[string]string) (*predicate, error) {
	name := func(s string) string {
		if to, ok := rename[s]; ok {
			return to
		}
		return s
	}
	key, ref := NoKey, d.ref
	var err error
	if !d.keyword {
		if key, err = e.opts.Schema.Key(name(d.name)); err != nil {
			return nil, fmt.Errorf("field %q: %w", d.name, err)
		}
	}
	if d.op == opRef {
		if ref, err = e.opts.Schema.Key(name(d.refName)); err != nil {
			return nil, fmt.Errorf("field %q: %w", d.refName, err)
		}
	}
	id := predKey{d.op, d.sub, d.keyword, d.cased, d.want, key, ref, d.num, d.cmp, d.text, d.nets}
	if old, ok := e.preds[id]; ok {
		return old, nil
	}
	p := new(predicate)
	*p = d.predicate
	p.key, p.ref = key, ref
	p.id = e.nextID()
	p.trainedAs = hashName(name(d.name))
	if p.op == opContains {
		p.rare = gramCounts(nil).rarestByte(p.text)
	}
	e.preds[id] = p
	return p, nil
}

func (e *Engine) nextID() int32 { return int32(len(e.preds) + len(e.gathered)) }

// Set is the rules that apply to one log source, with their index. It is safe for concurrent use; a Matcher holds the state of an
// evaluation. The index is improved once, after the first events: results do not depend on it, their order may.
type Set struct {
	e     *Engine
	rules []int32 // numbers in Engine.Rules
	roots []int32 // nodes by position in rules
	nodes []flat
	kids  []int32
	preds []*predicate

	keywords bool
	index    atomic.Pointer[index]
	learning atomic.Pointer[learner] // nil when the index has learnt from real events
}

// index finds the rules that an event can match. It is replaced once, when it has been seen which literals are common.
type index struct {
	byKey   []*litSet // triggers by key
	keyword *litSet   // triggers in any value
	hay     *haySet   // those of keyword in a whole line, if they can be sought there
	numeric bool      // one of keyword can be in a number, an address or the like
	known   []bool    // by predicate: all its literals are in the index, so the scan decides it
	trigs   []trigger
	always  []int32 // positions of rules without a trigger
}

// flat is a node of the evaluation tree.
type flat struct {
	op     nodeOp
	pred   int32
	lo, hi int32 // kids
}

// trigger is what finding a literal means.
type trigger struct {
	preds []int32 // decided true by it
	rules []int32 // positions of rules to evaluate
}

// Len is the number of rules in s.
func (s *Set) Len() int { return len(s.rules) }

// Rules gives the numbers of the rules in s.
func (s *Set) Rules() []int32 { return slices.Clone(s.rules) }

// Unindexed gives the numbers of the rules in s that are evaluated for every event: nothing that they ask for can be sought beforehand.
func (s *Set) Unindexed() []int32 {
	var out []int32
	for _, at := range s.index.Load().always {
		out = append(out, s.rules[at])
	}
	return out
}

// Keywords says whether a rule of s looks at every value and the raw text of events, not only at fields it names.
func (s *Set) Keywords() bool { return s.keywords }

// Set gives the rules that apply to events which can be read as any of the sources. It is made at the first call and kept.
// Names that only a Rename holds are asked of the schema then: with a growing schema, before the records are decoded.
func (e *Engine) Set(sources ...Source) *Set {
	var id strings.Builder
	for _, s := range sources {
		fmt.Fprintf(&id, "%q%q%q", s.Category, s.Product, s.Service)
		for _, k := range slices.Sorted(maps.Keys(s.Rename)) {
			fmt.Fprintf(&id, "%q=%q", k, s.Rename[k])
		}
		id.WriteByte(';')
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s, ok := e.sets[id.String()]; ok {
		return s
	}
	s := e.newSet(sources)
	e.sets[id.String()] = s
	return s
}

func (e *Engine) newSet(sources []Source) *Set {
	s := &Set{e: e}
	local := map[*predicate]int32{}
	var bound []*node
	for i, r := range e.rules {
		at := slices.IndexFunc(sources, func(src Source) bool { return r.rule.LogSource.covers(src.LogSource) })
		if at < 0 {
			continue
		}
		n := r.bound
		if n == nil || len(sources[at].Rename) > 0 {
			var err error
			if n, err = e.bind(r.cond, sources[at].Rename); err != nil {
				continue // only a schema that runs out of numbers because of Rename can cause it
			}
		}
		if len(sources[at].Rename) == 0 {
			r.bound = n
		}
		s.rules = append(s.rules, int32(i))
		bound = append(bound, n)
		s.roots = append(s.roots, s.flatten(n, local))
	}
	s.index.Store(newIndex(s, bound, local, nil))
	if len(s.rules) >= learnFrom {
		s.learning.Store(&learner{bound: bound, local: local})
	}
	return s
}

// cost orders the kids of a node: what is cheap and likely to decide comes first.
func cost(n *node) int {
	if n.op == nodeLeaf {
		c := int(n.p.op) * 4
		if n.p.keyword {
			c += 200
		}
		return c
	}
	c := 8
	for _, k := range n.kids {
		c += cost(k)
	}
	return c
}

func (s *Set) flatten(n *node, local map[*predicate]int32) int32 {
	if n.op == nodeLeaf {
		p, ok := local[n.p]
		if !ok {
			p = int32(len(s.preds))
			local[n.p] = p
			s.preds = append(s.preds, n.p)
			s.keywords = s.keywords || n.p.keyword
		}
		s.nodes = append(s.nodes, flat{op: nodeLeaf, pred: p})
		return int32(len(s.nodes) - 1)
	}
	list := make([]int32, len(n.kids))
	for i, k := range n.kids {
		list[i] = s.flatten(k, local)
	}
	lo := int32(len(s.kids))
	s.kids = append(s.kids, list...)
	s.nodes = append(s.nodes, flat{op: n.op, lo: lo, hi: int32(len(s.kids))})
	return int32(len(s.nodes) - 1)
}

// FieldNames lists the names of fields that rules and correlations look at, before any Rename.
func (e *Engine) FieldNames() []string {
	seen := map[string]bool{}
	var walk func(*node)
	walk = func(n *node) {
		if n.d != nil {
			seen[n.d.name] = true
			seen[n.d.refName] = true
		}
		for _, k := range n.kids {
			walk(k)
		}
	}
	for _, r := range e.rules {
		walk(r.cond)
	}
	for _, c := range e.Correlations {
		for _, g := range append(slices.Clone(c.GroupBy), c.valueFields...) {
			seen[g] = true
			for _, to := range c.Aliases[g] {
				seen[to] = true
			}
		}
	}
	delete(seen, "")
	return slices.Sorted(maps.Keys(seen))
}
