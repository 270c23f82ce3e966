package sigma

import (
	"slices"
	"testing"
)

func TestCanMatch(t *testing.T) {
	for _, x := range []struct {
		detection string
		has       []string
		want      bool
		missing   []string
	}{
		{"selection: {a: 1, b: 2}\n  condition: selection", []string{"a", "b"}, true, nil},
		{"selection: {a: 1, b: 2}\n  condition: selection", []string{"a"}, false, []string{"b"}},
		{"selection: [{a: 1}, {b: 2}]\n  condition: selection", []string{"b"}, true, nil},
		{"selection: [{a: 1, c: 1}, {b: 2}]\n  condition: selection", nil, false, []string{"b"}},
		{"s1: {a: 1}\n  s2: {b: 2}\n  condition: 1 of s*", []string{"b"}, true, nil},
		{"s1: {a: 1}\n  s2: {b: 2}\n  condition: all of s*", []string{"b"}, false, []string{"a"}},
		{"s1: {a: 1}\n  f: {b: 2}\n  condition: s1 and not f", []string{"a"}, true, nil},
		{"s1: {a|exists: false, b: 1}\n  condition: s1", []string{"b"}, true, nil},
		{"s1: {a: null}\n  condition: s1", nil, true, nil},
		{"keywords: [x, y]\n  condition: keywords", nil, true, nil},
	} {
		c := &Collection{}
		if errs := c.Parse("r.yml", []byte("title: t\nid: 1\nlogsource: {category: proxy}\ndetection:\n  "+x.detection+"\n")); len(errs) > 0 {
			t.Fatal(errs)
		}
		can, missing := c.Rules[0].CanMatch(func(f string) bool { return slices.Contains(x.has, f) })
		if can != x.want || !slices.Equal(missing, x.missing) {
			t.Errorf("%s with %v: %t %v, want %t %v", x.detection, x.has, can, missing, x.want, x.missing)
		}
	}
}
