package packs

import "go.yaml.in/yaml/v3"

// steps reads the list of forms to read, one after the other.
func (c *compiler) steps(n *yaml.Node) []Step {
	if n == nil {
		return nil
	}
	var out []Step
	for _, item := range c.items(n) {
		out = append(out, c.step(item))
	}
	if len(out) > maxSteps {
		c.fail(n, "read has %d steps; at most %d are taken", len(out), maxSteps)
	}
	return out
}

// step reads {line: ...}, {kv: {...}} and their like; "kv" alone stands for {kv: {}}.
func (c *compiler) step(n *yaml.Node) Step {
	s := Step{In: -1}
	var form string
	var body *yaml.Node
	if n.Kind == yaml.ScalarNode {
		form = n.Value
	} else {
		for _, kv := range c.pairs(n, "a read step") {
			k, v := kv[0], kv[1]
			switch k.Value {
			case "in":
				s.In = c.use(v, c.literal(v, "in"))
			case "after":
				s.After = c.literal(v, "after")
			case "optional":
				s.Optional = c.yes(v, "optional")
			default:
				if form != "" {
					c.fail(k, "a read step has one form; %q and %q are two", form, k.Value)
				}
				form, body = k.Value, v
			}
		}
	}
	if s.In < 0 {
		s.In = c.slot(".message")
	}
	switch form {
	case "line":
		s.Kind = StepLine
		if body == nil {
			c.fail(n, "line needs a pattern")
		}
		for _, item := range c.items(body) {
			s.Patterns = append(s.Patterns, c.pattern(item, c.text(item, "line"), c.capture))
		}
		if len(s.Patterns) == 0 || len(s.Patterns) > maxPatterns {
			c.fail(body, "line has %d patterns; between 1 and %d are taken", len(s.Patterns), maxPatterns)
		}
	case "any":
		s.Kind = StepAny
		if body != nil {
			s.Any = c.steps(body)
		}
		for i := range s.Any {
			if s.Any[i].Kind == StepAny {
				c.fail(body, "any inside any")
			}
		}
		if len(s.Any) < 2 {
			c.fail(n, "any needs two steps or more")
		}
	case "kv":
		s.Kind = StepKV
		s.Equals = "="
		c.open = true
		c.options(body, "kv", map[string]func(*yaml.Node){
			"pairs":  func(v *yaml.Node) { s.Pairs = c.literal(v, "pairs") },
			"equals": func(v *yaml.Node) { s.Equals = c.literal(v, "equals") },
			"bare":   func(v *yaml.Node) { s.Bare = c.yes(v, "bare") },
			"prefix": func(v *yaml.Node) { s.Prefix = c.literal(v, "prefix") },
		})
		if s.Bare && (s.Pairs != "" || s.Equals != "=") {
			c.fail(body, "kv: bare goes with blanks between pairs and = between name and value only")
		}
	case "columns":
		s.Kind = StepColumns
		s.Delimiter, s.Quote = ',', '"'
		if body != nil && body.Kind == yaml.SequenceNode {
			c.columns(&s, body)
			break
		}
		c.options(body, "columns", map[string]func(*yaml.Node){
			"delimiter": func(v *yaml.Node) { s.Delimiter = c.one(v, "delimiter") },
			"quote": func(v *yaml.Node) {
				s.Quote = 0
				if c.text(v, "quote") != "" {
					s.Quote = c.one(v, "quote")
				}
			},
			"names":  func(v *yaml.Node) { c.columns(&s, v) },
			"min":    func(v *yaml.Node) { s.Min = c.number(v, "min") },
			"header": func(v *yaml.Node) { s.Header = c.headers(v, "header") },
			"titles": func(v *yaml.Node) { s.Titles = c.headers(v, "titles") },
			"marks": func(v *yaml.Node) {
				for _, text := range c.headers(v, "marks") {
					s.Marks = append(s.Marks, Mark{text, c.capture(text)})
				}
			},
		})
		if len(s.Marks) > 0 && len(s.Header)+len(s.Titles) == 0 {
			c.fail(body, "columns: marks go with header or titles")
		}
		c.open = c.open || len(s.Header)+len(s.Titles) > 0 // a header may name columns that names does not
		if len(s.Columns) == 0 {
			c.fail(n, "columns needs names")
		}
	case "json":
		s.Kind = StepJSON
		c.open = true
		c.options(body, "json", map[string]func(*yaml.Node){
			"prefix": func(v *yaml.Node) { s.Prefix = c.literal(v, "prefix") },
			"lists": func(v *yaml.Node) {
				for _, item := range c.items(v) {
					var l NameValue
					c.options(item, "lists", map[string]func(*yaml.Node){
						"path":  func(v *yaml.Node) { l.Path = c.literal(v, "path") },
						"name":  func(v *yaml.Node) { l.Name = c.literal(v, "name") },
						"value": func(v *yaml.Node) { l.Value = c.literal(v, "value") },
					})
					if l.Path == "" || l.Name == "" || l.Value == "" {
						c.fail(item, "lists: each needs path, name and value")
					}
					s.Lists = append(s.Lists, l)
				}
				if len(s.Lists) > 16 {
					c.fail(v, "lists: at most 16 are taken")
				}
			},
		})
	case "cef":
		s.Kind = StepCEF
		c.open = true
		c.options(body, form, map[string]func(*yaml.Node){
			"prefix": func(v *yaml.Node) { s.Prefixes = c.texts(v, "prefix") },
			"mark":   func(v *yaml.Node) { s.Mark = c.literal(v, "mark") },
		})
		if len(s.Prefixes) > 8 || len(s.Mark) > 16 {
			c.fail(body, "cef: at most 8 prefixes, and a mark of at most 16 bytes")
		}
	case "leef", "xml":
		s.Kind = map[string]StepKind{"leef": StepLEEF, "xml": StepXML}[form]
		c.open = true
		c.options(body, form, nil)
	case "":
		c.fail(n, "a read step needs a form: line, kv, columns, json, cef, leef, xml or any")
	default:
		c.fail(n, "there is no form %q; known are line, kv, columns, json, cef, leef, xml and any", form)
	}
	return s
}

