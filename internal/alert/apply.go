package alert

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/outbox"
)

// What stands in a tenant column for more than one tenant: all of them (in counts
// and suppressions), or those of a sector (in counts).
const (
	allTenants = -1
	ofSector   = -2
)

// anySeverity stands in the counts for all severities and families together.
const anySeverity = -1

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
	changes, err := s.apply(ctx, plan, dets)
	if err != nil {
		s.stats.failed.Add(1)
		return nil, fmt.Errorf("applying plan %s: %w", plan, err)
	}
	s.stats.detections.Add(uint64(len(dets)))
	repeats := len(dets)
	for _, c := range changes {
		repeats -= c.New
		if c.Kind == Opened {
			s.stats.opened.Add(1)
		} else {
			s.stats.updated.Add(1)
		}
	}
	s.stats.repeats.Add(uint64(repeats))
	if len(changes) > 0 {
		s.committed()
	}
	return changes, nil
}

func (s *Store) apply(ctx context.Context, plan string, dets []event.Detection) ([]Change, error) {
	for i := range dets {
		d := &dets[i]
		if d.Key == "" || d.RuleID == "" || d.Family == "" || d.Entity.Kind == "" {
			return nil, fmt.Errorf("%w: detection %d of rule %q lacks key, rule, family or entity", ErrInvalid, i, d.RuleID)
		}
		if _, err := ParseSeverity(d.Level); err != nil {
			return nil, fmt.Errorf("detection %d of rule %q: %w", i, d.RuleID, err)
		}
	}
	var changes []Change
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		w := s.begin(tx)
		if err := w.prefetch(ctx, dets); err != nil {
			return err
		}
		if err := w.risks(ctx, dets); err != nil {
			return err
		}
		for i := range dets {
			if err := w.detection(ctx, plan, &dets[i]); err != nil {
				return err
			}
		}
		var err error
		changes, err = w.finish(ctx)
		return err
	})
	return changes, err
}

// Prune forgets the keys of detections applied longer ago than keep, of which at
// least a week is kept: after that a replay of them would count again. Alerts and
// their history stay.
func (s *Store) Prune(ctx context.Context, keep time.Duration) (int64, error) {
	before := s.now() - int64(max(keep, 7*24*time.Hour))
	var total int64
	for {
		var n int64
		err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
			res, err := tx.NewRaw("DELETE FROM alert_detections WHERE digest IN (SELECT digest FROM alert_detections WHERE at_ns < ? LIMIT 5000)", before).Exec(ctx)
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
	seen     map[[16]byte]seen // detections applied before
	tenants  map[event.TenantID]tenantInfo
	rules    []suppression
	activity []activityRow
	notices  []outbox.Entry
	deltas   map[countKey]int64

	confidence map[string]int                       // by indicator
	at         map[string]map[event.TenantID]uint64 // by source: the members with an open alert about it, some of them

	nextNum, lastNum int64    // numbers taken for new alerts
	refs             []string // and their references
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

func (s *Store) begin(tx bun.IDB) *work {
	return &work{s: s, tx: tx, now: s.now(), byGroup: map[string]*touched{}, byNum: map[int64]*touched{},
		seen: map[[16]byte]seen{}, tenants: map[event.TenantID]tenantInfo{}, deltas: map[countKey]int64{}, at: map[string]map[event.TenantID]uint64{}}
}

// seen is a detection applied before.
type seen struct{ alert, count int64 }

func digestOf(d *event.Detection) [16]byte {
	sum := sha256.Sum256([]byte(d.Key))
	return [16]byte(sum[:16])
}

// prefetch reads all that the detections concern in a few statements.
func (w *work) prefetch(ctx context.Context, dets []event.Detection) error {
	var digests, groups [][]byte
	var tenants []event.TenantID
	counts := map[[16]byte]int64{}
	for i := range dets {
		d := &dets[i]
		digest := digestOf(d)
		if _, ok := counts[digest]; !ok {
			digests = append(digests, digest[:])
		}
		counts[digest] = max(counts[digest], int64(d.Count))
		groups = append(groups, groupKey(d.Tenant, d.Family, entityOf(d.Entity)))
		if !slices.Contains(tenants, d.Tenant) {
			tenants = append(tenants, d.Tenant)
		}
	}
	nums := map[int64]bool{}
	byGroup := map[string]int64{}
	if err := each(ctx, w.tx, "SELECT digest, alert, count FROM alert_detections WHERE digest IN (?)", digests, func(scan func(...any) error) error {
		var digest []byte
		var s seen
		if err := scan(&digest, &s.alert, &s.count); err != nil {
			return err
		}
		w.seen[[16]byte(digest)] = s
		if counts[[16]byte(digest)] > s.count {
			nums[s.alert] = true
		}
		return nil
	}); err != nil {
		return err
	}
	if err := each(ctx, w.tx, "SELECT grp, alert FROM alert_groups WHERE grp IN (?)", groups, func(scan func(...any) error) error {
		var grp []byte
		var num int64
		if err := scan(&grp, &num); err != nil {
			return err
		}
		byGroup[string(grp)] = num
		nums[num] = true
		return nil
	}); err != nil {
		return err
	}
	if err := each(ctx, w.tx, "SELECT id, name, sector FROM tenants WHERE id IN (?)", tenants, func(scan func(...any) error) error {
		var id event.TenantID
		var info tenantInfo
		if err := scan(&id, &info.name, &info.sector); err != nil {
			return err
		}
		w.tenants[id] = info
		return nil
	}); err != nil {
		return err
	}
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(nums)), chunkSize) {
		var rows []Alert
		if err := w.tx.NewSelect().Model(&rows).Where("a.num IN (?)", bun.List(chunk)).Scan(ctx); err != nil {
			return err
		}
		for i := range rows {
			if _, err := w.loaded(ctx, &touched{a: rows[i]}); err != nil {
				return err
			}
		}
	}
	for grp, num := range byGroup {
		if t := w.byNum[num]; t != nil {
			t.kind = Counted
			if t.a.Open {
				t.kind = Updated
			}
			t.group = []byte(grp)
			w.byGroup[grp] = t
		}
	}
	ids := []int64{allTenants}
	for _, t := range tenants {
		ids = append(ids, int64(t))
	}
	for chunk := range slices.Chunk(ids, chunkSize) {
		var rows []suppression
		if err := w.tx.NewSelect().Model(&rows).Where("tenant IN (?) AND expires_ns > ? AND ended_ns = 0", bun.List(chunk), w.now).OrderExpr("created_ns, id").Scan(ctx); err != nil {
			return err
		}
		w.rules = append(w.rules, rows...)
	}
	return nil
}

