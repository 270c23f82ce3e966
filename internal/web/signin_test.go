package web

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"tocsin/internal/access"
)

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
