package find

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// letters are few, so that texts nearly stand there often.
func letters(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abAB, =\"\xe1["[r.IntN(10)]
	}
	return string(b)
}

// TestLikeStrings compares with package strings over texts of all lengths around the widths of registers, and with every place at the very
// end of what may be read.
func TestLikeStrings(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 60000 {
		s := letters(r, r.IntN(150))
		sub := letters(r, r.IntN(7))
		if r.IntN(3) == 0 && len(s) > 4 {
			i := r.IntN(len(s))
			sub = s[i : i+r.IntN(len(s)-i)]
		}
		if got, want := Index(s, sub), strings.Index(s, sub); got != want {
			t.Fatalf("Index(%q, %q) = %d, want %d", s, sub, got, want)
		}
		low := strings.Repeat("b", r.IntN(2)) + "a" + strings.Repeat(" ", r.IntN(3)) + "ab"
		ascii := bytes.Map(func(c rune) rune {
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			return c
		}, []byte(strings.ReplaceAll(s, "\xe1", "?")))
		if got, want := HasFold(s, low), bytes.Contains(ascii, []byte(low)); got != want {
			t.Fatalf("HasFold(%q, %q) = %v", s, low, got)
		}
		out := make([]uint64, 1+r.IntN(3))
		Masks(s, ',', out)
		for i := range 64 * len(out) {
			if got, want := out[i>>6]>>(i&63)&1 == 1, i < len(s) && s[i] == ','; got != want {
				t.Fatalf("Masks(%q): byte %d: %v", s, i, got)
			}
		}
	}
}

// TestMarks looks at every byte of texts of all lengths, also of some that are longer than what is covered.
func TestMarks(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var x Marks
	for round := range 2000 {
		n := r.IntN(300)
		if round%50 == 0 {
			n = MaxMarks - 70 + r.IntN(140)
		}
		b := make([]byte, n)
		for i := range b {
			b[i] = "ab\t,;\" =!\x89\xa2\xa0+-:"[r.IntN(15)]
		}
		s := string(b)
		for i := range x.Any { // of the line before
			x.One[i], x.Any[i] = r.Uint64(), r.Uint64()
		}
		limit := x.Find(s, '"', ';'<<24|','<<16|'\t'<<8|' ')
		covered := min(n, MaxMarks)
		if n < MaxMarks && limit != n+1 || n >= MaxMarks && limit != MaxMarks {
			t.Fatalf("limit %d of %d bytes", limit, n)
		}
		for i := range covered {
			if got, want := x.One[i>>6]>>(i&63)&1 == 1, s[i] == '"'; got != want {
				t.Fatalf("quote at %d of %q: %v", i, s, got)
			}
			if got, want := x.Any[i>>6]>>(i&63)&1 == 1, strings.IndexByte(" \t,;", s[i]) >= 0; got != want {
				t.Fatalf("end at %d of %q: %v", i, s, got)
			}
		}
		if n < MaxMarks && (x.Any[n>>6]>>(n&63) != 1 || x.One[n>>6]>>(n&63) != 0) {
			t.Fatalf("nothing behind the last byte of %q", s)
		}
		if w := (limit + 63) >> 6; x.Any[w] != ^uint64(0) || x.One[w] != ^uint64(0) {
			t.Fatalf("no end behind %q", s)
		}
	}
}

// TestHard: a text that is nearly everywhere costs no more than a few times what a plain search costs.
func TestHard(t *testing.T) {
	s := strings.Repeat("a", 1<<16)
	sub := strings.Repeat("a", 90) + "b" + strings.Repeat("a", 90)
	if Index(s, sub) != -1 || Index(s+sub, sub) != len(s) {
		t.Error("wrong place")
	}
}

func FuzzIndex(f *testing.F) {
	f.Add("<134>id=firewall sn=18B1690729A8 time=\"2026-11-12 08:50:01 UTC\" fw=198.51.100.20 m=36", " m=")
	f.Fuzz(func(t *testing.T, s, sub string) {
		if got, want := Index(s, sub), strings.Index(s, sub); got != want {
			t.Fatalf("%d, want %d", got, want)
		}
	})
}

// TestNext compares the next bit with the next byte.
func TestNext(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var x Marks
	for range 3000 {
		s := letters(r, r.IntN(300))
		limit := x.Find(s, ',', ' '<<24|'='<<16|'"'<<8|' ')
		for i := range len(s) + 1 {
			if got, want := x.NextAny(i), strings.IndexAny(s[i:]+" ", " =\""); got != i+want {
				t.Fatalf("any behind %d of %q: %d", i, s, got)
			}
			if got, want := x.NextOne(i), strings.IndexByte(s[i:], ','); want >= 0 && got != i+want || want < 0 && got < limit {
				t.Fatalf("one behind %d of %q: %d", i, s, got)
			}
		}
	}
}
