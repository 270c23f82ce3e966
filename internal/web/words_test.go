package web

import (
	"testing"

	"tocsin/internal/alert"
)

func TestPlural(t *testing.T) {
	for _, tc := range []struct {
		n    any
		many []string
		want string
	}{{1, nil, "event"}, {int64(1), nil, "event"}, {0, nil, "events"}, {int64(2), nil, "events"}, {2, []string{"sources"}, "sources"}, {1, []string{"sources"}, "event"}} {
		if got, err := pluralOf(tc.n, "event", tc.many...); err != nil || got != tc.want {
			t.Errorf("%v: %q, %v", tc.n, got, err)
		}
	}
	if _, err := pluralOf("3", "event"); err == nil {
		t.Error("a word is counted")
	}
}

func TestSentence(t *testing.T) {
	for in, want := range map[string]string{"": "", "a word": "A word", "éclair": "Éclair", "Ready": "Ready"} {
		if got := sentence(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestQueueHeadings(t *testing.T) {
	for _, v := range queueViews {
		if v.one == v.many || plural(1, v.one, v.many) != v.one || plural(0, v.one, v.many) != v.many {
			t.Errorf("%s: %q, %q", v.key, v.one, v.many)
		}
	}
	for name, tc := range map[string]struct {
		a    alert.Alert
		view string
		want string
	}{
		"escalated, among all":       {alert.Alert{Open: true, EscalatedNS: 1}, alert.ViewOpen, "Escalated"},
		"escalated, among its like":  {alert.Alert{Open: true, EscalatedNS: 1}, alert.ViewEscalated, ""},
		"both":                       {alert.Alert{Open: true, EscalatedNS: 1, AcknowledgedNS: 2}, alert.ViewEscalated, "Dealt with"},
		"dealt with":                 {alert.Alert{Open: true, AcknowledgedNS: 2}, alert.ViewUnassigned, "Dealt with"},
		"closed, with its own words": {alert.Alert{EscalatedNS: 1, AcknowledgedNS: 2}, alert.ViewClosed, ""},
	} {
		if got := markOf(&tc.a, alert.Filter{View: tc.view}); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestReasonText(t *testing.T) {
	_, reasons, _ := policyWords("metadata")
	for word, want := range map[string]string{
		"denied_inbound":                "Traffic from outside was refused",
		"spool_full.denied_inbound":     "Given up because the collector's disk was full while the centre was away: traffic from outside was refused",
		"spool_full.site_detection":     "Given up because the collector's disk was full while the centre was away: a rule on the site fired on them",
		"spool_full":                    "Given up because the collector's disk was full while the centre was away",
		"spool_damage":                  "Their file on the collector was damaged",
		"unsendable":                    "Too long to be sent",
		"a_reason_of_the_member's_own.": "A reason of the member's own.",
		"":                              "",
	} {
		if got := reasonText(reasons, word, true); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
