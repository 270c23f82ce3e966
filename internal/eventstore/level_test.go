package eventstore

import (
	"testing"

	"tocsin/internal/event"
)

// TestLevels fixes what counts as serious: a device's own word only where it gives a verdict.
func TestLevels(t *testing.T) {
	for _, c := range []struct {
		name, class, level string
		set                func(e *event.Event)
	}{
		{"a denial that the firewall calls high", ClassDenied, "low", func(e *event.Event) {
			e.AddString(event.EventCategory, "network")
			e.AddString(event.EventType, "denied")
			e.SetString(event.TocsinSeverity, "high")
		}},
		{"a failed sign-in", ClassSignInFailed, "medium", func(e *event.Event) {
			e.AddString(event.EventCategory, "authentication")
			e.SetString(event.EventOutcome, "failure")
			e.SetString(event.TocsinSeverity, "critical")
		}},
		{"a sensor's verdict", ClassIDS, "critical", func(e *event.Event) {
			e.AddString(event.EventCategory, "intrusion_detection")
			e.SetString(event.TocsinSeverity, "critical")
		}},
		{"a sensor that says nothing", ClassIDS, "medium", func(e *event.Event) { e.AddString(event.EventCategory, "intrusion_detection") }},
		{"malware, said to be of low severity", ClassMalware, "low", func(e *event.Event) {
			e.AddString(event.EventCategory, "malware")
			e.SetString(event.TocsinSeverity, "low")
		}},
		{"malware", ClassMalware, "high", func(e *event.Event) { e.AddString(event.EventCategory, "malware") }},
		{"a listed address in a plain denial", ClassIndicator, "high", func(e *event.Event) {
			e.AddString(event.EventType, "denied")
			e.SetString(event.TocsinIndicatorID, "00")
			e.SetString(event.TocsinSeverity, "low")
		}},
		{"a detection", ClassDetection, "critical", func(e *event.Event) {
			event.FromDetection(e, &event.Detection{RuleID: "r", Level: "critical", Last: 1})
		}},
		{"a detection for information", ClassDetection, "low", func(e *event.Event) {
			event.FromDetection(e, &event.Detection{RuleID: "r", Level: "informational", Last: 1})
		}},
	} {
		var e event.Event
		c.set(&e)
		if class, _, level := Classify(&e); class != c.class || level != c.level {
			t.Errorf("%s: %s, %s; want %s, %s", c.name, class, level, c.class, c.level)
		}
	}
}
