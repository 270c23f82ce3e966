package alert

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
)

// Facet is how many alerts a filter would leave if it were set to Value.
type Facet struct {
	Value string `json:"value"`
	Label string `json:"label"` // for people; the organisation's name
	Count int64  `json:"count"`
}

// Facets are the counts beside the queue, each under the other filters' values.
// An alert with two of several chosen techniques counts twice. Text is not
// taken into account: the counts are of what the other filters leave.
type Facets struct {
	Views     []Facet `json:"views"`
	Severity  []Facet `json:"severity"` // gravest first
	Family    []Facet `json:"family"`   // most frequent first, as are those below
	Technique []Facet `json:"technique"`
	Sector    []Facet `json:"sector"`
	Tenant    []Facet `json:"tenant"` // at most 50
}

// Facets counts a scope's alerts along each dimension of the filter.
func (s *Store) Facets(ctx context.Context, scope access.Scope, f Filter) (Facets, error) {
	if err := f.check(); err != nil {
		return Facets{}, err
	}
	if len(f.Tenants) > 0 {
		scope = scope.Narrow(f.Tenants...)
	}
	var out Facets
	err := s.db.View(ctx, func(ctx context.Context, tx bun.IDB) error {
		q := query{Filter: f, scope: scope, tx: tx}
		for _, v := range []string{ViewOpen, ViewUnassigned, ViewMine, ViewEscalated, ViewClosed, ViewSuppressed} {
			if v == ViewMine && f.Me == "" {
				continue
			}
			vq := q
			vq.View, vq.Text = v, ""
			n, err := vq.total(ctx)
			if err != nil {
				return err
			}
			out.Views = append(out.Views, Facet{v, v, n})
		}
		tenants, all := scope.Tenants()
		if !all && len(tenants) == 0 {
			return nil
		}
		if f.View == ViewMine {
			return q.mine(ctx, &out)
		}
		var err error
		if out.Severity, err = q.facet(ctx, "severity", "c.severity", ""); err != nil {
			return err
		}
		if out.Family, err = q.facet(ctx, "family", "c.family", ""); err != nil {
			return err
		}
		if out.Technique, err = q.facet(ctx, "technique", "c.technique", ""); err != nil {
			return err
		}
		if _, all := scope.Tenants(); all {
			out.Sector, err = q.facet(ctx, "sector", "c.sector", "")
		} else {
			out.Sector, err = q.facet(ctx, "sector", "COALESCE(o.sector, '')", "LEFT JOIN tenants AS o ON o.id = c.tenant")
		}
		if err != nil {
			return err
		}
		out.Tenant, err = q.facet(ctx, "tenant", "c.tenant", "")
		return err
	})
	if err != nil {
		return Facets{}, fmt.Errorf("counting the queue: %w", err)
	}
	return out, nil
}

func (q *query) facet(ctx context.Context, dim, column, join string) ([]Facet, error) {
	sel := q.counts(column+", sum(c.n)", dim).GroupExpr(column).Having("sum(c.n) > 0")
	if join != "" {
		sel = sel.Join(join)
	}
	if dim == "severity" {
		sel = sel.OrderExpr("1 DESC")
	} else {
		sel = sel.OrderExpr("2 DESC, 1").Limit(50)
	}
	return q.scanFacet(ctx, dim, sel)
}

