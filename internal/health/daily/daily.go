// Package daily sees each day that an attack on a member would be noticed. It sends a harmless event, marked as a test, the way that a batch goes
// behind the gate: the blob store under that member's key, the bus, the ledger, the worker, the rules in force. What comes out is caught before it
// becomes an alert (Arrived), so that no member sees it as an attack; its row in the event store is of the class that stands in no figure.
//
// It reads the list of members and the time of day at which to send; it writes the table daily_tests: for each member when the last test was
// sent, under which random number, and when and after how long it arrived. After a crash it goes on from there: a test that was sent is awaited,
// one that was due is sent. A test that has not arrived within the stated time raises an alert of detection health, one for each test missed, and
// once more when nothing at all could be sent.
//
// Nobody can pass the test for the hub: an event counts only with the number that was drawn for this member's last test. What comes with another is
// counted (Stats) and makes no alert either.
package daily

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/db"
	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/internal/health"
)

// Options for New.
type Options struct {
	DB *db.DB
	// Members are those that are tested: the ones with a collector that is live.
	Members func(ctx context.Context) ([]event.TenantID, error)
	// Send puts one event on a member's line. seq rises with each.
	Send func(ctx context.Context, t event.TenantID, seq uint64, e *event.Event, now time.Time) error
	// Raise makes alerts of what is wrong.
	Raise func(ctx context.Context, dets []event.Detection) error
	// At is the time of day, in UTC, after midnight; negative: no tests but on demand.
	At time.Duration
	// Within is how long a test may take.
	Within time.Duration
	Logger *slog.Logger
	Now    func() time.Time
}

// Tests sends and awaits. It may be used from any goroutine.
type Tests struct {
	o       Options
	started int64
	strays  atomic.Uint64 // with a number that nobody drew
}

// Test is a member's last test.
type Test struct {
	bun.BaseModel `bun:"table:daily_tests,alias:t" json:"-"`

	Tenant    event.TenantID `bun:"tenant,pk" json:"tenant"`
	ID        string         `bun:"id" json:"id"`   // random
	Seq       uint64         `bun:"seq" json:"seq"` // how many there were
	SentNS    int64          `bun:"sent_ns" json:"sent_ns,string"`
	ArrivedNS int64          `bun:"arrived_ns" json:"arrived_ns,string"` // 0: not yet
	Missed    bool           `bun:"missed" json:"missed"`                // it was told that it is missing
}

// Latency is how long the test took, 0 while it is on its way.
func (t *Test) Latency() time.Duration {
	if t.ArrivedNS == 0 {
		return 0
	}
	return time.Duration(t.ArrivedNS - t.SentNS)
}

// New makes Tests.
func New(o Options) *Tests {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Tests{o: o, started: o.Now().UnixNano()}
}

// settles is how long a hub must run before it tests members that were never tested: the first hour of a hub is somebody's who is setting it up.
const settles = int64(time.Hour)

// look is how often it is seen what is due and what is missing.
const look = 15 * time.Second

