package sigma

import (
	"path/filepath"
	"testing"
)

// BenchmarkMatch measures all upstream rules over real Windows telemetry, from JSON text to rule numbers.
func BenchmarkMatch(b *testing.B) {
	e, names := upstream(b)
	router, err := NewRouter(e)
	if err != nil {
		b.Fatal(err)
	}
	lines := readLines(b, filepath.Join(shared(b), "oracle", "otrf_windows.events.jsonl"))
	run := func(b *testing.B, match func(*Record)) {
		d := &Decoder{Names: names}
		var rec Record
		for _, l := range lines { // sets are made before the clock runs
			if err := d.Decode(&rec, l); err != nil {
				b.Fatal(err)
			}
			match(&rec)
		}
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			if err := d.Decode(&rec, lines[n%len(lines)]); err != nil {
				b.Fatal(err)
			}
			match(&rec)
			n++
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
	}
	var m Matcher
	var ids []int32
	b.Run("indexed", func(b *testing.B) {
		run(b, func(r *Record) { ids = m.Match(router.Route(r), r, ids[:0]) })
		s := m.Stats()
		b.ReportMetric(float64(s.Candidates)/float64(s.Events), "rules-evaluated/event")
	})
	b.Run("decode", func(b *testing.B) { run(b, func(*Record) {}) })
	b.Run("all", func(b *testing.B) {
		run(b, func(r *Record) { ids = router.Route(r).MatchAll(r, ids[:0]) })
	})
}

// BenchmarkCompile measures loading: parse all rules and compile them.
func BenchmarkCompile(b *testing.B) {
	dir := filepath.Join(shared(b), "rules")
	for b.Loop() {
		var errs []*Error
		c := loadDir(b, dir, &errs)
		if _, err := Compile(c, Options{Schema: &Names{}}); err != nil {
			b.Fatal(err)
		}
	}
}
