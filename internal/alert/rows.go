package alert

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/uptrace/bun"

	"tocsin/internal/event"
)

// counted is what decides in which counts an alert stands.
type counted struct {
	tenant     event.TenantID
	sector     string
	state      string
	escalated  bool
	severity   Severity
	family     string
	techniques []string
}

func (a *Alert) counted() *counted {
	return &counted{a.Tenant, a.Sector, a.State, a.EscalatedNS > 0, a.Severity, a.Family, slices.Clone(a.Details.Techniques)}
}

type countKey struct {
	tenant    int64
	sector    string
	state     string
	escalated bool
	severity  Severity
	family    string
	technique string
}

type detRow struct {
	bun.BaseModel `bun:"table:alert_detections"`
	Digest        []byte
	Alert         int64
	Rule          string
	Count         int64
	LastNS        int64 `bun:"last_ns"`
	AtNS          int64 `bun:"at_ns"`
	Plan          string
}

type activityRow struct {
	bun.BaseModel `bun:"table:alert_activity"`
	ID            int64 `bun:"id,pk,autoincrement"`
	Alert         int64
	AtNS          int64 `bun:"at_ns"`
	Actor         string
	Name          string
	Kind          string
	Text          string
	Shared        bool
	of            *touched
}

// chunkSize bounds the rows one statement names, and so its text.
const chunkSize = 200

// each runs a query with its one list of values, a chunk at a time.
func each[T any](ctx context.Context, tx bun.IDB, q string, values []T, row func(scan func(...any) error) error) error {
	for chunk := range slices.Chunk(values, chunkSize) {
		rows, err := tx.QueryContext(ctx, q, bun.List(chunk))
		if err != nil {
			return err
		}
		for rows.Next() && err == nil {
			err = row(rows.Scan)
		}
		if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
			return err
		}
	}
	return nil
}

var updateList = []string{"rev", "sector", "state", "open", "severity", "score", "assignee", "escalated_ns", "acknowledged_ns", "first_ns", "last_ns", "updated_ns", "closed_ns",
	"verdict", "title", "source", "user", "host", "count", "detections", "events", "late", "site", "notices", "noticed_ns", "noticed_count", "due_ns", "body"}

type groupRow struct {
	bun.BaseModel `bun:"table:alert_groups"`
	Grp           []byte
	Alert         int64
}

type wordsRow struct {
	bun.BaseModel `bun:"table:alert_words"`
	Rowid         int64
	Text          string
}

type techniqueRow struct {
	bun.BaseModel `bun:"table:alert_techniques"`
	Technique     string
	Alert         int64
}

type eventRow struct {
	bun.BaseModel `bun:"table:alert_events"`
	Alert         int64
	N             int64
	Stream        []byte
	Seq           int64
	Idx           int64
}

// store writes the alerts touched and what hangs on them.
func (w *work) store(ctx context.Context) error {
	var alerts []*Alert
	var groups []groupRow
	var words []wordsRow
	var stale, trim []int64
	var techs []techniqueRow
	var events []eventRow
	var dets []detRow
	for _, t := range w.order {
		alerts = append(alerts, &t.a)
		if t.moved {
			groups = append(groups, groupRow{Grp: t.group, Alert: t.a.Num})
		}
		if terms := t.a.words(w.tenants[t.a.Tenant].name); terms != t.oldTerms {
			if t.old != nil {
				stale = append(stale, t.a.Num)
			}
			words = append(words, wordsRow{Rowid: t.a.Num, Text: terms})
		}
		now := t.a.counted()
		var had []string
		if t.old != nil {
			had = t.old.techniques
			w.count(t.old, -1)
		}
		w.count(now, 1)
		for _, tech := range now.techniques {
			if !slices.Contains(had, tech) {
				techs = append(techs, techniqueRow{Technique: tech, Alert: t.a.Num})
			}
		}
		for i, id := range t.events {
			if n := t.firstN + int64(i); n < keepFirst || n >= t.a.Events-keepLast {
				events = append(events, eventRow{Alert: t.a.Num, N: n, Stream: bytes.Clone(id.Stream[:]), Seq: int64(id.Seq), Idx: int64(id.Index)})
			}
		}
		if len(t.events) > 0 && t.a.Events > keepFirst+keepLast {
			trim = append(trim, t.a.Num)
		}
		for i := range t.pending {
			t.pending[i].Alert = t.a.Num
		}
		dets = append(dets, t.pending...)
	}
	for chunk := range slices.Chunk(alerts, chunkSize) { // new ones and changed ones alike
		q := w.tx.NewInsert().Model(&chunk).On("CONFLICT (num) DO UPDATE")
		for _, c := range updateList {
			q = q.Set("? = excluded.?", bun.Ident(c), bun.Ident(c))
		}
		if _, err := q.Exec(ctx); err != nil {
			return err
		}
	}
	for chunk := range slices.Chunk(groups, chunkSize) {
		if _, err := w.tx.NewInsert().Model(&chunk).On("CONFLICT (grp) DO UPDATE").Set("alert = excluded.alert").Exec(ctx); err != nil {
			return err
		}
	}
	if len(stale) > 0 {
		if _, err := w.tx.NewRaw("DELETE FROM alert_words WHERE rowid IN (?)", bun.List(stale)).Exec(ctx); err != nil {
			return err
		}
	}
	if len(trim) > 0 {
		if _, err := w.tx.NewRaw("DELETE FROM alert_events WHERE alert IN (?) AND n >= ? AND n < (SELECT events FROM alerts WHERE num = alert_events.alert) - ?", bun.List(trim), keepFirst, keepLast).Exec(ctx); err != nil {
			return err
		}
	}
	return errors.Join(insert(ctx, w.tx, words), insert(ctx, w.tx, techs), insert(ctx, w.tx, events), insert(ctx, w.tx, dets))
}

// insert writes rows, many to a statement.
func insert[T any](ctx context.Context, tx bun.IDB, rows []T, without ...string) error {
	for chunk := range slices.Chunk(rows, chunkSize) {
		if _, err := tx.NewInsert().Model(&chunk).ExcludeColumn(without...).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) count(c *counted, by int64) {
	k := countKey{tenant: int64(c.tenant), state: c.state, escalated: c.escalated, severity: c.severity, family: c.family}
	of := []countKey{k, k, k}
	of[1].tenant = allTenants
	of[2].tenant, of[2].sector = ofSector, c.sector
	for _, k := range of {
		w.deltas[k] += by
		for _, tech := range c.techniques {
			k.technique = tech
			w.deltas[k] += by
		}
	}
	k.severity, k.family = anySeverity, ""
	w.deltas[k] += by
}

func (w *work) writeCounts(ctx context.Context) error {
	type row struct {
		bun.BaseModel `bun:"table:alert_counts,alias:c"`
		Tenant        int64
		Sector        string
		State         string
		Escalated     bool
		Severity      int
		Family        string
		Technique     string
		N             int64
	}
	var rows []row
	for k, n := range w.deltas {
		if n != 0 {
			rows = append(rows, row{Tenant: k.tenant, Sector: k.sector, State: k.state, Escalated: k.escalated, Severity: int(k.severity), Family: k.family, Technique: k.technique, N: n})
		}
	}
	for chunk := range slices.Chunk(rows, chunkSize) {
		if _, err := w.tx.NewInsert().Model(&chunk).On("CONFLICT (tenant, sector, technique, state, escalated, severity, family) DO UPDATE").Set("n = c.n + excluded.n").Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}
