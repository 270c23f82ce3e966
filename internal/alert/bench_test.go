package alert

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/event"
)

var big = flag.Int("alert.big", 100_000, "open alerts in the inbox benchmark; the bar is set for 1000000")

// fill puts n open alerts of 10,000 members into the database, spread over
// severities, families and techniques, by Apply itself.
func (f *fixture) fill(n int) {
	f.t.Helper()
	families := []string{"scan", "vpn.guessing", "vpn.success", "ids", "indicator", "ssh.guessing", "web", "malware", "rare"}
	techniques := []string{"attack.t1046", "attack.t1110.003", "attack.t1078", "attack.t1190", "attack.t1071.001", "attack.t1110.001", "attack.t1595", "attack.t1204", "attack.t1486"}
	levels := []string{"low", "medium", "medium", "low", "high", "informational", "medium", "low", "critical", "high"}
	var dets []event.Detection
	base := f.clock.now().Add(-90 * 24 * time.Hour).UnixNano()
	for i := range n {
		k := i % 8
		if i%5000 == 17 {
			k = 8
		}
		d := event.Detection{Tenant: event.TenantID(i*7%10_000 + 1), RuleID: "rule" + families[k], RuleTitle: "A rule of the family " + families[k], Family: families[k], Level: levels[i/8%len(levels)],
			Tags: []string{techniques[k]}, Entity: event.Entity{Kind: "source", Value: fmt.Sprintf("%d.%d.%d.%d", 11+i>>24, i>>16&0xff, i>>8&0xff, i&0xff)},
			First: base + int64(i)*int64(7*time.Second), Last: base + int64(i)*int64(7*time.Second), Count: i%300 + 1, Reason: "because of many things that happened", Key: fmt.Sprint("k", i)}
		d.Source = d.Entity.Value
		dets = append(dets, d)
		if len(dets) == 2000 || i == n-1 {
			f.apply(dets...)
			dets = dets[:0]
		}
	}
}

func BenchmarkApply(b *testing.B) {
	for _, group := range []int{1, 100} {
		for _, kind := range []string{"new", "counted"} {
			b.Run(fmt.Sprintf("%s/detections=%d", kind, group), func(b *testing.B) {
				f := open(b, filepath.Join(b.TempDir(), "t.db"), 100)
				n := 0
				for b.Loop() {
					dets := make([]event.Detection, group)
					for i := range dets {
						n++
						dets[i] = f.det(n, func(d *event.Detection) {
							d.Tenant = event.TenantID(n%100 + 1)
							if kind == "new" {
								d.Entity.Value = fmt.Sprint("host", n)
							}
						})
					}
					if _, err := f.Apply(b.Context(), "p", dets); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "detections/s")
			})
		}
	}
}

// BenchmarkInbox reads pages of a full inbox: the first, one deep in it, and
// pages of filters that match much, little or nothing.
func BenchmarkInbox(b *testing.B) {
	dir := os.Getenv("TOCSIN_ALERT_BENCH_DIR") // keeps the big table between runs
	if dir == "" {
		dir = b.TempDir()
	}
	f := open(b, filepath.Join(dir, "inbox.db"), 10_000)
	var have int
	if err := f.db.Read().NewRaw("SELECT count(*) FROM alerts").Scan(b.Context(), &have); err != nil {
		b.Fatal(err)
	}
	if have == 0 {
		start := time.Now()
		f.fill(*big)
		b.Logf("%d alerts in %s", *big, time.Since(start).Round(time.Millisecond))
		if err := f.db.Write(b.Context(), func(ctx context.Context, tx bun.IDB) error {
			if _, err := tx.ExecContext(ctx, "UPDATE alerts SET assignee = 'ana' WHERE num % 10000 = 5"); err != nil {
				return err
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	deep := Filter{}
	for range 20 {
		p, err := f.Queue(b.Context(), national, Filter{After: deep.After, Limit: 200})
		if err != nil {
			b.Fatal(err)
		}
		deep.After = p.Next
	}
	cases := []struct {
		name  string
		scope access.Scope
		f     Filter
	}{
		{"first", national, Filter{}}, {"recent", national, Filter{Order: ByRecent}}, {"deep", national, deep},
		{"severity=high", national, Filter{Severity: []Severity{High}}}, {"severity=high,low,recent", national, Filter{Severity: []Severity{High, Low}, Order: ByRecent}},
		{"family", national, Filter{Family: []string{"web"}}}, {"family=rare", national, Filter{Family: []string{"rare"}}}, {"family=none", national, Filter{Family: []string{"none"}}},
		{"technique", national, Filter{Technique: []string{"T1046"}}}, {"technique=rare", national, Filter{Technique: []string{"T1486"}}},
		{"sector", national, Filter{Sector: []string{"health"}}}, {"member", access.Only(8), Filter{}}, {"members=3", national, Filter{Tenants: []event.TenantID{8, 15, 22}}},
		{"mine", national, Filter{View: ViewMine, Me: "ana"}}, {"escalated", national, Filter{View: ViewEscalated}}, {"closed", national, Filter{View: ViewClosed}},
		{"text=rare", national, Filter{Text: "the family rare"}}, {"text=frequent", national, Filter{Text: "a rule of"}}, {"text=address", national, Filter{Text: "11.0.3.77"}},
	}
	for _, tc := range cases {
		b.Run("page/"+tc.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := f.Queue(b.Context(), tc.scope, tc.f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, tc := range cases {
		if tc.f.After != "" || tc.f.Text != "" || tc.f.Order != "" {
			continue
		}
		b.Run("facets/"+tc.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := f.Facets(b.Context(), tc.scope, tc.f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
