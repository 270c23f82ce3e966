package sigma

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

type predOp uint8

const (
	opEq predOp = iota // ordered by cost: a condition tests the cheap ones first
	opPrefix
	opSuffix
	opNull
	opExists
	opNumber // gt, gte, lt, lte
	opSet    // any of several literals in one field
	opContains
	opGlob
	opCIDR
	opRef
	opTime
	opRegex
	opNever // a placeholder that nobody supplied
)

// predicate is one test of one field. Equal predicates of all rules are one object.
type predicate struct {
	id      int32
	op      predOp
	key     Key
	keyword bool // any value of the event
	cased   bool
	want    bool // opExists
	text    string
	rare    int        // opContains: place of the byte of text that is probably met least
	sub     predOp     // opRef: how the other field is compared; opNumber, opTime: see cmp
	lits    []*literal // opSet: its alternatives
	set     *lazySet   // opSet
	guesses []float64  // of how frequent its literals are

	trainedAs uint32 // hash of the field's name
	glob      *glob
	re        *regexp.Regexp
	guard     *guard // opRegex
	nets      netip.Prefix
	num       float64
	cmp       string // opNumber: gt gte lt lte; opTime: minute hour day week month year
	ref       Key
}

// literal is one text that a value must equal, begin with, end with or contain. The text is folded.
type literal struct {
	op   predOp
	text string
}

// lazySet is the literals of an opSet predicate, prepared when the first is sought: most sets of rules never are.
type lazySet struct {
	lits []*literal
	once sync.Once
	set  *litSet
}

func (l *lazySet) any(s string) bool {
	l.once.Do(func() {
		l.set = newLitSet()
		for _, lit := range l.lits {
			l.set.add(lit, 0)
		}
		l.set.build(nil, 0)
	})
	return l.set.any(s)
}

// draft is a predicate whose field is still a name.
type draft struct {
	predicate
	name    string // of the field, "" for keywords
	refName string // of the other field, for opRef
}

// modifiers are those of the specification.
var modifiers = map[string]bool{"contains": true, "startswith": true, "endswith": true, "all": true, "cased": true, "windash": true, "base64": true, "base64offset": true,
	"utf16": true, "utf16le": true, "utf16be": true, "wide": true, "re": true, "i": true, "m": true, "s": true, "ignorecase": true, "multiline": true, "dotall": true,
	"cidr": true, "exists": true, "expand": true, "fieldref": true, "gt": true, "gte": true, "lt": true, "lte": true, "neq": true,
	"minute": true, "hour": true, "day": true, "week": true, "month": true, "year": true}

