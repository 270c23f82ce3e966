package alert

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
)

// Span lists the alerts that a scope's members had in a span of time: begun before its end and seen again after its start, the gravest
// first, at most limit of them, without those set aside. total counts all of them. from and to are UTC nanoseconds.
func (s *Store) Span(ctx context.Context, scope access.Scope, from, to int64, limit int) (list []Alert, total int64, err error) {
	if limit <= 0 || limit > 200 {
		limit = 200
	}
	err = s.db.View(ctx, func(ctx context.Context, tx bun.IDB) error {
		list = nil
		q := query{Filter: Filter{View: ViewAll}, scope: scope, tx: tx}
		// Both values of open, so that the index by tenant and time is walked from the span's start on.
		in := func(sel *bun.SelectQuery) *bun.SelectQuery {
			return q.where(sel).Where("a.open IN (0, 1) AND a.last_ns >= ? AND a.created_ns < ? AND a.state <> 'suppressed'", from, to)
		}
		n, err := in(tx.NewSelect().TableExpr("alerts AS a")).Count(ctx)
		if err != nil || n == 0 {
			return err
		}
		total = int64(n)
		at, err := scanPositions(ctx, in(tx.NewSelect().TableExpr("alerts AS a").ColumnExpr("a.num, a.score, a.last_ns")).
			OrderExpr("a.severity DESC, a.score DESC, a.last_ns DESC, a.num DESC").Limit(int64(limit)))
		if err != nil {
			return err
		}
		list, err = loadRows(ctx, tx, at)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("reading the alerts of a span: %w", err)
	}
	return list, total, nil
}
