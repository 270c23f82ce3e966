package sigma

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

func (x *pipelineParser) ruleTest(kind string, o options, n *yaml.Node) (test, error) {
	text := func(name string, need bool) (string, error) {
		t, err := x.textOf(o, name, "")
		if err == nil && need && t == "" {
			err = errAt(n, "the condition %s needs %s", kind, name)
		}
		return t, err
	}
	switch kind {
	case "logsource":
		var s LogSource
		for name, at := range map[string]*string{"category": &s.Category, "product": &s.Product, "service": &s.Service} {
			t, err := text(name, false)
			if err != nil {
				return test{}, err
			}
			*at = strings.ToLower(t)
		}
		return test{rule: func(d *draftRule) (bool, error) { return d.from(s, 0), nil }}, nil
	case "contains_field":
		f, err := text("field", true)
		return test{rule: func(d *draftRule) (bool, error) {
			return d.r != nil && d.anyItem(func(it *item) bool { return it.field != "" && it.field == f }), nil
		}}, err
	case "contains_detection_item":
		f, err := text("field", true)
		if err != nil {
			return test{}, err
		}
		node := o.take("value")
		if node == nil {
			return test{}, errAt(n, "the condition %s needs value", kind)
		}
		want, err := x.value(follow(node))
		return test{rule: func(d *draftRule) (bool, error) {
			return d.r != nil && d.anyItem(func(it *item) bool {
				return it.field == f && slices.ContainsFunc(it.values, func(v value) bool { return v.kind == want.kind && v.text == want.text })
			}), nil
		}}, err
	case "processing_item_applied":
		id, err := text("processing_item_id", true)
		return test{rule: func(d *draftRule) (bool, error) { return d.applied[id], nil }}, err
	case "processing_state":
		return x.stateTest(o, n)
	case "is_sigma_rule":
		return test{rule: func(d *draftRule) (bool, error) { return d.r != nil, nil }}, nil
	case "is_sigma_correlation_rule":
		return test{rule: func(d *draftRule) (bool, error) { return d.c != nil, nil }}, nil
	case "tag":
		tag, err := text("tag", true)
		return test{rule: func(d *draftRule) (bool, error) {
			return slices.ContainsFunc(d.meta().Tags, func(t string) bool { return strings.EqualFold(t, tag) }), nil
		}}, err
	case "rule_attribute":
		return x.attributeTest(o, n, text)
	}
	return test{}, errAt(n, "unknown rule condition %q", kind)
}

// stateTest compares what set_state has kept for the rule.
func (x *pipelineParser) stateTest(o options, n *yaml.Node) (test, error) {
	key, err := x.textOf(o, "key", "")
	if err != nil {
		return test{}, err
	}
	val, err := x.textOf(o, "val", "")
	if err != nil {
		return test{}, err
	}
	op, err := x.textOf(o, "op", "eq")
	if err != nil {
		return test{}, err
	}
	if key == "" || !slices.Contains([]string{"eq", "ne", "gte", "gt", "lte", "lt"}, op) {
		return test{}, errAt(n, "processing_state needs key and val; op is eq, ne, gte, gt, lte or lt")
	}
	holds := func(d *draftRule) bool {
		have, ok := d.state[key]
		return ok && compareText(have, op, val)
	}
	return test{rule: func(d *draftRule) (bool, error) { return holds(d), nil }, item: func(d *draftRule, _ *item) bool { return holds(d) },
		name: func(d *draftRule, _ string, _ *item) bool { return holds(d) }}, nil
}

// compareText compares numbers as numbers and all else as text.
func compareText(a, op, b string) bool {
	c := strings.Compare(a, b)
	if x, ok := parseNumber(a); ok {
		if y, ok := parseNumber(b); ok {
			switch {
			case x < y:
				c = -1
			case x > y:
				c = 1
			default:
				c = 0
			}
		}
	}
	return holdsOrder(c, op)
}

func holdsOrder(c int, op string) bool {
	switch op {
	case "eq":
		return c == 0
	case "ne":
		return c != 0
	case "gt":
		return c > 0
	case "gte":
		return c >= 0
	case "lt":
		return c < 0
	}
	return c <= 0
}

func (x *pipelineParser) attributeTest(o options, n *yaml.Node, text func(string, bool) (string, error)) (test, error) {
	name, err := text("attribute", true)
	if err != nil {
		return test{}, err
	}
	want, err := text("value", true)
	if err != nil {
		return test{}, err
	}
	op, err := x.textOf(o, "op", "eq")
	if err != nil {
		return test{}, err
	}
	if !slices.Contains([]string{"eq", "ne", "gte", "gt", "lte", "lt", "in", "not_in"}, op) {
		return test{}, errAt(n, "rule_attribute does not know the operation %q", op)
	}
	ordered := map[string][]string{"level": levels, "status": {"unsupported", "deprecated", "experimental", "test", "stable"}}
	if list := ordered[name]; list != nil && !slices.Contains(list, want) {
		return test{}, errAt(n, "rule_attribute: %q is not a %s", want, name)
	}
	return test{rule: func(d *draftRule) (bool, error) {
		m := d.meta()
		if list, ok := map[string][]string{"tags": m.Tags, "references": m.References, "falsepositives": m.FalsePositives, "fields": *d.fields()}[name]; ok {
			switch op {
			case "in":
				return slices.Contains(list, want), nil
			case "not_in":
				return !slices.Contains(list, want), nil
			}
			return op == "ne", nil // a list is never one value
		}
		have, known := map[string]string{"title": m.Title, "id": m.ID, "name": m.Name, "description": m.Description, "author": m.Author, "status": m.Status, "level": m.Level,
			"date": m.Date, "modified": m.Modified}[name]
		if !known {
			node := m.custom[name]
			if node == nil || node.Kind != yaml.ScalarNode {
				return false, nil
			}
			have = node.Value
		}
		if list := ordered[name]; list != nil {
			at := slices.Index(list, have)
			return at >= 0 && holdsOrder(at-slices.Index(list, want), op), nil
		}
		if op == "in" || op == "not_in" {
			return false, errAt(n, "rule_attribute: %s is no list", name)
		}
		return have != "" && compareText(have, op, want), nil
	}}, nil
}

