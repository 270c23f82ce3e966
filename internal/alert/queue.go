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
