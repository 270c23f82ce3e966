package alert

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/uptrace/bun"

	"tocsin/internal/event"
)

// TestRisk: what is known beside an alert's own detections moves it up among those of its severity, says so, and never past a graver one.
func TestRisk(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "t.db"), 8)
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

	// The source comes to six members, one after the other: from then on each has five others, and all are raised; nobody is told again for it.
	const source = "198.51.100.77"
	of := func(m int) func(*event.Detection) {
		return func(d *event.Detection) { d.Tenant, d.Source, d.Entity.Value = event.TenantID(m), source, source }
	}
	var ids []string
	across := func() (n int) {
		t.Helper()
		for _, id := range ids {
			a, err := f.Get(t.Context(), national, id)
			if err != nil {
				t.Fatal(err)
			}
			if said := slices.Contains(a.Details.Scoring, "the same source is at work at several members: 4"); said != a.Details.Across {
				t.Errorf("across %v: %q", a.Details.Across, a.Details.Scoring)
			}
			if a.Details.Across {
				n++
			}
		}
		return n
	}
	var first Alert
	for m := 1; m <= 8; m++ {
		told := len(f.notices())
		c := f.apply(f.det(10+m, of(m)))
		ids = append(ids, c[0].Alert.ID)
		if m == 1 {
			first = c[0].Alert
		}
		if got := len(f.notices()); got != told+1 {
			t.Errorf("member %d: %d notices, want its own", m, got-told)
		}
		want := 0
		if m >= 6 {
			want = m
		}
		if got := across(); got != want {
			t.Errorf("%d members: %d alerts are raised, want %d", m, got, want)
		}
	}
	if after, _ := f.Get(t.Context(), national, first.ID); after.Score != first.Score+4 {
		t.Errorf("the score went from %d to %d", first.Score, after.Score)
	}
	// Six in one change, and one without a source.
	var dets []event.Detection
	for m := 1; m <= 6; m++ {
		dets = append(dets, f.det(30+m, of(m), func(d *event.Detection) { d.Source, d.Entity.Value = "198.51.100.78", "198.51.100.78" }))
	}
	dets = append(dets, f.det(40, func(d *event.Detection) { d.Source, d.Family = "", "no source" }))
	ids = nil
	for _, c := range f.apply(dets...) {
		ids = append(ids, c.Alert.ID)
	}
	if got := across(); got != 6 {
		t.Errorf("in one change %d of 7 are raised, want 6", got)
	}
	// An alert that stood open without a source, and gets the source in the change that makes it known: no table has both yet.
	host := func(d *event.Detection) {
		d.Tenant, d.Source, d.Entity = 1, "", event.Entity{Kind: "host", Value: "pc7"}
	}
	ids = []string{f.apply(f.det(50, host))[0].Alert.ID}
	dets = []event.Detection{f.det(51, host, func(d *event.Detection) { d.Source = "198.51.100.79" })}
	for m := 2; m <= 6; m++ {
		dets = append(dets, f.det(50+m, of(m), func(d *event.Detection) { d.Source, d.Entity.Value = "198.51.100.79", "198.51.100.79" }))
	}
	f.apply(dets...)
	if got := across(); got != 1 {
		t.Error("an alert that got the source in the same change is not raised")
	}
	f.recount()
}
