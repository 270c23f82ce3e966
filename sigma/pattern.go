package sigma

import (
	"strings"
	"unicode"
	"unicode/utf8"
	"unsafe"
)

type partKind uint8

const (
	partText  partKind = iota
	partStar           // any characters, none included
	partAny            // exactly one character
	partPlace          // a placeholder to expand; text is its name
)

type part struct {
	kind partKind
	text string
}

// pattern is a Sigma string: literal text and wildcards.
type pattern []part

// parsePattern reads the escapes of the specification: a backslash escapes only *, ? and itself, before anything else it stands for
// itself.
func parsePattern(s string) pattern {
	var p pattern
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			p = append(p, part{partText, text.String()})
			text.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && (s[i+1] == '*' || s[i+1] == '?' || s[i+1] == '\\'):
			i++
			text.WriteByte(s[i])
		case c == '*':
			flush()
			if len(p) == 0 || p[len(p)-1].kind != partStar {
				p = append(p, part{kind: partStar})
			}
		case c == '?':
			flush()
			p = append(p, part{kind: partAny})
		default:
			text.WriteByte(c)
		}
	}
	flush()
	return p
}

func textPattern(s string) pattern {
	if s == "" {
		return nil
	}
	return pattern{{partText, s}}
}

func (p pattern) plain() (string, bool) {
	switch {
	case len(p) == 0:
		return "", true
	case len(p) == 1 && p[0].kind == partText:
		return p[0].text, true
	}
	return "", false
}

func (p pattern) starts(k partKind) bool { return len(p) > 0 && p[0].kind == k }
func (p pattern) ends(k partKind) bool   { return len(p) > 0 && p[len(p)-1].kind == k }

func (p pattern) withPrefix(x part) pattern { return append(pattern{x}, p...) }
func (p pattern) withSuffix(x part) pattern { return append(p[:len(p):len(p)], x) }

// join appends q to p and keeps adjacent texts together.
func (p pattern) join(q ...part) pattern {
	p = p[:len(p):len(p)]
	for _, x := range q {
		if n := len(p) - 1; n >= 0 && x.kind == partText && p[n].kind == partText {
			p = append(p[:n:n], part{partText, p[n].text + x.text})
			continue
		}
		if x.kind == partText && x.text == "" {
			continue
		}
		p = append(p, x)
	}
	return p
}

// mapText applies f to the literal parts.
func (p pattern) mapText(f func(string) string) pattern {
	out := make(pattern, len(p))
	for i, x := range p {
		if x.kind == partText {
			x.text = f(x.text)
		}
		out[i] = x
	}
	return out
}

// foldRune maps all characters that are equal without regard to case to one: first to upper, then to lower case, so that ſ and s, K and
// the Kelvin sign, ς and σ meet.
func foldRune(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }

const (
	swarOnes  = 0x0101010101010101
	swarHighs = 0x8080808080808080
)

// lower8 lower-cases eight ASCII bytes at once; every byte must be below 0x80.
func lower8(x uint64) uint64 {
	// A byte is a capital when adding 0x3f sets its high bit (≥ 'A') and adding 0x25 does not (≤ 'Z').
	ge := x + 0x3f*swarOnes
	gt := x + 0x25*swarOnes
	return x | (ge&^gt&swarHighs)>>2
}

// appendFold appends s, folded, to dst. Bytes that are not valid UTF-8 stay as they are.
func appendFold(dst []byte, s string) []byte {
	n := len(dst)
	dst = append(dst, s...)
	b := dst[n:]
	i := 0
	for ; i+8 <= len(b); i += 8 {
		p := (*uint64)(unsafe.Pointer(&b[i]))
		if *p&swarHighs != 0 {
			return foldSlow(dst[:n+i], s[i:])
		}
		*p = lower8(*p)
	}
	for ; i < len(b); i++ {
		c := b[i]
		if c >= utf8.RuneSelf {
			return foldSlow(dst[:n+i], s[i:])
		}
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return dst
}

func foldSlow(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, c)
		} else {
			dst = utf8.AppendRune(dst, foldRune(r))
		}
		i += size
	}
	return dst
}

func fold(s string) string {
	b := appendFold(make([]byte, 0, len(s)+8), s)
	return string(b)
}

// glob matches patterns with inner wildcards. It is a list of runs between stars.
type glob struct {
	runs        []pattern // of text and any-character parts
	openStart   bool      // begins with a star
	openEnd     bool
	longestText string
}

func newGlob(p pattern) *glob {
	g := &glob{openStart: p.starts(partStar), openEnd: p.ends(partStar)}
	var run pattern
	for _, x := range p {
		if x.kind == partStar {
			if len(run) > 0 {
				g.runs = append(g.runs, run)
				run = nil
			}
			continue
		}
		run = append(run, x)
		if x.kind == partText && len(x.text) > len(g.longestText) {
			g.longestText = x.text
		}
	}
	if len(run) > 0 {
		g.runs = append(g.runs, run)
	}
	return g
}

// matchRun matches run at the start of s and gives the length of what it took, or -1.
func matchRun(run pattern, s string) int {
	n := 0
	for _, x := range run {
		if x.kind == partText {
			if !strings.HasPrefix(s[n:], x.text) {
				return -1
			}
			n += len(x.text)
			continue
		}
		if n == len(s) {
			return -1
		}
		_, size := utf8.DecodeRuneInString(s[n:])
		n += size
	}
	return n
}

func (g *glob) match(s string) bool {
	runs := g.runs
	if len(runs) == 0 {
		return g.openStart || s == ""
	}
	if !g.openStart {
		n := matchRun(runs[0], s)
		if n < 0 {
			return false
		}
		if len(runs) == 1 && !g.openEnd {
			return n == len(s)
		}
		s, runs = s[n:], runs[1:]
	}
	for i, run := range runs {
		last := i == len(runs)-1 && !g.openEnd
		n := -1
		for at := 0; ; {
			if run[0].kind == partText { // jump to where the run can begin
				j := strings.Index(s[at:], run[0].text)
				if j < 0 {
					return false
				}
				at += j
			}
			if n = matchRun(run, s[at:]); n >= 0 && (!last || at+n == len(s)) {
				s = s[at+n:]
				break
			}
			if at >= len(s) {
				return false
			}
			_, size := utf8.DecodeRuneInString(s[at:])
			at += size
		}
	}
	return g.openEnd || s == ""
}