// draftItem turns one line of a detection into alternatives: groups are joined by or (or by and, with the all modifier), the drafts of
// one group by or. It is independent of the log source, so it is done once for a rule.
func draftItem(it *item, expand func(string) ([]string, bool)) (groups [][]draft, all, negate bool, err error) {
	fail := func(format string, args ...any) ([][]draft, bool, bool, error) {
		name := strings.Join(append([]string{it.field}, it.mods...), "|")
		return nil, false, false, &lineError{it.line, fmt.Sprintf("%s: %s", name, fmt.Sprintf(format, args...))}
	}
	has := func(m string) bool { return slices.Contains(it.mods, m) }
	var isRe, isRef, isCIDR bool
	var mods []string // those that change values, in order
	for i, m := range it.mods {
		if !modifiers[m] {
			return fail("unknown modifier %q", m)
		}
		if slices.Contains(it.mods[:i], m) {
			return fail("the modifier %q is given twice", m)
		}
		switch m {
		case "all":
			all = true
			continue
		case "neq":
			negate = true
			continue
		case "re":
			isRe = true
		case "fieldref":
			isRef = true
		case "cidr":
			isCIDR = true
		case "i", "m", "s", "ignorecase", "multiline", "dotall":
			if !isRe {
				return fail("the modifier %q must follow re", m)
			}
		}
		mods = append(mods, m)
	}
	base := draft{predicate: predicate{keyword: it.field == ""}}
	if it.field == "" && (isRef || isCIDR || has("exists")) {
		return fail("this modifier needs a field")
	}
	if isRe {
		flags := ""
		var anchor string
		for _, m := range mods {
			switch m {
			case "re":
			case "i", "ignorecase":
				flags += "i"
			case "m", "multiline":
				flags += "m"
			case "s", "dotall":
				flags += "s"
			case "contains", "startswith", "endswith", "expand":
				anchor = m
			default:
				return fail("the modifier %q cannot be used with re", m)
			}
		}
		for _, v := range it.values {
			if v.kind == valueNull {
				return fail("re needs a text")
			}
			texts := []string{v.text}
			if has("expand") {
				var ok bool
				if texts, ok = expandText(v.text, expand); !ok {
					groups = append(groups, []draft{{predicate: predicate{op: opNever, keyword: base.keyword}}})
					continue
				}
			}
			var group []draft
			for _, t := range texts {
				switch anchor {
				case "startswith":
					t = "^(?:" + t + ")"
				case "endswith":
					t = "(?:" + t + ")$"
				}
				src := t
				if flags != "" {
					src = "(?" + flags + ")" + t
				}
				d := base
				d.op = opRegex
				if d.text, d.re, d.guard, err = compileRegex(src); err != nil {
					return fail("the regular expression %q cannot be used: %v", v.text, err)
				}
				group = append(group, d)
			}
			groups = append(groups, group)
		}
		return groups, all, negate, nil
	}
	for _, v := range it.values {
		group, err := draftValue(it, mods, v, base, expand)
		if err != nil {
			return fail("%v", err)
		}
		groups = append(groups, group)
	}
	return groups, all, negate, nil
}

func draftValue(it *item, mods []string, v value, base draft, expand func(string) ([]string, bool)) ([]draft, error) {
	if v.kind == valueNull {
		if len(mods) > 0 {
			return nil, fmt.Errorf("null cannot have the modifier %q", mods[0])
		}
		if base.keyword {
			return nil, fmt.Errorf("null needs a field")
		}
		base.op = opNull
		return []draft{base}, nil
	}
	if op, ok := plainOp(v, mods, base.keyword); ok {
		base.op, base.text = op, fold(v.text)
		return []draft{base}, nil
	}
	return draftPattern(it, mods, v, base, expand)
}

