package collector

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/rules"
)

// The test's line is parsed as what it is, found by the on-site rules and leaves as two urgent records that name its number, whatever the policy; only on its own slot.
func TestDailyLine(t *testing.T) {
	number := strings.Repeat("0a", 16)
	at := time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)
	line := archive.Line{Number: 7, Created: at.UnixNano(), Listener: slotDaily, Via: archive.UDP, Sender: netip.MustParseAddr("127.0.0.1"), Text: dailyText(number, at)}
	for _, keep := range [][]string{nil, {"event.*", "tocsin.*"}} {
		c := DefaultConfig()
		c.Policy.AlsoKeep = keep
		c.Listen.Devices = []Device{{Address: "127.0.0.0/8", Format: "cyberark"}} // which would see no packet in it
		m, err := c.minimiser([32]byte{1})
		if err != nil {
			t.Fatal(err)
		}
		det, err := detect.New(detect.Options{Rules: rules.FS, Where: detect.Site, Withhold: withhold(m)})
		if err != nil {
			t.Fatal(err)
		}
		made := func() *pipeline {
			p, err := newPipeline(&c, m, det, archive.Secret{1}, nil)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		p := made()
		p.line(&line, full)
		if !p.urgent || p.n != 2 || bytes.Count(p.frames, []byte(`"`+number+`"`)) != 2 || bytes.Count(p.frames, []byte(`"`+detect.DailyReason+`"`)) != 2 ||
			!bytes.Contains(p.frames, []byte(`"`+detect.DailyDataset+`"`)) || !bytes.Contains(p.frames, []byte(`"`+detect.DailySiteRule+`"`)) {
			t.Errorf("%v: %d records: %q", keep, p.n, p.frames)
		}
		if len(p.senders.list()) != 0 || p.tally.received != 1 || p.tally.parsed != 1 || p.tally.leftDaily != 1 || p.tally.madeDetection != 1 {
			t.Errorf("%+v, senders %v", p.tally, p.senders.list())
		}
		p = made()
		if p.line(&line, replay); p.n != 0 || p.tally.received != 0 {
			t.Errorf("worked on again after a restart: %d records", p.n)
		}
		// A device that writes the same is a device.
		forged := line
		forged.Listener = slotSyslog
		p = made()
		if p.line(&forged, full); p.tally.received != 1 || p.tally.leftDaily != 0 || bytes.Contains(p.frames, []byte(detect.DailyDataset)) || bytes.Contains(p.frames, []byte(detect.DailySiteRule)) {
			t.Errorf("a device passes for the test: %q", p.frames)
		}
		// What the parser no longer understands does not pass.
		broken := line
		broken.Text = bytes.Replace(line.Text, []byte("srcip="), []byte("source="), 1)
		p = made()
		if p.line(&broken, full); p.n != 0 || p.tally.notUnderstood != 1 {
			t.Errorf("a broken parser passes: %q", p.frames)
		}
	}
}

// due is an engine that tells of an attack when the test comes, because its time was over then.
type due struct{ Detector }

func (due) Process(e *event.Event, _ int64) []event.Detection {
	of := func(rule string, n uint64) event.Detection {
		return event.Detection{RuleID: rule, RuleTitle: "t", Family: "f", Level: "high", Key: rule, Entity: event.Entity{Kind: "host", Value: "h"}, Reason: "it is only a test", Events: []event.ID{{Seq: n}}}
	}
	return []event.Detection{of("attack", 3), of(detect.DailySiteRule, e.ID.Seq)}
}

// What the rules tell of because the test's line moved their clock leaves like everything that they tell of without a line.
func TestDailyLosesNoDetection(t *testing.T) {
	c := DefaultConfig()
	m, err := c.minimiser([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)
	line := archive.Line{Number: 7, Created: at.UnixNano(), Listener: slotDaily, Via: archive.UDP, Text: dailyText(strings.Repeat("0a", 16), at)}
	for f, want := range map[fate]int{full: 3, replay: 0} {
		p, err := newPipeline(&c, m, due{}, archive.Secret{1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.line(&line, f)
		_, known := p.evidence[3]
		if p.n != want || bytes.Contains(p.frames, []byte(`"attack"`)) != (f == full) || known != (f == replay) {
			t.Errorf("%v: %d records, want %d; the attack's event is known: %v; %q", f, p.n, want, known, p.frames)
		}
		if f == full && (p.tally.madeDetection != 2 || p.tally.leftDaily != 1) {
			t.Errorf("%+v", p.tally)
		}
	}
}
