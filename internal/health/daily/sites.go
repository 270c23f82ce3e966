package daily

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/internal/health"
)

// The daily test of a collector goes the whole way, from the collector's own socket on (internal/collector/daily.go). A number is drawn for it here, and handed
// to that collector alone when it asks (Hand); it counts when the event with the number has come out of the hub's rules, and what the on-site rules found of
// it has come too. A collector that is away is not tested, and silent, which is told elsewhere: a test is missed when its collector was heard after the test's
// time was over, and all that had come until then is worked off. One that comes back has its time first: it may be heard before it asks, and before what it
// had to keep has gone.

// Collector is one that is tested.
type Collector struct {
	Tenant   event.TenantID
	ID, Name string
	Seen     int64 // its last request, UTC ns
}

// Site is a collector's last test.
type Site struct {
	bun.BaseModel `bun:"table:daily_sites,alias:s" json:"-"`

	Collector string         `bun:"collector,pk" json:"collector"`
	Tenant    event.TenantID `bun:"tenant" json:"tenant"`
	ID        string         `bun:"id" json:"id"` // random
	HandedNS  int64          `bun:"handed_ns" json:"handed_ns,string"`
	ArrivedNS int64          `bun:"arrived_ns" json:"arrived_ns,string"` // out of the hub's rules; 0: not yet
	FoundNS   int64          `bun:"found_ns" json:"found_ns,string"`     // as found by the on-site rules; 0: not yet
	Missed    bool           `bun:"missed" json:"missed"`                // it was told that it is missing
}

// Done says whether the test came by both ways.
func (s *Site) Done() bool { return s.ArrivedNS != 0 && s.FoundNS != 0 }

// Latency is how long the test took from being handed out, 0 while it is on its way.
func (s *Site) Latency() time.Duration {
	if !s.Done() {
		return 0
	}
	return time.Duration(max(1, max(s.ArrivedNS, s.FoundNS)-s.HandedNS))
}

// spread is over how long the collectors' tests are spread: ten thousand at once would only test how that goes.
const spread = time.Hour

// takes is how long a collector that is heard may take to ask for its test, and one that is back to send what it kept.
const takes = 15 * time.Minute

// awayAfter is after how long without a request a collector that asks twice a minute was away.
const awayAfter = 2 * time.Minute

// hearing is since when a collector is heard, UTC ns, as Check saw it: a restart of the hub begins it anew.
type hearing struct {
	last   int64 // its newest request
	since  int64 // with no gap of takes: one whose housekeeping stands still sends batches only
	steady int64 // with no gap of awayAfter
}

// hear notes when a collector was heard. d.sitesMu is held.
func (d *Tests) hear(c *Collector, now int64) hearing {
	h, ok := d.heard[c.ID]
	seen := min(c.Seen, now)
	if !ok || seen-h.last >= int64(takes) {
		h.since = now
	}
	if !ok || seen-h.last >= int64(awayAfter) {
		h.steady = now
	}
	h.last = seen
	d.heard[c.ID] = h
	return h
}

// dueOf is the last time at which a collector should have been tested, ns.
func (d *Tests) dueOf(collector string, now time.Time) int64 {
	h := fnv.New32a()
	h.Write([]byte(collector))
	late := time.Duration(h.Sum32()) % spread
	return d.due(now.Add(-late)) + int64(late)
}

// load reads the collectors' tests. d.sitesMu is held.
func (d *Tests) load(ctx context.Context) error {
	if d.sites != nil {
		return nil
	}
	var list []Site
	if err := d.o.DB.Read().NewSelect().Model(&list).Scan(ctx); err != nil {
		return fmt.Errorf("reading the daily tests of collectors: %w", err)
	}
	d.sites, d.numbers = map[string]*Site{}, map[string]*Site{}
	for i := range list {
		x := &list[i]
		d.sites[x.Collector], d.numbers[x.ID] = x, x
	}
	return nil
}

// Ask has a collector tested when it asks next, whatever the time.
func (d *Tests) Ask(collector string) {
	d.sitesMu.Lock()
	defer d.sitesMu.Unlock()
	d.asked[collector] = true
}

// Hand gives the number of the test that a collector is to send, or "". It gives the same again until the test has come or its time is over.
func (d *Tests) Hand(ctx context.Context, t event.TenantID, collector string) (string, error) {
	d.sitesMu.Lock()
	defer d.sitesMu.Unlock()
	if err := d.load(ctx); err != nil {
		return "", err
	}
	now := d.o.Now()
	x, due := d.sites[collector], d.dueOf(collector, now)
	begins := d.asked[collector] || d.o.At >= 0 && (x == nil && due-d.started >= settles || x != nil && (x.HandedNS < due || x.HandedNS > now.UnixNano()+int64(clockSlack)))
	if !begins {
		if x != nil && !x.Done() && !x.Missed && now.UnixNano()-x.HandedNS < int64(d.o.Within) {
			return x.ID, nil
		}
		return "", nil
	}
	x, err := d.draw(ctx, t, collector, false, now)
	if err != nil {
		return "", err
	}
	delete(d.asked, collector)
	return x.ID, nil
}

