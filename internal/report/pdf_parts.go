package report

import (
	"fmt"
	"math"
	"strings"

	"tocsin/internal/chart"
)

// opening is the title, the verdict and the figures at a glance.
func (w *writer) opening() {
	r := w.r
	w.block(&w.root, "P", r.subtitle(), face{11, false, quiet}, left, full, 0.6)
	w.block(&w.root, "H1", "Weekly report", face{24, true, bar}, left, full, 0.8)
	w.block(&w.root, "P", r.Period(), face{11, false, ink}, left, full, 4)
	if note := r.InventedNote(); note != "" {
		w.notice("note", "These figures are invented.", note)
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
		rows = append(rows, []cell{{text: d.Date.Format("Monday 2 January")}, {text: chart.Number(d.Low)}, {text: chart.Number(d.Medium)}, {text: chart.Number(d.High)}, {text: chart.Number(d.Critical)}, {text: chart.Number(d.Total()), bold: true}, {text: r.dayBefore(&d)}})
	}
	w.table([]column{{"Day", 46, toLeft}, {"Low", 19, toRight}, {"Medium", 19, toRight}, {"High", 19, toRight}, {"Critical", 19, toRight}, {"All", 21, toRight}, {"Week before", 27, toRight}}, rows)
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
