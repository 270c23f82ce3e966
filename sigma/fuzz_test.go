package sigma

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
	"unsafe"
)

// FuzzParse: whatever the bytes, parsing and compiling end, every error has a reason, and what compiled can be evaluated.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		baseRule,
		"title: x\nlogsource: {category: c}\ndetection:\n  a|b: c\n  condition: 1 of them\n",
		"title: x\nlogsource: {category: c}\ndetection:\n  s:\n    - f|contains|all: [a, '*b?', \"\"]\n    - k\n    - g|re: '(a|b){1,3}'\n  _t: {f: null}\n  condition: not (s or all of _*) and s\n",
		"title: x\nlogsource: {category: c}\ndetection:\n  s: {f|windash|contains: ' -a -b', g|base64offset|contains: x, h|cidr: 10.0.0.0/8, i|gte: 3, j|exists: no, k|fieldref: f, l|expand: '%a%'}\n  condition: s\n",
		"a: &a [x, x]\nb: &b [*a, *a]\ntitle: t\nlogsource: {product: p}\ndetection: {s: *b, condition: s}\n",
		"action: global\ntitle: t\nlogsource: {product: p}\n---\ndetection: {s: {a: 1}, condition: s}\n---\n",
		counting("value_count", "field: port, gte: 4", ""),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := &Collection{}
		for _, err := range c.Parse("f.yml", []byte(text)) {
			if err.Reason == "" {
				t.Fatal("an error without a reason")
			}
		}
		names := &Names{}
		e, err := Compile(c, Options{Schema: names})
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Rules)+len(e.Correlations)+len(e.Errors) < len(c.Rules)+len(c.Correlations) {
			t.Fatal("a rule was lost in silence")
		}
		var rec Record
		rec.AddString(NoKey, "some value")
		var m Matcher
		for _, r := range e.Rules {
			s := e.Set(Source{LogSource: r.LogSource})
			if a, b := m.Match(s, &rec, nil), s.MatchAll(&rec, nil); !same(a, b) {
				t.Fatalf("with index %v, without %v", a, b)
			}
		}
	})
}

func same(a, b []int32) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// FuzzMatch compares the index with the full evaluation for a rule that is made of the input, and both with regular expressions made
// from the same pattern by other code.
func FuzzMatch(f *testing.F) {
	f.Add("contains", `\cmd.exe`, `C:\Windows\CMD.EXE /c`)
	f.Add("", `a*b?c\*`, "aXXbéc*")
	f.Add("endswith", "ſſſſſ", "SSSSS")
	f.Add("startswith|windash", "-a /b", "–a ―b")
	f.Add("contains", "K\x00\xff", "k\x00\xff")
	f.Add("re|i", "(set).*&&\\s?(a|bc)", "SET x && bc")
	f.Add("contains|cased", "Ab", "ab Ab")
	f.Add("contains", "\x80", "\u0380\x82")
	f.Fuzz(func(t *testing.T, mods, given, text string) {
		if len(given) > 200 || len(text) > 2000 {
			return
		}
		it := &item{field: "f", values: []value{{text: given}}}
		if mods != "" {
			it.mods = strings.Split(mods, "|")
		}
		keyword := &item{mods: it.mods, values: it.values}
		many := &item{field: "f", mods: it.mods, values: []value{{text: given}, {text: given + "x"}, {text: "y" + given}, {text: "zz"}, {text: "longer literal"}}}
		name := &expr{name: "s"}
		var rules []*Rule
		for i, x := range []*item{it, keyword, many} {
			r := &Rule{Meta: Meta{Title: "t", ID: fmt.Sprint(i)}, LogSource: LogSource{Product: "p"}, conditions: []*expr{name}, searches: map[string]*search{"s": {item: x}}}
			rules = append(rules, r, &Rule{Meta: Meta{Title: "t", ID: fmt.Sprint(i + 10)}, LogSource: r.LogSource, searches: r.searches, conditions: []*expr{{op: exprNot, kids: []*expr{name}}}})
		}
		names := &Names{}
		e, err := Compile(&Collection{Rules: rules}, Options{Schema: names})
		if err != nil {
			t.Fatal(err)
		}
		var rec Record
		rec.AddString(names.Lookup("f"), text)
		rec.AddString(NoKey, "beside")
		s := e.Set(Source{LogSource: LogSource{Product: "p"}})
		var m Matcher
		got, all := m.Match(s, &rec, nil), s.MatchAll(&rec, nil)
		if !same(got, all) {
			t.Fatalf("%q %q on %q: with index %v, without %v", mods, given, text, got, all)
		}
		// Half a character cannot stand in a rule (TestRuleTextIsUTF8); the engine would find it inside of whole ones.
		if utf8.ValidString(given) && (mods == "" || mods == "contains" || mods == "startswith" || mods == "endswith") {
			if want := naive(mods, given, text); len(e.Errors) == 0 && slices.Contains(idsOf(e, got), "0") != want {
				t.Fatalf("%q %q on %q: %v, want %v", mods, given, text, !want, want)
			}
		}
	})
}

