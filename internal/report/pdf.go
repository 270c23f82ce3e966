package report

import (
	_ "embed"
	"fmt"
	"math"
	"strings"
	"sync"
	"unicode"

	"codeberg.org/go-pdf/fpdf"
	"golang.org/x/image/font/sfnt"

	"tocsin/internal/chart"
)

// Liberation Sans 2.1.5, SIL Open Font License 1.1: see fonts/LICENSE.
var (
	//go:embed fonts/LiberationSans-Regular.ttf
	regularFont []byte
	//go:embed fonts/LiberationSans-Bold.ttf
	boldFont []byte
)

// colour is red, green, blue.
type colour [3]int

// The colours of the pages, in their light theme.
var (
	ink      = colour{11, 12, 12}
	quiet    = colour{72, 77, 84}
	bar      = colour{18, 39, 75}
	barQuiet = colour{201, 214, 234}
	hairline = colour{213, 218, 224}
	strong   = colour{138, 148, 160}
	gridline = colour{226, 230, 235}
	track    = colour{233, 239, 245}
	primary  = colour{26, 95, 180}
	white    = colour{255, 255, 255}

	levelColours = []colour{{170, 179, 190}, {86, 148, 214}, {240, 161, 38}, {212, 53, 28}}
	toneInk      = map[string]colour{"good": {0, 90, 48}, "warn": {122, 65, 0}, "bad": {164, 21, 26}, "critical": {164, 21, 26}, "high": {122, 65, 0}, "medium": {18, 72, 124}, "low": quiet, "informational": quiet}
	toneFill     = map[string]colour{"good": {220, 239, 228}, "warn": {253, 235, 210}, "bad": {249, 221, 221}, "critical": {249, 221, 221}, "high": {253, 235, 210}, "medium": {219, 233, 247}, "low": {232, 236, 242}, "informational": {232, 236, 242}}
	toneEdge     = map[string]colour{"good": {15, 122, 82}, "warn": {240, 161, 38}, "bad": {212, 53, 28}}
)

// A4 in millimetres, and where the text stands.
const (
	pageWidth  = 210.0
	pageHeight = 297.0
	left       = 20.0
	right      = 190.0
	bandHeight = 14.0
	topText    = 23.0
	bottomText = 279.0
	full       = right - left
	pt         = 25.4 / 72 // millimetres in a point
)

// covered says which letters the fonts have.
var covered = sync.OnceValue(func() func(r rune) bool {
	f, err := sfnt.Parse(regularFont)
	if err != nil {
		panic(err) // embedded, and a test reads it
	}
	var mu sync.Mutex
	var buf sfnt.Buffer
	known := map[rune]bool{}
	return func(r rune) bool {
		mu.Lock()
		defer mu.Unlock()
		ok, seen := known[r]
		if !seen && len(known) < 1<<16 {
			g, err := f.GlyphIndex(&buf, r)
			ok = err == nil && g != 0
			known[r] = ok
		}
		return ok
	}
})

// printable makes text fit for the fonts: what they lack becomes a white square, and nothing turns the direction of writing around.
func printable(s string) string {
	has := covered()
	return strings.Map(func(r rune) rune {
		switch {
		case r >= ' ' && r < 0x7f:
			return r
		case unicode.IsSpace(r):
			return ' '
		case unicode.Is(unicode.Cf, r), unicode.IsControl(r):
			return -1
		case r < 0xffff && has(r):
			return r
		}
		return '□'
	}, s)
}

// writer lays a report out.
type writer struct {
	*tagger
	r *Report
	y float64 // where the next thing stands
}

// PDF writes the report as a tagged PDF: the same words and figures as HTML, for printing and for the file. It claims no conformance to PDF/UA,
// because nothing that could tell has looked at it.
func (r *Report) PDF() ([]byte, error) {
	pdf := fpdf.New("P", "mm", "A4", "")
	pdf.SetAutoPageBreak(false, 0)
	pdf.SetMargins(left, topText, pageWidth-right)
	pdf.AddUTF8FontFromBytes("sans", "", regularFont)
	pdf.AddUTF8FontFromBytes("sans", "B", boldFont)
	pdf.SetTitle(r.Organisation+": "+r.Title(), true)
	pdf.SetAuthor(r.Scheme, true)
	pdf.SetSubject("Suspicious events, alerts and advice", true)
	pdf.SetCreator("Tocsin", true)
	pdf.SetCatalogSort(true)
	pdf.SetCreationDate(r.Made.UTC())
	pdf.SetModificationDate(r.Made.UTC())
	w := &writer{tagger: &tagger{pdf: pdf, root: element{kind: "Document"}, owners: map[int][]*element{}}, r: r}
	w.page()
	w.opening()
	w.days()
	w.alerts()
	w.tried()
	w.places()
	w.lines()
	w.advice()
	w.about()
	w.frames()
	return w.finish()
}

