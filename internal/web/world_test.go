package web

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/eventstore/engine/enginetest"
	"tocsin/internal/intel"
	"tocsin/internal/member"
	"tocsin/internal/people"
)

// world is a small scheme in real records: three members with a collector each,
// alerts of each and one across them, people of each role. Everything goes through
// the packages that the hub uses.
type world struct {
	t       testing.TB
	db      *db.DB
	members *member.Store
	alerts  *alert.Store
	people  *people.Store
	intel   *intel.Store
	events  Events
	now     func() time.Time
	log     *lines

	tenants    []event.TenantID
	collectors []string // by member; the third waits for its check words
	words      []string
	users      map[string]user // operator, analyst, member1, member2
	skip       atomic.Int64    // nanoseconds that the accounts' clock is ahead: a code is good once
	alertIDs   map[string]string
	sessions   []string // by member, of TestCrossing: one of their own

	server *httptest.Server
	s      *server
	stop   context.CancelFunc
}

type user struct {
	access.Principal
	password, secret string
}

// lines keeps what the pages log, so that a test can say that nothing was.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// away is an event store that cannot be reached.
type away struct{}

var errAway = errors.New("the event store is away")

func (away) ByIDs(context.Context, access.Scope, []event.ID) ([]eventstore.Stored, error) {
	return nil, errAway
}
func (away) Histogram(context.Context, access.Scope, eventstore.Filter, time.Duration) ([]eventstore.Bucket, error) {
	return nil, errAway
}
func (away) Summary(context.Context, access.Scope, int64, int64) (eventstore.Summary, error) {
	return eventstore.Summary{}, errAway
}
func (away) Top(context.Context, access.Scope, eventstore.Field, eventstore.Filter, int) ([]eventstore.Count, error) {
	return nil, errAway
}
func (away) Address(context.Context, access.Scope, netip.Addr, int64, int64) (eventstore.Count, bool, error) {
	return eventstore.Count{}, false, errAway
}

var memberNames = []string{"Ashgrove School", "Brindle Engineering Ltd", "Kirkdale Borough Council"}

