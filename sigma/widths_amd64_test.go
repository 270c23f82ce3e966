package sigma

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
)

// narrower runs f as on processors that lack what this one has: without the widest registers' compression (hasQuotes), without them at all, and
// without any. What this processor lacks itself was run without everywhere.
func narrower(t *testing.T, f func(t *testing.T)) {
	avx2, avx512, quotes := hasAVX2, hasAVX512, hasQuotes
	defer func() { hasAVX2, hasAVX512, hasQuotes = avx2, avx512, quotes }()
	for _, w := range []struct {
		name string
		has  *bool
	}{{"no VBMI2", &hasQuotes}, {"no AVX-512", &hasAVX512}, {"no AVX2", &hasAVX2}} {
		if !*w.has {
			t.Logf("%s: it is so on this processor", w.name)
			continue
		}
		*w.has = false
		t.Run(w.name, f)
	}
}

// TestNarrowerProcessors compares what lesser processors decode and match with what this one does: all events, and events in which something was changed. What
// this one finds, other tests compare with every rule evaluated.
func TestNarrowerProcessors(t *testing.T) {
	e, names := upstream(t)
	lines := readLines(t, filepath.Join(shared(t), "oracle", "otrf_windows.events.jsonl"))
	files, _ := filepath.Glob(filepath.Join(shared(t), "events", "*.jsonl"))
	for _, f := range files {
		lines = append(lines, readLines(t, f)...)
	}
	rng := rand.New(rand.NewPCG(8, 14))
	pieces := []string{`"`, `\\`, `\"`, `\`, ",", ":", "}", " ", `\u0041`, "é", "\u212a", "K", "mimikatz", "\n"}
	for i := range lines {
		if i%4 == 0 {
			at := rng.IntN(len(lines[i]))
			lines = append(lines, slices.Insert(slices.Clone(lines[i]), at, []byte(pieces[rng.IntN(len(pieces))])...))
		}
	}
	linux := e.Set(Source{LogSource: LogSource{Product: "linux", Category: "process_creation"}}, Source{LogSource: LogSource{Category: "proxy"}}, Source{LogSource: LogSource{Category: "webserver"}})
	type answer struct {
		text  string
		rules [2][]int32
	}
	run := func(check func(i int, a answer)) {
		router, err := NewRouter(e)
		if err != nil {
			t.Fatal(err)
		}
		var rec Record
		var m Matcher
		d := &Decoder{Names: names}
		for i, l := range lines {
			var a answer
			if err := d.Decode(&rec, l); err != nil {
				a.text = err.Error()
			} else {
				for j, s := range []*Set{router.Route(&rec), linux} {
					if s != nil {
						a.rules[j] = m.Match(s, &rec, nil)
						slices.Sort(a.rules[j])
					}
				}
				if i%8 < 2 {
					a.text = decoded(&rec, nil)
				} else {
					a.text = fmt.Sprint(rec.plain, rec.Len())
				}
			}
			check(i, a)
		}
	}
	var want []answer
	matches, bad := 0, 0
	run(func(_ int, a answer) {
		want = append(want, a)
		if matches += len(a.rules[0]) + len(a.rules[1]); a.rules[0] == nil && a.rules[1] == nil {
			bad++
		}
	})
	if matches < 500 || bad < 50 {
		t.Fatalf("%d matches, %d lines that are no events", matches, bad)
	}
	narrower(t, func(t *testing.T) {
		run(func(i int, a answer) {
			if a.text != want[i].text || !slices.Equal(a.rules[0], want[i].rules[0]) || !slices.Equal(a.rules[1], want[i].rules[1]) {
				t.Fatalf("%s\ngives %v %s\nwant %v %s", lines[i], a.rules, a.text, want[i].rules, want[i].text)
			}
		})
	})
}

// TestNarrowerTests runs tests that compare with plainer code, as on lesser processors; indexes are made there too.
func TestNarrowerTests(t *testing.T) {
	narrower(t, func(t *testing.T) {
		t.Run("keywords", TestKeywordsBeyondASCII)
		t.Run("fold", TestLowUnescaped)
		t.Run("masks", TestMasks)
		if !hasAVX512 { // nothing in it depends on VBMI2
			t.Run("rules", TestRandomRules)
		}
	})
}
