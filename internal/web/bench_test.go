package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"tocsin/internal/event"
)

// BenchmarkPages serves pages from real records: 5,000 open alerts, sixty rows a
// page.
func BenchmarkPages(b *testing.B) {
	w := newWorld(b, hasEngine())
	var dets []event.Detection
	for n := range 5000 {
		d := w.detection(n%3, "port-scan", "scan", []string{"low", "medium", "high"}[n%3], 1, 2, 3)
		d.Entity.Value = fmt.Sprintf("198.51.%d.%d", n/250, n%250)
		d.Source, d.Key = d.Entity.Value, fmt.Sprint("bench", n)
		d.Last -= int64(n) * int64(time.Second)
		dets = append(dets, d)
	}
	for part := range slices.Chunk(dets, 500) {
		if _, err := w.alerts.Apply(b.Context(), "bench", part); err != nil {
			b.Fatal(err)
		}
	}
	for _, p := range []struct{ name, who, path string }{{"queue", "analyst", "/queue"}, {"queue/filtered", "analyst", "/queue?severity=high&family=scan"}, {"alert", "analyst", "/alerts/" + w.alertID(0, "vpn_sign_in")}, {"picture", "member1", "/picture?days=30"}, {"collector", "member1", "/collectors/" + w.collectors[0]}, {"members", "operator", "/members"}} {
		c := w.client(p.who)
		u, err := url.Parse(w.server.URL)
		if err != nil {
			b.Fatal(err)
		}
		cookies := c.Jar.Cookies(u)
		b.Run(p.name, func(b *testing.B) {
			b.ReportAllocs()
			var size int
			var times []time.Duration
			for b.Loop() {
				req := httptest.NewRequest(http.MethodGet, p.path, nil)
				for _, k := range cookies {
					req.AddCookie(k)
				}
				rec := httptest.NewRecorder()
				start := time.Now()
				w.server.Config.Handler.ServeHTTP(rec, req)
				times = append(times, time.Since(start))
				if size = rec.Body.Len(); rec.Code != http.StatusOK {
					b.Fatal(rec.Code)
				}
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)*95/100].Microseconds())/1000, "p95-ms")
			b.ReportMetric(float64(size)/1024, "KiB/page")
		})
	}
}
