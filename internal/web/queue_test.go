package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/event"
)

// TestAlertWork takes an alert through an analyst's hands, by forms alone.
func TestAlertWork(t *testing.T) {
	w := newWorld(t, false)
	c := w.client("analyst")
	id := w.alertID(0, "vpn_sign_in")
	_, body := c.get("/queue")
	contains(t, "queue", body, "Vpn success after failures", "Ashgrove School", "Several members", "unassigned alerts", `data-count="view-unassigned">5<`)
	if i, j := strings.Index(body, "Vpn success"), strings.Index(body, "Port scan"); i > j {
		t.Error("the critical alert does not stand first")
	}
	_, body = c.get("/queue?severity=critical")
	contains(t, "filtered", body, "Vpn success", "Clear")
	lacks(t, "filtered", mainPart.FindString(body), "Port scan")
	_, body = c.get("/queue?q=nothing-like-it")
	contains(t, "no match", body, "No alert fits these filters")
	if status, _ := c.get("/queue?view=zzz&severity=worst&tenant=x&after=zzz"); status != http.StatusOK {
		t.Errorf("nonsense filters: %d", status)
	}

	step := func(path string, form url.Values, want ...string) string {
		t.Helper()
		status, body, to := c.post("/alerts/"+id+path, form)
		if status != http.StatusSeeOther || to != "/alerts/"+id {
			t.Fatalf("%s: %d to %q\n%s", path, status, to, trim(body))
		}
		_, page := c.get(to)
		contains(t, path, page, want...)
		return page
	}
	page := step("/assign", url.Values{}, "The alert is yours.", "A. Okafor", "Give back")
	// What the rule and the logs say is text, never markup.
	lacks(t, "escaping", page, "<b>one</b>", "<script>alert")
	contains(t, "escaping", page, "&lt;b&gt;one&lt;/b&gt;", "T1110.003", "Password Spraying", "cannot be read at the moment")
	_, body = c.get("/queue?view=mine")
	contains(t, "mine", body, id, `data-count="total">1</span> <span data-words="total" data-single="alert of mine" data-many="alerts of mine">alert of mine<`)
	_, body = c.get("/queue?view=escalated")
	contains(t, "escalated", body, `data-count="total">0</span>`, ">escalated alerts<")
	_, body = c.get("/queue")
	lacks(t, "unassigned", body, id)
	step("/escalate", url.Values{"note": {"call them"}}, "escalated", "call them")
	_, body = c.get("/queue?view=open")
	contains(t, "marked", body, `<span class="mark">Escalated</span>`)
	if status, body, _ := c.post("/alerts/"+id+"/escalate", url.Values{}); status != http.StatusUnprocessableEntity || !strings.Contains(body, "escalated already") {
		t.Errorf("escalated twice: %d", status)
	}
	step("/note", url.Values{"note": {"rang <i>twice</i>"}}, "rang &lt;i&gt;twice&lt;/i&gt;")
	if status, body, _ := c.post("/alerts/"+id+"/close", url.Values{"verdict": {""}}); status != http.StatusUnprocessableEntity || !strings.Contains(body, "Choose what it was.") {
		t.Errorf("closed without a verdict: %d", status)
	}
	if status, _, _ := c.post("/alerts/"+id+"/close", url.Values{"verdict": {"whatever"}}); status != http.StatusUnprocessableEntity {
		t.Errorf("closed as whatever: %d", status)
	}
	step("/close", url.Values{"verdict": {"true_positive"}, "note": {"password reset"}}, "Closed: a real attack", "password reset", "Reopen")
	step("/reopen", url.Values{}, "The alert is open again.")
	if status, body, _ := c.post("/alerts/"+id+"/suppress", url.Values{"for": {"24h"}}); status != http.StatusUnprocessableEntity || !strings.Contains(body, "Say why") {
		t.Errorf("suppressed without a reason: %d", status)
	}
	step("/suppress", url.Values{"for": {"168h"}, "note": {"a test of ours"}}, "Suppressed", "a test of ours")
	// In the right pane the same forms answer with the pane alone.
	scan := w.alertID(1, "scan")
	res, body := c.do(http.MethodPost, "/alerts/"+scan+"/assign", url.Values{"pane": {"1"}, "back": {"/queue"}}, "HX-Request", "true")
	if res.StatusCode != http.StatusOK || strings.Contains(body, "<html") || !strings.Contains(body, "Give back") {
		t.Errorf("pane: %d\n%s", res.StatusCode, body)
	}
	// Without the script the pane's form goes back to the queue, and nowhere else.
	for back, want := range map[string]string{"/queue?view=mine": "/queue?view=mine", "https://elsewhere.example/": "/alerts/" + scan, "//elsewhere.example/": "/alerts/" + scan} {
		if _, _, to := c.post("/alerts/"+scan+"/note", url.Values{"pane": {"1"}, "back": {back}, "note": {"x"}}); to != want {
			t.Errorf("back %q leads to %q", back, to)
		}
	}
	// Several at once.
	if _, _, _ = c.post("/queue/actions", url.Values{"action": {"close"}, "id": {w.alertID(2, "scan")}}); true {
		_, body = c.get("/queue?view=closed")
		contains(t, "closed without a verdict", body, "Choose what the ticked alerts were")
	}
	if _, _, to := c.post("/queue/actions", url.Values{"action": {"close"}, "verdict": {"benign"}, "id": {w.alertID(2, "scan"), w.alertID(0, "scan")}, "back": {"/queue?view=open"}}); to != "/queue?view=open" {
		t.Errorf("back to %s", to)
	}
	_, body = c.get("/queue?view=closed")
	lacks(t, "closed", body, `value="escalate"`) // there is nothing to do about them
	contains(t, "closed", body, "2 alerts closed.", w.alertID(2, "scan"), w.alertID(0, "scan"))
	if _, _, _ = c.post("/queue/actions", url.Values{"action": {"assign"}}); true {
		_, body = c.get("/queue")
		contains(t, "none ticked", body, "Tick at least one alert first")
	}
	if status, _ := c.get("/alerts/0190a3c2-0000-7000-8000-00000000ffff"); status != http.StatusNotFound {
		t.Errorf("an alert that is not there: %d", status)
	}
	for line := range strings.Lines(w.log.String()) {
		if !strings.Contains(line, errAway.Error()) {
			t.Errorf("logged: %s", line)
		}
	}
}

