package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tocsin/internal/app/status"
)

func TestStageMetrics(t *testing.T) {
	var broken error
	m := stageMetrics{log: slog.New(slog.DiscardHandler), read: func(context.Context) (map[string]status.Stage, error) {
		return map[string]status.Stage{
			"gate":   {In: 12, Out: 9, Failed: map[string]uint64{"fork": 2, "out_of_sequence": 1}},
			"worker": {In: 9, Out: 9, Lag: 4},
		}, broken
	}}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(m)
	if problems, err := testutil.GatherAndLint(r); err != nil || len(problems) > 0 {
		t.Errorf("the metrics' names: %v, %v", problems, err)
	}
	const want = `
# HELP tocsin_stage_failed_total What a stage has refused, put aside or failed at, by reason.
# TYPE tocsin_stage_failed_total counter
tocsin_stage_failed_total{reason="dead",stage="worker"} 0
tocsin_stage_failed_total{reason="fork",stage="gate"} 2
tocsin_stage_failed_total{reason="out_of_sequence",stage="gate"} 1
# HELP tocsin_stage_lag What waits before a stage: batches on the bus for ledger and worker, notices for outbox; nothing can wait before the others.
# TYPE tocsin_stage_lag gauge
tocsin_stage_lag{stage="gate"} 0
tocsin_stage_lag{stage="worker"} 4
# HELP tocsin_stages_up Whether the stages could be asked: 0 when the records or the bus do not answer, and then no stage is listed.
# TYPE tocsin_stages_up gauge
tocsin_stages_up 1
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), "tocsin_stage_failed_total", "tocsin_stage_lag", "tocsin_stages_up"); err != nil {
		t.Error(err)
	}
	broken = errors.New("the database is away")
	const down = `
# HELP tocsin_stages_up Whether the stages could be asked: 0 when the records or the bus do not answer, and then no stage is listed.
# TYPE tocsin_stages_up gauge
tocsin_stages_up 0
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(down)); err != nil {
		t.Error(err)
	}
}
