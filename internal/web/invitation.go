package web

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"image/png"
	"net/http"
	"strings"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"tocsin/internal/people"
)

// keyEnrolment holds, in the session of whoever opened an invitation, the TOTP
// key offered to them: the page may be loaded twice, the phone scans once.
const keyEnrolment = "enrolment"

func (s *server) invitation(w http.ResponseWriter, r *http.Request) {
	s.showInvitation(w, r, http.StatusOK, nil)
}

// showInvitation shows the page on which an invited person chooses a password and
// connects an authenticator app.
func (s *server) showInvitation(w http.ResponseWriter, r *http.Request, status int, problems []problem) {
	i, err := s.o.People.Invitation(r.Context(), r.PathValue("secret"))
	if err != nil {
		s.failInvitation(w, r, err)
		return
	}
	key, err := s.offeredKey(r, keyEnrolment, i.Email)
	if err != nil {
		s.fail(w, r, nil, err)
		return
	}
	img, err := draw(key)
	if err != nil {
		s.fail(w, r, nil, err)
		return
	}
	v := invitationView{Name: i.Name, Email: i.Email, Organisation: i.Organisation, SecretText: groups(key.Secret()), MinPassword: people.MinPassword, QR: img}
	p := s.blank(r, "Set up your sign-in", v)
	p.Problem, p.Path = problems, "/sign-in" // never the invitation's own address: it is a secret
	s.showOrLog(w, r, status, "invitation", p)
}

// draw makes the picture of a TOTP key that a phone scans, as an address for an img.
func draw(key *otp.Key) (template.URL, error) {
	img, err := key.Image(220, 220)
	if err != nil {
		return "", fmt.Errorf("drawing the key: %w", err)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return "", fmt.Errorf("drawing the key: %w", err)
	}
	return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes())), nil
}

// offeredKey is the TOTP key of this visit, kept in the session under name and made once for each account.
func (s *server) offeredKey(r *http.Request, name, email string) (*otp.Key, error) {
	if text := s.sessions.GetString(r.Context(), name); text != "" {
		key, err := otp.NewKeyFromURL(text)
		if err == nil && key.AccountName() == email {
			return key, nil
		}
	}
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Tocsin", AccountName: email, SecretSize: 20})
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	s.sessions.Put(r.Context(), name, key.URL())
	return key, nil
}

func (s *server) acceptInvitation(w http.ResponseWriter, r *http.Request) {
	if !s.readForm(w, r) {
		return
	}
	if !s.limit.allow(s.remote(r)) {
		s.fail(w, r, nil, errBusy)
		return
	}
	ctx, secret := r.Context(), r.PathValue("secret")
	i, err := s.o.People.Invitation(ctx, secret)
	if err != nil {
		s.failInvitation(w, r, err)
		return
	}
	password, code := r.PostFormValue("password"), digits(r.PostFormValue("code"))
	var problems []problem
	if len([]rune(password)) < people.MinPassword {
		problems = append(problems, problem{"password", fmt.Sprintf("Choose a password of at least %d characters", people.MinPassword)})
	}
	key, err := s.offeredKey(r, keyEnrolment, i.Email)
	if err != nil {
		s.fail(w, r, nil, err)
		return
	}
	if len(code) != 6 {
		problems = append(problems, problem{"code", "Enter the six digits that the app shows"})
	}
	if len(problems) > 0 {
		s.showInvitation(w, r, http.StatusUnprocessableEntity, problems)
		return
	}
	switch err := s.o.People.Accept(ctx, secret, password, key.Secret(), code); {
	case errors.Is(err, people.ErrCode):
		s.showInvitation(w, r, http.StatusUnprocessableEntity, []problem{{"code", "The code does not fit. Wait for the next one; if that does not fit either, check the clock of your phone"}})
	case errors.Is(err, people.ErrInvalid):
		s.showInvitation(w, r, http.StatusUnprocessableEntity, []problem{{"password", plainError(err)}})
	case err != nil:
		s.failInvitation(w, r, err)
	default:
		if err := s.sessions.Destroy(ctx); err != nil {
			s.fail(w, r, nil, err)
			return
		}
		http.Redirect(w, r, "/sign-in?why=ready", http.StatusSeeOther)
	}
}

func (s *server) failInvitation(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(err, people.ErrInvitation) {
		s.fail(w, r, nil, err)
		return
	}
	v := errorView{Heading: "This invitation does not work", Paragraphs: []string{"It may have been used, or be older than seven days, or part of its address may be missing.", "Ask whoever sent it for a new one."}}
	s.showOrLog(w, r, http.StatusNotFound, "error", s.blank(r, v.Heading, v))
}

// groups writes a key in fours, as people type it.
func groups(s string) string {
	var b strings.Builder
	for i, c := range s {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(c)
	}
	return b.String()
}
