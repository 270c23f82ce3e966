package alert

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/event"
)

// TestRisk: what is known beside an alert's own detections moves it up among those of its severity, says so, and never past a graver one.
func TestRisk(t *testing.T) {
	f := newFixture(t)
	asked := 0
	f.o.Confidence = func(_ context.Context, _ bun.IDB, indicators []string) (map[string]int, error) {
		asked += len(indicators)
		return map[string]int{"ip:1": 90, "ip:2": 30, "ip:3": 400}, nil
	}
	on := func(indicator string) func(*event.Detection) {
		return func(d *event.Detection) { d.Indicator, d.Family = indicator, "family "+indicator }
	}
	c := f.apply(f.det(1, on("")), f.det(2, on("ip:1")), f.det(3, on("ip:2")), f.det(4, on("ip:2")), f.det(5, on("ip:3")), f.det(6, on("ip:9")))
	if asked != 4 {
		t.Errorf("asked for %d indicators, want each once", asked)
	}
	plain := c[0].Alert.Score
	for i, want := range []int{0, 5, 2, 5, 0} {
		a := c[i].Alert
		got := 0
		for _, s := range a.Details.Scoring {
			if strings.HasPrefix(s, "on an indicator list") {
				got = int(s[len(s)-1] - '0')
			}
		}
		if got != want || a.Score < plain || a.Score > 59 {
			t.Errorf("%s: %d points of %d, want %d: %q", a.Family, got, a.Score, want, a.Details.Scoring)
		}
	}

	// The source is at work at two members: the centre's alert raises both, also the one that comes later, and nobody is told again for it.
	before := f.apply(f.det(10, on("guess")), f.det(11, on("guess"), func(d *event.Detection) { d.Tenant = 2 }))
	told := len(f.notices())
	across := f.apply(f.det(12, func(d *event.Detection) { d.Tenant, d.Family = access.Centre, "campaign" }))
	if got := len(f.notices()); got != told+1 {
		t.Errorf("%d notices, want one, of the centre's alert", got-told)
	}
	later := f.apply(f.det(13, func(d *event.Detection) { d.Tenant, d.Family = 3, "late" }), f.det(14, func(d *event.Detection) { d.Tenant, d.Family, d.Source = 3, "other", "198.51.100.9" }))
	for _, x := range []struct {
		id   string
		want bool
	}{{before[0].Alert.ID, true}, {before[1].Alert.ID, true}, {later[0].Alert.ID, true}, {later[1].Alert.ID, false}, {across[0].Alert.ID, false}} {
		a, err := f.Get(t.Context(), national, x.id)
		if err != nil {
			t.Fatal(err)
		}
		if said := slices.Contains(a.Details.Scoring, "the same source is at work at several members: 4"); a.Details.Across != x.want || said != x.want {
			t.Errorf("%s of %d: across %v, %q, want %v", a.Family, a.Tenant, a.Details.Across, a.Details.Scoring, x.want)
		}
	}
	if after, _ := f.Get(t.Context(), national, before[0].Alert.ID); after.Score != before[0].Alert.Score+4 {
		t.Errorf("the score went from %d to %d", before[0].Alert.Score, after.Score)
	}
	f.recount()
}
