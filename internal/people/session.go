package people

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
)

// Sessions keeps scs's sessions in the database, so that people stay signed in
// when the hub restarts. Of a token only its SHA-256 is kept: who reads the
// database, or a backup, cannot take a session over.
type Sessions struct{ db *db.DB }

// NewSessions returns the sessions of a database. It is an scs.CtxStore.
func NewSessions(d *db.DB) *Sessions { return &Sessions{d} }

func tokenHash(token string) []byte {
	h := sha256.Sum256([]byte(token))
	return h[:]
}

// FindCtx returns the data of a session that has not ended.
func (s *Sessions) FindCtx(ctx context.Context, token string) (b []byte, found bool, err error) {
	err = s.db.Read().QueryRowContext(ctx, "SELECT data FROM sessions WHERE token_hash = ? AND expires_ns > ?", tokenHash(token), db.Now()).Scan(&b)
	if db.NotFound(err) {
		return nil, false, nil
	}
	return b, err == nil, err
}

// Of what the pages keep in a session, what its list reads: see [Sessions.Of].
const (
	SessionUser       = "user"       // string: id of the account, once both steps are passed
	SessionGeneration = "generation" // int64: of the account at that moment; raising it ends its sessions
	SessionSeen       = "seen"       // int64: when something was last asked for, Unix seconds, to a few minutes
	SessionBegan      = "began"      // int64: when it was signed in, Unix seconds
	SessionPlace      = "place"      // string: where from, as Place says it
	SessionAgent      = "agent"      // string: the browser, in words
)

// CommitCtx stores a session's data. A session that was ended from elsewhere while a request ran is not brought back by its end: an ended
// one stays for a while as a row without data, and such a row is never written again.
func (s *Sessions) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	person := ""
	if _, values, err := (scs.GobCodec{}).Decode(b); err == nil {
		person, _ = values[SessionUser].(string)
	}
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.NewRaw("INSERT INTO sessions (token_hash, data, expires_ns, person) VALUES (?, ?, ?, ?) ON CONFLICT (token_hash) DO UPDATE SET data = excluded.data, expires_ns = excluded.expires_ns, person = excluded.person WHERE length(sessions.data) > 0",
			tokenHash(token), b, expiry.UnixNano(), person).Exec(ctx)
		return err
	})
}

// Session is one of a person's sessions, as its list shows it.
type Session struct {
	ID        string // of the session, which is not its token
	BeganUnix int64  // seconds; 0: begun by an older hub, which did not note it
	SeenUnix  int64  // seconds, to a few minutes
	Place     string
	Agent     string
}

// SessionID is the ID of the session with a token.
func SessionID(token string) string { return hex.EncodeToString(tokenHash(token)) }

// Of returns the sessions of an account that have not ended, the last used first; at most 100. generation is the account's now.
func (s *Sessions) Of(ctx context.Context, person string, generation int64) ([]Session, error) {
	rows, err := s.db.Read().QueryContext(ctx, "SELECT token_hash, data FROM sessions WHERE person = ? AND person <> '' AND expires_ns > ? ORDER BY expires_ns DESC LIMIT 100", person, db.Now())
	if err != nil {
		return nil, fmt.Errorf("reading the sessions: %w", err)
	}
	defer rows.Close()
	var out []Session
	for rows.Next() {
		var hash, data []byte
		if err := rows.Scan(&hash, &data); err != nil {
			return nil, fmt.Errorf("reading the sessions: %w", err)
		}
		_, v, err := (scs.GobCodec{}).Decode(data)
		if err != nil {
			return nil, fmt.Errorf("reading a session: %w", err)
		}
		if g, _ := v[SessionGeneration].(int64); g != generation {
			continue
		}
		x := Session{ID: hex.EncodeToString(hash)}
		x.BeganUnix, _ = v[SessionBegan].(int64)
		x.SeenUnix, _ = v[SessionSeen].(int64)
		x.Place, _ = v[SessionPlace].(string)
		x.Agent, _ = v[SessionAgent].(string)
		out = append(out, x)
	}
	slices.SortStableFunc(out, func(a, b Session) int { return cmp.Compare(b.SeenUnix, a.SeenUnix) })
	return out, rows.Err()
}

