package app

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tocsin/internal/app/status"
)

// stageMetrics tells monitoring what every stage has taken in, handed on and failed at since the hub started, and how much waits before it.
type stageMetrics struct {
	read func(ctx context.Context) (map[string]status.Stage, error)
	log  *slog.Logger
}

var (
	stageIn = prometheus.NewDesc("tocsin_stage_in_total",
		"What a stage has taken in: batches at gate, ledger and worker, events at detect and store, detections at alert, notices at outbox.", []string{"stage"}, nil)
	stageOut = prometheus.NewDesc("tocsin_stage_out_total",
		"What a stage has handed on: receipts of the gate, entries of the ledger, batches of the worker, detections of detect, rows of the store, alerts opened or added to, notices delivered.", []string{"stage"}, nil)
	stageFailed = prometheus.NewDesc("tocsin_stage_failed_total", "What a stage has refused, put aside or failed at, by reason.", []string{"stage", "reason"}, nil)
	stageLag    = prometheus.NewDesc("tocsin_stage_lag", "What waits before a stage: batches on the bus for ledger and worker, notices for outbox; nothing can wait before the others.", []string{"stage"}, nil)
	stagesUp    = prometheus.NewDesc("tocsin_stages_up", "Whether the stages could be asked: 0 when the records or the bus do not answer, and then no stage is listed.", nil, nil)
)

// failures are the reasons that a stage is known to have. They are told from the start, so that the first failure is a rise and not the
// birth of a series. The gate's reasons are its error codes, told as they occur.
var failures = map[string][]string{"ledger": {"failed"}, "worker": {"dead"}, "detect": {"evicted", "coarse"}, "store": {"failed_queries"}, "alert": {"failed"}, "outbox": {"dead"}}

// Describe implements prometheus.Collector.
func (m stageMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{stageIn, stageOut, stageFailed, stageLag, stagesUp} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Whatever is wrong with the stages, the rest of the metrics are served.
func (m stageMetrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	stages, err := m.read(ctx)
	if err != nil {
		m.log.Warn("reading the stages for monitoring", "err", err)
		ch <- prometheus.MustNewConstMetric(stagesUp, prometheus.GaugeValue, 0)
		return
	}
	ch <- prometheus.MustNewConstMetric(stagesUp, prometheus.GaugeValue, 1)
	for name, s := range stages {
		ch <- prometheus.MustNewConstMetric(stageIn, prometheus.CounterValue, float64(s.In), name)
		ch <- prometheus.MustNewConstMetric(stageOut, prometheus.CounterValue, float64(s.Out), name)
		ch <- prometheus.MustNewConstMetric(stageLag, prometheus.GaugeValue, float64(s.Lag), name)
		reasons := slices.Collect(maps.Keys(s.Failed))
		for _, known := range failures[name] {
			if !slices.Contains(reasons, known) {
				reasons = append(reasons, known)
			}
		}
		for _, r := range reasons {
			ch <- prometheus.MustNewConstMetric(stageFailed, prometheus.CounterValue, float64(s.Failed[r]), name, r)
		}
	}
}