// draftPattern is draftValue for what is not as plain as most values are.
func draftPattern(it *item, mods []string, v value, base draft, expand func(string) ([]string, bool)) ([]draft, error) {
	pats := []pattern{parsePattern(v.text)}
	if v.kind != valueString {
		pats[0] = textPattern(v.text)
	}
	each := func(f func(pattern) ([]pattern, error)) error {
		var out []pattern
		for _, p := range pats {
			q, err := f(p)
			if err != nil {
				return err
			}
			if out = append(out, q...); len(out) > maxValues {
				return fmt.Errorf("the modifiers make more than %d values", maxValues)
			}
		}
		pats = out
		return nil
	}
	keywordContains := base.keyword
	var err error
	ref := false
	for i, m := range mods {
		switch m {
		case "contains", "startswith", "endswith":
			if ref {
				base.sub = map[string]predOp{"contains": opContains, "startswith": opPrefix, "endswith": opSuffix}[m]
				continue
			}
			keywordContains = keywordContains && m == "contains"
			err = each(func(p pattern) ([]pattern, error) {
				if m != "startswith" && !p.starts(partStar) {
					p = p.withPrefix(part{kind: partStar})
				}
				if m != "endswith" && !p.ends(partStar) {
					p = p.withSuffix(part{kind: partStar})
				}
				return []pattern{p}, nil
			})
		case "cased":
			base.cased = true
		case "windash":
			err = each(windash)
		case "wide", "utf16le":
			err = each(utf16Text(false, ""))
		case "utf16be":
			err = each(utf16Text(true, ""))
		case "utf16":
			err = each(utf16Text(false, "\xff\xfe"))
		case "base64", "base64offset":
			err = each(func(p pattern) ([]pattern, error) {
				t, ok := p.plain()
				if !ok {
					return nil, fmt.Errorf("a value with wildcards cannot be encoded as base64")
				}
				if m == "base64" {
					return []pattern{textPattern(base64.StdEncoding.EncodeToString([]byte(t)))}, nil
				}
				return base64Offsets(t), nil
			})
		case "expand":
			err = each(func(p pattern) ([]pattern, error) { return expandPattern(p, expand) })
		case "cidr":
			if i > 0 || len(mods) > 1 {
				return nil, fmt.Errorf("cidr cannot be combined with other modifiers")
			}
			base.op, base.text = opCIDR, v.text
			if base.nets, err = parsePrefix(v.text); err != nil {
				return nil, err
			}
			return []draft{base}, nil
		case "exists":
			if len(mods) > 1 {
				return nil, fmt.Errorf("exists cannot be combined with other modifiers")
			}
			base.op = opExists
			if base.want, err = parseBool(v.text); err != nil {
				return nil, fmt.Errorf("exists: %w", err)
			}
			return []draft{base}, nil
		case "fieldref":
			ref = true
			base.op, base.sub = opRef, opEq
			t, ok := pats[0].plain()
			if !ok || t == "" || v.kind != valueString {
				return nil, fmt.Errorf("fieldref needs the name of a field")
			}
			base.refName = t
		case "gt", "gte", "lt", "lte":
			if len(mods) > 1 {
				// A part of a time may be compared: day|gte is not in the specification, so it is refused rather than guessed.
				return nil, fmt.Errorf("%s cannot be combined with other modifiers", m)
			}
			n, ok := parseNumber(v.text)
			if !ok {
				return nil, fmt.Errorf("%s: %q is not a number", m, v.text)
			}
			base.op, base.cmp, base.num = opNumber, m, n
			return []draft{base}, nil
		case "minute", "hour", "day", "week", "month", "year":
			if len(mods) > 1 {
				return nil, fmt.Errorf("%s cannot be combined with other modifiers", m)
			}
			n, err := strconv.Atoi(v.text)
			if err != nil {
				return nil, fmt.Errorf("%s: %q is not a whole number", m, v.text)
			}
			base.op, base.cmp, base.num = opTime, m, float64(n)
			return []draft{base}, nil
		}
		if err != nil {
			return nil, err
		}
	}
	if ref {
		return []draft{base}, nil
	}
	out := make([]draft, 0, len(pats))
	for _, p := range pats {
		if base.keyword && (keywordContains || len(mods) == 0) {
			// A keyword is sought anywhere in a value; wildcards within it stay.
			if !p.starts(partStar) {
				p = p.withPrefix(part{kind: partStar})
			}
			if !p.ends(partStar) {
				p = p.withSuffix(part{kind: partStar})
			}
		}
		out = append(out, base.withPattern(p))
	}
	if len(out) == 0 { // every placeholder was empty
		base.op = opNever
		out = append(out, base)
	}
	return out, nil
}

// plainOp says how a value is compared of which nothing has to be worked out, as nearly all are: a text without wildcards and escapes,
// with at most one modifier that says where it stands.
func plainOp(v value, mods []string, keyword bool) (predOp, bool) {
	if v.kind != valueString || v.text == "" || len(mods) > 1 || strings.ContainsAny(v.text, "*?") || strings.Contains(v.text, `\\`) {
		return 0, false
	}
	op := opEq
	if len(mods) == 1 {
		switch mods[0] {
		case "contains":
			op = opContains
		case "startswith":
			op = opPrefix
		case "endswith":
			op = opSuffix
		default:
			return 0, false
		}
	}
	if keyword {
		return opContains, op == opEq || op == opContains
	}
	return op, true
}

