package collector

import (
	"strings"
	"testing"
)

// What the page says first, in each state: the worst comes first, and each but the good one says what to do.
func TestVerdict(t *testing.T) {
	lines := map[string]uint64{"received": 3}
	for name, c := range map[string]struct {
		s             Status
		tone, heading string
	}{
		"working":        {Status{State: "live", Counts: lines}, "good", "Working"},
		"just started":   {Status{Counts: lines}, "warn", "not answered yet"},
		"no lines":       {Status{State: "live"}, "warn", "No lines yet"},
		"not confirmed":  {Status{State: "quarantined", CheckWords: []string{"a", "b", "c", "d"}}, "warn", "compare these words"},
		"no hub":         {Status{State: "quarantined", HubTrouble: "dial tcp: refused", Counts: lines}, "bad", "not reached"},
		"no room":        {Status{State: "live", Full: true, HubTrouble: "dial tcp: refused"}, "bad", "disk is full"},
		"shut out":       {Status{State: "revoked", Full: true}, "bad", "shut out"},
		"hub away, idle": {Status{State: "live", HubTrouble: "dial tcp: refused"}, "bad", "not reached"},
	} {
		v := verdictOf(&c.s, 1234567)
		if v.Tone != c.tone || !strings.Contains(v.Heading, c.heading) || v.Text == "" {
			t.Errorf("%s: %+v", name, v)
		}
		if (len(v.Words) > 0) != (name == "not confirmed") || (v.Detail != "") != strings.Contains(v.Heading, "not reached") {
			t.Errorf("%s: words %q, detail %q", name, v.Words, v.Detail)
		}
		if strings.Contains(v.Heading, "not reached") && !strings.Contains(v.Text, thousands(1234567)) {
			t.Errorf("%s: it does not say how many wait: %s", name, v.Text)
		}
	}
}
