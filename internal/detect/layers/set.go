package layers

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"tocsin/internal/detect"
	"tocsin/internal/event"
)

// Set is the open layers in memory, ready to be asked. It never changes, but for its counters: Refresh makes another.
type Set struct {
	byRule map[string][]*entry
	region map[event.TenantID]string // lower case
	single map[string][]*entry       // exceptions that are asked for each event, by rule
	idle   []Layer                   // exceptions that do nothing, because there is no room for their field
}

type entry struct {
	Layer
	width  int // of its scope
	match  matcher
	key    event.Key
	fields detect.Found
	hits   atomic.Int64 // of events, since the last flush
	last   atomic.Int64
}

// NewSet compiles layers. regions are the members' areas. A layer whose rule is gone waits for its return. The field of an exception gets a key where the
// rule or pack that named it is gone: who made the layer was told that it holds. Where there is no room for one, Idle says so.
func NewSet(list []Layer, regions map[event.TenantID]string, rules Rules) *Set {
	s := &Set{byRule: map[string][]*entry{}, single: map[string][]*entry{}, region: map[event.TenantID]string{}}
	for t, r := range regions {
		s.region[t] = strings.ToLower(strings.TrimSpace(r))
	}
	for _, l := range list {
		e := &entry{Layer: l, width: width(l.Scope)}
		found, ok := rules.Find(l.Rule)
		if !ok {
			continue
		}
		e.fields = found
		if l.Kind != Except {
			s.byRule[l.Rule] = append(s.byRule[l.Rule], e)
			continue
		}
		var err error
		if e.match, err = compile(l.Value); err != nil {
			continue // it was checked when it was made
		}
		if e.key, err = event.Register(l.Field); err != nil {
			s.idle = append(s.idle, l)
			continue
		}
		if _, single := Fields(found); single {
			s.single[l.Rule] = append(s.single[l.Rule], e)
		} else {
			s.byRule[l.Rule] = append(s.byRule[l.Rule], e)
		}
	}
	return s
}

// Idle are the exceptions that do nothing, because this process has no room for another field.
func (s *Set) Idle() []Layer {
	if s == nil {
		return nil
	}
	return s.idle
}

// covers says whether a layer is for a member, now.
func (s *Set) covers(e *entry, t event.TenantID, now int64) bool {
	if e.Expires != 0 && e.Expires <= now {
		return false
	}
	switch e.Scope {
	case Scheme:
		return true
	case Region:
		return t != 0 && s.region[t] == strings.ToLower(e.Region)
	}
	return t != 0 && e.Tenant == t
}

// Hits gives what exceptions on single events counted since it was asked last, layer by layer. What write cannot take is counted on in the set
// that in gives.
func (s *Set) Hits(write func(id, n, last int64) error, in func() *Set) error {
	var errs []error
	for _, list := range s.single {
		for _, e := range list {
			n := e.hits.Swap(0)
			if n == 0 {
				continue
			}
			if err := write(e.ID, n, e.last.Load()); err != nil {
				in().countOn(e, n)
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// countOn takes over the hits of a layer from a set before.
func (s *Set) countOn(old *entry, n int64) {
	for _, e := range s.single[old.Rule] {
		if e.ID == old.ID {
			e.hits.Add(n)
			e.last.CompareAndSwap(0, old.last.Load())
		}
	}
}

// Off says whether a rule is switched off for a member. now is in UTC nanoseconds.
func (s *Set) Off(rule string, t event.TenantID, now int64) bool {
	return s != nil && slices.ContainsFunc(s.byRule[rule], func(e *entry) bool { return e.Kind == Off && s.covers(e, t, now) })
}

// Excepts says whether any event need be asked about.
func (s *Set) Excepts() bool { return s != nil && len(s.single) > 0 }

// Excepted says whether a rule must not count an event that it matched. now is the processing time.
func (s *Set) Excepted(rule string, ev *event.Event, now int64) bool {
	for _, e := range s.single[rule] {
		if !s.covers(e, ev.Tenant, now) {
			continue
		}
		for i := range ev.Len() {
			k, v := ev.At(i)
			if k == e.key && e.match.matches(v.Text()) {
				e.hits.Add(1)
				e.last.Store(now)
				return true
			}
		}
	}
	return false
}

// Kept is a detection that did not become an alert, and the layer that kept it back.
type Kept struct {
	Layer     int64
	Detection event.Detection
}

// Apply takes out the detections that layers keep back, and gives the others with the level that holds for their member. dets stays as it is: whoever
// failed to write down what was kept back asks again.
func (s *Set) Apply(dets []event.Detection, now time.Time) (pass []event.Detection, kept []Kept, changed map[int64]int) {
	if s == nil || !slices.ContainsFunc(dets, func(d event.Detection) bool { return len(s.byRule[d.RuleID]) > 0 }) {
		return dets, nil, nil
	}
	pass = make([]event.Detection, 0, len(dets))
	for _, d := range dets {
		var by, level *entry
		for _, e := range s.byRule[d.RuleID] {
			if !s.covers(e, d.Tenant, now.UnixNano()) {
				continue
			}
			switch e.Kind {
			case Off:
				by = e
			case Except:
				if e.match.matches(valueOf(&d, e)) {
					by = e
				}
			case Level:
				if level == nil || e.width > level.width || e.width == level.width && e.ID > level.ID {
					level = e
				}
			}
			if by != nil {
				break
			}
		}
		if by != nil {
			kept = append(kept, Kept{by.ID, d})
			continue
		}
		if level != nil && level.Level != d.Level {
			d.Level = level.Level
			if changed == nil {
				changed = map[int64]int{}
			}
			changed[level.ID]++
		}
		pass = append(pass, d)
	}
	return pass, kept, changed
}

// width orders scopes: the narrower holds.
func width(scope string) int {
	return map[string]int{Scheme: 0, Region: 1, Member: 2}[scope]
}

// valueOf is what a detection says of a field.
func valueOf(d *event.Detection, e *entry) string {
	for _, f := range e.fields.EntityFields {
		if f == e.Field && d.Entity.Kind != "rule" {
			return d.Entity.Value
		}
	}
	switch e.Field {
	case "source.ip":
		return d.Source
	case "user.name":
		return d.User
	case "destination.ip", "host.ip", "host.name":
		return d.Host
	}
	for _, f := range e.fields.EntityFields {
		if f == e.Field {
			return d.Entity.Value
		}
	}
	return ""
}
