package sigma

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/minio/highwayhash"
)

// Limits on one correlation.
const (
	maxThreshold = 100_000 // of a count: so many times or values may have to be kept for one group
	maxNumbers   = 10_000  // values kept for sums, averages and percentiles
	distinctRoom = 256     // distinct values counted exactly, if the threshold does not ask for more
)

// input is one rule, or one other correlation, that feeds a correlation.
type input struct {
	order  int   // position in Correlation.Rules
	keys   []Key // of the group-by fields
	values []Key // of the counted or summed fields
	// For a correlation as input: positions in its own group-by.
	groups      []int
	valueGroups []int
}

type compiledCorrelation struct {
	cor         *Correlation
	kind        string
	span        int64
	keep        int // times or values that decide the condition
	fingerprint uint64
	quiet       bool
	terms       []term // of an extended condition
	closes      bool   // decided when the window is over
}

// valued says whether groups keep values with their times.
func (cc *compiledCorrelation) valued() bool { return strings.HasPrefix(cc.kind, "value_") }

type feed struct {
	cor int32
	in  input
}

// feeds by rule and by correlation.
type feedTable struct {
	byRule, byCor [][]feed
}

func (e *Engine) correlations(list []*Correlation, refused func(*Meta, error)) {
	type target struct {
		rule, cor int32
		meta      *Meta
		twice     *Meta // another one has the same name
	}
	named := map[string]target{}
	enter := func(m *Meta, t target) {
		t.meta = m
		for _, n := range slices.Compact([]string{m.ID, m.Name}) {
			if old, ok := named[n]; ok {
				t.twice = old.meta
			}
			if n != "" {
				named[n] = t
			}
			t.twice = nil
		}
	}
	for i, r := range e.Rules {
		enter(&r.Meta, target{rule: int32(i), cor: -1})
	}
	// A correlation may refer to others, before or after it: take those whose references are known until nothing changes.
	e.feeds.byRule = make([][]feed, len(e.Rules))
	rest := slices.Clone(list)
	for progress := true; progress && len(rest) > 0; {
		progress = false
		var later []*Correlation
		for _, c := range rest {
			if slices.ContainsFunc(c.Rules, func(n string) bool { _, ok := named[n]; return !ok }) {
				later = append(later, c)
				continue
			}
			progress = true
			cc, err := compileCorrelation(c)
			if err != nil {
				refused(&c.Meta, err)
				continue
			}
			number := int32(len(e.Correlations))
			if number == math.MaxUint16 {
				refused(&c.Meta, fmt.Errorf("there are more than %d correlations", number))
				continue
			}
			if taken, ok := named[c.ID]; ok && c.ID != "" {
				refused(&c.Meta, fmt.Errorf("the id %s is already used by %s", c.ID, taken.meta.File))
				continue
			}
			var feeds []feed
			var from []target
			for order, n := range c.Rules {
				t := named[n]
				if t.twice != nil {
					refused(&c.Meta, &lineError{c.line, fmt.Sprintf("%q is the name of two rules, in %s and %s: refer to one of them by its id", n, t.twice.File, t.meta.File)})
					feeds = nil
					break
				}
				in, err := e.input(c, order, n, t.rule, t.cor)
				if err != nil {
					refused(&c.Meta, &lineError{c.line, err.Error()})
					feeds = nil
					break
				}
				feeds, from = append(feeds, feed{number, in}), append(from, t)
			}
			if feeds == nil {
				continue
			}
			e.Correlations, e.cors = append(e.Correlations, c), append(e.cors, cc)
			e.feeds.byCor = append(e.feeds.byCor, nil)
			for i, t := range from {
				if t.cor >= 0 {
					e.feeds.byCor[t.cor] = append(e.feeds.byCor[t.cor], feeds[i])
					e.cors[t.cor].quiet = e.cors[t.cor].quiet || !c.Generate
				} else {
					e.feeds.byRule[t.rule] = append(e.feeds.byRule[t.rule], feeds[i])
					e.quiet[t.rule] = e.quiet[t.rule] || !c.Generate
				}
			}
			enter(&c.Meta, target{rule: -1, cor: number})
		}
		rest = later
	}
	for _, c := range rest {
		for _, n := range c.Rules {
			if _, ok := named[n]; !ok {
				refused(&c.Meta, &lineError{c.line, fmt.Sprintf("the correlation refers to %q, which does not exist, was refused, or refers back to it", n)})
				break
			}
		}
	}
}

