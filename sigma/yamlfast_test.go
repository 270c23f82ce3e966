package sigma

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// sameNodes says where two trees differ, "" if they do not.
func sameNodes(a, b *yaml.Node) string {
	if a.Kind != b.Kind || a.Tag != b.Tag || a.Value != b.Value || a.Line != b.Line || len(a.Content) != len(b.Content) {
		return strings.Join([]string{a.Tag, a.Value, "|", b.Tag, b.Value}, " ")
	}
	for i := range a.Content {
		if d := sameNodes(a.Content[i], b.Content[i]); d != "" {
			return d
		}
	}
	return ""
}

// compareYAML compares the fast reader with the library and says whether the fast one knew the text.
func compareYAML(t *testing.T, text string) bool {
	t.Helper()
	docs, _, ok := fastDocuments(text)
	if !ok {
		return false
	}
	dec := yaml.NewDecoder(strings.NewReader(text))
	for i := 0; ; i++ {
		var n yaml.Node
		err := decodeNode(dec, &n)
		if errors.Is(err, errEOF) {
			if i != len(docs) {
				t.Fatalf("%q: %d documents, the library has %d", text, len(docs), i)
			}
			return true
		}
		if err != nil {
			t.Fatalf("%q was taken, the library says %v", text, err)
		}
		if i >= len(docs) {
			t.Fatalf("%q: %d documents, the library has more", text, len(docs))
		}
		if d := sameNodes(docs[i], n.Content[0]); d != "" {
			t.Fatalf("%q: %s", text, d)
		}
	}
}

// TestFastYAML: the fast reader gives what the library gives on every upstream rule, and knows nearly all of them.
func TestFastYAML(t *testing.T) {
	files, known := 0, 0
	err := filepath.WalkDir(filepath.Join(shared(t), "rules"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yml") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if compareYAML(t, string(b)) {
			known++
		} else if os.Getenv("TOCSIN_SIGMA_SLOW") != "" {
			t.Log(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d", known, files)
	if known < files*9/10 {
		t.Errorf("only %d of %d files are in the part of YAML that is read fast", known, files)
	}
}

func FuzzFastYAML(f *testing.F) {
	for _, s := range []string{baseRule, "a: |\n  x\n   y\n\n  z\nb:\n- 'it''s'\n- c: 010\n  d: 2024-01-02\n  e:\n    - f\n", "'|all': \"x\" # c\nb:\n  c: ~\n---\nd:\ne: -1\n", "a: b\n  c\n", "a: [1]\n", "a : b#c\n", "a: [x, 'b c', 3, \"q\\\"\"] # c\nb: {c: [d], e: {f: g h}, 'i': 0x1}\n- x\n", "a: {}\nb: [ ]\nc: [a:b, -1]\n", "k:\n  - a\n  -  b: 1\n     c: d\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { compareYAML(t, s) })
}

// TestRuleTextIsUTF8: bytes that are no characters are refused when a rule is read, so that no pattern can be half a character.
func TestRuleTextIsUTF8(t *testing.T) {
	for _, value := range []string{"\x80", "'a\x80b'", "\"\xc3\"", "[\"\xff\"]"} {
		var c Collection
		errs := c.Parse("rule.yml", []byte("title: t\nid: 00000000-0000-0000-0000-000000000001\nlogsource: {product: p}\ndetection:\n  s:\n    f|contains: "+value+"\n  condition: s\n"))
		if len(errs) != 1 || len(c.Rules) != 0 {
			t.Errorf("%q: %v, %d rules", value, errs, len(c.Rules))
		}
	}
}

// TestNodesAreCopied: what a rule keeps of its document stays as it is when the next is read, though nodes are used again.
func TestNodesAreCopied(t *testing.T) {
	rule := func(id, owner string) string {
		return "title: t\nid: " + id + "\nowner: " + owner + "\nlinks:\n  first: [" + owner + "]\nlogsource: {category: x}\ndetection:\n  s:\n    f: 1\n  condition: s\n"
	}
	var c Collection
	for i, owner := range []string{"ann", "bob", "eve"} {
		if errs := c.Parse(owner, []byte(rule(strings.Repeat(string(rune('a'+i)), 8)+"-0000-4000-8000-000000000000", owner))); len(errs) > 0 {
			t.Fatal(errs[0])
		}
	}
	for i, owner := range []string{"ann", "bob", "eve"} {
		custom := c.Rules[i].custom
		if custom["owner"].Value != owner || custom["links"].Content[1].Content[0].Value != owner {
			t.Errorf("rule %d: %q, %q, want %q", i, custom["owner"].Value, custom["links"].Content[1].Content[0].Value, owner)
		}
	}
}

// TestPlainValues: values that are taken without working their pattern out are what that gives, in all upstream rules and for odd ones.
func TestPlainValues(t *testing.T) {
	plain := 0
	check := func(it *item, mods []string, v value) {
		base := draft{predicate: predicate{keyword: it.field == ""}}
		op, ok := plainOp(v, mods, base.keyword)
		if !ok {
			return
		}
		plain++
		want, err := draftPattern(it, mods, v, base, nil)
		if err != nil || len(want) != 1 || want[0].op != op || want[0].text != fold(v.text) || want[0].glob != nil {
			t.Errorf("%q, %q %q: %d; the pattern gives %v, %v", it.field, mods, v.text, op, want, err)
		}
	}
	var walk func(s *search)
	walk = func(s *search) {
		if s.item != nil {
			for _, v := range s.item.values {
				check(s.item, slices.DeleteFunc(slices.Clone(s.item.mods), func(m string) bool { return m == "all" || m == "neq" }), v)
			}
		}
		for _, k := range s.kids {
			walk(k)
		}
	}
	var errs []*Error
	for _, r := range loadDir(t, filepath.Join(shared(t), "rules"), &errs).Rules {
		for _, s := range r.searches {
			walk(s)
		}
	}
	for _, text := range []string{"", "a", `\`, `a\`, `\\`, `\a`, `a\*`, "*", "a?b", "É", "\xff", "%a%", " "} {
		for _, field := range []string{"f", ""} {
			for _, mods := range [][]string{nil, {"contains"}, {"startswith"}, {"endswith"}} {
				check(&item{field: field}, mods, value{kind: valueString, text: text})
			}
		}
	}
	if plain < 30_000 {
		t.Errorf("only %d values are plain", plain)
	}
}
