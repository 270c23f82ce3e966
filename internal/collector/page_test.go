package collector

import (
	"strings"
	"testing"
	"time"
)

// What the page says first, in each state: the worst comes first, and each but the good one says what to do.
func TestVerdict(t *testing.T) {
	lines, syslog, noon := map[string]uint64{"received": 3}, []ListenerStatus{{Kind: "syslog"}}, time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
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
		"hub away long":  {Status{State: "live", HubTrouble: "dial tcp: refused", SpoolFull: true}, "bad", "not reached"},
		"a way in ended": {Status{State: "live", Counts: lines, Warnings: []Warning{{Code: "listener_failed"}}}, "bad", "Not all lines"},
		"silent":         {Status{State: "live", Counts: lines, Listeners: syslog, LastLine: noon.Add(-20 * time.Minute), Now: noon}, "warn", "No lines come"},
		"a quiet moment": {Status{State: "live", Counts: lines, Listeners: syslog, LastLine: noon.Add(-10 * time.Minute), Now: noon}, "good", "Working"},
		"started again":  {Status{State: "live", Counts: lines, Listeners: syslog, Started: noon.Add(-time.Minute), Now: noon}, "good", "waiting for lines"},
		"still nothing":  {Status{State: "live", Counts: lines, Listeners: syslog, Started: noon.Add(-time.Hour), Now: noon}, "warn", "No lines since the start"},
		"quiet files":    {Status{State: "live", Counts: lines, Listeners: []ListenerStatus{{Kind: "files"}}, LastLine: noon.Add(-time.Hour), Now: noon}, "good", "Working"},
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
		if strings.Contains(v.Text, "Nothing is lost") == c.s.SpoolFull && strings.Contains(v.Heading, "not reached") {
			t.Errorf("%s: %s", name, v.Text)
		}
	}
}
