package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/outbox"
)

var (
	national = access.System("test")
	ana      = access.Principal{UserID: "ana", Name: "Ana Lyst", Role: access.Analyst}
	head     = access.Principal{UserID: "head", Name: "Hetty Head", Role: access.Member, Tenant: 1}
	other    = access.Principal{UserID: "other", Name: "Otto Other", Role: access.Member, Tenant: 2}
)

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

type fixture struct {
	*Store
	t     testing.TB
	clock *clock
	box   *outbox.Box
}

func open(t testing.TB, path string, tenants int) *fixture {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &clock{t: time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)}
	box := outbox.New(d, outbox.Options{Now: c.now})
	f := &fixture{t: t, clock: c, box: box}
	f.Store = New(d, Options{Outbox: box, Now: c.now, Poll: 5 * time.Millisecond, Text: func(rule string) Text {
		return Text{Title: "Somebody tries passwords", What: "What " + rule, Do: "Do"}
	}})
	if err := d.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error {
		sectors := []string{"education", "manufacturing", "local government", "health"}
		for i := range tenants {
			if _, err := tx.ExecContext(ctx, "INSERT INTO tenants (id, name, sector, created_ns) VALUES (?, ?, ?, 1) ON CONFLICT DO NOTHING", i+1, fmt.Sprintf("Organisation %d", i+1), sectors[i%4]); err != nil {
				return err
			}
		}
		for _, p := range []access.Principal{ana, {UserID: "bob", Name: "Bob", Role: access.Operator}, head} {
			if _, err := tx.ExecContext(ctx, "INSERT INTO people (id, email, name, role, tenant, password, created_ns) VALUES (?, ?, ?, ?, ?, '', 1) ON CONFLICT DO NOTHING", p.UserID, p.UserID+"@example.org", p.Name, p.Role, p.Tenant); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return f
}

func newFixture(t testing.TB) *fixture {
	return open(t, filepath.Join(t.TempDir(), "t.db"), 3)
}

// det makes a detection of tenant 1 about a source; each n is another window.
func (f *fixture) det(n int, change ...func(*event.Detection)) event.Detection {
	now := f.clock.now().UnixNano()
	d := event.Detection{Tenant: 1, RuleID: "vpn-guess", RuleTitle: "Password guessing on the VPN", Family: "vpn.guessing", Level: "medium", Tags: []string{"attack.t1110.003", "attack.credential-access"},
		Entity: event.Entity{Kind: "source", Value: "203.0.113.9"}, First: now - int64(time.Minute), Last: now, Count: 10, Reason: fmt.Sprintf("10 failed sign-ins, window %d.", n),
		Steps: []event.Step{{Time: now, Text: fmt.Sprintf("step %d", n)}}, Source: "203.0.113.9", User: "j.smith"}
	for i := range 3 {
		d.Events = append(d.Events, event.ID{Stream: event.StreamID{1}, Seq: uint64(n), Index: uint32(i)})
	}
	for _, c := range change {
		c(&d)
	}
	d.Key = fmt.Sprintf("%d/%s/%s/%d", d.Tenant, d.RuleID, d.Entity.Value, n)
	return d
}

func (f *fixture) apply(dets ...event.Detection) []Change {
	f.t.Helper()
	c, err := f.Apply(f.t.Context(), "plan", dets)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fixture) queue(scope access.Scope, q Filter) []Alert {
	f.t.Helper()
	p, err := f.Queue(f.t.Context(), scope, q)
	if err != nil {
		f.t.Fatal(err)
	}
	return p.Alerts
}

func (f *fixture) notices() []Notice {
	f.t.Helper()
	es, err := f.box.List(f.t.Context(), national, outbox.Filter{Limit: 500})
	if err != nil {
		f.t.Fatal(err)
	}
	slices.Reverse(es)
	var out []Notice
	for _, e := range es {
		var n Notice
		if err := json.Unmarshal(e.Payload, &n); err != nil {
			f.t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// recount checks the kept counts against the rows.
func (f *fixture) recount() {
	f.t.Helper()
	var wrong []string
	err := f.db.Read().NewRaw(`
		WITH real AS (
			SELECT tenant, sector, state, escalated_ns > 0 AS escalated, severity, family, '' AS technique, num FROM alerts
			UNION ALL SELECT a.tenant, a.sector, a.state, a.escalated_ns > 0, a.severity, a.family, t.technique, a.num FROM alerts a JOIN alert_techniques t ON t.alert = a.num),
		every AS (SELECT tenant, '' AS sector, state, escalated, severity, family, technique, num FROM real
			UNION ALL SELECT -1, '', state, escalated, severity, family, technique, num FROM real
			UNION ALL SELECT -2, sector, state, escalated, severity, family, technique, num FROM real
			UNION ALL SELECT tenant, '', state, escalated, -1, '', '', num FROM real WHERE technique = ''),
		want AS (SELECT tenant, sector, state, escalated, severity, family, technique, count(*) AS n FROM every GROUP BY 1, 2, 3, 4, 5, 6, 7)
		SELECT 'rows say ' || w.n || ', counts ' || COALESCE(c.n, 'nothing') || ' for ' || w.tenant || ' ' || w.sector || ' ' || w.state || ' ' || w.severity || ' ' || w.family || ' ' || w.technique
			FROM want w LEFT JOIN alert_counts c USING (tenant, sector, state, escalated, severity, family, technique) WHERE c.n IS NOT w.n
		UNION ALL SELECT 'counts say ' || c.n || ' for ' || c.tenant || ' ' || c.state || ' ' || c.family FROM alert_counts c LEFT JOIN want w USING (tenant, sector, state, escalated, severity, family, technique) WHERE w.n IS NULL AND c.n <> 0`).Scan(f.t.Context(), &wrong)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, w := range wrong {
		f.t.Error(w)
	}
}

func TestGrouping(t *testing.T) {
	f := newFixture(t)
	c := f.apply(f.det(1), f.det(2), f.det(3, func(d *event.Detection) { d.Tenant = 2 }), f.det(4, func(d *event.Detection) { d.Family = "vpn.success" }),
		f.det(5, func(d *event.Detection) { d.Entity.Value = "203.0.113.10" }))
	if len(c) != 4 {
		t.Fatalf("%d changes, want 4: %+v", len(c), c)
	}
	a := c[0].Alert
	if c[0].Kind != Opened || c[0].New != 2 || a.Detections != 2 || a.Count != 20 || a.State != StateNew || !a.Open || a.Tenant != 1 || a.Organisation != "Organisation 1" || a.Sector != "education" ||
		a.Title != "Password guessing on the VPN" || a.Source != "203.0.113.9" || a.User != "j.smith" || a.Severity != Medium || a.Details.Text.What != "What vpn-guess" ||
		a.Details.Reason != "10 failed sign-ins, window 2." || len(a.Details.Steps) != 2 || !slices.Equal(a.Details.Techniques, []string{"T1110.003"}) || !strings.HasPrefix(a.Ref, "AL-") {
		t.Errorf("%+v", a)
	}
	if a.Score < 40 || a.Score > 59 || len(a.Details.Scoring) < 2 {
		t.Errorf("score %d of a medium alert: %q", a.Score, a.Details.Scoring)
	}
	for _, id := range []string{a.ID, a.Ref, strings.ToLower(a.Ref)} {
		got, err := f.Get(t.Context(), access.Only(1), id)
		if err != nil || got.ID != a.ID || got.Details.Reason != a.Details.Reason {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
	ev, err := f.Events(t.Context(), access.Only(1), a.ID)
	if err != nil || len(ev) != 6 || ev[0].Seq != 1 || ev[5].Seq != 2 || ev[5].Index != 2 {
		t.Errorf("%v, %v", ev, err)
	}
	c = f.apply(f.det(6))
	if len(c) != 1 || c[0].Kind != Updated || c[0].Alert.ID != a.ID || c[0].Alert.Count != 30 {
		t.Errorf("%+v", c)
	}
	f.recount()
}

// A replay, in the same plan, another plan, or twice in one call, changes nothing.
func TestReplay(t *testing.T) {
	f := newFixture(t)
	dets := []event.Detection{f.det(1), f.det(2), f.det(3, func(d *event.Detection) { d.Family = "scan" })}
	f.apply(dets...)
	before, err := json.Marshal(f.queue(national, Filter{}))
	if err != nil {
		t.Fatal(err)
	}
	f.clock.add(24 * time.Hour)
	for _, plan := range []string{"plan", "other"} {
		if c, err := f.Apply(t.Context(), plan, append(dets, dets...)); err != nil || len(c) != 0 {
			t.Errorf("a replay changed %+v, %v", c, err)
		}
	}
	after, _ := json.Marshal(f.queue(national, Filter{}))
	if string(before) != string(after) {
		t.Errorf("before %s\nafter  %s", before, after)
	}
	if n := len(f.notices()); n != 2 {
		t.Errorf("%d notices", n)
	}
	// The same window, further on: the difference counts.
	more := dets[0]
	more.Count = 25
	c := f.apply(more, more)
	if len(c) != 1 || c[0].Alert.Count != 35 || c[0].Alert.Detections != 2 {
		t.Errorf("%+v", c)
	}
	if c := f.apply(more); len(c) != 0 {
		t.Errorf("%+v", c)
	}
	first := f.det(9, func(d *event.Detection) { d.Entity.Value = "203.0.113.77" })
	grown := first
	grown.Count = 30
	if c := f.apply(first, grown, first); len(c) != 1 || c[0].Alert.Count != 30 || c[0].Alert.Detections != 1 {
		t.Errorf("twice in one call: %+v", c)
	}
	f.recount()
}

func TestStatsAndPrune(t *testing.T) {
	f := newFixture(t)
	f.apply(f.det(1), f.det(2), f.det(1))
	f.apply(f.det(1), f.det(3))
	if _, err := f.Apply(t.Context(), "p", []event.Detection{{}}); err == nil {
		t.Error("nonsense was applied")
	}
	if got, want := f.Stats(), (Stats{Detections: 5, Repeats: 2, Opened: 1, Updated: 1, Failed: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	f.clock.add(6 * 24 * time.Hour)
	if n, err := f.Prune(t.Context(), 0); n != 0 || err != nil {
		t.Error(n, err)
	}
	f.clock.add(2 * 24 * time.Hour)
	if n, err := f.Prune(t.Context(), 0); n != 3 || err != nil {
		t.Error(n, err)
	}
}

func TestApplyRefusesNonsenseWhole(t *testing.T) {
	f := newFixture(t)
	for name, bad := range map[string]func(*event.Detection){
		"level": func(d *event.Detection) { d.Level = "huge" }, "rule": func(d *event.Detection) { d.RuleID = "" },
		"family": func(d *event.Detection) { d.Family = "" }, "entity": func(d *event.Detection) { d.Entity.Kind = "" },
	} {
		if _, err := f.Apply(t.Context(), "p", []event.Detection{f.det(1), f.det(2, bad)}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	noKey := f.det(3)
	noKey.Key = ""
	if _, err := f.Apply(t.Context(), "p", []event.Detection{noKey}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if n := len(f.queue(national, Filter{View: ViewAll})); n != 0 {
		t.Errorf("%d alerts came of it", n)
	}
}

func TestIPv6SourcesShareTheir64(t *testing.T) {
	f := newFixture(t)
	v6 := func(a string) func(*event.Detection) {
		return func(d *event.Detection) { d.Entity.Value, d.Source = a, a }
	}
	c := f.apply(f.det(1, v6("2001:db8:1:2::5")), f.det(2, v6("2001:db8:1:2:ffff::6")), f.det(3, v6("2001:db8:1:3::5")), f.det(4, v6("::ffff:203.0.113.9")), f.det(5))
	if len(c) != 3 || c[0].Alert.Entity != "2001:db8:1:2::/64" || c[0].Alert.Detections != 2 || c[2].Alert.Entity != "203.0.113.9" || c[2].Alert.Detections != 2 {
		t.Errorf("%+v", c)
	}
}

// First at once, then counted at growing intervals, and the last counts are
// told too.
func TestPace(t *testing.T) {
	f := newFixture(t)
	f.apply(f.det(0))
	n := 1
	for range 120 { // two hours, a detection a minute
		f.clock.add(time.Minute)
		if _, err := f.Due(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.apply(f.det(n))
		n++
	}
	got := f.notices()
	var at []string
	for _, x := range got {
		at = append(at, fmt.Sprintf("%s@%dm", x.Kind, time.Duration(x.AtNS-got[0].AtNS)/time.Minute))
	}
	if want := []string{"opened@0m", "updated@1m", "updated@11m", "updated@71m"}; !slices.Equal(at, want) {
		t.Errorf("notices %v, want %v", at, want)
	}
	var told int64
	for _, x := range got {
		told += x.New
	}
	f.clock.add(5 * time.Hour)
	if d, err := f.Due(t.Context()); d != 0 || err != nil {
		t.Errorf("too early: %d, %v", d, err)
	}
	f.clock.add(time.Hour)
	if d, err := f.Due(t.Context()); d != 1 || err != nil {
		t.Errorf("%d, %v", d, err)
	}
	if d, err := f.Due(t.Context()); d != 0 || err != nil {
		t.Errorf("twice: %d, %v", d, err)
	}
	last := f.notices()[4]
	if told+last.New != 1210 || last.Alert.Count != 1210 || last.N != 5 {
		t.Errorf("the notices told of %d+%d events, the alert has %d", told, last.New, last.Alert.Count)
	}
}

func TestSeverityRiseIsToldAtOnce(t *testing.T) {
	f := newFixture(t)
	f.apply(f.det(1))
	f.clock.add(time.Second)
	c := f.apply(f.det(2, func(d *event.Detection) {
		d.Level, d.RuleID, d.RuleTitle = "critical", "vpn-success", "Sign-in after guessing"
	}))
	if len(c) != 1 || c[0].Kind != Escalated || c[0].Alert.Severity != Critical || c[0].Alert.Title != "Sign-in after guessing" || c[0].Alert.Score < 80 || c[0].Alert.Details.Text.What != "What vpn-success" {
		t.Errorf("%+v", c)
	}
	n := f.notices()
	if len(n) != 2 || n[1].Kind != Escalated {
		t.Errorf("%+v", n)
	}
	tl, err := f.Timeline(t.Context(), national, c[0].Alert.ID)
	if err != nil || len(tl) != 2 || tl[1].Kind != "severity" {
		t.Errorf("%+v, %v", tl, err)
	}
	f.recount()
}

func TestLife(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	a := f.apply(f.det(1))[0].Alert
	// A member's person and strangers cannot work the queue.
	for _, p := range []access.Principal{head, other, {}} {
		if _, err := f.Assign(ctx, p, a.ID, "ana"); !errors.Is(err, ErrDenied) {
			t.Errorf("%s assigned: %v", p.Name, err)
		}
		if _, err := f.Close(ctx, p, a.ID, "benign", ""); !errors.Is(err, ErrDenied) {
			t.Errorf("%s closed: %v", p.Name, err)
		}
		if _, err := f.Suppress(ctx, p, a.ID, f.clock.now().Add(time.Hour).UnixNano(), "because"); !errors.Is(err, ErrDenied) {
			t.Errorf("%s suppressed: %v", p.Name, err)
		}
	}
	for _, to := range []string{"nobody", "head"} {
		if _, err := f.Assign(ctx, ana, a.ID, to); !errors.Is(err, ErrInvalid) {
			t.Errorf("assigned to %s: %v", to, err)
		}
	}
	got, err := f.Assign(ctx, ana, a.Ref, "bob")
	if err != nil || got.State != StateAssigned || got.AssigneeName != "Bob" {
		t.Errorf("%+v, %v", got, err)
	}
	f.apply(f.det(2)) // still the same alert, still Bob's
	if _, err := f.Note(ctx, ana, a.ID, "internal: same as last week", false); err != nil {
		t.Error(err)
	}
	if _, err := f.Note(ctx, head, a.ID, "That was our plumber.", false); err != nil {
		t.Error(err)
	}
	if got, err = f.Acknowledge(ctx, head, a.ID, ""); err != nil || got.AcknowledgedNS == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := f.Note(ctx, other, a.ID, "hello", false); !errors.Is(err, ErrNotFound) {
		t.Errorf("a stranger's note: %v", err)
	}
	if got, err = f.Escalate(ctx, ana, a.ID, "needs the duty officer"); err != nil || got.EscalatedNS == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := f.Escalate(ctx, ana, a.ID, "again"); !errors.Is(err, ErrInvalid) {
		t.Errorf("escalated twice: %v", err)
	}
	if n := f.notices(); n[len(n)-1].Kind != Escalated || n[len(n)-1].Note != "needs the duty officer" || n[len(n)-1].By != "Ana Lyst" {
		t.Errorf("%+v", n[len(n)-1])
	}
	if _, err := f.Close(ctx, ana, a.ID, "whatever", ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("verdict: %v", err)
	}
	f.clock.add(time.Minute)
	if got, err = f.Close(ctx, ana, a.ID, "false_positive", "the plumber"); err != nil || got.State != StateClosed || got.Open || got.Verdict != "false_positive" {
		t.Errorf("%+v, %v", got, err)
	}
	for name, err := range map[string]error{
		"close":    second(f.Close(ctx, ana, a.ID, "benign", "")),
		"assign":   second(f.Assign(ctx, ana, a.ID, "ana")),
		"escalate": second(f.Escalate(ctx, ana, a.ID, "")),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s a closed alert: %v", name, err)
		}
	}
	// What happened before it was closed is added to it; what comes after opens another.
	late := f.det(3, func(d *event.Detection) { d.Last = f.clock.now().Add(-30 * time.Second).UnixNano(); d.Late = true })
	if c := f.apply(late); len(c) != 1 || c[0].Kind != Counted || c[0].Alert.ID != a.ID || c[0].Alert.Count != 30 || c[0].Alert.Open {
		t.Errorf("%+v", c)
	}
	f.clock.add(time.Minute)
	c := f.apply(f.det(4))
	if len(c) != 1 || c[0].Kind != Opened || c[0].Alert.ID == a.ID || c[0].Alert.Previous != a.ID {
		t.Errorf("%+v", c)
	}
	if _, err := f.Reopen(ctx, ana, a.ID, ""); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c[0].Alert.Ref) {
		t.Errorf("reopened beside a newer one: %v", err)
	}
	if _, err := f.Close(ctx, ana, c[0].Alert.ID, "duplicate", ""); err != nil {
		t.Error(err)
	}
	if got, err = f.Reopen(ctx, ana, a.ID, "not the plumber after all"); err != nil || got.State != StateAssigned || !got.Open {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := f.Reopen(ctx, ana, a.ID, ""); !errors.Is(err, ErrNotClosed) {
		t.Errorf("%v", err)
	}
	f.clock.add(time.Minute)
	if c := f.apply(f.det(5)); len(c) != 1 || c[0].Alert.ID != a.ID {
		t.Errorf("after reopening: %+v", c)
	}
	if got, err = f.Assign(ctx, ana, a.ID, ""); err != nil || got.State != StateNew {
		t.Errorf("%+v, %v", got, err)
	}
	tl, err := f.Timeline(ctx, national, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, x := range tl {
		kinds = append(kinds, x.Kind)
	}
	if want := []string{"opened", "assigned", "note", "note", "acknowledged", "escalated", "closed", "reopened", "unassigned"}; !slices.Equal(kinds, want) {
		t.Errorf("history %v", kinds)
	}
	own, err := f.Timeline(ctx, access.Only(1), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range own {
		if strings.Contains(x.Text, "internal") || strings.Contains(x.Text, "duty officer") {
			t.Errorf("the member reads %+v", x)
		}
	}
	f.recount()
}

func second(_ Alert, err error) error { return err }

func TestSuppression(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	a := f.apply(f.det(1))[0].Alert
	until := f.clock.now().Add(48 * time.Hour).UnixNano()
	if _, err := f.Suppress(ctx, ana, a.ID, until, ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("without a reason: %v", err)
	}
	if _, err := f.Suppress(ctx, ana, a.ID, f.clock.now().Add(365*24*time.Hour).UnixNano(), "for ever"); !errors.Is(err, ErrInvalid) {
		t.Errorf("for ever: %v", err)
	}
	if _, err := f.Suppress(ctx, ana, a.ID, f.clock.now().UnixNano(), "over already"); !errors.Is(err, ErrInvalid) {
		t.Errorf("in the past: %v", err)
	}
	if _, err := f.AddSuppression(ctx, ana, Suppression{Everywhere: true, Reason: "hide all", ExpiresNS: until}); !errors.Is(err, ErrInvalid) {
		t.Errorf("everything: %v", err)
	}
	got, err := f.Suppress(ctx, ana, a.ID, until, "authorised scanner")
	if err != nil || got.State != StateSuppressed || got.Open {
		t.Fatalf("%+v, %v", got, err)
	}
	f.clock.add(time.Hour)
	notices := len(f.notices())
	c := f.apply(f.det(2))
	if len(c) != 1 || c[0].Kind != Counted || c[0].Alert.ID != a.ID || c[0].Alert.Count != 20 || len(f.notices()) != notices {
		t.Errorf("%+v", c)
	}
	// Another tenant and another family are not touched by it.
	if c := f.apply(f.det(3, func(d *event.Detection) { d.Tenant = 2 }), f.det(3, func(d *event.Detection) { d.Family = "scan" })); len(c) != 2 || c[0].Kind != Opened || c[1].Kind != Opened {
		t.Errorf("%+v", c)
	}
	list, err := f.Suppressions(ctx, access.Only(1))
	if err != nil || len(list) != 1 || list[0].Reason != "authorised scanner" || list[0].OwnerName != "Ana Lyst" || list[0].Hits != 1 || list[0].Tenant != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	for _, scope := range []access.Scope{access.Only(2), {}} {
		if l, err := f.Suppressions(ctx, scope); err != nil || len(l) != 0 {
			t.Errorf("%v sees %v, %v", scope, l, err)
		}
	}
	// It ends: the next detection is an alert again.
	f.clock.add(48 * time.Hour)
	if c := f.apply(f.det(4)); len(c) != 1 || c[0].Kind != Opened || c[0].Alert.Previous != a.ID {
		t.Errorf("%+v", c)
	}
	// Everywhere, by rule; a new group is made suppressed.
	id, err := f.AddSuppression(ctx, ana, Suppression{Everywhere: true, Rule: "vpn-guess", Reason: "the rule is broken", ExpiresNS: f.clock.now().Add(time.Hour).UnixNano()})
	if err != nil {
		t.Fatal(err)
	}
	notices = len(f.notices())
	c = f.apply(f.det(5, func(d *event.Detection) { d.Tenant, d.Entity.Value = 3, "203.0.113.50" }))
	if len(c) != 1 || c[0].Kind != Counted || c[0].Alert.State != StateSuppressed || len(f.notices()) != notices {
		t.Errorf("%+v", c)
	}
	if err := f.EndSuppression(ctx, head, id); !errors.Is(err, ErrDenied) {
		t.Error(err)
	}
	if err := f.EndSuppression(ctx, ana, id); err != nil {
		t.Error(err)
	}
	if err := f.EndSuppression(ctx, ana, id); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if c := f.apply(f.det(6, func(d *event.Detection) { d.Tenant, d.Entity.Value = 3, "203.0.113.50" })); len(c) != 1 || c[0].Kind != Opened {
		t.Errorf("%+v", c)
	}
	if got := f.queue(national, Filter{View: ViewSuppressed}); len(got) != 2 {
		t.Errorf("%d suppressed", len(got))
	}
	f.recount()
}

// Every query asked with the wrong scope.
func TestCrossing(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	a := f.apply(f.det(1))[0].Alert
	centre := f.apply(f.det(2, func(d *event.Detection) { d.Tenant, d.Family = access.Centre, "cross.scan" }))[0].Alert
	scopes := []access.Scope{access.Only(2), access.Only(access.Centre), {}, access.Only(1).Narrow(2)}
	for _, scope := range scopes {
		for _, x := range []Alert{a, centre} {
			for _, id := range []string{x.ID, x.Ref} {
				if _, err := f.Get(ctx, scope, id); !errors.Is(err, ErrNotFound) {
					t.Errorf("%v gets %v", scope, err)
				}
				if _, err := f.Events(ctx, scope, id); !errors.Is(err, ErrNotFound) {
					t.Errorf("%v gets events: %v", scope, err)
				}
				if _, err := f.Timeline(ctx, scope, id); !errors.Is(err, ErrNotFound) {
					t.Errorf("%v gets the history: %v", scope, err)
				}
				if _, err := f.Beside(ctx, scope, id, 5); !errors.Is(err, ErrNotFound) {
					t.Errorf("Beside: %v", err)
				}
				if _, err := f.AlsoSeen(ctx, scope, id); !errors.Is(err, ErrNotFound) {
					t.Errorf("%v gets elsewhere: %v", scope, err)
				}
			}
		}
		for _, view := range []string{ViewAll, ViewOpen, ViewMine} {
			for _, text := range []string{"", "vpn", "password guessing"} {
				p, err := f.Queue(ctx, scope, Filter{View: view, Me: "ana", Text: text, Tenants: []event.TenantID{1, 0}})
				if err != nil || len(p.Alerts) != 0 || p.Total > 0 {
					t.Errorf("%v sees %+v, %v", scope, p, err)
				}
			}
		}
		fc, err := f.Facets(ctx, scope, Filter{Me: "ana"})
		if err != nil || len(fc.Severity)+len(fc.Family)+len(fc.Technique)+len(fc.Sector)+len(fc.Tenant) != 0 {
			t.Errorf("%v counts %+v, %v", scope, fc, err)
		}
		for _, v := range fc.Views {
			if v.Count != 0 {
				t.Errorf("%v counts %+v", scope, v)
			}
		}
		if b, err := f.Between(ctx, scope, 0, 1<<62); err != nil || len(b) != 0 {
			t.Errorf("%v counts %v, %v", scope, b, err)
		}
	}
	for _, scope := range scopes {
		if n, err := f.OpenCounts(ctx, scope); err != nil || len(n) != 0 {
			t.Errorf("%v counts %v, %v", scope, n, err)
		}
		if n, err := f.Unanswered(ctx, scope); err != nil || len(n) != 0 {
			t.Errorf("%v counts %v, %v", scope, n, err)
		}
	}
	if n, err := f.OpenCounts(ctx, access.Only(1)); err != nil || len(n) != 1 || n[Medium] != 1 {
		t.Errorf("%v, %v", n, err)
	}
	if n, err := f.Unanswered(ctx, access.Only(1)); err != nil || len(n) != 1 || n[Medium] != 1 {
		t.Errorf("%v, %v", n, err)
	}
	// The member sees its own and not the centre's.
	if got := f.queue(access.Only(1), Filter{View: ViewAll}); len(got) != 1 || got[0].ID != a.ID {
		t.Errorf("%+v", got)
	}
	if _, err := f.Get(ctx, access.Only(1), centre.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("the member gets the centre's alert: %v", err)
	}
	if got := f.queue(national, Filter{}); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	for name, err := range map[string]error{
		"note":        second(f.Note(ctx, other, a.ID, "x", true)),
		"acknowledge": second(f.Acknowledge(ctx, other, a.ID, "x")),
		"centre":      second(f.Note(ctx, head, centre.ID, "x", true)),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAlsoSeen(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "t.db"), 8)
	var a Alert
	for i := range 7 {
		c := f.apply(f.det(i, func(d *event.Detection) { d.Tenant = event.TenantID(i + 1) }))
		if i == 0 {
			a = c[0].Alert
		}
		e, err := f.AlsoSeen(t.Context(), access.Only(1), a.ID)
		if err != nil || e.Known != (i >= 5) || len(e.Alerts) != 0 || e.Known && e.Members != 5 {
			t.Errorf("seen at %d others: %+v, %v", i, e, err)
		}
	}
	e, err := f.AlsoSeen(t.Context(), national, a.ID)
	if err != nil || e.Members != 6 || len(e.Alerts) != 6 {
		t.Errorf("%+v, %v", e, err)
	}
}

// The other open alerts of a source at the same member, the gravest first, and of nobody else.
func TestBeside(t *testing.T) {
	f := newFixture(t)
	of := func(family, level string, more ...func(*event.Detection)) Alert {
		return f.apply(f.det(1, append(more, func(d *event.Detection) { d.Family, d.Level, d.RuleID = family, level, family })...))[0].Alert
	}
	guess := of("guess", "medium")
	scan, in := of("scan", "low"), of("in", "critical")
	of("elsewhere", "high", func(d *event.Detection) { d.Source, d.Entity.Value = "198.51.100.1", "198.51.100.1" })
	of("at another", "high", func(d *event.Detection) { d.Tenant = 2 })
	if _, err := f.Close(t.Context(), ana, of("over", "high").ID, "benign", ""); err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[int][]string{5: {in.Ref, scan.Ref}, 1: {in.Ref}} {
		list, err := f.Beside(t.Context(), access.Only(1), guess.ID, limit)
		var got []string
		for _, a := range list {
			got = append(got, a.Ref)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
}

// The queue against sorting and filtering the same alerts in memory, for many
// filters, walked page by page.
func TestQueueAgainstMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: -short; one goroutine asks 500 questions, which the race detector makes minutes of")
	}
	f := open(t, filepath.Join(t.TempDir(), "t.db"), 6)
	ctx := t.Context()
	r := rand.New(rand.NewPCG(7, 7))
	levels := []string{"informational", "low", "medium", "high", "critical"}
	var dets []event.Detection
	for i := range 400 {
		dets = append(dets, f.det(i, func(d *event.Detection) {
			d.Tenant = event.TenantID(r.IntN(7))
			d.Level = levels[r.IntN(5)]
			d.Family = fmt.Sprintf("family%d", r.IntN(4))
			d.Entity.Value = fmt.Sprintf("203.0.113.%d", r.IntN(60))
			d.Source = d.Entity.Value
			d.RuleTitle = []string{"Port scan", "Password guessing", "Malware Ünïcode 100%_sure"}[r.IntN(3)]
			d.Tags = [][]string{{"attack.t1046"}, {"attack.t1110"}, {"attack.t1110", "attack.t1046"}, nil}[r.IntN(4)]
			d.Last = f.clock.now().Add(-time.Duration(r.IntN(50)) * time.Minute).UnixNano()
			d.Count = r.IntN(3000)
		}))
	}
	f.apply(dets...)
	all := f.allAlerts()
	for i, a := range all {
		var err error
		switch i % 7 {
		case 1:
			_, err = f.Assign(ctx, ana, a.ID, "ana")
		case 2:
			_, err = f.Close(ctx, ana, a.ID, "benign", "")
		case 3:
			_, err = f.Escalate(ctx, ana, a.ID, "")
		case 4:
			if i%2 == 0 {
				_, err = f.Suppress(ctx, ana, a.ID, f.clock.now().Add(time.Hour).UnixNano(), "noise")
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f.recount()
	all = f.allAlerts()
	filters := []Filter{{}}
	for _, view := range []string{ViewOpen, ViewUnassigned, ViewMine, ViewEscalated, ViewClosed, ViewSuppressed, ViewAll} {
		for _, order := range []string{ByRisk, ByRecent} {
			filters = append(filters, Filter{View: view, Order: order, Me: "ana"}, Filter{View: view, Order: order, Me: "ana", Severity: []Severity{High, Low}},
				Filter{View: view, Order: order, Me: "ana", Family: []string{"family1", "family3"}}, Filter{View: view, Order: order, Me: "ana", Technique: []string{"T1110"}},
				Filter{View: view, Order: order, Me: "ana", Tenants: []event.TenantID{2}}, Filter{View: view, Order: order, Me: "ana", Tenants: []event.TenantID{0, 2, 3}},
				Filter{View: view, Order: order, Me: "ana", Sector: []string{"education"}}, Filter{View: view, Order: order, Me: "ana", Text: "GUESS"},
				Filter{View: view, Order: order, Me: "ana", Text: "113.5", Severity: []Severity{Critical}}, Filter{View: view, Order: order, Me: "ana", Text: "%_s"}, Filter{View: view, Order: order, Me: "ana", Text: "organisation 2"},
				Filter{View: view, Order: order, Me: "ana", Text: `"x" OR *`})
		}
	}
	scopes := []access.Scope{national, access.Only(2), national.Narrow(1, 2, 3)}
	for _, scope := range scopes {
		for _, q := range filters {
			var want []Alert
			for _, a := range all {
				if scope.Covers(a.Tenant) && matches(&a, &q) {
					want = append(want, a)
				}
			}
			slices.SortFunc(want, func(a, b Alert) int {
				qq := query{Filter: q}
				if qq.Order == "" {
					qq.Order = ByRisk
				}
				if qq.before(position{a.Num, a.Score, a.LastNS}, position{b.Num, b.Score, b.LastNS}) {
					return -1
				}
				return 1
			})
			var got []string
			q.Limit = 13
			q.After = ""
			for {
				p, err := f.Queue(ctx, scope, q)
				if err != nil {
					t.Fatalf("%+v: %v", q, err)
				}
				if p.Total >= 0 && int(p.Total) != len(want) {
					t.Errorf("%v %+v: total %d, want %d", scope, q, p.Total, len(want))
				}
				for _, a := range p.Alerts {
					got = append(got, a.ID)
				}
				if q.After = p.Next; q.After == "" {
					break
				}
			}
			var ids []string
			for _, a := range want {
				ids = append(ids, a.ID)
			}
			if !slices.Equal(got, ids) {
				t.Errorf("%v %+v: %d alerts, want %d", scope, q, len(got), len(ids))
			}
		}
	}
	// Facets against memory: each dimension under the other filters.
	for _, scope := range scopes {
		for _, q := range filters {
			if q.Text != "" || len(q.Technique) > 1 {
				continue
			}
			fc, err := f.Facets(ctx, scope, q)
			if err != nil {
				t.Fatalf("%+v: %v", q, err)
			}
			check := func(dim string, got []Facet, without Filter, values func(Alert) []string) {
				want := map[string]int64{}
				for _, a := range all {
					if scope.Covers(a.Tenant) && matches(&a, &without) {
						for _, v := range values(a) {
							want[v]++
						}
					}
				}
				for _, g := range got {
					if want[g.Value] != g.Count {
						t.Errorf("%v %+v: %s %q is %d, want %d", scope, q, dim, g.Value, g.Count, want[g.Value])
					}
					delete(want, g.Value)
				}
				if len(want) != 0 {
					t.Errorf("%v %+v: %s lacks %v", scope, q, dim, want)
				}
			}
			w := q
			w.Severity = nil
			check("severity", fc.Severity, w, func(a Alert) []string { return []string{a.Severity.String()} })
			w = q
			w.Family = nil
			check("family", fc.Family, w, func(a Alert) []string { return []string{a.Family} })
			w = q
			w.Technique = nil
			w = q
			w.Sector = nil
			check("sector", fc.Sector, w, func(a Alert) []string { return []string{a.Sector} })
			w = q
			w.Tenants = nil
			if len(q.Tenants) == 0 {
				check("tenant", fc.Tenant, w, func(a Alert) []string { return []string{fmt.Sprint(a.Tenant)} })
			}
			w = q
			w.Technique = nil
			check("technique", fc.Technique, w, func(a Alert) []string { return a.Details.Techniques })
		}
	}
	for _, bad := range []Filter{{View: "x"}, {Order: "x"}, {View: ViewMine}, {After: "!!"}, {After: "e30"}, {Severity: []Severity{9}}, {Text: strings.Repeat("x", 300)}, {Text: "ab"}} {
		if _, err := f.Queue(ctx, national, bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func matches(a *Alert, q *Filter) bool {
	q2 := *q
	if q2.View == "" {
		q2.View = ViewOpen
	}
	if !slices.Contains(q2.states(), a.State) || q2.View == ViewMine && a.Assignee != q.Me || q2.View == ViewEscalated && a.EscalatedNS == 0 {
		return false
	}
	any := func(values, chosen []string) bool {
		return len(chosen) == 0 || slices.ContainsFunc(values, func(v string) bool { return slices.Contains(chosen, v) })
	}
	return (len(q.Severity) == 0 || slices.Contains(q.Severity, a.Severity)) && (len(q.Tenants) == 0 || slices.Contains(q.Tenants, a.Tenant)) &&
		any([]string{a.Family}, q.Family) && any(a.Details.Techniques, q.Technique) && any([]string{a.Sector}, q.Sector) &&
		(q.Text == "" || strings.Contains(a.words(a.Organisation), strings.ToLower(q.Text)))
}

func (f *fixture) allAlerts() []Alert {
	f.t.Helper()
	var out []Alert
	if err := selectAlerts(f.db.Read(), &out).OrderExpr("a.num").Scan(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	return out
}

func TestEventsAreBounded(t *testing.T) {
	f := newFixture(t)
	var last Alert
	n := 0
	for range 30 {
		var dets []event.Detection
		for range 5 {
			n++
			dets = append(dets, f.det(n))
		}
		last = f.apply(dets...)[0].Alert
	}
	ev, err := f.Events(t.Context(), national, last.ID)
	if err != nil || len(ev) != keepFirst+keepLast || ev[0].Seq != 1 || ev[99].Seq != 34 || ev[199].Seq != 150 || ev[199].Index != 2 {
		t.Errorf("%d events, %v", len(ev), err)
	}
	if len(last.Details.Steps) > maxSteps {
		t.Errorf("%d steps", len(last.Details.Steps))
	}
}

func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	f := open(t, path, 3)
	beside := open(t, path, 3) // another program on the same database
	ctx, cancel := context.WithCancel(t.Context())
	all, err := f.Watch(ctx, national)
	if err != nil {
		t.Fatal(err)
	}
	own, err := f.Watch(ctx, access.Only(2))
	if err != nil {
		t.Fatal(err)
	}
	next := func(c <-chan Change) Change {
		t.Helper()
		select {
		case x := <-c:
			return x
		case <-time.After(10 * time.Second):
			t.Fatal("no change came")
			return Change{}
		}
	}
	a := f.apply(f.det(1))[0].Alert
	if c := next(all); c.Kind != Opened || c.Alert.ID != a.ID || c.Alert.Organisation != "Organisation 1" {
		t.Errorf("%+v", c)
	}
	beside.clock.add(time.Second)
	if _, err := beside.Close(t.Context(), ana, a.ID, "benign", ""); err != nil {
		t.Fatal(err)
	}
	if c := next(all); c.Kind != Ended || c.Alert.Verdict != "benign" {
		t.Errorf("%+v", c)
	}
	b := beside.apply(f.det(2, func(d *event.Detection) { d.Tenant = 2 }))[0].Alert
	if c := next(own); c.Alert.ID != b.ID { // and nothing of tenant 1 before it
		t.Errorf("%+v", c)
	}
	// A reader that sleeps loses changes, is told so, and holds up nobody.
	for i := range 300 {
		f.apply(f.det(10+i, func(d *event.Detection) { d.Tenant, d.Entity.Value = 2, fmt.Sprint("198.51.100.", i) }))
	}
	resync := false
	for end := time.Now().Add(10 * time.Second); !resync && time.Now().Before(end); {
		select {
		case c := <-own:
			resync = c.Kind == Resync
		case <-time.After(time.Second):
		}
	}
	if !resync {
		t.Error("the slow reader was not told")
	}
	cancel()
	for end := time.Now().Add(10 * time.Second); ; {
		if _, ok := <-own; !ok {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the channel was not closed")
		}
	}
}

// Many callers at once: sums are right and no group has two open alerts.
func TestConcurrent(t *testing.T) {
	f := newFixture(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 20 {
				d := f.det(i*8+g, func(d *event.Detection) { d.Entity.Value = fmt.Sprint("203.0.113.", i%3) })
				if _, err := f.Apply(t.Context(), fmt.Sprint(g), []event.Detection{d}); err != nil {
					t.Error(err)
				}
				if g == 0 && i%5 == 4 {
					if p, err := f.Queue(t.Context(), national, Filter{}); err != nil || len(p.Alerts) > 3 {
						t.Errorf("%d open, %v", len(p.Alerts), err)
					}
				}
			}
		})
	}
	wg.Wait()
	var sum int64
	for _, a := range f.queue(national, Filter{View: ViewAll}) {
		sum += a.Count
	}
	if sum != 1600 {
		t.Errorf("%d events, want 1600", sum)
	}
	f.recount()
}
