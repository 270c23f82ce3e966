package daily

import (
	"context"
	"strings"
	"testing"
	"time"

	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/internal/health"
)

const one = "0193a5b0-0000-7000-8000-000000000001"

// siteBench has a collector of member 7 that is heard whenever it asks, and when it sends a batch (hears).
func siteBench(t *testing.T, dir string) (b *bench, hand func() string) {
	b = newBench(t, dir)
	c := Collector{Tenant: 7, ID: one, Name: "Main"}
	b.d.o.Collectors = func(context.Context) ([]Collector, error) { return []Collector{c}, nil }
	b.hears = func() { c.Seen = b.now.UnixNano() }
	return b, func() string {
		t.Helper()
		b.hears()
		number, err := b.d.Hand(t.Context(), 7, one)
		if err != nil {
			t.Fatal(err)
		}
		return number
	}
}

// comes is what comes of a test: the rule, the member and the number.
func (b *bench) comes(t *testing.T, rule string, tenant event.TenantID, number string) {
	t.Helper()
	rest, err := b.d.Arrived(t.Context(), []event.Detection{{RuleID: rule, Tenant: tenant, Entity: event.Entity{Kind: "host", Value: number}}})
	if err != nil || len(rest) != 0 {
		t.Fatalf("it became an alert: %v, %v", rest, err)
	}
}

