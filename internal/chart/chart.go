// Package chart draws the few charts the pages and reports need as SVG, on the
// server: a stacked histogram, ranked bars, a sparkline, a small balance bar and
// a map of the world.
//
// It reads figures and writes markup; it keeps nothing. Colours are class names,
// which the style sheet gives a light and a dark value; sizes are attributes. No
// style attribute is ever written, because the pages forbid inline style. Every
// chart is an image with a sentence for those who cannot see it, and the caller
// shows the same figures in a table.
package chart

import (
	"fmt"
	"html/template"
	"math"
	"sort"
	"strconv"
	"strings"
)

// A Series is one layer of a stacked histogram.
type Series struct {
	Name  string // as the legend shows it: "High"
	Class string // the CSS class that colours it: "s-high"
}

// A Column is one bar of a histogram.
type Column struct {
	Label  string  // under the axis: "21 Nov"
	Title  string  // when pointed at, before the figures: "Saturday 21 November"
	Values []int64 // one for each series, bottom first
	Href   string  // where the column leads; "" for nowhere
}

// Sum is the height of the column.
func (c Column) Sum() int64 {
	var n int64
	for _, v := range c.Values {
		n += v
	}
	return n
}

// A Histogram is stacked bars over time.
type Histogram struct {
	What    string // what is counted, for the sentence: "Suspicious events each day"
	Series  []Series
	Columns []Column
	Height  int // of the whole chart in CSS pixels; 0 means 190
	Labels  int // about how many labels stand under the axis; 0 means 11
}

// Total is the sum of all columns.
func (h Histogram) Total() int64 {
	var n int64
	for _, c := range h.Columns {
		n += c.Sum()
	}
	return n
}

// Sentence says the extremes in words.
func (h Histogram) Sentence() string {
	if len(h.Columns) == 0 || h.Total() == 0 {
		return h.What + ": none in this period."
	}
	hi, lo := 0, 0
	for i, c := range h.Columns {
		if c.Sum() > h.Columns[hi].Sum() {
			hi = i
		}
		if c.Sum() < h.Columns[lo].Sum() {
			lo = i
		}
	}
	return fmt.Sprintf("%s: %s in all; most on %s with %s, fewest on %s with %s.", h.What, Number(h.Total()),
		name(h.Columns[hi]), Number(h.Columns[hi].Sum()), name(h.Columns[lo]), Number(h.Columns[lo].Sum()))
}

func name(c Column) string {
	if c.Title != "" {
		return c.Title
	}
	return c.Label
}

const (
	scaleWidth = 46 // for the figures of the axis
	labelSpace = 20
	topSpace   = 8
)

// SVG draws the histogram: the scale, and beside it the columns, which fill the
// width that is left. Across the page everything is a percentage, so letters keep
// their size on a phone.
func (h Histogram) SVG() template.HTML {
	height := h.Height
	if height == 0 {
		height = 190
	}
	labels := h.Labels
	if labels == 0 {
		labels = 11
	}
	plot := float64(height - labelSpace - topSpace)
	var most int64
	for _, c := range h.Columns {
		most = max(most, c.Sum())
	}
	step, top := Ticks(most, max(2, int(plot/36)))

	var b strings.Builder
	fmt.Fprintf(&b, `<div class="chart" role="img" aria-label="%s"><svg class="scale" width="%d" height="%d">`, escape(h.Sentence()), scaleWidth, height)
	var lines strings.Builder
	for v := int64(0); v <= top; v += step {
		y := topSpace + plot - plot*float64(v)/float64(top)
		class := "gridline"
		if v == 0 {
			class = "baseline"
		}
		fmt.Fprintf(&b, `<text class="axis" x="%d" y="%s" text-anchor="end">%s</text>`, scaleWidth-8, num(y+4), Short(v))
		fmt.Fprintf(&lines, `<line class="%s" x1="0" x2="100%%" y1="%s" y2="%s"/>`, class, num(y), num(y))
	}
	fmt.Fprintf(&b, `</svg><svg class="plot" width="100%%" height="%d">%s`, height, lines.String())
	n := len(h.Columns)
	every := 1
	if n > labels {
		every = (n + labels - 1) / labels
	}
	for i, c := range h.Columns {
		share := 100 / float64(n)
		gap := share * 0.1
		x, w := share*float64(i)+gap, share-2*gap
		b.WriteString(`<g class="column">`)
		fmt.Fprintf(&b, "<title>%s</title>", escape(h.title(c)))
		fmt.Fprintf(&b, `<rect class="hit" x="%s%%" width="%s%%" y="%d" height="%s"/>`, num(share*float64(i)), num(share), topSpace, num(plot))
		y := topSpace + plot
		for s, v := range c.Values {
			if v <= 0 || s >= len(h.Series) {
				continue
			}
			// A count that is there is never drawn as nothing.
			tall := math.Max(plot*float64(v)/float64(top), 1)
			y -= tall
			fmt.Fprintf(&b, `<rect class="%s" x="%s%%" width="%s%%" y="%s" height="%s"/>`, h.Series[s].Class, num(x), num(w), num(y), num(tall))
		}
		b.WriteString("</g>")
		// Labels are counted from the newest column, which people look for first.
		if c.Label != "" && (n-1-i)%every == 0 {
			class := "axis"
			if (n-1-i)/every%2 == 1 {
				class += " minor"
			}
			at, anchor := x+w/2, "middle"
			if i == n-1 && n > labels { // narrow columns: the last label would end outside the plot
				at, anchor = x+w, "end"
			}
			fmt.Fprintf(&b, `<text class="%s" x="%s%%" y="%d" text-anchor="%s">%s</text>`, class, num(at), height-4, anchor, escape(c.Label))
		}
	}
	b.WriteString("</svg></div>")
	return template.HTML(b.String())
}

