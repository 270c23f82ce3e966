package demo

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/eventstore/engine/enginetest"
	organisations "tocsin/internal/member"
	"tocsin/internal/people"
)

// newPast makes a hub's records with the three members and an analyst, and an event store. It skips aloud without the engine's library.
func newPast(t testing.TB) archive {
	t.Helper()
	e := enginetest.Start(t, enginetest.Dir(t))
	events, err := eventstore.Open(t.Context(), eventstore.Options{Address: e.Address(), Ready: e.Ready})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(events.Close)
	dir := t.TempDir()
	records, err := db.Open(t.Context(), db.Options{Path: filepath.Join(dir, "tocsin.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := records.Close(); err != nil {
			t.Error(err)
		}
	})
	p := archive{Events: events, DB: records, Overlay: filepath.Join(dir, "overlay.csv")}
	if err := os.WriteFile(p.Overlay, []byte(overlay()), 0o600); err != nil {
		t.Fatal(err)
	}
	accounts, err := people.New(records, people.Options{Key: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	operator := access.Principal{UserID: "test", Name: "test", Role: access.Operator}
	if _, err := accounts.Create(t.Context(), operator, people.Invitation{Email: "analyst@demo.example", Name: "Anil Analyst", Role: access.Analyst}); err != nil {
		t.Fatal(err)
	}
	members := organisations.New(records, organisations.Options{})
	for i, m := range cast {
		o, err := members.AddOrganisation(t.Context(), "test", organisations.Organisation{Name: m.name, Sector: m.sector, Area: m.region})
		if err != nil {
			t.Fatal(err)
		}
		p.Tenants[i] = o.ID
		if _, err := accounts.Create(t.Context(), operator, people.Invitation{Email: m.contact, Name: m.person, Role: access.Member, Tenant: o.ID}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// A quarter of a year is there in time, is plausible at every length that pages show, and is marked everywhere.
func TestHistory(t *testing.T) {
	days := 90
	if testing.Short() {
		days = 30
	}
	p := newPast(t)
	now := time.Now().UTC()
	spans := planHistory(nil, days, 1, now)
	if len(spans) != 1 {
		t.Fatalf("%d spans", len(spans))
	}
	begun := time.Now()
	n, err := p.write(t.Context(), spans[0])
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	t.Logf("%d events and %d alerts of %d days in %s", n.events, n.alerts, days, took.Round(time.Millisecond))
	before := look(t, p, now)
	for i, m := range cast {
		sums := before.sums[i]
		for j, least := range []uint64{500, 2500, 10_000, 25_000} {
			if length := []int{1, 7, 30, 90}[j]; length <= days && (sums[j].Events < least*uint64(pastTraffic[i].lines)/1000 || sums[j].Sources < 40) {
				t.Errorf("%s: %d events from %d addresses in %d days are too few", m.name, sums[j].Events, sums[j].Sources, length)
			}
		}
		if s := sums[2]; s.Denied == 0 || len(s.ByService) < 8 || s.ByLevel["low"] == 0 || s.ByLevel["medium"] == 0 {
			t.Errorf("%s: a picture without variety: %+v", m.name, s)
		}
		if before.countries[i] < 10 {
			t.Errorf("%s: attacks came from %d countries only", m.name, before.countries[i])
		}
		if q := before.quiet[i]; q < 0.45 || q > 0.9 {
			t.Errorf("%s: a weekend day has %.2f of a working day's events", m.name, q)
		}
	}
	if before.unmarked > 0 {
		t.Errorf("%d events or alerts are not marked as invented", before.unmarked)
	}
	if before.alerts < days/3 || before.open > 5 {
		t.Errorf("%d alerts, %d of them open", before.alerts, before.open)
	}
}

// A past that was cut short, and one that is seeded again, are there once.
func TestHistoryAgain(t *testing.T) {
	p := newPast(t)
	now := time.Now().UTC()
	spans := planHistory(nil, 20, 1, now)
	cut, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond) // somewhere in the middle
	defer cancel()
	if part, err := p.write(cut, spans[0]); err != nil {
		t.Logf("cut short after %d events and %d alerts: %v", part.events, part.alerts, err)
	}
	n, err := p.write(t.Context(), spans[0])
	if err != nil {
		t.Fatal(err)
	}
	before := look(t, p, now)

	again, err := p.write(t.Context(), spans[0])
	if err != nil {
		t.Fatal(err)
	}
	if again.events != n.events {
		t.Errorf("made again it is %d events, not %d", again.events, n.events)
	}
	after := look(t, p, now)
	if after.alerts != before.alerts || again.alerts != 0 {
		t.Errorf("made again there are %d alerts, %d of them new; there were %d", after.alerts, again.alerts, before.alerts)
	}
	for i := range cast {
		for j := range before.sums[i] {
			if a, b := after.sums[i][j], before.sums[i][j]; a.Events != b.Events || a.Sources != b.Sources {
				t.Errorf("%s: %d events from %d addresses, were %d from %d", cast[i].name, a.Events, a.Sources, b.Events, b.Sources)
			}
		}
	}
}

// picture is what pages would show.
type picture struct {
	sums                   [3][4]eventstore.Summary // of 1, 7, 30 and 90 days
	countries              [3]int
	quiet                  [3]float64 // weekend days as a part of working days
	unmarked, alerts, open int
}

func look(t *testing.T, p archive, now time.Time) (out picture) {
	t.Helper()
	ctx := context.Background()
	store := alert.New(p.DB, alert.Options{})
	members := organisations.New(p.DB, organisations.Options{})
	for i, tenant := range p.Tenants {
		scope := access.Only(tenant)
		for j, days := range []int{1, 7, 30, 90} {
			sum, err := p.Events.Summary(ctx, scope, now.Add(-time.Duration(days)*day).UnixNano(), now.UnixNano())
			if err != nil {
				t.Fatal(err)
			}
			out.sums[i][j] = sum
		}
		from := now.Truncate(day).Add(-28 * day)
		f := eventstore.Filter{From: from.UnixNano(), To: now.Truncate(day).UnixNano()}
		top, err := p.Events.Top(ctx, scope, eventstore.ByCountry, f, 50)
		if err != nil {
			t.Fatal(err)
		}
		out.countries[i] = len(top)
		buckets, err := p.Events.Histogram(ctx, scope, f, day)
		if err != nil {
			t.Fatal(err)
		}
		var weekend, working float64
		for _, b := range buckets {
			switch time.Unix(0, b.Start).UTC().Weekday() {
			case time.Saturday, time.Sunday:
				weekend += float64(b.Total()) / 8
			default:
				working += float64(b.Total()) / 20
			}
		}
		out.quiet[i] = weekend / working
		if said, err := members.Invented(ctx, tenant, from.UnixNano(), now.UnixNano()); err != nil || !said {
			t.Errorf("the figures of %s are not marked: %v, %v", cast[i].name, said, err)
		}
		list, _, err := p.Events.Events(ctx, scope, eventstore.Filter{}, eventstore.MaxEvents, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if !e.HasString(event.Tags, invented) || e.Str(event.TocsinCollectorID) != invented {
				out.unmarked++
			}
		}
	}
	counts, err := p.Events.CollectorCounts(ctx, access.System("test"), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if c.Collector != invented {
			out.unmarked += int(c.Events)
		}
	}
	f := alert.Filter{View: alert.ViewAll, Order: alert.ByRecent, Limit: 200}
	for {
		page, err := store.Queue(ctx, access.System("test"), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page.Alerts {
			out.alerts++
			if a.Open {
				out.open++
			}
			if !strings.HasSuffix(a.Title, "(invented)") || !slices.Contains(a.Details.Tags, invented) || !strings.HasPrefix(a.Details.Reason, "Invented ") {
				out.unmarked++
			}
			if a.CreatedNS > now.UnixNano() || a.Open && now.Sub(time.Unix(0, a.CreatedNS)) > 2*day {
				t.Errorf("alert %s of %s is open", a.Title, time.Unix(0, a.CreatedNS))
			}
		}
		if f.After = page.Next; f.After == "" {
			return out
		}
	}
}

// A longer past that is asked for later goes before the one that is there; a shorter one changes nothing.
func TestPlanHistory(t *testing.T) {
	now := time.Date(2026, 11, 22, 15, 4, 5, 0, time.UTC)
	have := planHistory(nil, 30, 7, now)
	if len(have) != 1 || have[0].From != time.Date(2026, 10, 24, 0, 0, 0, 0, time.UTC).UnixNano() || have[0].To != now.Truncate(time.Minute).UnixNano() || have[0].Seed != 7 {
		t.Fatalf("%+v", have)
	}
	later := now.Add(26 * time.Hour)
	if again := planHistory(have, 30, 7, later); len(again) != 1 {
		t.Errorf("the next day: %+v", again)
	}
	more := planHistory(have, 90, 7, later)
	if len(more) != 2 || more[1].To != have[0].From || more[1].From != time.Date(2026, 8, 26, 0, 0, 0, 0, time.UTC).UnixNano() {
		t.Errorf("a longer past: %+v", more)
	}
}

// The same seed gives the same day, alone or among others; strangers of different members are different, and none is of the story.
func TestPastIsDeterministic(t *testing.T) {
	start := time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)
	a, b, c := &past{seed: 1}, &past{seed: 1}, &past{seed: 2}
	b.lines(start.Add(-day))
	first := slices.Clone(a.lines(start))
	if !slices.Equal(first, b.lines(start)) {
		t.Error("the same seed gives another day")
	}
	if slices.Equal(first, c.lines(start)) {
		t.Error("another seed gives the same day")
	}
	story := map[netip.Addr]bool{}
	for _, x := range storyAddresses() {
		story[x] = true
	}
	for d := range 60 {
		owner := map[netip.Addr]int{}
		for _, l := range a.lines(start.Add(time.Duration(d) * day)) {
			v := l.values
			if story[v.Src] || story[v.Dst] {
				t.Fatalf("the past touches the story: %+v", v)
			}
			if host := v.Src.As4(); v.Src.Is4() && wildPrefix(0).Addr().As4()[0] == host[0] && host[2]%32 < 29 {
				if m, ok := owner[v.Src]; ok && m != l.member {
					t.Fatalf("%s calls on two members", v.Src)
				}
				owner[v.Src] = l.member
			}
		}
	}
}
