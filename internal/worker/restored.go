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
// again; what was put aside of that is forgotten, for it will be found again. Of what was counted as stored a head has lost every event
// of the batches after it, so those that were put aside are given back to it. No worker may run on them.
func (p *Plans) SetBack(ctx context.Context, heads []Head) error {
	return p.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		for _, h := range heads {
			var aside uint64
			if err := tx.QueryRowContext(ctx, "SELECT COALESCE(sum(events), 0) FROM worker_dead WHERE stream = ? AND seq > ?", h.Stream[:], h.Seq).Scan(&aside); err != nil {
				return fmt.Errorf("set a stream's head back: %w", err)
			}
			if _, err := tx.ExecContext(ctx, "DELETE FROM worker_dead WHERE stream = ? AND seq > ?", h.Stream[:], h.Seq); err != nil {
				return fmt.Errorf("set a stream's head back: %w", err)
			}
			h.Dead, h.Events = h.Dead-min(aside, h.Dead), h.Events+aside
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
		return forgetBus(ctx, tx, shard)
	})
}

// Skip says that a shard's worker has nothing to do on the bus up to a sequence, and forgets its pending plans: what of that is to be stored
// is put on the bus again, behind it. No worker may run on it.
func (p *Plans) Skip(ctx context.Context, shard string, seq uint64) error {
	return p.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		if _, err := tx.ExecContext(ctx, "UPDATE worker_leases SET position = max(position, ?) WHERE shard = ?", seq, shard); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM worker_plans WHERE shard = ? AND done_ns = 0", shard)
		return err
	})
}
