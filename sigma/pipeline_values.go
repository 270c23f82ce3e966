package sigma

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// placeholders fills %name% in items that have the modifier expand.
func (x *pipelineParser) placeholders(kind string, o options) (change, error) {
	include, err := x.stringList(o.take("include"))
	if err != nil {
		return nil, err
	}
	exclude, err := x.stringList(o.take("exclude"))
	if err != nil {
		return nil, err
	}
	return func(d *draftRule, p *processing) error {
		return d.eachItem(p, func(it *item) (*search, error) {
			if !slices.Contains(it.mods, "expand") {
				return nil, nil
			}
			wild := "*"
			if slices.Contains(it.mods, "re") {
				wild = ".*"
			}
			var values []value
			changed := false
			for _, v := range it.values {
				texts := []string{""}
				from := 0
				for _, m := range placeholders(v.text) {
					name := v.text[m[0]+1 : m[1]-1]
					fill := []string{v.text[m[0]:m[1]]}
					if (len(include) == 0 || slices.Contains(include, name)) && !slices.Contains(exclude, name) {
						changed = true
						if fill = []string{wild}; kind == "value_placeholders" {
							if fill = d.p.vars[name]; len(fill) == 0 {
								return nil, &lineError{v.line, fmt.Sprintf("the placeholder %%%s%% has no value under vars", name)}
							}
						}
					}
					var next []string
					for _, t := range texts {
						for _, f := range fill {
							next = append(next, t+v.text[from:m[0]]+f)
						}
					}
					if texts, from = next, m[1]; len(texts) > maxValues {
						return nil, &lineError{v.line, fmt.Sprintf("the placeholders make more than %d values", maxValues)}
					}
				}
				for _, t := range texts {
					w := v
					w.text = t + v.text[from:]
					values = append(values, w)
				}
			}
			if !changed {
				return nil, nil
			}
			it.values = values
			if !slices.ContainsFunc(values, func(v value) bool { return placeholders(v.text) != nil }) {
				for i := range it.values {
					it.values[i].text = percents(it.values[i].text)
				}
				it.mods = slices.DeleteFunc(it.mods, func(m string) bool { return m == "expand" })
			}
			return &search{item: it}, nil
		})
	}, nil
}

// hashes parts the field Hashes (SHA1=…,MD5=…) into one field for each kind.
func (x *pipelineParser) hashes(o options) (change, error) {
	algos, err := x.stringList(o.take("valid_hash_algos"))
	if err != nil {
		return nil, err
	}
	prefix, err := x.textOf(o, "field_prefix", "")
	if err != nil {
		return nil, err
	}
	drop, err := x.boolOf(o, "drop_algo_prefix")
	if err != nil {
		return nil, err
	}
	fields, err := x.stringList(o.take("field_to_parse"))
	if err != nil {
		return nil, err
	}
	if fields == nil {
		fields = []string{"Hashes", "Hash"}
	}
	kinds := map[int]string{32: "MD5", 40: "SHA1", 64: "SHA256", 128: "SHA512"}
	return func(d *draftRule, p *processing) error {
		return d.eachItem(p, func(it *item) (*search, error) {
			if !slices.Contains(fields, it.field) || slices.ContainsFunc(it.values, func(v value) bool { return v.kind != valueString }) {
				return nil, nil
			}
			out := &search{any: true}
			at := map[string]*item{}
			for _, v := range it.values {
				kind, hash, ok := strings.Cut(strings.ReplaceAll(v.text, "|", "="), "=")
				if kind = strings.ToUpper(strings.TrimLeft(kind, "*")); !ok {
					hash = v.text
				}
				if hash = strings.Trim(hash, "*?"); !ok {
					kind = kinds[len(hash)]
				}
				if !slices.Contains(algos, kind) {
					continue
				}
				name := prefix
				if !drop {
					name += kind
				}
				if at[name] == nil {
					at[name] = &item{field: name, list: true, line: it.line, marks: slices.Clone(it.marks)}
					if name == "keyword" {
						at[name].field = ""
					}
					out.kids = append(out.kids, &search{item: at[name]})
				}
				v.text = hash
				at[name].values = append(at[name].values, v)
			}
			if len(out.kids) == 0 {
				return nil, &lineError{it.line, fmt.Sprintf("no hash of a known kind (%s)", strings.Join(algos, ", "))}
			}
			return out, nil
		})
	}, nil
}