// withPattern chooses the cheapest operation for p.
func (d draft) withPattern(p pattern) draft {
	if slices.ContainsFunc(p, func(x part) bool { return x.kind == partPlace }) {
		d.op = opNever
		return d
	}
	if !d.cased {
		p = p.mapText(fold)
	}
	star := func(i int) bool { return p[i].kind == partStar }
	text := func(i int) bool { return p[i].kind == partText }
	switch {
	case len(p) == 0:
		d.op = opEq
	case len(p) == 1 && text(0):
		d.op, d.text = opEq, p[0].text
	case len(p) == 2 && text(0) && star(1):
		d.op, d.text = opPrefix, p[0].text
	case len(p) == 2 && star(0) && text(1):
		d.op, d.text = opSuffix, p[1].text
	case len(p) == 3 && star(0) && text(1) && star(2):
		d.op, d.text = opContains, p[1].text
	default:
		d.op, d.glob = opGlob, newGlob(p)
		var b strings.Builder // the text identifies the predicate, it is not used to match
		for _, x := range p {
			fmt.Fprintf(&b, "%d%q", x.kind, x.text)
		}
		d.text = b.String()
	}
	return d
}

// windash varies each dash or slash that begins a word over the five characters which Windows programs take for it.
func windash(p pattern) ([]pattern, error) {
	out := []pattern{nil}
	word := func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) }
	for _, x := range p {
		if x.kind != partText {
			for i := range out {
				out[i] = out[i].join(x)
			}
			continue
		}
		rest, last := x.text, ' '
		start := 0
		for i, r := range rest {
			if (r == '-' || r == '/') && !word(last) {
				if next, size := utf8.DecodeRuneInString(rest[i+1:]); size == 0 || !word(next) {
					last = r
					continue
				}
				var varied []pattern
				for _, o := range out {
					for _, c := range []string{"-", "/", "–", "—", "―"} {
						varied = append(varied, o.join(part{partText, rest[start:i] + c}))
					}
				}
				if out, start = varied, i+1; len(out) > maxValues {
					return nil, fmt.Errorf("windash makes more than %d values", maxValues)
				}
			}
			last = r
		}
		for i := range out {
			out[i] = out[i].join(part{partText, rest[start:]})
		}
	}
	return out, nil
}

func utf16Text(bigEndian bool, bom string) func(pattern) ([]pattern, error) {
	return func(p pattern) ([]pattern, error) {
		q := p.mapText(func(s string) string {
			var b []byte
			for _, u := range utf16.Encode([]rune(s)) {
				if bigEndian {
					b = append(b, byte(u>>8), byte(u))
				} else {
					b = append(b, byte(u), byte(u>>8))
				}
			}
			return string(b)
		})
		if bom != "" {
			q = append(pattern{{partText, bom}}, q...)
			q = pattern(nil).join(q...)
		}
		return []pattern{q}, nil
	}
}

// base64Offsets gives the three texts one of which is in the encoding of anything that contains t.
func base64Offsets(t string) []pattern {
	start := [3]int{0, 2, 3}
	cut := [3]int{0, 3, 2}
	var out []pattern
	for i := range 3 {
		e := base64.StdEncoding.EncodeToString([]byte("   "[:i] + t))
		from, to := start[i], len(e)-cut[(len(t)+i)%3]
		if from < to {
			out = append(out, textPattern(e[from:to]))
		}
	}
	return out
}

// placeholders finds %name% in s: where each begins and ends, its percent signs included. A percent sign behind a backslash begins none.
func placeholders(s string) (found [][2]int) {
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i > 0 && s[i-1] == '\\' {
			continue
		}
		if n := strings.IndexByte(s[i+1:], '%'); n > 0 {
			found = append(found, [2]int{i, i + n + 2})
			i += n + 1
		}
	}
	return found
}

// percents takes the backslashes before percent signs away: they keep what follows from being a placeholder.
func percents(s string) string { return strings.ReplaceAll(s, `\%`, "%") }

