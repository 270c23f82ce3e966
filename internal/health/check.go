package health

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tocsin/internal/detect"
	"tocsin/internal/event"
)

// Family of what this package raises.
const Family = "detection-health"

// Rules that this package stands for, with what members read.
const (
	RuleFields    = "tocsin-health-fields"
	RuleLines     = "tocsin-health-lines"
	RuleSilent    = "tocsin-health-silent"
	RuleCollector = "tocsin-health-collector"
	RuleDetector  = "tocsin-health-detector"
)

// Texts are what people without technical skill read, by rule.
var Texts = map[string]detect.Text{
	RuleFields: {Title: "Part of your protection has gone blind",
		What: "The records of one of your devices no longer say something that Tocsin needs. Some attacks would not be noticed. It often happens after an update of the device.",
		Do:   "Ask your IT support whether the device was updated or its logging changed, and to set the logging up as before. Nothing was broken into, as far as this shows."},
	RuleLines: {Title: "Tocsin no longer understands your records",
		What: "Most lines that your devices send are not understood any more. Attacks in them would not be noticed. It often happens after an update or a change of the log format.",
		Do:   "Ask your IT support what was changed, and to choose the log format that the collector's guide names. On the collector, tocsin-collector doctor shows such lines."},
	RuleSilent: {Title: "One of your devices has stopped sending its records",
		What: "A device that always sent its records has been silent for longer than ever in the last week. Without them nobody can see an attack on it. Attackers also turn records off.",
		Do:   "Ask your IT support whether the device was switched off or its logging changed. If nobody did it, call the centre."},
	RuleCollector: {Title: "Your Tocsin collector is silent",
		What: "The collector in your network has not been heard of. It keeps your records and sends them when it is back, but nobody is warned meanwhile.",
		Do:   "See whether the machine is switched on and has a connection to the Internet. On it, tocsin-collector doctor says what is wrong."},
	RuleDetector: {Title: "The centre's detection has a fault",
		What: "Something in the centre's own detection does not work as it should.",
		Do:   "The centre's operator has to act; the reason says what to look at. Members have nothing to do."},
}

var titles = map[string]string{
	RuleFields: "Fields that rules need have vanished", RuleLines: "Lines are not understood any more", RuleSilent: "Source is silent", RuleCollector: "Collector is silent", RuleDetector: "Detector cannot run as it should",
}

func raise(rule string, t event.TenantID, entity, level, reason string, since, now int64) event.Detection {
	return event.Detection{
		Tenant: t, RuleID: rule, RuleTitle: titles[rule], Family: Family, Level: level, Tags: []string{"attack.defense-evasion", "attack.t1562"}, Entity: event.Entity{Kind: "host", Value: entity},
		Host: entity, First: since, Last: now, Count: 1, Reason: reason, Key: fmt.Sprintf("health/%s/%d/%s/%d", rule, t, entity, since),
	}
}

