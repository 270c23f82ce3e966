package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"tocsin/internal/event"
)

// sourcesOf are the same three sources for every member.
type sourcesOf struct{ w *world }

func (s sourcesOf) Sources(_ context.Context, t event.TenantID) ([]Source, error) {
	i := 0
	for s.w.tenants[i] != t {
		i++
	}
	at := time.Now().Add(-2 * time.Hour)
	return []Source{
		{Tenant: t, Product: "FortiGate", Collector: s.w.collectors[i], CollectorName: "fw-log", Last: at, Events: 41_200, Parsed: 0.98, Mapped: 1, Can: []string{"Port scan from one source"}, Cannot: []CannotFire{{"DNS tunnel", "these fields never came: dns.question.name"}}, Other: 230},
		{Tenant: t, Product: "DrayTek Vigor", Collector: s.w.collectors[i], CollectorName: "fw-log", Last: at, Events: 9, Gone: []string{"destination.port"}},
		{Tenant: t, Product: fmt.Sprint("pfSense of member ", i+1), Collector: s.w.collectors[i], CollectorName: "fw-log", Last: at, Events: 900, Silent: true},
	}, nil
}

func (s sourcesOf) Unwell(ctx context.Context) (out []Source, err error) {
	for _, t := range s.w.tenants {
		list, err := s.Sources(ctx, t)
		if err != nil {
			return nil, err
		}
		out = append(out, list[1:]...)
	}
	return out, nil
}

func (s sourcesOf) Coverage(context.Context, event.TenantID) ([]Covered, error) {
	return []Covered{{ID: "T1071.004", Rules: nil, Blind: 2}, {ID: "T1046", Rules: []string{"Port scan from one source", "b", "c", "d", "e", "f", "g"}, Blind: 1}}, nil
}

// What is silent or blind stands on a page of the centre's, and each member's sources on its own.
func TestDetection(t *testing.T) {
	w := newWorld(t, false)
	staff, own := w.client("operator"), w.client("member1")
	_, body := staff.get("/detection")
	contains(t, "without detection health", body, "There is no source yet", `href="/members"`)
	lacks(t, "without detection health", body, "Every source can be seen")
	w.s.o.Detection = sourcesOf{w}
	_, body = staff.get("/detection")
	contains(t, "overview", body, fmt.Sprintf("%d sources cannot be seen as before", 2*len(w.tenants)), "pfSense of member 2", "silent", "no longer have destination.port", fmt.Sprintf(`href="/members/%d/detection"`, w.tenants[1]))
	_, body = staff.get(fmt.Sprintf("/members/%d/detection", w.tenants[1]))
	contains(t, "a member's", body, "2 of 3 sources cannot be seen as before", "FortiGate", "98 in 100", "Port scan from one source", "these fields never came: dns.question.name", "1 watch it; 1 more for devices like it cannot fire on it; the list says why; 230 are for other kinds", "pfSense of member 2")
	contains(t, "ways of attack", body, "Of 2 ways of attack that the rules are about, 1 can be seen here with what their devices report", "Network Service Discovery", "Port scan from one source; b; c; d; e; 2 more", ">nothing<")
	if i, j := strings.Index(body, "T1046"), strings.Index(body, "T1071.004"); i < 0 || j < i {
		t.Errorf("what can be seen does not stand first: %d, %d", i, j)
	}
	_, body = own.get("/detection")
	contains(t, "the member's own", body, "What can be seen", "pfSense of member 1", "Nothing has come from it")
	lacks(t, "the member's own", body, "pfSense of member 2")
	if code, _ := own.get(fmt.Sprintf("/members/%d/detection", w.tenants[1])); code != http.StatusForbidden {
		t.Errorf("another member's: %d", code)
	}
	if code, _ := staff.get("/members/999/detection"); code != http.StatusNotFound {
		t.Errorf("nobody's: %d", code)
	}
}
