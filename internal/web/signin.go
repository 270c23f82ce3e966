package web

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"tocsin/internal/people"
)

// What a session holds.
const (
	keyUser       = people.SessionUser
	keyGeneration = people.SessionGeneration
	keySeen       = people.SessionSeen // to sessionNote
	keyFlash      = "flash"
	keyPending    = "pending"    // the ticket of the first step; one of a wrong password is refused at the end
	keyPendingAt  = "pending-at" // Unix seconds
	keyPendingTo  = "pending-to" // where to go afterwards
	keyPendingAs  = "pending-as" // the email address as it was typed, so that a mistyped code does not cost that too
)

// maxEmail is the longest address there is (RFC 5321), in bytes.
const maxEmail = 254

// pendingFor is how long the second step waits for its code.
const pendingFor = 10 * time.Minute

// Errors of this package that become pages.
var (
	errBusy      = errors.New("too many attempts from one place")
	errCrossSite = errors.New("a form from another site")
)

// wrongSignIn is the one answer to a sign-in that fails. It does not tell which
// of the three was wrong, nor whether the account exists.
const wrongSignIn = "The email address, the password or the code is not right. Check all three and try again"

func (s *server) signIn(w http.ResponseWriter, r *http.Request) {
	if s.sessions.GetString(r.Context(), keyUser) != "" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	p := s.blank(r, "Sign in", signInView{Next: local(r.FormValue("next"), "")})
	switch r.FormValue("why") {
	case "cookie":
		p.Problem = []problem{{"email", "Your browser did not keep the first step. Allow cookies for this site, and open it under an address that begins with https:// or http://localhost"}}
	case "late":
		p.Problem = []problem{{"email", "The code came too late. Start again; the second step waits for ten minutes"}}
	case "out":
		p.Flash = &flash{Text: "You are signed out."}
	case "ready":
		p.Flash = &flash{Text: "Your sign-in is ready. Try it now."}
	}
	s.showOrLog(w, r, http.StatusOK, "signin", p)
}

func (s *server) signInPassword(w http.ResponseWriter, r *http.Request) {
	if !s.readForm(w, r) {
		return
	}
	email, password, next := strings.TrimSpace(r.PostFormValue("email")), r.PostFormValue("password"), local(r.PostFormValue("next"), "")
	var problems []problem
	if email == "" {
		problems = append(problems, problem{"email", "Enter your email address"})
	}
	if password == "" {
		problems = append(problems, problem{"password", "Enter your password"})
	}
	if len(problems) > 0 {
		s.refuseSignIn(w, r, email, next, problems)
		return
	}
	if !s.limit.allow(s.remote(r)) {
		s.fail(w, r, nil, errBusy)
		return
	}
	ctx := r.Context()
	ticket, err := s.o.People.CheckPassword(ctx, email, password, s.remote(r))
	if err != nil && !errors.Is(err, people.ErrSignIn) { // a wrong password is told at the end
		s.failSignIn(w, r, err, email, next)
		return
	}
	// The session gets a new name as soon as it means anything.
	if err := s.sessions.RenewToken(ctx); err != nil {
		s.fail(w, r, nil, err)
		return
	}
	s.sessions.SetDeadline(ctx, time.Now().Add(pendingFor+time.Minute)) // the second step gives it its full life
	s.sessions.Put(ctx, keyPending, ticket)
	s.sessions.Put(ctx, keyPendingAt, s.o.Now().Unix())
	s.sessions.Put(ctx, keyPendingTo, next)
	s.sessions.Put(ctx, keyPendingAs, email[:min(len(email), maxEmail)])
	http.Redirect(w, r, "/sign-in/code", http.StatusSeeOther)
}

func (s *server) refuseSignIn(w http.ResponseWriter, r *http.Request, email, next string, problems []problem) {
	p := s.blank(r, "Sign in", signInView{Email: email, Next: next})
	p.Problem, p.Path = problems, "/sign-in"
	s.showOrLog(w, r, http.StatusUnprocessableEntity, "signin", p)
}

func (s *server) signInCode(w http.ResponseWriter, r *http.Request) {
	if why := s.noPending(r); why != "" {
		http.Redirect(w, r, "/sign-in?why="+why, http.StatusSeeOther)
		return
	}
	s.showOrLog(w, r, http.StatusOK, "code", s.blank(r, "Enter your code", nil))
}

// noPending says why there is no first step to go on from.
func (s *server) noPending(r *http.Request) string {
	ctx := r.Context()
	switch {
	case s.sessions.GetString(ctx, keyPending) == "":
		return "cookie"
	case s.o.Now().Unix()-s.sessions.GetInt64(ctx, keyPendingAt) > int64(pendingFor/time.Second):
		return "late"
	}
	return ""
}

