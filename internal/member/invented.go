package member

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
)

// MarkInvented notes that the figures of a member from one instant to another
// (UTC nanoseconds, half open) are invented, as those of a demonstration are.
// Spans of one member grow together.
func (s *Store) MarkInvented(ctx context.Context, scope access.Scope, by string, tenant event.TenantID, fromNS, toNS int64) error {
	if fromNS <= 0 || toNS <= fromNS {
		return fmt.Errorf("%w: an invented span needs a start and a later end", ErrInvalid)
	}
	if _, err := s.Organisation(ctx, scope, tenant); err != nil {
		return err
	}
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.NewRaw("INSERT INTO invented (tenant, from_ns, to_ns) VALUES (?, ?, ?) ON CONFLICT (tenant) DO UPDATE SET from_ns = min(from_ns, excluded.from_ns), to_ns = max(to_ns, excluded.to_ns)",
			tenant, fromNS, toNS).Exec(ctx)
		if err != nil {
			return err
		}
		detail := time.Unix(0, fromNS).UTC().Format(time.DateOnly) + " to " + time.Unix(0, toNS).UTC().Format(time.DateOnly)
		return db.Audit(ctx, tx, s.now(), by, "member.invented", "invented figures", tenant, detail)
	})
	if err != nil {
		return fmt.Errorf("marking figures as invented: %w", err)
	}
	return nil
}

// Invented says whether some of a member's figures between two instants (UTC
// nanoseconds, half open) are invented. Whoever shows them must say so.
func (s *Store) Invented(ctx context.Context, tenant event.TenantID, fromNS, toNS int64) (bool, error) {
	var n int
	err := s.db.Read().NewRaw("SELECT count(*) FROM invented WHERE tenant = ? AND from_ns < ? AND to_ns > ?", tenant, toNS, fromNS).Scan(ctx, &n)
	if err != nil && !db.NotFound(err) {
		return false, fmt.Errorf("asking whether figures are invented: %w", err)
	}
	return n > 0, nil
}
