package parse

import (
	"strings"
	"testing"
)

func TestFormatHint(t *testing.T) {
	for wrong, want := range map[string]string{
		"fortigat":  "Did you mean fortigate?",
		"Fortiga":   "Did you mean fortigate?",
		"sonicwal":  "Did you mean sonicwall?",
		"cisco-asa": "asa",
		"nonsense":  "called fortigate",
		"":          "called fortigate",
	} {
		got := FormatHint(wrong, Formats())
		if !strings.Contains(got, want) || len(got) > 120 {
			t.Errorf("%q: %q, want %q in it", wrong, got, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"eve", "eve", 0}} {
		if d := distance(c.a, c.b); d != c.want {
			t.Errorf("%q to %q: %d, want %d", c.a, c.b, d, c.want)
		}
	}
}
