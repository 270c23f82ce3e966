package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/chart"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/member"
	"tocsin/internal/report"
)

// severities of the stacked charts, bottom first.
var severitySeries = []chart.Series{{Name: "Low", Class: "s-low"}, {Name: "Medium", Class: "s-medium"}, {Name: "High", Class: "s-high"}, {Name: "Critical", Class: "s-critical"}}

var periods = []link{{Key: "1", Text: "Last 24 hours"}, {Key: "7", Text: "Last 7 days"}, {Key: "30", Text: "Last 30 days"}, {Key: "90", Text: "Last 90 days"}}

// picture is the member's own first page.
func (s *server) picture(w http.ResponseWriter, r *request) error {
	return s.showPicture(w, r, r.principal.Tenant)
}

// memberPicture shows the same page to the centre.
func (s *server) memberPicture(w http.ResponseWriter, r *request) error {
	tenant, err := tenantOf(r)
	if err != nil {
		return err
	}
	return s.showPicture(w, r, tenant)
}

func tenantOf(r *request) (event.TenantID, error) {
	n, err := strconv.ParseUint(r.PathValue("tenant"), 10, 32)
	if err != nil || n == 0 {
		return 0, errNotFound
	}
	return event.TenantID(n), nil
}

func (s *server) showPicture(w http.ResponseWriter, r *request, tenant event.TenantID) error {
	ctx, scope, now := r.Context(), r.scope.Narrow(tenant), s.o.Now()
	org, err := s.o.Members.Organisation(ctx, scope, tenant)
	if err != nil {
		return err
	}
	days := 7
	for _, p := range periods {
		if r.FormValue("days") == p.Key {
			days, _ = strconv.Atoi(p.Key) // of our own list
		}
	}
	v := pictureView{Organisation: org.Name, Area: org.Area, Heading: "Your attack picture", Periods: current(periods, strconv.Itoa(days)), AlertsHref: "/alerts", LeftHref: "/collectors"}
	if r.staff() {
		v.Heading, v.AlertsHref, v.LeftHref = "Attack picture", fmt.Sprintf("/queue?view=open&tenant=%d", tenant), fmt.Sprintf("/members/%d", tenant)
	}
	collectors, err := s.o.Members.Collectors(ctx, scope)
	if err != nil {
		return err
	}
	open, err := s.openAlerts(ctx, scope)
	if err != nil {
		return err
	}
	figures, err := s.figures(ctx, scope, days, now, &v)
	if err != nil {
		// Alerts and collectors are shown whatever the event store does.
		s.o.Logger.ErrorContext(ctx, "reading a member's figures", "tenant", tenant, "error", err)
		v.Problem = "The figures cannot be read at the moment, so some of this page is empty. Your alerts below are complete. Try again in a minute."
		figures = eventstore.Summary{}
	}
	if records, ok := s.o.Members.(Inventor); ok {
		from, _ := span(days, now)
		if v.Invented, err = records.Invented(ctx, tenant, from.UnixNano(), now.UnixNano()); err != nil {
			return err
		}
	}
	s.verdict(&v, r, collectors, open, figures, days)
	v.OpenAlerts = open.total
	for i := range open.newest {
		row := s.alertRow(&open.newest[i])
		if r.staff() { // the plain words speak to the member
			row.PlainTitle, row.Advice = row.Title, nil
		}
		v.Alerts = append(v.Alerts, row)
	}
	v.MoreAlerts = open.total > int64(len(open.newest))
	p := s.page(r, v.Heading+" of "+org.Name, "/picture", v)
	p.Width = "medium"
	if r.staff() {
		p.Nav = navigation(r.principal.Role, "/members")
	}
	return s.show(w, r, "picture", p)
}

// current marks one link of a list.
func current(list []link, key string) []link {
	out := slices.Clone(list)
	for i := range out {
		out[i].Current = out[i].Key == key
	}
	return out
}

// span is the instants a period covers: whole days of London, or the last 24
// hours from a full hour on.
func span(days int, now time.Time) (from, before time.Time) {
	l := now.In(london)
	if days == 1 {
		from = l.Truncate(time.Hour).Add(-23 * time.Hour)
		return from, from.Add(-24 * time.Hour)
	}
	midnight := time.Date(l.Year(), l.Month(), l.Day(), 0, 0, 0, 0, london)
	return midnight.AddDate(0, 0, 1-days), midnight.AddDate(0, 0, 1-2*days)
}

