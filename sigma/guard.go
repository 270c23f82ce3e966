package sigma

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// guard is what can be told about a match of a regular expression without running it, which costs about a hundred times more.
type guard struct {
	need     []string   // one of these, folded, is in every match; nil: not known
	seq      [][]string // of each group one text, folded, is in every match, in this order
	length   int        // bytes that every match has at least
	class    *[256]bool // every match has classRun bytes of it in a row
	classRun int
	shared   sharedAutomaton
	run      int // the expression is .{run,}: so many characters without a line feed decide it
}

// compileRegex compiles src and works out its guard. What it gives of src is the expression that was compiled: $ stands before a line feed
// that ends the text too, as in PCRE and Python and other than in Go.
func compileRegex(src string) (string, *regexp.Regexp, *guard, error) {
	if len(src) > 10_000 {
		return "", nil, nil, fmt.Errorf("longer than 10,000 characters")
	}
	tree, err := syntax.Parse(src, syntax.Perl) // also bounds the size
	if err != nil {
		return "", nil, nil, err
	}
	if softEnd(tree, 0) {
		src = tree.String()
		if tree, err = syntax.Parse(src, syntax.Perl); err != nil {
			return "", nil, nil, err
		}
	}
	re, err := regexp.Compile(src)
	if err != nil {
		return "", nil, nil, err
	}
	g := &guard{length: leastBytes(tree, 0)}
	if tree.Op == syntax.OpRepeat && tree.Max == -1 && tree.Sub[0].Op == syntax.OpAnyCharNotNL {
		g.run = tree.Min
	}
	g.longestClass(tree, 0)
	tree = tree.Simplify()
	if namesReplacement(tree, 0) {
		return src, re, g, nil // that character also matches bytes which are not UTF-8, so texts prove nothing
	}
	for _, l := range required(tree, 0) {
		if l = fold(l); !slices.Contains(g.need, l) {
			g.need = append(g.need, l)
		}
	}
	g.sequence(tree, 0)
	return src, re, g, nil
}

// softEnd lets a line feed come before each $ of re that is the end of the text, and says whether there is one.
func softEnd(re *syntax.Regexp, depth int) bool {
	if depth > 1000 {
		return false
	}
	if re.Op == syntax.OpEndText && re.Flags&syntax.WasDollar != 0 {
		end := &syntax.Regexp{Op: syntax.OpEndText}
		feed := &syntax.Regexp{Op: syntax.OpLiteral, Rune: []rune{'\n'}}
		*re = syntax.Regexp{Op: syntax.OpConcat, Sub: []*syntax.Regexp{{Op: syntax.OpQuest, Sub: []*syntax.Regexp{feed}}, end}}
		return true
	}
	found := false
	for _, s := range re.Sub {
		found = softEnd(s, depth+1) || found
	}
	return found
}

// smallClass is the size up to which a class of characters counts as a choice of literals.
const smallClass = 4

// namesReplacement says whether a literal or a small class of re holds U+FFFD.
func namesReplacement(re *syntax.Regexp, depth int) bool {
	if depth > 200 || re.Op == syntax.OpLiteral && slices.Contains(re.Rune, utf8.RuneError) {
		return true
	}
	if re.Op == syntax.OpCharClass {
		n, named := 0, false
		for i := 0; i+1 < len(re.Rune); i += 2 {
			n += int(re.Rune[i+1]-re.Rune[i]) + 1
			named = named || re.Rune[i] <= utf8.RuneError && re.Rune[i+1] >= utf8.RuneError
		}
		if named && n <= smallClass {
			return true
		}
	}
	return slices.ContainsFunc(re.Sub, func(s *syntax.Regexp) bool { return namesReplacement(s, depth+1) })
}

// leastBytes is a lower bound of the length of a match.
func leastBytes(re *syntax.Regexp, depth int) int {
	if depth > 200 {
		return 0
	}
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1
	case syntax.OpCapture, syntax.OpPlus:
		return leastBytes(re.Sub[0], depth+1)
	case syntax.OpRepeat:
		return re.Min * leastBytes(re.Sub[0], depth+1)
	case syntax.OpConcat:
		n := 0
		for _, s := range re.Sub {
			n += leastBytes(s, depth+1)
		}
		return n
	case syntax.OpAlternate:
		n := leastBytes(re.Sub[0], depth+1)
		for _, s := range re.Sub[1:] {
			n = min(n, leastBytes(s, depth+1))
		}
		return n
	}
	return 0
}

// sequence appends the groups of re. Folding maps character by character, so what follows in the text follows in its folded form.
func (g *guard) sequence(re *syntax.Regexp, depth int) {
	if depth > 200 || len(g.seq) >= 16 {
		return
	}
	switch re.Op {
	case syntax.OpLiteral:
		g.seq = append(g.seq, []string{fold(string(re.Rune))})
	case syntax.OpCapture, syntax.OpPlus:
		g.sequence(re.Sub[0], depth+1)
	case syntax.OpRepeat:
		if re.Min > 0 {
			g.sequence(re.Sub[0], depth+1)
		}
	case syntax.OpConcat:
		var run []string // what stands side by side is sought together
		flush := func() {
			if run != nil {
				for i := range run {
					run[i] = fold(run[i])
				}
				g.seq = append(g.seq, run)
				run = nil
			}
		}
		for _, s := range re.Sub {
			next := choices(s)
			if next == nil {
				flush()
				g.sequence(s, depth+1)
				continue
			}
			if both := side(run, next); both != nil {
				run = both
				continue
			}
			flush()
			run = next
		}
		flush()
	case syntax.OpAlternate, syntax.OpCharClass:
		if l := required(re, depth+1); len(l) > 0 {
			group := make([]string, len(l))
			for i := range l {
				group[i] = fold(l[i])
			}
			g.seq = append(g.seq, group)
		}
	}
}

