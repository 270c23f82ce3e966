package sigma

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSpecificationExample is the example that ends the specification of correlations: many failed logins, then a successful one, by a
// chain of two correlations that refer forward. The times of the hits are exact.
func TestSpecificationExample(t *testing.T) {
	e, names := compileText(t, `
title: Correlation - Multiple Failed Logins Followed by Successful Login
id: b180ead8-d58f-40b2-ae54-c8940995b9b6
correlation:
  type: temporal_ordered
  rules: [multiple_failed_login, successful_login]
  group-by: [User]
  timespan: 10m
---
title: Multiple failed logons
id: a8418a5a-5fc4-46b5-b23b-6c73beb19d41
name: multiple_failed_login
correlation:
  type: event_count
  rules: [failed_login]
  group-by: [User]
  timespan: 10m
  condition: {gte: 10}
---
title: Single failed login
name: failed_login
logsource: {product: windows, service: security}
detection: {selection: {EventID: [529, 4625]}, condition: selection}
---
title: Successful login
name: successful_login
logsource: {product: windows, service: security}
detection: {selection: {EventID: [528, 4624]}, condition: selection}
`)
	for _, c := range []struct {
		name  string
		fails []int // seconds
		login int
		want  string // first and last event of the hit
	}{
		{"ten failures, then a login", []int{0, 10, 20, 30, 40, 50, 60, 70, 80, 90}, 100, "90-100"},
		{"as late as the timespan", []int{0, 10, 20, 30, 40, 50, 60, 70, 80, 90}, 690, "90-690"},
		{"too late", []int{0, 10, 20, 30, 40, 50, 60, 70, 80, 90}, 691, ""},
		{"failures that go on keep it open", []int{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 590}, 691, "590-691"},
		{"nine failures", []int{0, 10, 20, 30, 40, 50, 60, 70, 80}, 100, ""},
		{"the login came before", []int{10, 11, 12, 13, 14, 15, 16, 17, 18, 19}, 5, ""},
	} {
		cor := NewCorrelator(e, CorrelatorOptions{})
		var m Matcher
		var rec Record
		type step struct {
			at int
			id int64
		}
		var steps []step
		for _, s := range c.fails {
			steps = append(steps, step{s, 4625})
		}
		steps = append(steps, step{c.login, 4624})
		slices.SortStableFunc(steps, func(a, b step) int { return a.at - b.at })
		var hits []Hit
		for _, s := range steps {
			rec.Reset()
			rec.AddInt(names.Lookup("EventID"), s.id)
			rec.AddString(names.Lookup("User"), "ann")
			at := 1e18 + int64(s.at)*1e9
			set := e.Set(Source{LogSource: LogSource{Product: "windows", Service: "security"}})
			for _, h := range cor.Observe(m.Match(set, &rec, nil), &rec, at, at, 1, false, Ref{}, nil) {
				if e.CorrelationAlerts(h.Correlation) {
					if at != h.Last {
						t.Errorf("%s: told at %d, its last event was at %d", c.name, at, h.Last)
					}
					hits = append(hits, h)
				}
			}
		}
		got := ""
		for _, h := range hits {
			got += fmt.Sprintf("%d-%d", (h.First-1e18)/1e9, (h.Last-1e18)/1e9)
			if strings.Join(h.Rules, " ") != "multiple_failed_login successful_login" {
				t.Errorf("%s: rules %v", c.name, h.Rules)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestLateEvents: events that came long after their time are counted among themselves, never with current ones, and their hits say so.
func TestLateEvents(t *testing.T) {
	r := newRig(t, counting("event_count", "gte: 3", ""), CorrelatorOptions{})
	feed := func(at float64, late bool) []Hit {
		r.rec.Reset()
		r.rec.AddString(r.names.Lookup("outcome"), "failure")
		r.rec.AddString(r.names.Lookup("user"), "a")
		return r.c.Observe([]int32{0}, &r.rec, int64(at*1e9), 5000e9, 1, late, Ref{}, nil)
	}
	var hits []Hit
	for i, at := range []float64{5000, 4000, 5001, 4001} { // two of each: neither has three
		hits = append(hits, feed(at, i%2 == 1)...)
	}
	if len(hits) != 0 {
		t.Fatalf("late and current events were counted together: %+v", hits)
	}
	if hits = feed(4002, true); len(hits) != 1 || !hits[0].Late || hits[0].First != 4000e9 || hits[0].Last != 4002e9 || hits[0].Count != 3 {
		t.Fatalf("late: %+v", hits)
	}
	if hits = feed(5002, false); len(hits) != 1 || hits[0].Late || hits[0].First != 5000e9 {
		t.Fatalf("current: %+v", hits)
	}
}

// TestRestart: a stream that is cut by a restart at any event gives what it gives whole, for every type of correlation, in and out of order.
func TestRestart(t *testing.T) {
	for _, cor := range []string{
		count("event_count", "gte: 3"), count("event_count", "lt: 3"), count("value_count", "field: port, gte: 3"), count("value_count", "field: [port, bytes], gte: 3"),
		count("value_sum", "field: bytes, gte: 90"), count("value_avg", "field: bytes, gt: 20"), count("value_percentile", "field: bytes, percentile: 90, gte: 35"), count("value_median", "field: bytes, gte: 22"),
		correlationHead + "  type: temporal\n  rules: [failed, success]\n  group-by: [user]\n",
		correlationHead + "  type: temporal_ordered\n  rules: [failed, success]\n  group-by: [user]\n",
		correlationHead + "  type: temporal\n  group-by: [user]\n  condition: failed and not success\n",
	} {
		run := func(cut int) string {
			r := newRig(t, cor, CorrelatorOptions{UpdateEvery: 5 * time.Second})
			var b strings.Builder
			for i := range 60 {
				if i == cut {
					snapshot := r.c.Snapshot()
					r.c = NewCorrelator(r.e, CorrelatorOptions{UpdateEvery: 5 * time.Second})
					if err := r.c.Restore(snapshot); err != nil {
						t.Fatal(err)
					}
					if again := r.c.Snapshot(); len(again) != len(snapshot) {
						t.Fatalf("%d bytes were saved, %d come of them", len(snapshot), len(again))
					}
				}
				at := float64(1000+i*2) - float64(i*7%5)*2.5 // some behind others
				outcome := "outcome=failure"
				if i%5 == 3 {
					outcome = "outcome=success"
				}
				for _, h := range r.at(at, outcome, fmt.Sprintf("user=%d", i%2), fmt.Sprintf("port=%d", i%7), fmt.Sprintf("bytes=%d", i*13%41)) {
					fmt.Fprintf(&b, "%d: %+v\n", i, h)
				}
				var told []string // of several groups, which are numbered anew after a restart
				for _, h := range r.c.Tick(int64(at*1e9), int64(at*1e9), nil) {
					told = append(told, fmt.Sprintf("%d, tick: %+v\n", i, h))
				}
				slices.Sort(told)
				b.WriteString(strings.Join(told, ""))
			}
			return b.String()
		}
		whole := run(-1)
		if whole == "" {
			t.Errorf("%s: no hit", cor)
		}
		for cut := range 60 {
			if got := run(cut); got != whole {
				t.Fatalf("%s: cut at %d:\n%s\nwant\n%s", cor, cut, got, whole)
			}
		}
	}
}