// figures fills in the charts and the first two tiles.
func (s *server) figures(ctx context.Context, scope access.Scope, days int, now time.Time, v *pictureView) (eventstore.Summary, error) {
	from, before := span(days, now)
	v.Chart = chart.Histogram{What: "Suspicious events each day", Series: severitySeries, Height: 210}
	v.ChartTitle, v.ColumnName = "Suspicious events each day", "Day"
	if days == 1 {
		v.Chart.What, v.ChartTitle, v.ColumnName = "Suspicious events each hour", "Suspicious events each hour", "Hour"
	}
	v.Map = chart.World("Where attacks came from", s.render.href("world.svg"), nil)
	v.Tiles = []tile{{Label: "Suspicious events", Figure: "–"}, {Label: "Attacking addresses", Figure: "–"}}
	filter := eventstore.Filter{From: from.UnixNano(), To: now.UnixNano()}
	buckets, err := s.o.Events.Histogram(ctx, scope, filter, time.Hour)
	if err != nil {
		return eventstore.Summary{}, fmt.Errorf("events over time: %w", err)
	}
	v.Chart.Columns = columns(buckets, from, now, days)
	sum, err := s.o.Events.Summary(ctx, scope, filter.From, filter.To)
	if err != nil {
		return sum, fmt.Errorf("sums: %w", err)
	}
	was, err := s.o.Events.Summary(ctx, scope, before.UnixNano(), filter.From)
	if err != nil {
		return sum, fmt.Errorf("sums of the period before: %w", err)
	}
	countries, err := s.o.Events.Top(ctx, scope, eventstore.ByCountry, filter, 250)
	if err != nil {
		return sum, fmt.Errorf("countries: %w", err)
	}
	for _, c := range countries {
		v.Countries = append(v.Countries, chart.Place{Code: c.Value, Count: int64(c.Count)})
	}
	v.Map = chart.World("Where attacks came from", s.render.href("world.svg"), v.Countries)
	for service, n := range sum.ByService {
		if n > 0 {
			bar := chart.Bar{Value: int64(n)}
			var what string
			if bar.Label, what = report.ServiceWords(service); unexplained[service] {
				bar.Note = "– " + what
			}
			v.Tried = append(v.Tried, bar)
		}
	}
	slices.SortFunc(v.Tried, func(a, b chart.Bar) int {
		if a.Value != b.Value {
			return int(min(1, max(-1, b.Value-a.Value)))
		}
		return compare(a.Label, b.Label)
	})
	v.Tried = v.Tried[:min(8, len(v.Tried))]
	v.Tiles[0] = changeTile("Suspicious events", sum.Events, was.Events, days)
	v.Tiles[1] = changeTile("Attacking addresses", sum.Sources, was.Sources, days)
	return sum, nil
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// columns adds hours up to the days of London, which are 23 or 25 hours long
// twice a year.
func columns(buckets []eventstore.Bucket, from, to time.Time, days int) []chart.Column {
	var cols []chart.Column
	index := map[string]int{}
	key := func(t time.Time) string { return t.In(london).Format(time.DateOnly) }
	next := func(t time.Time) time.Time { return t.AddDate(0, 0, 1) }
	label, title := "2 Jan", "Monday 2 January"
	if days == 1 {
		key = func(t time.Time) string { return strconv.FormatInt(t.Truncate(time.Hour).Unix(), 10) }
		next = func(t time.Time) time.Time { return t.Add(time.Hour) }
		label, title = "15:04", "2 January, 15:04"
	}
	for t := from; t.Before(to); t = next(t) {
		index[key(t)] = len(cols)
		cols = append(cols, chart.Column{Label: t.In(london).Format(label), Title: t.In(london).Format(title), Values: make([]int64, 4)})
	}
	for _, b := range buckets {
		if i, ok := index[key(time.Unix(0, b.Start))]; ok {
			for j, n := range []uint64{b.Low, b.Medium, b.High, b.Critical} {
				cols[i].Values[j] += int64(n)
			}
		}
	}
	return cols
}

// changeTile compares a figure with the period before it. More attempts are not
// the member's fault, so only less is coloured.
func changeTile(label string, n, was uint64, days int) tile {
	t := tile{Label: label, Figure: chart.Number(int64(n))}
	before := fmt.Sprintf("the %d days before", days)
	if days == 1 {
		before = "the 24 hours before"
	}
	switch {
	case was == 0 && n == 0:
		t.Note = "as in " + before
	case was == 0:
		t.Note = "none in " + before
	case n == was:
		t.Note = "as many as in " + before
	default:
		change := 100 * (float64(n) - float64(was)) / float64(was)
		arrow := "↑"
		if change < 0 {
			arrow, change, t.Tone = "↓", -change, "good"
		}
		share := fmt.Sprintf("%.0f%%", change)
		if change < 1 {
			share = "less than 1%"
		}
		if change > 999 {
			share = fmt.Sprintf("%.0f times", float64(n)/float64(was))
			t.Note = fmt.Sprintf("%s %s as many as in %s", arrow, share, before)
			return t
		}
		t.Note = fmt.Sprintf("%s %s on %s", arrow, share, before)
	}
	return t
}

// verdict answers "are we all right?" from what needs somebody: grave alerts
// first, then whether the member is watched at all.
func (s *server) verdict(v *pictureView, r *request, collectors []member.Collector, open openAlerts, sum eventstore.Summary, days int) {
	standing := open.standing
	var newest time.Time
	for i := range collectors {
		c := &collectors[i]
		view := s.collectorView(c, r)
		if view.LastData.After(newest) {
			newest = view.LastData
		}
		state := c.Condition(s.o.Now())
		standing.Count(state)
		switch state {
		case member.ShutOut, member.Healthy:
		case member.Unconfirmed:
			if !r.staff() {
				v.Actions = append(v.Actions, actionLink{fmt.Sprintf("Your collector %q waits for its check words.", c.Name), "/collectors/" + c.ID, "Confirm it"})
			}
		default:
			v.Actions = append(v.Actions, actionLink{fmt.Sprintf("%s collector %q: %s.", whose(r, true), c.Name, lower(view.VerdictHeading)), "/collectors/" + c.ID, "See what to do"})
		}
	}
	for i := range open.grave {
		row := s.alertRow(&open.grave[i])
		link := actionLink{row.PlainTitle + ".", "/alerts/" + row.ID, "See what to do"}
		if r.staff() {
			link.Text, link.Link = row.Title+".", "Open the alert"
		}
		v.Actions = slices.Insert(v.Actions, i, link)
	}
	alerts := tile{Label: "Open alerts", Figure: chart.Number(open.total), Href: v.AlertsHref, Note: "none is urgent"}
	switch {
	case standing.Critical > 0:
		alerts.Note, alerts.Tone = fmt.Sprintf("%d critical", standing.Critical), "bad"
	case standing.High > 0:
		alerts.Note, alerts.Tone = fmt.Sprintf("%d high", standing.High), "bad"
	case standing.Medium > 0:
		alerts.Note, alerts.Tone = fmt.Sprintf("%d worth a look", standing.Medium), "warn"
	case open.total == 0:
		alerts.Note, alerts.Tone, alerts.Href = "nothing to do", "good", ""
	}
	collector := tile{Label: "Collector", Words: true, Href: v.LeftHref}
	if len(collectors) > 1 {
		collector.Label = "Collectors"
	}
	switch {
	case standing.Unwell > 0:
		collector.Figure, collector.Note, collector.Tone = "Needs a look", fmt.Sprintf("%d of %d not well", standing.Unwell, standing.Well+standing.Unwell+standing.Waiting), "bad"
	case standing.Waiting > 0 && standing.Well > 0:
		collector.Figure, collector.Note, collector.Tone = "One step left", fmt.Sprintf("%d of %d waits for its check words", standing.Waiting, standing.Well+standing.Waiting), "warn"
		if standing.Waiting > 1 {
			collector.Note = fmt.Sprintf("%d of %d wait for their check words", standing.Waiting, standing.Well+standing.Waiting)
		}
	case standing.Well > 0:
		collector.Figure, collector.Tone, collector.Href = "Healthy", "good", ""
		collector.Note, collector.Since, collector.SinceText = "Last data", newest.UnixMilli(), relative(s.o.Now().Sub(newest))
	case standing.Waiting > 0:
		collector.Figure, collector.Note, collector.Tone = "One step left", "waits for its check words", "warn"
	default:
		collector.Figure, collector.Note, collector.Tone = "None yet", "see how to join", "warn"
	}
	v.Tiles = append(v.Tiles, alerts, collector)

	period := fmt.Sprintf("In the last %d days", days)
	if days == 1 {
		period = "In the last 24 hours"
	}
	seen := fmt.Sprintf("%s %s devices reported %s suspicious %s from %s %s.", period, whose(r, false), chart.Number(int64(sum.Events)), plural(int64(sum.Events), "event"), chart.Number(int64(sum.Sources)), plural(int64(sum.Sources), "address", "addresses"))
	if sum.Events == 0 {
		seen = period + " nothing suspicious was reported."
	}
	if v.Problem != "" {
		seen = ""
	}
	question := "Are we all right? "
	if r.staff() {
		question = "Are they all right? "
	}
	why := seen + " We keep watching."
	switch standing.Answer() {
	case member.NotQuite:
		why = seen + " Please start with what is below; our analysts see it too."
		if r.staff() {
			why = seen + " Start with what is below."
		}
	case member.NearlyThere:
		why = whose(r, true) + " collector has joined. Confirm its check words, and the watch begins."
	case member.CannotSay:
		why = "No collector sends anything, so nothing can be seen. Set one up and this page fills by itself."
	case member.CannotBeSure:
		why = seen + " But a collector is not well, so attacks may go unseen."
	case member.Mostly:
		why = seen + fmt.Sprintf(" %s worth a look; none is serious.", areWorth(standing.Medium))
		if standing.Medium == 0 {
			why = seen + " A collector waits for its check words; what it sends counts when you have compared them."
			if r.staff() {
				why = seen + " A collector waits for its check words, which the member compares."
			}
		}
	}
	words := standing.Words()
	if r.staff() {
		words = strings.NewReplacer("need you.", "need them.", "needs you.", "needs them.").Replace(words)
	}
	v.Verdict = verdict{standing.Tone(), question + words, strings.TrimSpace(why)}
}

// whose is how a page speaks of what is the member's: to the member, or to the centre.
func whose(r *request, start bool) string {
	switch {
	case r.staff() && start:
		return "Their"
	case r.staff():
		return "their"
	case start:
		return "Your"
	}
	return "your"
}

func areWorth(n int64) string {
	if n == 1 {
		return "One alert is"
	}
	return fmt.Sprintf("%d alerts are", n)
}

func lower(s string) string {
	if s == "" {
		return s
	}
	return string(s[0]|0x20) + s[1:]
}
