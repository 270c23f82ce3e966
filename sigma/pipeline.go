package sigma

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Pipeline changes rules before they are compiled: names of fields, values, conditions, log sources. Its YAML is that of pySigma's
// processing pipelines; docs/sigma-pipelines.md lists what is known. Values are seen as the rule writes them, before modifiers. What makes
// sense only for the text of a query (postprocessing, finalizers, query expressions), and what reads from elsewhere (files, HTTP,
// commands), is refused.
type Pipeline struct {
	Name     string
	Priority int // pipelines are applied in rising order
	File     string

	vars  map[string][]string
	items []*processing
}

// processing is one item of a pipeline.
type processing struct {
	id                     string
	line                   int
	rule, detection, field conditionSet
	change                 change
	nested                 []*processing
}

// conditionSet is the conditions of one kind of one item.
type conditionSet struct {
	names []string
	tests []test
	any   bool
	not   bool
	expr  *expr // over names; then any and not are not given
}

// test is one condition. which of them is used depends on the kind.
type test struct {
	rule func(*draftRule) (bool, error)
	item func(*draftRule, *item) bool
	name func(d *draftRule, field string, it *item) bool // it is nil for names outside of detections
}

// draftRule is a rule, or a correlation, on its way through pipelines.
type draftRule struct {
	p       *Pipeline
	all     *Collection
	r       *Rule
	c       *Correlation
	applied map[string]bool // ids of items
	state   map[string]string
	depth   int
}

func (d *draftRule) meta() *Meta {
	if d.r != nil {
		return &d.r.Meta
	}
	return &d.c.Meta
}

// ParsePipeline reads one pipeline.
func ParsePipeline(file string, data []byte) (*Pipeline, error) {
	fail := func(err error) error {
		e := &Error{File: file, Reason: err.Error()}
		var at *lineError
		if errors.As(err, &at) {
			e.Line = at.line
		}
		return e
	}
	var doc yaml.Node
	if err := decodeNode(yaml.NewDecoder(bytes.NewReader(data)), &doc); err != nil {
		if errors.Is(err, errEOF) {
			return nil, fail(errors.New("the file holds no pipeline"))
		}
		return nil, yamlError(file, err)
	}
	root := &doc
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	p := &Pipeline{File: file, Name: file, vars: map[string][]string{}}
	x := &pipelineParser{}
	if err := x.pipeline(root, p); err != nil {
		return nil, fail(err)
	}
	return p, nil
}

// pipelineParser reads with the rules' own limits.
type pipelineParser struct {
	parser
	depth int
}

func (x *pipelineParser) pipeline(root *yaml.Node, p *Pipeline) error {
	pairs, err := x.entries(root, "the pipeline")
	if err != nil {
		return err
	}
	for _, kv := range pairs {
		k, v := kv[0].Value, kv[1]
		switch k {
		case "name":
			p.Name, err = x.text(v, k)
		case "priority":
			var t string
			if t, err = x.text(v, k); err == nil {
				if p.Priority, err = strconv.Atoi(t); err != nil {
					err = errAt(v, "priority: %q is not a whole number", t)
				}
			}
		case "vars":
			var vars [][2]*yaml.Node
			if vars, err = x.entries(v, k); err != nil {
				return err
			}
			for _, e := range vars {
				if p.vars[e[0].Value], err = x.stringList(e[1]); err != nil {
					return err
				}
			}
		case "transformations":
			p.items, err = x.items(v)
		case "allowed_backends":
		case "postprocessing", "finalizers":
			err = errAt(kv[0], "%s changes the text of a query; rules are matched here without one, so it would do nothing", k)
		default:
			err = errAt(kv[0], "unknown key %q in a pipeline", k)
		}
		if err != nil {
			return err
		}
	}
	if len(p.items) == 0 {
		return errAt(root, "the pipeline has no transformations")
	}
	return nil
}

func (x *pipelineParser) items(n *yaml.Node) ([]*processing, error) {
	if n = follow(n); n == nil || n.Kind != yaml.SequenceNode {
		return nil, errAt(n, "a list of transformations is wanted")
	}
	if x.depth++; x.depth > maxDepth {
		return nil, errAt(n, "nested too deeply")
	}
	defer func() { x.depth-- }()
	var out []*processing
	for _, e := range n.Content {
		it, err := x.item1(follow(e))
		if err != nil {
			return nil, err
		}
		if x.values++; x.values > maxValues {
			return nil, errAt(e, "more than %d entries in one pipeline", maxValues)
		}
		out = append(out, it)
	}
	return out, nil
}

// options is the keys of a mapping that nobody has taken yet.
type options map[string]*yaml.Node

func (o options) take(name string) *yaml.Node {
	n := o[name]
	delete(o, name)
	return n
}

func (x *pipelineParser) options(n *yaml.Node, what string) (options, error) {
	pairs, err := x.entries(n, what)
	if err != nil {
		return nil, err
	}
	o := options{}
	for _, kv := range pairs {
		o[kv[0].Value] = kv[1]
	}
	return o, nil
}