func (w *writer) page() {
	w.pdf.AddPage()
	w.y = topText
}

// need begins a new page when less than height is left.
func (w *writer) need(height float64) {
	if w.y+height > bottomText {
		w.page()
	}
}

func (w *writer) fill(c colour)   { w.pdf.SetFillColor(c[0], c[1], c[2]) }
func (w *writer) stroke(c colour) { w.pdf.SetDrawColor(c[0], c[1], c[2]) }

// face is how text looks: size in points.
type face struct {
	size   float64
	bold   bool
	colour colour
}

var (
	body     = face{10, false, ink}
	bodyBold = face{10, true, ink}
	small    = face{8.5, false, quiet}
	cellFace = face{9, false, ink}
	headFace = face{9, true, ink}
)

func (f face) leading() float64 { return f.size * pt * 1.38 }

func (w *writer) set(f face) {
	style := ""
	if f.bold {
		style = "B"
	}
	w.pdf.SetFont("sans", style, f.size)
	w.pdf.SetTextColor(f.colour[0], f.colour[1], f.colour[2])
}

// wrap breaks text into lines that fit; a word longer than a line is broken too.
func (w *writer) wrap(s string, f face, width float64) []string {
	w.set(f)
	var out []string
	line := ""
	flush := func() {
		if line != "" {
			out = append(out, line)
		}
		line = ""
	}
	for _, word := range strings.Fields(printable(s)) {
		next := word
		if line != "" {
			next = line + " " + word
		}
		if w.pdf.GetStringWidth(next) <= width {
			line = next
			continue
		}
		flush()
		for w.pdf.GetStringWidth(word) > width {
			runes := []rune(word)
			n := 1
			for n < len(runes) && w.pdf.GetStringWidth(string(runes[:n+1])) <= width {
				n++
			}
			if n == len(runes) {
				break // one letter wider than the line
			}
			out = append(out, string(runes[:n]))
			word = string(runes[n:])
		}
		line = word
	}
	flush()
	return out
}

// fit cuts text to one line.
func (w *writer) fit(s string, f face, width float64) string {
	w.set(f)
	s = printable(s)
	if w.pdf.GetStringWidth(s) <= width {
		return s
	}
	runes := []rune(s)
	for len(runes) > 1 && w.pdf.GetStringWidth(string(runes)+"…") > width {
		runes = runes[:len(runes)-1]
	}
	return strings.TrimRight(string(runes), " ") + "…"
}

// Ways to align.
const (
	toLeft = iota
	toRight
	toMiddle
)

// print writes lines from y on; every line ends with a space, so that a reader that joins them keeps words apart.
func (w *writer) print(lines []string, f face, x, y, width float64, align int) {
	w.set(f)
	for i, l := range lines {
		at := x
		switch align {
		case toRight:
			at = x + width - w.pdf.GetStringWidth(l)
		case toMiddle:
			at = x + (width-w.pdf.GetStringWidth(l))/2
		}
		w.pdf.Text(at, y+float64(i)*f.leading()+f.size*pt*1.05, l+" ")
	}
}

// block writes a paragraph as a new element of parent, on one page, and moves on.
func (w *writer) block(parent *element, kind, s string, f face, x, width, after float64) {
	lines := w.wrap(s, f, width)
	if len(lines) == 0 {
		return
	}
	height := float64(len(lines)) * f.leading()
	w.need(height)
	e := parent.add(kind)
	w.mark(e, func() { w.print(lines, f, x, w.y, width, toLeft) })
	w.y += height + after
}

func (w *writer) paragraph(s string) { w.block(&w.root, "P", s, body, left, full, 2.2) }

