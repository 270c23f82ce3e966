package packs

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestTexts compares the walk with a search for each text, over messages in which texts begin at odd and even places and end at the very end.
func TestTexts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	letters := func(n int, begin string) string {
		b := []byte(begin)
		for len(b) < n {
			b = append(b, "abc="[r.IntN(4)])
		}
		return string(b)
	}
	for range 3000 {
		begin := ""
		if r.IntN(3) == 0 {
			begin = `"`
		}
		var texts []string
		for range 1 + r.IntN(20) {
			texts = append(texts, letters(minText+r.IntN(5), begin))
		}
		x := NewTexts(texts...)
		msg := letters(r.IntN(60), "")
		if r.IntN(2) == 0 {
			msg += texts[r.IntN(len(texts))]
		}
		if begin != "" {
			msg = strings.ReplaceAll(msg, "a", begin)
		}
		found := make([]uint64, (x.Len()+63)/64)
		x.Find(msg, found)
		for k, text := range x.list {
			if got, want := found[k>>6]>>(k&63)&1 == 1, strings.Contains(msg, text); got != want {
				t.Fatalf("%q in %q: %v, want %v; all texts %q", text, msg, got, want, texts)
			}
		}
	}
}

// TestByStart: for every two bytes the list has all ways that may fit, in the order in which they are to be tried.
func TestByStart(t *testing.T) {
	set := Builtin()
	byFirst := map[byte][]*Ref{} // in that order
	for a := range 256 {
		seen := map[*Ref]bool{}
		for b := range 256 {
			for _, f := range set.ByStart(byte(a), byte(b)) {
				if !seen[f] {
					seen[f] = true
					byFirst[byte(a)] = append(byFirst[byte(a)], f)
				}
			}
		}
		for b := range 256 {
			list := set.ByStart(byte(a), byte(b))
			n := 0
			for f := range seen {
				if len(f.starts) == 1 || f.starts[1] == byte(b) {
					n++
				}
			}
			if n != len(list) {
				t.Fatalf("%c%c: %d ways, want %d", a, b, len(list), n)
			}
			for i := 1; i < len(list); i++ {
				if list[i].priority > list[i-1].priority {
					t.Fatalf("%c%c: %s is tried before %s", a, b, list[i-1].Pack.Name, list[i].Pack.Name)
				}
			}
		}
	}
	if len(byFirst['d']) == 0 {
		t.Error("nothing begins with d")
	}
}