// choices gives the few texts that re, a literal or a small class, stands for; nil for all else.
func choices(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpLiteral, syntax.OpCharClass:
		return required(re, 0)
	}
	return nil
}

// side gives the texts of which a first half is in a and a second in b, nil when they are too many.
func side(a, b []string) []string {
	if a == nil {
		return b
	}
	if len(a)*len(b) > 16 {
		return nil
	}
	out := make([]string, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			out = append(out, x+y)
		}
	}
	return out
}

// longestClass looks for the longest repetition of a class of ASCII characters that every match has, such as the digits of a hash.
func (g *guard) longestClass(re *syntax.Regexp, depth int) {
	if depth > 200 {
		return
	}
	switch re.Op {
	case syntax.OpConcat:
		for _, s := range re.Sub {
			g.longestClass(s, depth+1)
		}
	case syntax.OpCapture, syntax.OpPlus:
		g.longestClass(re.Sub[0], depth+1)
	case syntax.OpRepeat:
		c := re.Sub[0]
		if re.Min < 8 || re.Min <= g.classRun || c.Op != syntax.OpCharClass || len(c.Rune) == 0 || c.Rune[len(c.Rune)-1] >= utf8.RuneSelf {
			return
		}
		g.class, g.classRun = &[256]bool{}, re.Min
		for i := 0; i+1 < len(c.Rune); i += 2 {
			for r := c.Rune[i]; r <= c.Rune[i+1]; r++ {
				g.class[r] = true
			}
		}
	}
}

// hasClassRun says whether s has the run. It looks at the end of a window first, so most bytes are never looked at.
func (g *guard) hasClassRun(s string) bool {
	for from := 0; from+g.classRun <= len(s); {
		i := from + g.classRun - 1
		for i >= from && g.class[s[i]] {
			i--
		}
		if i < from {
			return true
		}
		from = i + 1
	}
	return false
}

// possible says whether a match is possible in text, of which inLow is known.
func (g *guard) possible(text string) bool {
	return len(text) >= g.length && (g.class == nil || g.hasClassRun(text))
}

// inLow says whether a match is possible in the text of which low is the folded form.
func (g *guard) inLow(low string) bool {
	for _, group := range g.seq {
		end := -1
		for _, t := range group {
			if i := strings.Index(low, t); i >= 0 && (end < 0 || i+len(t) < end) {
				end = i + len(t)
			}
		}
		if end < 0 {
			return false
		}
		low = low[end:]
	}
	return true
}

// hasRun says whether s has n characters in a row without a line feed.
func hasRun(s string, n int) bool {
	for {
		line, rest, more := strings.Cut(s, "\n")
		if len(line) >= n && (len(line) >= n*utf8.UTFMax || utf8.RuneCountInString(line) >= n) {
			return true
		}
		if !more {
			return false
		}
		s = rest
	}
}

// required gives a set of literals one of which is in every match of re, or nil when there is none of use. Longer is better: of a
// sequence the child whose shortest literal is longest is taken.
func required(re *syntax.Regexp, depth int) []string {
	if depth > 200 {
		return nil
	}
	switch re.Op {
	case syntax.OpLiteral:
		return []string{string(re.Rune)}
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0], depth+1)
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0], depth+1)
		}
	case syntax.OpConcat:
		var best []string
		var run []string // literals side by side make one
		score := func(l []string) int {
			if len(l) == 0 || len(l) > 64 {
				return 0
			}
			n := len(l[0])
			for _, s := range l {
				n = min(n, len(s))
			}
			return n*8 - len(l)
		}
		try := func(l []string) {
			if score(l) > score(best) {
				best = l
			}
		}
		for _, s := range re.Sub {
			next := choices(s)
			if next == nil {
				try(run)
				run = nil
				try(required(s, depth+1))
				continue
			}
			if both := side(run, next); both != nil {
				run = both
				continue
			}
			try(run)
			run = next
		}
		try(run)
		return best
	case syntax.OpAlternate:
		var all []string
		for _, s := range re.Sub {
			l := required(s, depth+1)
			if len(l) == 0 || len(all)+len(l) > 64 {
				return nil
			}
			all = append(all, l...)
		}
		return all
	case syntax.OpCharClass:
		// A small class stands for its members: [Pp]ower has been simplified to such.
		n := 0
		for i := 0; i+1 < len(re.Rune); i += 2 {
			n += int(re.Rune[i+1]-re.Rune[i]) + 1
		}
		if n == 0 || n > smallClass {
			return nil
		}
		var out []string
		for i := 0; i+1 < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				out = append(out, string(r))
			}
		}
		return out
	}
	return nil
}