func (b *bench) site(t *testing.T) Site {
	t.Helper()
	list, err := b.d.Sites(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list[one]
}

// ofSites are the alerts about collectors.
func (b *bench) ofSites() (out []event.Detection) {
	for _, d := range b.raised {
		if d.RuleID == health.RuleDailySite {
			out = append(out, d)
		}
	}
	return out
}

// A collector gets a number once a day, again until it has come by both ways; it is its own alone, and nothing of it becomes an alert.
func TestSite(t *testing.T) {
	dir := t.TempDir()
	b, hand := siteBench(t, dir)
	b.now = b.now.Add(89 * time.Minute)
	if n := hand(); n != "" {
		t.Fatalf("a minute before its time: %s", n)
	}
	b.now = b.now.Add(time.Hour)
	number := hand()
	if len(number) != 32 || hand() != number {
		t.Fatalf("%q, then %q", number, hand())
	}
	b.comes(t, detect.DailyRule, 9, number) // of another member
	b.comes(t, detect.DailyRule, 7, strings.Repeat("0", 32))
	if x := b.site(t); x.ArrivedNS != 0 || b.d.Strays() != 2 {
		t.Errorf("%+v, %d strays", x, b.d.Strays())
	}
	b.now = b.now.Add(time.Second)
	b.comes(t, detect.DailyRule, 7, number)
	again, handAgain := siteBench(t, dir) // a restart between
	again.now = b.now
	if handAgain() != number {
		t.Error("a number that came by one way is not handed out again")
	}
	again.comes(t, detect.DailySiteRule, 7, number)
	again.now = again.now.Add(time.Minute)
	again.comes(t, detect.DailySiteRule, 7, number)
	if x := again.site(t); !x.Done() || x.Latency() != time.Second || x.Missed || handAgain() != "" {
		t.Errorf("%+v", x)
	}
	again.now = again.now.Add(time.Hour)
	again.check(t)
	if n := again.ofSites(); len(n) != 0 {
		t.Errorf("%+v", n)
	}
	again.now = again.now.Add(24 * time.Hour)
	if n := handAgain(); n == number || n == "" {
		t.Errorf("the next day: %q", n)
	}
	again.d.Ask(one)
	if a, b := handAgain(), handAgain(); a == "" || a != b {
		t.Errorf("asked for: %q, %q", a, b)
	}
}

// A test is missed when its collector was heard after its time and all that had come is worked off; each one once. A collector that is away is not.
func TestSiteMissed(t *testing.T) {
	b, hand := siteBench(t, t.TempDir())
	b.now = b.now.Add(150 * time.Minute)
	b.hears()
	b.check(t)
	number := hand()
	b.comes(t, detect.DailyRule, 7, number)
	b.minutes(t, 9, b.hears)
	b.now = b.now.Add(90 * time.Second)
	b.check(t)
	if n := b.ofSites(); len(n) != 0 {
		t.Fatalf("it was not heard since: %+v", n)
	}
	hand()
	b.last, b.done = 20, 10
	b.check(t)
	b.last, b.done = 30, 19
	b.check(t)
	if n := b.ofSites(); len(n) != 0 {
		t.Fatalf("it may stand in the line: %+v", n)
	}
	b.done = 20
	for range 3 {
		b.check(t)
	}
	if n := b.ofSites(); len(n) != 1 || n[0].Tenant != 7 || n[0].Entity.Value != one || !strings.Contains(n[0].Reason, "the rules that run on the site did not find it within 10m0s") {
		t.Fatalf("%+v", n)
	}
	if n := hand(); n != "" {
		t.Errorf("a missed one is handed out again: %q", n)
	}
	// The next day it is heard and asks for none.
	b.minutes(t, 24*60, b.hears)
	if n := b.ofSites(); len(n) != 2 || !strings.Contains(n[1].Reason, "has not asked for the test") {
		t.Errorf("%+v", n)
	}
}

// minutes lets time go by, with what happens in each minute before the look.
func (b *bench) minutes(t *testing.T, n int, each func()) {
	t.Helper()
	for range n {
		b.now = b.now.Add(time.Minute)
		each()
		b.check(t)
	}
}

func nothing() {}

// A collector that was off when its test was due is heard before it asks, as with a batch: it has its time from then on, also over a restart of the hub.
func TestSiteBackBeforeAsking(t *testing.T) {
	for name, asks := range map[string]bool{"asks": true, "never asks": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b, hand := siteBench(t, dir)
			b.now = b.now.Add(150 * time.Minute)
			number := hand()
			b.comes(t, detect.DailyRule, 7, number)
			b.comes(t, detect.DailySiteRule, 7, number)
			b.minutes(t, 12*60, b.hears)
			b.minutes(t, 14*60, nothing) // switched off for the night
			b.minutes(t, 10, b.hears)
			restarted, hand := siteBench(t, dir)
			restarted.now = b.now
			restarted.minutes(t, 14, restarted.hears)
			if n := append(b.ofSites(), restarted.ofSites()...); len(n) != 0 {
				t.Fatalf("back for a moment: %+v", n)
			}
			if asks {
				number = hand()
				restarted.comes(t, detect.DailyRule, 7, number)
				restarted.comes(t, detect.DailySiteRule, 7, number)
			}
			restarted.minutes(t, 30, restarted.hears)
			if n := restarted.ofSites(); asks && len(n) != 0 || !asks && (len(n) != 1 || !strings.Contains(n[0].Reason, "has not asked for the test")) {
				t.Errorf("%+v", n)
			}
		})
	}
}

// The link is down while a test is on its way: when the collector is heard again, what it kept has its time to go.
func TestSiteBackBeforeItsSpool(t *testing.T) {
	for name, goes := range map[string]bool{"the spool goes": true, "it never comes": false} {
		t.Run(name, func(t *testing.T) {
			b, hand := siteBench(t, t.TempDir())
			b.minutes(t, 150, b.hears)
			number := hand()
			b.minutes(t, 45, nothing)
			b.minutes(t, 14, b.hears)
			if n := b.ofSites(); len(n) != 0 {
				t.Fatalf("back for a moment: %+v", n)
			}
			if goes {
				b.comes(t, detect.DailyRule, 7, number)
				b.comes(t, detect.DailySiteRule, 7, number)
			}
			b.minutes(t, 30, b.hears)
			if n := b.ofSites(); goes && len(n) != 0 || !goes && (len(n) != 1 || !strings.Contains(n[0].Reason, "has not arrived within 10m0s")) {
				t.Errorf("%+v", n)
			}
		})
	}
}