// extract parts values into fields by the named groups of an expression: Dword:00001 into type and value.
func (x *pipelineParser) extract(o options, n *yaml.Node) (change, error) {
	src, err := x.textOf(o, "regex", "")
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile("^(?:" + src + ")")
	if src == "" || err != nil {
		return nil, errAt(n, "extract_fields needs a regex that is a regular expression: %v", err)
	}
	names := re.SubexpNames()
	if strings.Join(names, "") == "" {
		return nil, errAt(n, "extract_fields: the regex has no named group, such as (?P<name>…)")
	}
	prefix, err := x.textOf(o, "field_prefix", "")
	if err != nil {
		return nil, err
	}
	if prefix != "" {
		prefix += "."
	}
	preserve, err := x.boolOf(o, "preserve_unmatched")
	if err != nil {
		return nil, err
	}
	return func(d *draftRule, p *processing) error {
		return d.eachItem(p, func(it *item) (*search, error) {
			texts, all, ok := wildTexts(it)
			if !ok {
				return nil, nil
			}
			out := &search{any: !all}
			for i, text := range texts {
				m := re.FindStringSubmatch(text)
				if m == nil {
					if preserve {
						out.kids = append(out.kids, &search{item: &item{field: it.field, values: []value{{text: text, line: it.values[i].line}}, line: it.line}})
					}
					continue
				}
				one := &search{}
				for g, name := range names {
					if name != "" && m[g] != "" {
						one.kids = append(one.kids, &search{item: &item{field: prefix + name, values: []value{extracted(m[g], it.values[i].line)}, line: it.line}})
					}
				}
				if len(one.kids) > 0 {
					out.kids = append(out.kids, one)
				}
			}
			if len(out.kids) == 0 {
				return nil, nil // as it was
			}
			return out, nil
		})
	}, nil
}

// wildTexts gives the values of it with the wildcards that its modifiers stand for, and whether all must hold. ok is false for values that
// are no texts, or are changed by other modifiers.
func wildTexts(it *item) (texts []string, all, ok bool) {
	before, after := "", ""
	for _, m := range it.mods {
		switch m {
		case "contains":
			before, after = "*", "*"
		case "startswith":
			after = "*"
		case "endswith":
			before = "*"
		case "all":
			all = true
		default:
			return nil, false, false
		}
	}
	for _, v := range it.values {
		if v.kind != valueString {
			return nil, false, false
		}
		t, p := v.text, parsePattern(v.text)
		if !p.starts(partStar) {
			t = before + t
		}
		if !p.ends(partStar) {
			t += after
		}
		texts = append(texts, t)
	}
	return texts, all, true
}

// extracted is the value that a part of a text stands for: null, a number without leading zeros, or text.
func extracted(t string, line int) value {
	v := value{kind: valueString, text: t, line: line}
	switch l := strings.ToLower(t); {
	case l == "null" || l == "none":
		v.kind = valueNull
	case (t == "0" || t[0] != '0') && isNumber(t):
		v.kind = valueNumber
	}
	return v
}

func changeValues(it *item, f func(value) ([]value, error)) (*search, error) {
	var values []value
	changed := false
	for _, v := range it.values {
		to, err := f(v)
		if err != nil {
			return nil, &lineError{v.line, err.Error()}
		}
		if to == nil {
			values = append(values, v)
			continue
		}
		changed = true
		values = append(values, to...)
	}
	if !changed {
		return nil, nil
	}
	it.values = values
	return &search{item: it}, nil
}