// End ends one session of an account; ErrNotFound when it is not one of its.
func (s *Sessions) End(ctx context.Context, person, id string) error {
	hash, err := hex.DecodeString(id)
	if err != nil || person == "" {
		return ErrNotFound
	}
	ended := int64(0)
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		res, err := tx.NewRaw("UPDATE sessions SET data = x'', person = '', expires_ns = ? WHERE token_hash = ? AND person = ?", db.Now(), hash, person).Exec(ctx)
		if err != nil {
			return err
		}
		ended, err = res.RowsAffected()
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("ending a session: %w", err)
	case ended == 0:
		return ErrNotFound
	}
	return nil
}

// DeleteCtx ends a session.
func (s *Sessions) DeleteCtx(ctx context.Context, token string) error {
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.NewRaw("UPDATE sessions SET data = x'', person = '', expires_ns = ? WHERE token_hash = ?", db.Now(), tokenHash(token)).Exec(ctx)
		return err
	})
}

// Find is FindCtx for scs's older interface.
func (s *Sessions) Find(token string) ([]byte, bool, error) {
	return s.FindCtx(context.Background(), token)
}

// Commit is CommitCtx for scs's older interface.
func (s *Sessions) Commit(token string, b []byte, expiry time.Time) error {
	return s.CommitCtx(context.Background(), token, b, expiry)
}

// Delete is DeleteCtx for scs's older interface.
func (s *Sessions) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

// Entry is one line of the audit trail.
type Entry struct {
	ID     int64          `json:"id"`
	AtNS   int64          `json:"at_ns,string"`
	Who    string         `json:"who"` // user id, "collector:id", "system:part", "" when nobody is known
	Action string         `json:"action"`
	Object string         `json:"object"`
	Tenant event.TenantID `json:"tenant"` // 0: the centre's
	Detail string         `json:"detail"`
}

func audit(ctx context.Context, tx bun.IDB, e Entry) error {
	return db.Audit(ctx, tx, e.AtNS, e.Who, e.Action, e.Object, e.Tenant, e.Detail)
}

// Record adds an entry to the audit trail. AtNS 0 means now.
func (s *Store) Record(ctx context.Context, e Entry) error {
	if e.AtNS == 0 {
		e.AtNS = s.now()
	}
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error { return audit(ctx, tx, e) })
}

// Trail returns up to n audit entries within a scope, newest first, with an ID
// lower than before (0: from the newest).
func (s *Store) Trail(ctx context.Context, scope access.Scope, before int64, n int) ([]Entry, error) {
	tenants, all := scope.Tenants()
	if !all && len(tenants) == 0 {
		return nil, nil
	}
	q := s.db.Read().NewSelect().TableExpr("audit AS a").ColumnExpr("a.id, a.at_ns, a.who, a.action, a.object, a.tenant, a.detail").OrderExpr("a.id DESC").Limit(int64(min(max(n, 1), 1000)))
	if !all {
		q = q.Where("a.tenant IN (?)", bun.List(tenants))
	}
	if before > 0 {
		q = q.Where("a.id < ?", before)
	}
	rows, err := q.Rows(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the audit trail: %w", err)
	}
	defer rows.Close()
	var out []Entry
	for rows.Next() {
		var e Entry
		if err := rows.Scan(&e.ID, &e.AtNS, &e.Who, &e.Action, &e.Object, &e.Tenant, &e.Detail); err != nil {
			return nil, fmt.Errorf("reading the audit trail: %w", err)
		}
		out = append(out, e)
	}
	return out, rows.Err()
}
