package sigma

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// change is what a transformation does to a rule to which its rule conditions apply.
type change func(*draftRule, *processing) error

// run applies pipelines in order.
func (d *draftRule) run(list []*Pipeline) error {
	for _, p := range list {
		d.p = p
		if err := d.items(p.items); err != nil {
			return fmt.Errorf("pipeline %s: %w", p.Name, err)
		}
	}
	return nil
}

func (d *draftRule) items(list []*processing) error {
	if d.depth++; d.depth > maxDepth {
		return errors.New("nested too deeply")
	}
	defer func() { d.depth-- }()
	for _, p := range list {
		ok, err := p.rule.holds(func(t *test) (bool, error) { return t.rule(d) })
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if p.nested != nil {
			err = d.items(p.nested)
		} else {
			err = p.change(d, p)
		}
		if err != nil {
			return err
		}
		if p.id != "" {
			d.applied[p.id] = true
		}
	}
	return nil
}

func (p *processing) wantsItem(d *draftRule, it *item) bool {
	yes, _ := p.detection.holds(func(t *test) (bool, error) { return t.item(d, it), nil })
	return yes && p.wantsField(d, it.field, it)
}

func (p *processing) wantsField(d *draftRule, field string, it *item) bool {
	yes, _ := p.field.holds(func(t *test) (bool, error) { return t.name(d, field, it), nil })
	return yes
}

// errDrop asks for an item to be dropped.
var errDrop = errors.New("drop")

// eachItem changes the items that p wants. f gives what takes the place of one; nil leaves it.
func (d *draftRule) eachItem(p *processing, f func(*item) (*search, error)) error {
	if d.r == nil {
		return nil
	}
	var walk func(*search) (*search, error)
	walk = func(s *search) (*search, error) {
		if s.item != nil {
			if !p.wantsItem(d, s.item) {
				return s, nil
			}
			to, err := f(s.item)
			if err != nil || to == nil {
				return s, err
			}
			to.mark(p.id)
			return to, nil
		}
		kids := s.kids[:0:0]
		for _, k := range s.kids {
			k, err := walk(k)
			if errors.Is(err, errDrop) {
				continue
			}
			if err != nil {
				return nil, err
			}
			kids = append(kids, k)
		}
		if s.kids = kids; len(kids) == 0 {
			return nil, errDrop
		}
		return s, nil
	}
	for name, s := range d.r.searches {
		to, err := walk(s)
		if errors.Is(err, errDrop) { // nothing is left of it: it drops out of conditions
			delete(d.r.searches, name)
			continue
		}
		if err != nil {
			return err
		}
		d.r.searches[name] = to
	}
	return d.dropNames()
}

func (s *search) mark(id string) {
	if s.item != nil && id != "" {
		s.item.marks = append(s.item.marks, id)
	}
	for _, k := range s.kids {
		k.mark(id)
	}
}

// dropNames takes search identifiers that are gone out of the conditions.
func (d *draftRule) dropNames() error {
	var prune func(*expr) *expr
	prune = func(x *expr) *expr {
		if x.op == exprName {
			if d.r.searches[x.name] == nil {
				return nil
			}
			return x
		}
		out := &expr{op: x.op}
		for _, k := range x.kids {
			if k = prune(k); k != nil {
				out.kids = append(out.kids, k)
			}
		}
		switch {
		case len(out.kids) == 0:
			return nil
		case len(out.kids) == 1 && x.op != exprNot:
			return out.kids[0]
		}
		return out
	}
	var left []*expr
	for _, x := range d.r.conditions {
		if x = prune(x); x != nil {
			left = append(left, x)
		}
	}
	if d.r.conditions = left; len(left) == 0 {
		return errors.New("nothing is left of the rule's condition")
	}
	return nil
}