// valueChange gives the function from a value to those that take its place; nil: it stays.
func (x *pipelineParser) valueChange(kind string, o options, n *yaml.Node) (func(value) ([]value, error), error) {
	like := func(v value, text string) []value { return []value{{kind: valueString, text: text, line: v.line}} }
	switch kind {
	case "replace_string":
		src, err := x.textOf(o, "regex", "")
		if err != nil {
			return nil, err
		}
		to, err := x.textOf(o, "replacement", "")
		if err != nil {
			return nil, err
		}
		parts, err := x.boolOf(o, "skip_special")
		if err != nil {
			return nil, err
		}
		interpret, err := x.boolOf(o, "interpret_special")
		if err != nil {
			return nil, err
		}
		re, err := regexp.Compile(src)
		if src == "" || err != nil {
			return nil, errAt(n, "replace_string needs a regex: %v", err)
		}
		to = groupNames.ReplaceAllString(strings.ReplaceAll(to, "$", "$$"), "$${$1$2}") // Python writes \1 and \g<name>
		return func(v value) ([]value, error) {
			if v.kind != valueString && v.kind != valueNumber {
				return nil, nil
			}
			if !parts {
				return like(v, re.ReplaceAllString(v.text, to)), nil
			}
			var b strings.Builder
			for _, p := range parsePattern(v.text) {
				switch p.kind {
				case partStar:
					b.WriteByte('*')
				case partAny:
					b.WriteByte('?')
				default:
					if t := re.ReplaceAllString(p.text, to); interpret {
						b.WriteString(t)
					} else {
						b.WriteString(escapePattern(t))
					}
				}
			}
			return like(v, b.String()), nil
		}, nil
	case "map_string":
		pairs, err := x.entries(o.take("mapping"), "mapping")
		if err != nil {
			return nil, err
		}
		m := map[string][]string{}
		for _, kv := range pairs {
			if m[kv[0].Value], err = x.stringList(kv[1]); err != nil {
				return nil, err
			}
		}
		return func(v value) (out []value, err error) {
			if v.kind == valueString {
				for _, t := range m[v.text] {
					out = append(out, like(v, t)...)
				}
			}
			return out, nil
		}, nil
	case "set_value":
		node := follow(o.take("value"))
		if node == nil || node.Kind != yaml.ScalarNode {
			return nil, errAt(n, "set_value needs a value")
		}
		to, err := x.value(node)
		if err != nil {
			return nil, err
		}
		force, err := x.textOf(o, "force_type", "")
		if err != nil {
			return nil, err
		}
		switch force {
		case "":
		case "str":
			to.kind = valueString
		case "num":
			if to.kind = valueNumber; !isNumber(to.text) {
				return nil, errAt(node, "set_value: %q is not a number", to.text)
			}
		default:
			return nil, errAt(n, "set_value: force_type is str or num")
		}
		return func(v value) ([]value, error) { to.line = v.line; return []value{to}, nil }, nil
	case "convert_type":
		target, err := x.textOf(o, "target_type", "")
		if err != nil {
			return nil, err
		}
		if target != "str" && target != "num" {
			return nil, errAt(n, "convert_type: target_type is str or num")
		}
		return func(v value) ([]value, error) {
			switch {
			case target == "str" && v.kind == valueNumber:
				return like(v, v.text), nil
			case target == "num" && v.kind == valueString:
				if !isNumber(v.text) {
					return nil, fmt.Errorf("%q cannot be made a number", v.text)
				}
				return []value{{kind: valueNumber, text: v.text, line: v.line}}, nil
			}
			return nil, nil
		}, nil
	case "case":
		how, err := x.textOf(o, "method", "lower")
		if err != nil {
			return nil, err
		}
		to := casings[how]
		if to == nil {
			return nil, errAt(n, "case: method is lower, upper or snake_case, not %q", how)
		}
		return func(v value) ([]value, error) {
			if v.kind != valueString {
				return nil, nil
			}
			return like(v, to(v.text)), nil
		}, nil
	}
	// regex emulates what this engine does anyway: values are compared without regard to case.
	if _, err := x.textOf(o, "method", ""); err != nil {
		return nil, err
	}
	return func(value) ([]value, error) { return nil, nil }, nil
}

var groupNames = regexp.MustCompile(`\\(?:g<(\w+)>|(\d))`)

func isNumber(t string) bool {
	_, ok := parseNumber(t)
	return ok
}

// escapePattern writes text so that parsePattern gives it back.
func escapePattern(t string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(t)
}
