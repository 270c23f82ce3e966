// Package daily sees each day that an attack on a member would be noticed, by two tests. One goes the whole way from the socket of each collector (sites.go).
// The other is the hub's own, for members whose collectors know no test too: a harmless event, marked as a test, goes the way that a batch goes behind the gate: the blob store under that member's key, the bus, the ledger, the worker, the rules in force. What comes out is caught before it
// becomes an alert (Arrived), so that no member sees it as an attack; its row in the event store is of the class that stands in no figure.
//
// It reads the lists of members and collectors and the time of day at which to send; it writes the tables daily_tests and daily_sites: for each member when the last test was
// sent, under which random number, and when and after how long it arrived. After a crash it goes on from there: a test that was sent is awaited,
// one that was due is sent. A test that has not arrived within the stated time raises an alert of detection health, one for each test missed, and
// once more when nothing at all could be sent. Whether it is missing is judged by the line's own place: while the line has not come to a test, the hub
// is behind and nothing is wrong with that member, so that one alert tells the operator, however many members wait. A test that says it was sent in the
// future, since the clock was put back, is sent anew.
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
	"sync"
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
	// Send puts one event on a member's line, and says at which place of the line it stands. seq rises with each.
	Send func(ctx context.Context, t event.TenantID, seq uint64, e *event.Event, now time.Time) (place uint64, err error)
	// Line says which place of the line is the newest, and up to which all is worked off.
	Line func(ctx context.Context) (last, done uint64, err error)
	// Collectors are those whose own test is awaited; nil: none.
	Collectors func(ctx context.Context) ([]Collector, error)
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
	ahead   atomic.Uint64 // said to be sent in the future

	mu     sync.Mutex                // guards the rest
	places map[event.TenantID]uint64 // of tests that were sent since the start
	first  uint64                    // the newest place of the line at the first look: tests from before the start stand no further
	looked bool                      // first is known
	told   bool                      // that the line is behind

	sitesMu sync.Mutex        // guards what follows, and is held while it is written
	sites   map[string]*Site  // by collector; nil: not read yet
	numbers map[string]*Site  // by number
	asked   map[string]bool   // collectors to be tested whatever the time
	marks   map[string]uint64 // the newest place of the line when a collector's test was over
	heard   map[string]hearing
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
	return time.Duration(max(1, t.ArrivedNS-t.SentNS)) // the clock may have been put
}

// New makes Tests.
func New(o Options) *Tests {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Tests{o: o, started: o.Now().UnixNano(), places: map[event.TenantID]uint64{}, asked: map[string]bool{}, marks: map[string]uint64{}, heard: map[string]hearing{}}
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
	var (
		errs    []error
		waiting []*Test // for the line
	)
	newest, done, err := d.o.Line(ctx)
	away := err != nil
	if away { // tests are due all the same, and one that could not be sent is missed; what stands in the line waits until it can be asked
		newest, done, errs = 0, 0, append(errs, fmt.Errorf("asking how far the line is: %w", err))
	} else {
		d.mu.Lock()
		if !d.looked {
			d.first, d.looked = newest, true
		}
		d.mu.Unlock()
	}
	for _, t := range members {
		x := last[t]
		if x != nil && x.SentNS > now.UnixNano()+int64(clockSlack) {
			d.ahead.Add(1)
			d.o.Logger.WarnContext(ctx, "the last daily test was sent in the future, by its time: the clock of this machine was put back; it is sent anew", "tenant", t, "sent", time.Unix(0, x.SentNS).UTC())
			if _, err := d.SendNow(ctx, t); err != nil {
				errs = append(errs, fmt.Errorf("member %d: %w", t, err))
			}
			continue
		}
		// While the hub was down nothing could arrive: what was on its way then has its time from the start on. A hub that stood still sends one test, and not those of yesterday too.
		if due := d.due(now); d.o.At >= 0 && (x == nil && due-d.started >= settles || x != nil && x.SentNS < due) {
			if _, err := d.SendNow(ctx, t); err != nil {
				errs = append(errs, fmt.Errorf("member %d: %w", t, err))
			}
			continue
		}
		if x != nil && x.ArrivedNS == 0 && !x.Missed && now.UnixNano()-max(x.SentNS, d.started) > int64(d.o.Within) {
			place, known := d.place(t)
			if !known { // the line could not be asked since the start: whether it stands in there nobody can say yet
				continue
			}
			if place > done {
				if !away {
					waiting = append(waiting, x)
				}
				continue
			}
			if err := d.miss(ctx, x, now); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if !away {
		errs = append(errs, d.behind(ctx, waiting, newest-min(done, newest), now), d.checkSites(ctx, newest, done, now))
	}
	return errors.Join(errs...)
}

// clockSlack is by how much a clock may be put back without anybody asking why.
const clockSlack = time.Minute

// place is where a member's last test stands in the line, at most.
func (d *Tests) place(t event.TenantID) (at uint64, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, ok := d.places[t]; ok {
		return at, true
	}
	return d.first, d.looked
}

// behind tells once that the line has not come to tests whose time is over.
func (d *Tests) behind(ctx context.Context, waiting []*Test, batches uint64, now time.Time) error {
	d.mu.Lock()
	told := d.told
	d.told = len(waiting) > 0
	d.mu.Unlock()
	if len(waiting) == 0 || told {
		return nil
	}
	since := waiting[0].SentNS
	for _, x := range waiting {
		since = min(since, x.SentNS)
	}
	err := d.o.Raise(ctx, []event.Detection{health.Raise(health.RuleDetector, 0, "detector", fmt.Sprintf("The centre is behind: %d batches wait to be looked at, and with them the daily tests of %d members, the first sent on %s. Attacks are noticed late until the worker has caught up.",
		batches, len(waiting), time.Unix(0, since).UTC().Format("2 January at 15:04 UTC")), since, now.UnixNano())})
	if err != nil {
		d.mu.Lock()
		d.told = false
		d.mu.Unlock()
	}
	return err
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
	e.SetString(event.TocsinLeftReason, detect.DailyReason)
	place, err := d.o.Send(ctx, t, x.Seq, e, now)
	d.mu.Lock()
	d.places[t] = place // 0 where it was not sent: it is missed after its time, which is true
	d.mu.Unlock()
	if err != nil {
		return x, fmt.Errorf("sending the daily test: %w", err)
	}
	return x, nil
}

// Arrived takes the tests out of what rules have found, and writes down that they came. It may be given the same again.
func (d *Tests) Arrived(ctx context.Context, dets []event.Detection) ([]event.Detection, error) {
	n := 0
	for i := range dets {
		if ofTest(&dets[i]) {
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
		if !ofTest(&x) {
			rest = append(rest, x)
			continue
		}
		if s, err := d.came(ctx, x.Tenant, x.Entity.Value); err != nil {
			return nil, err
		} else if s != nil {
			if err := d.note(ctx, s, x.RuleID, now); err != nil {
				return nil, err
			}
			continue
		}
		if x.RuleID != detect.DailyRule {
			strays[x.Tenant]++
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

// ofTest says whether a detection is of a test, whosever.
func ofTest(x *event.Detection) bool {
	return x.RuleID == detect.DailyRule || x.RuleID == detect.DailySiteRule
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

// Ahead is how many tests were said to have been sent in the future.
func (d *Tests) Ahead() uint64 { return d.ahead.Load() }

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
