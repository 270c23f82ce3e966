// Package report makes a member's weekly report: what attackers tried, from where, what it came to, and what to do, in plain words, each
// figure compared with the week before. It makes it as a web page that stands on its own, as a tagged PDF, and as a mail with the PDF.
//
// Build reads roll-ups, alerts and the members' records, always in the scope it is given narrowed to one member; never raw events, so its
// cost does not grow with the history. What it returns holds everything that HTML and PDF show: the same Report gives the same words in both.
//
// Sender mails the reports once a week. It writes one row for each member and week in the same transaction as the outbox entry, and the
// row stays: a crash at any moment leaves both or neither, and no member gets a week twice. It counts reports made, mailed and failed.
package report

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/chart"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/member"
)

// Events is what a report needs of the event store; *eventstore.Store is it. Every question here is answered from roll-ups.
type Events interface {
	Histogram(ctx context.Context, scope access.Scope, f eventstore.Filter, step time.Duration) ([]eventstore.Bucket, error)
	Summary(ctx context.Context, scope access.Scope, from, to int64) (eventstore.Summary, error)
	Top(ctx context.Context, scope access.Scope, field eventstore.Field, f eventstore.Filter, n int) ([]eventstore.Count, error)
}

// Alerts is what a report needs of the alerts; *alert.Store is it.
type Alerts interface {
	Span(ctx context.Context, scope access.Scope, from, to int64, limit int) ([]alert.Alert, int64, error)
	Between(ctx context.Context, scope access.Scope, from, to int64) ([]alert.Facet, error)
	Unanswered(ctx context.Context, scope access.Scope) (map[alert.Severity]int64, error)
}

// Members is what a report needs of the members' records; *member.Store is it.
type Members interface {
	Organisations(ctx context.Context, scope access.Scope) ([]member.Organisation, error)
	Organisation(ctx context.Context, scope access.Scope, id event.TenantID) (member.Organisation, error)
	Collectors(ctx context.Context, scope access.Scope) ([]member.Collector, error)
	Days(ctx context.Context, scope access.Scope, collector string, from, to time.Time) ([]member.Day, error)
}

// Options say what reports are made from. Events, Alerts and Members are needed.
type Options struct {
	Events    Events
	Alerts    Alerts
	Members   Members
	Scheme    string           // who runs this installation, as members know it; default "Tocsin"
	PublicURL string           // where the portal is, without a slash at the end; "" leaves addresses out
	Now       func() time.Time // default time.Now
	// Invented says whether a member's figures in a span of UTC nanoseconds are made up, as in the past of a demonstration;
	// (*member.Store).Invented is it. nil: none are.
	Invented func(ctx context.Context, tenant event.TenantID, from, to int64) (bool, error)
}

// Maker makes reports. Any number of goroutines may use it.
type Maker struct{ o Options }

