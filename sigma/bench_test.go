package sigma

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// cpuTime is the processor time that this process has used: what it says beside other work on the machine is worth more than wall-clock time.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

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
		for range 40 { // sets are made and have learnt before the clock runs
			for _, l := range lines {
				if err := d.Decode(&rec, l); err != nil {
					b.Fatal(err)
				}
				match(&rec)
			}
		}
		b.ReportAllocs()
		n, before := 0, cpuTime()
		for b.Loop() {
			if err := d.Decode(&rec, lines[n%len(lines)]); err != nil {
				b.Fatal(err)
			}
			match(&rec)
			n++
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		b.ReportMetric(float64(n)/(cpuTime()-before).Seconds(), "events/CPU-s")
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

// BenchmarkLoad measures loading: read and parse all rules, compile them, make the sets and indexes of all Windows events.
func BenchmarkLoad(b *testing.B) {
	dir := filepath.Join(shared(b), "rules")
	var parse, compile, index time.Duration
	n := 0
	for b.Loop() {
		t0 := cpuTime()
		var errs []*Error
		c := loadDir(b, dir, &errs)
		t1 := cpuTime()
		e, err := Compile(c, Options{Schema: &Names{}})
		if err != nil {
			b.Fatal(err)
		}
		t2 := cpuTime()
		e.PrepareWindows()
		parse, compile, index = parse+t1-t0, compile+t2-t1, index+cpuTime()-t2
		n++
	}
	for name, d := range map[string]time.Duration{"parse-CPU-ms": parse, "compile-CPU-ms": compile, "index-CPU-ms": index} {
		b.ReportMetric(float64(d.Milliseconds())/float64(n), name)
	}
}

// BenchmarkStream measures a long stream once through, as a matcher that has just begun sees it: TOCSIN_SIGMA_EVENTS names a file with one
// JSON object a line. The conformance data is too short for that, and rounds over it would find everything known.
func BenchmarkStream(b *testing.B) {
	file := os.Getenv("TOCSIN_SIGMA_EVENTS")
	if file == "" {
		b.Skip("TOCSIN_SIGMA_EVENTS is not set")
	}
	e, names := upstream(b)
	lines := readLines(b, file)
	pass := func(match bool) (time.Duration, MatchStats) {
		router, err := NewRouter(e)
		if err != nil {
			b.Fatal(err)
		}
		var m Matcher
		var rec Record
		var ids []int32
		d := &Decoder{Names: names}
		before := cpuTime()
		for _, l := range lines {
			if err := d.Decode(&rec, l); err != nil {
				b.Fatal(err)
			}
			if match {
				if set := router.Route(&rec); set != nil {
					ids = m.Match(set, &rec, ids[:0])
				}
			}
		}
		return cpuTime() - before, m.Stats()
	}
	e.PrepareWindows()
	first, _ := pass(true)
	var least, decode time.Duration
	var stats MatchStats
	for b.Loop() {
		var t time.Duration
		if t, stats = pass(true); least == 0 || t < least {
			least = t
		}
		if t, _ = pass(false); decode == 0 || t < decode {
			decode = t
		}
	}
	n := float64(len(lines))
	b.ReportMetric(n/first.Seconds(), "first/CPU-s")
	b.ReportMetric(n/least.Seconds(), "events/CPU-s")
	b.ReportMetric(n/decode.Seconds(), "decode/CPU-s")
	b.ReportMetric(float64(stats.Candidates)/float64(stats.Events), "rules-evaluated/event")
}

// BenchmarkCores measures how much more two goroutines do than one, each with its own decoder, router and matcher over one engine. What
// counts is processor time: beside other work on the machine the clock says nothing of the engine.
func BenchmarkCores(b *testing.B) {
	e, names := upstream(b)
	file := os.Getenv("TOCSIN_SIGMA_EVENTS")
	if file == "" {
		file = filepath.Join(shared(b), "oracle", "otrf_windows.events.jsonl")
	}
	lines := readLines(b, file)
	e.PrepareWindows()
	type core struct {
		m      Matcher
		router *Router
		d      Decoder
		rec    Record
		ids    []int32
	}
	var cores [2]*core
	for i := range cores {
		router, err := NewRouter(e)
		if err != nil {
			b.Fatal(err)
		}
		cores[i] = &core{router: router, d: Decoder{Names: names}}
	}
	pass := func(n int) (cpu, clock time.Duration) {
		cpu, began := cpuTime(), time.Now()
		var wg sync.WaitGroup
		for _, c := range cores[:n] {
			wg.Go(func() {
				for range 1 + 20_000/len(lines) {
					for _, l := range lines {
						if err := c.d.Decode(&c.rec, l); err != nil {
							b.Error(err)
						}
						if set := c.router.Route(&c.rec); set != nil {
							c.ids = c.m.Match(set, &c.rec, c.ids[:0])
						}
					}
				}
			})
		}
		wg.Wait()
		return cpuTime() - cpu, time.Since(began)
	}
	pass(2)
	pass(2)
	var one, two, clockOne, clockTwo time.Duration
	for b.Loop() {
		cpu, clock := pass(1)
		one, clockOne = one+cpu, clockOne+clock
		cpu, clock = pass(2)
		two, clockTwo = two+cpu, clockTwo+clock
	}
	b.ReportMetric(2*2*one.Seconds()/two.Seconds(), "times-by-CPU")
	b.ReportMetric(2*clockOne.Seconds()/clockTwo.Seconds(), "times-by-clock")
}