func (w *work) detection(ctx context.Context, plan string, d *event.Detection) error {
	sev, err := ParseSeverity(d.Level)
	if err != nil {
		return err
	}
	digest := digestOf(d)
	if old, ok := w.seen[digest]; ok {
		return w.again(ctx, d, sev, digest, old)
	}
	for _, t := range w.order { // the same key twice in this very call
		for i := range t.pending {
			if bytes.Equal(t.pending[i].Digest, digest[:]) {
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
	t := w.byGroup[string(groupKey(d.Tenant, d.Family, e))]
	sup := w.suppressedBy(d, e)
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
	if err := w.weigh(ctx, t, d); err != nil {
		return err
	}
	t.a.merge(d, sev, w.s.o.Text, int64(d.Count), true)
	t.fresh++
	t.added += int64(d.Count)
	t.events = append(t.events, d.Events...)
	t.pending = append(t.pending, detRow{Digest: bytes.Clone(digest[:]), Rule: d.RuleID, Count: int64(d.Count), LastNS: d.Last, AtNS: w.now, Plan: plan})
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
func (w *work) again(ctx context.Context, d *event.Detection, sev Severity, digest [16]byte, old seen) error {
	more := int64(d.Count) - old.count
	if more <= 0 {
		return nil
	}
	t, err := w.load(ctx, old.alert)
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
	_, err = w.tx.NewRaw("UPDATE alert_detections SET count = ?, last_ns = max(last_ns, ?) WHERE digest = ?", int64(d.Count), d.Last, digest[:]).Exec(ctx)
	old.count = int64(d.Count)
	w.seen[digest] = old
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
	return w.loaded(ctx, t)
}

func (w *work) loaded(ctx context.Context, t *touched) (*touched, error) {
	info, err := w.tenant(ctx, t.a.Tenant)
	if err != nil {
		return nil, err
	}
	t.old, t.oldTerms, t.firstN = t.a.counted(), t.a.words(info.name), t.a.Events
	t.a.Organisation = info.name
	w.byNum[t.a.Num] = t
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
	for _, t := range w.order {
		rev++
		t.a.Rev = rev
		t.a.UpdatedNS = w.now
		if err := w.name(ctx, t); err != nil {
			return nil, err
		}
		if err := w.pace(t); err != nil {
			return nil, err
		}
		changes = append(changes, Change{Kind: t.kind, Alert: t.a, New: t.fresh})
	}
	if err := w.store(ctx); err != nil {
		return nil, err
	}
	for i := range w.activity {
		w.activity[i].Alert = w.activity[i].of.a.Num
	}
	if err := insert(ctx, w.tx, w.activity, "id"); err != nil {
		return nil, err
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
	if w.s.o.Entries != nil {
		es, err := w.s.o.Entries(n)
		if err != nil {
			return fmt.Errorf("making the notices of alert %s: %w", t.a.Ref, err)
		}
		w.notices = append(w.notices, es...)
		return nil
	}
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	w.notices = append(w.notices, outbox.Entry{Key: fmt.Sprintf("alert/%s/%d", t.a.ID, t.a.Notices), Kind: NoticeKind, Tenant: t.a.Tenant, Payload: b})
	return nil
}

// name gives a new alert its number and reference.
func (w *work) name(ctx context.Context, t *touched) error {
	if t.old != nil {
		return nil
	}
	if w.nextNum == w.lastNum { // take numbers for all new ones at once
		n := int64(0)
		for _, t := range w.order {
			if t.old == nil {
				n++
			}
		}
		if err := w.tx.QueryRowContext(ctx, "UPDATE counters SET value = value + ? WHERE name = 'alert.num' RETURNING value", n).Scan(&w.lastNum); err != nil {
			return err
		}
		w.nextNum = w.lastNum - n
		for range n {
			w.refs = append(w.refs, newRef())
		}
		if err := w.freeRefs(ctx); err != nil {
			return err
		}
	}
	w.nextNum++
	t.a.Num = w.nextNum
	t.a.Ref, w.refs = w.refs[0], w.refs[1:]
	return nil
}

// freeRefs replaces references that are taken: of 34 billion, so hardly ever.
func (w *work) freeRefs(ctx context.Context) error {
	for range 20 {
		taken := map[string]bool{}
		if err := each(ctx, w.tx, "SELECT ref FROM alerts WHERE ref IN (?)", w.refs, func(scan func(...any) error) error {
			var ref string
			err := scan(&ref)
			taken[ref] = true
			return err
		}); err != nil {
			return err
		}
		again := false
		for i, ref := range w.refs {
			if taken[ref] {
				w.refs[i], again = newRef(), true
			}
			taken[w.refs[i]] = true // nor twice among the new ones
		}
		if !again {
			return nil
		}
	}
	return errors.New("no free reference was found for an alert")
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
