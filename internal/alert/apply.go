package alert

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/outbox"
)

// AllTenants is the tenant column's value for "every tenant" in counts and
// suppressions.
const allTenants = -1

// Apply groups detections into alerts and returns what changed, in the order of
// the alerts' first detection. A detection whose Key was applied before, by this
// plan or another, changes nothing unless it now counts more events; then the
// difference is added. Invalid ones (no key, rule, family or entity, an unknown
// level) are an error and nothing is applied: they cannot come from the
// engine.
func (s *Store) Apply(ctx context.Context, plan string, dets []event.Detection) ([]Change, error) {
	if len(dets) == 0 {
		return nil, nil
	}
	for i := range dets {
		d := &dets[i]
		if d.Key == "" || d.RuleID == "" || d.Family == "" || d.Entity.Kind == "" {
			return nil, fmt.Errorf("applying plan %s: %w: detection %d of rule %q lacks key, rule, family or entity", plan, ErrInvalid, i, d.RuleID)
		}
		if _, err := ParseSeverity(d.Level); err != nil {
			return nil, fmt.Errorf("applying plan %s: detection %d of rule %q: %w", plan, i, d.RuleID, err)
		}
	}
	var changes []Change
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		w := s.begin(tx)
		for i := range dets {
			if err := w.detection(ctx, plan, &dets[i]); err != nil {
				return err
			}
		}
		var err error
		changes, err = w.finish(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("applying plan %s: %w", plan, err)
	}
	if len(changes) > 0 {
		s.committed()
	}
	return changes, nil
}

// committed tells watchers and outbox that there is something to look at.
func (s *Store) committed() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
	if s.o.Outbox != nil {
		s.o.Outbox.Wake()
	}
}

// work is the state of one transaction: the alerts it touches, as they were and
// as they become.
type work struct {
	s   *Store
	tx  bun.IDB
	now int64

	byGroup  map[string]*touched
	byNum    map[int64]*touched
	order    []*touched
	tenants  map[event.TenantID]tenantInfo
	rules    map[event.TenantID][]suppression
	activity []activityRow
	notices  []outbox.Entry
	deltas   map[countKey]int64
}

type tenantInfo struct{ name, sector string }

// touched is an alert within a transaction.
type touched struct {
	a        Alert
	old      *counted // what the counts say of it; nil: it is new
	oldTerms string
	group    []byte
	fresh    int // detections added
	added    int64
	kind     string
	events   []event.ID
	firstN   int64 // number of the first of events
	pending  []detRow
	notice   string // kind of notice to give at once
	note, by string
	moved    bool // the group now points here
	dirty    bool // it differs from what is stored
}

// counted is what decides in which counts an alert stands.
type counted struct {
	tenant     event.TenantID
	state      string
	escalated  bool
	severity   Severity
	family     string
	techniques []string
}

func (a *Alert) counted() *counted {
	return &counted{a.Tenant, a.State, a.EscalatedNS > 0, a.Severity, a.Family, slices.Clone(a.Details.Techniques)}
}

