package app

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/internal/health"
	"tocsin/internal/member"
	"tocsin/internal/steps"
	"tocsin/internal/worker"
)

// observing is what the hub adds to each event, and the watch that sees it afterwards.
type observing struct {
	knowledge
	watch *health.Watch
}

func (o observing) Enrich(e *event.Event) {
	o.knowledge.Enrich(e)
	o.watch.Observe(e)
}

var _ worker.Enricher = observing{}

// watchDetection raises an alert when something that detected cannot any more.
func (h *hub) watchDetection(ctx context.Context) error {
	every := time.NewTicker(health.Every)
	defer every.Stop()
	raised := map[string]bool{} // keys, so that nothing is written again and again; after a restart they are recognised
	var evicted uint64
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return h.watch.Save(context.WithoutCancel(ctx))
		case <-every.C:
		}
		if n%2 == 0 {
			if err := h.watch.Save(ctx); err != nil && ctx.Err() == nil {
				h.log.WarnContext(ctx, "writing what is known of sources; it is tried again in a minute", "err", err)
			}
		}
		list, err := h.office.Members.Collectors(ctx, h.office.scope())
		if err != nil {
			if ctx.Err() == nil {
				h.log.WarnContext(ctx, "reading the collectors for detection health; it is tried again in half a minute", "err", err)
			}
			continue
		}
		var collectors []health.Collector
		for _, c := range list {
			if c.State == member.Live {
				collectors = append(collectors, health.Collector{Tenant: c.Tenant, ID: c.ID, Name: c.Name, Received: c.Balance.Received, Parsed: c.Balance.Parsed, Seen: c.LastSeenNS})
			}
		}
		var fresh []event.Detection
		for _, d := range h.watch.Check(collectors, h.detectorTroubles(&evicted)) {
			if !raised[d.Key] {
				fresh = append(fresh, d)
			}
		}
		if len(fresh) == 0 {
			continue
		}
		if _, err := h.alerts.Apply(ctx, fresh[0].Key, fresh); err != nil {
			if ctx.Err() == nil {
				h.log.ErrorContext(ctx, "raising alerts of detection health; it is tried again in half a minute", "err", err)
			}
			continue
		}
		if len(raised) > 10_000 { // what comes again is recognised by its key
			clear(raised)
		}
		for _, d := range fresh {
			raised[d.Key] = true
			h.log.WarnContext(ctx, "detection health", "rule", d.RuleID, "tenant", d.Tenant, "about", d.Entity.Value, "reason", d.Reason)
		}
	}
}

// detectorTroubles are what is wrong with the hub's own detection. evicted is how many groups had been pushed out when it was asked last.
func (h *hub) detectorTroubles(evicted *uint64) (out []string) {
	if err := h.rules.trouble(); err != nil {
		out = append(out, "Rules are not in force: "+err.Error())
	}
	if !h.worker.Load().Stats().Running {
		out = append(out, "The worker does not run, so that nothing is detected at the hub; the log says why.")
	}
	if n := h.detector.Load().Stats().Evicted; n > *evicted {
		out = append(out, "The detector has to forget what it counts before its time, since there is more than it has room for; something may be missed.")
		*evicted = n
	}
	return out
}

// SourceHealth is a source of a member, for programs and for `tocsin rules health`.
type SourceHealth struct {
	health.Source
	Rules  []string     `json:"rules"`  // titles of those that can fire
	Cannot []CannotFire `json:"cannot"` // of its kind
	Parsed float64      `json:"parsed"` // share of the lines of the member's collectors that were understood
}

// CannotFire is a rule that cannot fire on a source, and why.
type CannotFire struct {
	Rule string `json:"rule"`
	Why  string `json:"why"`
}

// detectionHealth is how detection stands at one member.
func (h *hub) detectionHealth(ctx context.Context, t event.TenantID) ([]SourceHealth, error) {
	org, err := h.office.Members.Organisation(ctx, h.office.scope(), t)
	if err != nil {
		return nil, err
	}
	list, err := h.office.Members.Collectors(ctx, h.office.scope())
	if err != nil {
		return nil, err
	}
	var received, parsed uint64
	for _, c := range list {
		if c.Tenant == t {
			received, parsed = received+c.Balance.Received, parsed+c.Balance.Parsed
		}
	}
	out := []SourceHealth{}
	for _, s := range h.watch.Sources(t) {
		x := SourceHealth{Source: s, Rules: []string{}, Cannot: []CannotFire{}}
		if received > 0 {
			x.Parsed = float64(parsed) / float64(received)
		}
		for _, v := range s.Can {
			if v.NeedsFull && org.Policy != "full" {
				x.Cannot = append(x.Cannot, CannotFire{v.Title, "it needs ordinary events, and this member's policy is " + org.Policy + ": they stay at home"})
				continue
			}
			x.Rules = append(x.Rules, v.Title)
		}
		for _, v := range s.Cannot {
			why := "these fields never came: " + strings.Join(v.Missing, ", ")
			if v.Runs == detect.Site {
				why = "it runs on the site; of what it needs, " + strings.Join(v.Missing, ", ") + " did not reach the hub, which the policy may keep at home"
			}
			x.Cannot = append(x.Cannot, CannotFire{v.Title, why})
		}
		out = append(out, x)
	}
	return out, nil
}

// products are the products of a member for which there are steps.
func (h *hub) products(t event.TenantID) []string {
	book, err := steps.Default()
	if err != nil {
		return nil // the pages say so
	}
	var out []string
	for _, d := range h.watch.Datasets(t) {
		if p := book.Product(d); p != "" && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// tenantOf reads the member of a request.
func tenantOf(r *http.Request) (event.TenantID, error) {
	n, err := strconv.ParseUint(r.URL.Query().Get("tenant"), 10, 32)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%w: tenant is a member's number", member.ErrInvalid)
	}
	return event.TenantID(n), nil
}

func (h *hub) serveDetectionHealth(r *http.Request) (any, error) {
	t, err := tenantOf(r)
	if err != nil {
		return nil, err
	}
	return h.detectionHealth(r.Context(), t)
}

func (h *hub) serveCoverage(r *http.Request) (any, error) {
	t, err := tenantOf(r)
	if err != nil {
		return nil, err
	}
	if _, err := h.office.Members.Organisation(r.Context(), h.office.scope(), t); err != nil {
		return nil, err
	}
	return h.watch.Coverage(t), nil
}