func expandPattern(p pattern, expand func(string) ([]string, bool)) ([]pattern, error) {
	out := []pattern{nil}
	for _, x := range p {
		if x.kind != partText {
			for i := range out {
				out[i] = out[i].join(x)
			}
			continue
		}
		from := 0
		for _, m := range placeholders(x.text) {
			name := x.text[m[0]+1 : m[1]-1]
			values, ok := expand(name)
			var next []pattern
			for _, o := range out {
				o = o.join(part{partText, percents(x.text[from:m[0]])})
				if !ok {
					next = append(next, o.join(part{partPlace, name}))
					continue
				}
				for _, v := range values {
					next = append(next, o.join(parsePattern(v)...))
				}
			}
			if out, from = next, m[1]; len(out) > maxValues {
				return nil, fmt.Errorf("expand makes more than %d values", maxValues)
			}
		}
		for i := range out {
			out[i] = out[i].join(part{partText, percents(x.text[from:])})
		}
	}
	return out, nil
}

// expandText fills placeholders in a regular expression; the values are taken literally. It reports whether all were supplied.
func expandText(s string, expand func(string) ([]string, bool)) ([]string, bool) {
	out := []string{""}
	from := 0
	for _, m := range placeholders(s) {
		values, ok := expand(s[m[0]+1 : m[1]-1])
		if !ok || len(values) == 0 || len(out)*len(values) > maxValues {
			return nil, false
		}
		var next []string
		for _, o := range out {
			for _, v := range values {
				next = append(next, o+percents(s[from:m[0]])+regexp.QuoteMeta(v))
			}
		}
		out, from = next, m[1]
	}
	for i := range out {
		out[i] += percents(s[from:])
	}
	return out, true
}

func parsePrefix(s string) (netip.Prefix, error) {
	s = strings.TrimSpace(s)
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is neither a network such as 192.0.2.0/24 nor an address", s)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a network such as 192.0.2.0/24", s)
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// text tests one value. low is the folded form.
func (p *predicate) testText(m *Matcher, text, low string) bool {
	s := low
	if p.cased {
		s = text
	}
	switch p.op {
	case opEq:
		return s == p.text
	case opPrefix:
		return strings.HasPrefix(s, p.text)
	case opSuffix:
		return strings.HasSuffix(s, p.text)
	case opContains:
		if m == nil {
			return strings.Contains(s, p.text)
		}
		return containsAt(s, p.text, p.rare)
	case opSet:
		if m == nil {
			return slices.ContainsFunc(p.lits, func(l *literal) bool { return l.match(low) })
		}
		return p.set.any(low)
	case opGlob:
		return p.glob.match(s)
	case opRegex:
		if m == nil {
			return p.re.MatchString(text)
		}
		if p.guard.run > 0 {
			return hasRun(text, p.guard.run)
		}
		return p.guard.possible(text) && p.guard.inLow(low) && m.regex(p, text)
	}
	return false
}

func (p *predicate) testNumber(f float64) bool {
	switch p.cmp {
	case "gt":
		return f > p.num
	case "gte":
		return f >= p.num
	case "lt":
		return f < p.num
	}
	return f <= p.num
}

func (p *predicate) testTime(t time.Time) bool {
	n := 0
	switch p.cmp {
	case "minute":
		n = t.Minute()
	case "hour":
		n = t.Hour()
	case "day":
		n = t.Day()
	case "week":
		_, n = t.ISOWeek()
	case "month":
		n = int(t.Month())
	case "year":
		n = t.Year()
	}
	return n == int(p.num)
}

// parseInstant reads the forms of time that logs use most.
func parseInstant(s string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// literals gives texts, one of which must be in (or at the place in) the field for p to be true; nil when there are none. exact says
// that finding one proves p.
func (p *predicate) literals() (lits []*literal, exact bool) {
	switch p.op {
	case opEq, opPrefix, opSuffix, opContains:
		if p.text == "" && p.op != opEq {
			return nil, false
		}
		text := p.text
		if p.cased {
			text = fold(text)
		}
		return []*literal{{p.op, text}}, !p.cased
	case opSet:
		return p.lits, true
	case opGlob:
		if t := p.glob.longestText; t != "" {
			return []*literal{{opContains, fold(t)}}, false
		}
	case opRegex:
		for _, n := range p.guard.need {
			if n == "" {
				return nil, false
			}
			lits = append(lits, &literal{opContains, n})
		}
	}
	return lits, false
}
