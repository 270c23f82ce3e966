// Package web is the console and the portal: the analysts' queue, an alert's
// page, the member's attack picture, the collectors' accounts, and what an
// operator needs to take a member in.
//
// It reads the records and the event store through the small interfaces in
// [Options], always with the scope of whoever asks, and writes only what people
// do on the pages (assign, close, confirm, invite …) through the same
// interfaces. Nothing is kept here but caches of embedded files and the live
// connections; sessions live in the store they are given, so a restart signs
// nobody out. It counts nothing of its own.
//
// Pages are HTML made on the server and work without JavaScript; live rows, keys
// and times that age are extras. No file comes from another host, and the content
// security policy forbids anything inline.
package web

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/alexedwards/scs/v2"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/intel"
	"tocsin/internal/keys"
	"tocsin/internal/member"
	"tocsin/internal/people"
)

// Members is what the pages need of the members' records; *member.Store is it.
type Members interface {
	Organisations(ctx context.Context, scope access.Scope) ([]member.Organisation, error)
	Organisation(ctx context.Context, scope access.Scope, id event.TenantID) (member.Organisation, error)
	AddOrganisation(ctx context.Context, by string, o member.Organisation) (member.Organisation, error)
	Sites(ctx context.Context, scope access.Scope) ([]member.Site, error)
	AddSite(ctx context.Context, scope access.Scope, by string, tenant event.TenantID, name string) (member.Site, error)
	MakeToken(ctx context.Context, scope access.Scope, by, site string) (keys.Token, time.Time, error)
	Tokens(ctx context.Context, scope access.Scope) ([]member.Token, error)
	CancelToken(ctx context.Context, scope access.Scope, by, id string) error
	Collectors(ctx context.Context, scope access.Scope) ([]member.Collector, error)
	Collector(ctx context.Context, scope access.Scope, id string) (member.Collector, error)
	ConfirmWords(ctx context.Context, scope access.Scope, by, id, words string) error
	Revoke(ctx context.Context, scope access.Scope, by, id, why string) error
}

// Inventor is what members' records can say beside [Members] when a demonstration
// was given a past: whether a span of a member's figures, UTC nanoseconds, holds
// invented ones.
type Inventor interface {
	Invented(ctx context.Context, tenant event.TenantID, from, to int64) (bool, error)
}

// Events is what the pages need of the event store; *eventstore.Store is it. An
// error leaves the page without these figures and says so; it never hides the
// alerts.
type Events interface {
	ByIDs(ctx context.Context, scope access.Scope, ids []event.ID) ([]eventstore.Stored, error)
	Histogram(ctx context.Context, scope access.Scope, f eventstore.Filter, step time.Duration) ([]eventstore.Bucket, error)
	Summary(ctx context.Context, scope access.Scope, from, to int64) (eventstore.Summary, error)
	Top(ctx context.Context, scope access.Scope, field eventstore.Field, f eventstore.Filter, n int) ([]eventstore.Count, error)
	Address(ctx context.Context, scope access.Scope, ip netip.Addr, from, to int64) (c eventstore.Count, ok bool, err error)
}

