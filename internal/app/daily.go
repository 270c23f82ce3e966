package app

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/blob"
	"tocsin/internal/bus"
	"tocsin/internal/event"
	"tocsin/internal/health/daily"
	"tocsin/internal/keys"
	"tocsin/internal/member"
)

// The daily test of each member's line (package daily). It goes in where the gate hands on: no collector's key signs it, and its stream is the hub's own.
const (
	dailyCollector = "00000000-0000-4000-8000-00000da11e57"
	dailyEpoch     = "00000000000000000000000000000da1"
)

// newDaily makes the tests; Run begins them.
func (h *hub) newDaily() (*daily.Tests, error) {
	at, err := daily.ParseTime(h.cfg.Health.DailyAt)
	if err != nil {
		return nil, fmt.Errorf("health.daily_at: %w", err)
	}
	var one sync.Mutex // of the writer
	w := batch.NewWriter()
	return daily.New(daily.Options{DB: h.office.DB, At: at, Within: h.cfg.Health.DailyWithin, Logger: h.log.With("part", "daily tests"), Raise: h.raise,
		Members: h.tested, Collectors: h.testedCollectors,
		Line: func(ctx context.Context) (last, done uint64, err error) {
			// In this order: what is published between the two is not taken for worked off.
			if last, err = h.bus.LastSeq(ctx); err != nil {
				return 0, 0, err
			}
			lag, err := h.workerLag(ctx)
			return last, last - min(lag, last), err
		},
		Send: func(ctx context.Context, t event.TenantID, seq uint64, e *event.Event, now time.Time) (uint64, error) {
			one.Lock()
			defer one.Unlock()
			return h.sendTest(ctx, w, t, seq, e, now)
		}}), nil
}

// tested are the members with a collector that is live.
func (h *hub) tested(ctx context.Context) ([]event.TenantID, error) {
	list, err := h.office.Members.Collectors(ctx, h.office.scope())
	if err != nil {
		return nil, err
	}
	seen := map[event.TenantID]bool{}
	var out []event.TenantID
	for _, c := range list {
		if c.State == member.Live && !seen[c.Tenant] {
			seen[c.Tenant] = true
			out = append(out, c.Tenant)
		}
	}
	return out, nil
}

// testedCollectors are the live ones.
func (h *hub) testedCollectors(ctx context.Context) ([]daily.Collector, error) {
	list, err := h.office.Members.Collectors(ctx, h.office.scope())
	if err != nil {
		return nil, err
	}
	var out []daily.Collector
	for _, c := range list {
		if c.State == member.Live {
			out = append(out, daily.Collector{Tenant: c.Tenant, ID: c.ID, Name: c.Name, Seen: c.LastSeenNS})
		}
	}
	return out, nil
}

// handDaily gives a collector the number of its test when it is time. A fault of the records holds up nothing else: the collector asks again.
func (h *hub) handDaily(ctx context.Context, t event.TenantID, collector string) string {
	number, err := h.daily.Hand(ctx, t, collector)
	if err != nil && ctx.Err() == nil {
		h.log.WarnContext(ctx, "handing out the daily test; the collector asks again", "collector", collector, "err", err)
	}
	return number
}

// sendTest puts one event behind the gate, as the gate does with a batch. It is signed with the key of the hub's receipts: nobody can take it for a
// collector's. place is its place on the bus.
func (h *hub) sendTest(ctx context.Context, w *batch.Writer, t event.TenantID, seq uint64, e *event.Event, now time.Time) (place uint64, err error) {
	signer, err := h.ring.Signer(keys.Receipts)
	if err != nil {
		return 0, err
	}
	w.Reset()
	if err := w.Add(e.AppendJSON(nil)); err != nil {
		return 0, err
	}
	stream := batch.Stream{Collector: dailyCollector, Tenant: t, Lane: batch.Live, Epoch: dailyEpoch}
	sealed, err := w.Seal(batch.Manifest{Stream: stream, Seq: seq, Created: now.UTC(), CollectorVersion: "hub", Urgent: true}, signer)
	if err != nil {
		return 0, err
	}
	sub := sealed.Submission()
	ref, err := h.blobs.Put(ctx, blob.Blob{Name: sealed.Digest, Tenant: t, Kind: blob.Batch, Received: now.UTC()}, sub)
	if err != nil {
		return 0, err
	}
	n := bus.Notice{Digest: sealed.Digest, Tenant: t, Collector: dailyCollector, Lane: string(stream.Lane), Epoch: stream.Epoch, Seq: seq, Received: now.UnixNano(), Events: 1, Size: len(sub), Urgent: true, Blob: ref}
	return h.bus.Publish(ctx, bus.Subject(t), hex.EncodeToString(sealed.Digest[:]), n.Encode())
}

