package alert

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
)

// Views of the queue.
const (
	ViewOpen       = "open"       // the default
	ViewUnassigned = "unassigned" // open and nobody's
	ViewMine       = "mine"       // open and Filter.Me's
	ViewEscalated  = "escalated"  // open and escalated
	ViewClosed     = "closed"
	ViewSuppressed = "suppressed"
	ViewAll        = "all"
)

// Orders of the queue.
const (
	ByRisk   = "risk"   // highest score first, then newest; the default
	ByRecent = "recent" // newest event first
)

// Filter narrows the queue. Empty lists match anything; several values of one
// list match any of them.
type Filter struct {
	View      string
	Order     string
	Me        string // user id for ViewMine
	Severity  []Severity
	Tenants   []event.TenantID
	Family    []string
	Technique []string // T1110 or T1110.003
	Sector    []string
	Text      string // part of title, reference, entity, source, user, host or organisation
	After     string // Page.Next of the page before
	Limit     int    // default 50, at most 200
}

// Page is one page of the queue.
type Page struct {
	Alerts []Alert `json:"alerts"`
	Next   string  `json:"next,omitempty"` // "" on the last page
	Total  int64   `json:"total"`          // alerts the filter matches; -1 when only a search could tell
}

type cursor struct {
	Order string `json:"o"`
	Score int    `json:"s"`
	Last  int64  `json:"l"`
	Num   int64  `json:"n"`
}

// few is how many matches are found and sorted outright rather than by walking
// the queue in its order.
const few = 5000

func (f *Filter) check() error {
	if f.View == "" {
		f.View = ViewOpen
	}
	if f.Order == "" {
		f.Order = ByRisk
	}
	if f.Limit <= 0 {
		f.Limit = 50
	}
	f.Limit = min(f.Limit, 200)
	f.Text = strings.ToLower(strings.TrimSpace(f.Text))
	switch {
	case !slices.Contains([]string{ViewOpen, ViewUnassigned, ViewMine, ViewEscalated, ViewClosed, ViewSuppressed, ViewAll}, f.View):
		return fmt.Errorf("%w: there is no view %q", ErrInvalid, clip(f.View, 40))
	case f.Order != ByRisk && f.Order != ByRecent:
		return fmt.Errorf("%w: there is no order %q", ErrInvalid, clip(f.Order, 40))
	case f.View == ViewMine && f.Me == "":
		return fmt.Errorf("%w: the view of one's own alerts needs to know whose", ErrInvalid)
	case len(f.Text) > 200 || !utf8.ValidString(f.Text):
		return fmt.Errorf("%w: search for at most 200 characters", ErrInvalid)
	case f.Text != "" && utf8.RuneCountInString(f.Text) < 3:
		return fmt.Errorf("%w: search for at least 3 characters", ErrInvalid)
	case len(f.Severity) > 5 || len(f.Family) > 50 || len(f.Technique) > 50 || len(f.Sector) > 50 || len(f.Tenants) > 500:
		return fmt.Errorf("%w: too many values to filter by", ErrInvalid)
	}
	for _, s := range f.Severity {
		if s < Informational || s > Critical {
			return fmt.Errorf("%w: severity %d", ErrInvalid, s)
		}
	}
	return nil
}

// states returns the states of a view.
func (f *Filter) states() []string {
	switch f.View {
	case ViewOpen, ViewMine, ViewEscalated:
		return []string{StateNew, StateAssigned}
	case ViewUnassigned:
		return []string{StateNew}
	case ViewClosed:
		return []string{StateClosed}
	case ViewSuppressed:
		return []string{StateSuppressed}
	}
	return []string{StateNew, StateAssigned, StateClosed, StateSuppressed}
}

// Queue returns one page of a scope's alerts. Walking it while alerts change may
// show one twice or not at all, never one of another scope.
func (s *Store) Queue(ctx context.Context, scope access.Scope, f Filter) (Page, error) {
	if err := f.check(); err != nil {
		return Page{}, err
	}
	if len(f.Tenants) > 0 {
		scope = scope.Narrow(f.Tenants...)
	}
	var page Page
	err := s.db.View(ctx, func(ctx context.Context, tx bun.IDB) error {
		var after *cursor
		if f.After != "" {
			c, err := parseCursor(f.After, f.Order)
			if err != nil {
				return err
			}
			after = &c
		}
		q := query{Filter: f, scope: scope, tx: tx}
		total, err := q.total(ctx)
		if err != nil {
			return err
		}
		page.Total = total
		nums, err := q.page(ctx, total, after)
		if err != nil {
			return err
		}
		more := len(nums) > f.Limit
		nums = nums[:min(len(nums), f.Limit)]
		page.Alerts, err = loadRows(ctx, tx, nums)
		if err != nil {
			return err
		}
		if more && len(page.Alerts) > 0 {
			last := nums[len(nums)-1]
			page.Next = cursor{f.Order, last.score, last.last, last.num}.String()
		}
		return nil
	})
	if err != nil {
		return Page{}, fmt.Errorf("reading the queue: %w", err)
	}
	return page, nil
}

