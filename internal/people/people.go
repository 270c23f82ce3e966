// Package people holds the accounts: passwords, second factors, invitations,
// sessions and the audit trail of who did what.
//
// It reads and writes the database. Passwords are kept as argon2id digests,
// TOTP secrets sealed with a key that is not in the database, session tokens
// and invitations as SHA-256 only. Each change is durable when the call
// returns; a TOTP code, once taken, is taken for good, also after a crash.
//
// Guessing is slowed per account, per place it comes from, and never stopped
// for ever: a lock lasts fifteen minutes at most, and a person who has signed in
// from a place before is counted there on its own, so that somebody guessing
// from elsewhere cannot keep the operator out. An address without an account
// costs and answers the same as one with.
package people

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
)

// Errors a caller decides on; what is returned wraps them.
var (
	ErrSignIn     = errors.New("the address, the password or the code is wrong") // never says which
	ErrLocked     = errors.New("too many wrong attempts: wait a quarter of an hour")
	ErrBusy       = errors.New("too many people sign in at this moment: try again in a few seconds")
	ErrEnded      = errors.New("the session has ended")
	ErrCode       = errors.New("the code does not fit")
	ErrInvitation = errors.New("the invitation is unknown, used or older than seven days")
	ErrExists     = errors.New("there is an account with this address already")
	ErrInvalid    = errors.New("invalid")
	ErrNotFound   = errors.New("not found")
)

// InvitationLife is how long an invitation may be accepted.
const InvitationLife = 7 * 24 * time.Hour

// Options configure a Store.
type Options struct {
	Key    [32]byte // seals TOTP secrets; keys.RecordsKey
	Issuer string   // shown by authenticator apps; default "Tocsin"
	Now    func() time.Time
	Logger *slog.Logger
}

// Store is the accounts. Any number of goroutines may use it.
type Store struct {
	db   *db.DB
	o    Options
	seal sealer
	hash hasher
}

