package eventstore

import (
	"time"

	"tocsin/internal/event"
)

// What a member let leave for a time only carries the moment at which it must be gone (tocsin.expires): raw lines of troubleshooting. Its row
// gets a retention of its own, in whole days from its storage time, never longer than the tenant's.

const (
	expiresField    = "tocsin.expires"
	troubleshooting = "troubleshooting" // tocsin.left.reason of such a line
	// mergeTime is how long the engine may take to delete a row that has expired: it looks at a day's parts every 4 hours
	// (merge_with_ttl_timeout), and the merge itself takes its time.
	mergeTime = 6 * time.Hour
)

// rowKeep is how many days the event's row is kept; when is its storage time, UTC nanoseconds.
func rowKeep(e *event.Event, m Meta, when int64) uint16 {
	keep := keepDays(m)
	if e.Str(event.TocsinLeftReason) != troubleshooting {
		return keep
	}
	for _, x := range e.Extras() {
		if x.Name != expiresField {
			continue
		}
		if at, err := time.Parse(time.RFC3339, x.Value); err == nil {
			days := int64(at.Add(-mergeTime).Sub(time.Unix(0, when)) / (24 * time.Hour))
			return uint16(min(max(days, 0), int64(keep)))
		}
	}
	return 0 // it must say so: without it nothing allows to keep the line
}

// figures leaves raw lines out of what is counted: the events made of the same lines are counted already, and the benign ones were never meant
// to be. Whoever asks for the class gets them.
func (r *reader) figures(f Filter) {
	if f.Class != ClassRaw {
		r.where("class != '" + ClassRaw + "'")
	}
}
