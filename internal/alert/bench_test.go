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
// severities, families and techniques, in the form that Apply leaves them in.
// Apply itself would take longer than the benchmark.
func (f *fixture) fill(n int) {
	f.t.Helper()
	ctx := f.t.Context()
	base := f.clock.now().Add(-90 * 24 * time.Hour).UnixNano()
	run := func(q string, args ...any) {
		f.t.Helper()
		if err := f.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
			_, err := tx.ExecContext(ctx, q, args...)
			return err
		}); err != nil {
			f.t.Fatal(err)
		}
	}
	body := `{"rules":[{"id":"rule","title":"A rule of the family","level":"medium","count":1}],"tags":["attack.t1046"],"techniques":["T1046"],"reason":"because of many things that happened","text":{"title":"","what":"","do":""},"scoring":["medium severity: 40"]}`
	const family = "CASE WHEN i % 5000 = 17 THEN 'rare' ELSE 'family' || (i % 8) END"
	const severity = "CASE WHEN i % 100 < 2 THEN 4 WHEN i % 100 < 12 THEN 3 WHEN i % 100 < 50 THEN 2 WHEN i % 100 < 85 THEN 1 ELSE 0 END"
	var have int
	if err := f.db.Read().NewRaw("SELECT COALESCE(max(num), 0) FROM alerts").Scan(ctx, &have); err != nil {
		f.t.Fatal(err)
	}
	for from := have; from < n; from += 50_000 { // goes on where a run was cut off
		run(`WITH RECURSIVE k(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM k WHERE i + 1 < ?)
			INSERT INTO alerts (num, id, ref, rev, tenant, sector, family, entity_kind, entity, state, open, severity, score, first_ns, last_ns, created_ns, updated_ns, title, source, count, detections, body)
			SELECT i + 1, printf('%08x-0000-7000-8000-%012x', i, i), printf('AL-%07X', i), i + 1, i * 7 % 10000 + 1, (SELECT sector FROM tenants WHERE id = i * 7 % 10000 + 1), `+family+`, 'source',
				printf('%d.%d.%d.%d', 11, i >> 16, (i >> 8) & 255, i & 255), 'new', 1, `+severity+`, 20 * (`+severity+`) + i % 13, ? + i * 7000000000, ? + i * 7000000000, ? + i * 7000000000, ? + i * 7000000000,
				'A rule of the family ' || (`+family+`), printf('%d.%d.%d.%d', 11, i >> 16, (i >> 8) & 255, i & 255), i % 300 + 1, 1, CAST(? AS BLOB) FROM k`,
			from, min(n, from+50_000), base, base, base, base, body)
	}
	run("INSERT INTO alert_techniques (technique, alert) SELECT CASE family WHEN 'rare' THEN 'T1486' ELSE 'T10' || (40 + num % 8) END, num FROM alerts WHERE true ON CONFLICT DO NOTHING")
	run("INSERT INTO alert_words (rowid, text) SELECT num, lower(ref || char(10) || title || char(10) || entity || char(10) || source) FROM alerts WHERE num > (SELECT COALESCE(max(rowid), 0) FROM alert_words)")
	const dims = "state, 0, severity, family, "
	for _, by := range []string{"tenant, ''", "-1, ''", "-2, sector"} {
		run("INSERT INTO alert_counts (tenant, sector, state, escalated, severity, family, technique, n) SELECT " + by + ", " + dims + "'', count(*) FROM alerts GROUP BY 1, 2, 3, 4, 5, 6, 7")
		run("INSERT INTO alert_counts (tenant, sector, state, escalated, severity, family, technique, n) SELECT " + by + ", " + dims + "t.technique, count(*) FROM alerts JOIN alert_techniques t ON t.alert = num GROUP BY 1, 2, 3, 4, 5, 6, 7")
	}
	run("INSERT INTO alert_counts (tenant, sector, state, escalated, severity, family, technique, n) SELECT tenant, '', state, 0, -1, '', '', count(*) FROM alerts GROUP BY 1, 3")
	run("UPDATE counters SET value = ? WHERE name IN ('alert.num', 'alert.rev')", n)
	if n <= 100_000 {
		f.recount()
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
	if err := f.db.Read().NewRaw("SELECT count(*) FROM alert_counts").Scan(b.Context(), &have); err != nil {
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
		{"family", national, Filter{Family: []string{"family3"}}}, {"family=rare", national, Filter{Family: []string{"rare"}}}, {"family=none", national, Filter{Family: []string{"none"}}},
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