// Run sends tests when they are due and tells of those that do not arrive, until ctx ends.
func (d *Tests) Run(ctx context.Context) error {
	tick := time.NewTicker(min(look, max(time.Second, d.o.Within/4)))
	defer tick.Stop()
	for {
		if err := d.Check(ctx); err != nil && ctx.Err() == nil {
			d.o.Logger.WarnContext(ctx, "the daily tests; it is tried again in a moment", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// due is the last time at which tests should have been sent, ns.
func (d *Tests) due(now time.Time) int64 {
	at := now.UTC().Truncate(24 * time.Hour).Add(d.o.At)
	if at.After(now) {
		at = at.Add(-24 * time.Hour)
	}
	return at.UnixNano()
}

// Check does once what Run does again and again.
func (d *Tests) Check(ctx context.Context) error {
	now := d.o.Now()
	members, err := d.o.Members(ctx)
	if err != nil {
		return err
	}
	list, err := d.List(ctx)
	if err != nil {
		return err
	}
	last := make(map[event.TenantID]*Test, len(list))
	for i := range list {
		last[list[i].Tenant] = &list[i]
	}
	var errs []error
	for _, t := range members {
		x := last[t]
		// While the hub was down nothing could arrive: what was on its way then has its time from the start on. A hub that stood still sends one test, and not those of yesterday too.
		if due := d.due(now); d.o.At >= 0 && (x == nil && due-d.started >= settles || x != nil && x.SentNS < due) {
			if _, err := d.SendNow(ctx, t); err != nil {
				errs = append(errs, fmt.Errorf("member %d: %w", t, err))
			}
			continue
		}
		if x != nil && x.ArrivedNS == 0 && !x.Missed && now.UnixNano()-max(x.SentNS, d.started) > int64(d.o.Within) {
			if err := d.miss(ctx, x, now); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// miss tells that a test did not arrive.
func (d *Tests) miss(ctx context.Context, x *Test, now time.Time) error {
	sent := time.Unix(0, x.SentNS).UTC()
	det := health.Raise(health.RuleDaily, x.Tenant, "the hub", fmt.Sprintf("The test that was sent on %s has not come out of the rules within %v: what this member's collectors send may not become alerts.",
		sent.Format("2 January at 15:04 UTC"), d.o.Within), x.SentNS, now.UnixNano())
	if err := d.o.Raise(ctx, []event.Detection{det}); err != nil {
		return err
	}
	return d.o.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.ExecContext(ctx, "UPDATE daily_tests SET missed = 1 WHERE tenant = ? AND id = ?", x.Tenant, x.ID)
		return err
	})
}

// SendNow sends a test of one member. The number is written down before the test goes: what arrives is known.
func (d *Tests) SendNow(ctx context.Context, t event.TenantID) (Test, error) {
	var id [16]byte
	rand.Read(id[:])
	now := d.o.Now()
	x := Test{Tenant: t, ID: hex.EncodeToString(id[:]), SentNS: now.UnixNano()}
	err := d.o.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		return tx.NewRaw(`INSERT INTO daily_tests (tenant, id, seq, sent_ns, arrived_ns, missed) VALUES (?, ?, 1, ?, 0, 0)
			ON CONFLICT (tenant) DO UPDATE SET id = excluded.id, seq = seq + 1, sent_ns = excluded.sent_ns, arrived_ns = 0, missed = 0 RETURNING seq`, t, x.ID, x.SentNS).Scan(ctx, &x.Seq)
	})
	if err != nil {
		return x, fmt.Errorf("writing down the daily test: %w", err)
	}
	e := &event.Event{Tenant: t, Time: x.SentNS, Created: x.SentNS}
	e.SetString(event.EventKind, "event")
	e.SetString(event.EventModule, "tocsin")
	e.SetString(event.EventDataset, detect.DailyDataset)
	e.SetString(event.EventID, x.ID)
	e.SetString(event.TocsinLeftReason, "daily_test")
	if err := d.o.Send(ctx, t, x.Seq, e, now); err != nil {
		return x, fmt.Errorf("sending the daily test: %w", err) // it is missed after its time, which is true
	}
	return x, nil
}

// Arrived takes the tests out of what rules have found, and writes down that they came. It may be given the same again.
func (d *Tests) Arrived(ctx context.Context, dets []event.Detection) ([]event.Detection, error) {
	n := 0
	for i := range dets {
		if dets[i].RuleID == detect.DailyRule {
			n++
		}
	}
	if n == 0 {
		return dets, nil
	}
	rest := make([]event.Detection, 0, len(dets)-n)
	now := d.o.Now()
	sent := map[event.TenantID]string{} // the last test's number, of those asked for
	came := map[event.TenantID]string{}
	strays := map[event.TenantID]uint64{}
	for _, x := range dets {
		if x.RuleID != detect.DailyRule {
			rest = append(rest, x)
			continue
		}
		// A batch may hold ten thousand that pretend to be one: each must cost no more than a comparison.
		id, asked := sent[x.Tenant]
		if !asked {
			err := d.o.DB.Read().NewSelect().Model((*Test)(nil)).Column("id").Where("tenant = ?", x.Tenant).Scan(ctx, &id)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return nil, fmt.Errorf("reading which daily test was sent: %w", err)
			}
			sent[x.Tenant] = id
		}
		if id == "" || x.Entity.Value != id {
			strays[x.Tenant]++
			continue
		}
		came[x.Tenant] = id
	}
	for t, id := range came {
		err := d.o.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
			_, err := tx.ExecContext(ctx, "UPDATE daily_tests SET arrived_ns = ? WHERE tenant = ? AND id = ? AND arrived_ns = 0", now.UnixNano(), t, id)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("writing down that a daily test arrived: %w", err)
		}
	}
	for t, n := range strays {
		d.strays.Add(n)
		d.o.Logger.WarnContext(ctx, "daily tests that are not the last one sent; they make no alert", "tenant", t, "count", n)
	}
	return rest, nil
}

// List gives every member's last test.
func (d *Tests) List(ctx context.Context) ([]Test, error) {
	var out []Test
	if err := d.o.DB.Read().NewSelect().Model(&out).Order("tenant").Scan(ctx); err != nil {
		return nil, fmt.Errorf("reading the daily tests: %w", err)
	}
	return out, nil
}

// Strays is how many tests came with a number that was not the last one's.
func (d *Tests) Strays() uint64 { return d.strays.Load() }

// ParseTime reads a time of day, "05:30"; "off" is none.
func ParseTime(s string) (time.Duration, error) {
	if s == "off" {
		return -1, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, fmt.Errorf("%q is no time of day; write it as 05:30, in UTC, or off", s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}