func TestPaging(t *testing.T) {
	w := newWorld(t, false)
	var dets []event.Detection
	for n := range 150 {
		d := w.detection(0, "port-scan", "scan", "medium", 1)
		d.Entity.Value = fmt.Sprintf("198.51.100.%d", n)
		d.Source, d.Key = d.Entity.Value, fmt.Sprint("paging", n)
		d.Last -= int64(n) * int64(time.Minute)
		dets = append(dets, d)
	}
	if _, err := w.alerts.Apply(t.Context(), "paging", dets); err != nil {
		t.Fatal(err)
	}
	c := w.client("analyst")
	row := regexp.MustCompile(`data-alert="([^"]+)"`)
	next := regexp.MustCompile(`href="(/queue\?[^"]*after=[^"]*)"`)
	seen := map[string]bool{}
	path, pages := "/queue?severity=medium&family=scan", 0
	for path != "" && pages < 10 {
		pages++
		_, body := c.get(path)
		for _, m := range row.FindAllStringSubmatch(body, -1) {
			if seen[m[1]] {
				t.Errorf("page %d shows %s again", pages, m[1])
			}
			seen[m[1]] = true
		}
		path = ""
		if m := next.FindStringSubmatch(body); m != nil {
			path = strings.ReplaceAll(m[1], "&amp;", "&")
			if !strings.Contains(path, "severity=medium") {
				t.Errorf("the next page loses the filter: %s", path)
			}
		}
	}
	if len(seen) != 152 || pages != 3 {
		t.Errorf("%d alerts on %d pages, want 152 on 3", len(seen), pages)
	}
}

