package sigma

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// term is one way for an extended condition to hold: all of pos in one timespan, none of neg in any timespan that holds all of pos.
type term struct {
	pos, neg []int // places in Correlation.Rules; pos in the order in which the condition names them
	chain    int   // temporal_ordered: where the starts of the chains of pos begin in the data of a group
}

// maxTerms bounds what a condition can be multiplied out to.
const maxTerms = 256

// extended reads a condition over rules, such as `a and (b or c) and not d`. Without a list of rules those of the condition are taken.
func (c *Correlation) extended() error {
	if c.Type != "temporal" && c.Type != "temporal_ordered" {
		return errors.New("a condition over rules belongs to temporal and temporal_ordered; others compare, such as gte: 10")
	}
	var named []string
	p := &condParser{}
	if err := p.lex(c.Expression); err != nil {
		return err
	}
	for i, t := range p.tokens {
		switch {
		case t == "(" || t == ")" || slices.Contains([]string{"and", "or", "not", "of"}, strings.ToLower(t)):
		case i+1 < len(p.tokens) && strings.EqualFold(p.tokens[i+1], "of"):
			return errors.New("it names each rule; 1 of … and all of … are not for correlations")
		case !slices.Contains(named, t):
			named = append(named, t)
		}
	}
	for _, r := range c.Rules {
		if !slices.Contains(named, r) {
			return fmt.Errorf("the rule %q is in the list but not in the condition", r)
		}
	}
	for _, r := range named {
		if len(c.Rules) > 0 && !slices.Contains(c.Rules, r) {
			return fmt.Errorf("the condition names %q, which is not in the list of rules", r)
		}
	}
	c.Rules = named // in this order temporal_ordered wants them
	var err error
	c.expr, err = parseCondition(c.Expression, named)
	return err
}

// terms multiplies the extended condition of c out.
func (c *Correlation) terms() ([]term, error) {
	lists, err := multiply(c.expr, false, func(name string) int { return slices.Index(c.Rules, name) })
	if err != nil {
		return nil, err
	}
	var out []term
	for _, l := range lists {
		var t term
		for _, lit := range l {
			if lit >= 0 {
				t.pos = append(t.pos, lit)
			} else {
				t.neg = append(t.neg, ^lit)
			}
		}
		slices.Sort(t.pos)
		slices.Sort(t.neg)
		t.pos, t.neg = slices.Compact(t.pos), slices.Compact(t.neg)
		if slices.ContainsFunc(t.pos, func(p int) bool { return slices.Contains(t.neg, p) }) {
			continue // a rule that must match and must not
		}
		if len(t.pos) == 0 {
			return nil, errors.New("it would hold without any event; beside what must not match it needs a rule that must")
		}
		if !slices.ContainsFunc(out, func(o term) bool { return slices.Equal(o.pos, t.pos) && slices.Equal(o.neg, t.neg) }) {
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("it can never hold")
	}
	return out, nil
}

// multiply gives x, or its opposite, as alternatives of lists of rules; those that must not match are complemented.
func multiply(x *expr, opposite bool, place func(string) int) ([][]int, error) {
	switch x.op {
	case exprName:
		n := place(x.name)
		if opposite {
			n = ^n
		}
		return [][]int{{n}}, nil
	case exprNot:
		return multiply(x.kids[0], !opposite, place)
	}
	if (x.op == exprOr) != opposite {
		var out [][]int
		for _, k := range x.kids {
			l, err := multiply(k, opposite, place)
			if err != nil {
				return nil, err
			}
			if out = append(out, l...); len(out) > maxTerms {
				return nil, fmt.Errorf("it has more than %d alternatives", maxTerms)
			}
		}
		return out, nil
	}
	out := [][]int{nil}
	for _, k := range x.kids {
		l, err := multiply(k, opposite, place)
		if err != nil {
			return nil, err
		}
		if len(out)*len(l) > maxTerms {
			return nil, fmt.Errorf("it has more than %d alternatives", maxTerms)
		}
		var next [][]int
		for _, a := range out {
			for _, b := range l {
				next = append(next, slices.Concat(a, b))
			}
		}
		out = next
	}
	return out, nil
}

// complete is a term of which all positive rules are in one window now.
type complete struct {
	term  int
	first int64 // event time of the first of them
}

// countTerms enters one event of the rule order. It gives what count gives, for terms without a not, and appends those with one that
// are complete to done.
func (g *group) countTerms(cc *compiledCorrelation, order int, at int64, done []complete) (n int, first int64, measured float64, rest []complete) {
	data := g.slots(cc.keep)
	data[order] = max(data[order], at)
	first = at
	for i := range cc.terms {
		t := &cc.terms[i]
		p := slices.Index(t.pos, order)
		if p < 0 {
			continue
		}
		from, ok := g.reached(cc, t, p, at)
		switch {
		case !ok:
		case len(t.neg) > 0:
			done = append(done, complete{i, from})
		case len(t.pos) > n:
			n, first, measured = len(t.pos), from, float64(len(t.pos))
		}
	}
	return n, first, measured, done
}

// reached says whether the event at, of the rule t.pos[p], completes t, and when the first of its events was.
func (g *group) reached(cc *compiledCorrelation, t *term, p int, at int64) (first int64, ok bool) {
	data := g.slots(cc.keep)
	if cc.kind == "temporal" {
		times := make([]int64, 0, 64)
		for q, o := range t.pos {
			if q != p && data[o] != 0 {
				times = append(times, data[o])
			}
		}
		n, first := fullestWith(times, at, cc.span)
		return first, n == len(t.pos)
	}
	// chain[i] is the latest start of a chain of the rules 0 to i.
	chain := data[t.chain : t.chain+len(t.pos)]
	if p == 0 {
		chain[0] = max(chain[0], at)
	} else if start := chain[p-1]; start != 0 && start >= at-cc.span && start <= at {
		chain[p] = max(chain[p], start)
	}
	if p < len(chain)-1 || chain[p] == 0 || chain[p] < at-cc.span {
		return 0, false
	}
	first = chain[p]
	chain[p] = 0 // used up
	return first, true
}
