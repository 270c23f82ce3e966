package report

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/event"
)

// The report answers "are we all right?" as the attack picture does (member.Standing): from what is open when it is made, of whatever week.
func TestAnswer(t *testing.T) {
	w := newWorld(t, false)
	days := map[time.Time]uint64{}
	for d := w.week.Before().Start(); !d.After(w.week.End()); d = d.AddDate(0, 0, 1) {
		days[d] = 1000
	}
	w.collector(0, days)
	for _, tc := range []struct {
		level, tone, verdict, reason string
		now                          bool // raised after the week
	}{
		{"", "good", "Yes. Nothing needs you.", "", false},
		{"low", "good", "Yes. Nothing needs you.", "", false},
		{"medium", "warn", "Mostly, with something to look at.", "1 open alert is worth a look", false},
		{"high", "bad", "Not quite: one thing needs you.", "of another week", true},
		{"critical", "bad", "Not quite: 2 things need you.", "1 serious alert below; the portal has 1 more of another week", false},
	} {
		at := w.week.Start().Add(50 * time.Hour)
		if tc.now {
			at = w.week.End().Add(time.Hour)
		}
		if tc.level != "" {
			w.at(at, func() {
				d := event.Detection{Tenant: w.tenants[0], RuleID: tc.level, RuleTitle: "Rule " + tc.level, Family: tc.level, Level: tc.level, Entity: event.Entity{Kind: "source", Value: "203.0.113.77"},
					First: at.UnixNano(), Last: at.UnixNano(), Count: 3, Key: tc.level, Reason: "for a test"}
				if _, err := w.alerts.Apply(t.Context(), "answer-"+tc.level, []event.Detection{d}); err != nil {
					t.Fatal(err)
				}
			})
		}
		r, err := w.maker.Build(t.Context(), access.Only(w.tenants[0]), w.tenants[0], w.week)
		if err != nil {
			t.Fatal(err)
		}
		if r.Tone != tc.tone || r.Verdict != tc.verdict || !strings.Contains(r.Reason, tc.reason) {
			t.Errorf("with %q: %s, %q, %q", tc.level, r.Tone, r.Verdict, r.Reason)
		}
		if r.Events.First != r.NewAlerts.First || r.Events.First != r.Lines.Received.First {
			t.Errorf("with %q: some figures have a week before, others are the first: %+v, %+v, %+v", tc.level, r.Events, r.NewAlerts, r.Lines.Received)
		}
		if l, err := (payload{"head@school.example", "Jo", r}).letter(); err != nil || !strings.Contains(strings.ToLower(l.Subject), strings.ToLower(strings.TrimSuffix(tc.verdict, "."))) {
			t.Errorf("the mail: %q, %v", l.Subject, err)
		}
	}
	// A report of a week before there was a collector says so, instead of sums.
	early := w.week
	for range 4 {
		early = early.Before()
	}
	r, err := w.maker.Build(t.Context(), access.Only(w.tenants[0]), w.tenants[0], early)
	if err != nil || !r.Unserved || !strings.Contains(r.LinesText(), "in service") || r.Tiles()[3].Note != "joined after this week" {
		t.Errorf("before the collector: %s, %v, %v", fmt.Sprint(r.LinesText()), r.Tiles()[3], err)
	}
}
