package alert

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
)

// Get returns one alert by its id or reference, or ErrNotFound.
func (s *Store) Get(ctx context.Context, scope access.Scope, id string) (Alert, error) {
	return get(ctx, s.db.Read(), scope, id)
}

func get(ctx context.Context, tx bun.IDB, scope access.Scope, id string) (Alert, error) {
	var a Alert
	id = strings.TrimSpace(id)
	column := "a.id"
	if strings.HasPrefix(strings.ToUpper(id), "AL-") {
		column, id = "a.ref", strings.ToUpper(id)
	}
	err := selectAlerts(tx, &a).Where("? = ?", bun.Safe(column), id).Scan(ctx)
	if db.NotFound(err) || err == nil && !scope.Covers(a.Tenant) {
		return Alert{}, fmt.Errorf("alert %s: %w", clip(id, 60), ErrNotFound)
	}
	return a, err
}

// Events returns the ids of events behind an alert, oldest first: its first
// hundred and its newest hundred.
func (s *Store) Events(ctx context.Context, scope access.Scope, id string) ([]event.ID, error) {
	a, err := s.Get(ctx, scope, id)
	if err != nil {
		return nil, err
	}
	rows, err := s.db.Read().QueryContext(ctx, "SELECT stream, seq, idx FROM alert_events WHERE alert = ? ORDER BY n", a.Num)
	if err != nil {
		return nil, fmt.Errorf("reading the events of alert %s: %w", a.Ref, err)
	}
	defer rows.Close()
	var out []event.ID
	for rows.Next() {
		var stream []byte
		var e event.ID
		if err := rows.Scan(&stream, &e.Seq, &e.Index); err != nil {
			return nil, fmt.Errorf("reading the events of alert %s: %w", a.Ref, err)
		}
		if len(stream) == len(e.Stream) {
			e.Stream = event.StreamID(stream)
			if !slices.Contains(out, e) {
				out = append(out, e)
			}
		}
	}
	return out, rows.Err()
}

// Activity is one line of an alert's history.
type Activity struct {
	ID     int64  `json:"id"`
	AtNS   int64  `json:"at_ns,string"`
	Actor  string `json:"actor"` // user id, "" for the program
	Name   string `json:"name"`  // the person's name at the time
	Kind   string `json:"kind"`  // opened, rule, severity, suppressed, assigned, unassigned, escalated, acknowledged, note, closed, reopened, notice
	Text   string `json:"text"`
	Shared bool   `json:"shared"` // the member may read it
}

// Timeline returns an alert's whole history, oldest first. A scope that is not
// national gets what is shared with the member.
func (s *Store) Timeline(ctx context.Context, scope access.Scope, id string) ([]Activity, error) {
	a, err := s.Get(ctx, scope, id)
	if err != nil {
		return nil, err
	}
	q := "SELECT id, at_ns, actor, name, kind, text, shared FROM alert_activity WHERE alert = ?"
	if !scope.National() {
		q += " AND shared = 1"
	}
	rows, err := s.db.Read().QueryContext(ctx, q+" ORDER BY id", a.Num)
	if err != nil {
		return nil, fmt.Errorf("reading the history of alert %s: %w", a.Ref, err)
	}
	defer rows.Close()
	var out []Activity
	for rows.Next() {
		var x Activity
		if err := rows.Scan(&x.ID, &x.AtNS, &x.Actor, &x.Name, &x.Kind, &x.Text, &x.Shared); err != nil {
			return nil, fmt.Errorf("reading the history of alert %s: %w", a.Ref, err)
		}
		out = append(out, x)
	}
	return out, rows.Err()
}

// Elsewhere says at how many other members the alert's source was seen.
type Elsewhere struct {
	Members int64   `json:"members"` // rounded for a member's own scope
	Known   bool    `json:"known"`   // false: too few to be told
	Alerts  []Alert `json:"alerts"`  // the newest, national scopes only
}

// AlsoSeen looks for alerts about the same source at other members within a day
// around this one. A scope that is not national gets a rounded number at most,
// and that only from five members on.
func (s *Store) AlsoSeen(ctx context.Context, scope access.Scope, id string) (Elsewhere, error) {
	a, err := s.Get(ctx, scope, id)
	if err != nil || a.Source == "" {
		return Elsewhere{}, err
	}
	const day = int64(24 * 3600 * 1e9)
	rows, err := s.db.Read().QueryContext(ctx, "SELECT tenant, max(num) FROM alerts WHERE source = ? AND source <> '' AND last_ns >= ? AND first_ns <= ? AND tenant NOT IN (0, ?) GROUP BY tenant ORDER BY 2 DESC",
		a.Source, a.FirstNS-day, a.LastNS+day, a.Tenant)
	if err != nil {
		return Elsewhere{}, fmt.Errorf("looking for the source of alert %s elsewhere: %w", a.Ref, err)
	}
	defer rows.Close()
	counts := map[event.TenantID]uint64{}
	var newest []position
	for rows.Next() {
		var t event.TenantID
		var num int64
		if err := rows.Scan(&t, &num); err != nil {
			return Elsewhere{}, fmt.Errorf("looking for the source of alert %s elsewhere: %w", a.Ref, err)
		}
		counts[t] = 1
		if len(newest) < 20 {
			newest = append(newest, position{num: num})
		}
	}
	if err := rows.Err(); err != nil {
		return Elsewhere{}, err
	}
	if !scope.National() {
		n, ok := access.Figure(a.Tenant, counts)
		return Elsewhere{Members: int64(n), Known: ok}, nil
	}
	list, err := loadRows(ctx, s.db.Read(), newest)
	return Elsewhere{Members: int64(len(counts)), Known: true, Alerts: list}, err
}

// Beside returns the other open alerts about the same source at the same member, the gravest first, at most limit: what one of them says
// alone may be half of it.
func (s *Store) Beside(ctx context.Context, scope access.Scope, id string, limit int) ([]Alert, error) {
	a, err := s.Get(ctx, scope, id)
	if err != nil || a.Source == "" || a.Tenant == access.Centre {
		return nil, err
	}
	var nums []int64
	if err := s.db.Read().NewRaw("SELECT num FROM (SELECT num, open, tenant, score FROM alerts WHERE source = ? AND source <> '' ORDER BY last_ns DESC LIMIT ?) WHERE open = 1 AND tenant = ? AND num <> ? ORDER BY score DESC, num DESC LIMIT ?",
		a.Source, maxLooked, a.Tenant, a.Num, limit).Scan(ctx, &nums); err != nil {
		return nil, fmt.Errorf("looking for what else the source of alert %s did: %w", a.Ref, err)
	}
	at := make([]position, len(nums))
	for i, n := range nums {
		at[i].num = n
	}
	return loadRows(ctx, s.db.Read(), at)
}