// New returns a Store on an open database.
func New(d *db.DB, o Options) (*Store, error) {
	if o.Key == [32]byte{} {
		return nil, errors.New("people: the key that seals second factors is missing")
	}
	if o.Issuer == "" {
		o.Issuer = "Tocsin"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	seal, err := newSealer(o.Key)
	if err != nil {
		return nil, fmt.Errorf("people: %w", err)
	}
	return &Store{db: d, o: o, seal: seal, hash: newHasher()}, nil
}

func (s *Store) now() int64 { return s.o.Now().UnixNano() }

// Person is an account as lists show it. Times are UTC nanoseconds, 0 is never.
type Person struct {
	ID           string         `json:"id"`
	Name         string         `json:"name"`
	Email        string         `json:"email"`
	Role         access.Role    `json:"role"`
	Tenant       event.TenantID `json:"tenant"`
	Disabled     bool           `json:"disabled"`
	CreatedNS    int64          `json:"created_ns,string"`
	LastSignInNS int64          `json:"last_sign_in_ns,string"`
}

type row struct {
	bun.BaseModel `bun:"table:people,alias:p"`
	ID            string         `bun:"id,pk"`
	Email         string         `bun:"email"`
	Name          string         `bun:"name"`
	Role          access.Role    `bun:"role"`
	Tenant        event.TenantID `bun:"tenant"`
	Password      string         `bun:"password"`
	TOTPSecret    []byte         `bun:"totp_secret"`
	TOTPStep      int64          `bun:"totp_step"`
	Disabled      bool           `bun:"disabled"`
	Generation    int64          `bun:"generation"`
	CreatedNS     int64          `bun:"created_ns"`
	LastSignInNS  int64          `bun:"last_sign_in_ns"`
}

func (r *row) principal() access.Principal {
	return access.Principal{UserID: r.ID, Name: r.Name, Email: r.Email, Role: r.Role, Tenant: r.Tenant}
}

func (r *row) person() Person {
	return Person{ID: r.ID, Name: r.Name, Email: r.Email, Role: r.Role, Tenant: r.Tenant, Disabled: r.Disabled, CreatedNS: r.CreatedNS, LastSignInNS: r.LastSignInNS}
}

// Invitation is what an account is to be. Organisation is filled in when it is
// read.
type Invitation struct {
	Name         string
	Email        string
	Role         access.Role
	Tenant       event.TenantID
	Organisation string
}

// check makes an invitation canonical.
func (i *Invitation) check() error {
	i.Name = strings.TrimSpace(i.Name)
	if n := utf8.RuneCountInString(i.Name); n < 2 || n > 100 || !utf8.ValidString(i.Name) || strings.ContainsFunc(i.Name, unicode.IsControl) {
		return fmt.Errorf("%w: enter the person's name, 2 to 100 characters", ErrInvalid)
	}
	i.Email = strings.ToLower(strings.TrimSpace(i.Email))
	if a, err := mail.ParseAddress(i.Email); err != nil || a.Address != i.Email || len(i.Email) > 200 {
		return fmt.Errorf("%w: %.60q is not an e-mail address", ErrInvalid, i.Email)
	}
	if _, err := access.ParseRole(string(i.Role)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if (i.Role == access.Member) != (i.Tenant != access.Centre) {
		return fmt.Errorf("%w: a member's person belongs to an organisation, operators and analysts to none", ErrInvalid)
	}
	return nil
}

// mayMake says whether a person may give accounts of this kind: operators any,
// members' people to colleagues of their own organisation.
func mayMake(by access.Principal, i *Invitation) error {
	if by.Role == access.Operator && by.UserID != "" || by.Role == access.Member && i.Role == access.Member && by.Tenant == i.Tenant {
		return nil
	}
	return fmt.Errorf("%w: your role does not let you give this account", access.ErrDenied)
}

// Credentials are what a new person is handed, once.
type Credentials struct {
	UserID     string `json:"user_id"`
	Email      string `json:"email"`
	Password   string `json:"password"`
	TOTPSecret string `json:"totp_secret"` // base 32
	OTPAuthURL string `json:"otpauth_url"` // for a QR code
}

// Create makes an account with a random password and second factor, for the
// first operator and for the command line; people are otherwise invited.
func (s *Store) Create(ctx context.Context, by access.Principal, i Invitation) (Credentials, error) {
	if err := i.check(); err != nil {
		return Credentials{}, err
	}
	if err := mayMake(by, &i); err != nil {
		return Credentials{}, err
	}
	r := row{ID: newID(), Email: i.Email, Name: i.Name, Role: i.Role, Tenant: i.Tenant, Generation: 1, CreatedNS: s.now()}
	c, err := s.fresh(ctx, &r)
	if err != nil {
		return Credentials{}, err
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		if err := insert(ctx, tx, &r); err != nil {
			return err
		}
		return audit(ctx, tx, Entry{AtNS: r.CreatedNS, Who: by.UserID, Action: "person.create", Object: r.ID, Tenant: r.Tenant, Detail: string(r.Role) + " " + r.Email})
	})
	if err != nil {
		return Credentials{}, fmt.Errorf("making the account: %w", err)
	}
	return c, nil
}

func insert(ctx context.Context, tx bun.IDB, r *row) error {
	if r.Tenant != access.Centre {
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM tenants WHERE id = ?", r.Tenant).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("organisation %d: %w", r.Tenant, ErrNotFound)
		}
	}
	_, err := tx.NewInsert().Model(r).Exec(ctx)
	if db.Duplicate(err) {
		return ErrExists
	}
	return err
}

// fresh gives an account a new random password and second factor.
func (s *Store) fresh(ctx context.Context, r *row) (Credentials, error) {
	key, err := totp.Generate(totp.GenerateOpts{Issuer: s.o.Issuer, AccountName: r.Email, SecretSize: 20})
	if err != nil {
		return Credentials{}, fmt.Errorf("making a second factor: %w", err)
	}
	password := randomPassword()
	if r.Password, err = s.hash.make(ctx, password); err != nil {
		return Credentials{}, err
	}
	if r.TOTPSecret, err = s.seal.seal(key.Secret(), r.ID); err != nil {
		return Credentials{}, err
	}
	r.TOTPStep = 0
	return Credentials{UserID: r.ID, Email: r.Email, Password: password, TOTPSecret: key.Secret(), OTPAuthURL: key.URL()}, nil
}

