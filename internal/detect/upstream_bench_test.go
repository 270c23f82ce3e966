package detect

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/event"
)

// cpuTime is the processor time that this process has used: beside other work the clock says little.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// telemetry are real Windows events as a program sends them, in the form in which they travel to the hub: those of TOCSIN_SIGMA_EVENTS, one JSON object a
// line, or those of OTRF in the conformance data, which are one of each kind and heavier than usual.
func telemetry(b *testing.B, w *way, form string) (wire [][]byte) {
	add := func(e map[string]any) {
		w.rules(b, forms[form](e))
		wire = append(wire, bytes.Clone(w.json))
	}
	if file := os.Getenv("TOCSIN_SIGMA_EVENTS"); file != "" {
		eachLine(b, file, func(_ int, line []byte) {
			d := json.NewDecoder(bytes.NewReader(line))
			d.UseNumber()
			var e map[string]any
			if err := d.Decode(&e); err != nil {
				b.Fatal(err)
			}
			add(e)
		})
		return wire
	}
	for _, c := range windowsCases(b) {
		if strings.HasPrefix(c.where, "oracle/otrf") {
			add(c.event)
		}
	}
	return wire
}

// BenchmarkUpstream measures the hub with all upstream rules over real Windows telemetry as it comes from collectors: from the event's JSON to
// matches and correlations, and how much of it is decoding, which the hub does for its rows in any case.
func BenchmarkUpstream(b *testing.B) {
	w := newWay(b, "full")
	for _, form := range []string{"nxlog", "winlogbeat"} {
		b.Run(form, func(b *testing.B) {
			wire := telemetry(b, w, form)
			if len(wire) == 0 {
				b.Fatal("there are no events")
			}
			var ev event.Event
			at, n := int64(0), 0
			pass := func(process bool) time.Duration {
				before := cpuTime()
				for i, line := range wire {
					if err := event.DecodeJSON(&ev, line); err != nil {
						b.Fatal(err)
					}
					if process {
						at += 50_000
						ev.Tenant, ev.Created = event.TenantID(i%50+1), start+at
						w.u.hub.Process(&ev, ev.Created)
						n++
					}
				}
				return cpuTime() - before
			}
			for n < 20_000 { // readings are made and sets have learnt
				pass(true)
			}
			b.ReportAllocs()
			before := w.u.hub.match.Stats()
			n = 0
			var all, decode time.Duration
			for b.Loop() {
				all += pass(true)
				decode += pass(false)
			}
			after := w.u.hub.match.Stats()
			b.ReportMetric(float64(n)/all.Seconds(), "events/CPU-s")
			b.ReportMetric(float64(n)/(all-decode).Seconds(), "detected/CPU-s")
			b.ReportMetric(float64(n)/decode.Seconds(), "decoded/CPU-s")
			b.ReportMetric(float64(after.Candidates-before.Candidates)/float64(after.Events-before.Events), "rules-evaluated/event")
			b.ReportMetric(float64(after.Matches-before.Matches)/float64(after.Events-before.Events), "matches/event")
		})
	}
}
