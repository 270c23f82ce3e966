package collector

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/event"
)

// Troubleshooting: for a limited time, and only when the member switches it on here, raw lines leave too, so that somebody at the centre can
// see why a device is not understood. It is said loudly: in the log every minute, on the page, in the status, and by its count at the hub.
// Each event carries the time until which the hub may keep it.

// Troubleshooting is the state of that mode.
type Troubleshooting struct {
	Since  time.Time  `json:"since"`
	Until  time.Time  `json:"until"`
	Sender netip.Addr `json:"sender,omitzero"` // only its lines; zero: all
	Lines  uint64     `json:"lines"`           // sent so far
}

const (
	maxTroubleshooting = 24 * time.Hour
	maxRawLines        = 100_000
	rawKept            = 7 * 24 * time.Hour // at the hub
)

// troubleshoot switches the mode on or, with d 0, off.
func (a *Agent) troubleshoot(d time.Duration, sender netip.Addr) error {
	if d < 0 || d > maxTroubleshooting {
		return fmt.Errorf("raw lines may leave for at most %s at a time", maxTroubleshooting)
	}
	now := a.o.Now().UTC()
	a.dirty = true
	a.shown = time.Time{}
	if d == 0 {
		if a.st.Raw == nil {
			return errors.New("no raw lines leave")
		}
		a.log.Warn("troubleshooting is off: raw lines stay on this machine again", "lines_sent", a.st.Raw.Lines)
		a.st.Raw = nil
		return nil
	}
	a.st.Raw = &Troubleshooting{Since: now, Until: now.Add(d), Sender: sender}
	a.saidRaw = now
	a.log.Warn("TROUBLESHOOTING IS ON: RAW LINES LEAVE THIS MACHINE", "until", a.st.Raw.Until, "sender", sender)
	return nil
}

// rawLine adds a line to what leaves while the mode is on.
func (a *Agent) rawLine(l *archive.Line) {
	t := a.st.Raw
	if t == nil || t.Sender.IsValid() && t.Sender != l.Sender {
		return
	}
	e := &a.rawEvent
	e.Reset()
	e.Time, e.Created = l.Created, l.Created
	e.SetRaw(l.Text)
	e.IncludeRaw(true)
	e.RawDigest, e.HasRawDigest = a.pipe.digests.Digest(l.Number, l.Text), true
	e.SetString(event.EventKind, "event")
	e.SetString(event.EventModule, "tocsin")
	e.SetString(event.EventDataset, "tocsin.raw")
	e.SetString(event.TocsinLeftReason, "troubleshooting")
	e.SetString(event.TocsinSenderAssurance, l.Via.String())
	if l.Sender.IsValid() {
		e.SetIP(event.TocsinSenderIP, l.Sender)
	}
	e.SetNamed("tocsin.expires", t.Until.Add(rawKept).Format(time.RFC3339))
	a.rawFrames = appendRecord(a.rawFrames, &record{group: l.Number, line: l.Number, json: e.AppendJSON(nil)})
	a.rawCount++
	t.Lines++
}

// rawDone writes what rawLine gathered, says that the mode is on, and ends it in time.
func (a *Agent) rawDone(now time.Time) {
	t := a.st.Raw
	if t == nil {
		return
	}
	if a.rawCount > 0 {
		if err := a.addSide(a.raw, a.rawFrames, a.rawCount); err != nil {
			a.log.Error("troubleshooting ends: its lines cannot be kept", "error", err)
			t.Lines -= uint64(a.rawCount)
			t.Until = now
		} else {
			a.st.Counts["made.raw"] += uint64(a.rawCount)
		}
		a.rawFrames, a.rawCount = a.rawFrames[:0], 0
	}
	switch {
	case !now.Before(t.Until) || t.Lines >= maxRawLines:
		_ = a.troubleshoot(0, netip.Addr{}) // it is on
	case now.Sub(a.saidRaw).Abs() >= time.Minute:
		a.saidRaw = now
		a.log.Warn("TROUBLESHOOTING IS ON: RAW LINES LEAVE THIS MACHINE", "until", t.Until, "lines_sent", t.Lines)
	}
}
