package people

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
)

// How guessing is slowed: so many failures are free, each further one doubles
// the lock, which never lasts longer than maxLock. A day without failures
// forgets them.
const (
	freeForAccount = 5
	freeForPlace   = 30
	firstLock      = 15 * time.Second
	maxLock        = 15 * time.Minute
	forgetAfter    = 24 * time.Hour
	knownFor       = 60 * 24 * time.Hour // how long a place counts as one's own
)

// subjects are what a failure from a place against an account counts for.
type subjects struct {
	account string // the account, from anywhere it does not sign in from; or with this place alone
	place   string
}

func (s *Store) subjects(ctx context.Context, tx bun.IDB, email, remote string) (subjects, error) {
	at := place(remote)
	sub := subjects{account: accountKey(email), place: "place:" + at}
	var n int
	err := tx.QueryRowContext(ctx, "SELECT count(*) FROM sign_in_places x JOIN people p ON p.id = x.person WHERE p.email = ? AND x.place = ? AND x.last_ns > ?",
		strings.TrimSpace(email), at, s.now()-int64(knownFor)).Scan(&n)
	if n > 0 {
		sub.account += "@" + at
	}
	return sub, err
}

// locked says whether sign-ins are held back.
func (s *Store) locked(ctx context.Context, tx bun.IDB, sub subjects) error {
	var until int64
	if err := tx.QueryRowContext(ctx, "SELECT COALESCE(max(until_ns), 0) FROM sign_in_failures WHERE subject IN (?, ?)", sub.account, sub.place).Scan(&until); err != nil {
		return fmt.Errorf("signing in: %w", err)
	}
	if until > s.now() {
		return ErrLocked
	}
	return nil
}

// failed counts a failure.
func (s *Store) failed(ctx context.Context, email, remote string) error {
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		sub, err := s.subjects(ctx, tx, email, remote)
		if err != nil {
			return err
		}
		now := s.now()
		for subject, free := range map[string]int{sub.account: freeForAccount, sub.place: freeForPlace} {
			var n int
			var updated int64
			err := tx.QueryRowContext(ctx, "SELECT failures, updated_ns FROM sign_in_failures WHERE subject = ?", subject).Scan(&n, &updated)
			if err != nil && !db.NotFound(err) {
				return err
			}
			if updated < now-int64(forgetAfter) {
				n = 0
			}
			n++
			until := int64(0)
			if over := n - free; over > 0 {
				lock := maxLock
				if over <= 6 {
					lock = min(maxLock, firstLock<<(over-1))
				}
				until = now + int64(lock)
				if lock == maxLock || over == 1 {
					if err := audit(ctx, tx, Entry{AtNS: now, Action: "signin.locked", Object: subject, Detail: fmt.Sprintf("%d failures, last from %s", n, place(remote))}); err != nil {
						return err
					}
				}
			}
			if _, err := tx.NewRaw("INSERT INTO sign_in_failures (subject, failures, until_ns, updated_ns) VALUES (?, ?, ?, ?) ON CONFLICT (subject) DO UPDATE SET failures = excluded.failures, until_ns = excluded.until_ns, updated_ns = excluded.updated_ns",
				subject, n, until, now).Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("signing in: %w", err)
	}
	return nil
}

// unlock forgets an account's failures, from everywhere.
func (s *Store) unlock(ctx context.Context, tx bun.IDB, email string) error {
	key := accountKey(email)
	_, err := tx.NewRaw("DELETE FROM sign_in_failures WHERE subject = ? OR (subject > ? AND subject < ?)", key, key+"@", key+"A").Exec(ctx)
	return err
}

// CheckPassword is the first step of signing in. It returns the account's id if
// address and password fit, ErrSignIn if not, ErrLocked while further tries are
// held back. It costs the same for an address without an account.
func (s *Store) CheckPassword(ctx context.Context, email, password, remote string) (userID string, err error) {
	email = strings.ToLower(strings.TrimSpace(email))
	if len(email) > 200 {
		email = email[:200]
	}
	sub, err := s.subjects(ctx, s.db.Read(), email, remote)
	if err != nil {
		return "", fmt.Errorf("signing in: %w", err)
	}
	if err := s.locked(ctx, s.db.Read(), sub); err != nil {
		return "", err
	}
	r, err := s.find(ctx, s.db.Read(), email)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", fmt.Errorf("signing in: %w", err)
	}
	if r.Email != email { // found by id, which is no way to sign in
		r = row{}
	}
	ok, err := s.hash.check(ctx, r.Password, password)
	if err != nil {
		return "", fmt.Errorf("signing in: %w", err)
	}
	if !ok || r.Disabled || len(r.TOTPSecret) == 0 {
		if err := s.failed(ctx, email, remote); err != nil {
			return "", err
		}
		return "", ErrSignIn
	}
	return r.ID, nil
}

