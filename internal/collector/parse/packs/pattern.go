package packs

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// Pattern is one line pattern: literals and captures in order. "Denied {proto:word} from {src:ip}[[/{sport:int}]] to {dst:ip}".
// It is matched from the start of the text to its own end (what the text has beyond is not looked at), without going back.
type Pattern struct {
	parts []part
	first string // the literal at the start, "" when the pattern begins with a capture
	cost  int    // parts, those of optional groups included
}

// part is one element of a pattern.
type part struct {
	kind  partKind
	lit   string   // of a literal
	slot  int      // of a capture; -1 when its value is not wanted
	tmp   int      // place among the pattern's captures
	stops []string // of a text capture: it ends before the first of these
	end   bool     // of a text capture: without a stop it takes the rest
	group []part   // of an optional group
}

type partKind uint8

const (
	partLiteral partKind = iota
	partText             // up to the next literal
	partWord             // up to a blank, not empty
	partIP               // an IPv4 or IPv6 address, brackets around it allowed
	partInt              // digits
	partHost             // letters, digits, '.', '-', '_', ':'
	partName             // letters, digits, '.', '-', '_', '\', '@', '$', '+', '=', '~', '#', '%', '!' (an account)
	partQuoted           // a text in double or single quotes, without them
	partBlank            // one or more blanks or tabs
	partEnd              // the text ends here
	partOptional
)

var partKinds = map[string]partKind{"text": partText, "word": partWord, "ip": partIP, "int": partInt, "host": partHost, "name": partName, "quoted": partQuoted}

// pattern compiles the text of one pattern; slot gives the number of a native name.
func (r *reader) pattern(n *yaml.Node, text string, slot func(string) int) Pattern {
	if text == "" || len(text) > 10*maxLiteral {
		r.fail(n, "a line pattern must have 1 to %d bytes", 10*maxLiteral)
	}
	var p Pattern
	rest := text
	p.parts = r.parts(n, &rest, slot, &p.cost, false)
	if rest != "" {
		r.fail(n, "line pattern: ]] without [[")
	}
	if p.cost > maxParts {
		r.fail(n, "line pattern has %d parts; at most %d are taken", p.cost, maxParts)
	}
	if p.parts[0].kind == partLiteral {
		p.first = p.parts[0].lit
	}
	useful := false
	tmp := 0
	r.finish(n, p.parts, nil, true, &tmp, &useful)
	if !useful {
		r.fail(n, "line pattern has no literal and no typed capture, so it would fit every line")
	}
	return p
}

func (r *reader) parts(n *yaml.Node, rest *string, slot func(string) int, cost *int, inside bool) []part {
	var out []part
	lit := func(s string) {
		if s == "" {
			return
		}
		if k := len(out); k > 0 && out[k-1].kind == partLiteral {
			out[k-1].lit += s
			return
		}
		out = append(out, part{kind: partLiteral, lit: s, slot: -1})
		*cost++
	}
	for *rest != "" {
		s := *rest
		i := strings.IndexAny(s, "{}[]")
		if i < 0 {
			lit(s)
			*rest = ""
			break
		}
		lit(s[:i])
		s = s[i:]
		switch {
		case strings.HasPrefix(s, "{{"), strings.HasPrefix(s, "}}"):
			lit(s[:1])
			*rest = s[2:]
		case strings.HasPrefix(s, "[["):
			if inside {
				r.fail(n, "line pattern: an optional part inside an optional part")
			}
			*rest = s[2:]
			g := r.parts(n, rest, slot, cost, true)
			if !strings.HasPrefix(*rest, "]]") {
				r.fail(n, "line pattern: [[ without ]]")
			}
			*rest = (*rest)[2:]
			if len(g) == 0 || g[0].kind != partLiteral && g[0].kind != partBlank {
				r.fail(n, "line pattern: an optional part must begin with a literal")
			}
			out = append(out, part{kind: partOptional, group: g, slot: -1})
			*cost++
		case strings.HasPrefix(s, "]]"):
			*rest = s
			if inside {
				return out
			}
			r.fail(n, "line pattern: ]] without [[")
		case s[0] == '{':
			j := strings.IndexByte(s, '}')
			if j < 0 {
				r.fail(n, "line pattern: { without }; write {{ for the character itself")
			}
			out = append(out, r.capture(n, s[1:j], slot))
			*cost++
			*rest = s[j+1:]
		case s[0] == '}':
			r.fail(n, "line pattern: } without {; write }} for the character itself")
		default: // a single bracket is itself
			lit(s[:1])
			*rest = s[1:]
		}
	}
	return out
}