// newWorld makes the scheme. engine says whether the real event store is started;
// without it the pages are tested with a store that is away.
func newWorld(t testing.TB, engine bool) *world {
	t.Helper()
	ctx := t.Context()
	d, err := db.Open(ctx, db.Options{Path: filepath.Join(t.TempDir(), "tocsin.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, db: d, now: time.Now, log: &lines{}, users: map[string]user{}, alertIDs: map[string]string{}, events: away{}}
	w.members = member.New(d, member.Options{Address: "hub.example:8443", Root: [32]byte{1}})
	w.alerts = alert.New(d, alert.Options{Poll: 20 * time.Millisecond, Text: ruleText})
	w.intel = intel.New(d, intel.Options{})
	sectors := []string{"Education", "Manufacturing", "Local government"}
	for i, name := range memberNames {
		o, err := w.members.AddOrganisation(ctx, "test", member.Organisation{Name: name, Sector: sectors[i], Area: "Northshire Police", ContactName: "Jo Marsh", ContactEmail: fmt.Sprintf("office%d@member.example", i+1)})
		if err != nil {
			t.Fatal(err)
		}
		w.tenants = append(w.tenants, o.ID)
		w.enrol(i, o.ID)
	}
	w.makePeople()
	if engine {
		e := enginetest.Start(t, enginetest.Dir(t))
		store, err := eventstore.Open(ctx, eventstore.Options{Address: e.Address(), Ready: e.Ready, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(store.Close)
		w.events = store
		w.storeEvents(store)
	}
	w.makeAlerts()
	w.serve()
	return w
}

func ruleText(id string) alert.Text {
	switch id {
	case "vpn-success-after-failures":
		return alert.Text{Title: "Somebody may have got in through your VPN", What: "Someone tried many passwords on your VPN and then signed in.", Do: "Telephone the person whose account it is. If it was not them, reset the password."}
	case "port-scan":
		return alert.Text{Title: "Someone is looking for open doors", What: "One address tried many ports of your firewall. All were refused.", Do: "Nothing. We watch whether it goes further."}
	}
	return alert.Text{}
}

// serve starts the pages on localhost, which browsers trust with secure cookies.
func (w *world) serve() {
	w.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.server = httptest.NewUnstartedServer(nil)
	public := "http://localhost:" + fmt.Sprint(w.server.Listener.Addr().(interface{ AddrPort() netip.AddrPort }).AddrPort().Port())
	s, err := newServer(Options{Members: w.members, Events: w.events, Alerts: w.alerts, People: w.people, Indicators: w.intel, Reports: w.reports(), Sessions: people.NewSessions(w.db), Scheme: "Northshire Cyber Alarm", PublicURL: public, Stopping: ctx, Proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")},
		Logger: slog.New(slog.NewTextHandler(w.log, nil)), Health: func(context.Context) Health {
			return Health{Version: "test", Checks: []Check{{Name: "Database", OK: true, Text: "answers"}}, Stages: []Stage{{Name: "gate", In: 3, Out: 3, Lag: "0 batches"}}}
		}})
	if err != nil {
		w.t.Fatal(err)
	}
	h, err := s.handler()
	if err != nil {
		w.t.Fatal(err)
	}
	w.s = s
	w.server.Config.Handler = h
	w.server.Start()
	w.server.URL = public
	w.t.Cleanup(func() {
		stop()
		w.server.Close()
	})
}

// enrol takes a collector through token, registration and, but for the third
// member's, its check words; then it sends one batch with the counts of a morning.
func (w *world) enrol(i int, tenant event.TenantID) {
	w.t.Helper()
	ctx, scope := w.t.Context(), access.Only(tenant)
	site, err := w.members.FindSite(ctx, scope, tenant, "")
	if err != nil {
		w.t.Fatal(err)
	}
	token, _, err := w.members.MakeToken(ctx, scope, "test", site.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	seed := sha256.Sum256([]byte{byte(i), 77})
	words := [4]string{"apple", "river", "stone", []string{"lamp", "chair", "table"}[i]}
	r, _, _, err := w.members.Redeem(ctx, member.Enrolment{Secret: token.Secret[:], BatchKey: ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey), TLSKey: [32]byte{byte(i + 1)}, Words: words, Name: fmt.Sprintf("fw-log-%d", i+1), Version: "1.0.0"},
		func(string) ([]byte, time.Time, error) { return []byte("cert"), w.now().Add(72 * time.Hour), nil })
	if err != nil {
		w.t.Fatal(err)
	}
	w.collectors, w.words = append(w.collectors, r.ID), append(w.words, strings.Join(words[:], " "))
	if i < 2 {
		if err := w.members.ConfirmWords(ctx, scope, "test", r.ID, strings.Join(words[:], " ")); err != nil {
			w.t.Fatal(err)
		}
	}
	b := &member.Batch{Head: member.Head{Stream: stream(i), Collector: r.ID, Tenant: tenant, Lane: "live", Epoch: "e", Seq: 1, Digest: [32]byte{byte(i), 1}, Receipt: []byte("receipt"), CreatedNS: w.now().UnixNano()},
		Events: 90, Size: 4096, ClockOffset: -200 * time.Millisecond, Version: "1.0.0", Policy: "sha256:4be9",
		Counts: map[string]uint64{"received": 12000, "parsed": 11988, "not_understood": 12, "kept.allowed": 11900, "kept.configuration": 2, "left.denied_inbound": 70, "left.failed_authentication": 15, "left.ids": 1, "made.detection": 2, "made.evidence": 2, "sent": 90}}
	if v, err := w.members.Accept(ctx, b); err != nil || v.Sequence != member.Opening {
		w.t.Fatal(v, err)
	}
	if err := w.members.AddCounts(ctx, "stored", member.Counted{Stream: stream(i), Collector: r.ID, Tenant: tenant, Seq: 1, Counts: map[string]uint64{"hub.stored": 90}}); err != nil {
		w.t.Fatal(err)
	}
}

func stream(i int) event.StreamID { return event.StreamID{byte(i + 1), 0xab} }

const attacker = "203.0.113.77"

// storeEvents puts an attack on each member's gateway into the real event store.
func (w *world) storeEvents(store *eventstore.Store) {
	w.t.Helper()
	b := eventstore.NewBlock()
	for i, tenant := range w.tenants {
		for n := range 90 {
			var e event.Event
			e.Tenant, e.ID = tenant, event.ID{Stream: stream(i), Seq: 1, Index: uint32(n)}
			at := w.now().Add(-time.Duration(90-n) * time.Minute).UnixNano()
			e.Time, e.Created, e.Ingested = at, at, at
			e.SetIP(event.SourceIP, netip.MustParseAddr(attacker))
			e.SetIP(event.DestinationIP, netip.MustParseAddr("198.51.100.8"))
			e.SetString(event.SourceGeoCountryISOCode, "NL")
			e.SetInt(event.SourceASNumber, 64511)
			e.SetString(event.SourceASOrganizationName, "Example Hosting BV")
			e.SetString(event.ObserverVendor, "Fortinet")
			e.SetString(event.ObserverProduct, "FortiGate")
			e.SetString(event.TocsinSourceProof, "none")
			switch {
			case n < 70:
				e.SetString(event.EventCategory, "network")
				e.SetString(event.EventType, "denied")
				e.SetString(event.EventAction, "deny")
				e.SetInt(event.DestinationPort, []int64{22, 3389, 445, 23}[n%4])
			case n < 89:
				e.SetString(event.EventCategory, "authentication")
				e.SetString(event.EventOutcome, "failure")
				e.SetString(event.EventAction, "ssl-login-fail")
				e.SetString(event.TocsinService, "vpn")
				e.SetString(event.UserName, fmt.Sprintf("user%02d", n))
				e.SetString(event.TocsinSourceProof, "session")
			default:
				e.SetString(event.EventCategory, "authentication")
				e.SetString(event.EventOutcome, "success")
				e.SetString(event.EventAction, "tunnel-up")
				e.SetString(event.TocsinService, "vpn")
				e.SetString(event.UserName, "j.marlowe")
				e.SetString(event.TocsinSourceProof, "authenticated")
				e.SetRaw([]byte(`date=2026-11-22 type="event" subtype="vpn" action="tunnel-up" remip=203.0.113.77 user="j.marlowe" note="<script>alert(1)</script>"`))
			}
			if !b.Add(&e, eventstore.Meta{Quarantined: i == 2}) {
				w.t.Fatal("block full")
			}
		}
	}
	if err := store.Insert(w.t.Context(), "world", b); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) detection(i int, rule, family, level string, events ...uint32) event.Detection {
	now := w.now()
	d := event.Detection{RuleID: rule, RuleTitle: sentence(strings.ReplaceAll(rule, "-", " ")), Family: family, Level: level, Entity: event.Entity{Kind: "source", Value: attacker}, Tags: []string{"attack.t1110.003", "attack.t1078"},
		First: now.Add(-90 * time.Minute).UnixNano(), Last: now.Add(-time.Minute).UnixNano(), Count: len(events), Source: attacker, Key: fmt.Sprintf("%s/%d", rule, i),
		Reason: fmt.Sprintf("%d events of %s at <b>one</b> member.", len(events), attacker), Steps: []event.Step{{Time: now.Add(-80 * time.Minute).UnixNano(), Text: "19 failed sign-ins"}, {Time: now.Add(-time.Minute).UnixNano(), Text: "Signed in as j.marlowe"}}}
	if i >= 0 {
		d.Tenant = w.tenants[i]
		for _, n := range events {
			d.Events = append(d.Events, event.ID{Stream: stream(i), Seq: 1, Index: n})
		}
	}
	return d
}

// makeAlerts applies detections as the worker does.
func (w *world) makeAlerts() {
	w.t.Helper()
	vpn := w.detection(0, "vpn-success-after-failures", "vpn_sign_in", "critical", 85, 86, 87, 88, 89)
	vpn.User = "j.marlowe"
	list := []event.Detection{vpn, w.detection(0, "port-scan", "scan", "medium", 0, 1, 2, 3), w.detection(1, "port-scan", "scan", "medium", 0, 1, 2), w.detection(2, "port-scan", "scan", "low", 0, 1), w.detection(-1, "source-at-several-members", "campaign", "high")}
	changes, err := w.alerts.Apply(w.t.Context(), "plan", list)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range changes {
		w.alertIDs[fmt.Sprintf("%d/%s", c.Alert.Tenant, c.Alert.Family)] = c.Alert.ID
	}
	if len(changes) != len(list) {
		w.t.Fatalf("%d alerts of %d detections", len(changes), len(list))
	}
}

func (w *world) alertID(i int, family string) string {
	w.t.Helper()
	tenant := access.Centre
	if i >= 0 {
		tenant = w.tenants[i]
	}
	id := w.alertIDs[fmt.Sprintf("%d/%s", tenant, family)]
	if id == "" {
		w.t.Fatalf("no alert %d/%s", tenant, family)
	}
	return id
}

// client is a browser without scripts, signed in as somebody.
type client struct {
	w *world
	*http.Client
	name string
}

// client signs somebody in through the pages; "" is nobody.
func (w *world) client(name string) *client {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &client{w: w, name: name, Client: &http.Client{Jar: secureJar{jar}, Timeout: 2 * time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if name == "" {
		return c
	}
	u := w.users[name]
	if status, _, to := c.post("/sign-in", url.Values{"email": {u.Email}, "password": {u.password}}); status != http.StatusSeeOther || to != "/sign-in/code" {
		w.t.Fatalf("%s: password: %d %s", name, status, to)
	}
	if status, body, to := c.post("/sign-in/code", url.Values{"code": {w.code(name)}}); status != http.StatusSeeOther || to != "/" {
		w.t.Fatalf("%s: code: %d %s\n%s", name, status, to, body)
	}
	return c
}

// secureJar is a jar that trusts localhost with secure cookies, as browsers do.
type secureJar struct{ http.CookieJar }

func (j secureJar) SetCookies(u *url.URL, cookies []*http.Cookie) {
	j.CookieJar.SetCookies(secured(u), cookies)
}
func (j secureJar) Cookies(u *url.URL) []*http.Cookie { return j.CookieJar.Cookies(secured(u)) }
func secured(u *url.URL) *url.URL {
	c := *u
	c.Scheme = "https"
	return &c
}

func (c *client) do(method, path string, form url.Values, header ...string) (*http.Response, string) {
	c.w.t.Helper()
	var body *strings.Reader = strings.NewReader("")
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, c.w.server.URL+path, body)
	if err != nil {
		c.w.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		c.w.t.Fatal(err)
	}
	defer res.Body.Close()
	var b strings.Builder
	buf := make([]byte, 32<<10)
	for {
		n, err := res.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			break
		}
	}
	return res, b.String()
}

// token is the cookie of the session.
func (c *client) token() string {
	c.w.t.Helper()
	u, err := url.Parse(c.w.server.URL)
	if err != nil {
		c.w.t.Fatal(err)
	}
	for _, k := range c.Jar.Cookies(u) {
		if k.Name == "__Host-tocsin" {
			return k.Value
		}
	}
	return ""
}

func (c *client) get(path string) (int, string) {
	c.w.t.Helper()
	res, body := c.do(http.MethodGet, path, nil)
	return res.StatusCode, body
}

func (c *client) post(path string, form url.Values) (status int, body, to string) {
	c.w.t.Helper()
	res, body := c.do(http.MethodPost, path, form)
	return res.StatusCode, body, res.Header.Get("Location")
}

// makePeople makes one account of each kind.
func (w *world) makePeople() {
	w.t.Helper()
	p, err := people.New(w.db, people.Options{Key: [32]byte{9}, Now: func() time.Time { return w.now().Add(time.Duration(w.skip.Load())) }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.people = p
	first := access.Principal{UserID: "system:test", Role: access.Operator}
	for name, i := range map[string]people.Invitation{
		"operator": {Name: "Olu Operator", Email: "olu@centre.example", Role: access.Operator},
		"analyst":  {Name: "A. Okafor", Email: "okafor@centre.example", Role: access.Analyst},
		"member1":  {Name: "Jo Marsh", Email: "jo@ashgrove.example", Role: access.Member, Tenant: w.tenants[0]},
		"member2":  {Name: "Bea Brindle", Email: "bea@brindle.example", Role: access.Member, Tenant: w.tenants[1]},
		"member3":  {Name: "Kit Kirk", Email: "kit@kirkdale.example", Role: access.Member, Tenant: w.tenants[2]},
	} {
		c, err := p.Create(w.t.Context(), first, i)
		if err != nil {
			w.t.Fatal(err)
		}
		w.users[name] = user{Principal: access.Principal{UserID: c.UserID, Name: i.Name, Email: c.Email, Role: i.Role, Tenant: i.Tenant}, password: c.Password, secret: c.TOTPSecret}
	}
}

// code is somebody's next code: the accounts' clock moves on by a code's life.
func (w *world) code(name string) string {
	w.t.Helper()
	at := w.now().Add(time.Duration(w.skip.Add(int64(30 * time.Second))))
	code, err := totp.GenerateCode(w.users[name].secret, at)
	if err != nil {
		w.t.Fatal(err)
	}
	return code
}
