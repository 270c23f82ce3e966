package alert

import (
	"context"
	"fmt"
	"math/bits"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/event"
)

// score sets the risk score: twenty for each step of severity, and up to
// nineteen (twenty for critical ones) for what makes an alert of that severity
// more pressing. An alert is thus never ranked above one that is graver.
func (a *Alert) score() {
	total := 0
	a.Details.Scoring = nil
	add := func(n int, format string, args ...any) {
		if n > 0 {
			total += n
			a.Details.Scoring = append(a.Details.Scoring, fmt.Sprintf(format+": %d", append(args, n)...))
		}
	}
	add(min(8, bits.Len64(uint64(max(a.Count, 1)))-1), "%s", plural(a.Count, "event"))
	add(min(6, 3*(len(a.Details.Rules)-1)), "%d different rules agree", len(a.Details.Rules))
	switch {
	case a.EntityKind == "user":
		add(4, "a person's account is concerned")
	case a.EntityKind == "host":
		add(4, "a machine inside is concerned")
	case a.User != "":
		add(2, "a person's account is concerned")
	}
	add((a.Details.Confidence+10)/20, "on an indicator list, with confidence %d of 100", a.Details.Confidence)
	if a.Details.Across {
		add(4, "the same source is at work at several members")
	}
	if a.Site {
		add(1, "seen on the site, with its ordinary traffic")
	}
	most := 19
	if a.Severity == Critical {
		most = 20
	}
	base := 20 * int(a.Severity)
	a.Details.Scoring = append([]string{fmt.Sprintf("%s severity: %d", a.Severity, base)}, a.Details.Scoring...)
	a.Score = base + min(total, most)
}

// risks reads what is known beside the detections themselves: how much the
// indicators they touched are trusted, and which of their sources are in an open
// alert across members.
func (w *work) risks(ctx context.Context, dets []event.Detection) error {
	var sources, indicators []string
	known := map[string]bool{}
	for i := range dets {
		d := &dets[i]
		if d.Indicator != "" && !known["i"+d.Indicator] {
			known["i"+d.Indicator] = true
			indicators = append(indicators, d.Indicator)
		}
		if source := acrossSource(d); source != "" && !known["s"+source] {
			known["s"+source] = true
			sources = append(sources, source)
		}
	}
	if w.s.o.Confidence != nil && len(indicators) > 0 {
		var err error
		if w.confidence, err = w.s.o.Confidence(ctx, w.tx, indicators); err != nil {
			return err
		}
	}
	return each(ctx, w.tx, "SELECT DISTINCT entity FROM alerts WHERE entity IN (?) AND tenant = 0 AND open = 1 AND entity_kind = 'source'", sources, func(scan func(...any) error) error {
		var entity string
		if err := scan(&entity); err != nil {
			return err
		}
		w.across[entity] = true
		return nil
	})
}

// acrossSource is the source of a detection as alerts across members name it.
func acrossSource(d *event.Detection) string {
	if d.Source == "" {
		return ""
	}
	return clip(entityOf(event.Entity{Kind: "source", Value: d.Source}).Value, 400)
}

// weigh gives t what risks found about d.
func (w *work) weigh(t *touched, d *event.Detection) {
	t.a.Details.Confidence = max(t.a.Details.Confidence, min(w.confidence[d.Indicator], 100))
	if d.Tenant != access.Centre && w.across[acrossSource(d)] {
		t.a.Details.Across = true
	}
}

// maxRaised bounds how many open alerts one pattern across members raises.
const maxRaised = 200

// raise gives the members' open alerts of a source their higher risk when a
// pattern across members is found: nobody is told again for that alone.
func (w *work) raise(ctx context.Context, d *event.Detection) error {
	if d.Tenant != access.Centre || d.Entity.Kind != "source" {
		return nil
	}
	source := clip(entityOf(d.Entity).Value, 400)
	if w.across[source] {
		return nil
	}
	w.across[source] = true
	var nums []int64
	if err := w.tx.NewSelect().TableExpr("alerts").Column("num").Where("source IN (?) AND open = 1 AND tenant <> 0", bun.List([]string{source, d.Source})).
		OrderExpr("last_ns DESC").Limit(maxRaised).Scan(ctx, &nums); err != nil {
		return err
	}
	for _, num := range nums {
		t, err := w.load(ctx, num)
		if err != nil {
			return err
		}
		if t == nil || t.a.Details.Across {
			continue
		}
		t.a.Details.Across, t.dirty = true, true
		t.a.score()
		if t.kind == "" {
			t.kind = Updated
		}
	}
	return nil
}
