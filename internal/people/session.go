package people

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

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

// CommitCtx stores a session's data.
func (s *Sessions) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.NewRaw("INSERT INTO sessions (token_hash, data, expires_ns) VALUES (?, ?, ?) ON CONFLICT (token_hash) DO UPDATE SET data = excluded.data, expires_ns = excluded.expires_ns",
			tokenHash(token), b, expiry.UnixNano()).Exec(ctx)
		return err
	})
}

// DeleteCtx ends a session.
func (s *Sessions) DeleteCtx(ctx context.Context, token string) error {
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.NewRaw("DELETE FROM sessions WHERE token_hash = ?", tokenHash(token)).Exec(ctx)
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
	_, err := tx.NewRaw("INSERT INTO audit (at_ns, who, action, object, tenant, detail) VALUES (?, ?, ?, ?, ?, ?)", e.AtNS, e.Who, e.Action, e.Object, e.Tenant, e.Detail).Exec(ctx)
	return err
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