// heading writes a heading; room is what must follow on the same page.
func (w *writer) heading(s string, room float64) {
	f := face{15, true, bar}
	w.y += 4.5
	w.need(f.leading() + 2 + room)
	if w.y < topText+5 {
		w.y = topText
	}
	w.block(&w.root, "H2", s, f, left, full, 2)
}

// frames draws what every page has, when the number of pages is known.
func (w *writer) frames() {
	pages := w.pdf.PageCount()
	for n := 1; n <= pages; n++ {
		w.pdf.SetPage(n)
		w.artifact(func() {
			w.fill(bar)
			w.pdf.Rect(0, 0, pageWidth, bandHeight, "F")
			w.bell(left, 3.9)
			w.print([]string{"Tocsin"}, face{12, true, white}, left+7.5, 4.3, 40, toLeft)
			f := face{9, false, barQuiet}
			w.print([]string{w.fit(w.r.Scheme, f, 110)}, f, left+50, 5, full-50, toRight)
			w.stroke(hairline)
			w.pdf.SetLineWidth(0.2)
			w.pdf.Line(left, 284, right, 284)
			w.print([]string{w.fit(w.r.Organisation+" · "+w.r.Week.Words(), small, full-30)}, small, left, 285.5, full-30, toLeft)
			w.print([]string{fmt.Sprintf("Page %d of %d", n, pages)}, small, right-30, 285.5, 30, toRight)
			if w.r.Invented {
				f := face{8.5, true, toneInk["bad"]}
				w.print([]string{"Invented figures: a demonstration"}, f, left, 16, full, toRight)
			}
		})
	}
}

// bell draws the sign of Tocsin.
func (w *writer) bell(x, y float64) {
	const s = 0.265 // of its 22 by 24 drawing
	p := func(px, py float64) (float64, float64) { return x + px*s, y + py*s }
	w.stroke(white)
	w.pdf.SetLineWidth(0.5)
	w.pdf.SetLineCapStyle("round")
	w.pdf.SetLineJoinStyle("round")
	ax, ay := p(11, 1.8)
	bx, by := p(11, 4.2)
	w.pdf.Line(ax, ay, bx, by)
	curve := func(x0, y0 float64, c ...[6]float64) {
		a, b := p(x0, y0)
		w.pdf.MoveTo(a, b)
		for _, k := range c {
			x1, y1 := p(k[0], k[1])
			x2, y2 := p(k[2], k[3])
			x3, y3 := p(k[4], k[5])
			w.pdf.CurveBezierCubicTo(x1, y1, x2, y2, x3, y3)
		}
	}
	curve(3.4, 18.4, [6]float64{5.3, 16.5, 5.7, 14.4, 5.7, 11.1}, [6]float64{5.7, 7.3, 7.8, 4.4, 11, 4.4}, [6]float64{14.2, 4.4, 16.3, 7.3, 16.3, 11.1}, [6]float64{16.3, 14.4, 16.7, 16.5, 18.6, 18.4})
	w.pdf.ClosePath()
	w.pdf.DrawPath("D")
	curve(8.6, 21.3, [6]float64{9.1, 22.1, 9.9, 22.5, 11, 22.5}, [6]float64{12.1, 22.5, 12.9, 22.1, 13.4, 21.3})
	w.pdf.DrawPath("D")
	w.pdf.SetLineCapStyle("butt")
	w.pdf.SetLineJoinStyle("miter")
}

// opening is the title, the verdict and the figures at a glance.
func (w *writer) opening() {
	r := w.r
	w.block(&w.root, "P", r.subtitle(), face{11, false, quiet}, left, full, 0.6)
	w.block(&w.root, "H1", "Weekly report", face{24, true, bar}, left, full, 0.8)
	w.block(&w.root, "P", r.Period(), face{11, false, ink}, left, full, 4)
	if note := r.InventedNote(); note != "" {
		w.notice("bad", "These figures are invented.", note)
	}
	w.notice(r.Tone, "Are we all right? "+r.Verdict, r.Reason)
	w.tiles()
}