func (c *compiler) columns(s *Step, n *yaml.Node) {
	for _, name := range c.texts(n, "names") {
		if name == "-" || name == "" {
			s.Columns = append(s.Columns, -1)
		} else {
			s.Columns = append(s.Columns, c.capture(name))
		}
	}
	if len(s.Columns) == 0 || len(s.Columns) > 256 {
		c.fail(n, "columns has %d names; between 1 and 256 are taken", len(s.Columns))
	}
}

// headers reads the starts of lines that speak of the lines behind them.
func (c *compiler) headers(n *yaml.Node, what string) []string {
	out := c.texts(n, what)
	for _, t := range out {
		if len(t) < minTrigger || len(t) > maxLiteral {
			c.fail(n, "columns: %s takes texts of %d to %d bytes", what, minTrigger, maxLiteral)
		}
	}
	if len(out) > 8 {
		c.fail(n, "columns: %s takes at most 8 texts", what)
	}
	return out
}

func (c *compiler) one(n *yaml.Node, what string) byte {
	s := c.text(n, what)
	if s == `\t` {
		s = "\t"
	}
	if len(s) != 1 {
		c.fail(n, "%s must be one character", what)
	}
	return s[0]
}

// options reads a mapping with known names.
func (c *compiler) options(n *yaml.Node, what string, known map[string]func(*yaml.Node)) {
	if n == nil {
		return
	}
	for _, kv := range c.pairs(n, what) {
		f, ok := known[kv[0].Value]
		if !ok {
			c.fail(kv[0], "%s: there is no %q", what, kv[0].Value)
		}
		f(kv[1])
	}
}

// message reads one variant.
func (c *compiler) message(n *yaml.Node) Message {
	var m Message
	var rules, set *yaml.Node
	c.options(n, "a message", map[string]func(*yaml.Node){
		"name":   func(v *yaml.Node) { m.Name = c.literal(v, "name") },
		"when":   func(v *yaml.Node) { m.When = c.conds(v) },
		"read":   func(v *yaml.Node) { m.Read = c.steps(v) },
		"fields": func(v *yaml.Node) { m.Fields.List = c.fields(v) },
		"rules":  func(v *yaml.Node) { rules = v },
		"set":    func(v *yaml.Node) { set = v },
	})
	m.Rules = c.rulesOf(rules, set)
	return m
}

// valueTables reads named tables of words.
func (c *compiler) valueTables(n *yaml.Node) {
	for _, kv := range c.pairs(n, "tables") {
		c.tables[kv[0].Value] = c.table(kv[1])
	}
}

// table reads word: word rows. "*" is for words that are not there: a word, "" to leave the value out, or "=" to keep it.
func (c *compiler) table(n *yaml.Node) *Table {
	t := &Table{names: newNames(true), keep: true}
	for _, kv := range c.pairs(n, "a table") {
		c.rows++
		if c.rows > maxTableRows {
			c.fail(kv[0], "the tables have more than %d rows", maxTableRows)
		}
		v := c.text(kv[1], "a table's value")
		if len(v) > maxLiteral || len(kv[0].Value) > maxLiteral {
			c.fail(kv[0], "a table's words have at most %d bytes", maxLiteral)
		}
		if kv[0].Value == "*" {
			t.keep = v == "="
			if !t.keep {
				t.other = v
			}
			continue
		}
		if _, ok := t.names.Slot(kv[0].Value); ok {
			c.fail(kv[0], "the table has %q twice (letters are compared without regard to case)", kv[0].Value)
		}
		t.names.add(kv[0].Value, uint16(len(t.values)))
		t.values = append(t.values, v)
	}
	return t
}
