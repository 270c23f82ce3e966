package report

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"strings"

	"tocsin/internal/chart"
)

var (
	//go:embed report.css
	styleSheet string
	//go:embed report.html.tmpl
	pageText string
)

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"style":   func() template.CSS { return template.CSS(styleSheet) },
	"number":  chart.Number,
	"ranking": func(what string, lines []Line, p page) ranking { return ranking{what, lines, p} },
}).Parse(pageText))

// ContentSecurityPolicy is the policy under which the page of a report is served: nothing but itself and its own style sheet, which is
// named by its digest.
var ContentSecurityPolicy = func() string {
	sum := sha256.Sum256([]byte(styleSheet))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
}()

// Link leads from a report's page to somewhere else; links are not printed.
type Link struct {
	Href, Text string
	Download   bool
}

// page is what the template sees: the report and the sentences it shares with the PDF.
type page struct {
	*Report
	Links []Link
}

func (page) TriedText() string        { return triedText }
func (page) NoneTried() string        { return noneTried }
func (page) PlacesText() string       { return placesText }
func (page) NonePlaces() string       { return nonePlaces }
func (page) AdviceText() string       { return adviceText }
func (page) NoCollector() string      { return noCollector }
func (p page) Earlier(n int64) string { return p.before(n) }
func (p page) DayBefore(d Day) string { return p.dayBefore(&d) }

type ranking struct {
	What   string
	Lines  []Line
	Report page
}

// Width is the length of a line's bar, in hundredths of the longest.
func (r ranking) Width(line Line) string {
	most := int64(1)
	for _, l := range r.Lines {
		most = max(most, l.Figure.Now)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", max(100*float64(line.Figure.Now)/float64(most), 0.5)), ".0")
}

// HTML writes the report as one page that needs no other file: for reading on any screen, with any reader, and for printing. It is the
// accessible form; the PDF is its copy. The links stand above it.
func (r *Report) HTML(links ...Link) ([]byte, error) {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, page{r, links}); err != nil {
		return nil, fmt.Errorf("writing the report's page: %w", err)
	}
	return b.Bytes(), nil
}
