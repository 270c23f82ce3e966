package sigma

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// fastDocuments reads the part of YAML that nearly all rules are written in, many times as fast as the library does: block mappings and
// lists, texts on one line, literal blocks. It gives what the library gives (kinds, tags, values, lines), or ok false at the first thing
// that it does not know, faults included: then the library reads the file. A test compares both on all upstream rules, a fuzz on others.
//
// The nodes are of a few that are used again: done gives them back, and nothing that points to one may be kept beyond that, see cloneNode.
func fastDocuments(text string) (docs []*yaml.Node, done func(), ok bool) {
	room := nodeRoom.Get().(*[512]yaml.Node)
	f := &fastYAML{text: text, nodes: room[:]}
	docs, ok = f.documents()
	return docs, func() {
		clear(room[:f.taken])
		nodeRoom.Put(room)
	}, ok
}

var nodeRoom = sync.Pool{New: func() any { return new([512]yaml.Node) }}

// cloneNode copies a node with all that is in it.
func cloneNode(n *yaml.Node) *yaml.Node {
	if n == nil {
		return nil
	}
	c := *n
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, k := range n.Content {
		c.Content[i] = cloneNode(k)
	}
	return &c
}

func (f *fastYAML) documents() (docs []*yaml.Node, ok bool) {
	if !f.split() {
		return nil, false
	}
	for {
		n, more, ok := f.document()
		if !ok {
			return nil, false
		}
		if n != nil {
			docs = append(docs, n)
		}
		if !more {
			return docs, len(docs) > 0
		}
	}
}

type fastYAML struct {
	text  string
	lines []fastLine
	at    int
	nodes []yaml.Node // room for more
	taken int         // of the room that is used again
	many  bool        // there are more nodes than that has
	depth int
}

// fastLine is one line without its indentation. Blank ones and comments have indent -1.
type fastLine struct {
	indent int
	raw    string
	text   string
}

