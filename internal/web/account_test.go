package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"tocsin/internal/people"
)

// TestAccount changes a password and ends sessions, as somebody with two devices does.
func TestAccount(t *testing.T) {
	w := newWorld(t, false)
	desk, phone, other := w.client("member1"), w.client("member1"), w.client("member2")
	_, body := desk.get("/account")
	contains(t, "account", body, "Your account", "Jo Marsh", "jo@ashgrove.example", memberNames[0], "This device", "127.0.0.1", "/account/sessions/"+people.SessionID(phone.token())+"/end", "Sign out everywhere else")
	lacks(t, "account", body, people.SessionID(desk.token()), people.SessionID(other.token()), desk.token(), phone.token())

	// Somebody else's session stays, and the answer does not tell whether it exists.
	_, _, to := other.post("/account/sessions/"+people.SessionID(phone.token())+"/end", url.Values{})
	if _, _, to2 := other.post("/account/sessions/"+strings.Repeat("ab", 32)+"/end", url.Values{}); to != to2 {
		t.Errorf("a session of somebody else: %s, one that is not there: %s", to, to2)
	}
	if status, _ := phone.get("/alerts"); status != http.StatusOK {
		t.Fatalf("another member ended it: %d", status)
	}
	if status, _, to := desk.post("/account/sessions/"+people.SessionID(phone.token())+"/end", url.Values{}); status != http.StatusSeeOther || to != "/account" {
		t.Errorf("ending one: %d %s", status, to)
	}
	if status, _ := phone.get("/alerts"); status != http.StatusSeeOther {
		t.Errorf("the ended session: %d", status)
	}
	_, body = desk.get("/account")
	contains(t, "account", body, "That device is signed out.", "You are signed in nowhere else.")

	phone = w.client("member1")
	before := desk.token()
	if status, _, _ := desk.post("/account/sessions/end", url.Values{}); status != http.StatusSeeOther {
		t.Errorf("everywhere else: %d", status)
	}
	if desk.token() == before {
		t.Error("the session kept its name")
	}
	for what, c := range map[string]*client{"the phone": phone, "the other member": other} {
		want := map[bool]int{true: http.StatusSeeOther, false: http.StatusOK}[c == phone]
		if status, _ := c.get("/alerts"); status != want {
			t.Errorf("%s: %d, want %d", what, status, want)
		}
	}
	if status, _ := desk.get("/alerts"); status != http.StatusOK {
		t.Errorf("the one who asked: %d", status)
	}

	phone = w.client("member1")
	const good = "otter violin marble seventeen"
	old := w.users["member1"].password
	for _, tc := range []struct{ old, password, again, want string }{
		{"", good, good, "Enter the password you have now"},
		{old, "short", "short", "at least 12 characters"},
		{old, good, good + "x", "are not the same"},
		{old, old, old, "differs from the one you have now"},
		{old, "ashgrove jo@ashgrove", "ashgrove jo@ashgrove", "mostly your name"},
		{"not the old one", good, good, "This is not the password you have now"},
	} {
		status, body, _ := desk.post("/account/password", url.Values{"old": {tc.old}, "password": {tc.password}, "again": {tc.again}})
		if status != http.StatusUnprocessableEntity {
			t.Errorf("%+v: %d", tc, status)
		}
		contains(t, "refusal", body, tc.want, "<title>Error: ", "There is a problem")
		lacks(t, "refusal", body, good, old)
	}
	if status, _, to := desk.post("/account/password", url.Values{"old": {old}, "password": {good}, "again": {good}}); status != http.StatusSeeOther || to != "/account" {
		t.Fatalf("changed: %d %s", status, to)
	}
	_, body = desk.get("/account")
	contains(t, "account", body, "Your password is changed.", "You are signed in nowhere else.")
	if status, _ := phone.get("/alerts"); status != http.StatusSeeOther {
		t.Errorf("the phone after the change: %d", status)
	}
	u := w.users["member1"]
	u.password = good
	w.users["member1"] = u
	if status, _ := w.client("member1").get("/account"); status != http.StatusOK {
		t.Errorf("with the new password: %d", status)
	}
	if got := w.log.String(); got != "" {
		t.Errorf("logged: %s", got)
	}
}

var invitationLink = regexp.MustCompile(`http://localhost:\d+(/invitation/[A-Za-z0-9_-]+)`)

