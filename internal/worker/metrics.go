package worker

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// latency is a histogram of durations with buckets 7 % apart from 10 microseconds to over a day. It is safe for concurrent use.
type latency struct {
	buckets [latencyBuckets]atomic.Uint64
	n       atomic.Uint64
	max     atomic.Int64
	prom    prometheus.Observer
}

const (
	latencyBuckets = 360
	latencyMin     = 10 * time.Microsecond
	latencyGrowth  = 1.07
)

func (l *latency) observe(d time.Duration) {
	if d < 0 {
		d = 0 // two clocks
	}
	if l.prom != nil {
		l.prom.Observe(d.Seconds())
	}
	i := 0
	if d > latencyMin {
		i = min(latencyBuckets-1, 1+int(math.Log(float64(d)/float64(latencyMin))/math.Log(latencyGrowth)))
	}
	l.buckets[i].Add(1)
	l.n.Add(1)
	for {
		m := l.max.Load()
		if int64(d) <= m || l.max.CompareAndSwap(m, int64(d)) {
			return
		}
	}
}

// Quantiles of a step's duration, each at most 7 % too high.
type Quantiles struct {
	Count              uint64
	P50, P95, P99, Max time.Duration
}

func (l *latency) quantiles() Quantiles {
	q := Quantiles{Count: l.n.Load(), Max: time.Duration(l.max.Load())}
	if q.Count == 0 {
		return q
	}
	at := func(p float64) time.Duration {
		want := uint64(math.Ceil(p * float64(q.Count)))
		var sum uint64
		for i := range l.buckets {
			if sum += l.buckets[i].Load(); sum >= want {
				return min(q.Max, time.Duration(float64(latencyMin)*math.Pow(latencyGrowth, float64(i))))
			}
		}
		return q.Max
	}
	q.P50, q.P95, q.P99 = at(.5), at(.95), at(.99)
	return q
}

type metrics struct {
	batches, events, repeats, dead, plans, redone, replayed, detections, badDetections, retries, restarts, running, aside, retried atomic.Uint64
	position                                                                                                                       atomic.Uint64
	lastDone                                                                                                                       atomic.Int64

	gate        latency // gate's receipt to fetched
	decode      latency // one batch: decode, enrich, detect, make rows
	store       latency // one plan's insert
	alerted     latency // collector's receipt to alert handed over
	gateAlerted latency // gate's receipt to alert handed over
	stored      latency // collector's receipt to stored
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{}
	if r == nil {
		return m, nil
	}
	hist := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "tocsin_worker_seconds", Help: "Durations of the worker's steps.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .2, .3, .5, .75, 1, 2, 5, 10, 30, 60, 300},
	}, []string{"step"})
	m.gate.prom, m.decode.prom, m.store.prom = hist.WithLabelValues("gate_to_worker"), hist.WithLabelValues("decode_detect_batch"), hist.WithLabelValues("insert_plan")
	m.alerted.prom, m.gateAlerted.prom, m.stored.prom = hist.WithLabelValues("receipt_to_alert"), hist.WithLabelValues("gate_to_alert"), hist.WithLabelValues("receipt_to_stored")
	cs := []prometheus.Collector{hist}
	for _, c := range []struct {
		name, help string
		v          *atomic.Uint64
	}{
		{"batches_in_total", "Batches taken from the bus, repeats included.", &m.batches},
		{"events_stored_total", "Events stored.", &m.events},
		{"batches_repeated_total", "Batches dropped as repeats of their stream's number.", &m.repeats},
		{"events_dead_total", "Events put aside because they could not be processed.", &m.dead},
		{"plans_total", "Plans begun.", &m.plans},
		{"plans_redone_total", "Plans done again after a crash.", &m.redone},
		{"batches_replayed_total", "Batches read again after a start to rebuild the detector's state.", &m.replayed},
		{"detections_total", "Detections applied.", &m.detections},
		{"bad_detections_total", "Detections from sites that could not be read.", &m.badDetections},
		{"retried_events_total", "Events that had been put aside and were stored after all, when somebody asked for another try.", &m.retried},
		{"restarts_total", "Times the worker ended with an error and was started again.", &m.restarts},
		{"retries_total", "Attempts that failed and were repeated.", &m.retries},
	} {
		cs = append(cs, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tocsin_worker_" + c.name, Help: c.help}, func() float64 { return float64(c.v.Load()) }))
	}
	cs = append(cs, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tocsin_worker_running", Help: "1 while the worker runs, 0 while it waits to be started again: nothing is stored or alerted then."},
		func() float64 { return float64(m.running.Load()) }))
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Stats are counts since the worker was made.
type Stats struct {
	Batches, Events, Repeats, Plans, Redone, Replayed, Detections, BadDetections, Retries, Restarts uint64

	Dead     uint64    // events put aside
	Aside    uint64    // batches put aside whole
	Retried  uint64    // events stored after another try
	Position uint64    // bus sequence up to which all is done
	LastDone time.Time // zero: nothing yet
	Running  bool

	GateToWorker, DecodeDetect, InsertPlan, ReceiptToAlert, GateToAlert, ReceiptToStored Quantiles
}

// Position is the bus sequence up to which this worker has done everything; 0 until its first plan is done. It may be called from any goroutine.
func (w *Worker) Position() uint64 { return w.m.position.Load() }

// Stats may be called from any goroutine.
func (w *Worker) Stats() Stats {
	m := w.m
	s := Stats{
		Batches: m.batches.Load(), Events: m.events.Load(), Repeats: m.repeats.Load(), Dead: m.dead.Load(), Plans: m.plans.Load(), Redone: m.redone.Load(), Replayed: m.replayed.Load(),
		Detections: m.detections.Load(), BadDetections: m.badDetections.Load(), Retries: m.retries.Load(), Restarts: m.restarts.Load(), Running: m.running.Load() > 0, Aside: m.aside.Load(), Retried: m.retried.Load(), Position: m.position.Load(),
		GateToWorker: m.gate.quantiles(), DecodeDetect: m.decode.quantiles(), InsertPlan: m.store.quantiles(),
		ReceiptToAlert: m.alerted.quantiles(), GateToAlert: m.gateAlerted.quantiles(), ReceiptToStored: m.stored.quantiles(),
	}
	if ns := m.lastDone.Load(); ns != 0 {
		s.LastDone = time.Unix(0, ns)
	}
	return s
}
