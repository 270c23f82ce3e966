package web

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/eventstore"
	"tocsin/internal/intel"
	"tocsin/internal/member"
	"tocsin/internal/people"
)

// request is a request of somebody who is signed in, with what they may see.
type request struct {
	*http.Request
	principal    access.Principal
	scope        access.Scope
	organisation string // a member's own, by name
}

// staff says whether the asker works for the centre.
func (r *request) staff() bool { return r.principal.Role != access.Member }

// htmx says whether the page's script asks for a piece instead of a page.
func (r *request) htmx() bool { return r.Header.Get("HX-Request") == "true" }

// handler answers a request or says why not; the server turns the error into a
// page.
type handler func(w http.ResponseWriter, r *request) error

// route is one way into the pages. Whoever has none of the roles gets a 403; what
// lies outside the scope of somebody who has is a 404.
type route struct {
	pattern string
	roles   []access.Role
	handle  handler
}

var (
	everybody = []access.Role{access.Operator, access.Analyst, access.Member}
	staffOnly = []access.Role{access.Operator, access.Analyst}
	operators = []access.Role{access.Operator}
	members   = []access.Role{access.Member}
)

// errNotFound is for addresses that name nothing.
var errNotFound = errors.New("no such page")

// maxForm bounds a posted form, but for the import of a list.
const (
	maxForm   = 64 << 10
	maxImport = 8 << 20
)

// guarded wraps a route: who asks, may they, and what became of it.
func (s *server) guarded(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		p, err := s.who(req)
		if err != nil {
			s.fail(w, req, nil, err)
			return
		}
		if p.UserID == "" {
			s.toSignIn(w, req)
			return
		}
		r := &request{Request: req.WithContext(access.WithPrincipal(req.Context(), p)), principal: p}
		if r.scope, err = access.Of(p); err != nil {
			s.fail(w, req, r, err)
			return
		}
		if p.Role == access.Member {
			org, err := s.o.Members.Organisation(r.Context(), r.scope, p.Tenant)
			if err != nil {
				s.fail(w, req, r, err)
				return
			}
			r.organisation = org.Name
		}
		if !slices.Contains(rt.roles, p.Role) { // the page that says so is headed as the person's others are
			s.fail(w, req, r, access.ErrDenied)
			return
		}
		if req.Method == http.MethodPost {
			limit := int64(maxForm)
			if rt.pattern == importPattern {
				limit = maxImport
			}
			r.Body = http.MaxBytesReader(w, r.Body, limit)
			var err error
			if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") {
				err = r.ParseMultipartForm(limit)
			} else {
				err = r.ParseForm()
			}
			if err != nil {
				s.fail(w, req, r, fmt.Errorf("%w: %w", errForm, err))
				return
			}
		}
		if err := rt.handle(w, r); err != nil {
			s.fail(w, req, r, err)
		}
	}
}

// errForm says that a form could not be read: cut off, too long or not a form.
var errForm = errors.New("the form could not be read")

// who is the person behind a request's session; the zero Principal when nobody is
// signed in. The account is read again each time, so that a changed role or a
// disabled account counts at once.
func (s *server) who(req *http.Request) (access.Principal, error) {
	id := s.sessions.GetString(req.Context(), keyUser)
	if id == "" {
		return access.Principal{}, nil
	}
	p, err := s.o.People.Principal(req.Context(), id, s.sessions.GetInt64(req.Context(), keyGeneration))
	if err != nil {
		if errors.Is(err, people.ErrEnded) {
			return access.Principal{}, s.sessions.Destroy(req.Context())
		}
		return access.Principal{}, err
	}
	now, seen := s.o.Now(), time.Unix(s.sessions.GetInt64(req.Context(), keySeen), 0)
	if now.Sub(seen) > sessionIdle {
		return access.Principal{}, s.sessions.Destroy(req.Context())
	}
	if now.Sub(seen) > sessionNote {
		s.sessions.Put(req.Context(), keySeen, now.Unix())
	}
	return p, nil
}

