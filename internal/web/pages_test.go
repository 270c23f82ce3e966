package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/event"
	"tocsin/internal/member"
	"tocsin/internal/people"
	"tocsin/internal/report"
)

func contains(t *testing.T, what, body string, want ...string) {
	t.Helper()
	for _, s := range want {
		if !strings.Contains(body, s) {
			t.Errorf("%s: %q is not there in:\n%s", what, s, trim(body))
		}
	}
}

func lacks(t *testing.T, what, body string, not ...string) {
	t.Helper()
	for _, s := range not {
		if strings.Contains(body, s) {
			t.Errorf("%s: %q is there", what, s)
		}
	}
}

var mainPart = regexp.MustCompile(`(?s)<main.*</main>`)

func trim(body string) string {
	if m := mainPart.FindString(body); m != "" {
		body = m
	}
	return body[:min(len(body), 3000)]
}

func TestSignIn(t *testing.T) {
	w := newWorld(t, false)
	c := w.client("")
	if status, _ := c.get("/queue?view=mine"); status != http.StatusSeeOther {
		t.Errorf("nobody at the queue: %d", status)
	}
	res, _ := c.do(http.MethodGet, "/queue?view=mine", nil)
	if got := res.Header.Get("Location"); got != "/sign-in?next=%2Fqueue%3Fview%3Dmine" {
		t.Errorf("sent to %s", got)
	}
	op := w.users["operator"]
	try := func(email, password, code string) (string, string) {
		t.Helper()
		status, _, to := c.post("/sign-in", url.Values{"email": {email}, "password": {password}, "next": {"/members"}})
		if status != http.StatusSeeOther || to != "/sign-in/code" {
			t.Fatalf("first step of %s: %d %s", email, status, to)
		}
		status, body, to := c.post("/sign-in/code", url.Values{"code": {code}})
		if status == http.StatusSeeOther {
			return to, ""
		}
		return "", body
	}
	// A wrong password, a wrong code and an unknown account look the same from
	// outside, at each step.
	var bodies []string
	for _, tc := range [][3]string{{op.Email, "wrong password here", w.code("operator")}, {op.Email, op.password, "000000"}, {"nobody@centre.example", "wrong password here", "123456"}} {
		to, body := try(tc[0], tc[1], tc[2])
		if to != "" {
			t.Fatalf("%v got in to %s", tc, to)
		}
		contains(t, "refusal", body, wrongSignIn, `value="`+tc[0]+`"`)
		bodies = append(bodies, strings.ReplaceAll(body, tc[0], "as typed"))
	}
	if bodies[0] != bodies[1] || bodies[1] != bodies[2] {
		t.Error("the refusals differ, which tells what was wrong")
	}
	code := w.code("operator")
	if to, body := try(op.Email, op.password, code[:3]+" "+code[3:]); to != "/members" {
		t.Fatalf("signed in to %q\n%s", to, trim(body))
	}
	if status, body := c.get("/members"); status != http.StatusOK || !strings.Contains(body, "Ashgrove School") {
		t.Errorf("members: %d", status)
	}
	// The same code does not work again.
	again := w.client("")
	again.post("/sign-in", url.Values{"email": {op.Email}, "password": {op.password}})
	if status, _, _ := again.post("/sign-in/code", url.Values{"code": {code}}); status != http.StatusUnprocessableEntity {
		t.Errorf("a used code: %d", status)
	}
	if status, _, to := c.post("/sign-out", url.Values{}); status != http.StatusSeeOther || to != "/sign-in?why=out" {
		t.Errorf("sign out: %d %s", status, to)
	}
	if status, _ := c.get("/members"); status != http.StatusSeeOther {
		t.Errorf("after signing out: %d", status)
	}
	// Without the cookie of the first step the second says what to do.
	if _, _, to := w.client("").post("/sign-in/code", url.Values{"code": {"123456"}}); to != "/sign-in?why=cookie" {
		t.Errorf("no first step: %s", to)
	}
	if _, body := w.client("").get("/sign-in?why=cookie"); !strings.Contains(body, "Allow cookies") {
		t.Error("no word about cookies")
	}
	// Empty fields are named.
	_, body, _ := w.client("").post("/sign-in", url.Values{})
	contains(t, "empty form", body, "Enter your email address", "Enter your password", "<title>Error: ")
	if got := w.log.String(); got != "" {
		t.Errorf("logged: %s", got)
	}
}