// notice draws a box with a coloured edge.
func (w *writer) notice(tone, heading, reason string) {
	head, text := face{13, true, ink}, face{10.5, false, ink}
	inner := full - 12
	hl, tl := w.wrap(heading, head, inner), w.wrap(reason, text, inner)
	height := float64(len(hl))*head.leading() + float64(len(tl))*text.leading() + 8.5
	w.need(height)
	w.artifact(func() {
		w.fill(toneFill[tone])
		w.pdf.Rect(left, w.y, full, height, "F")
		w.fill(toneEdge[tone])
		w.pdf.Rect(left, w.y, 2, height, "F")
	})
	y := w.y + 3.6
	w.mark(w.root.add("P"), func() { w.print(hl, head, left+7, y, inner, toLeft) })
	y += float64(len(hl))*head.leading() + 0.8
	w.mark(w.root.add("P"), func() { w.print(tl, text, left+7, y, inner, toLeft) })
	w.y += height + 4
}

// tiles draws the figures at a glance.
func (w *writer) tiles() {
	const gap, height = 4.0, 23.0
	list := w.r.Tiles()
	width := (full - gap*float64(len(list)-1)) / float64(len(list))
	w.need(height)
	label, note := face{8.5, false, quiet}, face{8, false, quiet}
	for i, t := range list {
		x := left + float64(i)*(width+gap)
		w.artifact(func() {
			w.stroke(hairline)
			w.fill(white)
			w.pdf.SetLineWidth(0.25)
			w.pdf.RoundedRect(x, w.y, width, height, 1, "1234", "D")
		})
		figure := face{18, true, ink}
		for w.set(figure); w.pdf.GetStringWidth(printable(t.Figure)) > width-7 && figure.size > 8; w.set(figure) {
			figure.size--
		}
		if c, ok := toneInk[t.Tone]; ok {
			note.colour = c
		} else {
			note.colour = quiet
		}
		lines := w.wrap(t.Note, note, width-7)
		lines = lines[:min(len(lines), 2)]
		w.mark(w.root.add("P"), func() {
			w.print([]string{w.fit(t.Label, label, width-7)}, label, x+3.5, w.y+2.6, width-7, toLeft)
			w.print([]string{printable(t.Figure)}, figure, x+3.5, w.y+6.6+(18-figure.size)*pt*0.7, width-7, toLeft)
			w.print(lines, note, x+3.5, w.y+14.6, width-7, toLeft)
		})
	}
	w.y += height + 1.5
}

// days draws the chart and the same figures as a table.
func (w *writer) days() {
	const least, tallest, labels, scale, table = 42.0, 72.0, 5.0, 11.0, 58.0
	r := w.r
	w.heading("Suspicious events each day", least+12)
	// The chart takes the room that the table leaves on the page.
	height := min(tallest, max(least, bottomText-w.y-10-table))
	h := r.Chart()
	var most int64
	for _, d := range r.Days {
		most = max(most, d.Total(), d.Before)
	}
	step, top := chart.Ticks(most, 5)
	plot, x0, y0 := height-labels, left+scale, w.y+8
	axis := face{7.5, false, quiet}
	fig := w.root.add("Figure")
	fig.alt = h.Sentence()
	w.mark(fig, func() {
		// The legend.
		x := left
		for i := range h.Series {
			w.fill(levelColours[i])
			w.pdf.Rect(x, w.y+1, 3, 3, "F")
			w.print([]string{h.Series[i].Name}, face{8.5, false, ink}, x+4.2, w.y+0.4, 30, toLeft)
			x += 4.2 + w.pdf.GetStringWidth(h.Series[i].Name) + 5
		}
		if r.hasBefore() {
			w.stroke(ink)
			w.pdf.SetLineWidth(0.5)
			w.pdf.Line(x, w.y+2.5, x+5, w.y+2.5)
			w.print([]string{"The same day of the week before"}, face{8.5, false, ink}, x+6.4, w.y+0.4, 80, toLeft)
		}
		for v := int64(0); v <= top; v += step {
			y := y0 + plot - plot*float64(v)/float64(top)
			w.stroke(gridline)
			if v == 0 {
				w.stroke(strong)
			}
			w.pdf.SetLineWidth(0.2)
			w.pdf.Line(x0, y, right, y)
			w.print([]string{chart.Short(v)}, axis, left, y-1.5, scale-2, toRight)
		}
		slot := (right - x0) / float64(len(r.Days))
		for i, d := range r.Days {
			x, y := x0+slot*float64(i), y0+plot
			for l, v := range []int64{d.Low, d.Medium, d.High, d.Critical} {
				if v <= 0 {
					continue
				}
				tall := math.Max(plot*float64(v)/float64(top), 0.25) // what is there is never drawn as nothing
				y -= tall
				w.fill(levelColours[l])
				w.pdf.Rect(x+slot*0.19, y, slot*0.62, tall, "F")
			}
			if d.Before > 0 {
				at := y0 + plot - plot*float64(d.Before)/float64(top)
				w.stroke(white)
				w.pdf.SetLineWidth(1)
				w.pdf.Line(x+slot*0.12, at, x+slot*0.88, at)
				w.stroke(ink)
				w.pdf.SetLineWidth(0.5)
				w.pdf.Line(x+slot*0.12, at, x+slot*0.88, at)
			}
			w.print([]string{d.Date.Format("Mon 2 Jan")}, axis, x, y0+plot+0.8, slot, toMiddle)
		}
	})
	w.y = y0 + height + 2
	rows := make([][]cell, 0, len(r.Days))
	for _, d := range r.Days {
		if d.Future {
			rows = append(rows, []cell{{text: d.Date.Format("Monday 2 January")}, {text: "–"}, {text: "–"}, {text: "–"}, {text: "–"}, {text: "not yet"}, {text: "–"}})
			continue
		}
		rows = append(rows, []cell{{text: d.Date.Format("Monday 2 January")}, {text: chart.Number(d.Low)}, {text: chart.Number(d.Medium)}, {text: chart.Number(d.High)}, {text: chart.Number(d.Critical)}, {text: chart.Number(d.Total()), bold: true}, {text: r.before(d.Before)}})
	}
	w.table([]column{{"Day", 46, toLeft}, {"Low", 19, toRight}, {"Medium", 19, toRight}, {"High", 19, toRight}, {"Critical", 19, toRight}, {"All", 21, toRight}, {"Week before", 27, toRight}}, rows)
}

