package web

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"tocsin/internal/people"
)

// account shows people what is theirs: who they are here, their password, and where they are signed in.
func (s *server) account(w http.ResponseWriter, r *request) error {
	return s.showAccount(w, r, http.StatusOK, nil)
}

func (s *server) showAccount(w http.ResponseWriter, r *request, status int, problems []problem) error {
	ctx := r.Context()
	list, err := s.o.Sessions.Of(ctx, r.principal.UserID, s.sessions.GetInt64(ctx, keyGeneration))
	if err != nil {
		return err
	}
	v := accountView{Name: r.principal.Name, Email: r.principal.Email, Role: roleText(r), Organisation: r.organisation, MinPassword: people.MinPassword}
	own := people.SessionID(s.sessions.Token(ctx))
	for _, x := range list {
		// A session that nothing was asked of for too long is over, though its row is still there.
		if x.ID != own && s.o.Now().Sub(time.Unix(x.SeenUnix, 0)) > sessionIdle {
			continue
		}
		row := sessionRow{ID: x.ID, Browser: x.Agent, Place: x.Place, Seen: time.Unix(x.SeenUnix, 0), Here: x.ID == own}
		if row.Browser == "" {
			row.Browser = "Unknown browser"
		}
		if x.BeganUnix > 0 {
			row.Began = time.Unix(x.BeganUnix, 0)
		}
		if row.Here {
			v.Sessions = append([]sessionRow{row}, v.Sessions...)
		} else {
			v.Sessions = append(v.Sessions, row)
			v.Others++
		}
	}
	p := s.page(r, "Your account", "/account", v)
	p.Width, p.Problem = "medium", problems
	return s.showStatus(w, r, status, "account", p)
}

func roleText(r *request) string {
	if r.staff() {
		return strings.ToLower(roleWord(r.principal.Role)) + " at the centre"
	}
	return "member"
}

// changePassword replaces the password of whoever asks. Their other sessions end; this one goes on under a new name.
func (s *server) changePassword(w http.ResponseWriter, r *request) error {
	old, password, again := r.PostFormValue("old"), r.PostFormValue("password"), r.PostFormValue("again")
	var problems []problem
	if old == "" {
		problems = append(problems, problem{"old", "Enter the password you have now"})
	}
	switch {
	case len([]rune(password)) < people.MinPassword:
		problems = append(problems, problem{"password", fmt.Sprintf("Choose a password of at least %d characters", people.MinPassword)})
	case password == old:
		problems = append(problems, problem{"password", "Choose a password that differs from the one you have now"})
	case password != again:
		problems = append(problems, problem{"again", "The two new passwords are not the same. Type the new one again"})
	}
	if len(problems) > 0 {
		return s.showAccount(w, r, http.StatusUnprocessableEntity, problems)
	}
	if !s.limit.allow(s.remote(r.Request)) {
		return errBusy
	}
	generation, err := s.o.People.ChangePassword(r.Context(), r.principal.UserID, old, password, s.remote(r.Request))
	switch {
	case errors.Is(err, people.ErrSignIn):
		return s.showAccount(w, r, http.StatusUnprocessableEntity, []problem{{"old", "This is not the password you have now"}})
	case errors.Is(err, people.ErrLocked):
		return s.showAccount(w, r, http.StatusUnprocessableEntity, []problem{{"old", "There were too many wrong attempts. Wait a quarter of an hour, then try again"}})
	case errors.Is(err, people.ErrInvalid):
		return s.showAccount(w, r, http.StatusUnprocessableEntity, []problem{{"password", plainError(err)}})
	case err != nil:
		return err
	}
	if err := s.keep(r, generation); err != nil {
		return err
	}
	s.flash(r, "Your password is changed. Other devices have to sign in again.")
	return redirect(w, r, "/account")
}

// endSessions signs somebody out everywhere but here.
func (s *server) endSessions(w http.ResponseWriter, r *request) error {
	generation, err := s.o.People.EndSessions(r.Context(), r.principal.UserID)
	if err != nil {
		return err
	}
	if err := s.keep(r, generation); err != nil {
		return err
	}
	s.flash(r, "You are signed out everywhere but here.")
	return redirect(w, r, "/account")
}

// keep lets this session go on, under a new name, when all the others of the account were ended.
func (s *server) keep(r *request, generation int64) error {
	deadline := s.sessions.Deadline(r.Context())
	if err := s.sessions.RenewToken(r.Context()); err != nil {
		return err
	}
	s.sessions.SetDeadline(r.Context(), deadline) // no longer than it would have lasted
	s.sessions.Put(r.Context(), keyGeneration, generation)
	return nil
}

// endSession ends one session of whoever asks; their own of now is what signing out is for.
func (s *server) endSession(w http.ResponseWriter, r *request) error {
	id := r.PathValue("session")
	if id == people.SessionID(s.sessions.Token(r.Context())) {
		s.signOut(w, r.Request)
		return nil
	}
	switch err := s.o.Sessions.End(r.Context(), r.principal.UserID, id); {
	case errors.Is(err, people.ErrNotFound):
		s.flash(r, "That device was signed out already.")
	case err != nil:
		return err
	default:
		s.flash(r, "That device is signed out.")
	}
	return redirect(w, r, "/account")
}

// browserWord names a browser and what it runs on, as people know them. What it says of itself proves nothing; it only helps its owner to
// tell their devices apart.
func browserWord(agent string) string {
	pick := func(list [][2]string) string {
		for _, x := range list {
			if strings.Contains(agent, x[0]) {
				return x[1]
			}
		}
		return ""
	}
	// In this order: most browsers also claim to be those that were there before them.
	browser := pick([][2]string{{"Edg", "Edge"}, {"OPR/", "Opera"}, {"SamsungBrowser", "Samsung Internet"}, {"Firefox/", "Firefox"}, {"FxiOS", "Firefox"}, {"CriOS", "Chrome"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}, {"curl/", "curl"}})
	system := pick([][2]string{{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"Windows", "Windows"}, {"Mac OS X", "Mac"}, {"CrOS", "Chromebook"}, {"Linux", "Linux"}})
	switch {
	case browser == "" && system == "":
		return ""
	case browser == "":
		return "A browser on " + system
	case system == "":
		return browser
	}
	return browser + " on " + system
}