// DailyTest is a member's last daily test, for programs and for `tocsin rules daily`.
type DailyTest struct {
	Tenant    event.TenantID `json:"tenant"`
	Member    string         `json:"member"`
	Collector string         `json:"collector,omitempty"` // the one whose own test it is, from its socket on; empty: the hub's, from behind the gate
	Name      string         `json:"name,omitempty"`      // of the collector
	Sent      time.Time      `json:"sent,omitzero"`       // or handed to the collector, which asks about twice a minute
	Arrived   time.Time      `json:"arrived,omitzero"`    // the last of what was to come
	Found     bool           `json:"found,omitempty"`     // by the rules on the site
	Millis    int64          `json:"ms"`                  // from sending to what would be the alert; 0 while it is on its way
	Missed    bool           `json:"missed"`
}

func (h *hub) dailyTests(ctx context.Context) ([]DailyTest, error) {
	orgs, err := h.office.Members.Organisations(ctx, h.office.scope())
	if err != nil {
		return nil, err
	}
	names := map[event.TenantID]string{}
	for _, o := range orgs {
		names[o.ID] = o.Name
	}
	list, err := h.daily.List(ctx)
	if err != nil {
		return nil, err
	}
	out := []DailyTest{}
	for _, x := range list {
		d := DailyTest{Tenant: x.Tenant, Member: names[x.Tenant], Sent: time.Unix(0, x.SentNS).UTC(), Missed: x.Missed, Millis: x.Latency().Milliseconds()}
		if x.ArrivedNS != 0 {
			d.Arrived = time.Unix(0, x.ArrivedNS).UTC()
		}
		out = append(out, d)
	}
	sites, err := h.daily.Sites(ctx)
	if err != nil {
		return nil, err
	}
	collectors, err := h.office.Members.Collectors(ctx, h.office.scope())
	if err != nil {
		return nil, err
	}
	for _, c := range collectors {
		x, ok := sites[c.ID]
		if !ok || c.State != member.Live {
			continue
		}
		d := DailyTest{Tenant: c.Tenant, Member: names[c.Tenant], Collector: c.ID, Name: c.Name, Sent: time.Unix(0, x.HandedNS).UTC(), Found: x.FoundNS != 0, Missed: x.Missed, Millis: x.Latency().Milliseconds()}
		if x.Done() {
			d.Arrived = time.Unix(0, max(x.ArrivedNS, x.FoundNS)).UTC()
		}
		out = append(out, d)
	}
	slices.SortStableFunc(out, func(a, b DailyTest) int { return cmp.Compare(a.Tenant, b.Tenant) })
	return out, nil
}

// sendDaily sends tests now: of the member asked for, else of all with a live collector; their collectors are asked for theirs too.
func (h *hub) sendDaily(r *http.Request) (any, error) {
	ctx := r.Context()
	list, err := h.tested(ctx)
	if err != nil {
		return nil, err
	}
	if r.URL.Query().Has("tenant") {
		t, err := tenantOf(r)
		if err != nil {
			return nil, err
		}
		if _, err := h.office.Members.Organisation(ctx, h.office.scope(), t); err != nil {
			return nil, err
		}
		list = []event.TenantID{t}
	}
	for _, t := range list {
		if _, err := h.daily.SendNow(ctx, t); err != nil {
			return nil, err
		}
	}
	collectors, err := h.testedCollectors(ctx)
	if err != nil {
		return nil, err
	}
	asked := []string{}
	for _, c := range collectors {
		if slices.Contains(list, c.Tenant) {
			h.daily.Ask(c.ID)
			asked = append(asked, c.ID)
		}
	}
	return struct {
		Sent  []event.TenantID `json:"sent"`
		Asked []string         `json:"asked"` // collectors
	}{list, asked}, nil
}