// rest refuses what is left over.
func (o options) rest(n *yaml.Node, what string) error {
	for _, k := range slices.Sorted(maps.Keys(o)) {
		return errAt(n, "%s does not know %q", what, k)
	}
	return nil
}

func (x *pipelineParser) textOf(o options, name, def string) (string, error) {
	n := o.take(name)
	if n == nil {
		return def, nil
	}
	return x.text(n, name)
}

func (x *pipelineParser) boolOf(o options, name string) (bool, error) {
	n := o.take(name)
	if n == nil {
		return false, nil
	}
	t, err := x.text(n, name)
	if err != nil {
		return false, err
	}
	b, err := parseBool(t)
	if err != nil {
		return false, errAt(n, "%s: %v", name, err)
	}
	return b, nil
}

func (x *pipelineParser) item1(n *yaml.Node) (*processing, error) {
	o, err := x.options(n, "a transformation")
	if err != nil {
		return nil, err
	}
	p := &processing{line: n.Line}
	if p.id, err = x.textOf(o, "id", ""); err != nil {
		return nil, err
	}
	for _, k := range []struct {
		name  string
		set   *conditionSet
		parse func(string, options, *yaml.Node) (test, error)
	}{{"rule", &p.rule, x.ruleTest}, {"detection_item", &p.detection, x.itemTest}, {"field_name", &p.field, x.fieldTest}} {
		if err := x.conditions(k.name, o, k.set, k.parse); err != nil {
			return nil, err
		}
	}
	kind, err := x.textOf(o, "type", "")
	if err != nil {
		return nil, err
	}
	if kind == "nest" {
		list := o.take("items")
		if list == nil {
			return nil, errAt(n, "nest needs items")
		}
		if p.nested, err = x.items(list); err != nil {
			return nil, err
		}
		if len(p.nested) == 0 {
			return nil, errAt(list, "nest has no items")
		}
	} else if p.change, err = x.change(kind, o, n); err != nil {
		return nil, err
	}
	return p, o.rest(n, "the transformation "+kind)
}

// conditions reads the conditions of one kind, and how they are joined.
func (x *pipelineParser) conditions(kind string, o options, s *conditionSet, parse func(string, options, *yaml.Node) (test, error)) error {
	list := follow(o.take(kind + "_conditions"))
	op, err := x.textOf(o, kind+"_cond_op", "")
	if err != nil {
		return err
	}
	if s.not, err = x.boolOf(o, kind+"_cond_not"); err != nil {
		return err
	}
	text, err := x.textOf(o, kind+"_cond_expr", "")
	if err != nil {
		return err
	}
	if list == nil {
		return nil
	}
	switch op {
	case "", "and":
	case "or":
		s.any = true
	default:
		return errAt(list, "%s_cond_op is %q; it must be and or or", kind, op)
	}
	add := func(name string, n *yaml.Node) error {
		o, err := x.options(n, "a condition")
		if err != nil {
			return err
		}
		t, err := x.textOf(o, "type", "")
		if err != nil {
			return err
		}
		made, err := parse(t, o, n)
		if err != nil {
			return err
		}
		s.names, s.tests = append(s.names, name), append(s.tests, made)
		return o.rest(n, "the condition "+t)
	}
	switch list.Kind {
	case yaml.SequenceNode:
		for i, n := range list.Content {
			if err := add(strconv.Itoa(i+1), follow(n)); err != nil {
				return err
			}
		}
	case yaml.MappingNode:
		pairs, err := x.entries(list, kind+"_conditions")
		if err != nil {
			return err
		}
		for _, kv := range pairs {
			if err := add(kv[0].Value, kv[1]); err != nil {
				return err
			}
		}
	default:
		return errAt(list, "%s_conditions must be a list or a mapping", kind)
	}
	if text == "" {
		return nil
	}
	if op != "" || list.Kind != yaml.MappingNode {
		return errAt(list, "%s_cond_expr needs named conditions and no %s_cond_op", kind, kind)
	}
	if s.expr, err = parseCondition(text, s.names); err != nil {
		return errAt(list, "%s_cond_expr %q: %v", kind, text, err)
	}
	return nil
}

// holds evaluates s; each runs one test.
func (s *conditionSet) holds(each func(*test) (bool, error)) (bool, error) {
	if len(s.tests) == 0 {
		return true, nil
	}
	var eval func(x *expr) (bool, error)
	eval = func(x *expr) (bool, error) {
		switch x.op {
		case exprName:
			return each(&s.tests[slices.Index(s.names, x.name)])
		case exprNot:
			v, err := eval(x.kids[0])
			return !v, err
		}
		for _, k := range x.kids {
			if v, err := eval(k); err != nil || v == (x.op == exprOr) {
				return v, err
			}
		}
		return x.op == exprAnd, nil
	}
	v := !s.any
	var err error
	if s.expr != nil {
		v, err = eval(s.expr)
	} else {
		for i := range s.tests {
			var one bool
			if one, err = each(&s.tests[i]); err != nil || one == s.any {
				v = one
				break
			}
		}
	}
	return v != s.not, err
}

