package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/baseline"
	"tocsin/internal/chart"
	"tocsin/internal/event"
	"tocsin/internal/member"
	"tocsin/internal/worker"
)

// withBaselines puts the baselines of the hub beside its rules. What they learnt lies in snapshots/baselines and in the worker's snapshot.
func (h *hub) withBaselines(rules worker.Detector) (*baseline.Joined, error) {
	m := &memberFacts{list: h.office.Members.Organisations}
	b, err := baseline.New(baseline.Options{Where: baseline.Hub, Dir: h.path("snapshots", "baselines"), Country: chart.Country, Area: m.area, Share: m.share, Logger: h.log})
	if err != nil {
		return nil, err
	}
	h.baselines.Store(b)
	return &baseline.Joined{Rules: rules, Baseline: b}, nil
}

// baselineText is what a kind of anomaly says to people without technical skill.
func baselineText(id string) (alert.Text, bool) {
	info, ok := baseline.Lookup(id)
	return alert.Text{Title: info.MemberTitle, What: info.What, Do: info.Do}, ok
}

// baselineHealth says how the baselines are, for the page of health.
func (h *hub) baselineHealth() (good, next string, err error) {
	b := h.baselines.Load()
	if b == nil {
		return "not running yet", "", nil
	}
	s := b.Stats()
	good = fmt.Sprintf("%d members learnt, %.0f MB; %d detections since the start", s.Tenants, float64(s.Bytes)/1e6, s.Detections)
	switch {
	case !s.Anew.IsZero() && time.Since(s.Anew) < learnsAnew:
		return good, "Nothing need be done but wait. If it comes again without an update, look in the log why the snapshot cannot be read.", errors.New(anewText(s.Anew))
	case s.Refused > 0:
		err = fmt.Errorf("%d events were of members or keys beyond what there is room for: unusual things may be missed", s.Refused)
	case s.Evicted > 0:
		err = fmt.Errorf("%d accounts, signatures or keys were forgotten before their time: unusual things may be missed", s.Evicted)
	}
	return good, "Look which member sends far more different accounts or sources than others: a flood of forged lines does this. docs/baselines.md says what there is room for.", err
}

// memberFacts knows where members are and how much room they have. The records are read at most once a minute.
type memberFacts struct {
	list func(context.Context, access.Scope) ([]member.Organisation, error)

	mu   sync.Mutex // guards what follows; held while the records are read
	read time.Time
	by   map[event.TenantID]member.Organisation
}

func (m *memberFacts) of(id event.TenantID) member.Organisation {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o, ok := m.by[id]; ok && time.Since(m.read) < 10*time.Minute {
		return o
	}
	if time.Since(m.read) < time.Minute {
		return m.by[id]
	}
	m.read = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all, err := m.list(ctx, access.System("baselines"))
	if err != nil {
		return m.by[id] // what was known before; it is asked again in a minute
	}
	m.by = make(map[event.TenantID]member.Organisation, len(all))
	for _, o := range all {
		m.by[o.ID] = o
	}
	return m.by[id]
}

func (m *memberFacts) area(id event.TenantID) string { return m.of(id).Area }

// fullShare is how many times the usual room an estate has whose every event comes here.
const fullShare = 16

func (m *memberFacts) share(id event.TenantID) int {
	if m.of(id).Policy == "full" {
		return fullShare
	}
	return 1
}
