package sigma

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Limits on one rule. A rule is outside input: it must not be able to exhaust the program that loads it.
const (
	maxDepth  = 32     // nesting of a detection or a condition
	maxValues = 20_000 // values in a rule, after aliases are followed and modifiers have multiplied them
)

// Error says why one document, or one part of it, was not taken.
type Error struct {
	File   string
	Line   int    // 1-based, 0 when unknown
	Rule   string // id or title, if known
	Reason string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Rule != "" {
		fmt.Fprintf(&b, "rule %s: ", e.Rule)
	}
	b.WriteString(e.Reason)
	return b.String()
}

// lineError is an error at a line; whoever knows the file and the rule makes an Error of it.
type lineError struct {
	line   int
	reason string
}

func (e *lineError) Error() string { return e.reason }

func errAt(n *yaml.Node, format string, args ...any) error {
	line := 0
	if n != nil {
		line = n.Line
	}
	return &lineError{line, fmt.Sprintf(format, args...)}
}

// LogSource says what kind of log a rule is about. An empty attribute is not given.
type LogSource struct {
	Category, Product, Service string
}

func (s LogSource) String() string {
	var parts []string
	for _, p := range [][2]string{{"category", s.Category}, {"product", s.Product}, {"service", s.Service}} {
		if p[1] != "" {
			parts = append(parts, p[0]+"="+p[1])
		}
	}
	return strings.Join(parts, ",")
}

// covers says whether a rule for log source s applies to events of log source t: every attribute that s gives must be the same.
func (s LogSource) covers(t LogSource) bool {
	return (s.Category == "" || s.Category == t.Category) && (s.Product == "" || s.Product == t.Product) && (s.Service == "" || s.Service == t.Service)
}

// ParseLogSource reads "product=windows,category=process_creation".
func ParseLogSource(text string) (LogSource, error) {
	var s LogSource
	for part := range strings.SplitSeq(text, ",") {
		k, v, ok := strings.Cut(strings.TrimSpace(part), "=")
		v = strings.ToLower(strings.TrimSpace(v))
		if !ok || v == "" {
			return s, fmt.Errorf("log source %q: want attribute=value pairs joined by commas, such as product=linux,service=sshd", text)
		}
		var at *string
		switch strings.TrimSpace(k) {
		case "category":
			at = &s.Category
		case "product":
			at = &s.Product
		case "service":
			at = &s.Service
		default:
			return s, fmt.Errorf("log source %q: unknown attribute %q (category, product and service are known)", text, k)
		}
		if *at != "" {
			return s, fmt.Errorf("log source %q: %s is given twice", text, k)
		}
		*at = v
	}
	return s, nil
}

// Meta is what all kinds of documents have.
type Meta struct {
	Title, ID, Name, Description, Author, Status, Level string
	Date, Modified                                      string
	Tags, References, FalsePositives                    []string
	File                                                string
	Line                                                int // of the document's first line

	custom map[string]*yaml.Node // top-level attributes that the specification does not define
}

// Label names the document for people: its id, else its name, else its title.
func (m *Meta) Label() string {
	switch {
	case m.ID != "":
		return m.ID
	case m.Name != "":
		return m.Name
	}
	return m.Title
}

// HasCustom says whether a top-level attribute which the specification does not define is there.
func (m *Meta) HasCustom(name string) bool { return m.custom[name] != nil }

// Custom decodes a top-level attribute which the specification does not define into v, strictly: unknown keys in it are errors.
// It reports whether the attribute is there.
func (m *Meta) Custom(name string, v any) (bool, error) {
	n, ok := m.custom[name]
	if !ok {
		return false, nil
	}
	// Node.Decode cannot be strict, a Decoder over text can.
	text, err := yaml.Marshal(n)
	if err != nil {
		return true, &Error{m.File, n.Line, m.Label(), fmt.Sprintf("attribute %s: %v", name, err)}
	}
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	dec.KnownFields(true)
	if err := dec.Decode(v); err != nil {
		return true, &Error{m.File, n.Line, m.Label(), fmt.Sprintf("attribute %s: %v", name, err)}
	}
	return true, nil
}

// Rule is one detection rule.
type Rule struct {
	Meta
	LogSource  LogSource
	Fields     []string
	conditions []*expr // alternatives
	searches   map[string]*search
}

