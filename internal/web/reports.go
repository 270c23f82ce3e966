package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/chart"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/report"
)

// Reports makes the members' weekly reports; *report.Maker is it.
type Reports interface {
	Build(ctx context.Context, scope access.Scope, tenant event.TenantID, week report.Week) (*report.Report, error)
}

// listedWeeks is how many weeks the list of reports has: a quarter of a year.
const listedWeeks = 13

type reportsView struct {
	Organisation string
	Problem      string
	Base         string // of the links: /reports or /members/7/reports
	MemberHref   string // of the member's page, for the centre; "" for the member
	Now          reportRow
	Weeks        []reportRow
}

type reportRow struct {
	Week, Days, Events string
}

// reports lists the weeks that there are reports of.
func (s *server) reports(w http.ResponseWriter, r *request) error {
	return s.showReports(w, r, r.principal.Tenant, "/reports")
}

// memberReports shows the same list to the centre.
func (s *server) memberReports(w http.ResponseWriter, r *request) error {
	tenant, err := tenantOf(r)
	if err != nil {
		return err
	}
	return s.showReports(w, r, tenant, fmt.Sprintf("/members/%d/reports", tenant))
}

func (s *server) showReports(w http.ResponseWriter, r *request, tenant event.TenantID, base string) error {
	if s.o.Reports == nil {
		return errNotFound
	}
	ctx, scope := r.Context(), r.scope.Narrow(tenant)
	org, err := s.o.Members.Organisation(ctx, scope, tenant)
	if err != nil {
		return err
	}
	now := s.o.Now()
	week := report.WeekOf(now)
	v := reportsView{Organisation: org.Name, Base: base, MemberHref: strings.TrimSuffix(base, "/reports"), Now: reportRow{Week: week.String(), Days: week.Words()}}
	first := week
	for range listedWeeks {
		first = first.Before()
	}
	counts := map[report.Week]uint64{}
	to := now.Add(time.Hour - 1).Truncate(time.Hour)
	buckets, err := s.o.Events.Histogram(ctx, scope, eventstore.Filter{From: first.Start().UnixNano(), To: to.UnixNano()}, time.Hour)
	if err != nil {
		s.o.Logger.ErrorContext(ctx, "counting events by week", "tenant", tenant, "error", err)
		v.Problem = "The figures cannot be read at the moment, so reports may fail too. Try again in a minute."
	}
	for _, b := range buckets {
		counts[report.WeekOf(time.Unix(0, b.Start))] += b.Total()
	}
	v.Now.Events = chart.Number(int64(counts[week])) + " suspicious " + plural(int64(counts[week]), "event")
	joined := report.WeekOf(instant(org.CreatedNS))
	for wk := week.Before(); !wk.Start().Before(first.Start()); wk = wk.Before() {
		// Weeks before the member joined are shown when there is something in them.
		if counts[wk] == 0 && wk.Start().Before(joined.Start()) {
			continue
		}
		row := reportRow{Week: wk.String(), Days: wk.Words(), Events: chart.Number(int64(counts[wk]))}
		if v.Problem != "" {
			row.Events = "–"
		}
		v.Weeks = append(v.Weeks, row)
	}
	p := s.page(r, "Weekly reports of "+org.Name, "/reports", v)
	p.Width = "medium"
	if r.staff() {
		p.Nav = navigation(r.principal.Role, "/members")
	}
	return s.show(w, r, "reports", p)
}

// report gives one report: 2026-W47.html or 2026-W47.pdf.
func (s *server) report(w http.ResponseWriter, r *request) error {
	return s.giveReport(w, r, r.principal.Tenant, "/reports")
}

// memberReport gives the same to the centre.
func (s *server) memberReport(w http.ResponseWriter, r *request) error {
	tenant, err := tenantOf(r)
	if err != nil {
		return err
	}
	return s.giveReport(w, r, tenant, fmt.Sprintf("/members/%d/reports", tenant))
}

func (s *server) giveReport(w http.ResponseWriter, r *request, tenant event.TenantID, base string) error {
	name, pdf := strings.CutSuffix(r.PathValue("file"), ".pdf")
	name, html := strings.CutSuffix(name, ".html")
	week, err := report.ParseWeek(name)
	if s.o.Reports == nil || pdf == html || err != nil {
		return errNotFound
	}
	rep, err := s.o.Reports.Build(r.Context(), r.scope, tenant, week)
	if errors.Is(err, report.ErrFuture) {
		return errNotFound
	}
	if err != nil {
		return err
	}
	var body []byte
	kind, disposition := "application/pdf", "inline"
	if pdf {
		body, err = rep.PDF()
	} else {
		kind = "text/html; charset=utf-8"
		links := []report.Link{{Href: base, Text: "All reports"}, {Href: base + "/" + name + ".pdf", Text: "PDF, for printing"}, {Href: base + "/" + name + ".html?save=yes", Text: "Save this page", Download: true}}
		if r.FormValue("save") != "" { // a saved page leads nowhere
			links, disposition = nil, "attachment"
		}
		body, err = rep.HTML(links...)
		// The page brings its own style, named by its digest; nothing else may run or load.
		w.Header().Set("Content-Security-Policy", report.ContentSecurityPolicy)
	}
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Content-Disposition", disposition+`; filename="`+rep.FileName()+"."+map[bool]string{true: "pdf", false: "html"}[pdf]+`"`)
	_, err = w.Write(body)
	return err
}