// change reads a transformation's own options.
func (x *pipelineParser) change(kind string, o options, n *yaml.Node) (change, error) {
	switch kind {
	case "field_name_mapping", "field_name_prefix_mapping", "field_name_prefix", "field_name_suffix", "field_name_transform":
		names, err := x.naming(kind, o, n)
		if err != nil {
			return nil, err
		}
		return func(d *draftRule, p *processing) error { return d.rename(p, names) }, nil
	case "drop_detection_item":
		return func(d *draftRule, p *processing) error {
			return d.eachItem(p, func(*item) (*search, error) { return nil, errDrop })
		}, nil
	case "add_condition":
		return x.addCondition(o, n)
	case "change_logsource":
		var s LogSource
		for name, at := range map[string]*string{"category": &s.Category, "product": &s.Product, "service": &s.Service} {
			t, err := x.textOf(o, name, "")
			if err != nil {
				return nil, err
			}
			*at = strings.ToLower(t)
		}
		if s == (LogSource{}) {
			return nil, errAt(n, "change_logsource needs a category, a product or a service")
		}
		return func(d *draftRule, _ *processing) error {
			if d.r != nil {
				d.r.LogSource = s
			}
			return nil
		}, nil
	case "add_field", "remove_field", "set_field":
		key := "field"
		if kind == "set_field" {
			key = "fields"
		}
		list, err := x.stringList(o.take(key))
		if err != nil {
			return nil, err
		}
		return func(d *draftRule, _ *processing) error {
			at := d.fields()
			switch kind {
			case "add_field":
				*at = append(*at, list...)
			case "remove_field":
				*at = slices.DeleteFunc(*at, func(f string) bool { return slices.Contains(list, f) })
			default:
				*at = slices.Clone(list)
			}
			return nil
		}, nil
	case "set_state", "set_custom_attribute":
		keys := map[string][2]string{"set_state": {"key", "val"}, "set_custom_attribute": {"attribute", "value"}}[kind]
		key, err := x.textOf(o, keys[0], "")
		if err != nil {
			return nil, err
		}
		val := o.take(keys[1])
		if key == "" || val == nil {
			return nil, errAt(n, "%s needs %s and %s", kind, keys[0], keys[1])
		}
		if kind == "set_custom_attribute" {
			return func(d *draftRule, _ *processing) error {
				m := d.meta()
				if m.custom == nil {
					m.custom = map[string]*yaml.Node{}
				}
				m.custom[key] = val
				return nil
			}, nil
		}
		text, err := x.text(val, "val")
		return func(d *draftRule, _ *processing) error { d.state[key] = text; return nil }, err
	case "rule_failure", "detection_item_failure":
		message, err := x.textOf(o, "message", "the pipeline refuses this rule")
		if err != nil {
			return nil, err
		}
		return func(d *draftRule, p *processing) error {
			if kind == "rule_failure" {
				return errors.New(message)
			}
			return d.eachItem(p, func(it *item) (*search, error) { return nil, &lineError{it.line, message} })
		}, nil
	case "strict_field_mapping_failure":
		return func(d *draftRule, p *processing) error {
			return d.eachItem(p, func(it *item) (*search, error) {
				if it.field != "" && !it.mapped {
					return nil, &lineError{it.line, fmt.Sprintf("the field %q was not mapped", it.field)}
				}
				return nil, nil
			})
		}, nil
	case "value_placeholders", "wildcard_placeholders":
		return x.placeholders(kind, o)
	case "hashes_fields":
		return x.hashes(o)
	case "extract_fields":
		return x.extract(o, n)
	case "replace_string", "map_string", "set_value", "convert_type", "case", "regex":
		f, err := x.valueChange(kind, o, n)
		if err != nil {
			return nil, err
		}
		return func(d *draftRule, p *processing) error {
			return d.eachItem(p, func(it *item) (*search, error) { return changeValues(it, f) })
		}, nil
	case "query_expression_placeholders", "file_placeholders", "http_placeholders", "command_placeholders":
		return nil, errAt(n, "%s is not done here: give the values under vars and use value_placeholders", kind)
	case "":
		return nil, errAt(n, "a transformation needs a type")
	}
	return nil, errAt(n, "unknown transformation %q", kind)
}

// naming gives the function from the name of a field to those that take its place; nil: it stays.
func (x *pipelineParser) naming(kind string, o options, n *yaml.Node) (func(string) []string, error) {
	mapping := map[string][]string{}
	var order []string
	if m := o.take("mapping"); m != nil {
		pairs, err := x.entries(m, "mapping")
		if err != nil {
			return nil, err
		}
		for _, kv := range pairs {
			name := kv[0].Value
			if kv[0].Tag == "!!null" {
				name = "" // keywords
			}
			if mapping[name], err = x.stringList(kv[1]); err != nil {
				return nil, err
			}
			if len(mapping[name]) == 0 || slices.Contains(mapping[name], "") {
				return nil, errAt(kv[1], "mapping: %q is mapped to nothing", name)
			}
			order = append(order, name)
		}
	}
	fix := func(name string) (string, error) {
		t, err := x.textOf(o, name, "")
		if err == nil && t == "" {
			err = errAt(n, "%s needs %s", kind, name)
		}
		return t, err
	}
	switch kind {
	case "field_name_mapping":
		return func(f string) []string { return mapping[f] }, nil
	case "field_name_prefix_mapping":
		return func(f string) []string {
			for _, from := range order {
				if rest, ok := strings.CutPrefix(f, from); ok && f != "" && from != "" {
					var out []string
					for _, to := range mapping[from] {
						out = append(out, to+rest)
					}
					return out
				}
			}
			return nil
		}, nil
	case "field_name_prefix", "field_name_suffix":
		t, err := fix(strings.TrimPrefix(kind, "field_name_"))
		return func(f string) []string {
			switch {
			case f == "":
				return nil
			case kind == "field_name_prefix":
				return []string{t + f}
			}
			return []string{f + t}
		}, err
	}
	how, err := fix("transform_func")
	if err != nil {
		return nil, err
	}
	to := casings[how]
	if to == nil {
		return nil, errAt(n, "field_name_transform: transform_func is lower, upper or snake_case, not %q", how)
	}
	return func(f string) []string {
		if m := mapping[f]; m != nil || f == "" {
			return m
		}
		return []string{to(f)}
	}, nil
}

