package web

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// What is written on what. The browser test looks at the pages as they are; this looks at every pair that may come about, in both themes.
var textOn = map[string][]string{
	"ink":   {"page", "raised", "sunken", "chip", "code", "select", "fresh", "row-hover", "button", "good-fill", "warn-fill", "bad-fill", "info-fill"},
	"ink-2": {"page", "raised", "sunken", "chip", "select", "row-hover"}, // placeholders too
	"link":  {"page", "raised", "sunken", "row-hover"}, "link-hover": {"page", "raised", "sunken"},
	"good": {"page", "raised", "sunken", "good-fill"}, "warn": {"page", "raised", "sunken", "warn-fill"}, "bad": {"page", "raised", "sunken", "bad-fill"}, "info": {"info-fill"},
	"bar-ink": {"bar"}, "bar-ink-2": {"bar"}, "primary-ink": {"primary"},
}

// reportOn is the same for the report's page, which stands on its own.
var reportOn = map[string][]string{
	"ink": {"page", "sunken", "good-fill", "warn-fill", "bad-fill"}, "ink-2": {"page", "chip"}, "link": {"page"}, "heading": {"page"}, "bar-ink-2": {"bar"},
	"good": {"page", "good-fill"}, "warn": {"page", "warn-fill"}, "bad": {"page", "bad-fill"}, "info": {"info-fill"},
}

// TestContrast: text can be read by people who see little (WCAG 2.2, 1.4.3: 4.5 to 1).
func TestContrast(t *testing.T) {
	portal, err := assetFiles.ReadFile("assets/portal.css")
	if err != nil {
		t.Fatal(err)
	}
	report, err := os.ReadFile("../report/report.css")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(portal), "::placeholder{color:var(--ink-2);opacity:1}") {
		t.Error("placeholders have the browser's own colour")
	}
	for _, sheet := range []struct {
		name, css   string
		light, dark string // how their blocks begin
		pairs       map[string][]string
	}{
		{"the pages", string(portal), ":root{color-scheme:light;", `:root[data-theme=dark]{`, textOn},
		{"the report", string(report), ":root{", `@media (prefers-color-scheme:dark){:root{`, reportOn},
	} {
		light := tokens(t, sheet.css, sheet.light, nil)
		dark := tokens(t, sheet.css, sheet.dark, light)
		checked := 0
		for theme, colours := range map[string]map[string]string{"light": light, "dark": dark} {
			for ink, grounds := range sheet.pairs {
				for _, ground := range grounds {
					ratio, err := contrast(colours[ink], colours[ground])
					if err != nil {
						t.Errorf("%s, %s: --%s on --%s: %v", sheet.name, theme, ink, ground, err)
					} else if ratio < 4.5 {
						t.Errorf("%s, %s: --%s on --%s is %.2f to 1; 4.5 is wanted", sheet.name, theme, ink, ground, ratio)
					}
					checked++
				}
			}
		}
		if dark["page"] == light["page"] || checked < 20 {
			t.Errorf("%s: %d pairs, page %s and %s: the sheet was not understood", sheet.name, checked, light["page"], dark["page"])
		}
	}
	if got, _ := contrast("#757575", "#10151d"); math.Abs(got-3.97) > 0.01 { // as a browser's tools say
		t.Errorf("contrast is worked out wrongly: %.2f", got)
	}
}

var token = regexp.MustCompile(`--([a-z0-9-]+):\s*(#[0-9a-f]{3,6})\b`)

// tokens reads the colours of the block that begins so; what it does not set is as in below.
func tokens(t *testing.T, css, begin string, below map[string]string) map[string]string {
	t.Helper()
	_, block, ok := strings.Cut(css, begin)
	if !ok {
		t.Fatalf("there is no %q", begin)
	}
	block, _, _ = strings.Cut(block, "}")
	out := map[string]string{}
	for k, v := range below {
		out[k] = v
	}
	for _, m := range token.FindAllStringSubmatch(block, -1) {
		out[m[1]] = m[2]
	}
	return out
}

// contrast is WCAG's ratio of two colours.
func contrast(a, b string) (float64, error) {
	la, err := luminance(a)
	if err != nil {
		return 0, err
	}
	lb, err := luminance(b)
	if err != nil {
		return 0, err
	}
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05), nil
}

func luminance(colour string) (float64, error) {
	hex := strings.TrimPrefix(colour, "#")
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil || len(hex) != 6 {
		return 0, fmt.Errorf("%q is no colour", colour)
	}
	sum := 0.0
	for i, weight := range []float64{0.0722, 0.7152, 0.2126} { // blue, green, red
		v := float64(n>>(8*i)&255) / 255
		if v <= 0.04045 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		sum += weight * v
	}
	return sum, nil
}