// FuzzRules compares the index with the full evaluation for rules and an event that are both made of the input: detections with several
// fields, conditions and lists, before and after the index has learnt.
func FuzzRules(f *testing.F) {
	f.Add("a: {f|contains: [abc, 'd*e', fgh, ijk, lmno]}\nb: {g|endswith: xyz, h: 1}\ncondition: a and not b", `{"f":"xABCx","g":"wxyz","h":1}`)
	f.Add("a: [word, 'two words', {f|re: '(a|b)c+'}]\nb: {f|startswith|cased: Ab}\ncondition: 1 of them", `{"f":"Abccc","x":{"y":["Two Words"]}}`)
	f.Add("a: {f|windash|contains|all: [' -a', ' -b']}\nb: {f: null}\nc: {g|cidr: 10.0.0.0/8}\ncondition: (a or b) and not c", `{"f":"x /a ―b","g":"10.1.1.1"}`)
	f.Add("a: {'|all': [one, 'two']}\nb: {f|fieldref: g}\nc: {h|gte: 3, f|exists: true}\ncondition: a or all of b* or c", `{"f":"one two","g":"ONE TWO","h":"3.0"}`)
	f.Fuzz(func(t *testing.T, detection, event string) {
		if len(detection) > 2000 || len(event) > 4000 {
			return
		}
		var text strings.Builder
		for i := range 3 { // several rules, of which one has a condition of its own
			fmt.Fprintf(&text, "title: t\nid: r%d\nlogsource: {product: p}\ndetection:\n  %s\n---\n", i, strings.ReplaceAll(detection, "\n", "\n  "))
		}
		text.WriteString("title: t\nid: other\nlogsource: {product: p}\ndetection: {s: {f|contains: [abc, longerliteral]}, condition: not s}\n")
		c := &Collection{}
		c.Parse("f.yml", []byte(text.String()))
		names := &Names{}
		e, err := Compile(c, Options{Schema: names})
		if err != nil {
			t.Fatal(err)
		}
		var rec Record
		d := &Decoder{Names: names}
		set := e.Set(Source{LogSource: LogSource{Product: "p"}})
		var m Matcher
		for range 3 { // the second and third time with what was remembered
			if d.Decode(&rec, []byte(event)) != nil {
				return
			}
			if a, b := m.Match(set, &rec, nil), set.MatchAll(&rec, nil); !same(a, b) {
				t.Fatalf("%s on %s: with index %v, without %v", detection, event, idsOf(e, a), idsOf(e, b))
			}
		}
	})
}

func idsOf(e *Engine, list []int32) []string {
	out := []string{}
	for _, i := range list {
		out = append(out, e.Rules[i].ID)
	}
	slices.Sort(out)
	return out
}