func (q *query) scanFacet(ctx context.Context, dim string, sel *bun.SelectQuery) ([]Facet, error) {
	rows, err := sel.Rows(ctx)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Facet
	for rows.Next() {
		var f Facet
		if err := rows.Scan(&f.Value, &f.Count); err != nil {
			return nil, err
		}
		f.Label = f.Value
		if dim == "severity" {
			var n Severity
			if _, err := fmt.Sscan(f.Value, &n); err == nil {
				f.Value = n.String()
				f.Label = f.Value
			}
		}
		out = append(out, f)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if dim == "tenant" {
		for i := range out {
			if out[i].Value == "0" {
				out[i].Label = "Several members"
				continue
			}
			err := q.tx.QueryRowContext(ctx, "SELECT name FROM tenants WHERE id = ?", out[i].Value).Scan(&out[i].Label)
			if err != nil && !db.NotFound(err) {
				return nil, err
			}
		}
	}
	return out, nil
}

// mine counts along the dimensions on the rows themselves: one person's open
// alerts are few.
func (q *query) mine(ctx context.Context, out *Facets) error {
	for _, d := range []struct {
		dim, column, join string
		to                *[]Facet
	}{
		{"severity", "a.severity", "", &out.Severity}, {"family", "a.family", "", &out.Family}, {"sector", "a.sector", "", &out.Sector}, {"tenant", "a.tenant", "", &out.Tenant},
		{"technique", "k.technique", "JOIN alert_techniques AS k ON k.alert = a.num", &out.Technique},
	} {
		sub := *q
		switch d.dim {
		case "severity":
			sub.Severity = nil
		case "family":
			sub.Family = nil
		case "sector":
			sub.Sector = nil
		case "technique":
			sub.Technique = nil
		}
		// Named, or the planner walks the million by the column it groups by.
		sel := sub.where(q.tx.NewSelect().TableExpr("alerts AS a INDEXED BY alerts_assignee").ColumnExpr(d.column + ", count(*)")).Where("a.open = 1").GroupExpr(d.column).OrderExpr("2 DESC, 1").Limit(50)
		if d.join != "" {
			sel = sel.Join(d.join)
		}
		list, err := q.scanFacet(ctx, d.dim, sel)
		if err != nil {
			return err
		}
		*d.to = list
	}
	return nil
}

// OpenCounts counts a scope's open alerts by severity, from the counts.
func (s *Store) OpenCounts(ctx context.Context, scope access.Scope) (map[Severity]int64, error) {
	out := map[Severity]int64{}
	if tenants, all := scope.Tenants(); !all && len(tenants) == 0 {
		return out, nil
	}
	q := query{Filter: Filter{View: ViewOpen}, scope: scope, tx: s.db.Read()}
	list, err := q.facet(ctx, "severity", "c.severity", "")
	if err != nil {
		return nil, fmt.Errorf("counting the open alerts: %w", err)
	}
	for _, x := range list {
		sev, err := ParseSeverity(x.Value)
		if err != nil {
			return nil, err
		}
		out[sev] = x.Count
	}
	return out, nil
}

// Unanswered counts a scope's open alerts that nobody at the member has dealt with, by severity, on the rows themselves: for one member,
// whose open alerts are few.
func (s *Store) Unanswered(ctx context.Context, scope access.Scope) (map[Severity]int64, error) {
	q := query{Filter: Filter{View: ViewOpen}, scope: scope, tx: s.db.Read()}
	rows, err := q.where(s.db.Read().NewSelect().TableExpr("alerts AS a").ColumnExpr("a.severity, count(*)")).
		Where("a.open = 1 AND a.acknowledged_ns = 0").GroupExpr("a.severity").Rows(ctx)
	if err != nil {
		return nil, fmt.Errorf("counting the open alerts nobody has answered: %w", err)
	}
	defer rows.Close()
	out := map[Severity]int64{}
	for rows.Next() {
		var sev Severity
		var n int64
		if err := rows.Scan(&sev, &n); err != nil {
			return nil, fmt.Errorf("counting the open alerts nobody has answered: %w", err)
		}
		out[sev] = n
	}
	return out, rows.Err()
}

// Between counts the alerts that a scope's members got in a span of hub time, by
// family, for reports.
func (s *Store) Between(ctx context.Context, scope access.Scope, from, to int64) ([]Facet, error) {
	q := query{Filter: Filter{View: ViewAll}, scope: scope, tx: s.db.Read()}
	sel := q.where(s.db.Read().NewSelect().TableExpr("alerts AS a").ColumnExpr("a.family, count(*)")).
		Where("a.created_ns >= ? AND a.created_ns < ?", from, to).Where("a.state <> 'suppressed'").GroupExpr("a.family").OrderExpr("2 DESC, 1")
	return q.scanFacet(ctx, "family", sel)
}