// toSignIn sends somebody to the sign-in page and remembers where they wanted to
// go. A piece of a page is told to load the whole page.
func (s *server) toSignIn(w http.ResponseWriter, req *http.Request) {
	to := "/sign-in"
	if req.Method == http.MethodGet && req.URL.Path != "/" {
		to += "?next=" + url.QueryEscape(req.URL.RequestURI())
	}
	if req.Header.Get("HX-Request") == "true" {
		w.Header().Set("HX-Redirect", "/sign-in")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	http.Redirect(w, req, to, http.StatusSeeOther)
}

// page starts a page of somebody who is signed in.
func (s *server) page(r *request, title, current string, data any) *page {
	p := s.blank(r.Request, title, data)
	p.User = &account{Name: r.principal.Name, Role: roleWord(r.principal.Role), Organisation: r.organisation, Current: current == "/account"}
	p.Console = r.staff()
	p.Nav = navigation(r.principal.Role, current)
	p.Flash = s.takeFlash(r)
	return p
}

// blank starts a page of whoever asks.
func (s *server) blank(req *http.Request, title string, data any) *page {
	p := &page{Title: title, Path: "/", Theme: theme(req), Scheme: s.o.Scheme, Data: data}
	if req.Method == http.MethodGet {
		p.Path = req.URL.RequestURI()
	}
	return p
}

func navigation(role access.Role, current string) []navItem {
	var items []navItem
	if role == access.Member {
		items = []navItem{{Text: "Attack picture", Href: "/picture"}, {Text: "Alerts", Href: "/alerts"}, {Text: "Reports", Href: "/reports"}, {Text: "Collectors", Href: "/collectors"}, {Text: "Questions", Href: "/questions"}}
	} else {
		items = []navItem{{Text: "Queue", Href: "/queue"}, {Text: "Members", Href: "/members"}, {Text: "Collectors", Href: "/collectors"}, {Text: "Detection", Href: "/detection"}, {Text: "Indicators", Href: "/indicators"}, {Text: "Questions", Href: "/questions"}}
	}
	if role == access.Operator {
		items = append(items, navItem{Text: "Health", Href: "/health"})
	}
	for i := range items {
		items[i].Current = items[i].Href == current
	}
	return items
}

func roleWord(r access.Role) string {
	switch r {
	case access.Operator:
		return "Operator"
	case access.Analyst:
		return "Analyst"
	}
	return "Member"
}

func (s *server) show(w http.ResponseWriter, r *request, name string, p *page) error {
	return s.render.write(w, http.StatusOK, name, p)
}

func (s *server) showStatus(w http.ResponseWriter, r *request, status int, name string, p *page) error {
	return s.render.write(w, status, name, p)
}

// redirect is the answer to a form that did its work: loading the page again does
// not send it twice.
func redirect(w http.ResponseWriter, r *request, to string) error {
	http.Redirect(w, r.Request, to, http.StatusSeeOther)
	return nil
}

// local is a path of this server, or the other one: what a form gives back must
// not lead elsewhere.
func local(path, otherwise string) string {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t") {
		return otherwise
	}
	if u, err := url.Parse(path); err != nil || u.Host != "" || u.Scheme != "" {
		return otherwise
	}
	return path
}

func (s *server) flash(r *request, text string) { s.sessions.Put(r.Context(), keyFlash, text) }
func (s *server) flashBad(r *request, text string) {
	s.sessions.Put(r.Context(), keyFlash, "!"+text)
}

func (s *server) takeFlash(r *request) *flash {
	text := s.sessions.PopString(r.Context(), keyFlash)
	if text == "" {
		return nil
	}
	if bad, ok := strings.CutPrefix(text, "!"); ok {
		return &flash{Bad: true, Text: bad}
	}
	return &flash{Text: text}
}

// plainError is the part of a record's error that people can use: what stands
// after the sentinel's own word.
func plainError(err error) string {
	text := err.Error()
	for _, e := range []error{member.ErrInvalid, alert.ErrInvalid, intel.ErrInvalid, people.ErrInvalid} {
		if _, after, ok := strings.Cut(text, e.Error()+": "); ok {
			text = after
			break
		}
	}
	line, _, _ := strings.Cut(text, "\n")
	return sentence(line)
}

