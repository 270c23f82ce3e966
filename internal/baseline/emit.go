package baseline

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"tocsin/internal/event"
)

// subject is what a detection is about.
type subject struct {
	kind, value, source, user, host string
	field                           string // where the value stood; "": where one of its kind mostly does
}

// spend takes one of the detections of a kind that a member may have in a day.
func (t *tenant) spend(k kind, proven bool, at int64) bool {
	// What came a little late is of the day before, and must not begin a new account.
	if day := dayOf(at); day > t.day {
		t.day, t.spent = day, [2][kinds]uint8{}
	}
	lane, most := 0, 5
	if !proven {
		lane, most = 1, 3
	}
	switch {
	case infos[k].Across:
		most = 100
	case k == elsewhere:
		most = 10
	}
	if int(t.spent[lane][k]) >= most {
		return false
	}
	t.spent[lane][k]++
	return true
}

// emit makes a detection that is new under its window's text, if the member's budget allows it.
func (e *Engine) emit(t *tenant, k kind, proven bool, s subject, windowText string, first, last int64, count int, ids []eventID, reason string) bool {
	if !t.spend(k, proven, last) {
		e.stats.Suppressed++
		return false
	}
	if !proven && k != full {
		reason += " The line that says so came over UDP, which proves no sender."
	}
	e.stats.Detections++
	e.stats.Told[infos[k].ID]++
	e.add(t, k, s, windowText, first, last, count, ids, reason, nil)
	return true
}

func (e *Engine) add(t *tenant, k kind, s subject, windowText string, first, last int64, count int, ids []eventID, reason string, steps []event.Step) {
	info := &infos[k]
	d := event.Detection{Tenant: t.id, RuleID: info.ID, RuleTitle: info.Title, Family: info.Family, Level: info.Level, Tags: info.Tags,
		Entity: event.Entity{Kind: s.kind, Value: s.value}, First: first, Last: last, Count: max(count, 1), Reason: reason,
		Steps: append(steps, event.Step{Time: last, Text: reason}), Source: s.source, User: s.user, Host: s.host, Site: e.opts.Where == Site}
	if d.EntityField = s.field; s.field == "" {
		d.EntityField = map[string]string{"user": "user.name", "source": "source.ip", "host": "source.ip"}[s.kind]
	}
	for _, id := range ids {
		if id.Seq != 0 {
			d.Events = append(d.Events, id)
		}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "baseline\x00%d\x00%s\x00%s\x00%s\x00%s\x00%s", t.id, e.opts.Origin, d.RuleID, d.Entity.Kind, d.Entity.Value, windowText))
	d.Key = hex.EncodeToString(sum[:16])
	e.out = append(e.out, d)
}

// sorted gives what was made, in an order that a replay repeats.
func (e *Engine) sorted() []event.Detection {
	slices.SortStableFunc(e.out, func(a, b event.Detection) int {
		return cmp.Or(cmp.Compare(a.RuleID, b.RuleID), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Key, b.Key))
	})
	return e.out
}