func TestSessionCookieAndEnd(t *testing.T) {
	w := newWorld(t, false)
	c := w.client("")
	u := w.users["analyst"]
	res, _ := c.do(http.MethodPost, "/sign-in", url.Values{"email": {u.Email}, "password": {u.password}})
	cookie := res.Header.Get("Set-Cookie")
	for _, want := range []string{"__Host-tocsin=", "Path=/", "HttpOnly", "Secure", "SameSite=Lax"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("the cookie %q lacks %s", cookie, want)
		}
	}
	first := regexp.MustCompile(`__Host-tocsin=([^;]+)`).FindStringSubmatch(cookie)[1]
	res, _ = c.do(http.MethodPost, "/sign-in/code", url.Values{"code": {w.code("analyst")}})
	second := regexp.MustCompile(`__Host-tocsin=([^;]+)`).FindStringSubmatch(res.Header.Get("Set-Cookie"))
	if second == nil || second[1] == first {
		t.Error("the session kept its name over the sign-in")
	}
	if status, _ := c.get("/queue"); status != http.StatusOK {
		t.Fatalf("queue: %d", status)
	}
	op := w.users["operator"]
	if err := w.people.SetDisabled(t.Context(), op.Principal, u.UserID, true); err != nil {
		t.Fatal(err)
	}
	if status, _ := c.get("/queue"); status != http.StatusSeeOther {
		t.Errorf("a disabled account still sees the queue: %d", status)
	}
}

func TestRateLimit(t *testing.T) {
	w := newWorld(t, false)
	now := time.Now()
	w.s.limit.now = func() time.Time { return now } // on a busy machine the tries would take so long that they are allowed
	c := w.client("")
	busy := 0
	for range limitBurst + 5 {
		status, body, _ := c.post("/sign-in", url.Values{"email": {"x@y.example"}, "password": {"wrong password"}})
		if status == http.StatusTooManyRequests {
			busy++
			contains(t, "too many", body, "Wait a minute")
		}
	}
	if busy == 0 {
		t.Error("nothing held the flood back")
	}
}

func TestCrossSiteForms(t *testing.T) {
	w := newWorld(t, false)
	c := w.client("operator")
	for _, h := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "", "Origin", "https://elsewhere.example"}} {
		res, body := c.do(http.MethodPost, "/members/new", url.Values{"name": {"Evil Ltd"}}, h...)
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%v: %d", h, res.StatusCode)
		}
		contains(t, "refused form", body, "This came from another site")
	}
	orgs, err := w.members.Organisations(t.Context(), access.System("test"))
	if err != nil || len(orgs) != 3 {
		t.Errorf("%d members, %v", len(orgs), err)
	}
}

// crossing values for the parts of a route's pattern, by whose they are.
func (w *world) path(rt route, i int) (method, path string) {
	method, path, _ = strings.Cut(rt.pattern, " ")
	path = strings.ReplaceAll(path, "{$}", "")
	path = strings.ReplaceAll(path, "{tenant}", fmt.Sprint(w.tenants[i]))
	path = strings.ReplaceAll(path, "{token}", "0190a3c2-0000-7000-8000-000000000001")
	path = strings.ReplaceAll(path, "{session}", w.sessions[i])
	path = strings.ReplaceAll(path, "{person}", w.users[fmt.Sprintf("member%d", i+1)].UserID)
	path = strings.ReplaceAll(path, "{file}", report.WeekOf(w.now()).String()+".html")
	switch {
	case strings.HasPrefix(path, "/alerts/{id}"):
		path = strings.ReplaceAll(path, "{id}", w.alertID(i, "scan"))
	case strings.HasPrefix(path, "/collectors/{id}"):
		path = strings.ReplaceAll(path, "{id}", w.collectors[i])
	default:
		path = strings.ReplaceAll(path, "{id}", "0190a3c2-0000-7000-8000-000000000002")
	}
	return method, path
}

