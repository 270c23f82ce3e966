package batch

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// oracle is the verdict of a JSON reader that is not ours.
func oracle(b []byte) bool {
	if len(b) == 0 || b[0] != '{' || b[len(b)-1] != '}' {
		return false
	}
	return jsontext.Value(b).IsValid()
}

func depth(b []byte) int {
	d, deepest := 0, 0
	for _, c := range b {
		switch c {
		case '{', '[':
			d++
			deepest = max(deepest, d)
		case '}', ']':
			d--
		}
	}
	return deepest
}

func TestCheckObject(t *testing.T) {
	for _, s := range jsonSeeds {
		if got, want := CheckObject([]byte(s)) == nil, oracle([]byte(s)); got != want {
			t.Errorf("%q: we say %v, the other reader %v", s, got, want)
		}
	}
	wide := &strings.Builder{}
	wide.WriteString(`{"x":0`)
	for i := range 5000 {
		fmt.Fprintf(wide, `,"k%d":%d`, i, i)
	}
	if err := CheckObject([]byte(wide.String() + "}")); err != nil {
		t.Errorf("5,000 members: %v", err)
	}
	for _, k := range []string{"x", "k10", "k63", "k64", "k4999"} {
		if err := CheckObject([]byte(wide.String() + `,"` + k + `":1}`)); !errors.Is(err, errRepeated) {
			t.Errorf("5,000 members and %s again: %v", k, err)
		}
	}
	if err := CheckObject([]byte(strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17))); err == nil {
		t.Error("17 deep was taken")
	}
}

// Every byte at every place of an eight-byte word.
func TestCheckObjectBytes(t *testing.T) {
	for n := range 20 {
		for at := range n {
			for c := range 256 {
				b := fmt.Appendf(nil, `{"a":"%s"}`, strings.Repeat("x", n))
				b[6+at] = byte(c)
				if got, want := CheckObject(b) == nil, oracle(b); got != want {
					t.Fatalf("%q: we say %v, the other reader %v", b, got, want)
				}
			}
		}
	}
}

func FuzzCheckObject(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if depth(b) > maxDepth {
			return
		}
		if got, want := CheckObject(b) == nil, oracle(b); got != want {
			t.Errorf("%q: we say %v, the other reader %v", b, got, want)
		}
	})
}

func BenchmarkCheckObject(b *testing.B) {
	line := testLines(1)[0]
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckObject(line); err != nil {
			b.Fatal(err)
		}
	}
}