// TestChangeAuthenticator connects a new phone: wrong codes and passwords change nothing, and then the old phone opens nothing any more.
func TestChangeAuthenticator(t *testing.T) {
	w := newWorld(t, false)
	desk, lost := w.client("analyst"), w.client("analyst")
	contains(t, "account", second(desk.get("/account")), `href="/account/authenticator"`)
	offered := func() string {
		t.Helper()
		_, body := desk.get("/account/authenticator")
		key := regexp.MustCompile(`>([A-Z2-7]{4}(?: [A-Z2-7]{4}){7})<`).FindStringSubmatch(body)
		if key == nil {
			t.Fatalf("no key in %s", trim(body))
		}
		return strings.ReplaceAll(key[1], " ", "")
	}
	before := w.users["analyst"]
	next := before
	next.secret = offered()
	if next.secret == before.secret || offered() != next.secret {
		t.Fatal("the key that is offered is the old one, or another each time")
	}
	code := func(u user) string {
		t.Helper()
		w.users["analyst"] = u
		defer func() { w.users["analyst"] = before }()
		return w.code("analyst")
	}
	for _, tc := range []struct{ password, code, want string }{
		{"", "123456", "Enter your password"},
		{before.password, "12345", "Enter the six digits"},
		{before.password, code(before), "The code does not fit"}, // of the old phone
		{"not the password", code(next), "This is not your password"},
	} {
		status, body, _ := desk.post("/account/authenticator", url.Values{"password": {tc.password}, "code": {tc.code}})
		if status != http.StatusUnprocessableEntity {
			t.Errorf("%+v: %d", tc, status)
		}
		contains(t, "refusal", body, tc.want, "<title>Error: ", "There is a problem")
		lacks(t, "refusal", body, before.password, before.secret)
	}
	if status, _ := lost.get("/members"); status != http.StatusOK {
		t.Fatalf("a refused change ended a session: %d", status)
	}
	token := desk.token()
	if status, body, to := desk.post("/account/authenticator", url.Values{"password": {before.password}, "code": {code(next)}}); status != http.StatusSeeOther || to != "/account" {
		t.Fatalf("%d %s %s", status, to, trim(body))
	}
	if desk.token() == token {
		t.Error("the session kept its name")
	}
	contains(t, "account", second(desk.get("/account")), "Your new authenticator app is connected.", "You are signed in nowhere else.")
	if status, _ := lost.get("/members"); status != http.StatusSeeOther {
		t.Errorf("the session of the lost phone: %d", status)
	}
	if offered() == next.secret {
		t.Error("the key in use is shown again")
	}
	ctx := t.Context()
	ticket, err := w.people.CheckPassword(ctx, before.Email, before.password, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.people.CheckCode(ctx, ticket, code(before), "127.0.0.1"); !errors.Is(err, people.ErrSignIn) {
		t.Errorf("a code of the old phone: %v", err)
	}
	w.users["analyst"] = next
	if status, _ := w.client("analyst").get("/members"); status != http.StatusOK {
		t.Errorf("with the new phone: %d", status)
	}
	if got := w.log.String(); got != "" {
		t.Errorf("logged: %s", got)
	}
}

func second(_ int, body string) string { return body }

// TestInviteAgain gives somebody who lost their phone a new sign-in, as the sign-in page promises.
func TestInviteAgain(t *testing.T) {
	w := newWorld(t, false)
	op, lost := w.client("operator"), w.client("member1")
	path := func(tenant, person int) string {
		return fmt.Sprintf("/members/%d/people/%s/invitation", w.tenants[tenant], w.users[fmt.Sprintf("member%d", person+1)].UserID)
	}
	if status, _, _ := op.post(path(1, 0), url.Values{}); status != http.StatusNotFound {
		t.Errorf("under another member's address: %d", status)
	}
	status, body, _ := op.post(path(0, 0), url.Values{})
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, trim(body))
	}
	contains(t, "invitation", body, "Invitation for Jo Marsh", "Until they have, their old ones still work.")
	m := invitationLink.FindStringSubmatch(body)
	if m == nil {
		t.Fatal("no address")
	}
	guest := w.client("")
	_, body = guest.get(m[1])
	key := regexp.MustCompile(`<code[^>]*>([A-Z2-7 ]{32,})</code>|>([A-Z2-7]{4}(?: [A-Z2-7]{4}){7})<`).FindStringSubmatch(body)
	if key == nil {
		t.Fatalf("no key in %s", trim(body))
	}
	u := w.users["member1"]
	u.secret, u.password = strings.ReplaceAll(key[1]+key[2], " ", ""), "otter violin marble seventeen"
	w.users["member1"] = u
	if status, body, to := guest.post(m[1], url.Values{"password": {u.password}, "code": {w.code("member1")}}); to != "/sign-in?why=ready" {
		t.Fatalf("%d %s %s", status, to, trim(body))
	}
	if status, _ := lost.get("/alerts"); status != http.StatusSeeOther {
		t.Errorf("the session of the lost phone: %d", status)
	}
	if status, _ := w.client("member1").get("/alerts"); status != http.StatusOK {
		t.Errorf("with the new sign-in: %d", status)
	}
}

