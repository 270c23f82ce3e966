package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
	_ "time/tzdata"

	"tocsin/internal/chart"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed assets
var assetFiles embed.FS

// london is the zone of every time on the pages. The zones are linked in, so a
// machine without them shows the same.
var london = func() *time.Location {
	l, err := time.LoadLocation("Europe/London")
	if err != nil {
		panic(err) // time/tzdata is linked
	}
	return l
}()

// asset is one embedded file as it is served: its bytes never change while the
// program runs, so they are compressed and named once.
type asset struct {
	body, zipped []byte
	mime, etag   string
}

type renderer struct {
	assets map[string]*asset
	pages  map[string]*template.Template
	now    func() time.Time
}

func newRenderer(now func() time.Time) (*renderer, error) {
	r := &renderer{assets: map[string]*asset{}, pages: map[string]*template.Template{}, now: now}
	err := fs.WalkDir(assetFiles, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := assetFiles.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		a := &asset{body: body, mime: mime.TypeByExtension(path.Ext(name)), etag: hex.EncodeToString(sum[:8])}
		switch path.Ext(name) {
		case ".woff2":
			a.mime = "font/woff2"
		case ".svg":
			a.mime = "image/svg+xml"
		case ".js":
			a.mime = "text/javascript; charset=utf-8"
		}
		if path.Ext(name) != ".woff2" { // already compressed
			var b bytes.Buffer
			z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
			if err != nil {
				return err
			}
			if _, err := z.Write(body); err != nil {
				return err
			}
			if err := z.Close(); err != nil {
				return err
			}
			a.zipped = b.Bytes()
		}
		r.assets[path.Base(name)] = a
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read embedded assets: %w", err)
	}
	names, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		base := strings.TrimSuffix(path.Base(name), ".html")
		switch base {
		case "layout", "parts":
			continue
		}
		t := template.New(base).Funcs(r.funcs())
		if t, err = t.ParseFS(templateFiles, "templates/layout.html", "templates/parts.html", name); err != nil {
			return nil, fmt.Errorf("parse page %s: %w", base, err)
		}
		r.pages[base] = t
	}
	return r, nil
}

// write executes one page into memory first, so that an error in a template is an
// error page and not half a page.
func (r *renderer) write(w http.ResponseWriter, status int, name string, p *page) error {
	frame := "portal"
	if p.Console {
		frame = "console"
	}
	return r.part(w, status, name, frame, p)
}

// part executes one named template of a page.
func (r *renderer) part(w http.ResponseWriter, status int, name, part string, data any) error {
	var b bytes.Buffer
	if err := r.execute(&b, name, part, data); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, err := w.Write(b.Bytes())
	return err
}

func (r *renderer) execute(b *bytes.Buffer, name, part string, data any) error {
	t, ok := r.pages[name]
	if !ok {
		return fmt.Errorf("there is no page %q", name)
	}
	if err := t.ExecuteTemplate(b, part, data); err != nil {
		return fmt.Errorf("show page %s: %w", name, err)
	}
	return nil
}

// href is the address of an asset, with its digest, so that a browser may keep it
// for good.
func (r *renderer) href(name string) string {
	a, ok := r.assets[name]
	if !ok {
		return "/assets/" + name
	}
	return "/assets/" + name + "?v=" + a.etag
}

