package worker

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/baseline"
	"tocsin/internal/event"
)

// silent are rules that never match.
type silent struct{}

func (silent) Process(*event.Event, int64) []event.Detection { return nil }
func (silent) Snapshot() ([]byte, error)                     { return nil, nil }
func (silent) Restore([]byte) error                          { return nil }

// TestBaselines sends seven weeks of batches through the real bus, blob store, worker and event store, with the worker ended and begun anew
// between them, and looks at the alerts that people then see.
func TestBaselines(t *testing.T) {
	h := newHub(t)
	alerts := alert.New(h.db, alert.Options{Text: func(id string) alert.Text {
		i, _ := baseline.Lookup(id)
		return alert.Text{Title: i.MemberTitle, What: i.What, Do: i.Do}
	}})
	detector := func() *baseline.Joined {
		b, err := baseline.New(baseline.Options{Where: baseline.Hub, Dir: filepath.Join(h.dir, "snapshots", "baselines"), Country: func(c string) string { return map[string]string{"GB": "United Kingdom", "AU": "Australia"}[c] }})
		if err != nil {
			t.Fatal(err)
		}
		return &baseline.Joined{Rules: silent{}, Baseline: b}
	}
	work := func() {
		o := h.options(detector())
		o.Apply = func(ctx context.Context, plan string, dets []event.Detection) error {
			_, err := alerts.Apply(ctx, plan, dets)
			return err
		}
		last := h.lastSeq()
		h.until(o, func(s Stats) bool { return s.Position >= last })
	}
	var e event.Event
	make1 := func(at time.Time, set func()) []byte {
		e.Reset()
		e.Time, e.Created = at.UnixNano(), at.UnixNano()
		e.SetString(event.TocsinSenderAssurance, "tls")
		set()
		return e.AppendJSON(nil)
	}
	denied := func(at time.Time, source string) []byte {
		return make1(at, func() {
			e.SetString(event.EventCategory, "network")
			e.SetString(event.TocsinVerdict, "deny")
			e.SetString(event.NetworkDirection, "inbound")
			e.SetString(event.TocsinSourceProof, "none")
			e.SetText(event.SourceIP, source)
		})
	}
	signIn := func(at time.Time, outcome, source, country string) []byte {
		return make1(at, func() {
			e.SetString(event.EventCategory, "authentication")
			e.SetString(event.EventOutcome, outcome)
			e.SetString(event.TocsinSourceProof, map[string]string{"success": "authenticated", "failure": "session"}[outcome])
			e.SetString(event.UserName, "ann")
			e.SetText(event.SourceIP, source)
			e.SetString(event.SourceGeoCountryISOCode, country)
		})
	}
	begin := time.Now().UTC().AddDate(0, 0, -46).Truncate(24 * time.Hour)
	var lines [][]byte
	for day := range 44 {
		for hour := range 24 {
			for i := range 4 {
				lines = append(lines, denied(begin.AddDate(0, 0, day).Add(time.Duration(hour)*time.Hour+time.Duration(i)*time.Minute), "192.0.2.1"))
			}
		}
		if day%5 == 4 || day == 43 {
			h.send(1, 0, change{lines: lines, received: begin.AddDate(0, 0, day+1)})
			lines = nil
			at := begin.AddDate(0, 0, day+1).Add(5 * time.Minute)
			h.send(2, 0, change{lines: [][]byte{signIn(at, "success", "192.0.2.10", "GB")}, received: at})
		}
	}
	work() // what was learnt must outlive the worker
	night := begin.AddDate(0, 0, 44).Add(2 * time.Hour)
	var surge [][]byte
	for i := range 700 {
		surge = append(surge, denied(night.Add(time.Duration(i)*time.Second), "198.51.100.7"))
	}
	h.send(1, 0, change{lines: surge, received: night.Add(12 * time.Minute)})
	day := begin.AddDate(0, 0, 45).Add(9 * time.Hour)
	h.send(2, 0, change{lines: [][]byte{signIn(day.Add(-10*time.Minute), "success", "192.0.2.10", "GB"), signIn(day, "success", "203.0.113.9", "AU")}, received: day})
	for m := event.TenantID(1); m <= 3; m++ {
		at := day.Add(time.Duration(m) * time.Minute)
		h.send(m, 0, change{lines: [][]byte{signIn(at, "failure", "198.51.100.99", "BR")}, received: at})
	}
	work()

	page, err := alerts.Queue(context.Background(), access.System("test"), alert.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range page.Alerts {
		full, err := alerts.Get(context.Background(), access.System("test"), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %s %s %s | %v | %s | %s", full.Tenant, full.Family, full.EntityKind, full.Severity, full.Details.Techniques, full.Details.Text.Title, full.Details.Reason))
	}
	slices.Sort(got)
	weekday := night.Weekday()
	want := []string{
		`^0 campaign source medium \| \[T1595\] \| The same attacker is busy at several organisations \| The source 198\.51\.100\.99 attacked 3 members within 2 minutes\.$`,
		`^1 unusual-rate rule low \| \[T1595\] \| Your firewall refuses far more than it usually does \| The firewall refused 700 connections between \d\d:00 and \d\d:00; on the last six ` + weekday.String() + `s it was 4 in that hour( \(4 in the one that was that hour before the clocks were changed\))?\. At least 700 of them came from 198\.51\.100\.7\.$`,
		`^2 unusual-signin user high \| \[T1078\] \| The same account was used in two countries at nearly the same time \| ann signed in from Australia 10 minutes after a sign-in from United Kingdom; the two are at least [\d,]+ km apart, which takes \d+ hours by air\.$`,
	}
	for i, w := range want {
		if i >= len(got) || !regexp.MustCompile(w).MatchString(got[i]) {
			t.Errorf("alert %d: want %s", i, w)
		}
	}
	if len(got) != len(want) || t.Failed() {
		for _, g := range got {
			t.Log(g)
		}
		t.Errorf("%d alerts, want %d", len(got), len(want))
	}
}