func (s *server) signInFinish(w http.ResponseWriter, r *http.Request) {
	if !s.readForm(w, r) {
		return
	}
	ctx := r.Context()
	if why := s.noPending(r); why != "" {
		http.Redirect(w, r, "/sign-in?why="+why, http.StatusSeeOther)
		return
	}
	code := digits(r.PostFormValue("code"))
	if len(code) != 6 {
		p := s.blank(r, "Enter your code", nil)
		p.Problem = []problem{{"code", "Enter the six digits that the app shows"}}
		s.showOrLog(w, r, http.StatusUnprocessableEntity, "code", p)
		return
	}
	if !s.limit.allow(s.remote(r)) {
		s.fail(w, r, nil, errBusy)
		return
	}
	next := s.sessions.GetString(ctx, keyPendingTo)
	p, generation, err := s.o.People.CheckCode(ctx, s.sessions.GetString(ctx, keyPending), code, s.remote(r))
	if err != nil {
		// One try: whoever failed begins again, so a stolen password alone buys one guess of a code for each try that is counted. The
		// ticket itself is good once; this is so that the page says so.
		s.sessions.Remove(ctx, keyPending)
		s.failSignIn(w, r, err, s.sessions.PopString(ctx, keyPendingAs), next)
		return
	}
	if err := s.sessions.RenewToken(ctx); err != nil {
		s.fail(w, r, nil, err)
		return
	}
	s.sessions.Remove(ctx, keyPending)
	s.sessions.Remove(ctx, keyPendingAt)
	s.sessions.Remove(ctx, keyPendingTo)
	s.sessions.Remove(ctx, keyPendingAs)
	s.sessions.Put(ctx, keyUser, p.UserID)
	s.sessions.Put(ctx, keyGeneration, generation)
	now := s.o.Now().Unix()
	s.sessions.Put(ctx, keySeen, now)
	s.sessions.Put(ctx, people.SessionBegan, now)
	s.sessions.Put(ctx, people.SessionPlace, people.Place(s.remote(r)))
	s.sessions.Put(ctx, people.SessionAgent, browserWord(r.UserAgent()))
	http.Redirect(w, r, local(next, "/"), http.StatusSeeOther)
}

// failSignIn tells about a failed sign-in no more than it must.
func (s *server) failSignIn(w http.ResponseWriter, r *http.Request, err error, email, next string) {
	switch {
	case errors.Is(err, people.ErrSignIn):
		s.refuseSignIn(w, r, email, next, []problem{{"email", wrongSignIn}})
	case errors.Is(err, people.ErrLocked):
		s.refuseSignIn(w, r, email, next, []problem{{"email", "There were too many wrong attempts. Wait a quarter of an hour, then try again"}})
	default:
		s.fail(w, r, nil, err)
	}
}

func (s *server) signOut(w http.ResponseWriter, r *http.Request) {
	if err := s.sessions.Destroy(r.Context()); err != nil {
		s.fail(w, r, nil, err)
		return
	}
	http.Redirect(w, r, "/sign-in?why=out", http.StatusSeeOther)
}

func (s *server) readForm(w http.ResponseWriter, r *http.Request) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, nil, errors.Join(errForm, err))
		return false
	}
	return true
}

func (s *server) showOrLog(w http.ResponseWriter, r *http.Request, status int, name string, p *page) {
	if err := s.render.write(w, status, name, p); err != nil {
		s.fail(w, r, nil, err)
	}
}

// digits keeps the digits of a code as people type it: "123 456".
func digits(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, s)
}

// limiter slows down whoever tries many sign-ins from one place, an IPv4 address or an IPv6 /64: thirty at once, then one a second. A
// sign-in is two tries; a control room behind one address changes shift within a minute. The accounts' own locks are in package people;
// this one keeps a flood away from the password hash.
type limiter struct {
	mu    sync.Mutex // guards the rest; held for map work only
	now   func() time.Time
	from  map[string]*bucket
	swept time.Time
}

type bucket struct {
	*rate.Limiter
	seen time.Time
}

const (
	limitBurst = 30
	limitEvery = time.Second
	limitKeep  = 10000 // places remembered at once
)

func (l *limiter) allow(remote string) bool {
	place := people.Place(remote)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b := l.from[place]
	if b == nil {
		if len(l.from) >= limitKeep {
			l.forget(now)
		}
		b = &bucket{Limiter: rate.NewLimiter(rate.Every(limitEvery), limitBurst)}
		l.from[place] = b
	}
	b.seen = now
	return b.AllowN(now, 1)
}

// forget makes room: for places whose allowance is full again it changes nothing. When there is none such, one of those that are there goes:
// somebody with ten thousand addresses must not keep everybody else from signing in.
func (l *limiter) forget(now time.Time) {
	if now.Sub(l.swept) > time.Second {
		l.swept = now
		for k, v := range l.from {
			if now.Sub(v.seen) > limitBurst*limitEvery {
				delete(l.from, k)
			}
		}
	}
	for k := range l.from {
		if len(l.from) < limitKeep {
			return
		}
		delete(l.from, k)
	}
}