// TestCrossing calls every route as every role, with the things of another
// member, and finds nothing of that member in any answer.
func TestCrossing(t *testing.T) {
	w := newWorld(t, false)
	clients := map[string]*client{}
	for _, name := range []string{"operator", "analyst", "member1", "member2", "member3", ""} {
		clients[name] = w.client(name)
	}
	for i := range w.tenants {
		w.sessions = append(w.sessions, people.SessionID(w.client(fmt.Sprintf("member%d", i+1)).token()))
	}
	foreign := func(i int) []string { return []string{memberNames[i], w.alertID(i, "scan"), w.collectors[i]} }
	for _, rt := range w.s.routes() {
		if strings.HasSuffix(rt.pattern, "/live") {
			continue // TestLive
		}
		for name, c := range clients {
			role := access.Role("")
			if name != "" {
				role = w.users[name].Role
			}
			for i := range w.tenants {
				method, path := w.path(rt, i)
				var form url.Values
				if method == http.MethodPost {
					form = url.Values{"note": {"crossing"}, "verdict": {"benign"}, "why": {"crossing"}, "words": {"apple river stone wrong"}, "for": {"24h"}, "name": {"Crossing"}, "email": {"c@crossing.example"}, "new_site": {"Crossing"}}
					if strings.HasSuffix(path, "/actions") {
						form = url.Values{"id": {w.alertID(i, "scan")}, "action": {"assign"}}
					}
				}
				if role != access.Member && name != "" && method == http.MethodPost {
					if slices.Contains(rt.roles, role) {
						continue // staff may; their deeds are tested one by one
					}
				}
				res, body := c.do(method, path, form)
				own := role == access.Member && w.users[name].Tenant == w.tenants[i]
				what := fmt.Sprintf("%s as %q with member %d", rt.pattern, name, i+1)
				switch {
				case name == "":
					if res.StatusCode != http.StatusSeeOther || !strings.HasPrefix(res.Header.Get("Location"), "/sign-in") {
						t.Errorf("%s: %d to %s", what, res.StatusCode, res.Header.Get("Location"))
					}
				case !slices.Contains(rt.roles, role):
					if res.StatusCode != http.StatusForbidden {
						t.Errorf("%s: %d, want 403", what, res.StatusCode)
					}
				case role == access.Member && !own && strings.Contains(rt.pattern, "{id}"):
					if res.StatusCode != http.StatusNotFound {
						t.Errorf("%s: %d, want 404", what, res.StatusCode)
					}
				case res.StatusCode >= 500:
					t.Errorf("%s: %d\n%s", what, res.StatusCode, trim(body))
				}
				if role == access.Member {
					for j := range w.tenants {
						if w.users[name].Tenant != w.tenants[j] {
							lacks(t, what, body, foreign(j)...)
						}
					}
					lacks(t, what, body, w.alertID(-1, "campaign"))
				}
			}
		}
	}
	// The deeds that were refused left no trace.
	for i := range w.tenants {
		a, err := w.alerts.Get(t.Context(), access.System("test"), w.alertID(i, "scan"))
		if err != nil || a.State != alert.StateNew {
			t.Errorf("member %d's alert is %s, %v", i+1, a.State, err)
		}
		c, err := w.members.Collector(t.Context(), access.System("test"), w.collectors[i])
		if err != nil || c.State == member.Revoked {
			t.Errorf("member %d's collector is %s, %v", i+1, c.State, err)
		}
	}
	if got := w.log.String(); strings.Contains(got, "panic") {
		t.Error(got)
	}
}

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