func (r *reader) capture(n *yaml.Node, s string, slot func(string) int) part {
	name, typ, typed := strings.Cut(s, ":")
	switch s {
	case "_":
		return part{kind: partBlank, slot: -1}
	case "$":
		return part{kind: partEnd, slot: -1}
	}
	p := part{kind: partText, slot: -1}
	if typed {
		k, ok := partKinds[typ]
		if !ok {
			r.fail(n, "line pattern: there is no capture type %q; use text, word, ip, int, host, name or quoted", typ)
		}
		p.kind = k
	}
	if name == "" {
		r.fail(n, "line pattern: a capture without a name; write {-} for a value that is not wanted")
	}
	if name != "-" {
		p.slot = slot(name)
	}
	return p
}

// finish tells every text capture where it ends, and numbers the captures. follow are the literals that may come after these parts.
func (r *reader) finish(n *yaml.Node, parts []part, follow []string, atEnd bool, tmp *int, useful *bool) {
	for i := range parts {
		p := &parts[i]
		if p.kind != partLiteral && p.kind != partOptional && p.kind != partBlank && p.kind != partEnd {
			p.tmp = *tmp
			*tmp++
		}
		switch p.kind {
		case partLiteral:
			if strings.TrimSpace(p.lit) != "" {
				*useful = true
			}
		case partIP, partInt, partQuoted, partEnd, partWord, partHost, partName:
			*useful = true
		case partOptional:
			next, end := r.starts(n, parts[i+1:], follow, atEnd)
			r.finish(n, p.group, next, end, tmp, useful)
		case partText:
			p.stops, p.end = r.starts(n, parts[i+1:], follow, atEnd)
			if len(p.stops) == 0 && !p.end {
				r.fail(n, "line pattern: a text capture must be followed by a literal; give it a type such as {name:word}")
			}
		}
	}
}

// starts gives the literals with which the parts can begin, and whether the text may end before them.
func (r *reader) starts(n *yaml.Node, parts []part, follow []string, atEnd bool) (stops []string, end bool) {
	for i := range parts {
		p := &parts[i]
		switch p.kind {
		case partLiteral:
			return append(stops, p.lit), false
		case partBlank:
			return append(stops, " ", "\t"), false
		case partEnd:
			return stops, true
		case partOptional:
			s, _ := r.starts(n, p.group, nil, false)
			stops = append(stops, s...)
		default:
			r.fail(n, "line pattern: two captures need a literal between them, or the first a type such as {name:word}")
		}
	}
	return append(stops, follow...), atEnd
}

// Match fills slots with what the pattern captures from text. Slots change only when it fits. fuel bounds the bytes that are searched.
func (p *Pattern) Match(text string, slots *Values, fuel *int) bool {
	if p.first != "" && !strings.HasPrefix(text, p.first) {
		return false
	}
	*fuel -= len(p.parts)
	got := &slots.got // whatever is looked at there was written before, since the pattern fits
	if _, ok := match(p.parts, text, got, fuel); !ok {
		return false
	}
	commit(p.parts, got, slots)
	return true
}

// Captures gives the slots that a step of line patterns may fill.
func (s *Step) Captures() (slots []int) {
	var walk func([]part)
	walk = func(parts []part) {
		for i := range parts {
			if parts[i].slot >= 0 {
				slots = append(slots, parts[i].slot)
			}
			walk(parts[i].group)
		}
	}
	for i := range s.Patterns {
		walk(s.Patterns[i].parts)
	}
	return slots
}

func commit(parts []part, got *[maxParts]string, slots *Values) {
	for i := range parts {
		p := &parts[i]
		if p.kind == partOptional {
			commit(p.group, got, slots)
		} else if p.slot >= 0 && got[p.tmp] != "" {
			slots.Put(p.slot, got[p.tmp])
		}
	}
}