// fail shows an error as a page, in the words of the person who gets it. Only
// faults of ours are logged; the page gives the reference under which.
func (s *server) fail(w http.ResponseWriter, req *http.Request, r *request, err error) {
	status, v := http.StatusInternalServerError, errorView{}
	var tooLong *http.MaxBytesError
	switch {
	case errors.Is(err, context.Canceled):
		return // whoever asked has gone
	case errors.Is(err, errNotFound), errors.Is(err, member.ErrNotFound), errors.Is(err, alert.ErrNotFound), errors.Is(err, intel.ErrNotFound), errors.Is(err, people.ErrNotFound):
		status, v = http.StatusNotFound, errorView{Heading: "Page not found", Paragraphs: []string{"There is nothing at this address, or it is not yours to see.", "If you typed the address, check it. If you followed a link, it may be out of date."}}
	case errors.Is(err, access.ErrDenied), errors.Is(err, alert.ErrDenied):
		status, v = http.StatusForbidden, errorView{Heading: "You cannot do this", Paragraphs: []string{"Your account does not have this right.", "If you need it, ask whoever runs Tocsin for you."}}
	case errors.As(err, &tooLong):
		status, v = http.StatusRequestEntityTooLarge, errorView{Heading: "That is too long", Paragraphs: []string{fmt.Sprintf("At most %s can be sent at once. Send it in parts.", bytesText(uint64(tooLong.Limit)))}}
	case errors.Is(err, errForm):
		status, v = http.StatusBadRequest, errorView{Heading: "The form could not be read", Paragraphs: []string{"It may have been cut off on the way. Go back and send it again."}}
	case errors.Is(err, people.ErrBusy):
		status, v = http.StatusServiceUnavailable, errorView{Heading: "Too many people sign in at this moment", Paragraphs: []string{"Try again in a few seconds."}}
		w.Header().Set("Retry-After", "5")
	case errors.Is(err, errStreams):
		status, v = http.StatusTooManyRequests, errorView{Heading: "Too many live pages", Paragraphs: []string{"Close some of the queue's pages that you have open."}}
		w.Header().Set("Retry-After", "60")
	case errors.Is(err, errBusy):
		status, v = http.StatusTooManyRequests, errorView{Heading: "Too many attempts", Paragraphs: []string{"Wait a minute, then try again."}}
		w.Header().Set("Retry-After", "60")
	case errors.Is(err, errCrossSite):
		status, v = http.StatusForbidden, errorView{Heading: "This came from another site", Paragraphs: []string{"For your safety, forms are only taken from Tocsin's own pages. Open the page here and try again."}}
	case errors.Is(err, member.ErrInvalid), errors.Is(err, alert.ErrInvalid), errors.Is(err, intel.ErrInvalid), errors.Is(err, people.ErrInvalid), errors.Is(err, eventstore.ErrBadFilter):
		status, v = http.StatusUnprocessableEntity, errorView{Heading: "That did not fit", Paragraphs: []string{plainError(err) + "."}}
	default:
		v = errorView{Heading: "Sorry, something is wrong with Tocsin", Paragraphs: []string{"What you did last may not have been done. Nothing that was stored is lost.", "Try again in a minute."}, Reference: reference()}
		s.o.Logger.ErrorContext(req.Context(), "answering a request", "method", req.Method, "path", req.URL.Path, "reference", v.Reference, "error", err)
	}
	p := s.blank(req, v.Heading, v)
	p.Path = "/"
	if r != nil {
		p.User, p.Console = &account{Name: r.principal.Name, Role: roleWord(r.principal.Role), Organisation: r.organisation}, r.staff()
		p.Nav = navigation(r.principal.Role, "")
	}
	if err := s.render.write(w, status, "error", p); err != nil {
		s.o.Logger.ErrorContext(req.Context(), "showing an error", "error", err)
	}
}

// reference is a short random word that a person can read out and an operator can
// find in the log.
func reference() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

const themeCookie = "__Host-tocsin-colours"

// theme is the colours that somebody chose; "" follows their device.
func theme(req *http.Request) string {
	if c, err := req.Cookie(themeCookie); err == nil && (c.Value == "light" || c.Value == "dark") {
		return c.Value
	}
	return ""
}

func (s *server) setTheme(w http.ResponseWriter, req *http.Request) {
	req.Body = http.MaxBytesReader(w, req.Body, maxForm)
	c := &http.Cookie{Name: themeCookie, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: 365 * 24 * 3600}
	switch v := req.PostFormValue("theme"); v {
	case "light", "dark":
		c.Value = v
	default:
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
	http.Redirect(w, req, local(req.PostFormValue("back"), "/"), http.StatusSeeOther)
}

// remote is the address a request came from, for limits and the audit; not the port. Behind a reverse proxy that the operator named it is
// what that proxy says: of X-Forwarded-For the last address that is not itself such a proxy's. What stands left of it anybody can write.
func (s *server) remote(req *http.Request) string {
	host, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		return req.RemoteAddr
	}
	if !s.proxy(host) {
		return host
	}
	forwarded := strings.Split(strings.Join(req.Header.Values("X-Forwarded-For"), ","), ",")
	for _, text := range slices.Backward(forwarded) {
		a, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil {
			if ap, err2 := netip.ParseAddrPort(strings.TrimSpace(text)); err2 == nil {
				a, err = ap.Addr(), nil
			}
		}
		if err != nil {
			return host // not what a proxy writes: nothing in it can be believed
		}
		if host = a.Unmap().String(); !s.proxy(host) {
			return host
		}
	}
	return host
}

// proxy says whether an address is a reverse proxy that the operator named.
func (s *server) proxy(host string) bool {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(s.o.Proxies, func(p netip.Prefix) bool { return p.Contains(a.Unmap().WithZone("")) })
}
