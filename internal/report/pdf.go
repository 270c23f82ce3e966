package report

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
	"unicode"

	"codeberg.org/go-pdf/fpdf"
	"golang.org/x/image/font/sfnt"
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
	toneFill     = map[string]colour{"note": {244, 248, 251}, "good": {220, 239, 228}, "warn": {253, 235, 210}, "bad": {249, 221, 221}, "critical": {249, 221, 221}, "high": {253, 235, 210}, "medium": {219, 233, 247}, "low": {232, 236, 242}, "informational": {232, 236, 242}}
	toneEdge     = map[string]colour{"note": {138, 148, 160}, "good": {15, 122, 82}, "warn": {240, 161, 38}, "bad": {212, 53, 28}}
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