// naive matches a Sigma string by plain recursion over characters: slow, and obviously right.
func naive(mods, value, text string) bool {
	type tok struct {
		lit  string
		wild byte
	}
	var toks []tok
	for i := 0; i < len(value); i++ {
		switch {
		case value[i] == '\\' && i+1 < len(value) && strings.IndexByte(`*?\`, value[i+1]) >= 0:
			i++
			toks = append(toks, tok{lit: value[i : i+1]})
		case value[i] == '*' || value[i] == '?':
			toks = append(toks, tok{wild: value[i]})
		default:
			toks = append(toks, tok{lit: value[i : i+1]})
		}
	}
	// Join literal bytes, then split them into characters, as text is.
	var pat []tok
	for i := 0; i < len(toks); {
		if toks[i].wild != 0 {
			pat = append(pat, toks[i])
			i++
			continue
		}
		lit := ""
		for i < len(toks) && toks[i].wild == 0 {
			lit += toks[i].lit
			i++
		}
		for _, c := range characters(lit) {
			pat = append(pat, tok{lit: c})
		}
	}
	star := tok{wild: '*'}
	if mods == "contains" || mods == "endswith" {
		pat = append([]tok{star}, pat...)
	}
	if mods == "contains" || mods == "startswith" {
		pat = append(pat, star)
	}
	str := characters(text)
	// dp[j]: the pattern so far matches the first j characters.
	dp := make([]bool, len(str)+1)
	dp[0] = true
	for _, p := range pat {
		next := make([]bool, len(str)+1)
		for j := range next {
			switch {
			case p.wild == '*':
				next[j] = dp[j] || j > 0 && next[j-1]
			case j == 0:
			case p.wild == '?':
				next[j] = dp[j-1]
			default:
				next[j] = dp[j-1] && p.lit == str[j-1]
			}
		}
		dp = next
	}
	return dp[len(str)]
}

// characters splits s and folds each; a byte that is not UTF-8 is a character.
func characters(s string) []string {
	var out []string
	for i, r := range s {
		if r == unicode.ReplacementChar && !strings.HasPrefix(s[i:], "�") {
			out = append(out, s[i:i+1])
			continue
		}
		out = append(out, fold(string(r)))
	}
	return out
}

// FuzzDecode compares the decoder with encoding/json: both take or both refuse, and flat values are the same.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":"b\u00e9\ud83d\ude00\ud800x","n":-1.5e3,"t":true,"z":null,"l":[1,["x"],{"k":"v"}],"o":{"p":{"q":1}},"o.p.q":"lit"}`, `{"a":1}x`, "{\"a\":\"\x01\"}", `{"a":01}`, `[1]`, `{"a":"b"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		names := &Names{}
		var want map[string]any
		dec := json.NewDecoder(strings.NewReader(line))
		dec.UseNumber()
		ok := json.Valid([]byte(line)) && strings.HasPrefix(strings.TrimLeft(line, " \t\r\n"), "{")
		if ok {
			if err := dec.Decode(&want); err != nil {
				ok = false
			}
		}
		for k := range want {
			if _, err := names.Key(k); err != nil {
				t.Skip()
			}
		}
		var rec Record
		d := &Decoder{Names: names}
		err := d.Decode(&rec, []byte(line))
		first := decoded(&rec, err)
		if err = d.Decode(&rec, []byte(line)); decoded(&rec, err) != first { // now it knows the names
			t.Fatalf("%q: at first %s, then %s", line, first, decoded(&rec, err))
		}
		if err == nil && !ok {
			t.Fatalf("%q was taken, encoding/json refuses it", line)
		}
		if err != nil {
			if ok && !strings.Contains(err.Error(), "nested") {
				t.Fatalf("%q: %v, encoding/json takes it", line, err)
			}
			return
		}
		if strings.ContainsRune(line, unicode.ReplacementChar) || strings.ToValidUTF8(line, "") != line || strings.Contains(line, `\u`) {
			return // they differ in what they make of text that is not Unicode
		}
		for k, v := range want {
			s, isText := v.(string)
			if !isText || strings.Count(line, `"`+k+`"`) != 1 {
				continue
			}
			if got, ok := rec.Text(names.Lookup(k)); !ok || got != s {
				t.Fatalf("%q: field %q is %q (%v), want %q", line, k, got, ok, s)
			}
		}
	})
}

// TestFold: characters that Go's case-insensitive regular expressions take for equal fold to the same one; otherwise the literals that
// guard an expression would hide matches.
func TestFold(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if f := unicode.SimpleFold(r); foldRune(f) != foldRune(r) {
			t.Errorf("%U and %U are equal without case but fold to %U and %U", r, f, foldRune(r), foldRune(f))
		}
	}
	for r := rune(0x80); r <= unicode.MaxRune; r++ {
		if foldRune(r) < 0x80 && !foldsToASCII("x"+string(r)) {
			t.Errorf("%U folds to ASCII", r)
		}
	}
	for _, s := range []string{"", "ABC", "abcdefgH", "ÄÖÜ straße ẞ", "ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`{@", "x\xffY\xc3"} {
		slow := foldSlow(nil, s)
		if fold(s) != string(slow) {
			t.Errorf("fold(%q) = %q, want %q", s, fold(s), slow)
		}
	}
}

// TestDifferential runs all upstream rules over all events, and over events with fields exchanged, with and without the index.
func TestDifferential(t *testing.T) {
	e, names := upstream(t)
	router, err := NewRouter(e)
	if err != nil {
		t.Fatal(err)
	}
	lines := readLines(t, filepath.Join(shared(t), "oracle", "otrf_windows.events.jsonl"))
	files, _ := filepath.Glob(filepath.Join(shared(t), "events", "*.jsonl"))
	for _, f := range files {
		lines = append(lines, readLines(t, f)...)
	}
	linux := e.Set(Source{LogSource: LogSource{Product: "linux", Category: "process_creation"}}, Source{LogSource: LogSource{Category: "proxy"}}, Source{LogSource: LogSource{Category: "webserver"}})
	d := &Decoder{Names: names}
	var rec Record
	var m Matcher
	for i, l := range lines {
		for shift := range Key(3) {
			if err := d.Decode(&rec, l); err != nil {
				t.Fatal(err)
			}
			set := router.Route(&rec)
			if shift > 0 { // the same values under other names
				rec.spread()
				fields := slices.Clone(rec.fields)
				for j := range fields {
					fields[j].text = strings.Clone(rec.textOf(&fields[j]))
				}
				rec.Reset()
				memory := make([]byte, 0, 2*len(l)+len(fields))
				for j, f := range fields {
					if f.kind == fieldString {
						text := f.text
						if shift == 2 && (i+j)%5 > 0 { // most of them side by side
							from := len(memory)
							memory = append(append(memory, text...), '\n')
							text = unsafe.String(&memory[from], len(text))
						}
						rec.AddString(fields[(j+int(shift))%len(fields)].key, text)
					}
				}
				rec.SetMemory(unsafe.String(unsafe.SliceData(memory), len(memory)))
			}
			for _, s := range []*Set{set, linux} {
				if s == linux && i%4 != 0 {
					continue
				}
				if a, b := m.Match(s, &rec, nil), s.MatchAll(&rec, nil); !same(a, b) {
					t.Fatalf("event %d, shift %d: with index %v, without %v", i, shift, idsOf(e, a), idsOf(e, b))
				}
			}
		}
	}
}

// TestLowUnescaped compares what is read from a JSON string in lower case with what two steps give.
func TestLowUnescaped(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	pieces := []string{"Severity = Informational ", "@[`{AZaz", `\\`, `\r\n`, `\"`, `\/`, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz012345678", "é", `\u0041`, "X"}
	taken := 0
	for n := range 20_000 {
		var b strings.Builder
		few := len(pieces) - 2*(n%2)*rng.IntN(2) // mostly plain ASCII
		for range rng.IntN(30) {
			p := pieces[rng.IntN(few)]
			if few == len(pieces) && rng.IntN(8) > 0 && p[0] >= 0x80 {
				p = "x"
			}
			b.WriteString(p)
		}
		s := b.String()
		dst := make([]byte, 0, len(s)+8)
		k, ok := lowUnescaped(dst, s)
		if !ok {
			if !strings.Contains(s, "é") && !strings.Contains(s, `\u`) {
				t.Fatalf("%q was not taken", s)
			}
			continue
		}
		taken++
		if want := fold(string(appendUnescaped(nil, s))); string(dst[:k]) != want {
			t.Fatalf("%q: %q, want %q", s, dst[:k], want)
		}
	}
	if taken < 1000 {
		t.Errorf("only %d taken", taken)
	}
}

// TestPairs compares the search for pairs of bytes with each place looked at.
func TestPairs(t *testing.T) {
	if !hasAVX2 {
		t.Skip("NOT TESTED: the processor has no AVX2")
	}
	rng := rand.New(rand.NewPCG(4, 2))
	for range 5000 {
		blocks := 1 + rng.IntN(4)
		b := make([]byte, 32*blocks+1)
		for i := range b {
			b[i] = "abAB@`{}\x00\xff"[rng.IntN(10)]
		}
		var pairs [8]byte
		for i := range pairs {
			pairs[i] = "abcdefgh`{"[rng.IntN(10)] | 0x20
		}
		want := blocks
		for i := len(b) - 2; i >= 0; i-- {
			for k := 0; k < 8; k += 2 {
				if b[i]|0x20 == pairs[k] && b[i+1]|0x20 == pairs[k+1] {
					want = i / 32
				}
			}
		}
		if got := findPairs(&b[0], blocks, &pairs); got != want {
			t.Fatalf("%q, pairs %q: block %d, want %d", b, pairs, got, want)
		}
	}
}

// TestEightPairs compares the search for eight pairs at once with each place looked at.
func TestEightPairs(t *testing.T) {
	if !hasAVX512 {
		t.Skip("NOT TESTED: the processor has no AVX-512")
	}
	rng := rand.New(rand.NewPCG(4, 3))
	for range 5000 {
		blocks := 1 + rng.IntN(3)
		b := make([]byte, 64*blocks+1)
		for i := range b {
			b[i] = "abAB@`{}\x00\xffqrstuvwxyz0123456789"[rng.IntN(30)]
		}
		pairs := make([]byte, 2+2*rng.IntN(8))
		for i := range pairs {
			pairs[i] = "abcdefgh`{\xff09"[rng.IntN(13)] | 0x20
		}
		want, places := blocks, uint64(0)
		for i := len(b) - 2; i >= 0; i-- {
			for k := 0; k < len(pairs); k += 2 {
				if b[i]|0x20 == pairs[k] && b[i+1]|0x20 == pairs[k+1] {
					if want != i/64 {
						want, places = i/64, 0
					}
					places |= 1 << (i % 64)
				}
			}
		}
		nibbles := nibblesOf(pairs)
		if got, hits := eightAVX512(&b[0], blocks, &nibbles); got != want || hits != places {
			t.Fatalf("%q, pairs %q: block %d, %x, want %d, %x", b, pairs, got, hits, want, places)
		}
	}
}

// TestMasks compares what the wide registers find in blocks with what the portable code does, and both with each byte looked at.
func TestMasks(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const alphabet = "\"\\\x00\x1f\x20\x21#[]\x7f\x80\xffaZ"
	for n := range 5000 {
		b := make([]byte, 64*(1+n%3))
		for i := range b {
			if n%2 == 0 {
				b[i] = byte(rng.Uint32())
			} else {
				b[i] = alphabet[rng.IntN(len(alphabet))] & byte(0xff>>(n>>1&1))
			}
		}
		blocks := len(b) / 64
		got, generic := make([]blockMasks, blocks), make([]blockMasks, blocks)
		high, high2 := masks(&b[0], blocks, &got[0]), masksGeneric(&b[0], blocks, &generic[0])
		if narrow := make([]blockMasks, blocks); hasAVX2 && ((masksNarrow(&b[0], blocks, &narrow[0])) != high || !slices.Equal(narrow, got)) {
			t.Fatalf("%q: %x in registers of 32 bytes, %x in those of 64", b, narrow, got)
		}
		want, high3 := make([]blockMasks, blocks), false
		for i, c := range b {
			m, bit := &want[i/64], uint64(1)<<(i%64)
			switch {
			case c == '"':
				m.quotes |= bit
			case c == '\\':
				m.backslashes |= bit
			case c < 0x20:
				m.controls |= bit
			}
			high3 = high3 || c >= 0x80
		}
		if !slices.Equal(got, want) || !slices.Equal(generic, want) || high != high3 || high2 != high3 {
			t.Fatalf("%q: %x and %x, want %x; %v and %v, want %v", b, got, generic, want, high, high2, high3)
		}
	}
}

// decoded writes down what Decode gave. Values that no rule asks for stand behind the others, in the order of the line or not.
func decoded(r *Record, err error) string {
	if err != nil {
		return err.Error()
	}
	plain := r.plain
	r.spread()
	var list []string
	for i := range r.fields {
		f := &r.fields[i]
		list = append(list, fmt.Sprintf("%d %v %q", f.key, f.kind == fieldNull, r.textOf(f)))
		if f.next >= 0 {
			list = append(list, fmt.Sprintf("%d: %q comes before %q", f.key, f.text, r.textOf(&r.fields[f.next])))
		}
	}
	slices.Sort(list)
	return fmt.Sprint(plain, list)
}

// TestDecodeKnown compares a decoder that has met many kinds of events with one that has met none, over events and over events in which
// something was changed.
func TestDecodeKnown(t *testing.T) {
	names := &Names{}
	for _, name := range []string{"EventID", "Channel", "Image", "CommandLine", "Task", "Hashes", "Keywords", "a.b"} {
		if _, err := names.Key(name); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(3, 9))
	pieces := []string{`"`, `\\`, `\`, ",", ":", "}", "{", " ", "01", "-", "1.5", "null", `"a":{"b":[1,"x"]},`, `"a.b":"é",`, `"Image": "again", `, "[", "\n"}
	lines := readLines(t, filepath.Join(shared(t), "oracle", "otrf_windows.events.jsonl"))
	known := &Decoder{Names: names}
	var a, b Record
	good := 0
	for i, l := range lines {
		for round := range 3 {
			line := slices.Clone(l)
			for range round * rng.IntN(3) {
				at := rng.IntN(min(len(line), 2000))
				p := pieces[rng.IntN(len(pieces))]
				if rng.IntN(2) == 0 {
					line = slices.Insert(line, at, []byte(p)...)
				} else {
					line = append(line[:at], line[min(at+rng.IntN(4), len(line)):]...)
				}
			}
			if i%3 == 0 && round < 2 {
				line = []byte(strings.ReplaceAll(strings.ReplaceAll(string(line), `": `, `":`), `, "`, `,"`))
			}
			errA, errB := known.Decode(&a, line), (&Decoder{Names: names}).Decode(&b, line)
			if errA == nil {
				good++
			}
			if x, y := decoded(&a, errA), decoded(&b, errB); x != y {
				t.Fatalf("%s\nis %s\nwithout knowledge %s", line, x, y)
			}
		}
	}
	if good < 1000 {
		t.Errorf("only %d lines were taken", good)
	}
}

// TestQuotes compares the index of a line by the widest registers with that by blocks: lines of pieces that meet at every place of a block.
func TestQuotes(t *testing.T) {
	if !hasQuotes {
		t.Skip("NOT TESTED: the processor has no AVX-512 VBMI2")
	}
	rng := rand.New(rand.NewPCG(5, 12))
	pieces := []string{`"`, `\"`, `\\`, `\`, `\n\r\t`, `""""""""""""""""""""`, "name", strings.Repeat("long text ", 9), `\\\`, `{"a": "b"}`, "é", "K", `\/`, `\u0041`, `\x`, "\n", strings.Repeat(`\\`, 40), strings.Repeat("x", 4000)}
	taken := 0
	for n := range 6000 {
		var b strings.Builder
		few := len(pieces) - (n % 2 * 7)
		for range rng.IntN(40) {
			p := pieces[rng.IntN(few)]
			if len(p) > 1000 && rng.IntN(9) > 0 {
				continue
			}
			b.WriteString(p[:1+rng.IntN(len(p))])
		}
		if (&Decoder{data: b.String()}).indexBlocks() == "a string is not closed" {
			b.WriteByte('"')
		}
		wide, blocks := &Decoder{data: b.String()}, &Decoder{data: b.String()}
		ok, reason := wide.indexWide(), blocks.indexBlocks()
		if !ok {
			if s := b.String(); reason == "" && !strings.Contains(s, `\u`) && !strings.Contains(s, `\/`) && !strings.Contains(s, "\n") {
				t.Fatalf("%q was not taken", b.String())
			}
			continue
		}
		taken++
		if reason != "" || !slices.Equal(wide.quotes, blocks.quotes) || wide.plain != blocks.plain {
			t.Fatalf("%q: %v, %v; by blocks %v, %v %q", b.String(), wide.quotes, wide.plain, blocks.quotes, blocks.plain, reason)
		}
	}
	if taken < 1000 {
		t.Errorf("only %d taken", taken)
	}
}

// TestGrams compares the scan by the widest registers with every place looked at.
func TestGrams(t *testing.T) {
	if !hasAVX512 {
		t.Skip("NOT TESTED: the processor has no AVX-512")
	}
	rng := rand.New(rand.NewPCG(6, 1))
	for n := range 4000 {
		step := 1 << rng.IntN(4)
		l := newLitSet()
		for range 1 + rng.IntN(30) {
			l.add(&literal{opContains, words(rng, step+3+rng.IntN(9))}, 0)
		}
		l.step = step
		var inner []gramEntry
		for i := range l.lits {
			inner = appendGrams(inner, l.lits[i].text, int32(i), step, nil)
		}
		l.inner = fillGrams(inner)
		l.bitmap, l.shift = gramBitmap(inner)
		s := words(rng, 70+rng.IntN(300))
		for len(s) < 67 {
			s += "a"
		}
		for range n % 3 {
			at := rng.IntN(len(s))
			s = s[:at] + l.lits[rng.IntN(len(l.lits))].text + s[at:]
		}
		got, upto := l.collectWide(s, nil, false)
		var want []int32
		for i := 0; i < upto; i += step {
			want = l.verify(s, i, want)
		}
		slices.Sort(got)
		slices.Sort(want)
		if upto != (len(s)-3)/64*64 || !slices.Equal(got, want) {
			t.Fatalf("%q in steps of %d up to %d: %v, want %v", s, step, upto, got, want)
		}
	}
}
