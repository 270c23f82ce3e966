package people

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/uptrace/bun"

	"tocsin/internal/access"
)

// atOnce calls f so many times at once and counts the answers.
func atOnce(t *testing.T, n int, f func() error) map[error]int {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[error]int{}
	start := make(chan struct{})
	for range n {
		wg.Go(func() {
			<-start
			err := f()
			mu.Lock()
			defer mu.Unlock()
			for _, known := range []error{nil, ErrSignIn, ErrLocked, ErrBusy} {
				if errors.Is(err, known) {
					got[known]++
					return
				}
			}
			t.Error(err)
		})
	}
	close(start)
	wg.Wait()
	return got
}

// Guesses that come all at once are not heard more often than those that come one after the other.
func TestGuessesAtOnce(t *testing.T) {
	s, _ := newStore(t)
	op := create(t, s, "op@example.org", access.Operator, 0)
	got := atOnce(t, 40, func() error { _, err := s.CheckPassword(t.Context(), op.Email, "guess", away); return err })
	if got[ErrSignIn] != freeForAccount+1 || got[ErrLocked] != 40-freeForAccount-1 {
		t.Errorf("%v", got)
	}
}

// Who knows the password but not the second factor has one try of a code for each password that is counted, however many come at once.
func TestOneCodeForEachPassword(t *testing.T) {
	s, c := newStore(t)
	op := create(t, s, "op@example.org", access.Operator, 0)
	ticket, err := s.CheckPassword(t.Context(), op.Email, op.Password, home)
	if err != nil {
		t.Fatal(err)
	}
	if got := atOnce(t, 20, func() error { _, _, err := s.CheckCode(t.Context(), ticket, "000000", home); return err }); got[ErrSignIn] != 20 {
		t.Errorf("%v", got)
	}
	if _, _, err := s.CheckCode(t.Context(), ticket, code(t, op.TOTPSecret, c.now()), home); !errors.Is(err, ErrSignIn) {
		t.Errorf("the right code as the 21st: %v", err)
	}
	// A ticket that waited too long is none.
	if ticket, err = s.CheckPassword(t.Context(), op.Email, op.Password, home); err != nil {
		t.Fatal(err)
	}
	c.add(ticketFor + time.Second)
	if _, _, err := s.CheckCode(t.Context(), ticket, code(t, op.TOTPSecret, c.now()), home); !errors.Is(err, ErrSignIn) {
		t.Errorf("a late ticket: %v", err)
	}
}

// Trying one password again and again without ever giving a code must not tell, by when the lock comes, that it is the right one; nor may
// what is handed out for it look different.
func TestLockDoesNotTellTheRightPassword(t *testing.T) {
	s, _ := newStore(t)
	op := create(t, s, "op@example.org", access.Operator, 0)
	for password, want := range map[string]error{op.Password: nil, "a wrong password": ErrSignIn} {
		if err := s.reset(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		heard := 0
		for {
			ticket, err := s.CheckPassword(t.Context(), op.Email, password, away)
			if errors.Is(err, ErrLocked) {
				break
			}
			if !errors.Is(err, want) || ticket == "" {
				t.Fatalf("%q, %v", ticket, err)
			}
			if heard++; heard > 20 {
				break
			}
		}
		if heard != freeForAccount+1 {
			t.Errorf("heard %d times", heard)
		}
	}
}

// Signing in often from one place does not use the place up, whatever the account.
func TestSuccessIsTakenBack(t *testing.T) {
	s, _ := newStore(t)
	for i := range freeForPlace + 5 {
		email := fmt.Sprintf("p%d@example.org", i)
		if _, err := s.attempt(t.Context(), email, home); err != nil {
			t.Fatal(i, err)
		}
		if err := s.db.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error { return s.forgive(ctx, tx, email, home) }); err != nil {
			t.Fatal(err)
		}
	}
}

// An open session is no way to guess the password.
func TestChangePasswordIsHeldBack(t *testing.T) {
	s, _ := newStore(t)
	op := create(t, s, "op@example.org", access.Operator, 0)
	for range freeForAccount + 1 {
		if _, err := s.ChangePassword(t.Context(), op.UserID, "guess", "correct horse battery", home); !errors.Is(err, ErrSignIn) {
			t.Fatal(err)
		}
	}
	if _, err := s.ChangePassword(t.Context(), op.UserID, op.Password, "correct horse battery", home); !errors.Is(err, ErrLocked) {
		t.Error(err)
	}
}

