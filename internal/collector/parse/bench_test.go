package parse

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/collector/parse/parsetest"
	"tocsin/internal/event"
)

// benchmarkFormat parses lines like the samples of one format with detection on, as the collector does (see parsetest).
func benchmarkFormat(b *testing.B, names ...string) {
	var samples [][]byte
	for _, name := range names {
		in, err := os.ReadFile(filepath.Join("packs", filepath.FromSlash(name)+"input.log"))
		if err != nil {
			b.Fatal(err)
		}
		samples = append(samples, bytes.Split(bytes.TrimSuffix(in, []byte("\n")), []byte("\n"))...)
	}
	s := New(Options{})
	var e event.Event
	created := time.Date(2026, 11, 12, 9, 0, 0, 0, time.UTC).UnixNano()
	parse := func(line []byte) string {
		e.Reset()
		e.SetRaw(line)
		e.Created = created
		format, ok := s.Parse(&e, "")
		if !ok && names[0] != "text/" {
			b.Fatalf("not understood: %s", line)
		}
		return format
	}
	lines := parsetest.Lines(samples, 4000, func(sample, line []byte) bool {
		format := parse(sample)
		keys := slices.Clone(e.Keys())
		return parse(line) == format && slices.Equal(e.Keys(), keys)
	})
	size := 0
	for _, l := range lines {
		size += len(l)
	}
	runtime.GC()
	b.ReportAllocs()
	b.SetBytes(int64(size / len(lines)))
	i, start := 0, cpuTime()
	for b.Loop() {
		parse(lines[i])
		if i++; i == len(lines) {
			i = 0
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	if used := cpuTime() - start; used > 0 { // what the core gave, on a machine that others use as well
		b.ReportMetric(float64(b.N)/used.Seconds(), "events/cpu-s")
	}
}

// cpuTime is the processor time this process has used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkFortiGate(b *testing.B) { benchmarkFormat(b, "fortigate/traffic.") }
func BenchmarkASA(b *testing.B)       { benchmarkFormat(b, "asa/traffic.") }
func BenchmarkNetfilter(b *testing.B) { benchmarkFormat(b, "netfilter/") }
func BenchmarkFilterlog(b *testing.B) { benchmarkFormat(b, "filterlog/") }
func BenchmarkDrayTek(b *testing.B)   { benchmarkFormat(b, "draytek/") }
func BenchmarkEVE(b *testing.B)       { benchmarkFormat(b, "eve/") }
func BenchmarkSSHD(b *testing.B)      { benchmarkFormat(b, "sshd/") }

// BenchmarkMix is all firewall samples in turn.
func BenchmarkMix(b *testing.B) {
	benchmarkFormat(b, "fortigate/traffic.", "asa/traffic.", "netfilter/", "filterlog/", "draytek/", "sonicwall/", "sophos/", "zyxel/", "panos/", "meraki/", "mikrotik/")
}

// BenchmarkPacks is each product's samples on their own, to find what costs more than it should. With some 240 products it takes a quarter of
// an hour, so it is asked for by name: TOCSIN_BENCH_PACKS=1.
func BenchmarkPacks(b *testing.B) {
	if os.Getenv("TOCSIN_BENCH_PACKS") == "" {
		b.Skip("TOCSIN_BENCH_PACKS=1 measures each product on its own")
	}
	files, err := filepath.Glob(filepath.Join("packs", "*", "input.log"))
	if err != nil || len(files) == 0 {
		b.Fatal("no samples: ", err)
	}
	for _, f := range files {
		name := filepath.Base(filepath.Dir(f))
		b.Run(name, func(b *testing.B) { benchmarkFormat(b, name+"/") })
	}
}