// TestMember walks a member's pages: the answer, what to do, and its deeds.
func TestMember(t *testing.T) {
	w := newWorld(t, false)
	c := w.client("member1")
	if _, _, to := (func() (int, string, string) {
		res, body := c.do(http.MethodGet, "/", nil)
		return res.StatusCode, body, res.Header.Get("Location")
	})(); to != "/picture" {
		t.Errorf("first page %s", to)
	}
	_, body := c.get("/picture")
	contains(t, "picture", body, "Ashgrove School", "Not quite: one thing needs you.", "Somebody may have got in through your VPN", "Telephone the person", "The figures cannot be read at the moment", "Healthy", "See what to do")
	id := w.alertID(0, "vpn_sign_in")
	_, body = c.get("/alerts/" + id)
	contains(t, "alert", body, "Please act on this now", "What to do", "j.marlowe", "We have dealt with this")
	lacks(t, "alert", body, "Suppress", "Assign to me", "Brindle", "Kirkdale")
	if _, _, to := c.post("/alerts/"+id+"/acknowledge", url.Values{}); to != "/alerts/"+id {
		t.Errorf("acknowledged: to %s", to)
	}
	_, body = c.get("/alerts/" + id)
	contains(t, "acknowledged", body, "You have dealt with it", "says it is dealt with", "Thank you.")
	_, body = c.get("/picture")
	lacks(t, "picture after", body, "one thing needs you today")
	_, body = c.get("/alerts")
	contains(t, "list", body, "Someone is looking for open doors", "Open (2)")
	_, body = c.get("/alerts?view=closed")
	contains(t, "closed list", body, "No closed alerts")

	_, body = c.get("/collectors")
	contains(t, "collectors", body, "fw-log-1", "Every line is accounted for", "12,000")
	_, body = c.get("/collectors/" + w.collectors[0])
	contains(t, "collector", body, "Allowed traffic", "11,900", "Traffic from outside was refused", "Not understood", "Findings of the rules on the site", "source.port", "0.2 s slow")
	lacks(t, "collector", body, "Shut this collector out", "check words")

	// The third member's collector waits for its words.
	k := w.client("member3")
	_, body = k.get("/picture")
	contains(t, "picture before the words", body, "waits for its check words", "Nearly there")
	path := "/collectors/" + w.collectors[2]
	_, body = k.get(path)
	contains(t, "quarantine", body, "compare the check words")
	lacks(t, "quarantine", body, "apple")
	for words, want := range map[string]string{"": "Type the words", "apple river stone lamp": "These are not the words"} {
		status, body, _ := k.post(path+"/confirm", url.Values{"words": {words}})
		if status != http.StatusUnprocessableEntity {
			t.Errorf("words %q: %d", words, status)
		}
		contains(t, "wrong words", body, want)
	}
	if _, _, to := k.post(path+"/confirm", url.Values{"words": {"Apple River STONE table"}}); to != path {
		t.Errorf("right words: to %s", to)
	}
	_, body = k.get(path)
	contains(t, "confirmed", body, "The collector is confirmed.", "Healthy")
}