// CheckCode is the second step. userID is what CheckPassword returned, "" if it
// returned ErrSignIn: then this fails too. A code is good once: for its half
// minute and the ones beside it, and never again, also after a restart. It
// returns who signed in and the generation to give to Principal.
func (s *Store) CheckCode(ctx context.Context, userID, code, remote string) (access.Principal, int64, error) {
	var r row
	if userID != "" {
		err := s.db.Read().NewSelect().Model(&r).Where("p.id = ?", userID).Scan(ctx)
		if err != nil && !db.NotFound(err) {
			return access.Principal{}, 0, fmt.Errorf("signing in: %w", err)
		}
	}
	if r.ID == "" || r.Disabled {
		return access.Principal{}, 0, ErrSignIn
	}
	sub, err := s.subjects(ctx, s.db.Read(), r.Email, remote)
	if err != nil {
		return access.Principal{}, 0, fmt.Errorf("signing in: %w", err)
	}
	if err := s.locked(ctx, s.db.Read(), sub); err != nil {
		return access.Principal{}, 0, err
	}
	secret, err := s.seal.open(r.TOTPSecret, r.ID)
	if err != nil {
		return access.Principal{}, 0, err
	}
	step, ok := s.codeStep(secret, code, r.TOTPStep)
	if !ok {
		if err := s.failed(ctx, r.Email, remote); err != nil {
			return access.Principal{}, 0, err
		}
		return access.Principal{}, 0, ErrSignIn
	}
	taken := false
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		taken = false
		now := s.now()
		// Compare and set: of two that come with the same code, one gets in.
		res, err := tx.NewRaw("UPDATE people SET totp_step = ?, last_sign_in_ns = ? WHERE id = ? AND totp_step < ? AND generation = ? AND disabled = 0", step, now, r.ID, step, r.Generation).Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			taken = true
			return err
		}
		if _, err := tx.NewRaw("DELETE FROM sign_in_failures WHERE subject IN (?, ?)", sub.account, accountKey(r.Email)+"@"+place(remote)).Exec(ctx); err != nil {
			return err
		}
		if _, err := tx.NewRaw("INSERT INTO sign_in_places (person, place, last_ns) VALUES (?, ?, ?) ON CONFLICT (person, place) DO UPDATE SET last_ns = excluded.last_ns", r.ID, place(remote), now).Exec(ctx); err != nil {
			return err
		}
		return audit(ctx, tx, Entry{AtNS: now, Who: r.ID, Action: "signin", Object: r.ID, Tenant: r.Tenant, Detail: "from " + place(remote)})
	})
	if err != nil {
		return access.Principal{}, 0, fmt.Errorf("signing in: %w", err)
	}
	if taken {
		return access.Principal{}, 0, ErrSignIn
	}
	return r.principal(), r.Generation, nil
}

// EndSessions ends all sessions of an account.
func (s *Store) EndSessions(ctx context.Context, id string) error {
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.NewRaw("UPDATE people SET generation = generation + 1 WHERE id = ?", id).Exec(ctx)
		return err
	})
}

// Prune forgets ended sessions, old failures and invitations.
func (s *Store) Prune(ctx context.Context) error {
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		now := s.now()
		for _, q := range []struct {
			sql    string
			before int64
		}{
			{"DELETE FROM sessions WHERE expires_ns < ?", now},
			{"DELETE FROM sign_in_failures WHERE updated_ns < ?", now - int64(forgetAfter)},
			{"DELETE FROM sign_in_places WHERE last_ns < ?", now - int64(knownFor)},
			{"DELETE FROM invitations WHERE expires_ns < ?", now - int64(90*24*time.Hour)},
		} {
			if _, err := tx.NewRaw(q.sql, q.before).Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}
