package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

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

// TestReportInBrowser shows a report's page under its own policy, at two widths in two themes.
func TestReportInBrowser(t *testing.T) {
	t.Parallel()
	ctx := browser(t)
	week := report.Week{Year: 2026, Number: 47}
	r := &report.Report{Organisation: "Millbrook College", Area: "Northshire Police area", Scheme: "Northshire Cyber Alarm", PublicURL: "https://alarm.example.org", Week: week, From: week.Start(), To: week.End(), Made: week.End().Add(7 * time.Hour),
		Invented: true, Tone: "bad", Verdict: "Not quite: one thing needs you.", Reason: "Your devices reported 48,210 suspicious events.", Events: report.Figure{Now: 48210, Before: 43044}, Sources: report.Figure{Now: 3914, Before: 4077}, NewAlerts: report.Figure{Now: 3}, OpenAlerts: 2, OpenGrave: 1, AllAlerts: 3,
		Tried:     []report.Line{{Name: "Remote desktop", Note: "working on a computer from far away", Figure: report.Figure{Now: 18802, Before: 12010}, Share: 0.39}, {Name: "SSH sign-in", Figure: report.Figure{Now: 201}, Share: 0.004}},
		Countries: []report.Line{{Name: "Netherlands", Figure: report.Figure{Now: 17320, Before: 2010}, Share: 0.36}},
		Addresses: []report.Line{{Name: "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", Note: "Netherlands, Example Hosting BV", Figure: report.Figure{Now: 11240}, Share: 0.23}},
		Lines:     report.Lines{Received: report.Figure{Now: 12840113, Before: 12700221}, Kept: report.Figure{Now: 12790004}, Left: report.Figure{Now: 48210}},
		Reporters: []report.Collector{{Name: "server room", Site: "Main site", State: "Healthy", Tone: "good", Note: "last heard of on Monday"}, {Name: "annexe", Site: "Sixth form", State: "Silent", Tone: "bad", Note: "last heard of on Sunday"}, {Name: "new", Site: "Sixth form", State: "One step left", Tone: "warn", Note: "compare its check words"}},
		Quiet:     []string{"Sunday 22 November"}, Advice: []report.Advice{{Title: "Turn on two-step sign-in", Why: "212 sign-ins failed.", Do: []string{"Turn it on.", "Close old accounts."}}, {Title: "Install updates", Why: "3 known attacks.", Do: []string{"Start outside."}}},
	}
	for i := range 7 {
		r.Days = append(r.Days, report.Day{Date: r.From.AddDate(0, 0, i), Low: 3000, Medium: 1200 * int64(i), High: 90, Critical: 12, Before: 4000})
	}
	for _, tone := range []string{"critical", "high", "medium", "low", "informational"} {
		r.Alerts = append(r.Alerts, report.Alert{Ref: "AL-7K3M9QX", Severity: tone, Tone: tone, Title: "Somebody may have got in through your VPN", What: "Someone tried many passwords.", Do: []string{"Telephone the person.", "Reset the password."}, Subject: "j.marlowe", State: "Open", Open: true, First: r.From, Last: r.To, Events: 12})
	}
	page, err := r.HTML(report.Link{Href: "/reports", Text: "All reports"}, report.Link{Href: "/reports/2026-W47.pdf", Text: "PDF, for printing"})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/favicon.ico" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Security-Policy", report.ContentSecurityPolicy)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if _, err := w.Write(page); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	c := listen(t, ctx)
	if err := chromedp.Do(ctx, chromedp.Navigate(server.URL)); err != nil {
		t.Fatal(err)
	}
	look(t, ctx, c, "report")
}