type countKey struct {
	tenant    int64
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

func (s *Store) begin(tx bun.IDB) *work {
	return &work{s: s, tx: tx, now: s.now(), byGroup: map[string]*touched{}, byNum: map[int64]*touched{},
		tenants: map[event.TenantID]tenantInfo{}, rules: map[event.TenantID][]suppression{}, deltas: map[countKey]int64{}}
}

func (w *work) detection(ctx context.Context, plan string, d *event.Detection) error {
	sum := sha256.Sum256([]byte(d.Key))
	digest := sum[:16]
	var num, count int64
	err := w.tx.QueryRowContext(ctx, "SELECT alert, count FROM alert_detections WHERE digest = ?", digest).Scan(&num, &count)
	sev, perr := ParseSeverity(d.Level)
	if perr != nil {
		return perr
	}
	if err == nil {
		return w.again(ctx, d, sev, digest, num, count)
	}
	if !db.NotFound(err) {
		return err
	}
	for _, t := range w.order { // the same key twice in this very call
		for i := range t.pending {
			if bytes.Equal(t.pending[i].Digest, digest) {
				if more := int64(d.Count) - t.pending[i].Count; more > 0 {
					t.pending[i].Count = int64(d.Count)
					t.pending[i].LastNS = max(t.pending[i].LastNS, d.Last)
					t.added += more
					t.a.merge(d, sev, w.s.o.Text, more, false)
				}
				return nil
			}
		}
	}
	e := entityOf(d.Entity)
	t, err := w.group(ctx, d, e)
	if err != nil {
		return err
	}
	sup, err := w.suppressedBy(ctx, d, e)
	if err != nil {
		return err
	}
	if t == nil || t.finished(d, sup != nil) {
		prev := t
		if t, err = w.open(ctx, d, e, prev); err != nil {
			return err
		}
		if sup != nil {
			t.a.State, t.a.Open, t.kind, t.notice = StateSuppressed, false, Counted, ""
		}
	}
	if sup != nil {
		if err := w.suppressionHit(ctx, sup); err != nil {
			return err
		}
		if t.old == nil && t.fresh == 0 {
			w.act(t, "", "", "suppressed", "Suppressed: "+sup.Reason, true)
		}
	}
	wasRule := slices.ContainsFunc(t.a.Details.Rules, func(r Rule) bool { return r.ID == d.RuleID })
	was := t.a.Severity
	t.dirty = true
	t.a.merge(d, sev, w.s.o.Text, int64(d.Count), true)
	t.fresh++
	t.added += int64(d.Count)
	t.events = append(t.events, d.Events...)
	t.pending = append(t.pending, detRow{Digest: digest, Rule: d.RuleID, Count: int64(d.Count), LastNS: d.Last, AtNS: w.now, Plan: plan})
	if t.old != nil || t.fresh > 1 {
		if t.a.Severity > was {
			w.act(t, "", "", "severity", fmt.Sprintf("Severity rose from %s to %s: %s", was, t.a.Severity, clip(d.RuleTitle, 200)), true)
			if t.kind == Updated {
				t.kind = Escalated
			}
		} else if !wasRule {
			w.act(t, "", "", "rule", "Another rule matched: "+clip(d.RuleTitle, 200), true)
		}
	}
	return nil
}

// again handles a detection known already: a replay, or one that goes on.
func (w *work) again(ctx context.Context, d *event.Detection, sev Severity, digest []byte, num, count int64) error {
	more := int64(d.Count) - count
	if more <= 0 {
		return nil
	}
	t, err := w.load(ctx, num)
	if err != nil {
		return err
	}
	if t == nil { // pruned with its alert
		return nil
	}
	if t.kind == "" {
		t.kind = Counted
		if t.a.Open {
			t.kind = Updated
		}
	}
	t.dirty = true
	t.a.merge(d, sev, w.s.o.Text, more, false)
	t.added += more
	_, err = w.tx.NewRaw("UPDATE alert_detections SET count = ?, last_ns = max(last_ns, ?) WHERE digest = ?", int64(d.Count), d.Last, digest).Exec(ctx)
	return err
}

// finished says whether a detection must not join the group's newest alert but
// open another: it was closed and this happened since, or its suppression is
// over.
func (t *touched) finished(d *event.Detection, suppressed bool) bool {
	switch t.a.State {
	case StateClosed:
		return d.Last > t.a.ClosedNS
	case StateSuppressed:
		return !suppressed
	}
	return false
}

// group finds the newest alert of the detection's group.
func (w *work) group(ctx context.Context, d *event.Detection, e event.Entity) (*touched, error) {
	key := groupKey(d.Tenant, d.Family, e)
	if t := w.byGroup[string(key)]; t != nil {
		return t, nil
	}
	var num int64
	err := w.tx.QueryRowContext(ctx, "SELECT alert FROM alert_groups WHERE grp = ?", key).Scan(&num)
	if db.NotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t, err := w.load(ctx, num)
	if err != nil || t == nil {
		return nil, err
	}
	t.kind = Counted
	if t.a.Open {
		t.kind = Updated
	}
	t.group = key
	w.byGroup[string(key)] = t
	return t, nil
}

func (w *work) load(ctx context.Context, num int64) (*touched, error) {
	if t := w.byNum[num]; t != nil {
		return t, nil
	}
	t := &touched{}
	err := w.tx.NewSelect().Model(&t.a).Where("a.num = ?", num).Scan(ctx)
	if db.NotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := w.tenant(ctx, t.a.Tenant)
	if err != nil {
		return nil, err
	}
	t.old, t.oldTerms, t.firstN = t.a.counted(), t.a.words(info.name), t.a.Events
	t.a.Organisation = info.name
	w.byNum[num] = t
	w.order = append(w.order, t)
	return t, nil
}

func (w *work) tenant(ctx context.Context, id event.TenantID) (tenantInfo, error) {
	if info, ok := w.tenants[id]; ok || id == access.Centre {
		return info, nil
	}
	var info tenantInfo
	err := w.tx.QueryRowContext(ctx, "SELECT name, sector FROM tenants WHERE id = ?", id).Scan(&info.name, &info.sector)
	if err != nil && !db.NotFound(err) {
		return info, err
	}
	w.tenants[id] = info
	return info, nil
}

func (w *work) open(ctx context.Context, d *event.Detection, e event.Entity, prev *touched) (*touched, error) {
	info, err := w.tenant(ctx, d.Tenant)
	if err != nil {
		return nil, err
	}
	t := &touched{kind: Opened, notice: Opened, moved: true, group: groupKey(d.Tenant, d.Family, e)}
	t.a = Alert{ID: uuid.Must(uuid.NewV7()).String(), Tenant: d.Tenant, Organisation: info.name, Sector: info.sector, Family: clip(d.Family, 100),
		EntityKind: d.Entity.Kind, Entity: clip(e.Value, 400), State: StateNew, Open: true, CreatedNS: w.now}
	text := "Opened: " + clip(d.RuleTitle, 200)
	if prev != nil {
		t.a.Previous = prev.a.ID
		text += " (after " + prev.a.Ref + ")"
	}
	w.act(t, "", "", "opened", text, true)
	w.byGroup[string(t.group)] = t
	w.order = append(w.order, t)
	return t, nil
}

func (w *work) act(t *touched, actor, name, kind, text string, shared bool) {
	w.activity = append(w.activity, activityRow{AtNS: w.now, Actor: actor, Name: name, Kind: kind, Text: clip(text, maxText), Shared: shared, of: t})
}

// finish writes everything that was touched.
func (w *work) finish(ctx context.Context) ([]Change, error) {
	w.order = slices.DeleteFunc(w.order, func(t *touched) bool { return !t.dirty })
	if len(w.order) == 0 {
		return nil, nil
	}
	var rev int64
	if err := w.tx.QueryRowContext(ctx, "UPDATE counters SET value = value + ? WHERE name = 'alert.rev' RETURNING value", len(w.order)).Scan(&rev); err != nil {
		return nil, err
	}
	rev -= int64(len(w.order))
	var changes []Change
	var dets []detRow
	for _, t := range w.order {
		rev++
		t.a.Rev = rev
		t.a.UpdatedNS = w.now
		if err := w.pace(t); err != nil {
			return nil, err
		}
		if err := w.store(ctx, t); err != nil {
			return nil, err
		}
		for i := range t.pending {
			t.pending[i].Alert = t.a.Num
		}
		dets = append(dets, t.pending...)
		changes = append(changes, Change{Kind: t.kind, Alert: t.a, New: t.fresh})
	}
	if len(dets) > 0 {
		if _, err := w.tx.NewInsert().Model(&dets).Exec(ctx); err != nil {
			return nil, err
		}
	}
	for i := range w.activity {
		w.activity[i].Alert = w.activity[i].of.a.Num
	}
	if len(w.activity) > 0 {
		if _, err := w.tx.NewInsert().Model(&w.activity).ExcludeColumn("id").Exec(ctx); err != nil {
			return nil, err
		}
	}
	if err := w.writeCounts(ctx); err != nil {
		return nil, err
	}
	if len(w.notices) > 0 {
		if _, err := w.s.o.Outbox.Record(ctx, w.tx, w.notices...); err != nil {
			return nil, err
		}
	}
	return changes, nil
}

// pace decides whether a notice goes now, later or not at all.
func (w *work) pace(t *touched) error {
	if !t.a.Open {
		t.a.DueNS = 0
		return nil
	}
	kind := t.notice
	switch {
	case kind != "":
	case t.kind == Escalated:
		kind = Escalated
	case t.added == 0 && t.fresh == 0:
		return nil
	case w.now >= t.a.NoticedNS+w.s.pace(t.a.Notices):
		kind = Updated
	case t.a.DueNS == 0:
		t.a.DueNS = t.a.NoticedNS + w.s.pace(t.a.Notices)
	}
	if kind == "" {
		return nil
	}
	return w.tell(t, kind)
}

func (w *work) tell(t *touched, kind string) error {
	n := Notice{Kind: kind, N: t.a.Notices + 1, AtNS: w.now, New: t.a.Count - t.a.NoticedCount, By: t.by, Note: t.note}
	t.a.Notices++
	t.a.NoticedNS, t.a.NoticedCount, t.a.DueNS = w.now, t.a.Count, 0
	if w.s.o.Outbox == nil {
		return nil
	}
	n.Alert = t.a
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	w.notices = append(w.notices, outbox.Entry{Key: fmt.Sprintf("alert/%s/%d", t.a.ID, t.a.Notices), Kind: NoticeKind, Tenant: t.a.Tenant, Payload: b})
	return nil
}

var updateList = []string{"rev", "sector", "state", "open", "severity", "score", "assignee", "escalated_ns", "acknowledged_ns", "first_ns", "last_ns", "updated_ns", "closed_ns",
	"verdict", "title", "source", "user", "host", "count", "detections", "events", "late", "site", "notices", "noticed_ns", "noticed_count", "due_ns", "body"}

func (w *work) store(ctx context.Context, t *touched) error {
	info, err := w.tenant(ctx, t.a.Tenant)
	if err != nil {
		return err
	}
	if t.old == nil {
		for try := 0; ; try++ {
			t.a.Ref = newRef()
			var n int
			if err := w.tx.QueryRowContext(ctx, "SELECT count(*) FROM alerts WHERE ref = ?", t.a.Ref).Scan(&n); err != nil {
				return err
			}
			if n == 0 {
				break
			}
			if try > 20 {
				return fmt.Errorf("no free reference was found for an alert")
			}
		}
		if _, err := w.tx.NewInsert().Model(&t.a).ExcludeColumn("num").Returning("num").Exec(ctx); err != nil {
			return err
		}
	} else if _, err := w.tx.NewUpdate().Model(&t.a).Column(updateList...).Where("num = ?", t.a.Num).Exec(ctx); err != nil {
		return err
	}
	if t.moved {
		if _, err := w.tx.NewRaw("INSERT INTO alert_groups (grp, alert) VALUES (?, ?) ON CONFLICT (grp) DO UPDATE SET alert = excluded.alert", t.group, t.a.Num).Exec(ctx); err != nil {
			return err
		}
	}
	if terms := t.a.words(info.name); terms != t.oldTerms {
		if t.old != nil {
			if _, err := w.tx.NewRaw("DELETE FROM alert_words WHERE rowid = ?", t.a.Num).Exec(ctx); err != nil {
				return err
			}
		}
		if _, err := w.tx.NewRaw("INSERT INTO alert_words (rowid, text) VALUES (?, ?)", t.a.Num, terms).Exec(ctx); err != nil {
			return err
		}
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
			if _, err := w.tx.NewRaw("INSERT INTO alert_techniques (technique, alert) VALUES (?, ?) ON CONFLICT DO NOTHING", tech, t.a.Num).Exec(ctx); err != nil {
				return err
			}
		}
	}
	return w.storeEvents(ctx, t)
}

