package packs

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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
		slices.Sort(texts)
		x := NewTexts(slices.Compact(texts)...)
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

// TestManyShortTexts: texts of three bytes make many rows each.
func TestManyShortTexts(t *testing.T) {
	var texts []string
	for i := range 300 {
		texts = append(texts, string([]byte{'a' + byte(i%26), '0' + byte(i/26), 'Z' - byte(i%25)}))
	}
	x := NewTexts(texts...)
	for k, text := range texts {
		for _, msg := range []string{text, "-" + text + "-----", "--" + text, "---------" + text + "-", text + "---------"} {
			found := make([]uint64, (x.Len()+63)/64)
			if x.Find(msg, found); found[k>>6]>>(k&63)&1 == 0 {
				t.Fatalf("%q, number %d, is not found in %q", text, k, msg)
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

// TestFinder compares what the index finds with a trial of every way to recognise a line, over all samples, over lines of which a part was taken
// out, over two joined, and over such as are longer than the walk is.
func TestFinder(t *testing.T) {
	set := Builtin()
	files, err := filepath.Glob("*/*input*")
	if err != nil || len(files) < 100 {
		t.Fatal(len(files), err)
	}
	var lines []string
	for _, file := range files {
		in, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range strings.Split(string(in), "\n") {
			if len(l) < 4096 {
				lines = append(lines, l)
			}
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	var f Finder
	check := func(x *index, msg, data string) {
		line := Line{Message: msg, Data: data}
		f.Seek(x, msg, data)
		for i, code := range Code {
			if x == set.inside && f.Code()>>i&1 == 0 && strings.Contains(msg, code) {
				t.Fatalf("%q is not seen in %q", code, msg)
			}
		}
		for _, want := range x.refs {
			if !want.Fits(&line) {
				continue
			}
			if len(msg) > maxScan { // it counts when the longest of its texts stands in what is walked over
				texts, long := want.contains, ""
				if want.isJSON {
					texts = want.json
				}
				for _, c := range texts {
					if len(c) > len(long) {
						long = c
					}
				}
				if !strings.Contains(msg[:maxScan], long) && !strings.Contains(data, long) {
					continue
				}
			}
			if got := f.Next(&line); got != want {
				t.Fatalf("found %+v, want %+v\n in %q and %q", got, want, msg, data)
			}
		}
		if got := f.Next(&line); got != nil {
			t.Fatalf("found %+v beyond all that fit in %q and %q", got, msg, data)
		}
	}
	for n, l := range lines {
		if testing.Short() && n%8 != 0 {
			continue
		}
		x := set.inside
		if strings.Contains(l, "{") {
			x = set.json
		}
		other := lines[r.IntN(len(lines))]
		a, b := r.IntN(len(l)+1), r.IntN(len(l)+1)
		check(x, l, "")
		check(set.inside, l[min(a, b):], other)
		check(x, l[:min(a, b)]+l[max(a, b):], "")
		check(set.inside, l[:a]+other, "")
		if n%64 == 0 {
			check(x, l+strings.Repeat(" ", maxScan-r.IntN(300))+other, "")
		}
	}
}