// column is one of a table: its heading, width in millimetres and alignment.
type column struct {
	name  string
	width float64
	align int
}

// cell is one of a row.
type cell struct {
	text, note string  // the note stands below, quieter
	bold       bool    //
	share      float64 // draws a bar of this part of the column's width instead of text
	isBar      bool
	tone       string // colours the text
}

// table writes rows, none of them over two pages; the head is repeated on each page.
func (w *writer) table(cols []column, rows [][]cell) {
	const pad = 1.35
	t := w.root.add("Table")
	head := func(tagged bool) {
		draw := func(c column, x float64) {
			w.print([]string{c.name}, headFace, x, w.y+pad, c.width, c.align)
		}
		x := left
		var tr *element
		if tagged {
			tr = t.add("TR")
		}
		for _, c := range cols {
			if c.name != "" {
				if tagged {
					th := tr.add("TH")
					th.scope = "Column"
					w.mark(th, func() { draw(c, x) })
				} else {
					w.artifact(func() { draw(c, x) })
				}
			}
			x += c.width
		}
		w.y += headFace.leading() + 2*pad
		w.artifact(func() {
			w.stroke(strong)
			w.pdf.SetLineWidth(0.3)
			w.pdf.Line(left, w.y, right, w.y)
		})
	}
	type laid struct{ text, note []string }
	lay := func(row []cell) (lines []laid, height float64) {
		lines = make([]laid, len(row))
		for i, c := range row {
			f := cellFace
			f.bold = c.bold
			width := cols[i].width
			if cols[i].align == toLeft {
				width -= 3
			}
			lines[i] = laid{w.wrap(c.text, f, width), w.wrap(c.note, small, width)}
			height = max(height, float64(len(lines[i].text))*f.leading()+float64(len(lines[i].note))*small.leading())
		}
		return lines, height + 2*pad
	}
	for n, row := range rows {
		lines, height := lay(row)
		room := height
		if n == len(rows)-2 { // the last row does not stand alone on a page
			_, last := lay(rows[n+1])
			room += last
		}
		switch {
		case n == 0:
			w.need(room + headFace.leading() + 2*pad)
			head(true)
		case w.y+room > bottomText:
			w.page()
			head(false)
		}
		tr := t.add("TR")
		x := left
		for i, c := range row {
			width := cols[i].width
			if c.isBar {
				w.artifact(func() {
					w.fill(track)
					w.pdf.Rect(x, w.y+pad+0.7, width-4, 2.6, "F")
					w.fill(primary)
					w.pdf.Rect(x, w.y+pad+0.7, max((width-4)*c.share, 0.25), 2.6, "F")
				})
				x += width
				continue
			}
			kind, scope := "TD", ""
			if i == 0 {
				kind, scope = "TH", "Row"
			}
			f := cellFace
			f.bold = c.bold
			if k, ok := toneInk[c.tone]; ok {
				f.colour, f.bold = k, true
			}
			e := tr.add(kind)
			e.scope = scope
			if len(lines[i].text)+len(lines[i].note) > 0 {
				w.mark(e, func() {
					w.print(lines[i].text, f, x, w.y+pad, width, cols[i].align)
					w.print(lines[i].note, small, x, w.y+pad+float64(len(lines[i].text))*f.leading(), width, cols[i].align)
				})
			}
			x += width
		}
		w.y += height
		w.artifact(func() {
			w.stroke(hairline)
			w.pdf.SetLineWidth(0.2)
			w.pdf.Line(left, w.y, right, w.y)
		})
	}
	w.y += 3
}