type eventRow struct {
	bun.BaseModel `bun:"table:alert_events"`
	Alert         int64
	N             int64
	Stream        []byte
	Seq           int64
	Idx           int64
}

func (w *work) storeEvents(ctx context.Context, t *touched) error {
	if len(t.events) == 0 {
		return nil
	}
	rows := make([]eventRow, 0, len(t.events))
	for i, id := range t.events {
		n := t.firstN + int64(i)
		if n >= keepFirst && n < t.a.Events-keepLast {
			continue
		}
		rows = append(rows, eventRow{Alert: t.a.Num, N: n, Stream: bytes.Clone(id.Stream[:]), Seq: int64(id.Seq), Idx: int64(id.Index)})
	}
	if _, err := w.tx.NewInsert().Model(&rows).Exec(ctx); err != nil {
		return err
	}
	if t.a.Events > keepFirst+keepLast {
		_, err := w.tx.NewRaw("DELETE FROM alert_events WHERE alert = ? AND n >= ? AND n < ?", t.a.Num, keepFirst, t.a.Events-keepLast).Exec(ctx)
		return err
	}
	return nil
}

func (w *work) count(c *counted, by int64) {
	for _, tenant := range []int64{int64(c.tenant), allTenants} {
		k := countKey{tenant, c.state, c.escalated, c.severity, c.family, ""}
		w.deltas[k] += by
		for _, tech := range c.techniques {
			k.technique = tech
			w.deltas[k] += by
		}
	}
}

func (w *work) writeCounts(ctx context.Context) error {
	type row struct {
		bun.BaseModel `bun:"table:alert_counts,alias:c"`
		Tenant        int64
		State         string
		Escalated     bool
		Severity      Severity
		Family        string
		Technique     string
		N             int64
	}
	var rows []row
	for k, n := range w.deltas {
		if n != 0 {
			rows = append(rows, row{Tenant: k.tenant, State: k.state, Escalated: k.escalated, Severity: k.severity, Family: k.family, Technique: k.technique, N: n})
		}
	}
	for chunk := range slices.Chunk(rows, 200) {
		if _, err := w.tx.NewInsert().Model(&chunk).On("CONFLICT (tenant, technique, state, escalated, severity, family) DO UPDATE").Set("n = c.n + excluded.n").Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// newRef makes a reference of seven letters and digits that cannot be confused
// when spoken (Crockford's base 32). It does not tell how many alerts there are.
func newRef() string {
	const letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	var b [7]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	for i := range b {
		b[i] = letters[b[i]&31]
	}
	return "AL-" + string(b[:])
}