// Reset gives an account a new random password and second factor and ends its
// sessions and locks.
func (s *Store) Reset(ctx context.Context, by access.Principal, id string) (Credentials, error) {
	if by.Role != access.Operator || by.UserID == "" {
		return Credentials{}, fmt.Errorf("%w: only operators reset accounts", access.ErrDenied)
	}
	r, err := s.find(ctx, s.db.Read(), id)
	if err != nil {
		return Credentials{}, err
	}
	c, err := s.fresh(ctx, &r)
	if err != nil {
		return Credentials{}, err
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		if _, err := tx.NewRaw("UPDATE people SET password = ?, totp_secret = ?, totp_step = 0, disabled = 0, generation = generation + 1 WHERE id = ?", r.Password, r.TOTPSecret, r.ID).Exec(ctx); err != nil {
			return err
		}
		if err := s.unlock(ctx, tx, r.Email); err != nil {
			return err
		}
		return audit(ctx, tx, Entry{AtNS: s.now(), Who: by.UserID, Action: "person.reset", Object: r.ID, Tenant: r.Tenant})
	})
	if err != nil {
		return Credentials{}, fmt.Errorf("resetting the account: %w", err)
	}
	return c, nil
}

// SetDisabled disables an account, which ends its sessions at once, or enables
// it again. The last operator cannot be disabled.
func (s *Store) SetDisabled(ctx context.Context, by access.Principal, id string, disabled bool) error {
	if by.Role != access.Operator || by.UserID == "" {
		return fmt.Errorf("%w: only operators disable accounts", access.ErrDenied)
	}
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		r, err := s.find(ctx, tx, id)
		if err != nil {
			return err
		}
		if disabled && r.Role == access.Operator {
			var n int
			if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM people WHERE role = 'operator' AND disabled = 0 AND id <> ?", r.ID).Scan(&n); err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("%w: %s is the last operator; make another one first", ErrInvalid, r.Name)
			}
		}
		if _, err := tx.NewRaw("UPDATE people SET disabled = ?, generation = generation + 1 WHERE id = ?", disabled, r.ID).Exec(ctx); err != nil {
			return err
		}
		action := "person.enable"
		if disabled {
			action = "person.disable"
		}
		return audit(ctx, tx, Entry{AtNS: s.now(), Who: by.UserID, Action: action, Object: r.ID, Tenant: r.Tenant})
	})
}

// find finds an account by id or address.
func (s *Store) find(ctx context.Context, tx bun.IDB, id string) (row, error) {
	var r row
	err := tx.NewSelect().Model(&r).Where("p.id = ? OR p.email = ?", id, strings.TrimSpace(id)).Limit(1).Scan(ctx)
	if db.NotFound(err) {
		return r, fmt.Errorf("account %.80s: %w", id, ErrNotFound)
	}
	return r, err
}

// Name returns a person's name, "" when there is no such account.
func (s *Store) Name(ctx context.Context, id string) (string, error) {
	var name string
	err := s.db.Read().QueryRowContext(ctx, "SELECT name FROM people WHERE id = ?", id).Scan(&name)
	if db.NotFound(err) {
		return "", nil
	}
	return name, err
}

// List returns the accounts within a scope by name: those of its members, and
// with a national scope those of the centre too.
func (s *Store) List(ctx context.Context, scope access.Scope) ([]Person, error) {
	tenants, all := scope.Tenants()
	if !all && len(tenants) == 0 {
		return nil, nil
	}
	var rows []row
	q := s.db.Read().NewSelect().Model(&rows).Column("id", "email", "name", "role", "tenant", "disabled", "created_ns", "last_sign_in_ns").OrderExpr("p.name COLLATE NOCASE, p.id")
	if !all {
		q = q.Where("p.tenant IN (?)", bun.List(tenants))
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("listing the accounts: %w", err)
	}
	out := make([]Person, len(rows))
	for i := range rows {
		out[i] = rows[i].person()
	}
	return out, nil
}

// Principal returns who an account is by now. It fails with ErrEnded when the
// account is gone or disabled, or its sessions were ended since generation.
func (s *Store) Principal(ctx context.Context, id string, generation int64) (access.Principal, error) {
	var r row
	err := s.db.Read().NewSelect().Model(&r).Column("id", "email", "name", "role", "tenant", "disabled", "generation").Where("p.id = ?", id).Scan(ctx)
	switch {
	case db.NotFound(err):
		return access.Principal{}, ErrEnded
	case err != nil:
		return access.Principal{}, fmt.Errorf("reading an account: %w", err)
	case r.Disabled || r.Generation != generation:
		return access.Principal{}, ErrEnded
	}
	return r.principal(), nil
}

