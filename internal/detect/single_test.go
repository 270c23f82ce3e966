package detect

import (
	"testing"

	"tocsin/internal/event"
)

func TestMatcher(t *testing.T) {
	const rule = `title: Remote desktop from outside
id: 0b6b6c2e-6f8a-4a4e-9a52-111111111111
status: test
logsource: {category: firewall}
detection:
  s: {destination.port: 3389, tocsin.verdict: allow}
  condition: s
`
	m, err := NewMatcher(rule)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		port int64
		cat  string
		want bool
	}{{3389, "network", true}, {443, "network", false}, {3389, "authentication", false}} {
		var e event.Event
		e.SetString(event.EventCategory, c.cat)
		e.SetString(event.TocsinVerdict, "allow")
		e.SetInt(event.DestinationPort, c.port)
		if got := m.Matches(&e); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	for _, bad := range []string{"", "title: x", rule + "---\n" + rule, "garbage: [", rule[:len(rule)-4] + " nothing\n"} {
		if _, err := NewMatcher(bad); err == nil {
			t.Errorf("taken: %q", bad)
		}
	}
}
