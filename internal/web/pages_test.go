package web

import (
	"context"
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