// Alerts is what the pages need of the alerts; *alert.Store is it.
type Alerts interface {
	Queue(ctx context.Context, scope access.Scope, f alert.Filter) (alert.Page, error)
	Facets(ctx context.Context, scope access.Scope, f alert.Filter) (alert.Facets, error)
	OpenCounts(ctx context.Context, scope access.Scope) (map[alert.Severity]int64, error)
	Unanswered(ctx context.Context, scope access.Scope) (map[alert.Severity]int64, error)
	Get(ctx context.Context, scope access.Scope, id string) (alert.Alert, error)
	Events(ctx context.Context, scope access.Scope, id string) ([]event.ID, error)
	Timeline(ctx context.Context, scope access.Scope, id string) ([]alert.Activity, error)
	AlsoSeen(ctx context.Context, scope access.Scope, id string) (alert.Elsewhere, error)
	Beside(ctx context.Context, scope access.Scope, id string, limit int) ([]alert.Alert, error)
	Watch(ctx context.Context, scope access.Scope) (<-chan alert.Change, error)

	Assign(ctx context.Context, by access.Principal, id, to string) (alert.Alert, error)
	Escalate(ctx context.Context, by access.Principal, id, note string) (alert.Alert, error)
	Close(ctx context.Context, by access.Principal, id, verdict, note string) (alert.Alert, error)
	Reopen(ctx context.Context, by access.Principal, id, note string) (alert.Alert, error)
	Note(ctx context.Context, by access.Principal, id, text string, shared bool) (alert.Alert, error)
	Acknowledge(ctx context.Context, by access.Principal, id, note string) (alert.Alert, error)
	Suppress(ctx context.Context, by access.Principal, id string, untilNS int64, why string) (alert.Alert, error)
}

// People is what the pages need of the accounts; *people.Store is it.
type People interface {
	CheckPassword(ctx context.Context, email, password, remote string) (ticket string, err error)
	CheckCode(ctx context.Context, ticket, code, remote string) (access.Principal, int64, error)
	ChangePassword(ctx context.Context, id, old, password, remote string) (generation int64, err error)
	ChangeAuthenticator(ctx context.Context, id, password, totpSecret, code, remote string) (generation int64, err error)
	EndSessions(ctx context.Context, id string) (generation int64, err error)
	Principal(ctx context.Context, userID string, generation int64) (access.Principal, error)
	Name(ctx context.Context, userID string) (string, error)
	List(ctx context.Context, scope access.Scope) ([]people.Person, error)
	Invite(ctx context.Context, by access.Principal, i people.Invitation) (secret string, expires time.Time, err error)
	Renew(ctx context.Context, by access.Principal, scope access.Scope, id string) (i people.Invitation, secret string, expires time.Time, err error)
	Invitation(ctx context.Context, secret string) (people.Invitation, error)
	Accept(ctx context.Context, secret, password, totpSecret, code string) error
}

// Sessions is where sessions live and what the pages ask about them; *people.Sessions is it.
type Sessions interface {
	scs.Store
	Of(ctx context.Context, person string, generation int64) ([]people.Session, error)
	End(ctx context.Context, person, id string) error
}

// Indicators is what the pages need of the indicators; *intel.Store is it.
type Indicators interface {
	List(ctx context.Context, scope access.Scope, f intel.Filter) (intel.Page, error)
	Import(ctx context.Context, by access.Principal, list io.Reader, o intel.ImportOptions) (intel.ImportResult, error)
	Remove(ctx context.Context, by access.Principal, id string) error
	Published() (info intel.SetInfo, ok bool)
}

// Options say what the pages stand on. All but Reports, Questions, Detection, Products and the last four are needed.
type Options struct {
	Members    Members
	Events     Events
	Alerts     Alerts
	People     People
	Indicators Indicators
	Reports    Reports                       // weekly reports; may be nil: there are none
	Questions  Questions                     // look-backs; may be nil: nothing is asked
	Sessions   Sessions                      // where sessions live, across restarts
	Health     func(context.Context) Health  // for the operator's page; must return within the context
	Detection  Detection                     // what the rules can see; may be nil: nothing is known
	Products   func(event.TenantID) []string // keys of package steps: what a member has; may be nil: pages give general advice only
	Scheme     string                        // who runs this installation, as members know it
	PublicURL  string                        // where people reach the pages, without a slash at the end
	Logger     *slog.Logger                  // default: discards
	Now        func() time.Time              // default time.Now
	Stopping   context.Context               // done when the hub drains: live streams end; default never
	Proxies    []netip.Prefix                // reverse proxies whose X-Forwarded-For is believed; default none
}

