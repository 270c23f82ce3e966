package sigma

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse reads the YAML documents of one file into c. Documents with an error are left out, the others are taken.
func (c *Collection) Parse(file string, data []byte) []*Error {
	var errs []*Error
	next, done := documents(string(data))
	defer done()
	var global, last *yaml.Node
	for n := 0; ; n++ {
		root, err := next()
		if errors.Is(err, errEOF) {
			if n == 0 {
				errs = append(errs, &Error{File: file, Reason: "the file holds no document"})
			}
			return errs
		}
		if err != nil { // the decoder cannot go on behind a syntax error
			return append(errs, yamlError(file, err))
		}
		if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
			continue // an empty document, as after a trailing ---
		}
		if root.Kind != yaml.MappingNode {
			errs = append(errs, &Error{File: file, Line: root.Line, Reason: "a rule must be a mapping (title: …, logsource: …, detection: …)"})
			continue
		}
		action := mapText(root, "action")
		switch action {
		case "":
		case "global":
			global = mergeMaps(global, root, 0)
			last = global
			continue
		case "reset":
			global = nil
			continue
		case "repeat": // the rule before, with what this document changes
			if last == nil {
				errs = append(errs, &Error{File: file, Line: root.Line, Reason: "action repeat: there is no document before it"})
				continue
			}
		default:
			errs = append(errs, &Error{File: file, Line: root.Line, Reason: fmt.Sprintf("unknown action %q (global, reset and repeat are known)", action)})
			continue
		}
		if action == "repeat" {
			root = mergeMaps(last, root, 0)
		} else if global != nil {
			root = mergeMaps(global, root, 0)
		}
		last = root
		if err := c.document(file, root); err != nil {
			errs = append(errs, err)
		}
	}
}

// documents gives one document after the other, then errEOF.
func documents(text string) (next func() (*yaml.Node, error), done func()) {
	docs, done, ok := fastDocuments(text)
	if ok {
		return func() (*yaml.Node, error) {
			if len(docs) == 0 {
				return nil, errEOF
			}
			n := docs[0]
			docs = docs[1:]
			return n, nil
		}, done
	}
	dec := yaml.NewDecoder(strings.NewReader(text))
	return func() (*yaml.Node, error) {
		var doc yaml.Node
		if err := decodeNode(dec, &doc); err != nil {
			return nil, err
		}
		if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
			return doc.Content[0], nil
		}
		return &doc, nil
	}, done
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
		}
		if g := meta.custom["generate"]; g != nil && err == nil { // the specification has it beside the level, pySigma within the section
			delete(cor.custom, "generate")
			var t string
			if t, err = p.text(g, "generate"); err == nil {
				if cor.Generate, err = parseBool(t); err != nil {
					err = errAt(g, "generate: %v", err)
				}
			}
		}
		if err == nil {
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
	out := make([][2]*yaml.Node, 0, len(n.Content)/2)
	var seen map[string]bool // of large ones
	if len(n.Content) > 64 {
		seen = map[string]bool{}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := follow(n.Content[i]), follow(n.Content[i+1])
		if k == nil || v == nil || k.Kind != yaml.ScalarNode {
			return nil, errAt(n, "%s: a key must be plain text", what)
		}
		if k.Tag == "!!merge" {
			return nil, errAt(k, "%s: YAML merge keys (<<) are not part of Sigma", what)
		}
		if seen[k.Value] || seen == nil && slices.ContainsFunc(out, func(o [2]*yaml.Node) bool { return o[0].Value == k.Value }) {
			return nil, errAt(k, "%s: the key %q is given twice", what, k.Value)
		}
		if seen != nil {
			seen[k.Value] = true
		}
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

// text is where the attribute k is kept, nil for those that are no text.
func (m *Meta) text(k string) *string {
	switch k {
	case "title":
		return &m.Title
	case "id":
		return &m.ID
	case "name":
		return &m.Name
	case "description":
		return &m.Description
	case "author":
		return &m.Author
	case "status":
		return &m.Status
	case "level":
		return &m.Level
	case "date":
		return &m.Date
	case "modified":
		return &m.Modified
	}
	return nil
}

func (m *Meta) list(k string) *[]string {
	switch k {
	case "tags":
		return &m.Tags
	case "references":
		return &m.References
	case "falsepositives":
		return &m.FalsePositives
	}
	return nil
}

func (p *parser) meta(root *yaml.Node, m *Meta, sections map[string]*yaml.Node) error {
	pairs, err := p.entries(root, "the rule")
	if err != nil {
		return err
	}
	// The title comes first so that every other error can name the rule.
	rank := func(p [2]*yaml.Node) int {
		if i := slices.Index([]string{"title", "id", "name"}, p[0].Value); i >= 0 {
			return i
		}
		return 9
	}
	slices.SortStableFunc(pairs, func(a, b [2]*yaml.Node) int { return rank(a) - rank(b) })
	for _, kv := range pairs {
		k, v := kv[0].Value, kv[1]
		switch k {
		case "logsource", "detection", "correlation", "filter", "fields":
			sections[k] = v
		case "related", "taxonomy", "license", "scope", "action", "backend":
		default:
			if at := m.text(k); at != nil {
				if *at, err = p.text(v, k); err != nil {
					return err
				}
			} else if at := m.list(k); at != nil {
				if *at, err = p.stringList(v); err != nil {
					return err
				}
			} else {
				if m.custom == nil {
					m.custom = map[string]*yaml.Node{}
				}
				m.custom[k] = cloneNode(v)
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
