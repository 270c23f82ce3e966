package people

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
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
	ticketFor      = 15 * time.Minute    // how long a right password waits for its code
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

// attempt counts a try before it is judged, and hands out the ticket that one try of a code needs; ErrLocked when tries are held back.
// Looking and counting are one transaction: of many tries at once no more are heard than one after the other. What is counted does not
// depend on whether the password is right, so neither the count nor the time of the write tells; a completed sign-in takes it back.
func (s *Store) attempt(ctx context.Context, email, remote string) (ticket string, err error) {
	ticket = rand.Text()
	// What is held back already is turned away by reading alone: a flood of tries does not take the database's one writer.
	held, _, err := s.held(ctx, s.db.Read(), email, remote)
	if err != nil {
		return "", fmt.Errorf("signing in: %w", err)
	}
	if held {
		return "", ErrLocked
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		var sub subjects
		if held, sub, err = s.held(ctx, tx, email, remote); err != nil || held {
			return err
		}
		now := s.now()
		for subject, free := range map[string]int{sub.account: freeForAccount, sub.place: freeForPlace} {
			if err := count(ctx, tx, subject, free, now, place(remote)); err != nil {
				return err
			}
		}
		_, err = tx.NewRaw("INSERT INTO sign_in_failures (subject, failures, until_ns, updated_ns) VALUES (?, 0, 0, ?)", "ticket:"+ticket, now).Exec(ctx)
		return err
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("signing in: %w", err)
	case held:
		return "", ErrLocked
	}
	return ticket, nil
}

// held says whether tries of an account from a place are held back.
func (s *Store) held(ctx context.Context, tx bun.IDB, email, remote string) (bool, subjects, error) {
	sub, err := s.subjects(ctx, tx, email, remote)
	if err != nil {
		return false, sub, err
	}
	var until int64
	err = tx.QueryRowContext(ctx, "SELECT COALESCE(max(until_ns), 0) FROM sign_in_failures WHERE subject IN (?, ?)", sub.account, sub.place).Scan(&until)
	return until > s.now(), sub, err
}

// count adds a try to a subject's and holds further ones back when there were too many.
func count(ctx context.Context, tx bun.IDB, subject string, free int, now int64, from string) error {
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
			if err := audit(ctx, tx, Entry{AtNS: now, Action: "signin.locked", Object: subject, Detail: fmt.Sprintf("%d tries, last from %s", n, from)}); err != nil {
				return err
			}
		}
	}
	_, err = tx.NewRaw("INSERT INTO sign_in_failures (subject, failures, until_ns, updated_ns) VALUES (?, ?, ?, ?) ON CONFLICT (subject) DO UPDATE SET failures = excluded.failures, until_ns = excluded.until_ns, updated_ns = excluded.updated_ns",
		subject, n, until, now).Exec(ctx)
	return err
}

// forgive takes back what tries that led to a success counted: the account's own all, the place's one.
func (s *Store) forgive(ctx context.Context, tx bun.IDB, email, remote string) error {
	sub, err := s.subjects(ctx, tx, email, remote)
	if err != nil {
		return err
	}
	if _, err := tx.NewRaw("DELETE FROM sign_in_failures WHERE subject IN (?, ?)", sub.account, accountKey(email)+"@"+place(remote)).Exec(ctx); err != nil {
		return err
	}
	_, err = tx.NewRaw("UPDATE sign_in_failures SET failures = max(0, failures - 1) WHERE subject = ?", sub.place).Exec(ctx)
	return err
}

// unlock forgets an account's failures, from everywhere.
func (s *Store) unlock(ctx context.Context, tx bun.IDB, email string) error {
	key := accountKey(email)
	_, err := tx.NewRaw("DELETE FROM sign_in_failures WHERE subject = ? OR (subject > ? AND subject < ?)", key, key+"@", key+"A").Exec(ctx)
	return err
}

// CheckPassword is the first step of signing in. It returns the ticket for one try of the second step, if address and password fit, and
// ErrSignIn if not: then with a ticket too, which CheckCode refuses at the same cost. ErrLocked while further tries are held back. It
// costs the same for an address without an account.
func (s *Store) CheckPassword(ctx context.Context, email, password, remote string) (ticket string, err error) {
	email = strings.ToLower(strings.TrimSpace(email))
	if len(email) > 200 {
		email = email[:200]
	}
	ticket, err = s.attempt(ctx, email, remote)
	if err != nil {
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
		return "." + ticket, ErrSignIn
	}
	return r.ID + "." + ticket, nil
}

// CheckCode is the second step, with what CheckPassword returned. A ticket is good for one try, of however many come at once, within the
// time that the pages give; a code is good once: for its half minute and the ones beside it, and never again, also after a restart. It
// returns who signed in and the generation to give to Principal.
func (s *Store) CheckCode(ctx context.Context, ticket, code, remote string) (access.Principal, int64, error) {
	userID, secret, _ := strings.Cut(ticket, ".")
	used := true
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		res, err := tx.NewRaw("DELETE FROM sign_in_failures WHERE subject = ? AND updated_ns > ?", "ticket:"+secret, s.now()-int64(ticketFor)).Exec(ctx)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		used = n == 0
		return err
	})
	if err != nil {
		return access.Principal{}, 0, fmt.Errorf("signing in: %w", err)
	}
	if used || userID == "" {
		return access.Principal{}, 0, ErrSignIn
	}
	var r row
	if err := s.db.Read().NewSelect().Model(&r).Where("p.id = ?", userID).Scan(ctx); err != nil && !db.NotFound(err) {
		return access.Principal{}, 0, fmt.Errorf("signing in: %w", err)
	}
	if r.ID == "" || r.Disabled {
		return access.Principal{}, 0, ErrSignIn
	}
	key, err := s.seal.open(r.TOTPSecret, r.ID)
	if err != nil {
		return access.Principal{}, 0, err
	}
	step, ok := s.codeStep(key, code, r.TOTPStep)
	if !ok {
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
		if err := s.forgive(ctx, tx, r.Email, remote); err != nil {
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

// EndSessions ends all sessions of an account and returns the generation that new ones have: whoever asks may give it to their own.
func (s *Store) EndSessions(ctx context.Context, id string) (generation int64, err error) {
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		var tenant event.TenantID
		if err := tx.QueryRowContext(ctx, "UPDATE people SET generation = generation + 1 WHERE id = ? RETURNING generation, tenant", id).Scan(&generation, &tenant); err != nil {
			if db.NotFound(err) {
				return ErrNotFound
			}
			return err
		}
		if _, err := tx.NewRaw("DELETE FROM sessions WHERE person = ?", id).Exec(ctx); err != nil {
			return err
		}
		return audit(ctx, tx, Entry{AtNS: s.now(), Who: id, Action: "person.sign_out_everywhere", Object: id, Tenant: tenant})
	})
	if err != nil {
		return 0, fmt.Errorf("ending an account's sessions: %w", err)
	}
	return generation, nil
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
