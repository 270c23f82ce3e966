package app

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tocsin/internal/bus"
)

// When the event store alone was put back, what the baselines had learnt goes, and that they learn anew is said at the start that follows too.
func TestSkipBusForgetsBaselines(t *testing.T) {
	h := part(t, keysOf, recordsOf, busOf)
	old := h.path("snapshots", "baselines", "baseline-1.state")
	if err := os.MkdirAll(filepath.Dir(old), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.bus.Publish(t.Context(), bus.Subject(1), "1", []byte("a notice")); err != nil {
		t.Fatal(err)
	}
	if err := h.skipBus(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the old baselines are still there: %v", err)
	}
	h.baselines.Store(nil)
	if _, err := h.withBaselines(nil); err != nil {
		t.Fatal(err)
	}
	if at := h.baselines.Load().Stats().Anew; time.Since(at) > time.Minute {
		t.Errorf("they learn anew since %v", at)
	}
}
