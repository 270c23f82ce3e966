package report

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/chart"
	"tocsin/internal/eventstore"
	"tocsin/internal/member"
)

var update = flag.Bool("update", false, "write the golden files")

func TestWeek(t *testing.T) {
	for _, c := range []struct{ text, words, start, before string }{
		{"2026-W47", "16 to 22 November 2026", "2026-11-16T00:00:00Z", "2026-W46"},
		{"2026-W01", "29 December 2025 to 4 January 2026", "2025-12-29T00:00:00Z", "2025-W52"},
		{"2026-W14", "30 March to 5 April 2026", "2026-03-30T00:00:00+01:00", "2026-W13"},
		{"2026-W53", "28 December 2026 to 3 January 2027", "2026-12-28T00:00:00Z", "2026-W52"},
		{"2026-W44", "26 October to 1 November 2026", "2026-10-26T00:00:00Z", "2026-W43"},
	} {
		w, err := ParseWeek(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if w.String() != c.text || w.Words() != c.words || w.Start().Format(time.RFC3339) != c.start || w.Before().String() != c.before || WeekOf(w.End().Add(-time.Nanosecond)) != w || WeekOf(w.End()) == w {
			t.Errorf("%s: %s, %s, %s, %s", c.text, w, w.Words(), w.Start().Format(time.RFC3339), w.Before())
		}
	}
	for _, bad := range []string{"", "2026", "2026-W00", "2026-W54", "2025-W53", "2026-w47", "26-W47", "2026-W4x", "2026-W470", "0001-W01", "🙂🙂"} {
		if w, err := ParseWeek(bad); !errors.Is(err, ErrWeek) {
			t.Errorf("%q is read as %v (%v)", bad, w, err)
		}
	}
}

func FuzzParseWeek(f *testing.F) {
	for _, s := range []string{"2026-W47", "2026-W53", "1970-W01", "9999-W52", "2026-W00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		w, err := ParseWeek(s)
		if err != nil {
			return
		}
		if w.String() != s || WeekOf(w.Start()) != w || w.Start().Weekday() != time.Monday {
			t.Errorf("%q is read as %v, from %v", s, w, w.Start())
		}
	})
}

func TestCompared(t *testing.T) {
	for _, c := range []struct {
		f    Figure
		want string
	}{
		{Figure{Now: 112, Before: 100}, "12% more than the week before"},
		{Figure{Now: 96, Before: 100}, "4% fewer than the week before"},
		{Figure{Now: 100, Before: 100}, "the same as the week before"},
		{Figure{}, "the same as the week before"},
		{Figure{Now: 5}, "none the week before"},
		{Figure{Before: 1234}, "1,234 the week before"},
		{Figure{Now: 1001, Before: 1000}, "about the same as the week before"},
		{Figure{Now: 3, Before: 2}, "2 the week before"},
		{Figure{Now: 350, Before: 100}, "3.5 times the week before"},
		{Figure{Now: 40000, Before: 100}, "400 times the week before"},
		{Figure{Now: 9, First: true}, "your first week"},
	} {
		if got := c.f.Compared(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.f, got, c.want)
		}
	}
}

