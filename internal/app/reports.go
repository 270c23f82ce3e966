package app

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"tocsin/internal/report"
)

// openReports makes what writes the weekly reports, and, where there is a mail relay, what mails them.
func (h *hub) openReports(context.Context) (err error) {
	h.reports, err = report.New(report.Options{
		Events: h.store, Alerts: h.alerts, Members: accounts{h.office.Members, h.plans}, Invented: h.office.Members.Invented,
		Scheme: h.cfg.Scheme, PublicURL: h.cfg.Web.PublicURL,
	})
	if err != nil || h.cfg.Mail.Host == "" || !h.cfg.Reports.Mail {
		return err
	}
	day, err := h.cfg.Reports.Day()
	if err != nil {
		return err
	}
	h.sender, err = report.NewSender(report.SenderOptions{Maker: h.reports, DB: h.office.DB, Outbox: h.box, Weekday: day, Hour: h.cfg.Reports.Hour, Logger: h.log})
	return err
}

// sendReports mails the weekly reports until ctx is done.
func (h *hub) sendReports(ctx context.Context) error {
	if h.sender == nil {
		return nil
	}
	return h.sender.Run(ctx)
}

// serveReport gives one member's report to the machine's administrator: only the running hub can ask the event store.
// /admin/report?member=NAME&week=2026-W47&format=pdf
func (h *hub) serveReport(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	week := report.WeekOf(time.Now()).Before()
	if text := q.Get("week"); text != "" {
		var err error
		if week, err = report.ParseWeek(text); err != nil {
			tell(w, err)
			return
		}
	}
	org, err := h.office.Members.FindOrganisation(r.Context(), h.office.scope(), q.Get("member"))
	if err != nil {
		tell(w, err)
		return
	}
	rep, err := h.reports.Build(r.Context(), h.office.scope(), org.ID, week)
	if err != nil {
		tell(w, err)
		return
	}
	var body []byte
	switch format := strings.ToLower(q.Get("format")); format {
	case "pdf":
		w.Header().Set("Content-Type", "application/pdf")
		body, err = rep.PDF()
	case "html":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		body, err = rep.HTML()
	default:
		err = fmt.Errorf("a report is pdf or html, not %q", format)
	}
	if err != nil {
		tell(w, err)
		return
	}
	w.Header().Set("Tocsin-Week", week.String())
	w.Write(body) // whoever asked may have gone
}
