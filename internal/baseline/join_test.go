package baseline

import (
	"testing"

	"tocsin/internal/event"
)

// always makes a detection of every event.
type always struct{}

func (always) Process(*event.Event, int64) []event.Detection {
	return []event.Detection{{RuleID: "always"}}
}
func (always) Snapshot() ([]byte, error) { return nil, nil }
func (always) Restore([]byte) error      { return nil }

// TestAnswersAreNoNews: an event that answers a question about the past raises nothing, and teaches nothing.
func TestAnswersAreNoNews(t *testing.T) {
	b, err := New(Options{Where: Hub, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	j := &Joined{Rules: always{}, Baseline: b}
	for reason, want := range map[string]int{"denied_inbound": 1, "look_back": 0} {
		e := event.Event{Tenant: 1, Time: 1, Created: 1}
		e.SetString(event.TocsinLeftReason, reason)
		if got := j.Process(&e, 1); len(got) != want {
			t.Errorf("%s: %d detections, want %d", reason, len(got), want)
		}
	}
}