// Invite makes an invitation and returns its secret, which is handed to the
// person and kept nowhere.
func (s *Store) Invite(ctx context.Context, by access.Principal, i Invitation) (secret string, expires time.Time, err error) {
	if err := i.check(); err != nil {
		return "", time.Time{}, err
	}
	if err := mayMake(by, &i); err != nil {
		return "", time.Time{}, err
	}
	now := s.o.Now()
	expires = now.Add(InvitationLife)
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM people WHERE email = ?", i.Email).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return ErrExists
		}
		if i.Tenant != access.Centre {
			if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM tenants WHERE id = ?", i.Tenant).Scan(&n); err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("organisation %d: %w", i.Tenant, ErrNotFound)
			}
		}
		if secret, err = newInvitation(ctx, tx, i, "", by, now, expires); err != nil {
			return err
		}
		return audit(ctx, tx, Entry{AtNS: now.UnixNano(), Who: by.UserID, Action: "person.invite", Object: i.Email, Tenant: i.Tenant, Detail: string(i.Role)})
	})
	if err != nil {
		return "", time.Time{}, fmt.Errorf("inviting: %w", err)
	}
	return secret, expires, nil
}

// Renew makes an invitation for somebody who has an account and lost password or phone: accepting it chooses both anew and ends all their
// sessions. Until then the account stays as it is. Only operators give one, and only for members' people: the centre's are reset on the
// machine itself.
func (s *Store) Renew(ctx context.Context, by access.Principal, scope access.Scope, id string) (i Invitation, secret string, expires time.Time, err error) {
	if by.Role != access.Operator || by.UserID == "" {
		return i, "", expires, fmt.Errorf("%w: only operators renew accounts", access.ErrDenied)
	}
	r, err := s.find(ctx, s.db.Read(), id)
	if err != nil {
		return i, "", expires, err
	}
	if r.ID != id || r.Tenant == access.Centre || !scope.Covers(r.Tenant) {
		return i, "", expires, fmt.Errorf("account %.80s: %w", id, ErrNotFound)
	}
	if r.Disabled {
		return i, "", expires, fmt.Errorf("%w: the account of %s is disabled; enable it first", ErrInvalid, r.Name)
	}
	i = Invitation{Name: r.Name, Email: r.Email, Role: r.Role, Tenant: r.Tenant}
	now := s.o.Now()
	expires = now.Add(InvitationLife)
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		// One at a time: the newest replaces those that were not used.
		if _, err := tx.NewRaw("UPDATE invitations SET expires_ns = ? WHERE person = ? AND used_ns = 0 AND expires_ns > ?", now.UnixNano(), r.ID, now.UnixNano()).Exec(ctx); err != nil {
			return err
		}
		if secret, err = newInvitation(ctx, tx, i, r.ID, by, now, expires); err != nil {
			return err
		}
		return audit(ctx, tx, Entry{AtNS: now.UnixNano(), Who: by.UserID, Action: "person.renew", Object: r.ID, Tenant: r.Tenant, Detail: r.Email})
	})
	if err != nil {
		return i, "", expires, fmt.Errorf("making a new invitation: %w", err)
	}
	return i, secret, expires, nil
}

// newInvitation records an invitation and returns its secret; person is the account it renews, "" for a new one.
func newInvitation(ctx context.Context, tx bun.IDB, i Invitation, person string, by access.Principal, now, expires time.Time) (secret string, err error) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	secret = base64.RawURLEncoding.EncodeToString(b[:])
	digest := sha256.Sum256([]byte(secret))
	_, err = tx.NewRaw("INSERT INTO invitations (id, secret_hash, email, name, role, tenant, person, created_ns, created_by, expires_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		newID(), digest[:], i.Email, i.Name, string(i.Role), i.Tenant, person, now.UnixNano(), by.UserID, expires.UnixNano()).Exec(ctx)
	return secret, err
}

// Invitation returns what an unused invitation offers, or ErrInvitation.
func (s *Store) Invitation(ctx context.Context, secret string) (Invitation, error) {
	i, _, _, err := s.invitation(ctx, s.db.Read(), secret)
	return i, err
}