// split parts the text into lines, and refuses characters about which YAML has rules of its own.
func (f *fastYAML) split() bool {
	for i := 0; i < len(f.text); {
		c := f.text[i]
		if c < utf8.RuneSelf {
			if c < ' ' && c != '\n' || c == 0x7f {
				return false
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(f.text[i:])
		if r == utf8.RuneError || r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r > 0xfffd && r < 0x10000 {
			return false
		}
		i += n
	}
	f.lines = make([]fastLine, 0, strings.Count(f.text, "\n")+1)
	for raw := range strings.SplitSeq(f.text, "\n") {
		l := fastLine{indent: -1, raw: raw}
		i := 0
		for i < len(raw) && raw[i] == ' ' {
			i++
		}
		if i < len(raw) && raw[i] != '#' {
			l.indent, l.text = i, strings.TrimRight(raw[i:], " ")
		}
		f.lines = append(f.lines, l)
	}
	return true
}

func (f *fastYAML) node(kind yaml.Kind, tag, value string) *yaml.Node {
	if len(f.nodes) == 0 {
		f.nodes, f.many = make([]yaml.Node, 64), true
	}
	if !f.many {
		f.taken++
	}
	n := &f.nodes[0]
	f.nodes = f.nodes[1:]
	n.Kind, n.Tag, n.Value, n.Line = kind, tag, value, f.at+1
	return n
}

// skip goes to the next line that says something.
func (f *fastYAML) skip() {
	for f.at < len(f.lines) && f.lines[f.at].indent < 0 {
		f.at++
	}
}

func isMarker(l *fastLine) bool {
	return l.indent == 0 && (strings.HasPrefix(l.text, "---") || strings.HasPrefix(l.text, "..."))
}

func (f *fastYAML) document() (n *yaml.Node, more, ok bool) {
	f.skip()
	if f.at < len(f.lines) && isMarker(&f.lines[f.at]) {
		if f.lines[f.at].text != "---" {
			return nil, false, false
		}
		f.at++
		f.skip()
	}
	if f.at == len(f.lines) || isMarker(&f.lines[f.at]) || f.lines[f.at].indent != 0 || f.lines[f.at].text[0] == '%' {
		return nil, false, false
	}
	if n, ok = f.mapping(0); !ok {
		return nil, false, false
	}
	f.skip()
	return n, f.at < len(f.lines), f.at == len(f.lines) || isMarker(&f.lines[f.at])
}

// key parts a line into a key and what follows the colon.
func key(s string) (k string, quoted bool, rest string, ok bool) {
	if s[0] == '\'' {
		k, after, ok := singleQuoted(s)
		if !ok || !strings.HasPrefix(after, ":") || len(after) > 1 && after[1] != ' ' {
			return "", false, "", false
		}
		return k, true, strings.TrimLeft(after[1:], " "), true
	}
	if !plainStart(s) {
		return "", false, "", false
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == ':' && (i+1 == len(s) || s[i+1] == ' '):
			return strings.TrimRight(s[:i], " "), false, strings.TrimLeft(s[i+1:], " "), i > 0 && i < 1000
		case s[i] == '#' && s[i-1] == ' ':
			return "", false, "", false
		}
	}
	return "", false, "", false
}

// plainStart says whether a plain text can begin so.
func plainStart(s string) bool {
	switch s[0] {
	case '-', '?', ':':
		return len(s) > 1 && s[1] != ' '
	case ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`':
		return false
	}
	return true
}

func singleQuoted(s string) (text, after string, ok bool) {
	for i := 1; i < len(s); i++ {
		if s[i] != '\'' {
			continue
		}
		if i+1 < len(s) && s[i+1] == '\'' {
			i++
			continue
		}
		return strings.ReplaceAll(s[1:i], "''", "'"), s[i+1:], true
	}
	return "", "", false
}

func (f *fastYAML) mapping(indent int) (*yaml.Node, bool) {
	if f.depth++; f.depth > maxDepth {
		return nil, false
	}
	defer func() { f.depth-- }()
	m := f.node(yaml.MappingNode, "!!map", "")
	for {
		if !f.pair(m, indent, f.lines[f.at].text) {
			return nil, false
		}
		f.skip()
		if f.at == len(f.lines) || f.lines[f.at].indent < indent || isMarker(&f.lines[f.at]) {
			return m, true
		}
		if l := &f.lines[f.at]; l.indent > indent || l.text == "-" || strings.HasPrefix(l.text, "- ") {
			return m, l.indent == indent && false
		}
	}
}

// pair reads one key and its value; text is the line from the key on, which stands at indent.
func (f *fastYAML) pair(m *yaml.Node, indent int, text string) bool {
	k, quoted, rest, ok := key(text)
	if !ok {
		return false
	}
	kn := f.node(yaml.ScalarNode, "!!str", k)
	if !quoted {
		if kn.Tag, ok = plainTag(k); !ok || kn.Tag == "!!merge" {
			return false
		}
	}
	if rest != "" && rest[0] != '#' {
		v, ok := f.scalar(rest, indent)
		m.Content = append(m.Content, kn, v)
		return ok
	}
	line := f.at
	f.at++
	f.skip()
	var v *yaml.Node
	switch l := f.peek(); {
	case l != nil && l.indent >= indent && (strings.HasPrefix(l.text, "- ")):
		v, ok = f.list(l.indent)
	case l != nil && l.indent > indent:
		v, ok = f.mapping(l.indent)
	default:
		v = f.node(yaml.ScalarNode, "!!null", "")
		v.Line = line + 1
	}
	m.Content = append(m.Content, kn, v)
	return ok
}

// peek is the line at which f is, nil at the end of the document.
func (f *fastYAML) peek() *fastLine {
	if f.at == len(f.lines) || isMarker(&f.lines[f.at]) {
		return nil
	}
	return &f.lines[f.at]
}

func (f *fastYAML) list(indent int) (*yaml.Node, bool) {
	if f.depth++; f.depth > maxDepth {
		return nil, false
	}
	defer func() { f.depth-- }()
	seq := f.node(yaml.SequenceNode, "!!seq", "")
	for {
		l := &f.lines[f.at]
		rest := strings.TrimLeft(l.text[2:], " ")
		if rest == "" || rest[0] == '#' || strings.HasPrefix(rest, "- ") || rest == "-" {
			return nil, false
		}
		column := indent + len(l.text) - len(rest)
		var v *yaml.Node
		var ok bool
		if _, _, _, isPair := key(rest); isPair {
			v, ok = f.inlineMapping(column, rest)
		} else {
			v, ok = f.scalar(rest, indent)
		}
		if !ok {
			return nil, false
		}
		seq.Content = append(seq.Content, v)
		f.skip()
		if l := f.peek(); l == nil || l.indent < indent {
			return seq, true
		} else if l.indent > indent {
			return nil, false
		} else if !strings.HasPrefix(l.text, "- ") {
			return seq, l.text != "-" // the mapping around it goes on
		}
	}
}

// inlineMapping is a mapping whose first key stands behind the dash of a list.
func (f *fastYAML) inlineMapping(column int, first string) (*yaml.Node, bool) {
	if f.depth++; f.depth > maxDepth {
		return nil, false
	}
	defer func() { f.depth-- }()
	m := f.node(yaml.MappingNode, "!!map", "")
	for text := first; ; text = f.lines[f.at].text {
		if !f.pair(m, column, text) {
			return nil, false
		}
		f.skip()
		l := f.peek()
		if l == nil || l.indent < column {
			return m, true
		}
		if l.indent > column || l.text == "-" || strings.HasPrefix(l.text, "- ") {
			return nil, false
		}
	}
}

// scalar reads a value that begins with s in the current line and goes behind it. indent is that of the key or dash before it.
func (f *fastYAML) scalar(s string, indent int) (*yaml.Node, bool) {
	var n *yaml.Node
	var after string
	switch s[0] {
	case '|':
		return f.block(s, indent)
	case '\'':
		text, rest, ok := singleQuoted(s)
		if !ok {
			return nil, false
		}
		n, after = f.node(yaml.ScalarNode, "!!str", text), rest
	case '"':
		text, rest, ok := doubleQuoted(s)
		if !ok {
			return nil, false
		}
		n, after = f.node(yaml.ScalarNode, "!!str", text), rest
	case '[', '{':
		var ok bool
		if n, after, ok = f.flow(s); !ok {
			return nil, false
		}
	default:
		if !plainStart(s) {
			return nil, false
		}
		if i := strings.Index(s, " #"); i >= 0 {
			s = strings.TrimRight(s[:i], " ")
		}
		if strings.Contains(s, ": ") || strings.HasSuffix(s, ":") {
			return nil, false
		}
		tag, ok := plainTag(s)
		if !ok {
			return nil, false
		}
		n = f.node(yaml.ScalarNode, tag, s)
	}
	if after = strings.TrimLeft(after, " "); after != "" && after[0] != '#' || after != "" && s[len(s)-len(after)-1] != ' ' {
		return nil, false
	}
	f.at++
	f.skip()
	if l := f.peek(); l != nil && l.indent > indent {
		return nil, false // the text may go on there
	}
	return n, true
}

// block reads a literal block.
func (f *fastYAML) block(s string, indent int) (*yaml.Node, bool) {
	if s != "|" && s != "|-" {
		return nil, false
	}
	n := f.node(yaml.ScalarNode, "!!str", "")
	f.at++
	from, width := f.at, -1
	end := f.at // behind the last line with text
	for ; f.at < len(f.lines); f.at++ {
		raw := f.lines[f.at].raw
		lead := len(raw) - len(strings.TrimLeft(raw, " "))
		if lead == len(raw) {
			if width < 0 || lead > width {
				if lead > 0 || width < 0 {
					return nil, false // blank lines before the text, or blanks that belong to it
				}
			}
			continue
		}
		if width < 0 {
			width = lead
		}
		if lead < width || width <= indent {
			break
		}
		end = f.at + 1
	}
	if width <= indent || end == from {
		return nil, false
	}
	var b strings.Builder
	for _, l := range f.lines[from:end] {
		if len(l.raw) > width {
			b.WriteString(l.raw[width:])
		}
		b.WriteByte('\n')
	}
	if end == len(f.lines) {
		return nil, false // no line feed ends it
	}
	n.Value = b.String()
	if s == "|-" {
		n.Value = strings.TrimSuffix(n.Value, "\n")
	}
	f.at = end
	f.skip()
	if l := f.peek(); l != nil && l.indent > indent {
		return nil, false
	}
	return n, true
}

// plainTag gives the tag that the library resolves a plain text to; ok is false when it is left to the library.
func plainTag(s string) (tag string, ok bool) {
	switch c := s[0]; {
	case c == '.' || c == '=' || c == '<' && s == "<<":
		return "", false
	case c == '+' || c == '-' || c >= '0' && c <= '9':
		digits := true
		for i := 0; i < len(s); i++ {
			switch d := s[i]; {
			case d >= '0' && d <= '9':
			case d >= 'a' && d <= 'f' || d >= 'A' && d <= 'F' || strings.IndexByte("xXoObB_.+-:tTzZ ", d) >= 0:
				digits = false
			default:
				return "!!str", true
			}
		}
		if digits && len(s) < 18 && (c != '0' || len(s) == 1) {
			return "!!int", true
		}
		if len(s) > 4 && s[4] == '-' && c >= '0' && c <= '9' {
			if _, err := time.Parse("2006-01-02", s); err == nil {
				return "!!timestamp", true
			}
			if strings.Trim(s[:4], "0123456789") == "" {
				return "", false // some other time
			}
		}
		plain := strings.TrimLeft(strings.ReplaceAll(s, "_", ""), "+-")
		if _, err := strconv.ParseInt(plain, 0, 64); err == nil || errors.Is(err, strconv.ErrRange) {
			return "", false // a number to another base
		}
		// What cannot be read as a number is text, such as an id.
		if _, err := strconv.ParseFloat(plain, 64); err == nil || errors.Is(err, strconv.ErrRange) {
			return "", false
		}
		return "!!str", true
	}
	switch s {
	case "true", "True", "TRUE", "false", "False", "FALSE":
		return "!!bool", true
	case "~", "null", "Null", "NULL":
		return "!!null", true
	}
	return "!!str", true
}

// doubleQuoted takes a text in double quotes with no escapes but those of a quote and a backslash.
func doubleQuoted(s string) (text, after string, ok bool) {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			text = s[1:i]
			if strings.IndexByte(text, '\\') >= 0 {
				text = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(text)
			}
			return text, s[i+1:], true
		case s[i] == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", "", false
			}
		}
	}
	return "", "", false
}

// flow reads a list or mapping in brackets that ends on its line, and gives what follows it.
func (f *fastYAML) flow(s string) (n *yaml.Node, after string, ok bool) {
	if f.depth++; f.depth > maxDepth {
		return nil, "", false
	}
	defer func() { f.depth-- }()
	mapping, end := s[0] == '{', byte(']')
	if n = f.node(yaml.SequenceNode, "!!seq", ""); mapping {
		n.Kind, n.Tag, end = yaml.MappingNode, "!!map", '}'
	}
	s = strings.TrimLeft(s[1:], " ")
	if s != "" && s[0] == end {
		return n, s[1:], true
	}
	for {
		v, rest, ok := f.flowValue(s, mapping)
		if !ok {
			return nil, "", false
		}
		n.Content = append(n.Content, v)
		if mapping {
			if v.Kind != yaml.ScalarNode || v.Tag == "!!merge" || !strings.HasPrefix(rest, ": ") {
				return nil, "", false
			}
			if v, rest, ok = f.flowValue(strings.TrimLeft(rest[2:], " "), mapping); !ok {
				return nil, "", false
			}
			n.Content = append(n.Content, v)
		}
		switch {
		case rest == "":
			return nil, "", false
		case rest[0] == end:
			return n, rest[1:], true
		case rest[0] != ',' || len(rest) < 2 || rest[1] != ' ':
			return nil, "", false
		}
		s = strings.TrimLeft(rest[1:], " ")
	}
}

// flowValue reads what stands between two commas, and gives what follows it without blanks.
func (f *fastYAML) flowValue(s string, mapping bool) (n *yaml.Node, after string, ok bool) {
	if s == "" {
		return nil, "", false
	}
	var text string
	switch s[0] {
	case '[', '{':
		n, after, ok = f.flow(s)
	case '\'':
		text, after, ok = singleQuoted(s)
		n = f.node(yaml.ScalarNode, "!!str", text)
	case '"':
		text, after, ok = doubleQuoted(s)
		n = f.node(yaml.ScalarNode, "!!str", text)
	default:
		i := 0
		for i < len(s) && strings.IndexByte(",[]{}#\"'&*!|>%@`?", s[i]) < 0 && (s[i] != ':' || i+1 < len(s) && s[i+1] != ' ' && strings.IndexByte(",[]{}", s[i+1]) < 0) {
			i++
		}
		if i < len(s) && strings.IndexByte(",]}:", s[i]) < 0 {
			return nil, "", false
		}
		text, after = strings.TrimRight(s[:i], " "), s[i:]
		if text == "" || !plainStart(text) || strings.IndexByte(text, ':') >= 0 {
			return nil, "", false // a colon within is left to the library
		}
		var tag string
		if tag, ok = plainTag(text); ok {
			n = f.node(yaml.ScalarNode, tag, text)
		}
	}
	return n, strings.TrimLeft(after, " "), ok
}
