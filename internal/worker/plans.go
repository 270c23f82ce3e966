package worker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/db"
	"tocsin/internal/event"
)

// ErrHeld says that another worker holds the shard.
var ErrHeld = errors.New("the shard is held by another worker")

// ErrFenced says that another worker has taken the shard over: this one must stop at once.
var ErrFenced = errors.New("the shard was taken over by another worker")

// Lease is the right to work on a shard. Every write names its fence.
type Lease struct {
	Shard    string
	Holder   string
	Fence    int64
	Position uint64 // everything up to here is done
	Planned  int64  // number of the last plan
}

// Plan is what a worker is about to do: these messages, with these versions, stored as of this instant. It is durable before
// the first effect and never changes, so that a redo makes the same rows under the same token.
type Plan struct {
	Number      int64
	First, Last uint64 // bus sequences, inclusive; the feed's messages between them are the plan's
	Messages    int
	Digest      [32]byte
	Ingested    int64
	Decoder     string
	Enricher    string
}

// Head is where a stream stands.
type Head struct {
	Stream    event.StreamID
	Tenant    event.TenantID
	Collector string
	Lane      string
	Seq       uint64
	Batches   uint64
	Events    uint64
	Dead      uint64
}

// Plans is the workers' durable memory in the scheme's database. Every method is one transaction, durable on return, and safe
// for concurrent use.
type Plans struct{ db *db.DB }

// NewPlans uses the tables worker_*.
func NewPlans(d *db.DB) *Plans { return &Plans{d} }

// Acquire takes the shard if it is free, expired, or held under the same name: the name of a hub's worker stays the same, so
// that a restarted hub does not wait for its own lease to expire. The fence rises each time.
func (p *Plans) Acquire(ctx context.Context, shard, holder string, now time.Time, ttl time.Duration) (Lease, error) {
	l := Lease{Shard: shard, Holder: holder}
	err := p.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		var (
			other string
			until int64
		)
		l.Fence, l.Position, l.Planned = 0, 0, 0
		err := tx.QueryRowContext(ctx, "SELECT holder, fence, until_ns, position, planned FROM worker_leases WHERE shard = ?", shard).Scan(&other, &l.Fence, &until, &l.Position, &l.Planned)
		switch {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return err
		case other != holder && until > now.UnixNano():
			return fmt.Errorf("%w: %s holds %s for %s more", ErrHeld, other, shard, time.Duration(until-now.UnixNano()).Round(time.Second))
		}
		l.Fence++
		_, err = db.Bound(tx).ExecContext(ctx, "INSERT INTO worker_leases (shard, holder, fence, until_ns) VALUES (?, ?, ?, ?) ON CONFLICT (shard) DO UPDATE SET holder = excluded.holder, fence = excluded.fence, until_ns = excluded.until_ns",
			shard, holder, l.Fence, now.Add(ttl).UnixNano())
		return err
	})
	if err != nil {
		return Lease{}, fmt.Errorf("take the worker's lease: %w", err)
	}
	return l, nil
}

// guard runs a statement that must change exactly the lease's row, which it does only while the fence is current.
func guard(ctx context.Context, tx bun.IDB, l Lease, set string, args ...any) error {
	res, err := db.Bound(tx).ExecContext(ctx, "UPDATE worker_leases SET "+set+" WHERE shard = ? AND fence = ?", append(args, l.Shard, l.Fence)...)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	if n != 1 {
		return ErrFenced
	}
	return nil
}

// Renew extends the lease.
func (p *Plans) Renew(ctx context.Context, l Lease, until time.Time) error {
	return p.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		return guard(ctx, tx, l, "until_ns = ?", until.UnixNano())
	})
}

// Rewind forgets position and pending plans, because the bus they speak of is gone. Heads and dead letters stay.
func (p *Plans) Rewind(ctx context.Context, l Lease) error {
	return p.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		if err := guard(ctx, tx, l, "position = 0"); err != nil {
			return err
		}
		return forgetBus(ctx, tx, l.Shard)
	})
}

// forgetBus forgets the pending plans, and gives the dead letters other numbers: those of a new bus begin at 1 again.
func forgetBus(ctx context.Context, tx bun.IDB, shard string) error {
	if _, err := db.Bound(tx).ExecContext(ctx, "DELETE FROM worker_plans WHERE shard = ? AND done_ns = 0", shard); err != nil {
		return err
	}
	_, err := db.Bound(tx).ExecContext(ctx, "UPDATE worker_dead SET bus_seq = (SELECT min(0, min(bus_seq)) FROM worker_dead WHERE shard = ?) - bus_seq WHERE shard = ? AND bus_seq > 0", shard, shard)
	return err
}

// Release gives the shard up.
func (p *Plans) Release(ctx context.Context, l Lease) error { return p.Renew(ctx, l, time.Unix(0, 0)) }

