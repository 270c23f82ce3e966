package sigma

import (
	"os"
	"path/filepath"
	"slices"
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

// BenchmarkCores measures how much more two goroutines do than one, each with its own decoder, router and matcher: over one engine, and each over an
// engine and a copy of the events of its own (apart). What the machine's caches cost shows in the second; what the engine shares is what the
// first is below it. The one, the other and both do the same work in turn, in short passes, and the median of the turns counts. The clock is
// asked of those turns only in which nothing waited for other work on the machine.
func BenchmarkCores(b *testing.B) {
	file := os.Getenv("TOCSIN_SIGMA_EVENTS")
	if file == "" {
		file = filepath.Join(shared(b), "oracle", "otrf_windows.events.jsonl")
	}
	e, names := upstream(b)
	lines := readLines(b, file)
	e.PrepareWindows()
	type core struct {
		lines  [][]byte
		at     int
		m      Matcher
		router *Router
		d      Decoder
		rec    Record
		ids    []int32
	}
	newCore := func(e *Engine, names *Names, lines [][]byte) *core {
		router, err := NewRouter(e)
		if err != nil {
			b.Fatal(err)
		}
		return &core{router: router, d: Decoder{Names: names}, lines: lines}
	}
	const events = 1_000
	work := func(c *core) {
		for range events {
			if err := c.d.Decode(&c.rec, c.lines[c.at]); err != nil {
				b.Error(err)
			}
			if c.at++; c.at == len(c.lines) {
				c.at = 0
			}
			if set := c.router.Route(&c.rec); set != nil {
				c.ids = c.m.Match(set, &c.rec, c.ids[:0])
			}
		}
	}
	pass := func(cores ...*core) (cpu, clock time.Duration) {
		cpu, began := cpuTime(), time.Now()
		var wg sync.WaitGroup
		for _, c := range cores {
			wg.Go(func() { work(c) })
		}
		wg.Wait()
		return cpuTime() - cpu, time.Since(began)
	}
	e2, names2 := upstream(b)
	e2.PrepareWindows()
	copied := make([][]byte, len(lines))
	for i, l := range lines {
		copied[i] = append([]byte{}, l...)
	}
	together := [2]*core{newCore(e, names, lines), newCore(e, names, lines)}
	together[1].at = len(lines) / 2
	apart := [2]*core{newCore(e, names, lines), newCore(e2, names2, copied)}
	apart[1].at = len(lines) / 2
	for range 20 + 2*len(lines)/events { // all is known, by each
		pass(together[0], together[1])
		pass(apart[0], apart[1])
	}
	var cpu, clock [2][]float64
	for b.Loop() {
		for i, two := range [2]*[2]*core{&together, &apart} {
			at := [2]int{two[0].at, two[1].at}
			cpu0, clock0 := pass(two[0])
			cpu1, clock1 := pass(two[1])
			two[0].at, two[1].at = at[0], at[1]
			cpuBoth, clockBoth := pass(two[0], two[1])
			cpu[i] = append(cpu[i], 2*(cpu0+cpu1).Seconds()/cpuBoth.Seconds())
			if (cpu0+cpu1).Seconds() > 0.95*(clock0+clock1).Seconds() && cpuBoth.Seconds() > 1.9*clockBoth.Seconds() {
				clock[i] = append(clock[i], (clock0+clock1).Seconds()/clockBoth.Seconds())
			}
		}
	}
	for i, how := range []string{"", "apart-"} {
		for by, list := range map[string][]float64{"times-by-CPU": cpu[i], "times-by-clock": clock[i]} {
			if len(list) > 0 {
				slices.Sort(list)
				b.ReportMetric(list[len(list)/2], how+by)
			}
		}
	}
	b.ReportMetric(float64(len(clock[0]))/float64(len(cpu[0])), "undisturbed")
}
