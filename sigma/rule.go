package sigma

import (
	"fmt"
	"reflect"
	"slices"
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
	if bad, key := unknownKey(n, reflect.TypeOf(v), 0); bad != nil {
		return true, &Error{m.File, bad.Line, m.Label(), fmt.Sprintf("attribute %s: %s", name, key)}
	}
	if err := n.Decode(v); err != nil {
		return true, &Error{m.File, n.Line, m.Label(), fmt.Sprintf("attribute %s: %v", name, err)}
	}
	return true, nil
}

var unmarshaler = reflect.TypeFor[yaml.Unmarshaler]()

// unknownKey seeks a key that a value of type t has no field for, or that is given twice. Node.Decode would take both.
func unknownKey(n *yaml.Node, t reflect.Type, depth int) (*yaml.Node, string) {
	n = follow(n)
	if n == nil || depth > maxDepth || t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler) {
		return nil, ""
	}
	switch t.Kind() {
	case reflect.Pointer:
		return unknownKey(n, t.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		for _, e := range n.Content {
			if bad, why := unknownKey(e, t.Elem(), depth+1); bad != nil {
				return bad, why
			}
		}
	case reflect.Map, reflect.Struct:
		if n.Kind != yaml.MappingNode {
			return nil, "" // Decode says it
		}
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if seen[k.Value] {
				return k, fmt.Sprintf("the key %q is given twice", k.Value)
			}
			seen[k.Value] = true
			inner, ok := t, true
			if t.Kind() == reflect.Map {
				inner = t.Elem()
			} else if inner, ok = fieldOf(t, k.Value); !ok {
				return k, fmt.Sprintf("there is no key %q", k.Value)
			}
			if bad, why := unknownKey(n.Content[i+1], inner, depth+1); bad != nil {
				return bad, why
			}
		}
	}
	return nil, ""
}

// fieldOf is the type of the field that YAML's key names.
func fieldOf(t reflect.Type, key string) (reflect.Type, bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		if name == key && f.IsExported() {
			return f.Type, true
		}
	}
	return nil, false
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
	// Expression is an extended condition over the rules, such as "a and b and not c"; only temporal types have it.
	Expression string
	// OptionalGroup counts events that lack a group-by field under an empty value. Rules cannot ask for it: it is for correlations that
	// a program makes itself.
	OptionalGroup bool

	valueFields []string
	expr        *expr // of Expression
	line        int
}

// ValueField is the field of which values are counted or summed, "" for types that have none. Of several it is the first.
func (c *Correlation) ValueField() string {
	if len(c.valueFields) == 0 {
		return ""
	}
	return c.valueFields[0]
}

// ValueFields are all of them: value_count can count combinations of the values of several fields.
func (c *Correlation) ValueFields() []string { return slices.Clone(c.valueFields) }

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
	marks  []string // pipeline items that changed it
	mapped bool     // a pipeline gave its field another name
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
