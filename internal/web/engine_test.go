package web

import (
	"net/http"
	"strings"
	"testing"

	"tocsin/internal/eventstore/library"
)

// hasEngine says whether the real event store can be started here.
func hasEngine() bool {
	_, err := library.Find("")
	return err == nil
}

// TestRealEvents shows the pages on the real event store: the figures, the events
// behind an alert, and raw lines where policy sent them.
func TestRealEvents(t *testing.T) {
	if !hasEngine() {
		t.Skip("SKIPPED: the event store's library is not installed; the figures were not shown")
	}
	w := newWorld(t, true)
	c := w.client("analyst")
	id := w.alertID(0, "vpn_sign_in")
	_, body := c.get("/alerts/" + id)
	contains(t, "alert", body, "tunnel-up", "ssl-login-fail", "AS64511", "Netherlands", "Somebody signed in: the address is real", "Fortinet FortiGate", "Sign-in failed for user85", "Signed in for j.marlowe",
		`tunnel-up&#34; remip=203.0.113.77`, "in the 24 hours up to it", "2 other members", "Kirkdale Borough Council")
	lacks(t, "alert", body, "<script>alert", "cannot be read at the moment")
	_, body = c.get("/queue?selected=" + id)
	contains(t, "pane", body, "Newest events", "Raw line", "24 hours up to it")

	m := w.client("member1")
	for _, days := range []string{"", "1", "7", "30", "90", "zzz"} {
		status, body := m.get("/picture?days=" + days)
		if status != http.StatusOK {
			t.Fatalf("%s days: %d", days, status)
		}
		contains(t, days+" days", body, `<span class="figure">90</span>`, `<span class="figure">1</span>`, "world.svg?v=", "#NL", "Netherlands: 90", "VPN", "Remote desktop", "SSH sign-in", "File sharing", "Telnet", "none in")
		lacks(t, days+" days", body, "cannot be read at the moment", "style=")
	}
	_, body = m.get("/alerts/" + id)
	contains(t, "member's alert", body, "Show 5 events", "Example Hosting BV")
	lacks(t, "member's alert", body, "other member", "Kirkdale", "Brindle")
	// The quarantined member's events count for itself only.
	_, body = w.client("member3").get("/picture?days=1")
	contains(t, "the third member's own", body, `<span class="figure">90</span>`)
	if got := w.log.String(); strings.Contains(got, "level=ERROR") || strings.Contains(got, "level=WARN") {
		t.Error(got)
	}
}
