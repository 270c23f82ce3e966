package worker

import (
	"context"
	"maps"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/event"
)

// TestEngineKilled kills the event store's process three times while the worker stores: the worker only waits.
func TestEngineKilled(t *testing.T) {
	h := newHub(t)
	want := map[event.TenantID]uint64{}
	for i := range 60 {
		tn := event.TenantID(1 + i%4)
		h.send(tn, 100, change{})
		want[tn] += 100
	}
	det := &counter{Counts: map[event.TenantID]int{}}
	o := h.options(det)
	o.MaxRows = 500
	last := h.lastSeq()
	kills, at := 0, uint64(0)
	w := h.until(o, func(s Stats) bool {
		if kills < 3 && s.Events > at && h.engine.Up() {
			if pid := h.engine.PID(); pid > 0 {
				syscall.Kill(pid, syscall.SIGKILL)
				kills++
				at = s.Events + 500
			}
		}
		return s.Position >= last
	})
	if kills != 3 || h.engine.Restarts() < 3 {
		t.Errorf("%d kills, %d restarts", kills, h.engine.Restarts())
	}
	if got := h.rows(); !maps.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
	if len(h.applied) != 60 {
		t.Errorf("%d alerts, want 60", len(h.applied))
	}
	sum, err := h.store.Summary(context.Background(), access.System("test"), time.Now().Add(-time.Hour).UnixNano(), time.Now().Add(time.Hour).UnixNano())
	if err != nil || sum.Events != 6000 {
		t.Errorf("the roll-up says %d, %v", sum.Events, err)
	}
	t.Logf("stats %+v", w.Stats())
}

// BenchmarkWorker is the line from the bus to stored: 100 batches of 1,000 firewall events of 20 members, no rules.
func BenchmarkWorker(b *testing.B) {
	h := newHub(b)
	n := 0
	var self float64
	for b.Loop() {
		b.StopTimer()
		for i := range 100 {
			h.send(event.TenantID(1+i%20), 1000, change{})
		}
		o := h.options(nil)
		o.Linger = time.Second
		last := h.lastSeq()
		before := selfCPU()
		b.StartTimer()
		h.until(o, func(s Stats) bool { return s.Position >= last })
		self += selfCPU() - before
		n += 100_000
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(self/float64(n)*1e6, "worker-cpu-s/M")
}

// selfCPU is this process's CPU time in seconds.
func selfCPU() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)/1e6
}

// BenchmarkDecode: one line of a batch into an event, prepared as the worker does.
func BenchmarkDecode(b *testing.B) {
	var e event.Event
	var lines [][]byte
	for i := range 1000 {
		lines = append(lines, append([]byte(nil), line(&e, 1, i)...))
	}
	n := 0
	before := selfCPU()
	b.ReportAllocs()
	for b.Loop() {
		e.Reset()
		if err := event.DecodeJSON(&e, lines[n%len(lines)]); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric((selfCPU()-before)/float64(n)*1e6, "cpu-s/M")
}