// ranking writes lines as a table with a bar each.
func (w *writer) ranking(what string, list []Line) {
	most := int64(1)
	for _, l := range list {
		most = max(most, l.Figure.Now)
	}
	var rows [][]cell
	for _, l := range list {
		rows = append(rows, []cell{{text: l.Name, note: l.Note}, {isBar: true, share: float64(l.Figure.Now) / float64(most)}, {text: l.Figure.Number(), bold: true}, {text: l.Percent()}, {text: w.r.before(l.Figure.Before)}})
	}
	w.table([]column{{what, 66, toLeft}, {"", 40, toLeft}, {"Events", 22, toRight}, {"Share", 17, toRight}, {"Week before", 25, toRight}}, rows)
}

func (w *writer) tried() {
	w.heading("What they tried", 12+min(60, 9*float64(len(w.r.Tried))))
	if len(w.r.Tried) == 0 {
		w.paragraph(noneTried)
		return
	}
	w.paragraph(triedText)
	w.ranking("Aimed at", w.r.Tried)
}

func (w *writer) places() {
	w.heading("Where it came from", 12+min(60, 7*float64(len(w.r.Countries))))
	if len(w.r.Countries) == 0 && len(w.r.Addresses) == 0 {
		w.paragraph(nonePlaces)
		return
	}
	w.paragraph(placesText)
	if len(w.r.Countries) > 0 {
		w.ranking("Country of the address", w.r.Countries)
	}
	if len(w.r.Addresses) > 0 {
		var rows [][]cell
		for _, a := range w.r.Addresses {
			rows = append(rows, []cell{{text: a.Name}, {text: a.Note}, {text: a.Figure.Number(), bold: true}, {text: a.Percent()}})
		}
		w.y += 1
		w.table([]column{{"Busiest addresses", 55, toLeft}, {"Country and network", 76, toLeft}, {"Events", 22, toRight}, {"Share", 17, toRight}}, rows)
	}
}

func (w *writer) alerts() {
	r := w.r
	room := 6.0
	if len(r.Alerts) > 0 {
		room = 42
	}
	w.heading("Alerts, and what to do", room)
	w.paragraph(r.AlertsText())
	for i, a := range r.Alerts {
		title := face{11, true, ink}
		meta := face{8.5, false, quiet}
		tl := w.wrap(a.Title, title, full-30)
		badge := face{8, true, toneInk[a.Tone]}
		facts := a.Facts()
		room := float64(len(tl))*title.leading() + float64(len(w.wrap(facts, meta, full)))*meta.leading() + float64(len(w.wrap(a.What, body, full)))*body.leading() + 6
		for _, d := range a.Do {
			room += float64(len(w.wrap(d, body, full-6))) * body.leading()
		}
		w.need(min(room, 90))
		w.artifact(func() {
			if i > 0 && w.y > topText {
				w.stroke(hairline)
				w.pdf.SetLineWidth(0.2)
				w.pdf.Line(left, w.y-1.2, right, w.y-1.2)
			}
		})
		w.y += 1
		w.set(badge)
		word := a.badge()
		width := w.pdf.GetStringWidth(word) + 4
		w.artifact(func() {
			w.fill(toneFill[a.Tone])
			w.pdf.Rect(left, w.y+0.3, width, 4.6, "F")
		})
		h := w.root.add("H3")
		w.mark(h, func() {
			w.print([]string{word}, badge, left+2, w.y+0.9, width, toLeft)
			w.print(tl, title, left+width+3, w.y, full-width, toLeft)
		})
		w.y += float64(len(tl))*title.leading() + 0.8
		w.block(&w.root, "P", facts, meta, left, full, 1)
		if a.What != "" {
			w.block(&w.root, "P", a.What, body, left, full, 1)
		}
		w.steps(a.Do, "What to do: ")
		w.y += 2.4
	}
}