func (c cursor) String() string {
	b, err := json.Marshal(c)
	if err != nil { // numbers and a word always marshal
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(s, order string) (cursor, error) {
	var c cursor
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || c.Order != order {
		return c, fmt.Errorf("%w: the page's mark does not belong to this list; begin at its top", ErrInvalid)
	}
	return c, nil
}

// query is a filter within a scope and a transaction.
type query struct {
	Filter
	scope access.Scope
	tx    bun.IDB
}

// position is an alert's place in the queue.
type position struct {
	num   int64
	score int
	last  int64
}

func (q *query) before(a, b position) bool {
	if q.Order == ByRisk && a.score != b.score {
		return a.score > b.score
	}
	if a.last != b.last {
		return a.last > b.last
	}
	return a.num > b.num
}

// total counts what the filter matches, from the counts alone.
func (q *query) total(ctx context.Context) (int64, error) {
	tenants, all := q.scope.Tenants()
	if !all && len(tenants) == 0 {
		return 0, nil
	}
	if q.Text != "" {
		return -1, nil
	}
	var n int64
	if q.View == ViewMine {
		sel := q.where(q.tx.NewSelect().TableExpr("alerts AS a INDEXED BY alerts_assignee").ColumnExpr("count(*)")).Where("a.open = 1")
		err := sel.Scan(ctx, &n)
		return n, err
	}
	err := q.counts("COALESCE(sum(c.n), 0)", "").Scan(ctx, &n)
	return n, err
}

// counts is a query on the counts under the filter, without the dimension
// named in except.
func (q *query) counts(columns, except string) *bun.SelectQuery {
	sel := q.tx.NewSelect().TableExpr("alert_counts AS c").ColumnExpr(columns).Where("c.state IN (?)", bun.List(q.states()))
	if q.View == ViewEscalated {
		sel = sel.Where("c.escalated = 1")
	} else {
		sel = sel.Where("c.escalated IN (0, 1)") // a list lets the index be used beyond it
	}
	tenants, all := q.scope.Tenants()
	sectors := len(q.Sector) > 0 && except != "sector"
	severity := len(q.Severity) > 0 && except != "severity"
	family := len(q.Family) > 0 && except != "family"
	technique := len(q.Technique) > 0 && except != "technique"
	switch {
	case !all:
		sel = sel.Where("c.tenant IN (?) AND c.sector = ''", bun.List(tenants))
		if sectors {
			sel = sel.Where("c.tenant IN (SELECT id FROM tenants WHERE sector IN (?))", bun.List(q.Sector))
		}
	case except == "tenant":
		sel = sel.Where("c.tenant >= 0")
		if sectors {
			sel = sel.Where("c.tenant IN (SELECT id FROM tenants WHERE sector IN (?))", bun.List(q.Sector))
		}
	case except == "sector":
		sel = sel.Where("c.tenant = ?", ofSector)
	case sectors:
		sel = sel.Where("c.tenant = ? AND c.sector IN (?)", ofSector, bun.List(q.Sector))
	default:
		sel = sel.Where("c.tenant = ? AND c.sector = ''", allTenants)
	}
	switch {
	case except == "technique":
		sel = sel.Where("c.technique <> ''")
	case technique:
		sel = sel.Where("c.technique IN (?)", bun.List(q.Technique))
	default:
		sel = sel.Where("c.technique = ''")
	}
	switch {
	case severity:
		sel = sel.Where("c.severity IN (?)", bun.List(ints(q.Severity)))
	case except == "tenant" && !family && !technique:
		return sel.Where("c.severity = ? AND c.family = ''", anySeverity)
	default:
		sel = sel.Where("c.severity IN (0, 1, 2, 3, 4)")
	}
	if family {
		sel = sel.Where("c.family IN (?)", bun.List(q.Family))
	}
	return sel
}

func ints(s []Severity) []int {
	out := make([]int, len(s))
	for i, v := range s {
		out[i] = int(v)
	}
	return out
}

// where adds the filter on the alerts' own columns, but for order and text.
func (q *query) where(sel *bun.SelectQuery) *bun.SelectQuery {
	tenants, all := q.scope.Tenants()
	switch {
	case all:
	case len(tenants) == 0:
		sel = sel.Where("1 = 0")
	case len(tenants) == 1:
		sel = sel.Where("a.tenant = ?", tenants[0])
	default:
		sel = sel.Where("a.tenant IN (?)", bun.List(tenants))
	}
	switch q.View {
	case ViewUnassigned:
		sel = sel.Where("a.state = 'new'")
	case ViewClosed:
		sel = sel.Where("a.state = 'closed'")
	case ViewSuppressed:
		sel = sel.Where("a.state = 'suppressed'")
	case ViewMine:
		sel = sel.Where("a.assignee = ? AND a.assignee <> ''", q.Me) // as the index says it
	case ViewEscalated:
		sel = sel.Where("a.escalated_ns > 0")
	}
	if len(q.Severity) > 0 {
		sel = sel.Where("a.severity IN (?)", bun.List(ints(q.Severity)))
	}
	if len(q.Family) > 0 {
		sel = sel.Where("a.family IN (?)", bun.List(q.Family))
	}
	if len(q.Sector) > 0 {
		sel = sel.Where("a.sector IN (?)", bun.List(q.Sector))
	}
	if len(q.Technique) > 0 {
		sel = sel.Where("EXISTS (SELECT 1 FROM alert_techniques t WHERE t.alert = a.num AND t.technique IN (?))", bun.List(q.Technique))
	}
	return sel
}

// opens are the values of the column open that the view needs. Each is walked
// on its own, since the indexes begin with it.
func (q *query) opens() []int {
	switch q.View {
	case ViewClosed, ViewSuppressed:
		return []int{0}
	case ViewAll:
		return []int{1, 0}
	}
	return []int{1}
}

// page finds the places of one page and, if there is one, of the alert after it.
func (q *query) page(ctx context.Context, total int64, after *cursor) ([]position, error) {
	if total == 0 {
		return nil, nil
	}
	var found []position
	if q.Text != "" {
		list, ok, err := q.search(ctx, after)
		if err != nil {
			return nil, err
		}
		if ok {
			return list, nil
		}
	}
	for _, open := range q.opens() {
		for _, r := range q.ranges() {
			sel := q.walk(q.index(total), open, after)
			if r != nil {
				sel = sel.Where("a.score BETWEEN ? AND ?", r[0], r[1])
			}
			if q.Text != "" { // matches are frequent, so the walk ends soon
				sel = sel.Where("(a.title || char(10) || a.ref || char(10) || a.entity || char(10) || a.source || char(10) || a.user || char(10) || a.host || char(10) || COALESCE((SELECT name FROM tenants WHERE id = a.tenant), '')) LIKE ? ESCAPE '!'", like(q.Text))
			}
			list, err := scanPositions(ctx, sel)
			if err != nil {
				return nil, err
			}
			found = append(found, list...)
		}
	}
	slices.SortFunc(found, func(a, b position) int {
		if q.before(a, b) {
			return -1
		}
		return 1
	})
	return found[:min(len(found), q.Limit+1)], nil
}

func like(s string) string {
	return "%" + strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(s) + "%"
}

// ranges turns a filter on severity into ranges of the score, which is what the
// risk order is indexed by. One nil range means no such filter.
func (q *query) ranges() [][]int {
	if len(q.Severity) == 0 || q.Order != ByRisk {
		return [][]int{nil}
	}
	sev := slices.Clone(q.Severity)
	slices.Sort(sev)
	var out [][]int
	for _, s := range slices.Compact(sev) {
		from, to := 20*int(s), 20*int(s)+19
		if s == Critical {
			to = 100
		}
		if n := len(out); n > 0 && out[n-1][1] == from-1 {
			out[n-1][1] = to
		} else {
			out = append(out, []int{from, to})
		}
	}
	return out
}

// index chooses the index a page is read from: one of the two orders, whose
// columns answer the other filters without touching rows, unless the counts
// say that a narrower one leads to a handful of rows.
func (q *query) index(total int64) string {
	tenants, all := q.scope.Tenants()
	switch {
	case q.View == ViewMine:
		return "alerts_assignee"
	case !all && len(tenants) == 1 && q.Order == ByRisk:
		return "alerts_tenant_rank"
	case !all && len(tenants) == 1:
		return "alerts_tenant_recent"
	case !all && total >= 0 && total <= few:
		return "alerts_tenant_recent"
	case q.View == ViewEscalated && total >= 0 && total <= few:
		return "alerts_escalated"
	case total >= 0 && total <= few && len(q.Technique) > 0:
		return "" // from the techniques
	case total >= 0 && total <= few && len(q.Family) > 0:
		return "alerts_family"
	case q.Order == ByRisk:
		return "alerts_rank"
	}
	return "alerts_recent"
}

func (q *query) walk(index string, open int, after *cursor) *bun.SelectQuery {
	sel := q.tx.NewSelect().ColumnExpr("a.num, a.score, a.last_ns").Limit(int64(q.Limit + 1))
	switch {
	case index == "":
		sel = sel.TableExpr("alerts AS a").Where("a.num IN (SELECT alert FROM alert_techniques WHERE technique IN (?))", bun.List(q.Technique))
	default:
		sel = sel.TableExpr("alerts AS a INDEXED BY ?", bun.Safe(index))
	}
	if index == "" { // from the list of techniques, not from an order
		sel = sel.Where("+a.open = ?", open)
	} else {
		sel = sel.Where("a.open = ?", open)
	}
	sel = q.where(sel)
	return q.order(sel, after)
}

func (q *query) order(sel *bun.SelectQuery, after *cursor) *bun.SelectQuery {
	if q.Order == ByRisk {
		if after != nil {
			sel = sel.Where("(a.score, a.last_ns, a.num) < (?, ?, ?)", after.Score, after.Last, after.Num)
		}
		return sel.OrderExpr("a.score DESC, a.last_ns DESC, a.num DESC")
	}
	if after != nil {
		sel = sel.Where("(a.last_ns, a.num) < (?, ?)", after.Last, after.Num)
	}
	return sel.OrderExpr("a.last_ns DESC, a.num DESC")
}

// search finds the page of a text that few alerts hold; ok is false when many do.
func (q *query) search(ctx context.Context, after *cursor) (list []position, ok bool, err error) {
	phrase := `"` + strings.ReplaceAll(q.Text, `"`, `""`) + `"`
	var n int
	if err := q.tx.NewRaw("SELECT count(*) FROM (SELECT 1 FROM alert_words WHERE text MATCH ? LIMIT ?)", phrase, few+1).Scan(ctx, &n); err != nil {
		return nil, false, err
	}
	if n > few {
		return nil, false, nil
	}
	sel := q.tx.NewSelect().ColumnExpr("a.num, a.score, a.last_ns").TableExpr("alerts AS a").Limit(int64(q.Limit+1)).
		Where("a.num IN (SELECT rowid FROM alert_words WHERE text MATCH ?)", phrase).Where("+a.open IN (?)", bun.List(q.opens()))
	list, err = scanPositions(ctx, q.order(q.where(sel), after))
	return list, true, err
}

func scanPositions(ctx context.Context, sel *bun.SelectQuery) ([]position, error) {
	rows, err := sel.Rows(ctx)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []position
	for rows.Next() {
		var p position
		if err := rows.Scan(&p.num, &p.score, &p.last); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// selectAlerts is the start of every query for whole alerts.
func selectAlerts(tx bun.IDB, model any) *bun.SelectQuery {
	return tx.NewSelect().Model(model).ColumnExpr("a.*, COALESCE(o.name, '') AS organisation, COALESCE(p.name, '') AS assignee_name").
		Join("LEFT JOIN tenants AS o ON o.id = a.tenant").Join("LEFT JOIN people AS p ON p.id = a.assignee")
}

func loadRows(ctx context.Context, tx bun.IDB, at []position) ([]Alert, error) {
	if len(at) == 0 {
		return nil, nil
	}
	nums := make([]int64, len(at))
	place := map[int64]int{}
	for i, p := range at {
		nums[i] = p.num
		place[p.num] = i
	}
	var out []Alert
	if err := selectAlerts(tx, &out).Where("a.num IN (?)", bun.List(nums)).Scan(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(x, y Alert) int { return place[x.Num] - place[y.Num] })
	return out, nil
}

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

// Between counts the alerts that a scope's members got in a span of hub time, by
// family, for reports.
func (s *Store) Between(ctx context.Context, scope access.Scope, from, to int64) ([]Facet, error) {
	q := query{Filter: Filter{View: ViewAll}, scope: scope, tx: s.db.Read()}
	sel := q.where(s.db.Read().NewSelect().TableExpr("alerts AS a").ColumnExpr("a.family, count(*)")).
		Where("a.created_ns >= ? AND a.created_ns < ?", from, to).Where("a.state <> 'suppressed'").GroupExpr("a.family").OrderExpr("2 DESC, 1")
	return q.scanFacet(ctx, "family", sel)
}