// TestBuild counts a week a second way, on the real event store.
func TestBuild(t *testing.T) {
	w := newWorld(t, true)
	all := w.attack()
	w.detect()
	days := map[time.Time]uint64{}
	for d := w.week.Before().Start(); !d.After(w.week.End()); d = d.AddDate(0, 0, 1) {
		days[d] = 1000
	}
	w.collector(0, days)
	tenant := w.tenants[0]
	r, err := w.maker.Build(t.Context(), access.System("test"), tenant, w.week)
	if err != nil {
		t.Fatal(err)
	}
	var now, before, failed, failedBefore int64
	perDay, perDayBefore, countries, services := map[string]int64{}, map[string]int64{}, map[string]int64{}, map[string]int64{}
	sources := map[string]bool{}
	for _, s := range all {
		if s.tenant != tenant {
			continue
		}
		if s.at.Before(w.week.Start()) {
			before++
			perDayBefore[s.at.In(london).AddDate(0, 0, 7).Format(time.DateOnly)]++
			if s.service == "vpn" {
				failedBefore++
			}
			continue
		}
		now++
		perDay[s.at.In(london).Format(time.DateOnly)]++
		countries[s.country]++
		services[s.service]++
		sources[s.source.String()] = true
		if s.service == "vpn" {
			failed++
		}
	}
	if want := (Figure{Now: now, Before: before}); r.Events != want {
		t.Errorf("events %+v, want %+v", r.Events, want)
	}
	if want := (Figure{Now: failed, Before: failedBefore}); r.SignInFailed != want {
		t.Errorf("failed sign-ins %+v, want %+v", r.SignInFailed, want)
	}
	if r.Sources.Now != int64(len(sources)) {
		t.Errorf("%d addresses, want %d", r.Sources.Now, len(sources))
	}
	if len(r.Days) != 7 {
		t.Fatalf("%d days", len(r.Days))
	}
	for _, d := range r.Days {
		if key := d.Date.Format(time.DateOnly); d.Total() != perDay[key] || d.Before != perDayBefore[key] {
			t.Errorf("%s: %d and %d before, want %d and %d", key, d.Total(), d.Before, perDay[key], perDayBefore[key])
		}
	}
	for _, l := range r.Tried {
		for key, n := range services {
			if serviceOf(key).name == l.Name && l.Figure.Now != n {
				t.Errorf("%s: %d, want %d", key, l.Figure.Now, n)
			}
		}
	}
	if len(r.Tried) != len(services) || len(r.Countries) != len(countries) {
		t.Errorf("%d services, %d countries", len(r.Tried), len(r.Countries))
	}
	// Countries are counted by days of UTC: in summer an hour at each end of the week falls to the neighbour.
	for _, l := range r.Countries {
		for code, n := range countries {
			if l.Name == chart.Country(code) && (l.Figure.Now < n-8 || l.Figure.Now > n+8) {
				t.Errorf("%s: %d, want about %d", l.Name, l.Figure.Now, n)
			}
		}
	}
	if r.AllAlerts != 2 || len(r.Alerts) != 2 || r.Alerts[0].Title != "Somebody may have got in through your VPN" || len(r.Alerts[0].Do) != 2 || r.OpenGrave != 1 || r.NewAlerts != (Figure{Now: 2, Before: 1}) || r.Tone != "bad" {
		t.Errorf("alerts: %d, %+v, grave %d, new %+v, %s", r.AllAlerts, r.Alerts, r.OpenGrave, r.NewAlerts, r.Tone)
	}
	if len(r.Reporters) != 1 || r.Reporters[0].Tone != "good" || len(r.Quiet) != 0 || r.Lines.Received.Now != 7000 || r.Lines.Received.Before != 7000 || r.Lines.Left.Now != 70 || r.Lines.Kept.Now != 7*988 {
		t.Errorf("collectors %+v, quiet %v, lines %+v", r.Reporters, r.Quiet, r.Lines)
	}
	if len(r.Advice) == 0 || !strings.Contains(r.Advice[0].Title, "two-step") || !strings.Contains(r.Advice[0].Why, chart.Number(failed)) {
		t.Errorf("advice %+v", r.Advice)
	}
	b, err := r.HTML()
	if err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []string{"Brindle", "Only Brindle", "203.0.113.77", "203.0.113.52", "<b>scan"} {
		if strings.Contains(string(b), foreign) {
			t.Errorf("the report holds %q", foreign)
		}
	}
	// Who has the scope of another member gets nothing.
	if _, err := w.maker.Build(t.Context(), access.Only(w.tenants[1]), tenant, w.week); !errors.Is(err, member.ErrNotFound) {
		t.Errorf("another member's scope: %v", err)
	}
	// The week before has the same figures as "before", and a week that runs is compared with its own part of the week before.
	last, err := w.maker.Build(t.Context(), access.Only(tenant), tenant, w.week.Before())
	if err != nil || last.Events.Now != before || last.AllAlerts != 1 {
		t.Errorf("the week before: %+v, %d alerts, %v", last.Events, last.AllAlerts, err)
	}
	w.now = w.week.Start().Add(60*time.Hour + time.Minute)
	part, err := w.maker.Build(t.Context(), access.Only(tenant), tenant, w.week)
	if err != nil || !part.Partial || part.Events.Now >= now || part.Events.Before >= before || part.Days[6].Total() != 0 || part.Days[6].Before != 0 || !part.Days[6].Future || sumBefore(part) != part.Events.Before {
		t.Errorf("a running week: %+v, %v", part, err)
	}
	if _, err := w.maker.Build(t.Context(), access.Only(tenant), tenant, WeekOf(w.now.AddDate(0, 0, 14))); !errors.Is(err, ErrFuture) {
		t.Errorf("a week to come: %v", err)
	}
}

