package layer

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/db"
	"tocsin/internal/detect/layers"
	"tocsin/internal/event"
)

// Bounds.
const (
	maxOpen  = 10_000 // layers
	keepLine = 100 * 24 * time.Hour
)

// Options for New.
type Options struct {
	Logger *slog.Logger
	Now    func() time.Time // nil: the clock
}

// Store is the layers of a scheme. Any number of goroutines may use it.
type Store struct {
	db  *db.DB
	log *slog.Logger
	now func() time.Time
	set atomic.Pointer[Set]

	mu         sync.Mutex     // held by Refresh
	idle       map[int64]bool // exceptions of which was said that they do nothing
	suppressed atomic.Uint64
}

// New uses the tables rule_*. Until Refresh was called nothing is changed about any rule.
func New(d *db.DB, o Options) *Store {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Store{db: d, log: o.Logger, now: o.Now}
}

// Set is what is in force; nil before the first Refresh. It is cheap: ask for each event.
func (s *Store) Set() *Set { return s.set.Load() }

// Suppressed counts the detections kept back since the start.
func (s *Store) Suppressed() uint64 { return s.suppressed.Load() }

// Add makes a layer. who is a person's id or "system:PART".
func (s *Store) Add(ctx context.Context, who string, l Layer, rules Rules) (Layer, error) {
	now := s.now()
	if err := l.Check(rules, now); err != nil {
		return l, err
	}
	l.ID, l.MadeBy, l.Made, l.Ended, l.EndedBy, l.Hits, l.Last = 0, who, now.UnixNano(), 0, "", 0, 0
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		q := db.Bound(tx)
		if l.Scope == Member {
			var n int
			if err := q.QueryRowContext(ctx, "SELECT COUNT(*) FROM tenants WHERE id = ?", l.Tenant).Scan(&n); err != nil {
				return err
			} else if n == 0 {
				return fmt.Errorf("%w: there is no member %d", ErrNotFound, l.Tenant)
			}
		}
		var same, open int64
		err := q.QueryRowContext(ctx, `SELECT COALESCE(MAX(CASE WHEN kind = ? AND rule = ? AND scope = ? AND region = ? AND tenant = ? AND field = ? AND value = ? THEN id END), 0), COUNT(*)
			FROM rule_layers WHERE ended_ns = 0 AND (expires_ns = 0 OR expires_ns > ?)`, l.Kind, l.Rule, l.Scope, l.Region, l.Tenant, l.Field, l.Value, l.Made).Scan(&same, &open)
		switch {
		case err != nil:
			return err
		case same != 0:
			return fmt.Errorf("%w: layer %d does so already; end it first if you want another reason or end", ErrInvalid, same)
		case open >= maxOpen:
			return fmt.Errorf("%w: there are %d open layers, as many as there may be; end some", ErrInvalid, open)
		}
		res, err := q.ExecContext(ctx, `INSERT INTO rule_layers (kind, rule, title, scope, region, tenant, field, value, level, reason, owner, made_by, made_ns, expires_ns) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
			l.Kind, l.Rule, l.Title, l.Scope, l.Region, l.Tenant, l.Field, l.Value, l.Level, l.Reason, l.Owner, who, l.Made, l.Expires)
		if err != nil {
			return err
		}
		if l.ID, err = res.LastInsertId(); err != nil {
			return err
		}
		return db.Audit(ctx, tx, l.Made, who, "rule layer added", fmt.Sprintf("layer %d", l.ID), l.Tenant, l.Sentence())
	})
	return l, err
}

// End ends a layer before its time.
func (s *Store) End(ctx context.Context, who string, id int64, why string) (Layer, error) {
	var l Layer
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		l = Layer{}
		err := tx.NewSelect().Model(&l).ModelTableExpr("rule_layers AS layer").Where("id = ?", id).Scan(ctx)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%w: there is no layer %d; `tocsin rules layer list` shows them", ErrNotFound, id)
		}
		if err != nil {
			return err
		}
		now := s.now()
		if state := l.State(now); state != "open" {
			return fmt.Errorf("%w: layer %d is %s already", ErrInvalid, id, state)
		}
		l.Ended, l.EndedBy = now.UnixNano(), who
		if _, err := db.Bound(tx).ExecContext(ctx, "UPDATE rule_layers SET ended_ns = ?, ended_by = ? WHERE id = ?", l.Ended, who, id); err != nil {
			return err
		}
		return db.Audit(ctx, tx, l.Ended, who, "rule layer ended", fmt.Sprintf("layer %d", id), l.Tenant, why)
	})
	return l, err
}

// List gives the layers, the newest first; without all the open ones only.
func (s *Store) List(ctx context.Context, all bool) ([]Layer, error) {
	var out []Layer
	q := s.db.Read().NewSelect().Model(&out).ModelTableExpr("rule_layers AS layer").OrderExpr("id DESC").Limit(maxOpen)
	if !all {
		q = q.Where("ended_ns = 0 AND (expires_ns = 0 OR expires_ns > ?)", s.now().UnixNano())
	}
	return out, q.Scan(ctx)
}

// Refresh reads the layers again, writes what was counted, and says which have come to their end. rules are those in force.
func (s *Store) Refresh(ctx context.Context, rules Rules) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	expired, err := s.expire(ctx, now.UnixNano())
	if err != nil {
		return err
	}
	for _, l := range expired {
		s.log.WarnContext(ctx, "an exception or change of a rule has come to its end: the rule works as it is written again", "layer", l.ID, "what", l.Sentence())
	}
	list, err := s.List(ctx, false)
	if err != nil {
		return err
	}
	regions := map[event.TenantID]string{}
	rows, err := db.Bound(s.db.Read()).QueryContext(ctx, "SELECT id, area FROM tenants")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			id   event.TenantID
			area string
		)
		if err := rows.Scan(&id, &area); err != nil {
			return err
		}
		regions[id] = area
	}
	if err := rows.Err(); err != nil {
		return err
	}
	// What the old set counted until now; whoever still holds it, for one event, may count once more there.
	set, idle := layers.NewSet(list, regions, rules), map[int64]bool{}
	for _, l := range set.Idle() {
		if idle[l.ID] = true; !s.idle[l.ID] {
			s.log.ErrorContext(ctx, "an exception does nothing: no rule names its field any more, and there is no room for more names of fields; end the exception, or take out rules that name many fields", "layer", l.ID, "field", l.Field, "what", l.Sentence())
		}
	}
	s.idle = idle
	return s.flush(ctx, s.set.Swap(set))
}

// expire ends what has come to its end.
func (s *Store) expire(ctx context.Context, now int64) (out []Layer, err error) {
	const due = "ended_ns = 0 AND expires_ns <> 0 AND expires_ns <= ?"
	var n int
	if err := db.Bound(s.db.Read()).QueryRowContext(ctx, "SELECT COUNT(*) FROM rule_layers WHERE "+due, now).Scan(&n); err != nil || n == 0 {
		return nil, err
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		out = nil
		if err := tx.NewSelect().Model(&out).ModelTableExpr("rule_layers AS layer").Where(due, now).Scan(ctx); err != nil {
			return err
		}
		for _, l := range out {
			if _, err := db.Bound(tx).ExecContext(ctx, "UPDATE rule_layers SET ended_ns = expires_ns, ended_by = ? WHERE id = ?", layers.ByExpiry, l.ID); err != nil {
				return err
			}
			if err := db.Audit(ctx, tx, now, layers.ByExpiry, "rule layer expired", fmt.Sprintf("layer %d", l.ID), l.Tenant, l.Sentence()); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// flush writes the hits that a set counted in memory. What cannot be written is counted on in the set in force.
func (s *Store) flush(ctx context.Context, set *Set) error {
	if set == nil {
		return nil
	}
	return set.Hits(func(id, n, last int64) error {
		return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
			_, err := db.Bound(tx).ExecContext(ctx, "UPDATE rule_layers SET hits = hits + ?, last_ns = max(last_ns, ?) WHERE id = ?", n, last, id)
			return err
		})
	}, s.Set)
}

// Filter takes out of a plan's detections what layers keep back, writes it down, and gives the rest. It is idempotent by Detection.Key: a
// detection that grows is one line whose count grows.
func (s *Store) Filter(ctx context.Context, dets []event.Detection) ([]event.Detection, error) {
	now := s.now()
	pass, kept, changed := s.Set().Apply(dets, now)
	if len(kept) == 0 && len(changed) == 0 {
		return pass, nil
	}
	fresh := 0
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		fresh = 0
		q := db.Bound(tx)
		hits := map[int64]int{}
		for _, k := range kept {
			d := &k.Detection
			sum := sha256.Sum256([]byte(d.Key))
			var had int
			if err := q.QueryRowContext(ctx, "SELECT COUNT(*) FROM rule_suppressed WHERE digest = ?", sum[:16]).Scan(&had); err != nil {
				return err
			}
			if had == 0 {
				hits[k.Layer]++
				fresh++
			}
			_, err := q.ExecContext(ctx, `INSERT INTO rule_suppressed (digest, layer, tenant, rule, title, level, entity_kind, entity, reason, count, first_ns, last_ns, at_ns) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)
				ON CONFLICT (digest) DO UPDATE SET count = max(count, excluded.count), reason = excluded.reason, last_ns = max(last_ns, excluded.last_ns)`,
				sum[:16], k.Layer, d.Tenant, d.RuleID, d.RuleTitle, d.Level, d.Entity.Kind, d.Entity.Value, d.Reason, d.Count, d.First, d.Last, now.UnixNano())
			if err != nil {
				return err
			}
		}
		for id, n := range changed {
			hits[id] += n
		}
		for id, n := range hits {
			if _, err := q.ExecContext(ctx, "UPDATE rule_layers SET hits = hits + ?, last_ns = max(last_ns, ?) WHERE id = ?", n, now.UnixNano(), id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("writing down what layers of rules kept back: %w", err)
	}
	s.suppressed.Add(uint64(fresh))
	return pass, nil
}

// Line is a detection that was kept back.
type Line struct {
	Layer      int64          `bun:"layer" json:"layer"`
	Tenant     event.TenantID `bun:"tenant" json:"tenant"`
	Rule       string         `bun:"rule" json:"rule"`
	Title      string         `bun:"title" json:"title"`
	Level      string         `bun:"level" json:"level"`
	EntityKind string         `bun:"entity_kind" json:"entity_kind"`
	Entity     string         `bun:"entity" json:"entity"`
	Reason     string         `bun:"reason" json:"reason"`
	Count      int64          `bun:"count" json:"count"`
	First      int64          `bun:"first_ns" json:"first_ns,string"`
	Last       int64          `bun:"last_ns" json:"last_ns,string"`
	At         int64          `bun:"at_ns" json:"at_ns,string"`
}

// Lines lists what was kept back, the newest first; of one layer, or of all (0).
func (s *Store) Lines(ctx context.Context, layer int64, limit int) ([]Line, error) {
	var out []Line
	q := s.db.Read().NewSelect().Model(&out).ModelTableExpr("rule_suppressed AS line").
		Column("layer", "tenant", "rule", "title", "level", "entity_kind", "entity", "reason", "count", "first_ns", "last_ns", "at_ns").OrderExpr("at_ns DESC").Limit(int64(limit))
	if layer != 0 {
		q = q.Where("layer = ?", layer)
	}
	return out, q.Scan(ctx)
}

// Prune forgets lines older than a hundred days. The layers' own counts stay.
func (s *Store) Prune(ctx context.Context) (int64, error) {
	var total int64
	for {
		var n int64
		err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
			res, err := db.Bound(tx).ExecContext(ctx, "DELETE FROM rule_suppressed WHERE digest IN (SELECT digest FROM rule_suppressed WHERE at_ns < ? LIMIT 5000)", s.now().Add(-keepLine).UnixNano())
			if err != nil {
				return err
			}
			n, err = res.RowsAffected()
			return err
		})
		total += n
		if err != nil || n == 0 {
			return total, err
		}
	}
}
