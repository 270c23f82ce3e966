package layer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/db"
	"tocsin/internal/detect"
	"tocsin/internal/detect/layers"
	"tocsin/internal/event"
)

const text = `title: Bad word
id: 00000000-0000-4000-8000-000000000001
name: bad_word
description: Constructed.
level: high
logsource: {category: proxy}
detection:
  selection: {url.path|contains: bad}
  condition: selection
tocsin: {runs: hub, family: bad, entity: source, reason: "{source.ip}", member: {title: t, what: w, do: d}}
---
title: Sign-in failed
id: 00000000-0000-4000-8000-000000000002
name: failed
logsource: {category: authentication}
detection:
  selection: {event.outcome: failure}
  condition: selection
---
title: Guessing
id: 00000000-0000-4000-8000-000000000003
name: guessing
level: medium
correlation: {type: event_count, rules: [failed], group-by: [source.ip], timespan: 10m, condition: {gte: 3}}
tocsin: {runs: hub, family: guessing, entity: source, reason: "{source.ip}", member: {title: t, what: w, do: d}}
---
title: Let in
id: 00000000-0000-4000-8000-000000000004
name: let_in
logsource: {category: authentication}
detection:
  selection: {event.outcome: success}
  condition: selection
---
title: Took over
id: 00000000-0000-4000-8000-000000000005
level: critical
correlation: {type: temporal_ordered, rules: [guessing, let_in], group-by: [source.ip], timespan: 1h}
tocsin: {runs: site, family: takeover, entity: source, reason: "{source.ip}", member: {title: t, what: w, do: d}}
---
title: Everywhere
id: 00000000-0000-4000-8000-000000000006
level: high
correlation: {type: value_count, rules: [bad_word], group-by: [source.ip], timespan: 1h, generate: true, condition: {field: tocsin.tenant, gte: 2}}
tocsin: {runs: hub, family: campaign, entity: source, across: true, reason: "{source.ip}", member: {title: t, what: w, do: d}}
`

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func catalogue(t testing.TB) *detect.Catalogue {
	t.Helper()
	cat, err := detect.Load(fstest.MapFS{"rules.yml": {Data: []byte(text)}})
	if err != nil || len(cat.Errors) > 0 {
		t.Fatal(err, cat.Errors)
	}
	return cat
}

type rig struct {
	t     *testing.T
	db    *db.DB
	store *Store
	cat   *detect.Catalogue
	clock time.Time
}

