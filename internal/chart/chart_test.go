package chart

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

// wellFormed reads markup as XML, which is stricter than any browser.
func wellFormed(t *testing.T, what, markup string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader("<x>" + markup + "</x>"))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%s: %v in\n%s", what, err, markup)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, tc := range []struct {
		most      int64
		n         int
		step, top int64
	}{{0, 4, 1, 1}, {1, 4, 1, 1}, {3, 4, 1, 3}, {9, 4, 5, 10}, {10, 4, 5, 10}, {11, 4, 5, 15}, {100, 4, 50, 100}, {1690, 4, 500, 2000}, {48210, 4, 20000, 60000}} {
		step, top := Ticks(tc.most, tc.n)
		if step != tc.step || top != tc.top {
			t.Errorf("Ticks(%d, %d) = %d, %d, want %d, %d", tc.most, tc.n, step, top, tc.step, tc.top)
		}
	}
}

func FuzzTicks(f *testing.F) {
	f.Add(int64(0), 4)
	f.Add(int64(1690), 4)
	f.Add(int64(1)<<40, 2)
	f.Fuzz(func(t *testing.T, most int64, n int) {
		n = 2 + max(n, -n)%12
		most %= 1 << 50
		step, top := Ticks(most, n)
		if step <= 0 || top < most || top%step != 0 || top/step > int64(n)+1 {
			t.Fatalf("Ticks(%d, %d) = %d, %d", most, n, step, top)
		}
	})
}

func TestHistogram(t *testing.T) {
	h := Histogram{What: "Events <each> day", Series: []Series{{"Low", "s-low"}, {"High", "s-high"}}, Height: 128,
		Columns: []Column{{Label: "1 Nov", Title: "1 November", Values: []int64{90, 10}}, {Label: "2 Nov", Title: "2 \"November\" & more", Values: []int64{1, 0}}, {Label: "3 Nov", Values: []int64{0, 0}}}}
	svg := string(h.SVG())
	wellFormed(t, "histogram", svg)
	for _, want := range []string{`role="img"`, "101 in all; most on 1 November with 100, fewest on 3 Nov with 0.", "1 November: 100 (low 90, high 10)", `class="s-high"`, ">1 Nov<", `height="90"`} {
		if !strings.Contains(svg, want) {
			t.Errorf("%q is not in %s", want, svg)
		}
	}
	if strings.Contains(svg, "style=") || strings.Contains(svg, "<each>") {
		t.Error("inline style, or markup from a name")
	}
	// One event of a hundred thousand is still to be seen.
	h.Columns[0].Values = []int64{100000, 1}
	if svg := string(h.SVG()); !strings.Contains(svg, `height="1"`) {
		t.Errorf("a small part is not drawn: %s", svg)
	}
	empty := Histogram{What: "Events"}
	wellFormed(t, "empty histogram", string(empty.SVG()))
	if got := empty.Sentence(); got != "Events: none in this period." {
		t.Error(got)
	}
}

func TestBars(t *testing.T) {
	s := string(Bars([]Bar{{Label: "Remote <desktop>", Value: 200}, {Label: "203.0.113.9", Value: 50, Mono: true, Href: "/x?a=1&b=2", Note: "Netherlands"}}))
	wellFormed(t, "bars", s)
	for _, want := range []string{"Remote &lt;desktop&gt;", `width="25%"`, `href="/x?a=1&amp;b=2"`, "Netherlands"} {
		if !strings.Contains(s, want) {
			t.Errorf("%q is not in %s", want, s)
		}
	}
	wellFormed(t, "no bars", string(Bars(nil)))
}

func TestBalanceAndSparkline(t *testing.T) {
	s := string(Balance("Lines", []Part{{"Kept", "s-low", 960}, {"Left", "s-brand", 40}, {"Nothing", "s-high", 0}}))
	wellFormed(t, "balance", s)
	if !strings.Contains(s, "Lines: kept 960, left 40, nothing 0.") || !strings.Contains(s, `width="96%"`) || strings.Contains(s, "s-high") {
		t.Error(s)
	}
	wellFormed(t, "empty balance", string(Balance("Lines", nil)))
	s = string(Sparkline("Events an hour", []int64{1, 5, 2}, 60, 16))
	wellFormed(t, "sparkline", s)
	if !strings.Contains(s, `points="0,12.2 30,1 60,9.4"`) {
		t.Error(s)
	}
	wellFormed(t, "one value", string(Sparkline("x", []int64{1}, 60, 16)))
}

func TestWorld(t *testing.T) {
	s := string(World("Where from", "/assets/world.svg?v=1", []Place{{"NL", 5}, {"US", 100}, {"SG", 7}, {"XX", 9}, {"", 3}, {"GB", 0}}))
	wellFormed(t, "map", s)
	for _, want := range []string{"Most: United States 100, XX 9, Singapore 7.", `href="/assets/world.svg?v=1#US"`, `href="/assets/world.svg?v=1#land"`, "Netherlands: 5</title></circle>", "Singapore: 7</title></circle>"} {
		if !strings.Contains(s, want) {
			t.Errorf("%q is not in %s", want, s)
		}
	}
	// Shapes that the asset does not have are not asked for.
	for _, not := range []string{"#SG", "#XX", "#GB"} {
		if strings.Contains(s, not) {
			t.Errorf("%q is in %s", not, s)
		}
	}
	for code, at := range spots {
		if at[0] < 0 || at[0] > 960 || at[1] < 0 || at[1] > 460 || countries[code] == "" {
			t.Errorf("the dot of %s stands at %v", code, at)
		}
	}
}

func TestShade(t *testing.T) {
	for _, tc := range []struct {
		n, most int64
		want    int
	}{{0, 0, 1}, {1, 1, 5}, {1, 1000, 1}, {100, 1000, 3}, {999, 1000, 5}} {
		if got := Shade(tc.n, tc.most); got != tc.want {
			t.Errorf("Shade(%d, %d) = %d, want %d", tc.n, tc.most, got, tc.want)
		}
	}
}

func TestNumber(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", math.MaxInt64: "9,223,372,036,854,775,807", math.MinInt64: "-9,223,372,036,854,775,808"} {
		if got := Number(n); got != want {
			t.Errorf("Number(%d) = %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int64]string{9999: "9,999", 10000: "10k", 1500000: "1.5m", 2000000000: "2bn"} {
		if got := Short(n); got != want {
			t.Errorf("Short(%d) = %s, want %s", n, got, want)
		}
	}
}

func BenchmarkHistogram(b *testing.B) {
	h := Histogram{What: "Events each hour", Series: []Series{{"Low", "s-low"}, {"Medium", "s-medium"}, {"High", "s-high"}, {"Critical", "s-critical"}}}
	for i := range 90 {
		h.Columns = append(h.Columns, Column{Label: "1 Nov", Title: "1 November", Values: []int64{int64(i), 2, 3, 4}})
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = h.SVG()
	}
}
