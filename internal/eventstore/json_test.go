package eventstore

import (
	"encoding/json"
	"testing"

	"tocsin/internal/event"
)

// sortedJSON is the event's wire form with its members in order of name, for comparison.
func sortedJSON(t testing.TB, e *event.Event) string {
	t.Helper()
	var m map[string]any
	line := e.AppendJSON(nil)
	if err := json.Unmarshal(line, &m); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
