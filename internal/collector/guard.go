package collector

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"tocsin/internal/event"
)

// The local ceiling: whatever a hub signs, one indicator or rule may not empty a site. What makes benign lines leave is counted in windows of
// lines, and what matches over 1 % of them is switched off until a newer set or pack comes; each rule may also release a bounded number of
// events an hour. Everything that was switched off is shown to the member and to the hub.

const (
	guardWindow   = 10_000 // lines
	guardShare    = 100    // of them, for one indicator or rule: 1 %
	guardSetShare = 500    // for all indicators together: 5 %
	guardHour     = 2000   // events that one rule may release in an hour
	maxGuarded    = 8192   // indicators and rules counted at once
)

// guard counts. It belongs to the loop.
type guard struct {
	Off     map[string]time.Time `json:"off"` // what is switched off, and since when: "indicator ID", "rule ID", "indicators"
	lines   int
	hits    map[string]int // in this window
	hour    int64
	used    map[string]int // released in this hour, by rule
	stopped uint64         // times that something was not released
	said    func(what, why string)
}

func newGuard(said func(what, why string)) *guard {
	return &guard{Off: map[string]time.Time{}, hits: map[string]int{}, used: map[string]int{}, said: said}
}

// line begins the next line.
func (g *guard) line() {
	if g.lines++; g.lines >= guardWindow {
		g.lines = 0
		clear(g.hits)
	}
}

func (g *guard) switchOff(what, why string, at int64) {
	if _, off := g.Off[what]; !off && len(g.Off) < maxGuarded {
		g.Off[what] = time.Unix(0, at).UTC()
		if g.said != nil {
			g.said(what, why)
		}
	}
}

func (g *guard) over(what string, share int, at int64) bool {
	if _, off := g.Off[what]; off {
		g.stopped++
		return true
	}
	if len(g.hits) < maxGuarded || g.hits[what] > 0 {
		g.hits[what]++
	}
	if g.hits[what] > share {
		g.switchOff(what, fmt.Sprintf("it matched more than %d of %d lines", share, guardWindow), at)
		g.stopped++
		return true
	}
	return false
}

// indicator says whether an indicator must not release the line at hand.
func (g *guard) indicator(id string, at int64) bool {
	return g.over("indicator "+id, guardShare, at) || g.over("indicators", guardSetShare, at)
}

// rule says whether a rule must not release what it found. events is how many it would release.
func (g *guard) rule(id string, events int, at int64) bool {
	what := "rule " + id
	if g.over(what, guardShare, at) {
		return true
	}
	if h := at / int64(time.Hour); h != g.hour {
		g.hour = h
		clear(g.used)
	}
	if g.used[what]+events > guardHour || len(g.used) >= maxGuarded && g.used[what] == 0 {
		g.stopped++
		if g.used[what] <= guardHour && g.said != nil {
			g.said(what, fmt.Sprintf("it has released %d events in this hour; more are kept here until the next", g.used[what]))
			g.used[what] = guardHour + 1
		}
		return true
	}
	g.used[what] += events
	return false
}

// forgive switches on again what a newer set or pack may have mended: everything whose name begins with prefix.
func (g *guard) forgive(prefix string) {
	maps.DeleteFunc(g.Off, func(k string, _ time.Time) bool { return len(k) >= len(prefix) && k[:len(prefix)] == prefix })
	clear(g.hits)
}

// SwitchedOff is something that the collector does not obey any more.
type SwitchedOff struct {
	What  string    `json:"what"`
	Since time.Time `json:"since"`
}

func (g *guard) list() (out []SwitchedOff) {
	for _, k := range slices.Sorted(maps.Keys(g.Off)) {
		out = append(out, SwitchedOff{k, g.Off[k]})
	}
	return out
}

// matchAll says whether a rule of this engine fires on events in which there is nothing: it would fire on everything.
func matchAll(det Detector) (rule string, yes bool) {
	for i, pairs := range [][]string{
		{},
		{"event.kind", "event", "event.category", "network", "event.action", "accept", "tocsin.verdict", "allow", "source.ip", "10.0.0.5", "destination.ip", "198.51.100.7", "observer.vendor", "Fortinet",
			"observer.product", "Fortigate", "tocsin.format", "fortigate"},
		{"event.kind", "event", "event.category", "web", "http.request.method", "GET", "url.domain", "www.example.org", "http.response.status_code", "200", "source.ip", "10.0.0.5"},
	} {
		var e event.Event
		e.Created = int64(1_700_000_000+i) * int64(time.Second)
		e.Time = e.Created
		e.ID = event.ID{Seq: uint64(i + 1)}
		for j := 0; j < len(pairs); j += 2 {
			e.SetNamed(pairs[j], pairs[j+1])
		}
		for _, d := range det.Process(&e, e.Created) {
			return d.RuleID, true
		}
	}
	return "", false
}
