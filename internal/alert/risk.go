package alert

import (
	"context"
	"fmt"
	"math/bits"

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
// indicators they touched are trusted, and at which members their sources are at
// work.
func (w *work) risks(ctx context.Context, dets []event.Detection) error {
	var indicators []string
	known := map[string]bool{}
	for i := range dets {
		d := &dets[i]
		if d.Indicator != "" && !known[d.Indicator] {
			known[d.Indicator] = true
			indicators = append(indicators, d.Indicator)
		}
		if d.Source == "" || d.Tenant == access.Centre || w.at[d.Source] != nil || len(w.at) >= maxSources {
			continue
		}
		at := map[event.TenantID]uint64{}
		w.at[d.Source] = at
		// The empty one is ruled out in the words of the index alerts_source, which is used only so. Of a source that has been about for years
		// the newest alerts are looked at, not all that were ever closed.
		var tenants []event.TenantID
		if err := w.tx.NewRaw("SELECT DISTINCT tenant FROM (SELECT tenant, open FROM alerts WHERE source = ? AND source <> '' ORDER BY last_ns DESC LIMIT ?) WHERE open = 1 AND tenant <> 0 LIMIT ?",
			clip(d.Source, 200), maxLooked, 2*manyMembers).Scan(ctx, &tenants); err != nil {
			return err
		}
		for _, t := range tenants {
			at[t] = 1
		}
	}
	if w.s.o.Confidence != nil && len(indicators) > 0 {
		var err error
		if w.confidence, err = w.s.o.Confidence(ctx, w.tx, indicators); err != nil {
			return err
		}
	}
	return nil
}

const (
	maxSources  = 500 // that one change looks at
	manyMembers = 6   // from so many on each of them has five others, and may know (access.Figure)
	maxLooked   = 500 // newest alerts of a source, open or not
	maxRaised   = 200 // open alerts that one more member raises
)

// weigh gives t what risks found about d. That a source is at work elsewhere
// counts only where a member may know that: its list is in the order of risk.
func (w *work) weigh(ctx context.Context, t *touched, d *event.Detection) error {
	t.a.Details.Confidence = max(t.a.Details.Confidence, min(w.confidence[d.Indicator], 100))
	at := w.at[d.Source]
	if at == nil || d.Tenant == access.Centre || !t.a.Open {
		return nil
	}
	more := at[d.Tenant] == 0
	at[d.Tenant] = 1
	if _, ok := access.Figure(d.Tenant, at); !ok {
		return nil
	}
	t.a.Details.Across = true
	if !more || len(at) != manyMembers {
		return nil
	}
	return w.raise(ctx, d.Source)
}

// raise gives the open alerts of a source their higher risk when one more member
// makes it known to all: nobody is told again for that alone.
func (w *work) raise(ctx context.Context, source string) error {
	for _, t := range w.order { // what this very change opened or gave this source is in no table yet
		if t.a.Open && t.a.Tenant != access.Centre && t.a.Source == clip(source, 200) {
			t.across()
		}
	}
	var nums []int64
	if err := w.tx.NewRaw("SELECT num FROM (SELECT num, open, tenant, last_ns FROM alerts WHERE source = ? AND source <> '' ORDER BY last_ns DESC LIMIT ?) WHERE open = 1 AND tenant <> 0 ORDER BY last_ns DESC LIMIT ?",
		clip(source, 200), maxLooked, maxRaised).Scan(ctx, &nums); err != nil {
		return err
	}
	for _, num := range nums {
		t, err := w.load(ctx, num)
		if err != nil {
			return err
		}
		if t != nil && t.a.Open {
			t.across()
		}
	}
	return nil
}

// across gives an alert the higher risk of a source that is at work at several members.
func (t *touched) across() {
	if t.a.Details.Across {
		return
	}
	t.a.Details.Across, t.dirty = true, true
	t.a.score()
	if t.kind == "" {
		t.kind = Updated
	}
}
