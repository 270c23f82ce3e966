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
	"tocsin/internal/web"
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

// tooFarBehind is what the worker has not read when silence means nothing yet, in batches on the bus.
const tooFarBehind = 200

// watchDetection raises an alert when something that detected cannot any more.
func (h *hub) watchDetection(ctx context.Context) error {
	every := time.NewTicker(h.watch.Times().Every())
	save := time.NewTicker(time.Minute)
	defer every.Stop()
	defer save.Stop()
	raised := map[string]bool{} // keys, so that nothing is written again and again; after a restart they are recognised
	var last detect.Stats
	for {
		select {
		case <-ctx.Done():
			return h.watch.Save(context.WithoutCancel(ctx), true)
		case <-save.C:
			if err := h.watch.Save(ctx, false); err != nil && ctx.Err() == nil {
				h.log.WarnContext(ctx, "writing what is known of sources; it is tried again in a minute", "err", err)
			}
			continue
		case <-every.C:
		}
		asked, err := h.askedOfHealth(ctx, &last)
		if err != nil {
			if ctx.Err() == nil {
				h.log.WarnContext(ctx, "reading the collectors for detection health; it is tried again in half a minute", "err", err)
			}
			continue
		}
		var fresh []event.Detection
		for _, d := range h.watch.Check(asked) {
			if !raised[d.Key] {
				fresh = append(fresh, d)
			}
		}
		if len(fresh) == 0 {
			continue
		}
		if err := h.raise(ctx, fresh); err != nil {
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

// raise makes alerts of what the hub found without the worker, unless a layer of rules keeps it back.
func (h *hub) raise(ctx context.Context, dets []event.Detection) error {
	plan := dets[0].Key
	dets, err := h.rules.filter(ctx, dets)
	if err != nil || len(dets) == 0 {
		return err
	}
	_, err = h.alerts.Apply(ctx, plan, dets)
	return err
}

// askedOfHealth is what detection health wants to know of the rest of the hub.
func (h *hub) askedOfHealth(ctx context.Context, last *detect.Stats) (health.Asked, error) {
	list, err := h.office.Members.Collectors(ctx, h.office.scope())
	if err != nil {
		return health.Asked{}, err
	}
	lag, err := h.workerLag(ctx)
	out := health.Asked{Troubles: h.detectorTroubles(last), Behind: err != nil || lag > tooFarBehind || !h.worker.Load().Stats().Running}
	for _, c := range list {
		if c.State == member.Live {
			out.Collectors = append(out.Collectors, health.Collector{Tenant: c.Tenant, ID: c.ID, Name: c.Name, Received: c.Balance.Received, Parsed: c.Balance.Parsed, Seen: c.LastSeenNS})
		}
	}
	return out, nil
}

// detectorTroubles are what is wrong with the hub's own detection. last is what it had counted when it was asked last.
func (h *hub) detectorTroubles(last *detect.Stats) (out []string) {
	if err := h.rules.trouble(); err != nil {
		out = append(out, "Rules are not in force: "+err.Error())
	}
	if !h.worker.Load().Stats().Running {
		out = append(out, "The worker does not run, so that nothing is detected at the hub; the log says why.")
	}
	if b := h.baselines.Load(); b != nil {
		if s := b.Stats(); !s.Anew.IsZero() && time.Since(s.Anew) < learnsAnew {
			out = append(out, anewText(s.Anew))
		}
	}
	now := h.detector.Load().Stats()
	if now.Evicted > last.Evicted {
		out = append(out, "The detector has to forget what it counts before its time, since there is more than it has room for; something may be missed.")
	}
	if now.Coarse > last.Coarse {
		out = append(out, "A member's events are of more kinds than there can be; further kinds are judged by their product alone, and rules for what they are may not see them. The hub's log names the member.")
	}
	*last = now
	return out
}

// learnsAnew is for how long it is said that the baselines began anew: most of them know a member by then.
const learnsAnew = 14 * 24 * time.Hour

func anewText(since time.Time) string {
	return fmt.Sprintf("What the baselines had learnt could not be read, as after an update that keeps it in another form, or was dropped when the event store was put back, and they learn anew since %s. Rules work as ever; what is merely unusual at a member is told again when it is known there, after two to six weeks.", since.UTC().Format("2 January 2006 15:04 UTC"))
}

// SourceHealth is a source of a member, for programs and for `tocsin rules health`.
type SourceHealth struct {
	health.Source
	Name   string       `json:"name"`   // of its collector
	Rules  []string     `json:"rules"`  // titles of those that can fire
	Cannot []CannotFire `json:"cannot"` // of its kind
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
	names, err := h.collectorNames(ctx)
	if err != nil {
		return nil, err
	}
	off, now := h.rules.layers.Set(), time.Now().UnixNano()
	out := []SourceHealth{}
	for _, s := range h.watch.Sources(t) {
		x := SourceHealth{Source: s, Name: names[s.Collector], Rules: []string{}, Cannot: []CannotFire{}}
		for _, v := range s.Can {
			if v.NeedsFull && org.Policy != "full" {
				x.Cannot = append(x.Cannot, CannotFire{v.Title, "it needs ordinary events, and this member's policy is " + org.Policy + ": they stay at home"})
				continue
			}
			if off.Off(v.ID, t, now) {
				x.Cannot = append(x.Cannot, CannotFire{v.Title, "the centre switched it off here"})
				continue
			}
			x.Rules = append(x.Rules, v.Title)
		}
		for _, v := range s.Cannot {
			x.Cannot = append(x.Cannot, CannotFire{v.Title, whyNot(&v, s.Gone)})
		}
		out = append(out, x)
	}
	return out, nil
}

// whyNot says why a rule cannot fire on a source that lost some fields.
func whyNot(v *detect.Verdict, gone []string) string {
	var never, lost []string
	for _, f := range v.Missing {
		if slices.Contains(gone, f) {
			lost = append(lost, f)
		} else {
			never = append(never, f)
		}
	}
	var why []string
	if len(lost) > 0 {
		why = append(why, "these fields came and come no more: "+strings.Join(lost, ", "))
	}
	switch {
	case len(never) > 0 && v.Runs == detect.Site:
		why = append(why, "it runs on the site; of what it needs, "+strings.Join(never, ", ")+" did not reach the hub, which the policy may keep at home")
	case len(never) > 0:
		why = append(why, "these fields never came: "+strings.Join(never, ", "))
	}
	return strings.Join(why, "; ")
}

// onPages is detection health as the pages want it.
type onPages struct{ *hub }

var _ web.Detection = onPages{}

func pageSource(s *health.State, names map[string]string) web.Source {
	return web.Source{Tenant: s.Tenant, Product: s.Product, Collector: s.Collector, CollectorName: names[s.Collector], Last: s.Last, Events: s.Events, Parsed: s.Parsed, Mapped: s.Mapped, Silent: s.Silent, Quiet: s.Quiet, Gone: s.Gone}
}

// Sources implements web.Detection.
func (p onPages) Sources(ctx context.Context, t event.TenantID) ([]web.Source, error) {
	list, err := p.detectionHealth(ctx, t)
	if err != nil {
		return nil, err
	}
	out := make([]web.Source, 0, len(list))
	for i := range list {
		x := pageSource(&list[i].State, map[string]string{list[i].Collector: list[i].Name})
		x.Can, x.Other = list[i].Rules, list[i].OtherKind
		for _, c := range list[i].Cannot {
			x.Cannot = append(x.Cannot, web.CannotFire{Rule: c.Rule, Why: c.Why})
		}
		out = append(out, x)
	}
	return out, nil
}

// Coverage implements web.Detection.
func (p onPages) Coverage(ctx context.Context, t event.TenantID) ([]web.Covered, error) {
	list, err := p.coverage(ctx, t)
	if err != nil {
		return nil, err
	}
	out := make([]web.Covered, len(list))
	for i, x := range list {
		out[i] = web.Covered{ID: x.ID, Rules: x.Rules, Blind: x.Blind}
	}
	return out, nil
}

// Unwell implements web.Detection.
func (p onPages) Unwell(ctx context.Context) ([]web.Source, error) {
	list := p.watch.Unwell()
	if len(list) == 0 {
		return nil, nil
	}
	names, err := p.collectorNames(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]web.Source, 0, len(list))
	for i := range list {
		out = append(out, pageSource(&list[i], names))
	}
	return out, nil
}

// collectorNames are what people call the collectors.
func (h *hub) collectorNames(ctx context.Context) (map[string]string, error) {
	list, err := h.office.Members.Collectors(ctx, h.office.scope())
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(list))
	for _, c := range list {
		names[c.ID] = c.Name
	}
	return names, nil
}

// sourcesHealth says how the sources are, for the page of health.
func (h *hub) sourcesHealth() (good, next string, err error) {
	s := h.watch.Stats()
	good = fmt.Sprintf("%d sources are watched", s.Sources)
	if s.Silent+s.Blind > 0 { // a matter of members: each raised an alert, and the hub itself is well
		good += fmt.Sprintf("; %d are silent, %d lost fields that they had: the page Detection names them", s.Silent, s.Blind)
	}
	if s.Pauses > 0 {
		good += fmt.Sprintf("; this machine slept or its clock was put %d times since the start, and silences count from then on", s.Pauses)
	}
	if n := h.daily.Strays() + h.daily.Ahead(); n > 0 {
		good += fmt.Sprintf("; %d daily tests were not the last ones sent, or from the future", n)
	}
	if s.Refused > 0 {
		err = fmt.Errorf("%d events or fields of events came for which there is no room in the watch; whether those go silent or vanish is not seen", s.Refused)
	}
	return good, "Look which member sends events of very many different kinds: a program that invents names of data sets does this.", err
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
	return h.coverage(r.Context(), t)
}

// coverage is which techniques the rules could see at a member.
func (h *hub) coverage(ctx context.Context, t event.TenantID) ([]health.Technique, error) {
	org, err := h.office.Members.Organisation(ctx, h.office.scope(), t)
	if err != nil {
		return nil, err
	}
	set, now := h.rules.layers.Set(), time.Now().UnixNano()
	return h.watch.Coverage(t, func(r *detect.Info) bool { return r.NeedsFull && org.Policy != "full" || set.Off(r.ID, t, now) }), nil
}
