package web

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/eventstore"
	"tocsin/internal/report"
)

func exampleReports(base string) reportsView {
	return reportsView{Organisation: "Millbrook College", Base: base, Now: reportRow{"2026-W48", "23 to 29 November 2026", "12,004"},
		Weeks: []reportRow{{"2026-W47", "16 to 22 November 2026", "48,210"}, {"2026-W46", "9 to 15 November 2026", "43,044"}, {"2026-W45", "2 to 8 November 2026", "0"}}}
}

// calm is an event store that has nothing, for reports where the engine is away.
type calm struct{}

func (calm) Histogram(context.Context, access.Scope, eventstore.Filter, time.Duration) ([]eventstore.Bucket, error) {
	return nil, nil
}
func (calm) Summary(context.Context, access.Scope, int64, int64) (eventstore.Summary, error) {
	return eventstore.Summary{}, nil
}
func (calm) Top(context.Context, access.Scope, eventstore.Field, eventstore.Filter, int) ([]eventstore.Count, error) {
	return nil, nil
}

func (w *world) reports() Reports {
	w.t.Helper()
	o := report.Options{Events: calm{}, Alerts: w.alerts, Members: w.members, Scheme: "Northshire Cyber Alarm"}
	if _, gone := w.events.(away); !gone {
		o.Events = w.events
	}
	m, err := report.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// TestReports reads a member's report as its own people and as the centre, on the real engine where it is installed.
func TestReports(t *testing.T) {
	w := newWorld(t, hasEngine())
	week := report.WeekOf(w.now())
	m := w.client("member1")
	status, body := m.get("/reports")
	if status != http.StatusOK {
		t.Fatalf("the list: %d %s", status, body)
	}
	contains(t, "the list", body, "This week so far", `href="/reports/`+week.String()+`.html"`, `href="/reports/`+week.String()+`.pdf"`, `aria-current="page"`)
	browsers := map[string]*client{"member1": m, "member2": w.client("member2"), "analyst": w.client("analyst"), "operator": w.client("operator")}
	for _, c := range []struct {
		who, path, kind, disposition string
	}{
		{"member1", "/reports/" + week.String() + ".html", "text/html; charset=utf-8", "inline"},
		{"member1", "/reports/" + week.String() + ".html?save=yes", "text/html; charset=utf-8", "attachment"},
		{"member1", "/reports/" + week.String() + ".pdf", "application/pdf", "inline"},
		{"analyst", "/members/1/reports/" + week.String() + ".html", "text/html; charset=utf-8", "inline"},
		{"operator", "/members/1/reports/" + week.String() + ".pdf", "application/pdf", "inline"},
	} {
		res, body := browsers[c.who].do(http.MethodGet, c.path, nil)
		h := res.Header
		if res.StatusCode != http.StatusOK || h.Get("Content-Type") != c.kind || !strings.HasPrefix(h.Get("Content-Disposition"), c.disposition+`; filename="tocsin-report-`+week.String()) || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s as %s: %d, %q, %q, %q", c.path, c.who, res.StatusCode, h.Get("Content-Type"), h.Get("Content-Disposition"), h.Get("Cache-Control"))
			continue
		}
		if c.kind == "application/pdf" {
			if !strings.HasPrefix(body, "%PDF-1.") {
				t.Errorf("%s is no PDF: %.40q", c.path, body)
			}
			continue
		}
		if csp := h.Get("Content-Security-Policy"); csp != report.ContentSecurityPolicy || !strings.HasPrefix(csp, "default-src 'none'; style-src 'sha256-") {
			t.Errorf("%s: policy %q", c.path, csp)
		}
		contains(t, c.path, body, memberNames[0], "Somebody may have got in through your VPN", "What would help most now")
		lacks(t, c.path, body, memberNames[1], memberNames[2], "<script", "style=")
		if hasEngine() {
			contains(t, c.path, body, "Netherlands", "VPN")
		}
		if strings.Contains(c.path, "save") == strings.Contains(body, `<nav class="tools"`) {
			t.Errorf("%s: links out of the page: %v", c.path, strings.Contains(body, "<nav"))
		}
	}
	for _, path := range []string{"/reports/2026-W99.html", "/reports/2999-W01.html", "/reports/" + week.String(), "/reports/" + week.String() + ".exe", "/reports/..%2f.pdf", "/reports/x.html.pdf"} {
		if status, _ := m.get(path); status != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, status)
		}
	}
	if status, _ := browsers["member2"].get("/members/1/reports/" + week.String() + ".html"); status != http.StatusForbidden {
		t.Errorf("another member's report: %d, want 403", status)
	}
	if got := w.log.String(); hasEngine() && strings.Contains(got, "level=ERROR") {
		t.Error(got)
	}
}
