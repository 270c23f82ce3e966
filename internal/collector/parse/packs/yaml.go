package packs

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Error is what is wrong with a description, and where.
type Error struct {
	File   string
	Line   int // 0 when the file as a whole is meant
	Reason string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Reason
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason)
}

// reader reads one description; the first fault ends it by a panic with *Error, which load turns into an answer.
type reader struct {
	file string
}

func (r *reader) fail(n *yaml.Node, format string, args ...any) {
	e := &Error{File: r.file, Reason: fmt.Sprintf(format, args...)}
	if n != nil {
		e.Line = n.Line
	}
	panic(e)
}

// tree reads the text to nodes and refuses what could make it grow: anchors, aliases, merge keys, too many or too deep nodes.
func (r *reader) tree(text []byte) *yaml.Node {
	if len(text) > maxFile {
		r.fail(nil, "has %d bytes; at most %d are taken", len(text), maxFile)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		line := 0
		msg := strings.TrimPrefix(err.Error(), "yaml: ")
		if rest, ok := strings.CutPrefix(msg, "line "); ok {
			if num, reason, ok := strings.Cut(rest, ": "); ok {
				line, _ = strconv.Atoi(num)
				msg = reason
			}
		}
		panic(&Error{File: r.file, Line: line, Reason: "is not YAML: " + msg})
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		r.fail(nil, "is empty")
	}
	count := 0
	r.check(doc.Content[0], 0, &count)
	return doc.Content[0]
}

func (r *reader) check(n *yaml.Node, depth int, count *int) {
	*count++
	switch {
	case *count > maxNodes:
		r.fail(n, "has more than %d parts", maxNodes)
	case depth > maxDepth:
		r.fail(n, "is nested deeper than %d", maxDepth)
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.fail(n, "anchors and aliases are not taken; write the part out")
	}
	for _, c := range n.Content {
		r.check(c, depth+1, count)
	}
}

// pairs gives the members of a mapping in order; a key twice is a fault.
func (r *reader) pairs(n *yaml.Node, what string) [][2]*yaml.Node {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.fail(n, "%s must be a mapping (name: value)", what)
	}
	out := make([][2]*yaml.Node, 0, len(n.Content)/2)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
			r.fail(k, "%s: a name must be a plain text", what)
		}
		if seen[k.Value] {
			r.fail(k, "%s: %q is there twice", what, k.Value)
		}
		seen[k.Value] = true
		out = append(out, [2]*yaml.Node{k, n.Content[i+1]})
	}
	return out
}

// text gives a scalar as it is written.
func (r *reader) text(n *yaml.Node, what string) string {
	if n.Kind != yaml.ScalarNode {
		r.fail(n, "%s must be a single value", what)
	}
	if n.Tag == "!!null" && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 {
		return ""
	}
	return n.Value
}

// literal is text with a bound, not empty.
func (r *reader) literal(n *yaml.Node, what string) string {
	s := r.text(n, what)
	if s == "" {
		r.fail(n, "%s must not be empty", what)
	}
	if len(s) > maxLiteral {
		r.fail(n, "%s has %d bytes; at most %d are taken", what, len(s), maxLiteral)
	}
	return s
}

// texts gives one value or a list of them.
func (r *reader) texts(n *yaml.Node, what string) []string {
	if n.Kind != yaml.SequenceNode {
		return []string{r.text(n, what)}
	}
	out := make([]string, len(n.Content))
	for i, c := range n.Content {
		out[i] = r.text(c, what)
	}
	return out
}

func (r *reader) number(n *yaml.Node, what string) int {
	v, err := strconv.Atoi(r.text(n, what))
	if err != nil {
		r.fail(n, "%s must be a whole number", what)
	}
	return v
}

func (r *reader) yes(n *yaml.Node, what string) bool {
	switch r.text(n, what) {
	case "true", "yes":
		return true
	case "false", "no":
		return false
	}
	r.fail(n, "%s must be true or false", what)
	return false
}

// items gives the elements of a list; a single element may stand without one.
func (r *reader) items(n *yaml.Node) []*yaml.Node {
	switch {
	case n.Kind == yaml.SequenceNode:
		return n.Content
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil
	}
	return []*yaml.Node{n}
}
