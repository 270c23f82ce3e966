package sigma

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// words makes texts of few letters, so that literals and values meet often.
func words(rng *rand.Rand, n int) string {
	const letters = "abcABC:: \\\\./-1é"
	r := []rune(letters)
	var b strings.Builder
	for range n {
		b.WriteRune(r[rng.IntN(len(r))])
	}
	return b.String()
}

// inMemory gives the record's texts one memory, but for some of them.
func inMemory(r *Record, rng *rand.Rand) {
	r.spread()
	fields := slices.Clone(r.fields)
	size := 0
	for i := range fields {
		fields[i].text = strings.Clone(r.textOf(&fields[i]))
		size += len(fields[i].text) + 1
	}
	memory := make([]byte, 0, size)
	r.Reset()
	for i := range fields {
		text, kind := fields[i].text, fields[i].kind
		if n, err := strconv.Atoi(text); err == nil && rng.IntN(2) == 0 {
			r.AddInt(fields[i].key, int64(n))
		} else if kind == fieldString && rng.IntN(4) > 0 && text != "" {
			from := len(memory)
			memory = append(append(memory, text...), '"')
			r.AddString(fields[i].key, unsafe.String(&memory[from], len(text)))
		} else {
			r.AddString(fields[i].key, text)
		}
	}
	r.SetMemory(unsafe.String(unsafe.SliceData(memory), len(memory)))
}

// TestRandomRules compares the index with the full evaluation for many random rules together, over random events as JSON: before the
// index has learnt, and after.
func TestRandomRules(t *testing.T) {
	learnAtOnce(t)
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 7))
		names := &Names{}
		fields := []string{"f", "g", "h"}
		mods := [][]string{nil, {"contains"}, {"contains"}, {"contains"}, {"startswith"}, {"endswith"}, {"contains", "all"}, {"contains", "cased"}, {"re"}}
		lit := func(mod []string) value {
			n := 1 + rng.IntN(16)
			if seed%2 == 0 {
				n = 7 + rng.IntN(12) // long ones, so that scans take steps
			}
			w := words(rng, n)
			if len(mod) > 0 && mod[0] == "re" {
				w = regexp.QuoteMeta(words(rng, 1+n/4)) + []string{".*", `\s?`, "(a|b)+", "[a-c]{2,}", `\b`}[rng.IntN(5)] + regexp.QuoteMeta(words(rng, 1))
			}
			return value{text: strings.ReplaceAll(w, "*", "")}
		}
		var rules []*Rule
		for i := range 120 {
			mod := mods[rng.IntN(len(mods))]
			var vals []value
			for range 1 + rng.IntN(6) {
				vals = append(vals, lit(mod))
			}
			it := &item{field: fields[rng.IntN(3)], mods: mod, values: vals}
			if rng.IntN(12) == 0 {
				it.field, it.mods = "", nil // keywords
			}
			other := &item{field: fields[rng.IntN(3)], mods: []string{"contains"}, values: []value{lit(nil)}}
			a, b := &expr{name: "a"}, &expr{name: "b"}
			cond := []*expr{a, {op: exprAnd, kids: []*expr{a, {op: exprNot, kids: []*expr{b}}}}, {op: exprOr, kids: []*expr{a, b}}}[rng.IntN(3)]
			rules = append(rules, &Rule{Meta: Meta{Title: "t", ID: fmt.Sprint(i)}, LogSource: LogSource{Product: "p"}, conditions: []*expr{cond}, searches: map[string]*search{"a": {item: it}, "b": {item: other}}})
		}
		e, err := Compile(&Collection{Rules: rules}, Options{Schema: names})
		if err != nil || len(e.Errors) > 0 {
			t.Fatal(err, e.Errors)
		}
		s := e.Set(Source{LogSource: LogSource{Product: "p"}})
		d := &Decoder{Names: names}
		var rec Record
		var m Matcher
		matched := 0
		for i := range 300 {
			ev := map[string]any{"x": words(rng, rng.IntN(9))}
			for _, f := range fields {
				switch rng.IntN(8) {
				case 0:
				case 1:
					ev[f] = rng.IntN(20)
				case 2:
					ev[f] = []string{words(rng, rng.IntN(40)), words(rng, 3)}
				default:
					ev[f] = words(rng, rng.IntN(300))
				}
			}
			if r := rules[rng.IntN(len(rules))]; rng.IntN(2) == 0 { // something that is sought, at any place
				v := r.searches["a"].item
				ev["f"] = words(rng, rng.IntN(50)) + v.values[0].text + words(rng, rng.IntN(50))
			}
			line, err := json.Marshal(ev)
			if err != nil {
				t.Fatal(err)
			}
			if rng.IntN(2) == 0 {
				line = []byte(strings.ToValidUTF8(strings.ReplaceAll(string(line), "é", "e"), "")) // plain ASCII
			}
			if err := d.Decode(&rec, line); err != nil {
				t.Fatal(err)
			}
			if rng.IntN(3) == 0 {
				inMemory(&rec, rng)
			}
			got, want := m.Match(s, &rec, nil), s.MatchAll(&rec, nil)
			if matched += len(want); !same(got, want) {
				t.Fatalf("seed %d, event %d %s: with index %v, without %v", seed, i, line, idsOf(e, got), idsOf(e, want))
			}
		}
		if s.learning.Load() != nil || matched == 0 {
			t.Fatalf("seed %d: still learning, or nothing matched (%d)", seed, matched)
		}
	}
}