// Correlation is one correlation rule.
type Correlation struct {
	Meta
	Type     string   // event_count, value_count, temporal, temporal_ordered, value_sum, value_avg, value_percentile, value_median
	Rules    []string // ids or names
	Aliases  map[string]map[string]string
	GroupBy  []string
	Timespan time.Duration
	Generate bool // the referenced rules alert on their own too
	Fields   []string
	// Condition: every bound that is given must hold.
	Bounds     []Bound
	Percentile float64
	// OptionalGroup counts events that lack a group-by field under an empty value. Rules cannot ask for it: it is for correlations that
	// a program makes itself.
	OptionalGroup bool

	valueField string
	line       int
}

// ValueField is the field of which values are counted or summed, "" for types that have none.
func (c *Correlation) ValueField() string { return c.valueField }

// Bound is one comparison of a correlation's condition.
type Bound struct {
	Op    string // gt gte lt lte eq neq
	Value float64
}

// Filter is a document that narrows other rules.
type Filter struct {
	Meta
	LogSource  LogSource
	Rules      []string // ids or names; empty: every rule of the log source
	conditions []*expr
	searches   map[string]*search
}

// Collection is what was parsed, in order.
type Collection struct {
	Rules        []*Rule
	Correlations []*Correlation
	Filters      []*Filter
}

// search is the value of one search identifier: a tree whose leaves are items.
type search struct {
	any  bool // the kids are alternatives, else all must hold
	kids []*search
	item *item // nil in inner nodes
}

// item is one line of a detection: field, modifiers, values.
type item struct {
	field  string // "" for keywords
	mods   []string
	values []value
	list   bool
	line   int
}

type valueKind uint8

const (
	valueString valueKind = iota
	valueNumber
	valueBool
	valueNull
)

type value struct {
	kind valueKind
	text string // as written
	line int
}

// Parse reads the YAML documents of one file into c. Documents with an error are left out, the others are taken.
func (c *Collection) Parse(file string, data []byte) []*Error {
	var errs []*Error
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var global *yaml.Node
	for n := 0; ; n++ {
		var doc yaml.Node
		err := decodeNode(dec, &doc)
		if errors.Is(err, errEOF) {
			if n == 0 {
				errs = append(errs, &Error{File: file, Reason: "the file holds no document"})
			}
			return errs
		}
		if err != nil { // the decoder cannot go on behind a syntax error
			return append(errs, yamlError(file, err))
		}
		root := &doc
		if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
			root = root.Content[0]
		}
		if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
			continue // an empty document, as after a trailing ---
		}
		if root.Kind != yaml.MappingNode {
			errs = append(errs, &Error{File: file, Line: root.Line, Reason: "a rule must be a mapping (title: …, logsource: …, detection: …)"})
			continue
		}
		switch action := mapText(root, "action"); action {
		case "":
		case "global":
			global = mergeMaps(global, root, 0)
			continue
		case "reset":
			global = nil
			continue
		default:
			errs = append(errs, &Error{File: file, Line: root.Line, Reason: fmt.Sprintf("unknown action %q (global and reset are known)", action)})
			continue
		}
		if global != nil {
			root = mergeMaps(global, root, 0)
		}
		if err := c.document(file, root); err != nil {
			errs = append(errs, err)
		}
	}
}

var errEOF = errors.New("end of documents")

func decodeNode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() { // the YAML library has panicked on malformed input before; a bad rule must not stop the program
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: %v", r)
		}
	}()
	err = dec.Decode(n)
	if err != nil && err.Error() == "EOF" {
		return errEOF
	}
	return err
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

func yamlError(file string, err error) *Error {
	e := &Error{File: file, Reason: strings.TrimPrefix(err.Error(), "yaml: ")}
	if m := yamlLine.FindStringSubmatch(e.Reason); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		e.Reason = strings.Replace(e.Reason, m[0], "", 1)
	}
	e.Reason = "not valid YAML: " + e.Reason
	return e
}

func mapText(n *yaml.Node, key string) string {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key && n.Content[i+1].Kind == yaml.ScalarNode {
			return n.Content[i+1].Value
		}
	}
	return ""
}