func sessionData(t *testing.T, values map[string]any) []byte {
	t.Helper()
	b, err := scs.GobCodec{}.Encode(time.Now().Add(time.Hour), values)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSessionList(t *testing.T) {
	s, _ := newStore(t)
	ctx, ss := t.Context(), NewSessions(s.db)
	until := time.Now().Add(time.Hour)
	for token, v := range map[string]map[string]any{
		"desk":  {SessionUser: "anna", SessionGeneration: int64(2), SessionSeen: int64(100), SessionBegan: int64(90), SessionPlace: "192.0.2.1", SessionAgent: "Firefox on Linux"},
		"phone": {SessionUser: "anna", SessionGeneration: int64(2), SessionSeen: int64(200)},
		"old":   {SessionUser: "anna", SessionGeneration: int64(1)},
		"other": {SessionUser: "ben", SessionGeneration: int64(2)},
		"none":  {},
	} {
		if err := ss.CommitCtx(ctx, token, sessionData(t, v), until); err != nil {
			t.Fatal(err)
		}
	}
	list, err := ss.Of(ctx, "anna", 2)
	if err != nil || len(list) != 2 || list[0].ID != SessionID("phone") || list[1] != (Session{SessionID("desk"), 90, 100, "192.0.2.1", "Firefox on Linux"}) {
		t.Fatalf("%+v, %v", list, err)
	}
	if list, err := ss.Of(ctx, "", 0); err != nil || len(list) != 0 {
		t.Errorf("nobody's sessions: %+v, %v", list, err)
	}
	for _, wrong := range []struct{ person, id string }{{"ben", SessionID("desk")}, {"anna", SessionID("other")}, {"anna", "zz"}, {"", SessionID("none")}} {
		if err := ss.End(ctx, wrong.person, wrong.id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
	if err := ss.End(ctx, "anna", SessionID("desk")); err != nil {
		t.Fatal(err)
	}
	// A request that was under way when its session ended does not bring it back.
	if err := ss.CommitCtx(ctx, "desk", sessionData(t, map[string]any{SessionUser: "anna", SessionGeneration: int64(2)}), until); err != nil {
		t.Fatal(err)
	}
	if _, found, err := ss.FindCtx(ctx, "desk"); found || err != nil {
		t.Errorf("an ended session came back: %v", err)
	}
	if list, err := ss.Of(ctx, "anna", 2); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// A renewal replaces password and second factor of the account that is there, ends its sessions, and works once.
func TestRenew(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	m := create(t, s, "head@example.org", access.Member, 1)
	an := create(t, s, "an@example.org", access.Analyst, 0)
	if _, _, _, err := s.Renew(ctx, access.Principal{UserID: an.UserID, Role: access.Analyst}, national, m.UserID); !errors.Is(err, access.ErrDenied) {
		t.Errorf("by an analyst: %v", err)
	}
	for what, err := range map[string]error{
		"the centre's":     func() error { _, _, _, err := s.Renew(ctx, root, national, an.UserID); return err }(),
		"another member's": func() error { _, _, _, err := s.Renew(ctx, root, access.Only(2), m.UserID); return err }(),
		"by address":       func() error { _, _, _, err := s.Renew(ctx, root, national, m.Email); return err }(),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, first, _, err := s.Renew(ctx, root, access.Only(1), m.UserID)
	if err != nil {
		t.Fatal(err)
	}
	i, second, _, err := s.Renew(ctx, root, access.Only(1), m.UserID)
	if err != nil || i.Email != m.Email {
		t.Fatal(i, err)
	}
	if _, err := s.Invitation(ctx, first); !errors.Is(err, ErrInvitation) {
		t.Errorf("the older one still works: %v", err)
	}
	if _, _, err := signIn(s, t, m, code(t, m.TOTPSecret, c.now()), home); err != nil {
		t.Errorf("before it is accepted the old sign-in works: %v", err)
	}
	secret := "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
	if err := s.Accept(ctx, second, "correct horse battery", secret, code(t, secret, c.now())); err != nil {
		t.Fatal(err)
	}
	if err := s.Accept(ctx, second, "correct horse battery", secret, code(t, secret, c.now())); !errors.Is(err, ErrInvitation) {
		t.Errorf("twice: %v", err)
	}
	if _, err := s.Principal(ctx, m.UserID, 1); !errors.Is(err, ErrEnded) {
		t.Errorf("its sessions: %v", err)
	}
	c.add(time.Minute)
	if _, err := s.CheckPassword(ctx, m.Email, m.Password, home); !errors.Is(err, ErrSignIn) {
		t.Errorf("the old password: %v", err)
	}
	if p, _, err := signIn(s, t, Credentials{Email: m.Email, Password: "correct horse battery"}, code(t, secret, c.now()), home); err != nil || p.UserID != m.UserID || p.Tenant != 1 {
		t.Errorf("the new sign-in: %+v, %v", p, err)
	}
}

func TestTombstoneHasNoData(t *testing.T) {
	s, _ := newStore(t)
	ss := NewSessions(s.db)
	if err := ss.Commit("t", []byte("secret"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := ss.Delete("t"); err != nil {
		t.Fatal(err)
	}
	var b []byte
	if err := s.db.Read().QueryRowContext(t.Context(), "SELECT data FROM sessions").Scan(&b); err != nil || !bytes.Equal(b, nil) {
		t.Errorf("%q, %v", b, err)
	}
}