// Apply gives what the pipelines make of c, which stays as it is. Rules that a pipeline refuses are listed and left out. Filters are
// joined to the rules that they narrow first, as pySigma does, so that pipelines change them too.
func (c *Collection) Apply(pipelines ...*Pipeline) (*Collection, []*Error) {
	list := slices.SortedStableFunc(slices.Values(pipelines), func(a, b *Pipeline) int { return cmp.Compare(a.Priority, b.Priority) })
	out := &Collection{}
	var errs []*Error
	refuse := func(m *Meta, err error) {
		e := &Error{File: m.File, Line: m.Line, Rule: m.Label(), Reason: err.Error()}
		var at *lineError
		if errors.As(err, &at) && at.line > 0 {
			e.Line = at.line
		}
		errs = append(errs, e)
	}
	filters := c.usableFilters(refuse)
	for _, r := range c.Rules {
		d := &draftRule{all: c, r: r.withFilters(filters), applied: map[string]bool{}, state: map[string]string{}}
		if err := d.run(list); err != nil {
			refuse(&r.Meta, err)
			continue
		}
		out.Rules = append(out.Rules, d.r)
	}
	for _, r := range c.Correlations {
		d := &draftRule{all: c, c: r.clone(), applied: map[string]bool{}, state: map[string]string{}}
		if err := d.run(list); err != nil {
			refuse(&r.Meta, err)
			continue
		}
		out.Correlations = append(out.Correlations, d.c)
	}
	return out, errs
}

// usableFilters refuses filters that cannot be compiled, once and not with each rule that they narrow: those rules then work without. What a
// filter names and cannot narrow is reported too; it narrows the rest.
func (c *Collection) usableFilters(refuse func(*Meta, error)) []*Filter {
	var out []*Filter
	for _, f := range c.Filters {
		b := &binder{e: &Engine{}}
		if _, err := b.any(f.conditions, f.searches); err != nil {
			refuse(&f.Meta, err)
			continue
		}
		out = append(out, f)
		for _, want := range f.Rules {
			i := slices.IndexFunc(c.Rules, func(r *Rule) bool { return r.ID == want || r.Name == want })
			switch {
			case i < 0:
				refuse(&f.Meta, fmt.Errorf("the filter names the rule %q, which does not exist", want))
			case !f.LogSource.covers(c.Rules[i].LogSource):
				refuse(&f.Meta, fmt.Errorf("the filter names the rule %q, but is for another log source (%s, the rule has %s), so it does not narrow it", want, f.LogSource, c.Rules[i].LogSource))
			}
		}
	}
	return out
}

// narrows says whether f applies to r.
func (f *Filter) narrows(r *Rule) bool {
	return f.LogSource.covers(r.LogSource) && (len(f.Rules) == 0 || slices.Contains(f.Rules, r.ID) || r.Name != "" && slices.Contains(f.Rules, r.Name))
}

// withFilters is a copy of r, all the way down, with the filters that apply joined to its condition.
func (r *Rule) withFilters(filters []*Filter) *Rule {
	out := *r
	out.Fields = slices.Clone(r.Fields)
	out.custom = maps.Clone(r.custom)
	out.searches = map[string]*search{}
	for k, s := range r.searches {
		out.searches[k] = s.clone()
	}
	out.conditions = slices.Clone(r.conditions)
	for i, f := range filters {
		if !f.narrows(r) {
			continue
		}
		name := func(s string) string { return fmt.Sprintf("filter %d %s", i, s) } // no identifier has a blank in it
		for k, s := range f.searches {
			out.searches[name(k)] = s.clone()
		}
		narrow := &expr{op: exprOr}
		for _, x := range f.conditions {
			narrow.kids = append(narrow.kids, x.renamed(name))
		}
		for k, x := range out.conditions {
			out.conditions[k] = &expr{op: exprAnd, kids: []*expr{x, narrow}}
		}
	}
	return &out
}

func (x *expr) renamed(name func(string) string) *expr {
	out := &expr{op: x.op}
	if x.op == exprName {
		out.name = name(x.name)
	}
	for _, k := range x.kids {
		out.kids = append(out.kids, k.renamed(name))
	}
	return out
}

func (s *search) clone() *search {
	out := &search{any: s.any}
	if s.item != nil {
		it := *s.item
		it.mods, it.values = slices.Clone(it.mods), slices.Clone(it.values)
		out.item = &it
	}
	for _, k := range s.kids {
		out.kids = append(out.kids, k.clone())
	}
	return out
}

func (c *Correlation) clone() *Correlation {
	out := *c
	out.Fields, out.GroupBy, out.valueFields, out.custom = slices.Clone(c.Fields), slices.Clone(c.GroupBy), slices.Clone(c.valueFields), maps.Clone(c.custom)
	out.Aliases = map[string]map[string]string{}
	for k, m := range c.Aliases {
		out.Aliases[k] = maps.Clone(m)
	}
	return &out
}
