package collector

import (
	"fmt"
	"time"

	"tocsin/internal/detect"
	"tocsin/internal/detect/layers"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// Changes of on-site rules (package layers) come as a directive, signed like a pack and entered in the ledger, so that a hub alone cannot blind a site:
// rules that are switched off, exceptions, other levels. They take away what rules find, or give it another level, and the local ceiling holds as ever; the member sees them.

// changes are those in force. They belong to the loop.
type changes struct {
	set      *layers.Set // nil: there are none
	list     []layers.Sited
	version  uint64
	uncount  bool   // lines are shown again that were counted before
	kept     uint64 // detections that did not leave, since the last tally
	excepted uint64 // events that a rule did not count, since the last tally
}

// Excepts implements detect.Exceptions.
func (c *changes) Excepts() bool { return c.set.Excepts() }

// Excepted implements detect.Exceptions.
func (c *changes) Excepted(rule string, ev *event.Event, now int64) bool {
	yes := c.set.Excepted(rule, ev, now)
	if yes && !c.uncount {
		c.excepted++
	}
	return yes
}

// exceptions are for the detector, which asks for each event.
func (c *changes) exceptions() detect.Exceptions { return c }

// apply takes out what is switched off or excepted. at is when the line was received, so that a repetition gives the same.
func (c *changes) apply(dets []event.Detection, at int64) []event.Detection {
	if c.set == nil || len(dets) == 0 {
		return dets
	}
	pass, kept, _ := c.set.Apply(dets, time.Unix(0, at))
	if !c.uncount {
		c.kept += uint64(len(kept))
	}
	return pass
}

// read gives what puts a directive in force between two lines.
func (c *changes) read(d *keys.Directive) (use func(), err error) {
	list, err := layers.Decode(d.Content)
	if err != nil {
		return nil, err
	}
	return func() {
		c.list, c.version, c.set = list, d.Version, nil
		if len(list) > 0 {
			c.set = layers.NewSiteSet(list)
		}
	}, nil
}

// RuleChange is one that the centre made to a rule that runs here, as the member is told.
type RuleChange struct {
	Rule  string    `json:"rule"` // its title
	What  string    `json:"what"`
	Until time.Time `json:"until,omitzero"`
}

// maxShownChanges are listed in the status.
const maxShownChanges = 200

// show lists what is in force.
func (c *changes) show(now time.Time) (out []RuleChange) {
	for i := range c.list {
		x := &c.list[i]
		if x.Expires != 0 && x.Expires <= now.UnixNano() {
			continue
		}
		if len(out) == maxShownChanges {
			return append(out, RuleChange{Rule: "more rules", What: fmt.Sprintf("%d changes in all", len(c.list))})
		}
		r := RuleChange{Rule: x.Title}
		switch x.Kind {
		case layers.Off:
			r.What = "switched off"
		case layers.Except:
			r.What = fmt.Sprintf("leaves out %s = %s", x.Field, x.Value)
		case layers.Level:
			r.What = "has the level " + x.Level
		}
		if x.Expires != 0 {
			r.Until = time.Unix(0, x.Expires).UTC()
		}
		out = append(out, r)
	}
	return out
}

// rulePack names the on-site rules and what was changed about them, for manifests.
func (a *Agent) rulePack() string {
	if a.pipe.changes.set == nil {
		return a.packs.rules
	}
	return fmt.Sprintf("%s, changes %d", a.packs.rules, a.pipe.changes.version)
}
