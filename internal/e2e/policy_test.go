package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
)

// person is somebody at the pages, with cookies and nothing else: no script runs.
type person struct {
	t      testing.TB
	client http.Client
	base   string
}

// signIn makes a sign-in and goes through password and one-time code as a browser does.
func (h *hub) signIn(t testing.TB, email, role string, more ...string) *person {
	t.Helper()
	var made struct {
		Password string `json:"password"`
		Secret   string `json:"totp_secret"`
	}
	out := h.admin(t, append([]string{"user", "add", "--email", email, "--name", "Ann Other", "--role", role}, more...)...)
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Password == "" || made.Secret == "" {
		t.Fatalf("%v: %s", err, out)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &person{t: t, client: http.Client{Jar: jar, Timeout: patience * 30 * time.Second}, base: "http://" + h.web}
	t.Cleanup(p.client.CloseIdleConnections)
	p.post("/sign-in", url.Values{"email": {email}, "password": {made.Password}})
	code, err := totp.GenerateCode(made.Secret, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if page := p.post("/sign-in/code", url.Values{"code": {code}}); !strings.Contains(page, "/sign-out") {
		t.Fatalf("%s was not signed in:\n%s", email, page)
	}
	return p
}

func (p *person) read(resp *http.Response, err error) string {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %s %v\n%s", resp.Request.URL, resp.Status, err, b)
	}
	return html.UnescapeString(string(b))
}

func (p *person) get(path string) string {
	p.t.Helper()
	return p.read(p.client.Get(p.base + path))
}

func (p *person) post(path string, form url.Values) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", p.base)
	return p.read(p.client.Do(req))
}

// ids is a line of an intrusion sensor whose alert is serious. The note is nowhere but in the raw line.
func ids(src, note string) string {
	now := time.Now().UTC()
	return fmt.Sprintf(`<133>%s ids suricata[585]: {"timestamp":%q,"flow_id":81,"event_type":"alert","src_ip":%q,"src_port":40022,"dest_ip":"198.51.100.7","dest_port":80,"proto":"TCP","alert":{"action":"allowed","gid":1,"signature_id":9000001,"rev":1,"signature":"TEST exploit attempt","category":"Attempted Administrator Privilege Gain","severity":1},"http":{"hostname":"www.example.org","url":"/cgi?q=%s","http_method":"GET"},"payload_printable":"GET %s"}`,
		now.Format(time.Stamp), now.Format("2006-01-02T15:04:05.000000-0700"), src, note, note)
}

// What a policy says of raw lines, from the socket to the alert's page. Under full the line is on the page, word for word, and in what the
// member can open; under metadata no part of its content ever leaves: not on a page, not in a batch, not in the store.
func TestRawLineFromSocketToPage(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	analyst := h.signIn(t, "analyst@example.org", "analyst")
	link := regexp.MustCompile(`href="(/alerts/[0-9a-z-]+)[?"]`)
	const secret = "wordsthatarenowhereelse"
	for i, policy := range []string{"metadata", "full"} {
		s := h.join(t)
		c := s.collect(t, "policy: {name: "+policy+"}\n")
		src := fmt.Sprintf("203.0.113.%d", 80+i)
		text := ids(src, secret)
		if err := sendTCP(c.addr, text+"\n"); err != nil {
			t.Fatal(err)
		}
		c.settled(t, 1)
		owner := h.signIn(t, policy+"@example.org", "member", "--member", s.name)
		var path string
		eventually(t, time.Minute, "the member's alert", func() error {
			m := link.FindStringSubmatch(owner.get("/alerts"))
			if m == nil {
				return errors.New("there is none")
			}
			path = m[1]
			return nil
		})
		full := policy == "full"
		for who, p := range map[string]*person{"analyst": analyst, "member": owner} {
			page := p.get(path)
			if !strings.Contains(page, src) {
				t.Errorf("%s: the %s's page of the alert does not name its source", policy, who)
			}
			// Under full the centre reads the line; the member's page only says that it left: the member has it at home.
			if got := strings.Contains(page, text[strings.Index(text, "{"):]); got != (full && who == "analyst") {
				t.Errorf("%s: the raw line is on the %s's page: %v", policy, who, got)
			}
			if !full && strings.Contains(page, secret) {
				t.Errorf("%s: the %s's page shows content of the line", policy, who)
			}
			if kept := "in your collector's own archive"; who == "member" && strings.Contains(page, kept) == full {
				t.Errorf("%s: the member's page says where the line is: %v", policy, !full)
			}
		}
		if sent := must(t, "", "tocsin-collector", "sent", "--dir", s.dir, "--events"); strings.Contains(sent, secret) != full {
			t.Errorf("%s: the member's own record of what left: %s", policy, sent)
		}
		rows := query(t, h.dir, fmt.Sprintf("SELECT count(), countIf(position(concat(raw, toString(tuple(*))), '%s') > 0), countIf(raw != '') FROM tocsin.events WHERE tenant = %d AND event_kind != 'signal'", secret, s.tenant))
		want := "1 0 0"
		if full {
			want = "1 1 1"
		}
		if got := strings.Join(rows, " "); got != want {
			t.Errorf("%s: events, those with content, those with a raw line: %s, want %s", policy, got, want)
		}
	}
}