// Check says what cannot be detected any more. troubles are what is wrong with the detector itself, each a sentence; empty when it is well.
func (w *Watch) Check(collectors []Collector, troubles []string) []event.Detection {
	cat := w.cat()
	now := w.now().UnixNano()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []event.Detection
	quiet := map[event.TenantID]bool{} // all collectors of the member are silent: that is said once
	heard := map[event.TenantID]bool{}
	for _, c := range collectors {
		since := max(c.Seen, w.begun.UnixNano()) // while the hub was down nobody could be heard
		if now-since > int64(collectorSilent) {
			quiet[c.Tenant] = true
			out = append(out, raise(RuleCollector, c.Tenant, c.Name+" ("+c.ID+")", "high", fmt.Sprintf("The collector %s was heard last on %s.", c.Name, stamp(c.Seen)), c.Seen, now))
		} else {
			heard[c.Tenant] = true
		}
		if d, bad := w.lines(&c, now); bad {
			out = append(out, d)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(w.sources), func(a, b key) int {
		return cmpOr(int(a.tenant)-int(b.tenant), strings.Compare(a.dataset, b.dataset))
	}) {
		s := w.sources[k]
		if after := s.silentAfter(); after > 0 && now-max(s.Last, w.begun.UnixNano()) > int64(after) && !(quiet[s.Tenant] && !heard[s.Tenant]) {
			out = append(out, raise(RuleSilent, s.Tenant, s.Dataset, "medium", fmt.Sprintf("Nothing came from %s since %s; its longest pause in a week was %s.", s.Dataset, stamp(s.Last), pause(slices.Max(s.Gaps[:]))), s.Last, now))
		}
		if d, bad := vanished(cat, s, now); bad {
			out = append(out, d)
		}
	}
	return append(out, w.detector(troubles, now)...)
}

func cmpOr(a, b int) int {
	if a != 0 {
		return a
	}
	return b
}

// vanished says which rules a source's lost fields have silenced.
func vanished(cat *detect.Catalogue, s *source, now int64) (d event.Detection, bad bool) {
	since := int64(0)
	blind := false // events no longer say what kind they are
	for category, p := range s.Profiles {
		for _, f := range p.Fields {
			if f.Gone != 0 && (since == 0 || f.Gone < since) {
				since = f.Gone
			}
			blind = blind || f.Gone != 0 && category == everything
		}
	}
	if since == 0 {
		return d, false
	}
	before := map[string]bool{}
	for _, v := range s.judge(cat, (*profile).had) {
		before[v.ID] = v.Can
	}
	var lost, gone []string
	for _, v := range s.judge(cat, func(p *profile, f string) bool { return !blind && p.has(f) }) {
		if !before[v.ID] || v.Can {
			continue
		}
		lost = append(lost, v.Title)
		for _, m := range v.Missing {
			if !blind && !slices.Contains(gone, m) {
				gone = append(gone, m)
			}
		}
	}
	if len(lost) == 0 {
		return d, false // nobody needs them
	}
	if blind {
		gone = []string{event.EventCategory.Name()}
	}
	slices.Sort(gone)
	slices.Sort(lost)
	named := lost[:min(3, len(lost))]
	more := ""
	if n := len(lost) - len(named); n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return raise(RuleFields, s.Tenant, s.Dataset, "high", fmt.Sprintf("Events of %s no longer have %s, which nearly all of them had. %d rules cannot fire on them any more: %s%s.", s.Dataset, strings.Join(gone, ", "), len(lost), strings.Join(named, "; "), more), since, now), true
}

// lines judges the share of a collector's lines that were understood.
func (w *Watch) lines(c *Collector, now int64) (d event.Detection, bad bool) {
	x := w.counts[c.ID]
	if x == nil || c.Received < x.received || c.Parsed < x.parsed { // new, or it began anew
		usual := 0.0
		if c.Received >= parsedLines {
			usual = float64(c.Parsed) / float64(c.Received)
		}
		w.counts[c.ID] = &counted{received: c.Received, parsed: c.Parsed, usual: usual}
		return d, false
	}
	n, ok := c.Received-x.received, c.Parsed-x.parsed
	if n >= parsedLines {
		share := min(1, float64(ok)/float64(n))
		x.received, x.parsed = c.Received, c.Parsed
		switch {
		case x.usual >= parsedUsual && share < parsedGone:
			if x.bad == 0 {
				x.bad = now
			}
		case x.bad != 0 && share < parsedUsual:
		case x.usual == 0:
			x.usual = share
		default:
			x.bad = 0
			x.usual += (share - x.usual) / 5
		}
	}
	if x.bad == 0 {
		return d, false
	}
	return raise(RuleLines, c.Tenant, c.Name+" ("+c.ID+")", "high", fmt.Sprintf("Of the lines that %s receives, less than half are understood; %.0f in a hundred were.", c.Name, 100*x.usual), x.bad, now), true
}

// detector raises what is wrong with the detector itself when it stays.
func (w *Watch) detector(troubles []string, now int64) (out []event.Detection) {
	for t := range w.trouble {
		if !slices.Contains(troubles, t) {
			delete(w.trouble, t)
		}
	}
	for _, t := range troubles {
		since, known := w.trouble[t]
		if !known {
			if len(w.trouble) < 100 {
				w.trouble[t] = now
			}
			continue
		}
		out = append(out, raise(RuleDetector, 0, "detector", "high", t, since, now))
	}
	return out
}

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format("2 January 2006 15:04 UTC") }

func pause(ns int64) string {
	switch d := time.Duration(ns); {
	case d < 2*time.Minute:
		return "less than two minutes"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	default:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
}