// invitation returns what is offered, the invitation's id and the account it renews, "" for a new one.
func (s *Store) invitation(ctx context.Context, tx bun.IDB, secret string) (Invitation, string, string, error) {
	digest := sha256.Sum256([]byte(secret))
	var i Invitation
	var id, person, role string
	var expires, used int64
	err := tx.QueryRowContext(ctx, "SELECT i.id, i.person, i.name, i.email, i.role, i.tenant, i.expires_ns, i.used_ns, COALESCE(t.name, '') FROM invitations i LEFT JOIN tenants t ON t.id = i.tenant WHERE i.secret_hash = ?", digest[:]).
		Scan(&id, &person, &i.Name, &i.Email, &role, &i.Tenant, &expires, &used, &i.Organisation)
	i.Role = access.Role(role)
	switch {
	case db.NotFound(err):
		return Invitation{}, "", "", ErrInvitation
	case err != nil:
		return Invitation{}, "", "", fmt.Errorf("reading an invitation: %w", err)
	case used != 0 || expires <= s.now():
		return Invitation{}, "", "", ErrInvitation
	}
	return i, id, person, nil
}

// Accept makes the account that an invitation offers, or renews the one it is for, with the password the person chose and the second
// factor the page made, proved by a first code. An invitation works once.
func (s *Store) Accept(ctx context.Context, secret, password, totpSecret, code string) error {
	i, _, person, err := s.invitation(ctx, s.db.Read(), secret)
	if err != nil {
		return err
	}
	if err := CheckPassword(password, i.Email, i.Name); err != nil {
		return err
	}
	if err := checkKey(totpSecret); err != nil {
		return err
	}
	step, ok := s.codeStep(totpSecret, code, 0)
	if !ok {
		return ErrCode
	}
	r := row{ID: newID(), Email: i.Email, Name: i.Name, Role: i.Role, Tenant: i.Tenant, Generation: 1, CreatedNS: s.now(), TOTPStep: step}
	if person != "" {
		r.ID = person
	}
	if r.Password, err = s.hash.make(ctx, password); err != nil {
		return err
	}
	if r.TOTPSecret, err = s.seal.seal(totpSecret, r.ID); err != nil {
		return err
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, id, _, err := s.invitation(ctx, tx, secret)
		if err != nil {
			return err
		}
		if person == "" {
			err = insert(ctx, tx, &r)
		} else {
			err = s.renew(ctx, tx, &r)
		}
		if err != nil {
			return err
		}
		if _, err := tx.NewRaw("UPDATE invitations SET used_ns = ? WHERE id = ?", r.CreatedNS, id).Exec(ctx); err != nil {
			return err
		}
		return audit(ctx, tx, Entry{AtNS: r.CreatedNS, Who: r.ID, Action: "person.accept", Object: r.ID, Tenant: r.Tenant, Detail: r.Email})
	})
	if err != nil {
		return fmt.Errorf("accepting the invitation: %w", err)
	}
	return nil
}

// renew gives an account that is there its new password and second factor, and ends its sessions and locks.
func (s *Store) renew(ctx context.Context, tx bun.IDB, r *row) error {
	res, err := tx.NewRaw("UPDATE people SET password = ?, totp_secret = ?, totp_step = ?, generation = generation + 1 WHERE id = ? AND tenant = ? AND disabled = 0", r.Password, r.TOTPSecret, r.TOTPStep, r.ID, r.Tenant).Exec(ctx)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrInvitation) // disabled in the meantime
	}
	if _, err := tx.NewRaw("DELETE FROM sessions WHERE person = ?", r.ID).Exec(ctx); err != nil {
		return err
	}
	return s.unlock(ctx, tx, r.Email)
}

// ChangePassword replaces a password whose holder knows the old one, and ends all the account's sessions. It returns the generation that
// new ones have. Wrong guesses of the old one are held back like those of a sign-in: a session left open is no way to try passwords.
func (s *Store) ChangePassword(ctx context.Context, id, old, password, remote string) (generation int64, err error) {
	r, err := s.find(ctx, s.db.Read(), id)
	if err != nil {
		return 0, err
	}
	if err := CheckPassword(password, r.Email, r.Name); err != nil {
		return 0, err
	}
	if _, err := s.attempt(ctx, r.Email, remote); err != nil {
		return 0, err
	}
	if ok, err := s.hash.check(ctx, r.Password, old); err != nil || !ok {
		return 0, errors.Join(err, ErrSignIn)
	}
	hash, err := s.hash.make(ctx, password)
	if err != nil {
		return 0, err
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		if err := tx.QueryRowContext(ctx, "UPDATE people SET password = ?, generation = generation + 1 WHERE id = ? AND password = ? RETURNING generation", hash, r.ID, r.Password).Scan(&generation); err != nil {
			if db.NotFound(err) {
				return ErrEnded
			}
			return err
		}
		if _, err := tx.NewRaw("DELETE FROM sessions WHERE person = ?", r.ID).Exec(ctx); err != nil {
			return err
		}
		if err := s.forgive(ctx, tx, r.Email, remote); err != nil {
			return err
		}
		return audit(ctx, tx, Entry{AtNS: s.now(), Who: r.ID, Action: "person.password", Object: r.ID, Tenant: r.Tenant})
	})
	return generation, err
}

