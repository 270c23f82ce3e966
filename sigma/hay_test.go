package sigma

import (
	"strings"
	"testing"
)

// TestKeywordsBeyondASCII: lines and memories beyond ASCII are searched as a whole, unless a character in them is ASCII when folded; what lies elsewhere
// than in the memory, and numbers, are searched by themselves.
func TestKeywordsBeyondASCII(t *testing.T) {
	e, names := compileText(t, "title: K\nlogsource: {product: test}\ndetection:\n  keywords: [kiwi legit printer, 'misc::skeleton', '4711']\n  condition: keywords\n")
	if _, err := names.Key("f"); err != nil {
		t.Fatal(err)
	}
	set := e.Set(Source{LogSource: LogSource{Product: "test"}})
	x := set.index.Load()
	if x.keyword == nil || x.hay == nil || !x.numeric {
		t.Fatalf("keywords are not sought as a whole: %+v", x)
	}
	var m Matcher
	var rec Record
	d := &Decoder{Names: names}
	long := strings.Repeat("Zażółć gęślą jaźń. ", 5)
	for _, c := range []struct {
		text string
		want int
	}{
		{"Kiwi Legit Printer", 1}, {"\u212aiwi Legit Printer", 1}, {"K\u0131w\u0130 Legit Printer", 1}, {"mi\u017fc::\u017fkeleton", 1}, {"Müller MISC::Skeleton", 1},
		{"Kiwi Legal Printer", 0}, {"ķiwi legit printer", 0}, {"“kiwi legit” printer", 0},
	} {
		for _, text := range []string{c.text, long + c.text, c.text + long} {
			if err := d.Decode(&rec, []byte(`{"g":"x","f":"`+text+`"}`)); err != nil {
				t.Fatal(err)
			}
			if got := len(m.Match(set, &rec, nil)); got != c.want || len(set.MatchAll(&rec, nil)) != c.want {
				t.Errorf("%q in JSON: %d", text, got)
			}
			memory := "... " + text + " ..."
			for _, value := range []string{memory[4 : 4+len(text)], strings.Clone(text)} { // in it, and elsewhere
				rec.Reset()
				rec.AddString(NoKey, value)
				rec.SetMemory(memory)
				if got := len(m.Match(set, &rec, nil)); got != c.want {
					t.Errorf("%q in memory: %d", text, got)
				}
				rec.SetMemory(strings.Repeat("?", 40))
				if got := len(m.Match(set, &rec, nil)); got != c.want {
					t.Errorf("%q beside the memory: %d", text, got)
				}
				rec.Reset()
				rec.SetRaw(value)
				rec.SetMemory(memory)
				if got := len(m.Match(set, &rec, nil)); got != c.want {
					t.Errorf("%q as the raw text: %d", text, got)
				}
			}
		}
	}
	rec.Reset()
	rec.AddInt(NoKey, 147118)
	rec.SetMemory("nothing here")
	if got := len(m.Match(set, &rec, nil)); got != 1 {
		t.Errorf("a number with a keyword in it: %d", got)
	}
}
