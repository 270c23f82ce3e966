package daily

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tocsin/internal/db"
	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/internal/health"
	"tocsin/rules"
)

// bench is a hub's rules with the tests beside, and a line between them that can be cut.
type bench struct {
	d      *Tests
	rules  *detect.Engine
	now    time.Time
	cut    bool
	away   bool   // the line cannot be asked
	held   bool   // what is sent waits in the line
	last   uint64 // place of the line
	done   uint64
	sent   []event.TenantID
	seqs   []uint64
	raised []event.Detection
	hears  func()            // siteBench
	alerts []event.Detection // what came out beside the tests

	waiting []func() error
}

func newBench(t *testing.T, dir string) *bench {
	t.Helper()
	d, err := db.Open(context.Background(), db.Options{Path: filepath.Join(dir, "hub.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	cat, err := detect.Load(rules.FS)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{now: time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)}
	if b.rules, err = detect.New(detect.Options{Catalogue: cat, Where: detect.Hub}); err != nil {
		t.Fatal(err)
	}
	b.d = New(Options{DB: d, At: 5*time.Hour + 30*time.Minute, Within: 10 * time.Minute, Now: func() time.Time { return b.now },
		Members: func(context.Context) ([]event.TenantID, error) { return []event.TenantID{7, 9}, nil },
		Send: func(ctx context.Context, tenant event.TenantID, seq uint64, e *event.Event, now time.Time) (uint64, error) {
			b.sent, b.seqs = append(b.sent, tenant), append(b.seqs, seq)
			if b.cut {
				return 0, errors.New("the bus is away")
			}
			b.last++
			if b.held {
				b.waiting = append(b.waiting, func() error { return b.process(ctx, tenant, e.AppendJSON(nil)) })
				return b.last, nil
			}
			b.done = b.last
			return b.last, b.process(ctx, tenant, e.AppendJSON(nil))
		},
		Line: func(context.Context) (uint64, uint64, error) {
			if b.away {
				return 0, 0, errors.New("the bus is away")
			}
			return b.last, b.done, nil
		},
		Raise: func(_ context.Context, dets []event.Detection) error {
			b.raised = append(b.raised, dets...)
			return nil
		}})
	return b
}

// process is the way of an event from its form in a batch through the rules.
func (b *bench) process(ctx context.Context, tenant event.TenantID, line []byte) error {
	var e event.Event
	if err := event.DecodeJSON(&e, line); err != nil {
		return err
	}
	e.Tenant = tenant
	b.now = b.now.Add(40 * time.Millisecond)
	rest, err := b.d.Arrived(ctx, b.rules.Process(&e, b.now.UnixNano()))
	b.alerts = append(b.alerts, rest...)
	return err
}

func (b *bench) check(t *testing.T) {
	t.Helper()
	if err := b.d.Check(t.Context()); err != nil && !b.cut && !b.away {
		t.Fatal(err)
	}
}

func (b *bench) list(t *testing.T) []Test {
	t.Helper()
	l, err := b.d.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A young hub tests nobody.
func TestYoung(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.d.started = b.now.Add(45 * time.Minute).UnixNano()
	b.now = b.now.Add(91 * time.Minute)
	b.check(t)
	if len(b.sent) != 0 {
		t.Errorf("sent to %v", b.sent)
	}
	if _, err := b.d.SendNow(t.Context(), 7); err != nil || b.list(t)[0].ArrivedNS == 0 { // on demand it does
		t.Errorf("%v, %+v", err, b.list(t))
	}
}

// A test of each member goes once a day at its time, is found by the rules in force, measured, and makes no alert.
func TestArrives(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, dir)
	b.now = b.now.Add(89 * time.Minute) // a minute before its time
	b.check(t)
	if len(b.sent) != 0 {
		t.Fatalf("sent to %v", b.sent)
	}
	b.now = b.now.Add(2 * time.Minute)
	b.check(t)
	b.check(t)
	if len(b.sent) != 2 {
		t.Fatalf("sent to %v", b.sent)
	}
	for _, x := range b.list(t) {
		if x.Latency() <= 0 || x.Latency() > time.Second || x.Missed {
			t.Errorf("%+v", x)
		}
	}
	b.now = b.now.Add(24 * time.Hour)
	b.check(t)
	b.check(t)
	if len(b.sent) != 4 || b.seqs[3] != 2 {
		t.Fatalf("sent to %v, %v", b.sent, b.seqs)
	}
	again := newBench(t, dir) // after a restart nothing is sent twice
	again.now = b.now.Add(time.Hour)
	again.check(t)
	if len(again.sent) != 0 {
		t.Errorf("sent again to %v", again.sent)
	}
	again.now = b.now.Add(24 * time.Hour)
	again.check(t)
	if len(again.sent) != 2 {
		t.Errorf("the next day: %v", again.sent)
	}
	if len(b.raised)+len(b.alerts)+len(again.raised)+len(again.alerts) != 0 {
		t.Errorf("alerts: %v %v %v %v", b.raised, b.alerts, again.raised, again.alerts)
	}
}

// A test that does not arrive within its time raises one alert, the next one that is missed another.
func TestMissed(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.cut = true
	b.now = b.now.Add(100 * time.Minute)
	b.check(t)
	b.now = b.now.Add(9 * time.Minute)
	b.check(t)
	if len(b.raised) != 0 {
		t.Fatalf("raised before its time: %v", b.raised)
	}
	b.now = b.now.Add(2 * time.Minute)
	for range 3 {
		b.check(t)
	}
	if len(b.raised) != 2 {
		t.Fatalf("%d alerts for two members", len(b.raised))
	}
	x := b.raised[len(b.raised)-1]
	if x.RuleID != health.RuleDaily || x.Tenant != 9 || !strings.Contains(x.Reason, "05:40 UTC") {
		t.Errorf("%+v", x)
	}
	b.cut = false
	b.now = b.now.Add(24 * time.Hour)
	b.check(t)
	b.now = b.now.Add(time.Hour)
	b.check(t)
	if len(b.raised) != 2 {
		t.Errorf("an alert although the tests arrive again: %v", b.raised)
	}
}

// With the whole bus away the line cannot be asked either: what could not be sent is missed all the same.
func TestMissedWithoutLine(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.cut, b.away = true, true
	b.now = b.now.Add(100 * time.Minute)
	if err := b.d.Check(t.Context()); err == nil {
		t.Error("nobody learns that the line cannot be asked")
	}
	if len(b.sent) != 2 {
		t.Fatalf("sending was tried for %v", b.sent)
	}
	b.now = b.now.Add(11 * time.Minute)
	for range 3 {
		b.check(t)
	}
	if len(b.raised) != 2 || b.raised[0].RuleID != health.RuleDaily || b.raised[0].Tenant != 7 || b.raised[1].Tenant != 9 {
		t.Errorf("%+v", b.raised)
	}
}

// A line that cannot be asked for a moment does not make a member's fault of tests that wait in it, and the operator is not told again.
func TestBehindWithoutLine(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.check(t)
	b.last, b.done, b.held = 900, 40, true
	b.now = b.now.Add(100 * time.Minute)
	b.check(t)
	b.now = b.now.Add(11 * time.Minute)
	for i := range 5 {
		b.away = i%2 == 0
		b.check(t)
	}
	if len(b.raised) != 1 || b.raised[0].RuleID != health.RuleDetector {
		t.Errorf("%+v", b.raised)
	}
}

// What was on its way when the hub went down has its time from the start on.
func TestMissedAfterRestart(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, dir)
	b.cut = true
	b.now = b.now.Add(100 * time.Minute)
	b.check(t)
	again := newBench(t, dir)
	again.now = b.now.Add(3 * time.Hour)
	again.d.started = again.now.UnixNano()
	again.check(t)
	if len(again.raised) != 0 {
		t.Errorf("raised at the start: %v", again.raised)
	}
	again.now = again.now.Add(11 * time.Minute)
	again.check(t)
	if len(again.raised) != 2 {
		t.Errorf("%d alerts for two members", len(again.raised))
	}
}

// While the line has not come to the tests the hub is behind: the operator is told once, and no member. What the line passed by is missed.
func TestBehind(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, dir)
	b.check(t)
	b.last, b.done, b.held = 900, 40, true
	b.now = b.now.Add(100 * time.Minute)
	b.check(t)
	b.now = b.now.Add(11 * time.Minute)
	for range 3 {
		b.check(t)
	}
	if len(b.raised) != 1 || b.raised[0].RuleID != health.RuleDetector || b.raised[0].Tenant != 0 || !strings.Contains(b.raised[0].Reason, "862 batches") || !strings.Contains(b.raised[0].Reason, "2 members") {
		t.Fatalf("%+v", b.raised)
	}
	again := newBench(t, dir) // a restart in the middle of it
	again.last, again.done, again.now = 902, 41, b.now
	again.check(t)
	again.now = again.now.Add(11 * time.Minute)
	again.check(t)
	if len(again.raised) != 1 || again.raised[0].Key != b.raised[0].Key {
		t.Fatalf("after a restart: %+v", again.raised)
	}
	if err := b.waiting[0](); err != nil {
		t.Fatal(err)
	}
	b.done = 902 // the second came out of the line as nothing
	b.check(t)
	if len(b.raised) != 2 || b.raised[1].RuleID != health.RuleDaily || b.raised[1].Tenant != 9 {
		t.Errorf("%+v", b.raised)
	}
}

// A clock that was put back stops no tests.
func TestSentInTheFuture(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.now = b.now.Add(100 * time.Minute)
	b.check(t)
	b.now = b.now.AddDate(-1, 0, 0)
	for range 3 {
		b.check(t)
	}
	if len(b.sent) != 4 || b.d.Ahead() != 2 {
		t.Fatalf("sent to %v, %d were ahead", b.sent, b.d.Ahead())
	}
	b.now = b.now.Add(24 * time.Hour)
	b.check(t)
	if len(b.sent) != 6 || len(b.raised) != 0 {
		t.Errorf("the day after: sent to %v, raised %v", b.sent, b.raised)
	}
	for _, x := range b.list(t) {
		if x.SentNS > b.now.UnixNano() || x.Latency() <= 0 {
			t.Errorf("%+v", x)
		}
	}
}

// Nobody but the hub makes a test arrive, and what pretends to be one is no alert either.
func TestStray(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.cut = true
	b.now = b.now.Add(100 * time.Minute)
	b.check(t)
	e := &event.Event{Created: b.now.UnixNano()}
	e.SetString(event.EventDataset, detect.DailyDataset)
	e.SetString(event.TocsinLeftReason, "daily_test")
	e.SetString(event.EventID, b.list(t)[1].ID) // another member's
	if err := b.process(t.Context(), 7, e.AppendJSON(nil)); err != nil {
		t.Fatal(err)
	}
	if l := b.list(t); l[0].ArrivedNS != 0 || l[1].ArrivedNS != 0 || b.d.Strays() != 1 || len(b.alerts) != 0 {
		t.Errorf("%+v, %d strays, alerts %v", l, b.d.Strays(), b.alerts)
	}
	e.SetString(event.TocsinLeftReason, "denied_inbound") // not marked
	if err := b.process(t.Context(), 7, e.AppendJSON(nil)); err != nil || b.d.Strays() != 1 || len(b.alerts) != 0 {
		t.Errorf("%v, %d strays, alerts %v", err, b.d.Strays(), b.alerts)
	}
}

// Thousands that pretend to be a test are counted, and the real one among them arrives, however often it comes.
func TestManyStrays(t *testing.T) {
	b := newBench(t, t.TempDir())
	b.cut = true
	b.now = b.now.Add(100 * time.Minute)
	b.check(t)
	sent := b.list(t)[0]
	dets := []event.Detection{{RuleID: "another", Tenant: sent.Tenant}}
	for i := range 10_000 {
		x := event.Detection{RuleID: detect.DailyRule, Tenant: sent.Tenant}
		if x.Entity.Value = "forged"; i%2 == 0 {
			x.Entity.Value = sent.ID
		}
		dets = append(dets, x)
	}
	rest, err := b.d.Arrived(t.Context(), dets)
	if err != nil || len(rest) != 1 || rest[0].RuleID != "another" || b.d.Strays() != 5000 {
		t.Errorf("%d left, %d strays, %v", len(rest), b.d.Strays(), err)
	}
	if l := b.list(t); l[0].ArrivedNS != b.now.UnixNano() || l[1].ArrivedNS != 0 {
		t.Errorf("%+v", l)
	}
}

func TestParseTime(t *testing.T) {
	for s, want := range map[string]time.Duration{"05:30": 5*time.Hour + 30*time.Minute, "00:00": 0, "23:59": 24*time.Hour - time.Minute, "off": -1} {
		if d, err := ParseTime(s); err != nil || d != want {
			t.Errorf("%s: %v, %v", s, d, err)
		}
	}
	for _, s := range []string{"", "24:00", "5.30", "-1:00", "05:30:00"} {
		if d, err := ParseTime(s); err == nil {
			t.Errorf("%q: %v", s, d)
		}
	}
}

// A test from before a start is not missed while nobody can say how far the line is.
func TestLineAwayAtTheStart(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, dir)
	b.held = true
	b.now = b.now.Add(100 * time.Minute)
	b.check(t)
	again := newBench(t, dir)
	again.last, again.away = b.last, true
	again.now = b.now.Add(time.Minute)
	again.d.started = again.now.UnixNano()
	again.check(t)
	again.now = again.now.Add(11 * time.Minute)
	again.check(t)
	if len(again.raised) != 0 {
		t.Fatalf("missed although they may stand in the line: %+v", again.raised)
	}
	again.away, again.done = false, again.last // worked off, and they were not there
	again.check(t)
	if len(again.raised) != 2 {
		t.Errorf("%+v", again.raised)
	}
}
