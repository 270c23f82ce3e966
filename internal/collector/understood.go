package collector

import (
	"fmt"

	"tocsin/internal/collector/archive"
	"tocsin/internal/detect"
	"tocsin/internal/event"
)

// Two firewalls of one kind stand behind a collector, and after an update one of them writes lines that nobody understands: the collector's share of lines that are
// understood hardly falls, and the hub, which knows only that, says nothing. So the collector judges each device by itself: one of whose lines at least four
// fifths were understood, and of whose next 200 less than half are, is told, once, until it is understood again. Where most of what
// the collector gets is not understood, and four fifths mostly are, the hub sees it and says so: then nothing is told here.

const (
	understoodLines = 200 // of one device that are judged together
	understoodUsual = 0.8
	understoodGone  = 0.5
)

// understood is how much of a device's lines are understood.
type understood struct {
	Usual float64 `json:"usual,omitempty"`        // share, as it is mostly; 0: not known yet
	Blind int64   `json:"blind,string,omitempty"` // since when it is not understood, ns; 0: it is

	Window window `json:"window,omitzero"`
}

// window is of the lines that are judged together: the device's, and the counts of all devices when they began.
type window struct {
	Lines int   `json:"lines"`
	Bad   int   `json:"bad"`
	All   heard `json:"all"`
}

// heard counts lines of all devices.
type heard struct {
	Lines uint64  `json:"lines,string"`
	Bad   uint64  `json:"bad,string"`
	Usual float64 `json:"usual"` // as many would be understood as mostly are
}

// judge counts a line. all are the counts of all devices, that line with them. It says whether the device is to be told of.
func (u *understood) judge(ok bool, all *heard, at int64) bool {
	w := &u.Window
	if w.Lines == 0 {
		w.All = *all
	}
	w.Lines++
	if !ok {
		w.Bad++
	}
	if w.Lines < understoodLines {
		return false
	}
	share := float64(w.Lines-w.Bad) / float64(w.Lines)
	lines := all.Lines - w.All.Lines
	hub := 2*(all.Bad-w.All.Bad) > lines && all.Usual-w.All.Usual >= understoodUsual*float64(lines) // sees it
	*w = window{}
	switch {
	case u.Blind != 0:
		if share >= understoodUsual {
			u.Blind = 0
		}
	case u.Usual >= understoodUsual && share < understoodGone:
		if hub {
			return false
		}
		u.Blind = at
		return true
	case u.Usual == 0:
		u.Usual = share
	default:
		u.Usual += (share - u.Usual) / 5
	}
	return false
}

// notUnderstood tells of a device. The policy decides whether its address may leave (minimise.Detection).
func (p *pipeline) notUnderstood(s *sender, l *archive.Line, f fate, send bool) {
	addr := s.Addr.Unmap().String()
	p.detection(&event.Detection{
		RuleID: detect.LinesRule, RuleTitle: detect.LinesTitle, Family: detect.LinesFamily, Level: detect.LinesLevel, Tags: []string{"attack.defense-evasion", "attack.t1562"},
		Entity: event.Entity{Kind: "host", Value: addr}, EntityField: event.TocsinSenderIP.Name(), Host: addr, First: l.Created, Last: l.Created, Count: 1,
		Reason: fmt.Sprintf("Of the lines that the device %s sends, less than half are understood; %.0f in a hundred were. Those of the other devices are.", addr, 100*s.Usual),
		Key:    fmt.Sprintf("health/lines/%s/%d", p.origin, l.Number),
	}, l, f, send)
}