// TestOperator takes a member in: organisation, token, person, collector out.
func TestOperator(t *testing.T) {
	w := newWorld(t, false)
	c := w.client("operator")
	for form, want := range map[string]string{"": "Enter the name of the organisation", "Ashgrove School": "There is a member of this name already"} {
		status, body, _ := c.post("/members/new", url.Values{"name": {form}, "sector": {"Other"}})
		if status != http.StatusUnprocessableEntity {
			t.Errorf("%q: %d", form, status)
		}
		contains(t, "bad member", body, want)
	}
	_, body, _ := c.post("/members/new", url.Values{"name": {"Newmill Farm"}})
	contains(t, "no sector", body, "Choose the sector")
	status, body, _ := c.post("/members/new", url.Values{"name": {"Newmill Farm"}, "sector": {"Agriculture"}, "contact_email": {"nobody"}})
	if status != http.StatusUnprocessableEntity || !strings.Contains(body, "not an e-mail address") || !strings.Contains(body, `value="Newmill Farm"`) {
		t.Errorf("bad address: %d\n%s", status, trim(body))
	}
	_, _, to := c.post("/members/new", url.Values{"name": {"Newmill Farm"}, "sector": {"Agriculture"}, "area": {"Northshire Police"}})
	if !strings.HasPrefix(to, "/members/") {
		t.Fatalf("added: to %q", to)
	}
	_, body = c.get(to)
	contains(t, "new member", body, "Newmill Farm", "Main site", "make an enrolment token")
	site := regexp.MustCompile(`<option value="([0-9a-f-]{36})">Main site`).FindStringSubmatch(body)
	if site == nil {
		t.Fatal("no site to choose")
	}
	status, body, _ = c.post(to+"/tokens", url.Values{"site": {site[1]}})
	token := regexp.MustCompile(`tocsin1\.[A-Za-z0-9_-]+`).FindString(body)
	if status != http.StatusOK || token == "" {
		t.Fatalf("token: %d\n%s", status, trim(body))
	}
	_, body = c.get(to)
	lacks(t, "the page afterwards", body, token)
	cancel := regexp.MustCompile(to + `/tokens/[0-9a-f-]+/cancel`).FindString(body)
	if _, _, back := c.post(cancel, url.Values{}); back != to {
		t.Errorf("cancelled: to %q", back)
	}
	_, body = c.get(to)
	contains(t, "cancelled", body, "The token no longer works.")
	lacks(t, "cancelled", body, "Tokens not used yet")
	// A new site, and one that exists.
	_, body, _ = c.post(to+"/tokens", url.Values{"new_site": {"Barn"}})
	contains(t, "new site", body, "tocsin1.", "Barn")
	if status, body, _ = c.post(to+"/tokens", url.Values{"new_site": {"barn"}}); status != http.StatusUnprocessableEntity {
		t.Errorf("same site: %d", status)
	}
	contains(t, "same site", body, "There is a site of this name already")
	// Another member's site does not fit under this one.
	other, err := w.members.FindSite(t.Context(), access.System("test"), w.tenants[0], "")
	if err != nil {
		t.Fatal(err)
	}
	if status, _, _ := c.post(to+"/tokens", url.Values{"site": {other.ID}}); status != http.StatusNotFound {
		t.Errorf("a token for another member's site: %d", status)
	}

	// Invitation to sign-in.
	if status, body, _ := c.post(to+"/invitations", url.Values{"name": {"Fay Farmer"}, "email": {"jo@ashgrove.example"}}); status != http.StatusUnprocessableEntity || !strings.Contains(body, "signs in with this address already") {
		t.Errorf("taken address: %d", status)
	}
	_, body, _ = c.post(to+"/invitations", url.Values{"name": {"Fay Farmer"}, "email": {"fay@newmill.example"}})
	link := regexp.MustCompile(`/invitation/[A-Za-z0-9_-]+`).FindString(body)
	if link == "" {
		t.Fatalf("no invitation in\n%s", trim(body))
	}
	f := w.client("")
	_, body = f.get(link)
	contains(t, "invitation", body, "Welcome, Fay Farmer", "fay@newmill.example", "Newmill Farm", "data:image/png;base64,")
	secret := strings.ReplaceAll(regexp.MustCompile(`<span class="mono">([A-Z2-7 ]+)</span>`).FindStringSubmatch(body)[1], " ", "")
	code := func() string {
		code, err := totp.GenerateCode(secret, w.now().Add(time.Duration(w.skip.Load())))
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	for _, tc := range []struct{ password, code, want string }{{"short", code(), "at least 12 characters"}, {"four unrelated words here", "000000", "The code does not fit"}, {"four unrelated words here", "12", "six digits"}, {"password12345", code(), "guessers try first"}} {
		status, body, _ := f.post(link, url.Values{"password": {tc.password}, "code": {tc.code}})
		if status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", tc.want, status)
		}
		contains(t, "bad acceptance", body, tc.want)
		lacks(t, "bad acceptance", body, tc.password)
	}
	if status, body, to := f.post(link, url.Values{"password": {"four unrelated words here"}, "code": {code()}}); to != "/sign-in?why=ready" {
		t.Fatalf("accepted: %d to %q\n%s", status, to, trim(body))
	}
	if status, _ := f.get(link); status != http.StatusNotFound {
		t.Errorf("a used invitation: %d", status)
	}
	w.skip.Add(int64(30 * time.Second))
	f.post("/sign-in", url.Values{"email": {"fay@newmill.example"}, "password": {"four unrelated words here"}})
	if _, _, to := f.post("/sign-in/code", url.Values{"code": {code()}}); to != "/" {
		t.Fatalf("signed in: to %q", to)
	}
	_, body = f.get("/picture")
	contains(t, "a new member's picture", body, "Newmill Farm", "We cannot say yet")
	_, body = f.get("/collectors")
	contains(t, "a new member's collectors", body, "No collector yet")

	// Shutting a collector out.
	path := "/collectors/" + w.collectors[1]
	if status, body, _ := c.post(path+"/revoke", url.Values{}); status != http.StatusUnprocessableEntity || !strings.Contains(body, "Say why") {
		t.Errorf("shut out without a reason: %d", status)
	}
	if _, _, to := c.post(path+"/revoke", url.Values{"why": {"stolen laptop"}}); to != path {
		t.Errorf("shut out: to %q", to)
	}
	_, body = c.get(path)
	contains(t, "shut out", body, "The collector is shut out.", "stolen laptop", "Shut out")
	_, body = c.get("/health")
	contains(t, "health", body, "Everything works", "Gate")
	if got := w.log.String(); strings.Contains(strings.ReplaceAll(got, errAway.Error(), ""), "level=ERROR msg=\"answering") {
		t.Error(got)
	}
}