func (h Histogram) title(c Column) string {
	var parts []string
	for s, v := range c.Values {
		if s < len(h.Series) && len(h.Series) > 1 && v > 0 {
			parts = append(parts, strings.ToLower(h.Series[s].Name)+" "+Number(v))
		}
	}
	text := name(c) + ": " + Number(c.Sum())
	if len(parts) > 1 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	return text
}

// Ticks chooses a step of 1, 2 or 5 times a power of ten and the top of the axis
// so that about n lines hold values up to most.
func Ticks(most int64, n int) (step, top int64) {
	if most <= 0 {
		return 1, 1
	}
	step = 1
	for i := 0; ; i++ {
		if most/step <= int64(n) && (most+step-1)/step <= int64(n) {
			break
		}
		if i%3 == 1 { // 2 -> 5
			step = step / 2 * 5
		} else { // 1 -> 2, 5 -> 10
			step *= 2
		}
	}
	top = (most + step - 1) / step * step
	return step, top
}

// A Bar is one line of a ranking.
type Bar struct {
	Label string
	Value int64
	Note  string // behind the label, quieter: "Netherlands"
	Href  string
	Mono  bool // an address: set in the monospaced face
}

// Bars draws a ranking: each line has its label, its figure, and a bar as wide as
// its share of the largest. It is an ordinary list for those who listen.
func Bars(bars []Bar) template.HTML {
	var most int64 = 1
	for _, bar := range bars {
		most = max(most, bar.Value)
	}
	var b strings.Builder
	b.WriteString(`<ol class="bars">`)
	for _, bar := range bars {
		label := escape(bar.Label)
		if bar.Mono {
			label = `<span class="mono">` + label + `</span>`
		}
		if bar.Href != "" {
			label = `<a class="a" href="` + escape(bar.Href) + `">` + label + `</a>`
		}
		if bar.Note != "" {
			label += ` <span class="muted">` + escape(bar.Note) + `</span>`
		}
		width := 100 * float64(bar.Value) / float64(most)
		fmt.Fprintf(&b, `<li><span class="label">%s</span><span class="value">%s</span><svg aria-hidden="true"><rect class="track" width="100%%" height="100%%"/><rect class="bar" width="%s%%" height="100%%"/></svg></li>`,
			label, Number(bar.Value), num(width))
	}
	b.WriteString("</ol>")
	return template.HTML(b.String())
}

// A Part is one piece of a balance bar.
type Part struct {
	Name  string
	Class string
	Value int64
}