func (r *renderer) serveAsset(w http.ResponseWriter, req *http.Request) {
	a, ok := r.assets[req.PathValue("name")]
	if !ok {
		http.NotFound(w, req)
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.mime)
	h.Set("Vary", "Accept-Encoding")
	etag := `"` + a.etag + `"`
	if req.URL.Query().Get("v") == a.etag {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		h.Set("Cache-Control", "public, max-age=604800")
	}
	body := a.body
	if a.zipped != nil && strings.Contains(req.Header.Get("Accept-Encoding"), "gzip") {
		body, etag = a.zipped, `"`+a.etag+`-gz"`
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("ETag", etag)
	if req.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	if req.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(body) // the reader went away: nobody is left to tell
}

func (r *renderer) funcs() template.FuncMap {
	return template.FuncMap{
		"asset":        r.href,
		"number":       number,
		"plural":       pluralOf,
		"zone":         func() string { return r.now().In(london).Format("MST") },
		"sentence":     sentence,
		"sevword":      severityWord,
		"country":      chart.Country,
		"bars":         chart.Bars,
		"clock":        func(t time.Time) string { return r.clock(t, "15:04:05") },
		"clockms":      func(t time.Time) string { return r.clock(t, "15:04:05.000") },
		"code":         code,
		"iso":          func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"full":         full,
		"day":          func(t time.Time) string { return t.In(london).Format("2 Jan 2006") },
		"when":         r.when,
		"took":         took,
		"between":      r.between,
		"ago":          r.ago,
		"balance":      func(b balance) template.HTML { return chart.Balance("Where the lines went", balanceParts(b)) },
		"balanceparts": func(b balance) []chart.Part { return balanceParts(b) },
	}
}

// number takes any integer, because counts come as int, int64 and uint64.
func number(v any) (string, error) {
	switch n := v.(type) {
	case int:
		return chart.Number(int64(n)), nil
	case int64:
		return chart.Number(n), nil
	case uint64:
		return chart.Number(int64(min(n, 1<<63-1))), nil
	case uint32:
		return chart.Number(int64(n)), nil
	}
	return "", fmt.Errorf("number: %T is not a count", v)
}

// plural is the word that follows n: "event", or "events", or many where that is not made with an s.
func plural(n int64, one string, many ...string) string {
	switch {
	case n == 1:
		return one
	case len(many) > 0:
		return many[0]
	}
	return one + "s"
}

// pluralOf is plural for any count that a template has.
func pluralOf(v any, one string, many ...string) (string, error) {
	switch n := v.(type) {
	case int:
		return plural(int64(n), one, many...), nil
	case int64:
		return plural(n, one, many...), nil
	}
	return "", fmt.Errorf("plural: %T is not a count", v)
}

func severityWord(s string) string {
	switch s {
	case "critical":
		return "Critical"
	case "high":
		return "High"
	case "medium":
		return "Medium"
	case "low":
		return "Low"
	}
	return "Info"
}

// clock is the time of day for today's instants, with the day before it for others of this year, and the date alone beyond.
func (r *renderer) clock(t time.Time, layout string) string {
	if t.IsZero() {
		return "–"
	}
	t, now := t.In(london), r.now().In(london)
	switch {
	case t.Year() != now.Year():
		return t.Format("2 Jan 2006")
	case t.YearDay() == now.YearDay():
		return t.Format(layout)
	case layout == "15:04:05": // a narrow column, and on another day seconds say nothing
		layout = "15:04"
	}
	return t.Format("2 Jan " + layout)
}

// code writes text in which `this` is to be typed as it stands.
func code(text string) template.HTML {
	var b strings.Builder
	parts := strings.Split(text, "`")
	for i, part := range parts {
		part = template.HTMLEscapeString(part)
		switch {
		case i%2 == 1 && i == len(parts)-1: // one mark alone is a mark
			part = "`" + part
		case i%2 == 1:
			part = `<code class="mono">` + part + "</code>"
		}
		b.WriteString(part)
	}
	return template.HTML(b.String())
}

// full is date, time and zone: "22 Nov 2026, 03:14:32 GMT".
func full(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.In(london).Format("2 Jan 2006, 15:04:05 MST")
}

// when leaves out what everybody knows: the date of today, the year of this one.
func (r *renderer) when(t time.Time) template.HTML {
	if t.IsZero() {
		return "never"
	}
	l, now := t.In(london), r.now().In(london)
	layout := "2 Jan 2006, 15:04 MST"
	switch {
	case l.YearDay() == now.YearDay() && l.Year() == now.Year():
		layout = "15:04 MST"
	case l.Year() == now.Year():
		layout = "2 Jan, 15:04 MST"
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s">%s</time>`, t.UTC().Format(time.RFC3339), full(t), l.Format(layout)))
}

// between says two instants shortly: seconds matter within a day, days beyond.
func (r *renderer) between(from, to time.Time) template.HTML {
	a, b, now := from.In(london), to.In(london), r.now().In(london)
	day := func(t time.Time) string { return t.Format(time.DateOnly) }
	text := ""
	switch {
	case to.Sub(from) < time.Second:
		text = "at " + b.Format("15:04:05 MST")
	case day(a) == day(b):
		text = "from " + a.Format("15:04:05") + " to " + b.Format("15:04:05 MST")
	default:
		return "from " + r.when(from) + " to " + r.when(to)
	}
	if day(b) != day(now) {
		text = b.Format("2 Jan 2006") + " " + text
	}
	return template.HTML(`<span title="` + full(from) + " to " + full(to) + `">` + text + "</span>")
}

// took is a span that something lasted, to what the eye can use.
func took(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond)/time.Millisecond)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// ago is a relative time that the page's script keeps true.
func (r *renderer) ago(t time.Time) template.HTML {
	if t.IsZero() {
		return "never"
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s" data-ago="%d">%s</time>`, t.UTC().Format(time.RFC3339), full(t), t.UnixMilli(), relative(r.now().Sub(t))))
}

// relative says a span in its largest unit: "2 minutes ago". The script in
// assets-src/js/time.ts says the same.
func relative(d time.Duration) string {
	s := int64(d / time.Second)
	abs := max(s, -s)
	say := func(n int64, unit string) string {
		text := fmt.Sprintf("%d %s", n, plural(n, unit))
		if s < 0 {
			return "in " + text
		}
		return text + " ago"
	}
	switch {
	case abs < 5:
		return "just now"
	case abs < 60:
		return say(abs, "second")
	case abs < 3600:
		return say(abs/60, "minute")
	case abs < 2*86400:
		return say(abs/3600, "hour")
	}
	return say(abs/86400, "day")
}

// short is relative in few letters, for a figure: "41 s ago".
func short(d time.Duration) string {
	switch {
	case d < 5*time.Second:
		return "Just now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	}
	return fmt.Sprintf("%d days ago", d/(24*time.Hour))
}

func balanceParts(b balance) []chart.Part {
	parts := []chart.Part{
		{Name: "Kept at home", Class: "s-low", Value: b.KeptAll},
		{Name: "Left the site", Class: "s-brand", Value: b.LeftAll},
		{Name: "Not understood", Class: "s-high", Value: b.NotUnderstood},
	}
	if b.LineGap > 0 {
		parts = append(parts, chart.Part{Name: "Not accounted for", Class: "s-critical", Value: b.LineGap})
	}
	return parts
}
