package web

import (
	"errors"
	"net/http"

	"tocsin/internal/people"
)

// keyAuthenticator holds, in the session of somebody who changes their authenticator app, the TOTP key offered to them. It is not that of an
// invitation, which could have been seen by whoever used this browser before.
const keyAuthenticator = "authenticator"

// authenticator shows the page on which somebody who is signed in connects another authenticator app: a new phone, or a lost one.
func (s *server) authenticator(w http.ResponseWriter, r *request) error {
	return s.showAuthenticator(w, r, http.StatusOK, nil)
}

func (s *server) showAuthenticator(w http.ResponseWriter, r *request, status int, problems []problem) error {
	key, err := s.offeredKey(r.Request, keyAuthenticator, r.principal.Email)
	if err != nil {
		return err
	}
	img, err := draw(key)
	if err != nil {
		return err
	}
	p := s.page(r, "Change your authenticator app", "/account", invitationView{Email: r.principal.Email, Organisation: r.organisation, QR: img, SecretText: groups(key.Secret())})
	p.Width, p.Problem = "medium", problems
	return s.showStatus(w, r, status, "authenticator", p)
}

// changeAuthenticator replaces the second factor of whoever asks. Their other sessions end; this one goes on under a new name.
func (s *server) changeAuthenticator(w http.ResponseWriter, r *request) error {
	ctx := r.Context()
	password, code := r.PostFormValue("password"), digits(r.PostFormValue("code"))
	var problems []problem
	if password == "" {
		problems = append(problems, problem{"password", "Enter your password"})
	}
	if len(code) != 6 {
		problems = append(problems, problem{"code", "Enter the six digits that the app shows"})
	}
	refuse := func(p ...problem) error { return s.showAuthenticator(w, r, http.StatusUnprocessableEntity, p) }
	if len(problems) > 0 {
		return refuse(problems...)
	}
	if !s.limit.allow(s.remote(r.Request)) {
		return errBusy
	}
	key, err := s.offeredKey(r.Request, keyAuthenticator, r.principal.Email)
	if err != nil {
		return err
	}
	generation, err := s.o.People.ChangeAuthenticator(ctx, r.principal.UserID, password, key.Secret(), code, s.remote(r.Request))
	switch {
	case errors.Is(err, people.ErrCode):
		return refuse(problem{"code", "The code does not fit. Wait for the next one; if that does not fit either, check that you scanned the picture on this page, and the clock of your phone"})
	case errors.Is(err, people.ErrSignIn):
		return refuse(problem{"password", "This is not your password"})
	case errors.Is(err, people.ErrLocked):
		return refuse(problem{"password", "There were too many wrong attempts. Wait a quarter of an hour, then try again"})
	case err != nil:
		return err
	}
	s.sessions.Remove(ctx, keyAuthenticator)
	if err := s.keep(r, generation); err != nil {
		return err
	}
	s.flash(r, "Your new authenticator app is connected. The old one opens nothing any more, and other devices have to sign in again.")
	return redirect(w, r, "/account")
}
