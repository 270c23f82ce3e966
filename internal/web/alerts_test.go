package web

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/indicator"
)

// TestOver: nobody is told to act on what is over, or has been dealt with; and what one alert says is not all where a graver one stands beside it.
func TestOver(t *testing.T) {
	w := newWorld(t, false)
	own, staff := w.client("member1"), w.client("analyst")
	grave, mild := w.alertID(0, "vpn_sign_in"), w.alertID(0, "scan")
	const ask = "<strong>What to do:</strong> Telephone the person"
	_, body := own.get("/alerts")
	contains(t, "open list", body, ask)
	_, body = own.get("/alerts/" + mild)
	contains(t, "the milder one", body, "The same address is in a more serious alert:", `href="/alerts/`+grave+`"`, "<dt>Same address</dt>")
	_, body = own.get("/alerts/" + grave)
	lacks(t, "the graver one", body, "more serious alert")
	contains(t, "the graver one", body, `href="/alerts/`+mild+`"`)
	_, body = staff.get("/alerts/" + mild)
	contains(t, "for the centre", body, "<dt>Same source</dt>", `href="/alerts/`+grave+`"`)
	_, body = staff.get("/alerts/" + w.alertID(1, "scan"))
	lacks(t, "at another member", body, "<dt>Same source</dt>")

	own.post("/alerts/"+grave+"/acknowledge", url.Values{})
	_, body = own.get("/alerts")
	lacks(t, "list, dealt with", body, ask)
	_, body = own.get("/alerts/" + grave)
	contains(t, "dealt with", body, "<h2>What was to be done</h2>", "Telephone the person")

	if status, _, _ := staff.post("/alerts/"+grave+"/close", url.Values{"verdict": {"true_positive"}}); status != http.StatusSeeOther {
		t.Fatalf("closed: %d", status)
	}
	_, body = own.get("/alerts?view=closed")
	contains(t, "closed list", body, "Somebody may have got in")
	lacks(t, "closed list", body, ask)
	_, body = own.get("/alerts/" + grave)
	contains(t, "closed", body, "This is over", "Nothing more needs doing.")
	lacks(t, "closed", body, "What to do", "What was to be done", "Telephone the person")
	_, body = own.get("/alerts/" + mild)
	lacks(t, "the milder one, alone", body, "more serious alert", "<dt>Same address</dt>")
	_, body = staff.get("/alerts/" + grave)
	contains(t, "closed, for the centre", body, "What the member was told", "Telephone the person")
}

// What met the threat list is said in words, for each kind of indicator.
func TestListedWord(t *testing.T) {
	for _, kind := range []indicator.Kind{indicator.IP, indicator.Prefix, indicator.Domain, indicator.URL, indicator.File} {
		for _, denied := range []bool{false, true} {
			got := listedWord(kind.String(), denied)
			if !strings.HasSuffix(got, " on the threat list") || (kind == indicator.IP || kind == indicator.Prefix) != strings.Contains(got, "an address") || denied != strings.HasPrefix(got, "Refused: ") {
				t.Errorf("%s, refused %v: %q", kind, denied, got)
			}
		}
	}
	for _, x := range []struct{ kind, want string }{{"allowed", "Talked to an address on the threat list"}, {"denied", "Refused: an address on the threat list"}} {
		e := eventstore.Stored{Event: &event.Event{}, Class: eventstore.ClassIndicator}
		e.SetString(event.TocsinIndicatorKind, indicator.IP.String())
		e.AddString(event.EventType, "connection")
		e.AddString(event.EventType, x.kind)
		if got := evidenceOf(e).Summary; got != x.want {
			t.Errorf("%s: %q, want %q", x.kind, got, x.want)
		}
	}
}

// TestTimesSayTheirZone: every page says once in which zone its times are.
func TestTimesSayTheirZone(t *testing.T) {
	w := newWorld(t, false)
	for who, paths := range map[string][]string{
		"analyst": {"/queue", "/queue?view=closed", "/members", "/collectors", "/detection", "/alerts/" + w.alertID(0, "scan")},
		"member1": {"/picture", "/alerts", "/reports", "/collectors", "/account"}, "operator": {"/health"},
	} {
		c := w.client(who)
		for _, path := range paths {
			if _, body := c.get(path); strings.Count(body, "Times are for London (") != 1 {
				t.Errorf("%s says its zone %d times", path, strings.Count(body, "Times are for London ("))
			}
		}
	}
}

// A page that is refused to a member is headed with its organisation, as all its others are.
func TestRefusedPageIsHeaded(t *testing.T) {
	w := newWorld(t, false)
	status, body := w.client("member1").get("/queue")
	if status != http.StatusForbidden || !strings.Contains(body, `<div class="who"><span>Ashgrove School</span>`) {
		t.Errorf("%d\n%s", status, body)
	}
}

// The centre's picture of a member speaks of them, not to them.
func TestPictureForTheCentre(t *testing.T) {
	w := newWorld(t, false)
	_, body := w.client("analyst").get("/members/1/picture")
	contains(t, "picture", body, "Vpn success after failures", "Open the alert")
	lacks(t, "picture", body, "Telephone the person", "your VPN", "our analysts", "See what to do")
}

// The steps of an alert stand in the order in which they happened, whatever the order in which they were found.
func TestStepsInOrder(t *testing.T) {
	w := newWorld(t, false)
	d := w.detection(0, "late", "late", "low", 1)
	d.Steps[0], d.Steps[1] = d.Steps[1], d.Steps[0]
	changes, err := w.alerts.Apply(t.Context(), "steps", []event.Detection{d})
	if err != nil {
		t.Fatal(err)
	}
	_, body := w.client("analyst").get("/alerts/" + changes[0].Alert.ID)
	if i, j := strings.Index(body, "19 failed sign-ins"), strings.Index(body, "Signed in as j.marlowe"); i < 0 || j < i {
		t.Errorf("failed at %d, signed in at %d", i, j)
	}
}