// Balance draws parts of a whole as one bar.
func Balance(what string, parts []Part) template.HTML {
	var whole int64
	var said []string
	for _, p := range parts {
		whole += max(p.Value, 0)
		said = append(said, strings.ToLower(p.Name)+" "+Number(p.Value))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="flow" role="img" aria-label="%s" width="100%%" height="14">`, escape(what+": "+strings.Join(said, ", ")+"."))
	x := 0.0
	for _, p := range parts {
		if p.Value <= 0 || whole == 0 {
			continue
		}
		w := math.Max(100*float64(p.Value)/float64(whole), 0.4)
		fmt.Fprintf(&b, `<rect class="%s" x="%s%%" width="%s%%" height="100%%"><title>%s: %s</title></rect>`, p.Class, num(x), num(w), escape(p.Name), Number(p.Value))
		x += w
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// Sparkline draws values as one small line, oldest first. what is said to those
// who cannot see it.
func Sparkline(what string, values []int64, width, height int) template.HTML {
	var most int64 = 1
	for _, v := range values {
		most = max(most, v)
	}
	var points strings.Builder
	for i, v := range values {
		x := 0.0
		if len(values) > 1 {
			x = float64(i) / float64(len(values)-1) * float64(width)
		}
		y := 1 + (1-float64(v)/float64(most))*float64(height-2)
		if i > 0 {
			points.WriteByte(' ')
		}
		points.WriteString(num(x) + "," + num(y))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="spark" role="img" aria-label="%s" width="%d" height="%d" viewBox="0 0 %d %d">`, escape(what), width, height, width, height)
	if len(values) > 1 {
		fmt.Fprintf(&b, `<path d="M0,%d L%s L%d,%d Z"/><polyline points="%s"/>`, height, points.String(), width, height, points.String())
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// A Place is one country with its count.
type Place struct {
	Code  string // ISO 3166-1 alpha-2, as GeoIP data has it
	Count int64
}

// World draws the countries shaded in five steps by count. svg is the address of
// world.svg, which the browser fetches once; the page carries only the countries
// that have a count.
func World(what, svg string, places []Place) template.HTML {
	sorted := append([]Place(nil), places...)
	sort.SliceStable(sorted, func(i, j int) bool { return sorted[i].Count > sorted[j].Count })
	var most int64
	var said []string
	for i, p := range sorted {
		most = max(most, p.Count)
		if i < 3 {
			said = append(said, Country(p.Code)+" "+Number(p.Count))
		}
	}
	sentence := what + ": none in this period."
	if len(said) > 0 {
		sentence = what + ". Most: " + strings.Join(said, ", ") + "."
	}
	var b, dots strings.Builder
	fmt.Fprintf(&b, `<svg class="map" role="img" aria-label="%s" viewBox="0 0 960 440" width="960" height="440"><use class="land" href="%s#land"/>`, escape(sentence), escape(svg))
	for _, p := range sorted {
		if _, known := countries[p.Code]; !known || p.Count <= 0 {
			continue
		}
		shade, title := Shade(p.Count, most), escape(Country(p.Code))+": "+Number(p.Count)
		if drawn[p.Code] {
			fmt.Fprintf(&b, `<use class="m%d" href="%s#%s"><title>%s</title></use>`, shade, escape(svg), p.Code, title)
		}
		// A dot for countries too small to be seen; drawn after all shapes.
		if at, ok := spots[p.Code]; ok {
			fmt.Fprintf(&dots, `<circle class="m%d" cx="%s" cy="%s" r="5"><title>%s</title></circle>`, shade, num(at[0]), num(at[1]), title)
		}
	}
	b.WriteString(dots.String())
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// Shade is the step, 1 to 5, of a count: by the cube root, because one country
// often has a hundred times another's and should still be seen beside it.
func Shade(count, most int64) int {
	if count <= 0 || most <= 0 {
		return 1
	}
	return 1 + min(4, int(5*math.Cbrt(float64(count)/float64(most))))
}

// Country is the English name of an ISO 3166-1 alpha-2 code, or the code itself
// when it is not known.
func Country(code string) string {
	if n, ok := countries[code]; ok {
		return n
	}
	if code == "" {
		return "Unknown"
	}
	return code
}

// Number writes n with thousands separated by commas, as in British use.
func Number(n int64) string {
	if n == math.MinInt64 {
		return "-9,223,372,036,854,775,808"
	}
	if n < 0 {
		return "-" + Number(-n)
	}
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Short writes n for an axis: 1,500 as it is, 25,000 as 25k, 3,000,000 as 3m.
func Short(n int64) string {
	switch {
	case n >= 1_000_000_000:
		return trim(float64(n)/1e9) + "bn"
	case n >= 1_000_000:
		return trim(float64(n)/1e6) + "m"
	case n >= 10_000:
		return trim(float64(n)/1e3) + "k"
	}
	return Number(n)
}

func trim(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

func num(v float64) string { return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64) }

func escape(s string) string { return template.HTMLEscapeString(s) }