func sumBefore(r *Report) (n int64) {
	for _, d := range r.Days {
		n += d.Before
	}
	return n
}

func TestEmptyAndFirstWeek(t *testing.T) {
	w := newWorld(t, false)
	r, err := w.maker.Build(t.Context(), access.System("test"), w.tenants[0], w.week)
	if err != nil {
		t.Fatal(err)
	}
	if r.Tone != "warn" || !strings.Contains(r.Verdict, "cannot say") || r.Events.First || len(r.Advice) < 3 {
		t.Errorf("without a collector: %s %s %+v, %d pieces of advice", r.Tone, r.Verdict, r.Events, len(r.Advice))
	}
	whole(t, r)
	// With a collector that is heard it is a quiet week, and a day without lines is named.
	days := map[time.Time]uint64{w.week.End(): 500}
	for i := range 7 {
		if i != 2 {
			days[w.week.Start().AddDate(0, 0, i)] = 500
		}
	}
	w.collector(0, days)
	if r, err = w.maker.Build(t.Context(), access.System("test"), w.tenants[0], w.week); err != nil {
		t.Fatal(err)
	}
	if wednesday := w.week.Start().AddDate(0, 0, 2).Format("Monday 2 January"); !reflect.DeepEqual(r.Quiet, []string{wednesday}) || r.Tone != "warn" || !strings.Contains(r.QuietText(), wednesday) {
		t.Errorf("quiet %v, %s", r.Quiet, r.Tone)
	}
	whole(t, r)
	// A member who joined in the week has no week before.
	w.at(w.week.Start().Add(time.Hour), func() {
		o, err := w.members.AddOrganisation(t.Context(), "test", member.Organisation{Name: "Newcomer"})
		if err != nil {
			t.Fatal(err)
		}
		w.tenants = append(w.tenants, o.ID)
	})
	if r, err = w.maker.Build(t.Context(), access.System("test"), w.tenants[2], w.week); err != nil {
		t.Fatal(err)
	}
	if !r.Events.First || r.Tiles()[0].Note != "your first week" || strings.Contains(fmt.Sprint(r.Tiles()), "week before") {
		t.Errorf("first week: %+v", r.Tiles())
	}
	whole(t, r)
}

// history is an event store with one event in each hour, as demonstrations write it for members who have only just joined.
type history struct{ empty }

func (history) Summary(context.Context, access.Scope, int64, int64) (eventstore.Summary, error) {
	return eventstore.Summary{Events: 168}, nil
}
func (history) Histogram(_ context.Context, _ access.Scope, f eventstore.Filter, step time.Duration) (list []eventstore.Bucket, err error) {
	for at := f.From; at < f.To; at += int64(step) {
		list = append(list, eventstore.Bucket{Start: at, Low: 1})
	}
	return list, nil
}

// Data from before a member joined are shown.
func TestHistoryFromBefore(t *testing.T) {
	w := newWorld(t, false)
	w.at(w.week.End(), func() {
		o, err := w.members.AddOrganisation(t.Context(), "test", member.Organisation{Name: "Newcomer"})
		if err != nil {
			t.Fatal(err)
		}
		w.tenants = append(w.tenants, o.ID)
	})
	for _, x := range []struct {
		events Events
		none   bool
	}{{history{}, false}, {empty{}, true}} {
		o := w.maker.o
		o.Events = x.events
		r, err := (&Maker{o}).Build(t.Context(), access.System("test"), w.tenants[2], w.week)
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.Days {
			if d := &r.Days[i]; d.NoBefore != x.none || !x.none && r.dayBefore(d) != "24" {
				t.Errorf("%T: %+v: %s", x.events, d, r.dayBefore(d))
			}
		}
	}
}