// steps writes a list.
func (w *writer) steps(list []string, lead string) {
	if len(list) == 0 {
		return
	}
	if len(list) == 1 && lead != "" {
		w.block(&w.root, "P", lead+list[0], body, left, full, 1)
		return
	}
	if lead != "" {
		w.block(&w.root, "P", strings.TrimSpace(lead), bodyBold, left, full, 0.5)
	}
	l := w.root.add("L")
	for _, s := range list {
		lines := w.wrap(s, body, full-6)
		height := float64(len(lines)) * body.leading()
		w.need(height)
		li := l.add("LI")
		w.mark(li.add("Lbl"), func() { w.print([]string{"•"}, body, left+1.5, w.y, 4, toLeft) })
		w.mark(li.add("LBody"), func() { w.print(lines, body, left+6, w.y, full-6, toLeft) })
		w.y += height + 0.6
	}
}

func (w *writer) lines() {
	r := w.r
	w.heading("What stayed with you, and what was sent", 40)
	w.paragraph(r.LinesText())
	if r.Lines.Received.Now+r.Lines.Received.Before > 0 {
		row := func(name, note string, f Figure) []cell {
			return []cell{{text: name, note: note}, {text: f.Number(), bold: true}, {text: r.before(f.Before)}}
		}
		w.table([]column{{"Lines of your devices", 110, toLeft}, {"This week", 30, toRight}, {"Week before", 30, toRight}}, [][]cell{
			row("Received by your collector", "", r.Lines.Received),
			row("Stayed on your site", "ordinary traffic, and what your policy keeps at home", r.Lines.Kept),
			row("Stayed on your site, not understood", "kept in the collector's own archive", r.Lines.NotUnderstood),
			row("Sent to the centre", "signs of attack, with the fields that your policy lets go", r.Lines.Left),
		})
	}
	w.heading("Your collectors", min(80, 8+10*float64(len(r.Reporters))))
	if len(r.Reporters) == 0 {
		w.paragraph(noCollector)
	} else {
		var rows [][]cell
		for _, c := range r.Reporters {
			rows = append(rows, []cell{{text: c.Name, note: c.Site}, {text: c.State, tone: c.Tone}, {text: c.Note}})
		}
		w.table([]column{{"Collector and site", 60, toLeft}, {"State", 35, toLeft}, {"How it is", 75, toLeft}}, rows)
	}
	if text := r.QuietText(); text != "" {
		w.paragraph(text)
	}
}

func (w *writer) advice() {
	w.heading("What would help most now", 34)
	w.paragraph(adviceText)
	for i, a := range w.r.Advice {
		title := face{11.5, true, ink}
		room := title.leading() + float64(len(w.wrap(a.Why, body, full)))*body.leading() + 4
		for _, d := range a.Do {
			room += float64(len(w.wrap(d, body, full-6)))*body.leading() + 0.6
		}
		w.need(min(room, 120))
		w.block(&w.root, "H3", fmt.Sprintf("%d. %s", i+1, a.Title), title, left, full, 0.6)
		w.block(&w.root, "P", a.Why, face{10, false, quiet}, left, full, 0.8)
		w.steps(a.Do, "")
		w.y += 2.6
	}
}

func (w *writer) about() {
	w.heading("About this report", 30)
	for _, p := range w.r.About() {
		w.block(&w.root, "P", p, face{9, false, quiet}, left, full, 1.6)
	}
}
