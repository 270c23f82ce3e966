package baseline

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"tocsin/internal/event"
)

// A backup that keeps to UTC and people who keep to the wall: when the clocks are changed, neither the backup nor the people are unusual, though
// the one comes an hour later or earlier by the wall and the others by UTC. What is unusual by both is told.
func TestClocksAreChanged(t *testing.T) {
	london, err := time.LoadLocation("Europe/London")
	if err != nil {
		t.Fatal(err)
	}
	for name, begin := range map[string]time.Time{
		"in spring": time.Date(2026, 2, 2, 0, 0, 0, 0, time.UTC), // eight weeks before 29 March
		"in autumn": time.Date(2026, 8, 31, 0, 0, 0, 0, time.UTC),
	} {
		e := engine(t, Options{})
		r := rand.New(rand.NewPCG(5, 6))
		var out []event.Detection
		for h := range 18 * slots {
			at := begin.Add(time.Duration(h)*time.Hour + 20*time.Minute)
			n := 20
			if at.Hour() == 2 {
				n = 900
			}
			if w := at.In(london); w.Hour() == 9 && w.Weekday() != time.Sunday && w.Weekday() != time.Saturday {
				n = 3000
			}
			n = n*9/10 + r.IntN(n/5)
			out = append(out, e.Observe(denied(1, at.UnixNano(), n, "192.0.2.1"), at.UnixNano())...)
		}
		for _, d := range out {
			t.Errorf("%s: %s", name, d.Reason)
		}
	}

	e := engine(t, Options{})
	begin := time.Date(2026, 2, 2, 0, 0, 0, 0, time.UTC)
	change := time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC)
	var told []event.Detection
	for at := begin; at.Before(change.AddDate(0, 0, 21)); at = at.Add(time.Hour) {
		n := 20
		if at.Hour() == 2 {
			n = 900
		}
		if at.Equal(change.AddDate(0, 0, 9).Add(time.Hour)) { // a Tuesday, 02:00 UTC
			n = 2100
		}
		if at.Equal(change.AddDate(0, 0, 10).Add(6 * time.Hour)) {
			n = 1000 // as much as the backup, at another hour
		}
		told = append(told, e.Observe(denied(1, at.UnixNano(), n, "192.0.2.1"), at.UnixNano())...)
	}
	if len(told) != 2 {
		t.Fatalf("%d detections: %v", len(told), told)
	}
	if want := "The firewall has refused 2,100 connections since 03:00; on the last six Tuesdays it was 20 to 900 in that hour (900 in the one that was that hour before the clocks were changed). At least 2,100"; !strings.HasPrefix(told[0].Reason, want) {
		t.Errorf("got  %s\nwant %s …", told[0].Reason, want)
	}
}