// whole makes everything of a report and looks for what must never stand there.
func whole(t *testing.T, r *Report) (html string) {
	t.Helper()
	b, err := r.HTML(Link{Href: "/reports", Text: "All reports"})
	if err != nil {
		t.Fatal(err)
	}
	html = string(b)
	for _, bad := range []string{"%!", "<no value>", "ZgotmplZ", "NaN", "<script", " style=", "Inf"} {
		if strings.Contains(html, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	if _, err := r.PDF(); err != nil {
		t.Error(err)
	}
	l, err := payload{"a@example.org", "Jo", r}.letter()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(l.Text+l.HTML+l.Subject, "%!") || len(l.Files) != 1 {
		t.Errorf("the mail: %+v", l)
	}
	return html
}

func TestHostileNames(t *testing.T) {
	r := sample()
	bad := `<script>alert(1)</script>"' onload=x {{.}} (\)\n ` + "\u202egnp.exe\u0000\x1b[31m \U0001F600 漢字 "
	long := strings.Repeat("Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch", 20)
	for _, s := range []string{bad, long, ""} {
		r.Organisation, r.Area, r.Scheme = s, s, s
		for i := range r.Alerts {
			r.Alerts[i].Title, r.Alerts[i].What, r.Alerts[i].Subject, r.Alerts[i].Do = s, s, s, []string{s, s}
		}
		for i := range r.Reporters {
			r.Reporters[i].Name, r.Reporters[i].Site = s, s
		}
		for i := range r.Addresses {
			r.Addresses[i].Name, r.Addresses[i].Note = s, s
		}
		html := whole(t, r)
		if s == bad && !strings.Contains(html, "&lt;script&gt;") {
			t.Error("the name does not stand in the page as text")
		}
	}
	r.Events, r.Sources = Figure{Now: 1<<63 - 1, Before: 1}, Figure{Now: 1<<63 - 1}
	for i := range r.Days {
		r.Days[i].Low = 1 << 58
	}
	whole(t, r)
}

// TestGolden compares the page of a fixed report, with a fixed clock, with the one that was looked at.
func TestGolden(t *testing.T) {
	r := sample()
	r.Invented = true
	got, err := r.HTML()
	if err != nil {
		t.Fatal(err)
	}
	got = regexp.MustCompile(`(?s)<style>.*</style>`).ReplaceAll(got, []byte("<style></style>"))
	l, err := payload{"a@example.org", "Jo Marsh", r}.letter()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"report.html": string(got), "mail.txt": l.Subject + "\n\n" + l.Text} {
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if text != string(want) {
			g, w := strings.Split(text, "\n"), strings.Split(string(want), "\n")
			for i := range min(len(g), len(w)) {
				if g[i] != w[i] {
					t.Errorf("%s differs at line %d (go test -run Golden -update writes it):\n got %s\nwant %s", name, i+1, g[i], w[i])
					break
				}
			}
			if len(g) != len(w) {
				t.Errorf("%s has %d lines, want %d", name, len(g), len(w))
			}
		}
	}
	// What the outbox holds gives the same report again.
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	again, err := back.HTML()
	if err != nil {
		t.Fatal(err)
	}
	again = regexp.MustCompile(`(?s)<style>.*</style>`).ReplaceAll(again, []byte("<style></style>"))
	if string(again) != string(got) {
		t.Error("a report that went through the outbox reads differently")
	}
}

func BenchmarkBuild(b *testing.B) {
	w := newWorld(b, true)
	w.attack()
	w.detect()
	for b.Loop() {
		if _, err := w.maker.Build(b.Context(), access.System("test"), w.tenants[0], w.week); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHTML(b *testing.B) {
	r := sample()
	for b.Loop() {
		if _, err := r.HTML(); err != nil {
			b.Fatal(err)
		}
	}
}
