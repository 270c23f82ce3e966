package worker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/uptrace/bun"

	"tocsin/internal/event"
)

// Position is the bus sequence up to which a shard's worker has done everything, 0 when it has not begun.
func (p *Plans) Position(ctx context.Context, shard string) (uint64, error) {
	var n uint64
	err := p.db.Read().DB.QueryRowContext(ctx, "SELECT position FROM worker_leases WHERE shard = ?", shard).Scan(&n)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read the worker's position: %w", err)
	}
	return n, nil
}

// Heads lists where every stream stands, with its counts.
func (p *Plans) Heads(ctx context.Context) ([]Head, error) {
	rows, err := p.db.Read().DB.QueryContext(ctx, "SELECT stream, tenant, collector, lane, seq, batches, events, dead FROM worker_heads")
	if err != nil {
		return nil, fmt.Errorf("read the streams' heads: %w", err)
	}
	defer rows.Close()
	var out []Head
	for rows.Next() {
		var h Head
		var stream []byte
		if err := rows.Scan(&stream, &h.Tenant, &h.Collector, &h.Lane, &h.Seq, &h.Batches, &h.Events, &h.Dead); err != nil {
			return nil, fmt.Errorf("read the streams' heads: %w", err)
		}
		h.Stream = event.StreamID(stream)
		out = append(out, h)
	}
	return out, rows.Err()
}

// SetBack says of streams that less is stored than was noted: their heads and counts become those given. The worker then takes what follows
// again. No worker may run on them.
func (p *Plans) SetBack(ctx context.Context, heads []Head) error {
	return p.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		for _, h := range heads {
			if _, err := tx.ExecContext(ctx, "UPDATE worker_heads SET seq = ?, batches = ?, events = ?, dead = ? WHERE stream = ?", h.Seq, h.Batches, h.Events, h.Dead, h.Stream[:]); err != nil {
				return fmt.Errorf("set a stream's head back: %w", err)
			}
		}
		return nil
	})
}

// Begin forgets a shard's position and pending plans, because the bus they speak of is gone. No worker may run on it.
func (p *Plans) Begin(ctx context.Context, shard string) error {
	return p.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		if _, err := tx.ExecContext(ctx, "UPDATE worker_leases SET position = 0 WHERE shard = ?", shard); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM worker_plans WHERE shard = ? AND done_ns = 0", shard)
		return err
	})
}