var casings = map[string]func(string) string{"lower": strings.ToLower, "upper": strings.ToUpper, "snake_case": snakeCase}

func snakeCase(s string) string {
	var b strings.Builder
	for i, r := range s {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// rename gives fields other names, in detections and wherever else a rule names fields.
func (d *draftRule) rename(p *processing, names func(string) []string) error {
	one := func(f string) ([]string, bool) {
		if to := names(f); to != nil && p.wantsField(d, f, nil) {
			return to, true
		}
		return []string{f}, false
	}
	list := func(fields []string) []string {
		var out []string
		for _, f := range fields {
			to, _ := one(f)
			out = append(out, to...)
		}
		return out
	}
	if d.c != nil {
		single := func(f string) (string, error) {
			to, _ := one(f)
			if len(to) > 1 {
				return "", fmt.Errorf("the field %q of a correlation cannot become several", f)
			}
			return to[0], nil
		}
		for _, m := range d.c.Aliases {
			for ref, f := range m {
				to, err := single(f)
				if err != nil {
					return err
				}
				m[ref] = to
			}
		}
		var groups []string
		for _, g := range d.c.GroupBy {
			if d.c.Aliases[g] != nil {
				groups = append(groups, g)
			} else {
				groups = append(groups, list([]string{g})...)
			}
		}
		d.c.GroupBy, d.c.Fields = groups, list(d.c.Fields)
		for i, f := range d.c.valueFields {
			if d.c.Aliases[f] != nil {
				continue
			}
			to, err := single(f)
			if err != nil {
				return err
			}
			d.c.valueFields[i] = to
		}
		return nil
	}
	d.r.Fields = list(d.r.Fields)
	return d.eachItem(p, func(it *item) (*search, error) {
		changed := false
		if slices.Contains(it.mods, "fieldref") {
			var values []value
			for _, v := range it.values {
				to, ok := one(v.text)
				changed = changed || ok
				for _, t := range to {
					w := v
					w.text = t
					values = append(values, w)
				}
			}
			it.values = values
		}
		to := names(it.field)
		if to == nil {
			if changed {
				return &search{item: it}, nil
			}
			return nil, nil
		}
		it.mapped = true
		if it.field == "" && len(it.mods) == 0 {
			it.mods = []string{"contains"} // a keyword is sought anywhere in a value
		}
		if len(to) == 1 {
			it.field = to[0]
			return &search{item: it}, nil
		}
		out := &search{any: true}
		for _, t := range to {
			c := *it
			c.field = t
			out.kids = append(out.kids, (&search{item: &c}).clone())
		}
		return out, nil
	})
}

func (x *pipelineParser) addCondition(o options, n *yaml.Node) (change, error) {
	conds := follow(o.take("conditions"))
	if conds == nil {
		return nil, errAt(n, "add_condition needs conditions")
	}
	made, err := x.search(conds, 0)
	if err != nil {
		return nil, err
	}
	name, err := x.textOf(o, "name", "")
	if err != nil {
		return nil, err
	}
	template, err := x.boolOf(o, "template")
	if err != nil {
		return nil, err
	}
	negated, err := x.boolOf(o, "negated")
	if err != nil {
		return nil, err
	}
	return func(d *draftRule, p *processing) error {
		if d.r == nil {
			return nil
		}
		s := made.clone()
		if template {
			s.fill(strings.NewReplacer("$category", d.r.LogSource.Category, "$product", d.r.LogSource.Product, "$service", d.r.LogSource.Service,
				"${category}", d.r.LogSource.Category, "${product}", d.r.LogSource.Product, "${service}", d.r.LogSource.Service, "$$", "$"))
		}
		s.mark(p.id)
		id := name
		for k := 0; id == "" || d.r.searches[id] != nil; k++ {
			id = fmt.Sprintf("%s added %d", name, k)
		}
		d.r.searches[id] = s
		more := &expr{name: id}
		if negated {
			more = &expr{op: exprNot, kids: []*expr{more}}
		}
		for i, c := range d.r.conditions {
			d.r.conditions[i] = &expr{op: exprAnd, kids: []*expr{more, c}}
		}
		return nil
	}, nil
}

func (s *search) fill(r *strings.Replacer) {
	if s.item != nil {
		for i := range s.item.values {
			s.item.values[i].text = r.Replace(s.item.values[i].text)
		}
	}
	for _, k := range s.kids {
		k.fill(r)
	}
}