// New returns a Maker.
func New(o Options) (*Maker, error) {
	if o.Events == nil || o.Alerts == nil || o.Members == nil {
		return nil, errors.New("reports need events, alerts and members")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Scheme == "" {
		o.Scheme = "Tocsin"
	}
	o.PublicURL = strings.TrimSuffix(o.PublicURL, "/")
	return &Maker{o}, nil
}

// ErrFuture says that the week has not begun.
var ErrFuture = errors.New("that week has not begun yet")

// Figure is a number of this week beside that of the week before.
type Figure struct {
	Now    int64 `json:"now"`
	Before int64 `json:"before"`
	First  bool  `json:"first,omitempty"` // there is no week before to compare with
}

// Number writes this week's.
func (f Figure) Number() string { return chart.Number(f.Now) }

// Compared says the change in words; they follow a figure.
func (f Figure) Compared() string {
	switch {
	case f.First:
		return "your first week"
	case f.Now == f.Before:
		return "the same as the week before"
	case f.Before == 0:
		return "none the week before"
	case f.Now == 0:
		return chart.Number(f.Before) + " the week before"
	}
	way, share := "more", 100*(float64(f.Now)/float64(f.Before)-1)
	if share < 0 {
		way, share = "fewer", -share
	}
	switch {
	case f.Before < 20: // shares of small numbers say more than there is
		return chart.Number(f.Before) + " the week before"
	case share < 1:
		return "about the same as the week before"
	case way == "more" && share >= 200:
		return fmt.Sprintf("%s times the week before", trimmed(float64(f.Now)/float64(f.Before)))
	}
	return fmt.Sprintf("%.0f%% %s than the week before", share, way)
}

// Way is up, down or same.
func (f Figure) Way() string {
	switch {
	case f.First || f.Now == f.Before:
		return "same"
	case f.Now > f.Before:
		return "up"
	}
	return "down"
}

func trimmed(v float64) string {
	if v >= 10 {
		return chart.Number(int64(math.Round(v)))
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
}

// Day is one day's suspicious events by level.
type Day struct {
	Date                        time.Time `json:"date"` // midnight in London
	Low, Medium, High, Critical int64
	Before                      int64 `json:"before"` // the same day a week earlier, all levels; of a day that runs, the same hours
	Future                      bool  `json:"future,omitempty"`
	NoBefore                    bool  `json:"no_before,omitempty"` // a week earlier the member was not here, and there is nothing of that day
}

// Total is the sum over the levels.
func (d Day) Total() int64 { return d.Low + d.Medium + d.High + d.Critical }

// Line is one line of a ranking.
type Line struct {
	Name   string  `json:"name"`
	Note   string  `json:"note,omitempty"`
	Figure Figure  `json:"figure"`
	Share  float64 `json:"share"` // of this week's events, 0 to 1
}

// Percent writes the share.
func (l Line) Percent() string {
	switch p := 100 * l.Share; {
	case p > 0 && p < 1:
		return "under 1%"
	default:
		return fmt.Sprintf("%.0f%%", p)
	}
}

// Alert is one alert in plain words.
type Alert struct {
	Ref      string    `json:"ref"`
	Severity string    `json:"severity"` // Low … Critical, For your information
	Tone     string    `json:"tone"`     // critical, high, medium, low
	Title    string    `json:"title"`
	What     string    `json:"what,omitempty"`
	Do       []string  `json:"do,omitempty"`
	Subject  string    `json:"subject,omitempty"` // the address, person or computer it is about
	State    string    `json:"state"`
	Open     bool      `json:"open"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Events   int64     `json:"events"`
	Older    bool      `json:"older,omitempty"` // it began before this week
}

// Collector is how a collector is when the report is made.
type Collector struct {
	Name  string `json:"name"`
	Site  string `json:"site"`
	State string `json:"state"`
	Tone  string `json:"tone"` // good, warn, bad
	Note  string `json:"note"`
}

// Lines is what became of the lines that the collectors received.
type Lines struct {
	Received      Figure `json:"received"`
	Kept          Figure `json:"kept"`           // stayed on the site
	Left          Figure `json:"left"`           // signs of attack that were allowed to leave
	NotUnderstood Figure `json:"not_understood"` // stayed on the site too
	Lost          int64  `json:"lost"`           // events dropped on the site, for want of room
}

// KeptShare is the part of the lines that stayed on the site, 0 to 1.
func (l Lines) KeptShare() float64 {
	if l.Received.Now == 0 {
		return 0
	}
	return float64(l.Kept.Now+l.NotUnderstood.Now) / float64(l.Received.Now)
}

// Report is one member's week. It holds nothing of another member.
type Report struct {
	Tenant       event.TenantID `json:"tenant"`
	Organisation string         `json:"organisation"`
	Area         string         `json:"area,omitempty"`
	Scheme       string         `json:"scheme"`
	PublicURL    string         `json:"public_url,omitempty"`
	Week         Week           `json:"week"`
	From         time.Time      `json:"from"`
	To           time.Time      `json:"to"`   // the week's end, or the hour up to which there are figures
	Made         time.Time      `json:"made"` // when the report was made
	Partial      bool           `json:"partial,omitempty"`
	Invented     bool           `json:"invented,omitempty"`
	Unserved     bool           `json:"unserved,omitempty"` // no collector was in service in this week

	Tone    string `json:"tone"` // good, warn, bad
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`

	Events, Sources, SignInFailed, Recognised Figure // Recognised: by an intrusion sensor or virus protection
	NewAlerts                                 Figure
	OpenAlerts, OpenGrave                     int             // of this week
	Standing                                  member.Standing // when the report was made, of whatever week

	Days      []Day       `json:"days"`
	Tried     []Line      `json:"tried"`
	Countries []Line      `json:"countries"`
	Addresses []Line      `json:"addresses"`
	Alerts    []Alert     `json:"alerts"`
	AllAlerts int64       `json:"all_alerts"` // of which Alerts shows the gravest
	Lines     Lines       `json:"lines"`
	Reporters []Collector `json:"collectors"`
	Quiet     []string    `json:"quiet"` // days on which no collector reported a line
	Advice    []Advice    `json:"advice"`
}

// How many lines the lists of a report have.
const (
	mostTried     = 8
	mostPlaces    = 8
	mostAddresses = 6
	mostAlerts    = 10
)

// Build makes the report of one member and week. A week that still runs is reported up to now and compared with the same days of the week
// before. Errors are those of the stores, and ErrFuture; a member outside the scope is member.ErrNotFound.
func (m *Maker) Build(ctx context.Context, scope access.Scope, tenant event.TenantID, week Week) (*Report, error) {
	now := m.o.Now()
	if now.Before(week.Start()) {
		return nil, fmt.Errorf("the report of %s: %w", week, ErrFuture)
	}
	scope = scope.Narrow(tenant)
	org, err := m.o.Members.Organisation(ctx, scope, tenant)
	if err != nil {
		return nil, err
	}
	r := &Report{
		Tenant: tenant, Organisation: org.Name, Area: org.Area, Scheme: m.o.Scheme, PublicURL: m.o.PublicURL, Week: week, From: week.Start(), To: week.End(), Made: now.In(london),
	}
	if now.Before(r.To) {
		r.Partial = true
		r.To = now.Add(time.Hour - 1).Truncate(time.Hour).In(london)
		if !r.To.After(r.From) {
			r.To = r.From.Add(time.Hour)
		}
	}
	before := span{r.From.AddDate(0, 0, -7), r.To.AddDate(0, 0, -7)}
	first := org.CreatedNS >= before.to.UnixNano()

	collectors, err := m.o.Members.Collectors(ctx, scope)
	if err != nil {
		return nil, err
	}
	sum, err := m.events(ctx, scope, r, span{r.From, r.To}, before, first)
	if err != nil {
		return nil, fmt.Errorf("the report of %s for %s: %w", week, org.Name, err)
	}
	for i := range r.Days {
		r.Days[i].NoBefore = r.Days[i].Before == 0 && org.CreatedNS >= r.From.AddDate(0, 0, i-6).UnixNano() // a demonstration has a past from before
	}
	first = r.Events.First // for every figure alike
	if err := m.alerts(ctx, scope, r, before, first); err != nil {
		return nil, err
	}
	if err := m.lines(ctx, scope, r, before, first, collectors); err != nil {
		return nil, err
	}
	if m.o.Invented != nil {
		if r.Invented, err = m.o.Invented(ctx, tenant, before.from.UnixNano(), r.To.UnixNano()); err != nil {
			return nil, fmt.Errorf("whether the figures are invented: %w", err)
		}
	}
	r.judge()
	r.Advice = advise(r, sum)
	return r, nil
}

type span struct{ from, to time.Time }

// days is the span as the roll-ups by day have it: whole days of UTC, so that weeks do not overlap in summer.
func (s span) days() (from, to int64) {
	utc := func(t time.Time) int64 {
		l := t.In(london)
		return time.Date(l.Year(), l.Month(), l.Day(), 0, 0, 0, 0, time.UTC).UnixNano()
	}
	from, to = utc(s.from), utc(s.to)
	if s.to.In(london).Hour() != 0 || to == from {
		to += int64(24 * time.Hour)
	}
	return from, to
}

// events fills in everything that comes from the event store and returns this week's sums.
func (m *Maker) events(ctx context.Context, scope access.Scope, r *Report, this, before span, first bool) (sum eventstore.Summary, err error) {
	read := func(s span) (eventstore.Summary, error) {
		sum, err := m.o.Events.Summary(ctx, scope, s.from.UnixNano(), s.to.UnixNano())
		if err != nil {
			return sum, fmt.Errorf("sums: %w", err)
		}
		if from, to := s.days(); from != s.from.UnixNano() { // summer time: addresses are counted by days of UTC
			days, err := m.o.Events.Summary(ctx, scope, from, to)
			if err != nil {
				return sum, fmt.Errorf("addresses: %w", err)
			}
			sum.Sources = days.Sources
		}
		return sum, nil
	}
	top := func(field eventstore.Field, s span, n int) ([]eventstore.Count, error) {
		from, to := s.days()
		list, err := m.o.Events.Top(ctx, scope, field, eventstore.Filter{From: from, To: to}, n)
		if err != nil {
			return nil, fmt.Errorf("list by %s: %w", field, err)
		}
		return list, nil
	}
	// The questions do not wait for each other: someone looks at a blank page meanwhile. The store bounds how many it answers at once.
	var (
		was                        eventstore.Summary
		buckets                    []eventstore.Bucket
		countries, then, addresses []eventstore.Count
	)
	var ask errgroup.Group
	ask.Go(func() (err error) { sum, err = read(this); return err })
	ask.Go(func() (err error) { was, err = read(before); return err })
	ask.Go(func() (err error) {
		// Both weeks in one question.
		buckets, err = m.o.Events.Histogram(ctx, scope, eventstore.Filter{From: before.from.UnixNano(), To: this.to.UnixNano()}, time.Hour)
		if err != nil {
			return fmt.Errorf("events over time: %w", err)
		}
		return nil
	})
	ask.Go(func() (err error) { countries, err = top(eventstore.ByCountry, this, mostPlaces); return err })
	ask.Go(func() (err error) { then, err = top(eventstore.ByCountry, before, 250); return err })
	ask.Go(func() (err error) { addresses, err = top(eventstore.BySourceIP, this, mostAddresses); return err })
	if err := ask.Wait(); err != nil {
		return sum, err
	}
	first = first && was.Events == 0
	figure := func(now, before uint64) Figure { return Figure{int64(now), int64(before), first} }
	r.Events, r.Sources = figure(sum.Events, was.Events), figure(sum.Sources, was.Sources)
	r.SignInFailed, r.Recognised = figure(sum.SignInFailed, was.SignInFailed), figure(sum.IDS+sum.Malware, was.IDS+was.Malware)

	// Hours are added up to the days of London, which are 23 or 25 hours long twice a year.
	index := map[string]int{}
	for i := range 7 {
		d := r.From.AddDate(0, 0, i)
		r.Days = append(r.Days, Day{Date: d, Future: !d.Before(r.To)})
		index[d.Format(time.DateOnly)] = i
	}
	for _, b := range buckets {
		at := time.Unix(0, b.Start).In(london)
		if !at.Before(before.to) && at.Before(this.from) {
			continue // a week that runs is compared with the same part of the week before
		}
		if i, ok := index[at.Format(time.DateOnly)]; ok {
			d := &r.Days[i]
			d.Low, d.Medium, d.High, d.Critical = d.Low+int64(b.Low), d.Medium+int64(b.Medium), d.High+int64(b.High), d.Critical+int64(b.Critical)
		} else if i, ok := index[at.AddDate(0, 0, 7).Format(time.DateOnly)]; ok {
			r.Days[i].Before += int64(b.Total())
		}
	}

	share := func(n uint64) float64 {
		if sum.Events == 0 {
			return 0
		}
		return min(1, float64(n)/float64(sum.Events))
	}
	for key, n := range sum.ByService {
		if n > 0 && key != "" {
			s := serviceOf(key)
			r.Tried = append(r.Tried, Line{s.name, s.what, figure(n, was.ByService[key]), share(n)})
		}
	}
	slices.SortFunc(r.Tried, func(a, b Line) int {
		if a.Figure.Now != b.Figure.Now {
			return int(min(1, max(-1, b.Figure.Now-a.Figure.Now)))
		}
		return strings.Compare(a.Name, b.Name)
	})
	r.Tried = r.Tried[:min(len(r.Tried), mostTried)]

	by := map[string]uint64{}
	for _, c := range then {
		by[c.Value] = c.Count
	}
	for _, c := range countries {
		r.Countries = append(r.Countries, Line{chart.Country(c.Value), "", figure(c.Count, by[c.Value]), share(c.Count)})
	}
	for _, a := range addresses {
		l := Line{Name: a.Value, Figure: figure(a.Count, 0), Share: share(a.Count)}
		var notes []string
		if a.Country != "" {
			notes = append(notes, chart.Country(a.Country))
		}
		if a.ASName != "" {
			notes = append(notes, a.ASName)
		}
		l.Note = strings.Join(notes, ", ")
		r.Addresses = append(r.Addresses, l)
	}
	return sum, nil
}

var severityWords = map[alert.Severity]string{alert.Informational: "For your information", alert.Low: "Low", alert.Medium: "Medium", alert.High: "High", alert.Critical: "Critical"}

// alerts fills in the alerts, by the hub's clock.
func (m *Maker) alerts(ctx context.Context, scope access.Scope, r *Report, before span, first bool) error {
	list, total, err := m.o.Alerts.Span(ctx, scope, r.From.UnixNano(), r.To.UnixNano(), 200)
	if err != nil {
		return err
	}
	r.AllAlerts = total
	open, err := m.o.Alerts.Unanswered(ctx, scope)
	if err != nil {
		return err
	}
	r.Standing = member.Standing{Critical: open[alert.Critical], High: open[alert.High], Medium: open[alert.Medium]}
	for _, s := range []struct {
		span
		n *int64
	}{{span{r.From, r.To}, &r.NewAlerts.Now}, {before, &r.NewAlerts.Before}} {
		families, err := m.o.Alerts.Between(ctx, scope, s.from.UnixNano(), s.to.UnixNano())
		if err != nil {
			return fmt.Errorf("counting alerts: %w", err)
		}
		for _, f := range families {
			*s.n += f.Count
		}
	}
	r.NewAlerts.First = first && r.NewAlerts.Before == 0
	told := map[string]bool{}
	for i := range list {
		a := &list[i]
		if a.Open && a.AcknowledgedNS == 0 {
			r.OpenAlerts++
			if a.Severity >= alert.High {
				r.OpenGrave++
			}
		}
		if i >= mostAlerts {
			continue
		}
		x := Alert{
			Ref: a.Ref, Severity: severityWords[a.Severity], Tone: a.Severity.String(), Title: a.Title, Subject: a.Entity, State: "Open", Open: a.Open,
			First: time.Unix(0, a.FirstNS).In(london), Last: time.Unix(0, a.LastNS).In(london), Events: a.Count, Older: a.CreatedNS < r.From.UnixNano(),
		}
		if a.EntityKind == "rule" {
			x.Subject = a.Source
		}
		if t := a.Details.Text; t.Title != "" {
			x.Title, x.What, x.Do = t.Title, t.What, steps(t.Do)
		}
		switch {
		case a.State == alert.StateClosed:
			x.State = map[string]string{"true_positive": "Closed: it was an attack", "benign": "Closed: harmless", "false_positive": "Closed: false alarm", "duplicate": "Closed: known already"}[a.Verdict]
			if x.State == "" {
				x.State = "Closed"
			}
		case a.AcknowledgedNS > 0:
			x.State = "You have dealt with it"
		case a.Assignee != "":
			x.State = "Open; an analyst is on it"
		}
		if !a.Open {
			x.Do = nil // it is over: nobody is to be sent running
		}
		if told[x.Title] {
			x.What = "" // as above
		}
		told[x.Title] = true
		r.Alerts = append(r.Alerts, x)
	}
	return nil
}

// steps takes a rule's text apart into lines.
func steps(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(strings.TrimLeft(strings.TrimSpace(line), "-*• ")); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// lines fills in what became of the lines, and how the collectors are.
func (m *Maker) lines(ctx context.Context, scope access.Scope, r *Report, before span, first bool, collectors []member.Collector) error {
	const day = 24 * time.Hour
	read := func(s span) (map[string]member.Balance, member.Balance, error) {
		from, to := s.days()
		list, err := m.o.Members.Days(ctx, scope, "", time.Unix(0, from), time.Unix(0, to-1))
		if err != nil {
			return nil, member.Balance{}, err
		}
		days, sum := map[string]member.Balance{}, member.Balance{Kept: map[string]uint64{}, Left: map[string]uint64{}, Dropped: map[string]uint64{}}
		for _, d := range list {
			b := d.Balance
			days[d.Start.UTC().Format(time.DateOnly)] = b
			sum.Received += b.Received
			sum.NotUnderstood += b.NotUnderstood
			sum.Kept["all"] += total(b.Kept)
			sum.Left["all"] += total(b.Left)
			sum.Dropped["all"] += total(b.Dropped)
		}
		return days, sum, nil
	}
	days, sum, err := read(span{r.From, r.To})
	if err != nil {
		return err
	}
	_, was, err := read(before)
	if err != nil {
		return err
	}
	first = first && was.Received == 0
	figure := func(now, before uint64) Figure { return Figure{int64(now), int64(before), first} }
	r.Lines = Lines{
		Received: figure(sum.Received, was.Received), Kept: figure(total(sum.Kept), total(was.Kept)), Left: figure(total(sum.Left), total(was.Left)),
		NotUnderstood: figure(sum.NotUnderstood, was.NotUnderstood), Lost: int64(total(sum.Dropped)),
	}

	earliest := int64(math.MaxInt64)
	for i := range collectors {
		c := &collectors[i]
		state := c.Condition(r.Made)
		r.Standing.Count(state)
		if state == member.ShutOut {
			if c.RevokedNS >= r.From.UnixNano() && c.RegisteredNS < r.To.UnixNano() {
				r.Reporters = append(r.Reporters, Collector{c.Name, c.Site, outOfService, "warn", "on " + time.Unix(0, c.RevokedNS).In(london).Format("2 January 2006")})
				earliest = min(earliest, c.RegisteredNS)
			}
			continue
		}
		earliest = min(earliest, c.RegisteredNS)
		x := Collector{Name: c.Name, Site: c.Site, State: state.String(), Tone: state.Tone(), Note: "has never sent anything"}
		if c.LastSeenNS > 0 {
			x.Note = "last heard of on " + time.Unix(0, c.LastSeenNS).In(london).Format("Monday 2 January at 15:04 MST")
		}
		switch state {
		case member.Unconfirmed:
			x.Note = "compare its check words in the portal, under Collectors"
		case member.Copied:
			x.Note = "two different records came under one number, as after a restore from a backup; the centre looks into it"
		case member.Unbalanced:
			x.Note = count(absolute(c.Balance.Gap), "line") + " cannot be accounted for; the centre looks into it"
		case member.Idle:
			x.Note = "it is connected, but no device of yours has sent it a line"
		case member.NotUnderstood:
			x.Note = "more than a fifth of the lines is in a form that is not known yet; they stay with you"
		}
		r.Reporters = append(r.Reporters, x)
	}
	r.Unserved = earliest >= r.To.UnixNano()
	if earliest != math.MaxInt64 {
		for i := range r.Days {
			d := r.Days[i].Date
			midnight := time.Date(d.Year(), d.Month(), d.Day(), 0, 0, 0, 0, time.UTC)
			if end := midnight.Add(day); end.After(r.Made) || midnight.UnixNano() < earliest {
				continue // not over yet, or before there was a collector
			}
			if days[midnight.Format(time.DateOnly)].Received == 0 && r.Days[i].Total() == 0 {
				r.Quiet = append(r.Quiet, d.Format("Monday 2 January"))
			}
		}
	}
	return nil
}

func total(m map[string]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}

func absolute(n int64) int64 {
	if n < 0 {
		return -n
	}
	return n
}

// outOfService is the state of a collector that was revoked within the week.
const outOfService = "Taken out of service"

// silent says whether a collector is, or for a whole day was, not heard.
func (r *Report) silent() bool {
	return len(r.Quiet) > 0 || slices.ContainsFunc(r.Reporters, func(c Collector) bool { return c.State == member.Silent.String() })
}

// judge answers "are we all right?" as the report is made.
func (r *Report) judge() {
	seen := "Your devices reported nothing suspicious."
	if r.Events.Now > 0 {
		seen = fmt.Sprintf("Your devices reported %s from %s", count(r.Events.Now, "suspicious event"), count(r.Sources.Now, "address"))
		if r.Events.First {
			seen += "."
		} else {
			seen += ": " + r.Events.Compared() + "."
		}
	}
	if len(r.Quiet) > 0 && r.Standing.Unwell == 0 && r.Standing.Well > 0 {
		r.Standing.Unwell = 1 // healthy again, but not for the whole week
	}
	r.Tone, r.Verdict = r.Standing.Tone(), r.Standing.Words()
	switch r.Standing.Answer() {
	case member.NotQuite:
		r.Reason = seen + " Please start with " + r.grave() + "."
	case member.NearlyThere:
		r.Reason = "Your collector has joined. Confirm its check words in the portal, under Collectors, and the watch begins."
	case member.CannotSay:
		r.Reason = "No collector sends anything, so nothing can be seen. Set one up, and the next report fills by itself."
	case member.CannotBeSure:
		r.Reason = seen + " But a collector was not well for part of the time, so attacks may have gone unseen."
	case member.Mostly:
		r.Reason = fmt.Sprintf("%s %s worth a look; none is serious.", seen, are(r.Standing.Medium, "open alert"))
		if r.Standing.Medium == 0 {
			r.Reason = seen + " A collector waits for its check words: compare them in the portal, under Collectors."
		}
	default:
		r.Reason = seen + " Your collector was working, and we kept watch."
		if r.Events.Now > 0 {
			r.Reason = seen + " Attempts like these reach every connection to the internet; your defences turned them away, as far as we can see."
		}
	}
}

// grave says where the serious alerts are that are open: they may be of another week than the report's.
func (r *Report) grave() string {
	n, here := r.Standing.Serious(), int64(r.OpenGrave)
	switch {
	case here >= n && n == 1:
		return "the serious alert below"
	case here >= n:
		return fmt.Sprintf("the %s serious alerts below", chart.Number(n))
	case here > 0:
		return fmt.Sprintf("the %s below; the portal has %s more of another week", count(here, "serious alert"), chart.Number(n-here))
	case n == 1:
		return "the serious alert in the portal; it is of another week than this report"
	}
	return fmt.Sprintf("the %s serious alerts in the portal; they are of other weeks than this report", chart.Number(n))
}

func are(n int64, one string) string {
	if n == 1 {
		return "1 " + one + " is"
	}
	return count(n, one) + " are"
}

// Chart is the histogram of the days, as the pages draw it.
func (r *Report) Chart() chart.Histogram {
	h := chart.Histogram{What: "Suspicious events each day", Height: 220, Labels: 7,
		Series: []chart.Series{{Name: "Low", Class: "s-low"}, {Name: "Medium", Class: "s-medium"}, {Name: "High", Class: "s-high"}, {Name: "Critical", Class: "s-critical"}}}
	for _, d := range r.Days {
		h.Columns = append(h.Columns, chart.Column{Label: d.Date.Format("Mon 2 Jan"), Title: d.Date.Format("Monday 2 January"), Values: []int64{d.Low, d.Medium, d.High, d.Critical}})
	}
	return h
}

// Title is the report's name: "Weekly report, 16 to 22 November 2026".
func (r *Report) Title() string { return "Weekly report, " + r.Week.Words() }

// FileName is what a downloaded report is called, without the ending.
func (r *Report) FileName() string { return "tocsin-report-" + r.Week.String() }