// ChangeAuthenticator gives an account whose holder knows the password a new second factor, proved by a first code, and ends all its sessions:
// a lost phone then opens nothing any more. It returns the generation that new sessions have. A code that does not fit is ErrCode and costs
// nothing, since whoever sends it chose the key; wrong passwords are held back like those of a sign-in.
func (s *Store) ChangeAuthenticator(ctx context.Context, id, password, totpSecret, code, remote string) (generation int64, err error) {
	r, err := s.find(ctx, s.db.Read(), id)
	if err != nil {
		return 0, err
	}
	if err := checkKey(totpSecret); err != nil {
		return 0, err
	}
	step, ok := s.codeStep(totpSecret, code, 0)
	if !ok {
		return 0, ErrCode
	}
	if _, err := s.attempt(ctx, r.Email, remote); err != nil {
		return 0, err
	}
	if ok, err := s.hash.check(ctx, r.Password, password); err != nil || !ok {
		return 0, errors.Join(err, ErrSignIn)
	}
	sealed, err := s.seal.seal(totpSecret, r.ID)
	if err != nil {
		return 0, err
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		// Not over a sign-in that an operator renewed, or a password that was changed, in the meantime.
		if err := tx.QueryRowContext(ctx, "UPDATE people SET totp_secret = ?, totp_step = ?, generation = generation + 1 WHERE id = ? AND password = ? AND generation = ? AND disabled = 0 RETURNING generation",
			sealed, step, r.ID, r.Password, r.Generation).Scan(&generation); err != nil {
			if db.NotFound(err) {
				return ErrEnded
			}
			return err
		}
		if _, err := tx.NewRaw("DELETE FROM sessions WHERE person = ?", r.ID).Exec(ctx); err != nil {
			return err
		}
		if err := s.forgive(ctx, tx, r.Email, remote); err != nil {
			return err
		}
		return audit(ctx, tx, Entry{AtNS: s.now(), Who: r.ID, Action: "person.authenticator", Object: r.ID, Tenant: r.Tenant})
	})
	return generation, err
}

// checkKey says whether a key of a second factor is whole and long enough.
func checkKey(totpSecret string) error {
	if b, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(totpSecret)); err != nil || len(b) < 16 {
		return fmt.Errorf("%w: the second factor's key is damaged; load the page again", ErrInvalid)
	}
	return nil
}

// codeStep finds the time step a code belongs to, of the one now and those
// beside it, later than after.
func (s *Store) codeStep(secret, code string, after int64) (step int64, ok bool) {
	now := s.o.Now().Unix() / 30
	for _, at := range []int64{now, now - 1, now + 1} {
		want, err := totp.GenerateCodeCustom(secret, time.Unix(at*30, 0), totp.ValidateOpts{Period: 30, Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
		if err != nil {
			return 0, false
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 && at > after {
			step, ok = at, true // go on, so that the time tells nothing
		}
	}
	return step, ok
}

// randomPassword has 26 letters and digits, 130 bits.
func randomPassword() string { return strings.ToLower(rand.Text()) }

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// Place is where a request comes from, for limits: an IPv4 address, an IPv6 /64; "unknown" when remote is no address.
func Place(remote string) string { return place(remote) }

func place(remote string) string {
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		remote = ap.Addr().String()
	}
	a, err := netip.ParseAddr(remote)
	if err != nil {
		return "unknown"
	}
	a = a.Unmap().WithZone("")
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().String()
	}
	return a.String()
}

func accountKey(email string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(strings.TrimSpace(email))))
	return "account:" + hex.EncodeToString(sum[:16])
}