// TestStreamEndsWithItsSession: a live stream must not outlive a sign-out in another window.
func TestStreamEndsWithItsSession(t *testing.T) {
	w := newWorld(t, false)
	w.s.pulse = 20 * time.Millisecond
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
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() && lines.Text() != "event: pulse" {
	}
	if status, _, _ := c.post("/sign-out", url.Values{}); status != http.StatusSeeOther {
		t.Fatal(status)
	}
	for lines.Scan() {
	}
	if ctx.Err() != nil {
		t.Error("the stream went on after the sign-out")
	}
}

func TestStreamsAreCounted(t *testing.T) {
	var s streams
	for range streamsEach {
		if !s.open("a") {
			t.Fatal("too few")
		}
	}
	if s.open("a") {
		t.Error("too many of one person")
	}
	if !s.open("b") {
		t.Error("another person is kept out")
	}
	s.close("a")
	if !s.open("a") {
		t.Error("a closed one still counts")
	}
	w := newWorld(t, false)
	id := w.users["analyst"].UserID
	for range streamsEach {
		w.s.streams.open(id)
	}
	status, body := w.client("analyst").get("/queue/live")
	if status != http.StatusTooManyRequests {
		t.Errorf("%d", status)
	}
	contains(t, "refusal", body, "Too many live pages")
}

func TestRemote(t *testing.T) {
	w := newWorld(t, false)
	for _, tc := range []struct {
		from      string
		forwarded []string
		want      string
	}{
		{"198.51.100.9:1", nil, "198.51.100.9"},
		{"198.51.100.9:1", []string{"203.0.113.1"}, "198.51.100.9"}, // no proxy of ours: anybody can write this
		{"192.0.2.1:1", nil, "192.0.2.1"},
		{"192.0.2.1:1", []string{"203.0.113.1"}, "203.0.113.1"},
		{"[::ffff:192.0.2.1]:1", []string{"203.0.113.1"}, "203.0.113.1"},
		{"192.0.2.1:1", []string{"10.9.9.9, 203.0.113.1"}, "203.0.113.1"}, // what stands left was sent by the client
		{"192.0.2.1:1", []string{"10.9.9.9", "203.0.113.1, 192.0.2.2"}, "203.0.113.1"},
		{"192.0.2.1:1", []string{"203.0.113.1:4711"}, "203.0.113.1"},
		{"192.0.2.1:1", []string{"2001:db8::1"}, "2001:db8::1"},
		{"192.0.2.1:1", []string{"203.0.113.1, nonsense"}, "192.0.2.1"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = tc.from
		r.Header["X-Forwarded-For"] = tc.forwarded
		if got := w.s.remote(r); got != tc.want {
			t.Errorf("%s %q: %s, want %s", tc.from, tc.forwarded, got, tc.want)
		}
	}
}

// A flood from ever new addresses fills the limiter; others still get in, and one /64 is one place.
func TestLimiterIsBounded(t *testing.T) {
	now := time.Now()
	l := limiter{now: func() time.Time { return now }, from: map[string]*bucket{}}
	for i := range limitKeep + 500 {
		l.allow(fmt.Sprintf("2001:db8:%x:%x::1", i/65536, i%65536))
	}
	if len(l.from) > limitKeep {
		t.Errorf("%d places are remembered", len(l.from))
	}
	if !l.allow("203.0.113.5") {
		t.Error("somebody else is kept out")
	}
	allowed := 0
	for i := range 2 * limitBurst {
		if l.allow(fmt.Sprintf("2001:db8:ffff:1::%x", i)) {
			allowed++
		}
	}
	if allowed != limitBurst {
		t.Errorf("%d tries of one /64 were allowed", allowed)
	}
}

func TestBrowserWord(t *testing.T) {
	for agent, want := range map[string]string{
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0":           "Edge on Windows",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1": "Safari on iPhone",
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0":                                                                  "Firefox on Linux",
		"Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36":                            "Chrome on Android",
		"<script>alert(1)</script>": "", "": "",
	} {
		if got := browserWord(agent); got != want {
			t.Errorf("%s: %q, want %q", agent, got, want)
		}
	}
}