// mergeMaps lays over on base; maps within are merged, everything else is replaced. Neither is changed.
func mergeMaps(base, over *yaml.Node, depth int) *yaml.Node {
	if base == nil || depth > maxDepth {
		return over
	}
	out := *over
	out.Content = nil
	for i := 0; i+1 < len(base.Content); i += 2 {
		if base.Content[i].Value != "action" || depth > 0 {
			out.Content = append(out.Content, base.Content[i], base.Content[i+1])
		}
	}
next:
	for i := 0; i+1 < len(over.Content); i += 2 {
		k, v := over.Content[i], over.Content[i+1]
		for j := 0; j+1 < len(out.Content); j += 2 {
			if out.Content[j].Value != k.Value {
				continue
			}
			if v.Kind == yaml.MappingNode && out.Content[j+1].Kind == yaml.MappingNode {
				v = mergeMaps(out.Content[j+1], v, depth+1)
			}
			out.Content[j+1] = v
			continue next
		}
		out.Content = append(out.Content, k, v)
	}
	return &out
}

func (c *Collection) document(file string, root *yaml.Node) *Error {
	p := &parser{}
	meta := Meta{File: file, Line: root.Line}
	fail := func(err error) *Error {
		e := &Error{File: file, Line: root.Line, Rule: meta.Label(), Reason: err.Error()}
		var at *lineError
		if errors.As(err, &at) && at.line > 0 {
			e.Line = at.line
		}
		return e
	}
	sections := map[string]*yaml.Node{}
	if err := p.meta(root, &meta, sections); err != nil {
		return fail(err)
	}
	if meta.Title == "" {
		return fail(errAt(root, "the title is missing"))
	}
	var err error
	switch {
	case sections["correlation"] != nil:
		cor := &Correlation{Meta: meta}
		if err = p.correlation(sections["correlation"], cor); err == nil {
			cor.Fields, err = p.stringList(sections["fields"])
			c.Correlations = append(c.Correlations, cor)
		}
	case sections["filter"] != nil:
		f := &Filter{Meta: meta}
		if err = p.logSource(sections["logsource"], &f.LogSource, root); err == nil {
			if err = p.filter(sections["filter"], f); err == nil {
				c.Filters = append(c.Filters, f)
			}
		}
	case sections["detection"] != nil:
		r := &Rule{Meta: meta}
		if err = p.logSource(sections["logsource"], &r.LogSource, root); err != nil {
			break
		}
		if r.Fields, err = p.stringList(sections["fields"]); err != nil {
			break
		}
		if r.searches, r.conditions, err = p.detection(sections["detection"]); err == nil {
			c.Rules = append(c.Rules, r)
		}
	default:
		err = errAt(root, "there is no detection, correlation or filter section")
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// parser reads one document; it counts values so that aliases cannot multiply without bound.
type parser struct{ values int }

// entries gives the pairs of a mapping with aliases followed and merge keys applied, in order. Repeated keys are errors: YAML forbids
// them, and taking either of two would hide a mistake.
func (p *parser) entries(n *yaml.Node, what string) ([][2]*yaml.Node, error) {
	n = follow(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, errAt(n, "%s must be a mapping", what)
	}
	var out [][2]*yaml.Node
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := follow(n.Content[i]), follow(n.Content[i+1])
		if k == nil || v == nil || k.Kind != yaml.ScalarNode {
			return nil, errAt(n, "%s: a key must be plain text", what)
		}
		if k.Tag == "!!merge" {
			return nil, errAt(k, "%s: YAML merge keys (<<) are not part of Sigma", what)
		}
		if seen[k.Value] {
			return nil, errAt(k, "%s: the key %q is given twice", what, k.Value)
		}
		seen[k.Value] = true
		out = append(out, [2]*yaml.Node{k, v})
	}
	return out, nil
}

// follow resolves an alias. The YAML library refuses anchors that contain themselves; depth and value limits bound the rest.
func follow(n *yaml.Node) *yaml.Node {
	for i := 0; n != nil && n.Kind == yaml.AliasNode; i++ {
		if i > maxDepth {
			return nil
		}
		n = n.Alias
	}
	return n
}

func (p *parser) text(n *yaml.Node, what string) (string, error) {
	n = follow(n)
	if n == nil || n.Kind != yaml.ScalarNode {
		return "", errAt(n, "%s must be text", what)
	}
	if n.Tag == "!!null" {
		return "", nil
	}
	return n.Value, nil
}

func (p *parser) stringList(n *yaml.Node) ([]string, error) {
	n = follow(n)
	switch {
	case n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil, nil
	case n.Kind == yaml.ScalarNode:
		return []string{n.Value}, nil
	case n.Kind != yaml.SequenceNode:
		return nil, errAt(n, "a list of texts is wanted here")
	}
	var out []string
	for _, v := range n.Content {
		s, err := p.text(v, "a list entry")
		if err != nil {
			return nil, err
		}
		if p.values++; p.values > maxValues {
			return nil, errAt(n, "more than %d values in one rule", maxValues)
		}
		out = append(out, s)
	}
	return out, nil
}

var levels = []string{"informational", "low", "medium", "high", "critical"}
var statuses = []string{"stable", "test", "experimental", "deprecated", "unsupported"}

func (p *parser) meta(root *yaml.Node, m *Meta, sections map[string]*yaml.Node) error {
	pairs, err := p.entries(root, "the rule")
	if err != nil {
		return err
	}
	texts := map[string]*string{"title": &m.Title, "id": &m.ID, "name": &m.Name, "description": &m.Description, "author": &m.Author,
		"status": &m.Status, "level": &m.Level, "date": &m.Date, "modified": &m.Modified}
	lists := map[string]*[]string{"tags": &m.Tags, "references": &m.References, "falsepositives": &m.FalsePositives}
	// The title comes first so that every other error can name the rule.
	slices.SortStableFunc(pairs, func(a, b [2]*yaml.Node) int {
		rank := func(p [2]*yaml.Node) int {
			return max(slices.Index([]string{"", "title", "id", "name"}, p[0].Value), 0)
		}
		ra, rb := rank(a), rank(b)
		if ra == 0 {
			ra = 9
		}
		if rb == 0 {
			rb = 9
		}
		return ra - rb
	})
	for _, kv := range pairs {
		k, v := kv[0].Value, kv[1]
		switch k {
		case "logsource", "detection", "correlation", "filter", "fields":
			sections[k] = v
		case "related", "taxonomy", "license", "scope", "action", "backend":
		default:
			if at := texts[k]; at != nil {
				if *at, err = p.text(v, k); err != nil {
					return err
				}
			} else if at := lists[k]; at != nil {
				if *at, err = p.stringList(v); err != nil {
					return err
				}
			} else {
				if m.custom == nil {
					m.custom = map[string]*yaml.Node{}
				}
				m.custom[k] = v
			}
		}
		switch {
		case k == "level" && !slices.Contains(levels, m.Level):
			return errAt(v, "unknown level %q (want one of %s)", m.Level, strings.Join(levels, ", "))
		case k == "status" && !slices.Contains(statuses, m.Status):
			return errAt(v, "unknown status %q (want one of %s)", m.Status, strings.Join(statuses, ", "))
		}
	}
	return nil
}

func (p *parser) logSource(n *yaml.Node, s *LogSource, root *yaml.Node) error {
	if n == nil {
		return errAt(root, "the logsource is missing")
	}
	pairs, err := p.entries(n, "logsource")
	if err != nil {
		return err
	}
	for _, kv := range pairs {
		var at *string
		switch kv[0].Value {
		case "category":
			at = &s.Category
		case "product":
			at = &s.Product
		case "service":
			at = &s.Service
		default: // definition, and custom attributes as the specification allows
			continue
		}
		t, err := p.text(kv[1], "logsource "+kv[0].Value)
		if err != nil {
			return err
		}
		*at = strings.ToLower(t)
	}
	if *s == (LogSource{}) {
		return errAt(n, "logsource needs a category, a product or a service")
	}
	return nil
}

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
	for _, kv := range pairs {
		if kv[0].Value != "rules" {
			inner.Content = append(inner.Content, kv[0], kv[1])
			continue
		}
		if f.Rules, err = p.stringList(kv[1]); err != nil {
			return err
		}
		if len(f.Rules) == 1 && f.Rules[0] == "any" {
			f.Rules = nil
		} else if len(f.Rules) == 0 {
			return errAt(kv[0], "filter: rules must name rules, or be any")
		}
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

var correlationTypes = []string{"event_count", "value_count", "temporal", "temporal_ordered", "value_sum", "value_avg", "value_percentile", "value_median"}

func (p *parser) correlation(n *yaml.Node, c *Correlation) error {
	c.line = n.Line
	pairs, err := p.entries(n, "correlation")
	if err != nil {
		return err
	}
	var field string
	for _, kv := range pairs {
		k, v := kv[0].Value, kv[1]
		switch k {
		case "type":
			if c.Type, err = p.text(v, k); err == nil && !slices.Contains(correlationTypes, c.Type) {
				err = errAt(v, "unknown correlation type %q (known are %s)", c.Type, strings.Join(correlationTypes, ", "))
			}
		case "rules":
			c.Rules, err = p.stringList(v)
		case "group-by":
			c.GroupBy, err = p.stringList(v)
		case "timespan":
			var t string
			if t, err = p.text(v, k); err == nil {
				if c.Timespan, err = parseTimespan(t); err != nil {
					err = errAt(v, "%v", err)
				}
			}
		case "generate":
			var t string
			if t, err = p.text(v, k); err == nil {
				if c.Generate, err = parseBool(t); err != nil {
					err = errAt(v, "generate: %v", err)
				}
			}
		case "aliases":
			err = p.aliases(v, c)
		case "condition":
			field, err = p.correlationCondition(v, c)
		default:
			err = errAt(kv[0], "unknown key %q in correlation", k)
		}
		if err != nil {
			return err
		}
	}
	temporal := strings.HasPrefix(c.Type, "temporal")
	switch {
	case c.Type == "":
		return errAt(n, "the correlation has no type")
	case len(c.Rules) == 0:
		return errAt(n, "the correlation names no rules")
	case len(c.Rules) > 64:
		return errAt(n, "a correlation can name at most 64 rules")
	case len(c.GroupBy) > 16:
		return errAt(n, "a correlation can group by at most 16 fields")
	case c.Timespan == 0:
		return errAt(n, "the correlation has no timespan")
	case !temporal && len(c.Bounds) == 0:
		return errAt(n, "the correlation needs a condition such as gte: 10")
	case strings.HasPrefix(c.Type, "value_") && field == "":
		return errAt(n, "%s needs the name of a field in its condition", c.Type)
	}
	c.valueField = field
	return nil
}

func (p *parser) aliases(n *yaml.Node, c *Correlation) error {
	pairs, err := p.entries(n, "aliases")
	if err != nil {
		return err
	}
	c.Aliases = map[string]map[string]string{}
	for _, kv := range pairs {
		inner, err := p.entries(kv[1], "alias "+kv[0].Value)
		if err != nil {
			return err
		}
		m := map[string]string{}
		for _, e := range inner {
			if m[e[0].Value], err = p.text(e[1], "an alias"); err != nil {
				return err
			}
		}
		c.Aliases[kv[0].Value] = m
	}
	return nil
}

func (p *parser) correlationCondition(n *yaml.Node, c *Correlation) (field string, err error) {
	if n = follow(n); n != nil && n.Kind == yaml.ScalarNode {
		return "", errAt(n, "boolean conditions over rule names are not supported; name the rules and use temporal or temporal_ordered")
	}
	pairs, err := p.entries(n, "condition")
	if err != nil {
		return "", err
	}
	c.Percentile = 50
	for _, kv := range pairs {
		k := kv[0].Value
		t, err := p.text(kv[1], k)
		if err != nil {
			return "", err
		}
		switch k {
		case "field":
			field = t
		case "percentile":
			f, err := strconv.ParseFloat(t, 64)
			if err != nil || !(f >= 0 && f <= 100) {
				return "", errAt(kv[1], "percentile must be a number between 0 and 100")
			}
			c.Percentile = f
		case "gt", "gte", "lt", "lte", "eq", "neq":
			f, ok := parseNumber(t)
			if !ok {
				return "", errAt(kv[1], "%s: %q is not a number", k, t)
			}
			c.Bounds = append(c.Bounds, Bound{k, f})
		default:
			return "", errAt(kv[0], "unknown key %q in condition", k)
		}
	}
	return field, nil
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

// parseTimespan reads a number and a unit. A month is 30 days and a year 365, as in pySigma.
func parseTimespan(t string) (time.Duration, error) {
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour, 'M': 30 * 24 * time.Hour, 'y': 365 * 24 * time.Hour}
	if len(t) >= 2 {
		n, err := strconv.ParseUint(t[:len(t)-1], 10, 32)
		if u := units[t[len(t)-1]]; err == nil && u > 0 && n > 0 && time.Duration(n) <= 10*365*24*time.Hour/u {
			return time.Duration(n) * u, nil
		}
	}
	return 0, fmt.Errorf("timespan %q: want a number and one of s, m, h, d, w, M, y, at most ten years", t)
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