func match(parts []part, t string, got *[maxParts]string, fuel *int) (rest string, ok bool) {
	for i := range parts {
		p := &parts[i]
		n := 0
		switch p.kind {
		case partLiteral:
			if !strings.HasPrefix(t, p.lit) {
				return t, false
			}
			t = t[len(p.lit):]
			continue
		case partOptional:
			if r, ok := match(p.group, t, got, fuel); ok {
				t = r
			} else {
				clearGroup(p.group, got)
			}
			continue
		case partEnd:
			if strings.TrimRight(t, " \t\r\n") != "" {
				return t, false
			}
			t = ""
			continue
		case partBlank:
			for n < len(t) && (t[n] == ' ' || t[n] == '\t') {
				n++
			}
			if n == 0 {
				return t, false
			}
			t = t[n:]
			continue
		case partText:
			n = p.until(t, fuel)
			if n < 0 {
				return t, false
			}
			got[p.tmp] = t[:n]
			t = t[n:]
			continue
		case partWord:
			for n < len(t) && t[n] != ' ' && t[n] != '\t' {
				n++
			}
			// A word that a literal follows at once ends there: {user:word}, or {host:word}:
			if i+1 < len(parts) && parts[i+1].kind == partLiteral && parts[i+1].lit[0] != ' ' {
				if k := strings.Index(t[:n], cutAtBlank(parts[i+1].lit)); k >= 0 {
					n = k
				}
			}
		case partIP:
			var v string
			v, n = ipAt(t)
			if n == 0 {
				return t, false
			}
			got[p.tmp] = v
			t = t[n:]
			continue
		case partInt:
			for n < len(t) && t[n]-'0' <= 9 {
				n++
			}
		case partHost:
			for n < len(t) && (alnum(t[n]) || t[n] == '.' || t[n] == '-' || t[n] == '_' || t[n] == ':') {
				n++
			}
			for n > 0 && (t[n-1] == '.' || t[n-1] == ':') { // of the sentence, not of the name
				n--
			}
		case partName:
			for n < len(t) && (alnum(t[n]) || t[n] >= 0x80 || strings.IndexByte(`.-_\@$+=~#%!`, t[n]) >= 0) {
				n++
			}
			for n > 0 && t[n-1] == '.' {
				n--
			}
		case partQuoted:
			if len(t) < 2 || t[0] != '"' && t[0] != '\'' {
				return t, false
			}
			k := strings.IndexByte(t[1:], t[0])
			if k < 0 {
				return t, false
			}
			*fuel -= k >> 5
			got[p.tmp] = t[1 : 1+k]
			t = t[k+2:]
			continue
		}
		*fuel -= n >> 5
		if n == 0 || *fuel < 0 {
			return t, false
		}
		got[p.tmp] = t[:n]
		t = t[n:]
	}
	return t, *fuel >= 0
}

func cutAtBlank(s string) string {
	if i := strings.IndexByte(s, ' '); i > 0 {
		return s[:i]
	}
	return s
}

func clearGroup(parts []part, got *[maxParts]string) {
	for i := range parts {
		if p := &parts[i]; p.kind != partLiteral && p.kind != partBlank && p.kind != partEnd {
			got[p.tmp] = ""
		}
	}
}

// until gives the length of a text capture at the start of t: up to the nearest of its stops.
func (p *part) until(t string, fuel *int) int {
	best := -1
	look := t
	for _, s := range p.stops {
		*fuel -= 1 + len(look)>>5
		if *fuel < 0 {
			return -1
		}
		if i := strings.Index(look, s); i >= 0 && (best < 0 || i < best) {
			best = i
			look = t[:min(len(t), i+maxLiteral)] // only what is nearer matters now
			if i == 0 {
				break
			}
		}
	}
	if best < 0 && p.end {
		return len(t)
	}
	return best
}

func alnum(c byte) bool { return c-'0' <= 9 || c|0x20 >= 'a' && c|0x20 <= 'z' }

// ipAt reads an address at the start of t; brackets around an IPv6 address are passed over. n is how much of t it takes.
func ipAt(t string) (v string, n int) {
	if len(t) > 2 && t[0] == '[' {
		v, n = ipAt(t[1:])
		if n > 0 && n+1 < len(t) && t[n+1] == ']' {
			return v, n + 2
		}
		return "", 0
	}
	dots, i := 0, 0
	for i < len(t) && i < 15 && (t[i]-'0' <= 9 || t[i] == '.') {
		if t[i] == '.' {
			if dots == 3 { // the full stop of a sentence
				break
			}
			dots++
		}
		i++
	}
	if dots == 3 && t[i-1] != '.' {
		return t[:i], i
	}
	i = 0
	colons := 0
	for i < len(t) && i < 45 && (t[i]-'0' <= 9 || t[i]|0x20 >= 'a' && t[i]|0x20 <= 'f' || t[i] == ':' || t[i] == '.') {
		if t[i] == ':' {
			colons++
		}
		i++
	}
	for i > 0 && (t[i-1] == '.' || t[i-1] == ':' && (i < 2 || t[i-2] != ':')) {
		i--
	}
	if colons < 2 || i < 2 {
		return "", 0
	}
	end := i
	if i < len(t) && t[i] == '%' { // a zone
		i++
		for i < len(t) && alnum(t[i]) {
			i++
		}
	}
	return t[:end], i
}