// TestAutomaton compares the automaton with the standard library: all upstream expressions, and some that ask for what is beside a place,
// on all upstream values and on pieces of them put together.
func TestAutomaton(t *testing.T) {
	e, names := upstream(t)
	sources := []string{`^a`, `a$`, `(?m)^b$`, `\bab\b`, `\Bb`, `(?i)k`, `(?i)ſ|x`, `a.b`, `(?s)a.b`, `[^a]b`, `^$`, `a{2,5}b{3}`, `é+`, `\x{fffd}`, `(a|ab)(c|bcd)$`, `(?i)^[\w.]+@\w+$`, ``}
	for _, p := range e.preds {
		if p.op == opRegex {
			sources = append(sources, p.text)
		}
	}
	texts := []string{"", "a", "ab", "b\nab\nb", "aab", "K", "ſ", "aabbb", "x\xffy", "é", "\ufffd", "a\nb", "ab ab", "abcd"}
	d := &Decoder{Names: names}
	var rec Record
	for i, l := range readLines(t, filepath.Join(shared(t), "oracle", "otrf_windows.events.jsonl")) {
		if err := d.Decode(&rec, l); err != nil {
			t.Fatal(err)
		}
		rec.spread()
		for j := range rec.fields {
			if text := rec.textOf(&rec.fields[j]); (i+j)%53 == 0 && len(text) < 2000 {
				texts = append(texts, strings.Clone(text), texts[len(texts)/2][:min(20, len(texts[len(texts)/2]))]+text)
			}
		}
	}
	made := 0
	for _, src := range sources {
		re, a := regexp.MustCompile(src), newAutomaton(src)
		if a == nil {
			continue
		}
		made++
		for _, text := range texts {
			got, ok := a.match(text)
			if want := re.MatchString(text); ok && got != want {
				t.Fatalf("%q on %q: %v, want %v", src, text, got, want)
			}
		}
		if len(a.states) > 3*autoStates {
			t.Errorf("%q: %d states", src, len(a.states))
		}
	}
	if made < len(sources)*9/10 {
		t.Errorf("only %d of %d expressions have an automaton", made, len(sources))
	}
	t.Logf("%d expressions, %d texts", made, len(texts))
}

func FuzzAutomaton(f *testing.F) {
	f.Add(`\bab?[^c]{1,3}$|(?i)k`, "xab K\n")
	f.Add(`(?m)^.{2,}\s`, "a\xff \u00e9\n")
	f.Fuzz(func(t *testing.T, src, text string) {
		if len(src) > 60 || len(text) > 300 {
			return
		}
		re, err := regexp.Compile(src)
		if err != nil {
			return
		}
		if a := newAutomaton(src); a != nil {
			for range 2 { // the second time with the states of the first
				if got, ok := a.match(text); ok && got != re.MatchString(text) {
					t.Fatalf("%q on %q: %v", src, text, got)
				}
			}
		}
	})
}

// FuzzContains compares the search by a rare byte with the standard library's.
func FuzzContains(f *testing.F) {
	f.Add("abcabcabdabcabcabcabcabcabcabcabcabcabc", "abd", 2)
	f.Fuzz(func(t *testing.T, s, text string, at int) {
		if text == "" {
			return
		}
		if got := containsAt(s, text, (at%len(text)+len(text))%len(text)); got != strings.Contains(s, text) {
			t.Fatalf("%q in %q: %v", text, s, got)
		}
	})
}