func compileCorrelation(c *Correlation) (*compiledCorrelation, error) {
	cc := &compiledCorrelation{cor: c, kind: c.Type, span: int64(c.Timespan), closes: c.closes()}
	temporal := strings.HasPrefix(c.Type, "temporal")
	counts := c.Type == "event_count" || c.Type == "value_count" || temporal
	decided := false
	for _, b := range c.Bounds {
		if counts {
			if b.Value < 0 || b.Value > maxThreshold || b.Value != math.Trunc(b.Value) {
				return nil, &lineError{c.line, fmt.Sprintf("%s: %g is not a whole number up to %d", b.Op, b.Value, maxThreshold)}
			}
			cc.keep = max(cc.keep, int(b.Value)+1)
		}
		switch b.Op {
		case "gt", "gte", "eq":
			decided = true
		}
	}
	if temporal && len(c.Bounds) > 0 && !decided {
		return nil, &lineError{c.line, "a number of rules that must stay below a value says little; name the rules in a condition such as a and not b"}
	}
	switch c.Type {
	case "value_count":
		cc.keep = max(cc.keep, distinctRoom)
	case "temporal", "temporal_ordered":
		cc.keep = len(c.Rules)
		if c.Type == "temporal_ordered" && len(c.Bounds) > 0 && !cc.holds(float64(len(c.Rules))) || c.Type == "temporal_ordered" && len(c.Rules) > 1 && len(c.Bounds) > 0 && cc.holds(float64(len(c.Rules)-1)) {
			return nil, &lineError{c.line, "temporal_ordered wants all rules, in their order; a number that is not theirs, or not all of them, cannot be asked for"}
		}
		if c.expr != nil {
			var err error
			if cc.terms, err = c.terms(); err != nil {
				return nil, &lineError{c.line, fmt.Sprintf("condition %q: %v", c.Expression, err)}
			}
			for i := range cc.terms {
				if c.Type == "temporal_ordered" {
					cc.terms[i].chain = cc.keep
					cc.keep += len(cc.terms[i].pos)
				}
			}
		}
	case "event_count":
	default:
		cc.keep = maxNumbers
	}
	// What the state of a group means: state saved under other rules must not be taken for it.
	text := fmt.Sprintf("%s\x00%s\x00%d\x00%v\x00%s\x00%q\x00%q\x00%g", c.Label(), c.Type, cc.span, c.Bounds, strings.Join(c.valueFields, "\x00"), c.Rules, c.GroupBy, c.Percentile)
	if c.Expression != "" { // others keep the fingerprint that they had before there were such conditions
		text += "\x00" + c.Expression
	}
	cc.fingerprint = highwayhash.Sum64([]byte(text), make([]byte, 32))
	return cc, nil
}

// input resolves the names of fields for one of the rules of c.
func (e *Engine) input(c *Correlation, order int, label string, rule, cor int32) (input, error) {
	in := input{order: order}
	alias := func(name string) string {
		m, ok := c.Aliases[name]
		if !ok {
			return name
		}
		if to, ok := m[label]; ok {
			return to
		}
		var meta *Meta // an alias may use the id where the list of rules uses the name, and the other way round
		if rule >= 0 {
			meta = &e.Rules[rule].Meta
		} else {
			meta = &e.Correlations[cor].Meta
		}
		for _, n := range []string{meta.ID, meta.Name} {
			if to, ok := m[n]; ok && n != "" {
				return to
			}
		}
		return name
	}
	if cor >= 0 {
		child := e.Correlations[cor]
		find := func(name string) (int, error) {
			if i := slices.Index(child.GroupBy, alias(name)); i >= 0 {
				return i, nil
			}
			return 0, fmt.Errorf("the correlation %s does not group by %q", child.Label(), alias(name))
		}
		for _, g := range c.GroupBy {
			i, err := find(g)
			if err != nil {
				return in, err
			}
			in.groups = append(in.groups, i)
		}
		for _, f := range c.valueFields {
			i, err := find(f)
			if err != nil {
				return in, err
			}
			in.valueGroups = append(in.valueGroups, i)
		}
		return in, nil
	}
	for _, g := range c.GroupBy {
		k, err := e.opts.Schema.Key(alias(g))
		if err != nil {
			return in, fmt.Errorf("field %q: %w", alias(g), err)
		}
		in.keys = append(in.keys, k)
	}
	for _, f := range c.valueFields {
		k, err := e.opts.Schema.Key(alias(f))
		if err != nil {
			return in, fmt.Errorf("field %q: %w", alias(f), err)
		}
		in.values = append(in.values, k)
	}
	return in, nil
}

// CorrelationAlerts says whether hits of correlation i are results of their own.
func (e *Engine) CorrelationAlerts(i int32) bool { return !e.cors[i].quiet }

// Feeds says whether matches of rule i are of interest to a correlation.
func (e *Engine) Feeds(i int32) bool { return len(e.feeds.byRule[i]) > 0 }
