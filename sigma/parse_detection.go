package sigma

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

func (p *parser) detection(n *yaml.Node) (map[string]*search, []*expr, error) {
	pairs, err := p.entries(n, "detection")
	if err != nil {
		return nil, nil, err
	}
	searches := map[string]*search{}
	var names []string
	var condition *yaml.Node
	for _, kv := range pairs {
		switch kv[0].Value {
		case "condition":
			condition = kv[1]
			continue
		case "timeframe":
			return nil, nil, errAt(kv[0], "timeframe belongs to the old aggregation syntax: write a correlation rule instead")
		}
		s, err := p.search(kv[1], 0)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", kv[0].Value, err)
		}
		searches[kv[0].Value] = s
		names = append(names, kv[0].Value)
	}
	if condition == nil {
		return nil, nil, errAt(n, "the condition is missing")
	}
	if len(names) == 0 {
		return nil, nil, errAt(n, "the detection has no search identifier")
	}
	conds, err := p.conditions(condition, names)
	return searches, conds, err
}

func (p *parser) conditions(n *yaml.Node, names []string) ([]*expr, error) {
	texts, err := p.stringList(n)
	if err != nil {
		return nil, err
	}
	if len(texts) == 0 {
		return nil, errAt(n, "the condition is empty")
	}
	var out []*expr
	for _, t := range texts {
		x, err := parseCondition(t, names)
		if err != nil {
			return nil, errAt(n, "condition %q: %v", t, err)
		}
		out = append(out, x)
	}
	return out, nil
}

func (p *parser) filter(n *yaml.Node, f *Filter) error {
	pairs, err := p.entries(n, "filter")
	if err != nil {
		return err
	}
	inner := &yaml.Node{Kind: yaml.MappingNode, Line: n.Line}
	named := false
	for _, kv := range pairs {
		if kv[0].Value != "rules" {
			inner.Content = append(inner.Content, kv[0], kv[1])
			continue
		}
		if f.Rules, err = p.stringList(kv[1]); err != nil {
			return err
		}
		named = true
		if len(f.Rules) == 1 && strings.EqualFold(f.Rules[0], "any") {
			f.Rules = nil
		}
	}
	if !named {
		return errAt(n, "filter: rules is missing: name rules, or write any")
	}
	f.searches, f.conditions, err = p.detection(inner)
	return err
}

func (p *parser) search(n *yaml.Node, depth int) (*search, error) {
	n = follow(n)
	if n == nil || depth > maxDepth {
		return nil, errAt(n, "nested too deeply")
	}
	switch n.Kind {
	case yaml.MappingNode:
		pairs, err := p.entries(n, "a selection")
		if err != nil {
			return nil, err
		}
		if len(pairs) == 0 {
			return nil, errAt(n, "an empty selection")
		}
		out := &search{}
		for _, kv := range pairs {
			it, err := p.item(kv[0], kv[1])
			if err != nil {
				return nil, err
			}
			out.kids = append(out.kids, &search{item: it})
		}
		return out, nil
	case yaml.SequenceNode:
		if len(n.Content) == 0 {
			return nil, errAt(n, "an empty list")
		}
		out := &search{any: true}
		for _, v := range n.Content {
			if v = follow(v); v != nil && v.Kind == yaml.ScalarNode {
				val, err := p.value(v)
				if err != nil {
					return nil, err
				}
				out.kids = append(out.kids, &search{item: &item{values: []value{val}, line: v.Line}})
				continue
			}
			kid, err := p.search(v, depth+1)
			if err != nil {
				return nil, err
			}
			out.kids = append(out.kids, kid)
		}
		return out, nil
	case yaml.ScalarNode:
		v, err := p.value(n)
		if err != nil {
			return nil, err
		}
		return &search{item: &item{values: []value{v}, line: n.Line}}, nil
	}
	return nil, errAt(n, "a selection must be a mapping, a list or a keyword")
}

func (p *parser) item(k, v *yaml.Node) (*item, error) {
	parts := strings.Split(k.Value, "|")
	it := &item{field: parts[0], mods: parts[1:], line: k.Line}
	if v = follow(v); v == nil {
		return nil, errAt(k, "%s: nested too deeply", k.Value)
	}
	switch v.Kind {
	case yaml.ScalarNode:
		val, err := p.value(v)
		if err != nil {
			return nil, err
		}
		it.values = []value{val}
	case yaml.SequenceNode:
		it.list = true
		for _, e := range v.Content {
			e = follow(e)
			if e == nil || e.Kind != yaml.ScalarNode {
				return nil, errAt(v, "%s: the values must be texts or numbers", k.Value)
			}
			val, err := p.value(e)
			if err != nil {
				return nil, err
			}
			it.values = append(it.values, val)
		}
		if len(it.values) == 0 {
			return nil, errAt(v, "%s: the list of values is empty", k.Value)
		}
	default:
		return nil, errAt(v, "%s: the value must be a text, a number or a list of them", k.Value)
	}
	return it, nil
}

// value keeps the text as it was written: 010, 0x10, 2024-01-01 and yes mean the characters, not what YAML makes of them.
func (p *parser) value(n *yaml.Node) (value, error) {
	if p.values++; p.values > maxValues {
		return value{}, errAt(n, "more than %d values in one rule", maxValues)
	}
	v := value{text: n.Value, line: n.Line}
	switch n.Tag {
	case "!!null":
		v.kind = valueNull
	case "!!int", "!!float":
		v.kind = valueNumber
	case "!!bool":
		v.kind = valueBool
	}
	return v, nil
}

func parseBool(t string) (bool, error) {
	switch strings.ToLower(t) {
	case "true", "yes", "on":
		return true, nil
	case "false", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is not true or false", t)
}

// parseNumber reads a decimal number and nothing else: no hexadecimal, infinity or blanks.
func parseNumber(t string) (float64, bool) {
	for i := 0; i < len(t); i++ {
		switch c := t[i]; {
		case c >= '0' && c <= '9', c == '.', c == '-', c == '+', c == 'e', c == 'E':
		default:
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(t, 64)
	return f, err == nil
}