// from says whether d, or a rule that a correlation refers to, is about log source s.
func (d *draftRule) from(s LogSource, depth int) bool {
	if d.r != nil {
		return s.covers(d.r.LogSource)
	}
	if depth > maxDepth {
		return false
	}
	for _, ref := range d.c.Rules {
		for _, r := range d.all.Rules {
			if (r.ID == ref || r.Name == ref) && s.covers(r.LogSource) {
				return true
			}
		}
		for _, c := range d.all.Correlations {
			if (c.ID == ref || c.Name == ref) && (&draftRule{all: d.all, c: c}).from(s, depth+1) {
				return true
			}
		}
	}
	return false
}

func (d *draftRule) fields() *[]string {
	if d.r != nil {
		return &d.r.Fields
	}
	return &d.c.Fields
}

func (d *draftRule) anyItem(f func(*item) bool) bool {
	var in func(*search) bool
	in = func(s *search) bool { return s.item != nil && f(s.item) || slices.ContainsFunc(s.kids, in) }
	for _, s := range d.r.searches {
		if in(s) {
			return true
		}
	}
	return false
}

func (x *pipelineParser) itemTest(kind string, o options, n *yaml.Node) (test, error) {
	switch kind {
	case "match_string", "match_value", "contains_wildcard", "is_null":
		// cond says whether one value is enough.
		cond, err := x.textOf(o, "cond", "any")
		if err != nil {
			return test{}, err
		}
		if cond != "any" && cond != "all" {
			return test{}, errAt(n, "%s: cond is any or all", kind)
		}
		negate, err := x.boolOf(o, "negate")
		if err != nil {
			return test{}, err
		}
		var one func(value) bool
		switch kind {
		case "match_string":
			src, err := x.textOf(o, "pattern", "")
			if err != nil {
				return test{}, err
			}
			re, err := regexp.Compile("^(?:" + src + ")")
			if src == "" || err != nil {
				return test{}, errAt(n, "match_string needs a pattern that is a regular expression: %v", err)
			}
			one = func(v value) bool { return v.kind == valueString && re.MatchString(v.text) }
		case "match_value":
			want, err := x.textOf(o, "value", "")
			if err != nil {
				return test{}, err
			}
			one = func(v value) bool { return v.text == want }
		case "contains_wildcard":
			one = func(v value) bool {
				return v.kind == valueString && slices.ContainsFunc(parsePattern(v.text), func(p part) bool { return p.kind != partText })
			}
		default:
			one = func(v value) bool { return v.kind == valueNull }
		}
		return test{item: func(_ *draftRule, it *item) bool {
			yes := slices.ContainsFunc(it.values, one)
			if cond == "all" {
				yes = !slices.ContainsFunc(it.values, func(v value) bool { return !one(v) })
			}
			return yes != negate
		}}, nil
	case "processing_item_applied":
		id, err := x.textOf(o, "processing_item_id", "")
		return test{item: func(_ *draftRule, it *item) bool { return slices.Contains(it.marks, id) }}, err
	case "processing_state":
		return x.stateTest(o, n)
	}
	return test{}, errAt(n, "unknown detection item condition %q", kind)
}

func (x *pipelineParser) fieldTest(kind string, o options, n *yaml.Node) (test, error) {
	switch kind {
	case "include_fields", "exclude_fields":
		list, err := x.stringList(o.take("fields"))
		if err != nil {
			return test{}, err
		}
		mode, err := x.textOf(o, "mode", "plain")
		if err != nil {
			return test{}, err
		}
		var res []*regexp.Regexp
		switch mode {
		case "plain":
		case "re":
			for i, f := range list {
				re, err := regexp.Compile("^(?:" + f + ")")
				if err != nil {
					return test{}, errAt(n, "fields: entry %s: %v", strconv.Itoa(i+1), err)
				}
				res = append(res, re)
			}
		default:
			return test{}, errAt(n, "%s: mode is plain or re", kind)
		}
		in := func(field string) bool {
			if field == "" {
				return false // keywords
			}
			if mode == "plain" {
				return slices.Contains(list, field)
			}
			return slices.ContainsFunc(res, func(re *regexp.Regexp) bool { return re.MatchString(field) })
		}
		include := kind == "include_fields"
		return test{name: func(_ *draftRule, field string, _ *item) bool { return in(field) == include }}, nil
	case "processing_item_applied":
		id, err := x.textOf(o, "processing_item_id", "")
		return test{name: func(_ *draftRule, _ string, it *item) bool { return it != nil && slices.Contains(it.marks, id) }}, err
	case "processing_state":
		return x.stateTest(o, n)
	}
	return test{}, errAt(n, "unknown field name condition %q", kind)
}