// draw begins a test, or, when it is missed already, writes down that there was none. d.sitesMu is held.
func (d *Tests) draw(ctx context.Context, t event.TenantID, collector string, missed bool, now time.Time) (*Site, error) {
	var id [16]byte
	rand.Read(id[:])
	x := &Site{Collector: collector, Tenant: t, ID: hex.EncodeToString(id[:]), HandedNS: now.UnixNano(), Missed: missed}
	err := d.o.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO daily_sites (collector, tenant, id, handed_ns, arrived_ns, found_ns, missed) VALUES (?, ?, ?, ?, 0, 0, ?)
			ON CONFLICT (collector) DO UPDATE SET tenant = excluded.tenant, id = excluded.id, handed_ns = excluded.handed_ns, arrived_ns = 0, found_ns = 0, missed = excluded.missed`,
			x.Collector, x.Tenant, x.ID, x.HandedNS, x.Missed)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("writing down the daily test of a collector: %w", err)
	}
	if old := d.sites[collector]; old != nil {
		delete(d.numbers, old.ID)
	}
	d.sites[collector], d.numbers[x.ID] = x, x
	delete(d.marks, collector)
	return x, nil
}

// came says which collector's test a number is; nil: nobody's.
func (d *Tests) came(ctx context.Context, t event.TenantID, number string) (*Site, error) {
	d.sitesMu.Lock()
	defer d.sitesMu.Unlock()
	if err := d.load(ctx); err != nil {
		return nil, err
	}
	if x := d.numbers[number]; x != nil && x.Tenant == t {
		return x, nil
	}
	return nil, nil
}

// note writes down that a collector's test came by one of its ways; again changes nothing.
func (d *Tests) note(ctx context.Context, x *Site, rule string, now time.Time) error {
	d.sitesMu.Lock()
	defer d.sitesMu.Unlock()
	at, column := &x.ArrivedNS, "arrived_ns"
	if rule == detect.DailySiteRule {
		at, column = &x.FoundNS, "found_ns"
	}
	if *at != 0 {
		return nil
	}
	err := d.o.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.ExecContext(ctx, "UPDATE daily_sites SET "+column+" = ? WHERE collector = ? AND id = ?", now.UnixNano(), x.Collector, x.ID)
		return err
	})
	if err != nil {
		return fmt.Errorf("writing down that the daily test of a collector arrived: %w", err)
	}
	*at = now.UnixNano()
	return nil
}

// checkSites tells of the collectors' tests that are missing. newest and done are of the line.
func (d *Tests) checkSites(ctx context.Context, newest, done uint64, now time.Time) error {
	if d.o.Collectors == nil {
		return nil
	}
	list, err := d.o.Collectors(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for i := range list {
		if err := d.checkSite(ctx, &list[i], newest, done, now); err != nil {
			errs = append(errs, fmt.Errorf("collector %s: %w", list[i].ID, err))
		}
	}
	return errors.Join(errs...)
}

func (d *Tests) checkSite(ctx context.Context, c *Collector, newest, done uint64, now time.Time) error {
	d.sitesMu.Lock()
	defer d.sitesMu.Unlock()
	if err := d.load(ctx); err != nil {
		return err
	}
	x, heard := d.sites[c.ID], d.hear(c, now.UnixNano())
	if x == nil {
		return nil
	}
	at := func(ns int64) string { return time.Unix(0, ns).UTC().Format("2 January at 15:04 UTC") }
	if due := d.dueOf(c.ID, now); d.o.At >= 0 && x.HandedNS < due && heard.last-max(due, heard.since) >= int64(takes) && now.UnixNano()-heard.last < int64(takes) {
		err := d.o.Raise(ctx, []event.Detection{health.Raise(health.RuleDailySite, c.Tenant, c.ID,
			fmt.Sprintf("The collector %s is heard, and has not asked for the test of %s as it did before: its housekeeping may stand still.", c.Name, at(due)), due, now.UnixNano())})
		if err == nil {
			_, err = d.draw(ctx, c.Tenant, c.ID, true, now)
		}
		return err
	}
	over := max(x.HandedNS, d.started) + int64(d.o.Within)
	if x.Done() || x.Missed || now.UnixNano() < over || c.Seen < over {
		return nil
	}
	if heard.steady > x.HandedNS && heard.last-heard.steady < int64(takes) {
		return nil // it was away meanwhile
	}
	mark, ok := d.marks[c.ID]
	if !ok {
		mark = newest
		d.marks[c.ID] = mark
	}
	if done < mark {
		return nil // what came in time may wait there; that the line is behind is told once, of the members' tests
	}
	what := "has not arrived"
	switch {
	case x.ArrivedNS != 0:
		what = "arrived, and the rules that run on the site did not find it"
	case x.FoundNS != 0:
		what = "was found by the rules that run on the site, and did not come out of the centre's rules"
	}
	err := d.o.Raise(ctx, []event.Detection{health.Raise(health.RuleDailySite, c.Tenant, c.ID,
		fmt.Sprintf("The test line that the collector %s was given on %s %s within %v: what its devices write may not become alerts.", c.Name, at(x.HandedNS), what, d.o.Within), x.HandedNS, now.UnixNano())})
	if err != nil {
		return err
	}
	err = d.o.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.ExecContext(ctx, "UPDATE daily_sites SET missed = 1 WHERE collector = ? AND id = ?", x.Collector, x.ID)
		return err
	})
	if err == nil {
		x.Missed = true
	}
	return err
}

// Sites gives every collector's last test.
func (d *Tests) Sites(ctx context.Context) (map[string]Site, error) {
	d.sitesMu.Lock()
	defer d.sitesMu.Unlock()
	if err := d.load(ctx); err != nil {
		return nil, err
	}
	out := make(map[string]Site, len(d.sites))
	for id, x := range maps.All(d.sites) {
		out[id] = *x
	}
	return out, nil
}