func (o *Options) validate() error {
	for _, x := range []struct {
		name string
		nil  bool
	}{{"Members", o.Members == nil}, {"Events", o.Events == nil}, {"Alerts", o.Alerts == nil}, {"People", o.People == nil}, {"Indicators", o.Indicators == nil}, {"Sessions", o.Sessions == nil}, {"Health", o.Health == nil}} {
		if x.nil {
			return fmt.Errorf("the pages need %s", x.name)
		}
	}
	u, err := url.Parse(o.PublicURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("the public address %q must be like https://tocsin.example or http://localhost:8080", o.PublicURL)
	}
	o.PublicURL = u.Scheme + "://" + u.Host
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Stopping == nil {
		o.Stopping = context.Background()
	}
	return nil
}

type server struct {
	o        Options
	render   *renderer
	sessions *scs.SessionManager
	stopping context.Context
	limit    limiter
	streams  streams
	pulse    time.Duration // how often a live stream looks whether it may go on
}

// How long a session lasts: at most a shift and its handover, and less when
// nothing is asked for. When something was asked for last is written down only
// every few minutes, so that reading a page writes nothing.
const (
	sessionLife = 12 * time.Hour
	sessionIdle = 4 * time.Hour
	sessionNote = 5 * time.Minute
)

// New returns the pages as one handler.
func New(o Options) (http.Handler, error) {
	s, err := newServer(o)
	if err != nil {
		return nil, fmt.Errorf("making the pages: %w", err)
	}
	return s.handler()
}

