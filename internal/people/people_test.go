package people

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/pquerna/otp/totp"
	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
)

var (
	_ scs.CtxStore = (*Sessions)(nil)
	_ scs.Store    = (*Sessions)(nil)

	national = access.System("test")
	root     = access.Principal{UserID: "system:admin", Role: access.Operator}
)

const home, away = "192.0.2.10:5555", "198.51.100.7:1234"

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func newStore(t testing.TB) (*Store, *clock) {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{Path: filepath.Join(t.TempDir(), "t.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO tenants (id, name, created_ns) VALUES (1, 'Ashgrove School', 1), (2, 'Brindle', 1)")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	c := &clock{t: time.Date(2026, 11, 20, 9, 0, 5, 0, time.UTC)}
	s, err := New(d, Options{Key: [32]byte{7}, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func create(t testing.TB, s *Store, email string, role access.Role, tenant int) Credentials {
	t.Helper()
	c, err := s.Create(t.Context(), root, Invitation{Name: "Pat Person", Email: email, Role: role, Tenant: event.TenantID(tenant)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func code(t testing.TB, secret string, at time.Time) string {
	t.Helper()
	c, err := totp.GenerateCode(secret, at)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func signIn(s *Store, t testing.TB, c Credentials, code, remote string) (access.Principal, int64, error) {
	id, err := s.CheckPassword(t.Context(), c.Email, c.Password, remote)
	if err != nil {
		return access.Principal{}, 0, err
	}
	return s.CheckCode(t.Context(), id, code, remote)
}

func TestSignIn(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	op := create(t, s, "Op@Example.org", access.Operator, 0)
	if len(op.Password) < 20 || op.Email != "op@example.org" || !strings.HasPrefix(op.OTPAuthURL, "otpauth://totp/Tocsin:op@example.org?") {
		t.Errorf("%+v", op)
	}
	var stored string
	if err := s.db.Read().NewRaw("SELECT password || ' ' || hex(totp_secret) FROM people").Scan(ctx, &stored); err != nil || strings.Contains(stored, op.Password) || strings.Contains(stored, fmt.Sprintf("%X", op.TOTPSecret)) || !strings.HasPrefix(stored, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("stored %s, %v", stored, err)
	}
	now := code(t, op.TOTPSecret, c.now())
	p, gen, err := signIn(s, t, op, now, home)
	if err != nil || p.Role != access.Operator || p.Tenant != 0 || p.Name != "Pat Person" || gen != 1 {
		t.Fatalf("%+v, %d, %v", p, gen, err)
	}
	if _, _, err := signIn(s, t, op, now, home); !errors.Is(err, ErrSignIn) {
		t.Errorf("the same code again: %v", err)
	}
	if _, _, err := signIn(s, t, op, code(t, op.TOTPSecret, c.now().Add(-30*time.Second)), home); !errors.Is(err, ErrSignIn) {
		t.Errorf("an older code after a newer one: %v", err)
	}
	if _, _, err := signIn(s, t, op, code(t, op.TOTPSecret, c.now().Add(30*time.Second)), home); err != nil {
		t.Errorf("a code of a clock that is ahead: %v", err)
	}
	c.add(time.Hour)
	for name, wrong := range map[string]func() error{
		"password": func() error { _, err := s.CheckPassword(ctx, op.Email, op.Password+"x", home); return err },
		"address":  func() error { _, err := s.CheckPassword(ctx, "nobody@example.org", op.Password, home); return err },
		"id":       func() error { _, err := s.CheckPassword(ctx, op.UserID, op.Password, home); return err },
		"empty":    func() error { _, err := s.CheckPassword(ctx, "", "", home); return err },
		"nobody":   func() error { _, _, err := s.CheckCode(ctx, "", now, home); return err },
		"ghost":    func() error { _, _, err := s.CheckCode(ctx, "ghost", now, home); return err },
		"code":     func() error { _, _, err := signIn(s, t, op, "000000", home); return err },
		"no code":  func() error { _, _, err := signIn(s, t, op, "", home); return err },
		"stale": func() error {
			_, _, err := signIn(s, t, op, code(t, op.TOTPSecret, c.now().Add(-90*time.Second)), home)
			return err
		},
	} {
		if err := s.reset(ctx, op.Email); err != nil {
			t.Fatal(err)
		}
		if err := wrong(); !errors.Is(err, ErrSignIn) {
			t.Errorf("%s: %v", name, err)
		}
	}
	trail, err := s.Trail(ctx, national, 0, 10)
	if err != nil || len(trail) != 3 || trail[0].Action != "signin" || trail[0].Detail != "from 192.0.2.10" || trail[2].Action != "person.create" {
		t.Errorf("%+v, %v", trail, err)
	}
}

// reset forgets failures, for tests.
func (s *Store) reset(ctx context.Context, _ string) error {
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM sign_in_failures")
		return err
	})
}

// The same code from twenty browsers at once lets one in.
func TestCodeOnce(t *testing.T) {
	s, c := newStore(t)
	op := create(t, s, "op@example.org", access.Operator, 0)
	id, err := s.CheckPassword(t.Context(), op.Email, op.Password, home)
	if err != nil {
		t.Fatal(err)
	}
	now := code(t, op.TOTPSecret, c.now())
	var wg sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for range 20 {
		wg.Go(func() {
			_, _, err := s.CheckCode(t.Context(), id, now, home)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				in++
			}
		})
	}
	wg.Wait()
	if in != 1 {
		t.Errorf("%d got in", in)
	}
}

// Somebody guesses without end from elsewhere; the operator still gets in from
// where they always do, and from a new place after a quarter of an hour.
func TestLockout(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	op := create(t, s, "op@example.org", access.Operator, 0)
	if _, _, err := signIn(s, t, op, code(t, op.TOTPSecret, c.now()), home); err != nil {
		t.Fatal(err)
	}
	locks, wrong := 0, 0
	for i := range 40 {
		_, err := s.CheckPassword(ctx, op.Email, "guess", away)
		switch {
		case errors.Is(err, ErrLocked):
			locks++
		case errors.Is(err, ErrSignIn):
			wrong++
		default:
			t.Fatal(i, err)
		}
	}
	if wrong != freeForAccount+1 {
		t.Errorf("%d guesses were heard, %d held back", wrong, locks)
	}
	if _, err := s.CheckPassword(ctx, op.Email, op.Password, away); !errors.Is(err, ErrLocked) {
		t.Errorf("right password while locked: %v", err)
	}
	c.add(time.Minute)
	if _, _, err := signIn(s, t, op, code(t, op.TOTPSecret, c.now()), home); err != nil {
		t.Errorf("the operator at home: %v", err)
	}
	// The pauses grow, to a quarter of an hour and no further.
	var pause time.Duration
	for range 12 {
		pause = 0
		for {
			_, err := s.CheckPassword(ctx, op.Email, "guess", away)
			if errors.Is(err, ErrSignIn) {
				break
			}
			if !errors.Is(err, ErrLocked) {
				t.Fatal(err)
			}
			c.add(time.Second * 5)
			pause += time.Second * 5
		}
	}
	if pause != maxLock {
		t.Errorf("the last pause was %s", pause)
	}
	c.add(maxLock)
	if _, _, err := signIn(s, t, op, code(t, op.TOTPSecret, c.now()), "203.0.113.200"); err != nil {
		t.Errorf("the operator from a new place, later: %v", err)
	}
	// An address without an account answers the same.
	heard := 0
	for range 20 {
		if _, err := s.CheckPassword(ctx, "nobody@example.org", "guess", "203.0.113.77"); errors.Is(err, ErrSignIn) {
			heard++
		} else if !errors.Is(err, ErrLocked) {
			t.Fatal(err)
		}
	}
	if heard != freeForAccount+1 {
		t.Errorf("an unknown address was heard %d times", heard)
	}
	// One place, many accounts.
	heard = 0
	for i := range 50 {
		if _, err := s.CheckPassword(ctx, fmt.Sprintf("p%d@example.org", i), "guess", fmt.Sprintf("[2001:db8:9:9::%x]:99", i)); errors.Is(err, ErrSignIn) {
			heard++
		} else if !errors.Is(err, ErrLocked) {
			t.Fatal(err)
		}
	}
	if heard != freeForPlace+1 {
		t.Errorf("one /64 was heard %d times", heard)
	}
	// A reset unlocks.
	c.add(25 * time.Hour)
	for range 10 {
		if _, err := s.CheckPassword(ctx, op.Email, "guess", away); !errors.Is(err, ErrSignIn) && !errors.Is(err, ErrLocked) {
			t.Fatal(err)
		}
	}
	if op, err := s.Reset(ctx, root, op.UserID); err != nil {
		t.Error(err)
	} else if _, _, err := signIn(s, t, op, code(t, op.TOTPSecret, c.now()), away); err != nil {
		t.Errorf("after a reset: %v", err)
	}
	if err := s.Prune(ctx); err != nil {
		t.Error(err)
	}
}

// Times for an address with and without an account must not differ by what an
// attacker can measure: both compute one argon2id digest.
func TestUnknownAddressCostsTheSame(t *testing.T) {
	s, _ := newStore(t)
	op := create(t, s, "op@example.org", access.Operator, 0)
	took := func(email string) time.Duration {
		best := time.Hour
		for range 5 {
			start := time.Now()
			if _, err := s.CheckPassword(t.Context(), email, "guess", home); !errors.Is(err, ErrSignIn) {
				t.Fatal(err)
			}
			best = min(best, time.Since(start))
			if err := s.reset(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
		}
		return best
	}
	known, unknown := took(op.Email), took("nobody@example.org")
	if known > 3*unknown || unknown > 3*known {
		t.Errorf("known %s, unknown %s", known, unknown)
	}
}

func TestPrincipalAndSessionsEnd(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	a := create(t, s, "a@example.org", access.Operator, 0)
	b := create(t, s, "b@example.org", access.Member, 1)
	by, gen, err := signIn(s, t, a, code(t, a.TOTPSecret, c.now()), home)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Principal(ctx, b.UserID, 1)
	if err != nil || p.Role != access.Member || p.Tenant != 1 || p.Email != "b@example.org" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := s.Principal(ctx, "ghost", 1); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	if err := s.SetDisabled(ctx, p, a.UserID, true); !errors.Is(err, access.ErrDenied) {
		t.Errorf("a member disabled an operator: %v", err)
	}
	if err := s.SetDisabled(ctx, by, a.UserID, true); !errors.Is(err, ErrInvalid) {
		t.Errorf("the last operator: %v", err)
	}
	if err := s.SetDisabled(ctx, by, b.UserID, true); err != nil {
		t.Error(err)
	}
	if _, err := s.Principal(ctx, b.UserID, 1); !errors.Is(err, ErrEnded) {
		t.Errorf("disabled: %v", err)
	}
	if _, err := s.CheckPassword(ctx, b.Email, b.Password, home); !errors.Is(err, ErrSignIn) {
		t.Errorf("disabled: %v", err)
	}
	if err := s.SetDisabled(ctx, by, b.UserID, false); err != nil {
		t.Error(err)
	}
	if _, err := s.Principal(ctx, b.UserID, 1); !errors.Is(err, ErrEnded) {
		t.Errorf("an old session came back to life: %v", err)
	}
	if _, err := s.ChangePassword(ctx, a.UserID, "wrong", "correct horse battery", home); !errors.Is(err, ErrSignIn) {
		t.Error(err)
	}
	gen2, err := s.ChangePassword(ctx, a.UserID, a.Password, "correct horse battery", home)
	if err != nil || gen2 != gen+1 {
		t.Errorf("%d, %v", gen2, err)
	}
	if _, err := s.Principal(ctx, a.UserID, gen); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	if _, err := s.Principal(ctx, a.UserID, gen2); err != nil {
		t.Error(err)
	}
	if gen3, err := s.EndSessions(ctx, a.UserID); err != nil || gen3 != gen2+1 {
		t.Error(gen3, err)
	}
	if _, err := s.Principal(ctx, a.UserID, gen2); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
}

func TestInvitation(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	member := access.Principal{UserID: "m", Role: access.Member, Tenant: 1}
	for name, tc := range map[string]struct {
		by   access.Principal
		i    Invitation
		want error
	}{
		"operator":           {root, Invitation{Name: "Hetty Head", Email: "Head@School.example", Role: access.Member, Tenant: 1}, nil},
		"colleague":          {member, Invitation{Name: "Cole", Email: "cole@school.example", Role: access.Member, Tenant: 1}, nil},
		"other organisation": {member, Invitation{Name: "Cole", Email: "cole2@school.example", Role: access.Member, Tenant: 2}, access.ErrDenied},
		"higher role":        {member, Invitation{Name: "Cole", Email: "cole3@school.example", Role: access.Operator}, access.ErrDenied},
		"analyst":            {access.Principal{UserID: "a", Role: access.Analyst}, Invitation{Name: "Cole", Email: "cole4@school.example", Role: access.Analyst}, access.ErrDenied},
		"nobody":             {access.Principal{Role: access.Operator}, Invitation{Name: "Cole", Email: "cole5@school.example", Role: access.Analyst}, access.ErrDenied},
		"no organisation":    {root, Invitation{Name: "Cole", Email: "cole6@school.example", Role: access.Member}, ErrInvalid},
		"analyst's tenant":   {root, Invitation{Name: "Cole", Email: "cole7@school.example", Role: access.Analyst, Tenant: 1}, ErrInvalid},
		"address":            {root, Invitation{Name: "Cole", Email: "cole", Role: access.Analyst}, ErrInvalid},
		"header":             {root, Invitation{Name: "Co\r\nBcc: x", Email: "x@school.example", Role: access.Analyst}, ErrInvalid},
		"role":               {root, Invitation{Name: "Cole", Email: "cole@x.example", Role: "king"}, ErrInvalid},
		"ghost tenant":       {root, Invitation{Name: "Cole", Email: "cole@x.example", Role: access.Member, Tenant: 99}, ErrNotFound},
	} {
		if _, _, err := s.Invite(ctx, tc.by, tc.i); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	secret, expires, err := s.Invite(ctx, root, Invitation{Name: "Ivy Invited", Email: "ivy@school.example", Role: access.Member, Tenant: 1})
	if err != nil || expires != c.now().Add(InvitationLife) {
		t.Fatal(expires, err)
	}
	i, err := s.Invitation(ctx, secret)
	if err != nil || i.Organisation != "Ashgrove School" || i.Email != "ivy@school.example" {
		t.Errorf("%+v, %v", i, err)
	}
	if _, err := s.Invitation(ctx, secret+"x"); !errors.Is(err, ErrInvitation) {
		t.Error(err)
	}
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Tocsin", AccountName: "ivy@school.example", SecretSize: 20})
	if err != nil {
		t.Fatal(err)
	}
	const good = "correct horse battery"
	now := code(t, key.Secret(), c.now())
	if err := s.Accept(ctx, secret, "short", key.Secret(), now); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if err := s.Accept(ctx, secret, good, key.Secret(), "000000"); !errors.Is(err, ErrCode) {
		t.Error(err)
	}
	if err := s.Accept(ctx, secret, good, "A", now); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if err := s.Accept(ctx, secret, good, key.Secret(), now); err != nil {
		t.Fatal(err)
	}
	if err := s.Accept(ctx, secret, good, key.Secret(), now); !errors.Is(err, ErrInvitation) {
		t.Errorf("twice: %v", err)
	}
	if _, _, err := s.Invite(ctx, root, Invitation{Name: "Ivy", Email: "IVY@school.example", Role: access.Member, Tenant: 1}); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	id, err := s.CheckPassword(ctx, "ivy@school.example", good, home)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.CheckCode(ctx, id, now, home); !errors.Is(err, ErrSignIn) {
		t.Errorf("the code of the enrolment was good twice: %v", err)
	}
	c.add(30 * time.Second)
	ivy, _, err := signIn(s, t, Credentials{Email: "ivy@school.example", Password: good}, code(t, key.Secret(), c.now()), home)
	if err != nil || ivy.Tenant != 1 {
		t.Errorf("%+v, %v", ivy, err)
	}
	late, _, err := s.Invite(ctx, root, Invitation{Name: "Late", Email: "late@school.example", Role: access.Member, Tenant: 1})
	if err != nil {
		t.Fatal(err)
	}
	c.add(InvitationLife)
	if _, err := s.Invitation(ctx, late); !errors.Is(err, ErrInvitation) {
		t.Error(err)
	}
	for _, tc := range []struct {
		scope access.Scope
		want  int
	}{{national, 1}, {access.Only(1), 1}, {access.Only(2), 0}, {access.Scope{}, 0}} {
		if l, err := s.List(ctx, tc.scope); err != nil || len(l) != tc.want {
			t.Errorf("%v: %v, %v", tc.scope, l, err)
		}
	}
	if l, err := s.Trail(ctx, access.Only(2), 0, 10); err != nil || len(l) != 0 {
		t.Errorf("%v, %v", l, err)
	}
	if n, err := s.Name(ctx, ivy.UserID); err != nil || n != "Ivy Invited" {
		t.Error(n, err)
	}
}

func TestCheckPassword(t *testing.T) {
	for password, ok := range map[string]bool{
		"correct horse battery": true, "Zażółć gęślą jaźń!": true, "x9$kPq2vLw7z": true,
		"short": false, "aaaaaaaaaaaaaaaa": false, "abababababab": false, "password1234": false, "Passw0rdPassw0rd": false, "hettyhead1234": false, "ashgrove2026!": false,
		"qwertyqwerty12": false, strings.Repeat("abcdefg ", 40): false, "\xff\xfe\xfdabcdefghijkl": false,
	} {
		if err := CheckPassword(password, "hetty@ashgrove.example", "Hetty Head"); (err == nil) != ok || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", password, err)
		}
	}
}

// The same password typed composed and decomposed.
func TestUnicodePassword(t *testing.T) {
	h := newHasher()
	d, err := h.make(t.Context(), "caf\u00e9 au lait ok")
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := h.check(t.Context(), d, "cafe\u0301 au lait ok"); !ok || err != nil {
		t.Error(ok, err)
	}
	for _, bad := range []string{"$argon2id$v=19$m=99999999,t=2,p=1$AAAA$AAAA", "$2y$10$x", "x"} {
		if ok, err := h.check(t.Context(), bad, "x"); ok || err == nil {
			t.Errorf("%s: %v, %v", bad, ok, err)
		}
	}
}

// A flood of sign-ins is turned away rather than given the memory.
func TestFlood(t *testing.T) {
	h := newHasher()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	busy := 0
	for range argonAtOnce { // hold the slots
		h.slots <- struct{}{}
	}
	for range argonWaiting + 20 {
		wg.Go(func() {
			_, err := h.make(ctx, "x")
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, ErrBusy) {
				if busy++; busy == 20 {
					cancel()
				}
			} else if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	cancel()
	if busy != 20 {
		t.Errorf("%d were turned away", busy)
	}
}

func TestWrongSealKey(t *testing.T) {
	s, c := newStore(t)
	op := create(t, s, "op@example.org", access.Operator, 0)
	other, err := New(s.db, Options{Key: [32]byte{8}, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := signIn(other, t, op, code(t, op.TOTPSecret, c.now()), home); err == nil || !strings.Contains(err.Error(), "restore it") {
		t.Error(err)
	}
	if _, err := New(s.db, Options{}); err == nil {
		t.Error("no key was accepted")
	}
}

func TestSessions(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	ss := NewSessions(s.db)
	if err := ss.CommitCtx(ctx, "token", []byte("data"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if b, ok, err := ss.Find("token"); !ok || err != nil || string(b) != "data" {
		t.Errorf("%q, %v, %v", b, ok, err)
	}
	var n int
	if err := s.db.Read().NewRaw("SELECT count(*) FROM sessions WHERE token_hash = CAST('token' AS BLOB)").Scan(ctx, &n); err != nil || n != 0 {
		t.Errorf("the token is in the database: %v", err)
	}
	if err := ss.Commit("token", []byte("new"), time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := ss.Find("token"); ok || err != nil {
		t.Error("an expired session was found")
	}
	if err := ss.Delete("token"); err != nil {
		t.Error(err)
	}
	if err := ss.Delete("ghost"); err != nil {
		t.Error(err)
	}
}

func TestPlace(t *testing.T) {
	for in, want := range map[string]string{"192.0.2.1:99": "192.0.2.1", "192.0.2.1": "192.0.2.1", "[2001:db8:1:2:3::4]:5": "2001:db8:1:2::/64", "::ffff:192.0.2.1": "192.0.2.1", "": "unknown", "@": "unknown"} {
		if got := place(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func BenchmarkPassword(b *testing.B) {
	h := newHasher()
	for b.Loop() {
		if _, err := h.make(b.Context(), "correct horse battery"); err != nil {
			b.Fatal(err)
		}
	}
}