func TestIndicators(t *testing.T) {
	w := newWorld(t, false)
	c := w.client("analyst")
	for form, want := range map[string]string{"list=&source=x&days=30": "Paste a list", "list=203.0.113.9&source=&days=30": "Say where the list comes from", "list=203.0.113.9&source=x&days=no": "Choose for how long"} {
		v, _ := url.ParseQuery(form)
		status, body, _ := c.post("/indicators/import", v)
		if status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", form, status)
		}
		contains(t, form, body, want)
	}
	status, body, _ := c.post("/indicators/import", url.Values{"list": {"203.0.113.9 # seen\n0.0.0.0/0\nbad.example\n<script>x</script>\n"}, "source": {"Bulletin 12"}, "tlp": {"green"}, "days": {"30"}, "push": {"1"}})
	if status != http.StatusOK {
		t.Fatalf("import: %d", status)
	}
	contains(t, "import", body, "2 added", "2 refused", "0.0.0.0/0", "bad.example", "Bulletin 12", "GREEN")
	lacks(t, "import", body, "<script>x")
	_, body = c.get("/indicators?q=bad.example")
	contains(t, "search", body, "bad.example")
	lacks(t, "search", body, "203.0.113.9<")
	remove := regexp.MustCompile(`/indicators/[0-9a-f-]+/remove`).FindString(body)
	if _, _, to := c.post(remove, url.Values{}); to != "/indicators" {
		t.Errorf("removed: to %q", to)
	}
	_, body = c.get("/indicators")
	contains(t, "after", body, "1 in all")
	if status, _ := c.get("/indicators?kind=nonsense"); status != http.StatusUnprocessableEntity {
		t.Errorf("nonsense kind: %d", status)
	}
	if status, _ := c.get("/indicators?after=zzz"); status != http.StatusUnprocessableEntity {
		t.Errorf("nonsense mark: %d", status)
	}
}