// Pending lists the plans that were begun and not done, in order.
func (p *Plans) Pending(ctx context.Context, shard string) ([]Plan, error) {
	rows, err := p.db.Read().DB.QueryContext(ctx, "SELECT number, first, last, messages, digest, ingested_ns, decoder, enricher FROM worker_plans WHERE shard = ? AND done_ns = 0 ORDER BY number", shard)
	if err != nil {
		return nil, fmt.Errorf("read the pending plans: %w", err)
	}
	defer rows.Close()
	var out []Plan
	for rows.Next() {
		var pl Plan
		var digest []byte
		if err := rows.Scan(&pl.Number, &pl.First, &pl.Last, &pl.Messages, &digest, &pl.Ingested, &pl.Decoder, &pl.Enricher); err != nil {
			return nil, fmt.Errorf("read the pending plans: %w", err)
		}
		copy(pl.Digest[:], digest)
		out = append(out, pl)
	}
	return out, rows.Err()
}

// Record makes a plan durable. It must carry the number after the last.
func (p *Plans) Record(ctx context.Context, l Lease, pl Plan) error {
	return p.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		// The compare-and-set: the fence is current and nobody else has made this number.
		res, err := db.Bound(tx).ExecContext(ctx, "UPDATE worker_leases SET planned = ? WHERE shard = ? AND fence = ? AND planned = ?", pl.Number, l.Shard, l.Fence, pl.Number-1)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n != 1 {
			return ErrFenced
		}
		_, err = db.Bound(tx).ExecContext(ctx, "INSERT INTO worker_plans (shard, number, fence, first, last, messages, digest, ingested_ns, decoder, enricher) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			l.Shard, pl.Number, l.Fence, pl.First, pl.Last, pl.Messages, pl.Digest[:], pl.Ingested, pl.Decoder, pl.Enricher)
		return err
	})
}

// Done marks the plan as done and moves position, heads and counts along, all or nothing.
func (p *Plans) Done(ctx context.Context, l Lease, pl Plan, heads []Head, dead []Dead, tried []Tried, at int64) error {
	return p.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		if err := guard(ctx, tx, l, "position = max(position, ?)", pl.Last); err != nil {
			return err
		}
		res, err := db.Bound(tx).ExecContext(ctx, "UPDATE worker_plans SET done_ns = ? WHERE shard = ? AND number = ? AND done_ns = 0", at, l.Shard, pl.Number)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return nil // done before: its answer was lost
		}
		for _, h := range heads {
			if _, err := db.Bound(tx).ExecContext(ctx, "INSERT INTO worker_heads (stream, tenant, collector, lane, seq, batches, events, dead, at_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (stream) DO UPDATE SET"+
				" seq = max(seq, excluded.seq), batches = batches + excluded.batches, events = events + excluded.events, dead = dead + excluded.dead, at_ns = excluded.at_ns",
				h.Stream[:], h.Tenant, h.Collector, h.Lane, h.Seq, h.Batches, h.Events, h.Dead, at); err != nil {
				return err
			}
		}
		for _, d := range dead {
			if err := d.insert(ctx, tx, l.Shard, at); err != nil {
				return err
			}
		}
		for _, t := range tried {
			if err := t.note(ctx, tx); err != nil {
				return err
			}
		}
		_, err = db.Bound(tx).ExecContext(ctx, "DELETE FROM worker_plans WHERE shard = ? AND number < ? AND done_ns != 0", l.Shard, pl.Number-1000)
		return err
	})
}

// HeadsOf gives the last stored sequence of each of these streams that has one.
func (p *Plans) HeadsOf(ctx context.Context, streams []event.StreamID) (map[event.StreamID]uint64, error) {
	out := make(map[event.StreamID]uint64, len(streams))
	for _, s := range streams {
		var seq uint64
		err := p.db.Read().DB.QueryRowContext(ctx, "SELECT seq FROM worker_heads WHERE stream = ?", s[:]).Scan(&seq)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the streams' heads: %w", err)
		}
		out[s] = seq
	}
	return out, nil
}

// Stored is what one collector has in the store, by the workers' own count.
type Stored struct {
	Tenant                event.TenantID
	Collector             string
	Batches, Events, Dead uint64
	LastSeen              int64 // UTC nanoseconds of the newest batch's storage
}

// StoredByCollector lists every collector.
func (p *Plans) StoredByCollector(ctx context.Context) ([]Stored, error) {
	rows, err := p.db.Read().DB.QueryContext(ctx, "SELECT tenant, collector, sum(batches), sum(events), sum(dead), max(at_ns) FROM worker_heads GROUP BY tenant, collector ORDER BY tenant, collector")
	if err != nil {
		return nil, fmt.Errorf("count what is stored: %w", err)
	}
	defer rows.Close()
	var out []Stored
	for rows.Next() {
		var s Stored
		if err := rows.Scan(&s.Tenant, &s.Collector, &s.Batches, &s.Events, &s.Dead, &s.LastSeen); err != nil {
			return nil, fmt.Errorf("count what is stored: %w", err)
		}
		out = append(out, s)
	}
	return out, rows.Err()
}