func newServer(o Options) (*server, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	r, err := newRenderer(o.Now)
	if err != nil {
		return nil, err
	}
	s := &server{o: o, render: r, stopping: o.Stopping, sessions: scs.New(), pulse: livePulse}
	s.limit = limiter{now: o.Now, from: map[string]*bucket{}}
	s.sessions.Store = o.Sessions
	s.sessions.Lifetime = sessionLife // idle time: see who
	s.sessions.Cookie = scs.SessionCookie{Name: "__Host-tocsin", Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	s.sessions.ErrorFunc = func(w http.ResponseWriter, r *http.Request, err error) { s.fail(w, r, nil, err) }
	return s, nil
}

// routes are the ways in for people who are signed in. The crossing test walks
// this list.
func (s *server) routes() []route {
	return []route{
		{"GET /{$}", everybody, s.home},
		{"GET /queue", staffOnly, s.queue},
		{"GET /queue/live", staffOnly, s.live},
		{"POST /queue/actions", staffOnly, s.bulk},
		{"GET /alerts", everybody, s.memberAlerts},
		{"GET /alerts/{id}", everybody, s.alertPage},
		{"POST /alerts/{id}/assign", staffOnly, s.assign},
		{"POST /alerts/{id}/escalate", staffOnly, s.escalate},
		{"POST /alerts/{id}/close", staffOnly, s.closeAlert},
		{"POST /alerts/{id}/reopen", staffOnly, s.reopen},
		{"POST /alerts/{id}/suppress", staffOnly, s.suppress},
		{"POST /alerts/{id}/note", everybody, s.note},
		{"POST /alerts/{id}/acknowledge", members, s.acknowledge},
		{"GET /picture", members, s.picture},
		{"GET /collectors", everybody, s.collectors},
		{"GET /collectors/{id}", everybody, s.collector},
		{"POST /collectors/{id}/confirm", []access.Role{access.Operator, access.Member}, s.confirmCollector},
		{"POST /collectors/{id}/revoke", operators, s.revokeCollector},
		{"GET /members", staffOnly, s.members},
		{"GET /members/new", operators, s.memberNew},
		{"POST /members/new", operators, s.addMember},
		{"GET /members/{tenant}", staffOnly, s.member},
		{"GET /members/{tenant}/picture", staffOnly, s.memberPicture},
		{"POST /members/{tenant}/tokens", operators, s.makeToken},
		{"POST /members/{tenant}/tokens/{token}/cancel", operators, s.cancelToken},
		{"POST /members/{tenant}/invitations", operators, s.invite},
		{"POST /members/{tenant}/people/{person}/invitation", operators, s.inviteAgain},
		{"GET /reports", members, s.reports},
		{"GET /reports/{file}", members, s.report},
		{"GET /members/{tenant}/reports", staffOnly, s.memberReports},
		{"GET /members/{tenant}/reports/{file}", staffOnly, s.memberReport},
		{"GET /questions", everybody, s.questions},
		{"GET /questions/{id}", everybody, s.question},
		{"GET /indicators", staffOnly, s.indicators},
		{importPattern, staffOnly, s.importIndicators},
		{"POST /indicators/{id}/remove", staffOnly, s.removeIndicator},
		{"GET /detection", everybody, s.detection},
		{"GET /members/{tenant}/detection", staffOnly, s.memberDetection},
		{"GET /health", operators, s.health},
		{"GET /account", everybody, s.account},
		{"POST /account/password", everybody, s.changePassword},
		{"GET /account/authenticator", everybody, s.authenticator},
		{"POST /account/authenticator", everybody, s.changeAuthenticator},
		{"POST /account/sessions/end", everybody, s.endSessions},
		{"POST /account/sessions/{session}/end", everybody, s.endSession},
	}
}

func (s *server) handler() (http.Handler, error) {
	mux := http.NewServeMux()
	for _, rt := range s.routes() {
		mux.Handle(rt.pattern, s.guarded(rt))
	}
	mux.HandleFunc("GET /sign-in", s.signIn)
	mux.HandleFunc("POST /sign-in", s.signInPassword)
	mux.HandleFunc("GET /sign-in/code", s.signInCode)
	mux.HandleFunc("POST /sign-in/code", s.signInFinish)
	mux.HandleFunc("POST /sign-out", s.signOut)
	mux.HandleFunc("GET /invitation/{secret}", s.invitation)
	mux.HandleFunc("POST /invitation/{secret}", s.acceptInvitation)
	mux.HandleFunc("POST /theme", s.setTheme)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.notFound(w, r) })

	csrf := http.NewCrossOriginProtection()
	if err := csrf.AddTrustedOrigin(s.o.PublicURL); err != nil {
		return nil, fmt.Errorf("making the pages: %w", err)
	}
	csrf.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, nil, errCrossSite) }))

	// Assets need no session; everything else gets one.
	top := http.NewServeMux()
	top.HandleFunc("GET /assets/{name}", s.render.serveAsset)
	top.Handle("/", csrf.Handler(s.sessions.LoadAndSave(mux)))
	return secureHeaders(strings.HasPrefix(s.o.PublicURL, "https://"), s.recovered(paced(top))), nil
}

// recovered turns a panic into an error page and a line in the log.
func (s *server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				panic(v)
			default:
				s.o.Logger.ErrorContext(r.Context(), "a page panicked", "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
				s.fail(w, r, nil, fmt.Errorf("panic: %v", v))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// home is the first page of each role.
func (s *server) home(w http.ResponseWriter, r *request) error {
	if r.staff() {
		return redirect(w, r, "/queue")
	}
	return redirect(w, r, "/picture")
}

// notFound answers for addresses that lead nowhere, in the frame of whoever asks.
func (s *server) notFound(w http.ResponseWriter, req *http.Request) {
	p, err := s.who(req)
	if err != nil || p.UserID == "" {
		s.fail(w, req, nil, errNotFound)
		return
	}
	r := &request{Request: req, principal: p}
	if p.Role == access.Member {
		if scope, err := access.Of(p); err == nil {
			if org, err := s.o.Members.Organisation(req.Context(), scope, p.Tenant); err == nil {
				r.organisation = org.Name
			}
		}
	}
	s.fail(w, req, r, errNotFound)
}