func TestErrorPages(t *testing.T) {
	w := newWorld(t, false)
	for _, name := range []string{"", "member1", "operator"} {
		c := w.client(name)
		status, body := c.get("/no/such/page")
		if status != http.StatusNotFound {
			t.Errorf("%q: %d", name, status)
		}
		contains(t, "not found", body, "Page not found")
	}
	c := w.client("operator")
	big := strings.Repeat("x", maxForm+1)
	if status, body, _ := c.post("/members/new", url.Values{"name": {big}}); status != http.StatusRequestEntityTooLarge || !strings.Contains(body, "That is too long") {
		t.Errorf("too long: %d", status)
	}
	// The database goes away: a page that says so, and the reason in the log only.
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	status, body := c.get("/members")
	if status != http.StatusInternalServerError {
		t.Errorf("without a database: %d", status)
	}
	contains(t, "without a database", body, "Sorry, something is wrong with Tocsin", "give this reference")
	lacks(t, "without a database", body, "sql", "database is closed")
	ref := regexp.MustCompile(`<strong class="mono">([0-9a-f]+)</strong>`).FindStringSubmatch(body)
	if ref == nil || !strings.Contains(w.log.String(), ref[1]) {
		t.Errorf("the reference %v is not in the log: %s", ref, w.log.String())
	}
}

// TestIdle: a session that asks for nothing ends, one that is used does not.
func TestIdle(t *testing.T) {
	w := newWorld(t, false)
	c := w.client("analyst")
	start := time.Now()
	later := time.Duration(0)
	w.s.o.Now = func() time.Time { return start.Add(later) }
	for _, step := range []time.Duration{2 * time.Hour, 5 * time.Hour, 8 * time.Hour} { // each within the idle time of the one before
		later = step
		if status, _ := c.get("/members"); status != http.StatusOK {
			t.Fatalf("used after %v: %d", step, status)
		}
	}
	later += sessionIdle + time.Minute
	if status, _ := c.get("/members"); status != http.StatusSeeOther {
		t.Errorf("idle for %v: %d", sessionIdle, status)
	}
}

// TestManyMembers pages and searches the list.
func TestManyMembers(t *testing.T) {
	w := newWorld(t, false)
	for n := range 60 {
		if _, err := w.members.AddOrganisation(t.Context(), "test", member.Organisation{Name: fmt.Sprintf("School %02d", n), Sector: "Education"}); err != nil {
			t.Fatal(err)
		}
	}
	c := w.client("analyst")
	_, body := c.get("/members")
	contains(t, "first page", body, "63 in all", "Ashgrove School", "School 46", "More members")
	lacks(t, "first page", body, "School 50")
	_, body = c.get("/members?from=50&q=")
	contains(t, "second page", body, "School 59", "Back to the first")
	_, body = c.get("/members?q=brindle")
	contains(t, "search", body, "1 of 63", "Brindle Engineering Ltd")
	lacks(t, "search", body, "School 0")
	_, body = c.get("/members?q=zzz&from=-4")
	contains(t, "nothing", body, "No member fits")
	_, body = c.get("/collectors?q=kirk")
	contains(t, "collectors", body, "1 of 3", "fw-log-3")
	_, body = c.get("/collectors")
	if i, j := strings.Index(body, "fw-log-3"), strings.Index(body, "fw-log-1"); i < 0 || j < 0 || i > j {
		t.Error("the collector that waits does not stand first")
	}
}

// invented are records that say that the figures were made for a demonstration.
type invented struct {
	*member.Store
	since int64
}

func (i invented) Invented(_ context.Context, _ event.TenantID, from, _ int64) (bool, error) {
	return from < i.since, nil
}

func TestInventedFigures(t *testing.T) {
	w := newWorld(t, false)
	w.s.o.Members = invented{w.members, time.Now().AddDate(0, 0, -3).UnixNano()}
	c := w.client("member1")
	for days, want := range map[string]bool{"1": false, "7": true} {
		if _, body := c.get("/picture?days=" + days); strings.Contains(body, "made for this demonstration") != want {
			t.Errorf("%s days: said to be invented %v", days, !want)
		}
	}
}
