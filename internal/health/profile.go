package health

import (
	"slices"
	"strings"

	"tocsin/internal/detect"
	"tocsin/internal/event"
)

// profile is what events of one category look like, by the first event.category; "" those without, everything: all of those only that they have a
// category is counted.
type profile struct {
	windows int
	fields  []field

	n     int   // events in this window
	begun int64 // when it began, ns
}

// field is small: a national scheme has millions.
type field struct {
	key   event.Key
	n     uint16 // events in this window that have it
	low   uint8  // windows in a row without it
	share float32
	gone  int64 // since when, ns; 0: it comes
}

// everything is the profile of all events of a source, of whatever category.
const everything = "*"

func (s *source) profile(category string) *profile {
	p := s.profiles[category]
	if p == nil {
		if len(s.profiles) >= maxProfiles || len(category) > maxDataset {
			return nil
		}
		p = &profile{}
		s.profiles[strings.Clone(category)] = p // it points into the event
	}
	return p
}

// look counts the fields of an event.
func (s *source) look(ev *event.Event, at, window int64) {
	category := ev.Str(event.EventCategory)
	if all := s.profile(everything); all != nil {
		if category != "" {
			all.count(event.EventCategory, s.usage)
		}
		s.urgent = all.end(at, window) || s.urgent
	}
	p := s.profile(category)
	if p == nil {
		return
	}
	before := event.Key(0)
	for i, k := range ev.Keys() {
		if k == before && i > 0 {
			continue // another value of the same field
		}
		before = k
		p.count(k, s.usage)
		if k == event.TocsinService && len(s.services) < maxServices && len(ev.StrAt(i)) <= maxDataset && !slices.Contains(s.services, ev.StrAt(i)) {
			s.services = append(s.services, strings.Clone(ev.StrAt(i)))
		}
	}
	s.urgent = p.end(at, window) || s.urgent
}

func (p *profile) find(k event.Key) *field {
	for i := range p.fields {
		if p.fields[i].key == k {
			return &p.fields[i]
		}
	}
	return nil
}

func (p *profile) count(k event.Key, u *usage) {
	f := p.find(k)
	if f == nil {
		if len(p.fields) >= maxFields {
			return
		}
		if u.fields >= maxFieldsOf {
			u.refused++
			return
		}
		u.fields++
		p.fields = append(p.fields, field{key: k})
		f = &p.fields[len(p.fields)-1]
	}
	f.n++
}

// end counts an event, and judges the window when it is full. It says whether a field went or came back.
func (p *profile) end(at, window int64) (changed bool) {
	if p.n == 0 {
		p.begun = at
	}
	p.n++
	// The second bound keeps the counters from running over where time stands still.
	if p.n < windowSize || at-p.begun < window && p.n < 1<<15 {
		return false
	}
	p.windows++
	for i := range p.fields {
		f := &p.fields[i]
		share := float32(f.n) / float32(p.n)
		f.n = 0
		switch {
		case p.windows <= learnWindows:
			f.share += (share - f.share) / float32(p.windows)
		case f.share >= usualShare && share <= goneShare:
			if f.low < 2 {
				f.low++
			}
			if f.low >= 2 && f.gone == 0 {
				f.gone, changed = at, true
			}
		case f.gone != 0 && share < backShare:
			// Still away.
		default:
			changed = changed || f.gone != 0
			f.low, f.gone = 0, 0
			f.share += (share - f.share) / 5
		}
	}
	p.n = 0
	if p.windows == learnWindows {
		p.fields = slices.Clone(p.fields) // all that usually come have: without the room that they grew through
	}
	return changed
}

// had says whether a field comes, or came; has whether it comes.
func (p *profile) had(k event.Key) bool {
	f := p.find(k)
	return f != nil && (f.share > 0 || f.n > 0)
}

func (p *profile) has(k event.Key) bool {
	f := p.find(k)
	return f != nil && f.gone == 0 && (f.share > 0 || f.n > 0)
}

// blind says whether a field that came comes no more.
func (s *source) blind() bool {
	for _, p := range s.profiles {
		for i := range p.fields {
			if p.fields[i].gone != 0 {
				return true
			}
		}
	}
	return false
}

// shape is a copy of what a source looks like, to be judged without holding up the worker.
type shape struct {
	dataset  string
	services []string
	profiles map[string]*profile
}

func (s *source) shape() shape {
	x := shape{s.dataset, slices.Sorted(slices.Values(s.services)), make(map[string]*profile, len(s.profiles))}
	for c, p := range s.profiles {
		q := *p
		q.fields = slices.Clone(p.fields)
		x.profiles[c] = &q
	}
	return x
}

// judge says which rules can fire on a source: on any kind of its events.
func (x *shape) judge(cat *detect.Catalogue, has func(*profile, event.Key) bool) []detect.Verdict {
	var out []detect.Verdict
	for category, p := range x.profiles {
		if category == everything {
			continue
		}
		sight := detect.Sight{Dataset: x.dataset, Services: x.services, Has: func(name string) bool {
			k, known := event.Lookup(name)
			return known && has(p, k)
		}}
		if category != "" {
			sight.Categories = []string{category}
		}
		list := cat.Judge(sight)
		if out == nil {
			out = list
			continue
		}
		for i, v := range list {
			o := &out[i]
			if v.Can && !o.Can || !o.Can && !v.Kind && (o.Kind || len(v.Missing) < len(o.Missing)) {
				*o = v
			}
		}
	}
	return out
}