func newRig(t *testing.T) *rig {
	d, err := db.Open(t.Context(), db.Options{Path: filepath.Join(t.TempDir(), "x.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	r := &rig{t: t, db: d, cat: catalogue(t), clock: now}
	r.store = New(d, Options{Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return r.clock }})
	for id, area := range map[int]string{1: "North", 2: "north", 3: "South"} {
		err := d.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error {
			_, err := db.Bound(tx).ExecContext(ctx, "INSERT INTO tenants (id, name, area, created_ns) VALUES (?, ?, ?, 1)", id, fmt.Sprint("member ", id), area)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *rig) refresh() {
	r.t.Helper()
	if err := r.store.Refresh(r.t.Context(), r.cat); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) add(l Layer) Layer {
	r.t.Helper()
	if l.Reason == "" {
		l.Reason, l.Owner = "it is meant to be so", "IT support"
	}
	l, err := r.store.Add(r.t.Context(), "system:test", l, r.cat)
	if err != nil {
		r.t.Fatal(err)
	}
	r.refresh()
	return l
}

func det(tenant event.TenantID, rule, source, key string) event.Detection {
	return event.Detection{Tenant: tenant, RuleID: "00000000-0000-4000-8000-00000000000" + rule, RuleTitle: "x", Level: "high", Entity: event.Entity{Kind: "source", Value: source}, Source: source, Key: key, Count: 1, First: 1, Last: 2}
}

func (r *rig) pass(dets ...event.Detection) string {
	r.t.Helper()
	out, err := r.store.Filter(r.t.Context(), dets)
	if err != nil {
		r.t.Fatal(err)
	}
	var s []string
	for _, d := range out {
		s = append(s, d.Key+":"+d.Level)
	}
	return strings.Join(s, " ")
}

// The same rule, four members of three regions, layers of every kind and scope.
func TestScopes(t *testing.T) {
	r := newRig(t)
	all := func() string {
		return r.pass(det(1, "1", "192.0.2.1", "a"), det(2, "1", "192.0.2.2", "b"), det(3, "1", "192.0.2.3", "c"), det(0, "6", "192.0.2.3", "d"))
	}
	if got := all(); got != "a:high b:high c:high d:high" {
		t.Errorf("without layers: %s", got)
	}
	off := r.add(Layer{Kind: Off, Rule: "bad_word", Scope: Region, Region: "NORTH"})
	if got := all(); got != "c:high d:high" {
		t.Errorf("switched off in the north: %s", got)
	}
	dets := []event.Detection{det(1, "1", "192.0.2.1", "a"), det(3, "1", "192.0.2.3", "c")}
	r.pass(dets...)
	if dets[0].Key != "a" || dets[1].Key != "c" {
		t.Errorf("what was given was changed: %+v", dets)
	}
	if got := all(); got != "c:high d:high" { // again, as after a crash
		t.Errorf("again: %s", got)
	}
	list, err := r.store.List(t.Context(), false)
	if err != nil || len(list) != 1 || list[0].Hits != 2 {
		t.Fatalf("a replay was counted twice: %+v %v", list, err)
	}
	lines, err := r.store.Lines(t.Context(), off.ID, 10)
	if err != nil || len(lines) != 2 || r.store.Suppressed() != 2 {
		t.Errorf("%+v, %d, %v", lines, r.store.Suppressed(), err)
	}
	if _, err := r.store.End(t.Context(), "system:test", off.ID, "no longer"); err != nil {
		t.Fatal(err)
	}
	r.refresh()
	r.add(Layer{Kind: Level, Rule: "bad_word", Scope: Scheme, Level: "low"})
	r.add(Layer{Kind: Level, Rule: "bad_word", Scope: Member, Tenant: 2, Level: "critical"})
	if got := all(); got != "a:low b:critical c:low d:high" {
		t.Errorf("levels: %s", got)
	}
	r.add(Layer{Kind: Off, Rule: "Everywhere", Scope: Scheme})
	r.add(Layer{Kind: Off, Rule: "bad_word", Scope: Member, Tenant: 1})
	if got := all(); got != "b:critical c:low" {
		t.Errorf("off: %s", got)
	}
}

// An exception is asked for each event of a rule of the hub, and of a detection where that is all there is.
func TestExceptions(t *testing.T) {
	r := newRig(t)
	r.add(Layer{Kind: Except, Rule: "failed", Scope: Member, Tenant: 1, Field: "user.name", Value: "backup*", Expires: now.Add(time.Hour).UnixNano()})
	r.add(Layer{Kind: Except, Rule: "guessing", Scope: Scheme, Field: "source.ip", Value: "198.51.100.0/24", Expires: now.Add(time.Hour).UnixNano()})
	r.add(Layer{Kind: Except, Rule: "Took over", Scope: Scheme, Field: "user.name", Value: "monitor", Expires: now.Add(time.Hour).UnixNano()})
	e, err := detect.New(detect.Options{Catalogue: r.cat, Where: detect.Hub, Exceptions: func() detect.Exceptions { return r.store.Set() }})
	if err != nil {
		t.Fatal(err)
	}
	fire := func(tenant event.TenantID, user, source string) (n int) {
		var dets []event.Detection
		for i := range 3 {
			var ev event.Event
			ev.Tenant, ev.Created = tenant, r.clock.UnixNano()+int64(i)
			ev.SetString(event.EventCategory, "authentication")
			ev.SetString(event.EventOutcome, "failure")
			ev.SetString(event.UserName, user)
			ev.SetText(event.SourceIP, source)
			dets = append(dets, e.Process(&ev, ev.Created)...)
		}
		out, err := r.store.Filter(t.Context(), dets)
		if err != nil {
			t.Fatal(err)
		}
		return len(out)
	}
	for _, x := range []struct {
		tenant       event.TenantID
		user, source string
		want         int
	}{
		{1, "Backup7", "192.0.2.1", 0}, {1, "head", "192.0.2.2", 1}, {2, "backup7", "192.0.2.3", 1}, {2, "head", "198.51.100.9", 0}, {2, "head", "198.51.101.9", 1},
	} {
		if got := fire(x.tenant, x.user, x.source); got != x.want {
			t.Errorf("member %d, %s from %s: %d detections, want %d", x.tenant, x.user, x.source, got, x.want)
		}
	}
	d := det(1, "5", "192.0.2.9", "site")
	d.User = "Monitor"
	if got := r.pass(d); got != "" {
		t.Errorf("a detection of a site passed: %s", got)
	}
	r.refresh() // writes the hits
	list, err := r.store.List(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]int64{0: 1, 1: 1, 2: 3} { // the newest first; events for the rule that is counted
		if list[i].Hits != want {
			t.Errorf("%s: %d hits, want %d", list[i].Sentence(), list[i].Hits, want)
		}
	}
	// Past its end an exception does nothing, even before anybody looked; then it is said.
	r.clock = now.Add(2 * time.Hour)
	if got := fire(1, "backup7", "192.0.2.1"); got != 1 {
		t.Error("an exception works past its end")
	}
	r.refresh()
	open, err := r.store.List(t.Context(), false)
	if err != nil || len(open) != 0 {
		t.Errorf("%+v %v", open, err)
	}
	var n int
	if err := db.Bound(r.db.Read()).QueryRowContext(t.Context(), "SELECT COUNT(*) FROM audit WHERE action = 'rule layer expired'").Scan(&n); err != nil || n != 3 {
		t.Errorf("%d lines in the audit trail, %v", n, err)
	}
	every, err := r.store.List(t.Context(), true)
	if err != nil || len(every) != 3 || every[0].State(r.clock) != "expired" {
		t.Errorf("%+v %v", every, err)
	}
}

func TestRefusedLayers(t *testing.T) {
	r := newRig(t)
	year := now.Add(30 * 24 * time.Hour).UnixNano()
	for name, l := range map[string]Layer{
		"no such rule":        {Kind: Off, Rule: "nothing", Scope: Scheme},
		"no such kind":        {Kind: "mute", Rule: "bad_word", Scope: Scheme},
		"no such scope":       {Kind: Off, Rule: "bad_word", Scope: "world"},
		"no such member":      {Kind: Off, Rule: "bad_word", Scope: Member, Tenant: 99},
		"no member":           {Kind: Off, Rule: "bad_word", Scope: Member},
		"no region":           {Kind: Off, Rule: "bad_word", Scope: Region},
		"no level":            {Kind: Level, Rule: "bad_word", Scope: Scheme, Level: "loud"},
		"no reason":           {Kind: Off, Rule: "bad_word", Scope: Scheme, Reason: "x", Owner: "IT"},
		"no owner":            {Kind: Off, Rule: "bad_word", Scope: Scheme, Reason: "because it is", Owner: ""},
		"in the past":         {Kind: Off, Rule: "bad_word", Scope: Scheme, Expires: now.UnixNano() - 1},
		"counts for others":   {Kind: Off, Rule: "failed", Scope: Scheme},
		"across, for one":     {Kind: Off, Rule: "Everywhere", Scope: Member, Tenant: 1},
		"without an end":      {Kind: Except, Rule: "bad_word", Scope: Scheme, Field: "source.ip", Value: "192.0.2.1"},
		"too long":            {Kind: Except, Rule: "bad_word", Scope: Scheme, Field: "source.ip", Value: "192.0.2.1", Expires: now.Add(400 * 24 * time.Hour).UnixNano()},
		"everybody":           {Kind: Except, Rule: "bad_word", Scope: Scheme, Field: "source.ip", Value: "0.0.0.0/0", Expires: year},
		"everything":          {Kind: Except, Rule: "bad_word", Scope: Scheme, Field: "url.path", Value: "*", Expires: year},
		"no value":            {Kind: Except, Rule: "bad_word", Scope: Scheme, Field: "source.ip", Expires: year},
		"no such field":       {Kind: Except, Rule: "bad_word", Scope: Scheme, Field: "nothing.at.all", Value: "x", Expires: year},
		"not said on a count": {Kind: Except, Rule: "guessing", Scope: Scheme, Field: "url.path", Value: "x", Expires: year},
	} {
		if l.Reason == "" {
			l.Reason, l.Owner = "it is meant to be so", "IT support"
		}
		_, err := r.store.Add(t.Context(), "system:test", l, r.cat)
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l := Layer{Kind: Off, Rule: "bad_word", Scope: Scheme}
	r.add(l)
	l.Reason, l.Owner = "it is meant to be so", "IT support"
	if _, err := r.store.Add(t.Context(), "system:test", l, r.cat); !errors.Is(err, ErrInvalid) {
		t.Errorf("the same twice: %v", err)
	}
}

// Layers outlive the rules they are about, and work again when the rules come back.
func TestSurvivesUpdates(t *testing.T) {
	r := newRig(t)
	r.add(Layer{Kind: Off, Rule: "bad_word", Scope: Scheme})
	empty, err := detect.Load(fstest.MapFS{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.Refresh(t.Context(), empty); err != nil {
		t.Fatal(err)
	}
	if got := r.pass(det(1, "1", "192.0.2.1", "a")); got != "a:high" {
		t.Error(got)
	}
	r.refresh()
	if got := r.pass(det(1, "1", "192.0.2.1", "a")); got != "" {
		t.Error(got)
	}
}

func BenchmarkApply(b *testing.B) {
	cat := catalogue(b)
	var list []Layer
	for n := range 1000 {
		list = append(list, Layer{ID: int64(n + 1), Kind: Except, Rule: "00000000-0000-4000-8000-000000000005", Scope: Member, Tenant: event.TenantID(n + 1), Field: "source.ip", Value: "192.0.2.1"})
	}
	s := layers.NewSet(list, nil, cat)
	dets := []event.Detection{det(7, "5", "192.0.2.2", "a")}
	for b.Loop() {
		s.Apply(dets, now)
	}
}