// TestLive watches the queue as the browser does and sees rows come and go.
func TestLive(t *testing.T) {
	w := newWorld(t, false)
	c := w.client("analyst")
	c.Timeout = 0
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+"/queue/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || !strings.HasPrefix(got, "text/event-stream") {
		t.Fatalf("%d %s", res.StatusCode, got)
	}
	type message struct{ event, data string }
	in := make(chan message, 64)
	go func() {
		defer close(in)
		var m message
		sc := bufio.NewScanner(res.Body)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			line := sc.Text()
			switch {
			case line == "" && (m.event != "" || m.data != ""):
				in <- m
				m = message{}
			case strings.HasPrefix(line, "event: "):
				m.event = line[7:]
			case strings.HasPrefix(line, "data: "):
				m.data += line[6:] + "\n"
			}
		}
	}()
	wait := func(what string, ok func(message) bool) message {
		t.Helper()
		for m := range in {
			if ok(m) {
				return m
			}
		}
		t.Fatalf("the stream ended before %s", what)
		return message{}
	}
	d := w.detection(1, "ids-high", "ids", "high", 1)
	if _, err := w.alerts.Apply(ctx, "live", []event.Detection{d}); err != nil {
		t.Fatal(err)
	}
	m := wait("the new row", func(m message) bool { return strings.Contains(m.data, "Ids high") })
	if !strings.HasPrefix(m.data, `<hx-upsert hx-target="#rows" key="data-sort" sort="desc">`) || !strings.Contains(m.data, "Brindle Engineering Ltd") {
		t.Errorf("row: %s", m.data)
	}
	m = wait("the counts", func(m message) bool { return m.event == "counts" })
	counts := map[string]string{}
	if err := json.Unmarshal([]byte(m.data), &counts); err != nil || counts["view-unassigned"] != "6" || counts["total"] != "6" {
		t.Errorf("counts %v, %v", counts, err)
	}
	id := w.alertID(0, "vpn_sign_in")
	if _, err := w.alerts.Assign(ctx, w.users["operator"].Principal, id, w.users["operator"].UserID); err != nil {
		t.Fatal(err)
	}
	wait("the row that leaves", func(m message) bool { return m.event == "gone" && strings.TrimSpace(m.data) == id })
	// When the hub drains, the stream ends by itself.
	w.stop()
	for range in {
	}
	if ctx.Err() != nil {
		t.Error("the stream outlived the drain")
	}
	if res, _ := w.client("member1").do(http.MethodGet, "/queue/live", nil); res.StatusCode != http.StatusForbidden {
		t.Errorf("a member at the live stream: %d", res.StatusCode)
	}
}

// The answer to "are we all right?" counts what is listed below it.
func TestVerdictCounts(t *testing.T) {
	w := newWorld(t, false)
	if _, err := w.alerts.Apply(t.Context(), "high", []event.Detection{w.detection(0, "ids-high", "ids", "high", 1)}); err != nil {
		t.Fatal(err)
	}
	_, body := w.client("member1").get("/picture")
	contains(t, "picture", body, "Not quite: 2 things need you.")
	if n := strings.Count(body, "See what to do"); n != 2 {
		t.Errorf("%d things are listed", n)
	}
}

// What is dealt with does not count any more; the answer is the one that the report gives (member.Standing).
func TestVerdictFollowsTheAlerts(t *testing.T) {
	w := newWorld(t, false)
	c := w.client("member1")
	open, err := w.alerts.Queue(t.Context(), access.Only(w.tenants[0]), alert.Filter{View: alert.ViewOpen})
	if err != nil || len(open.Alerts) == 0 {
		t.Fatalf("%d alerts, %v", len(open.Alerts), err)
	}
	for _, a := range open.Alerts {
		if status, _, to := c.post("/alerts/"+a.ID+"/acknowledge", url.Values{}); to == "" {
			t.Fatalf("acknowledged: %d", status)
		}
	}
	for _, tc := range [][2]string{{"low", "Yes. Nothing needs you."}, {"medium", "Mostly, with something to look at."}, {"high", "Not quite: one thing needs you."}} {
		if _, err := w.alerts.Apply(t.Context(), tc[0], []event.Detection{w.detection(0, tc[0], tc[0], tc[0], 1)}); err != nil {
			t.Fatal(err)
		}
		_, body := c.get("/picture")
		contains(t, "picture with an alert that is "+tc[0], body, tc[1])
	}
}
