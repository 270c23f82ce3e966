package detect

import (
	"slices"
	"strings"

	"tocsin/sigma"
)

// Sight is what is known of a source of events: what was seen of it, where somebody looks.
type Sight struct {
	Dataset    string
	Categories []string // event.category
	Services   []string // tocsin.service
	Has        func(field string) bool
}

// Verdict says whether a rule can fire on a source.
type Verdict struct {
	Info
	Can bool
	// Missing are fields without which it cannot; empty where the source is of another kind (Kind).
	Missing []string
	Kind    bool // the source is of a kind that the rule does not look at
}

// kindOf says whether a rule looks at events of a source.
func (s *Sight) kindOf(l sigma.LogSource) bool {
	if l.Product == "tocsin" {
		return (l.Category == "" || s.category(l.Category)) && (l.Service == "" || slices.Contains(s.Services, l.Service))
	}
	o := origins[s.Dataset]
	for _, x := range o.sources {
		if (l.Product == "" || l.Product == x.Product) && (l.Category == "" || l.Category == x.Category || s.category(l.Category) || o.finer == byChannel) &&
			(l.Service == "" || l.Service == x.Service || slices.Contains(s.Services, l.Service) || o.finer != nothing) {
			return true
		}
	}
	switch { // what only an event can say: which of them the source sends is not known
	case o.finer == byTypeOfEVE && l.Product == "zeek", o.finer == byChannel && (l.Product == "linux" && l.Category != "" || l.Product == "rpc_firewall"):
		return true
	}
	return l.Product == "" && (l.Category == "" || s.category(l.Category)) && (l.Service == "" || slices.Contains(s.Services, l.Service))
}

func (s *Sight) category(c string) bool {
	return slices.ContainsFunc(s.Categories, func(ecs string) bool { return slices.Contains(categories[ecs], c) }) || c == dnsCategory && s.Has("dns.question.name")
}

// has asks for a field as a rule of a log source names it.
func (s *Sight) has(l sigma.LogSource, field string) bool {
	return field == "tocsin.tenant" || found(l, field, s.Has)
}

// Judge says of every rule that makes detections whether it can fire on a source. A correlation can when what it counts can: all of it where an
// order or a meeting of several is asked for, else any.
func (c *Catalogue) Judge(s Sight) []Verdict {
	type state struct {
		can, kind bool
		missing   []string
	}
	by := map[string]*state{} // ids and names
	for _, r := range c.coll.Rules {
		st := &state{kind: !s.kindOf(r.LogSource)}
		if !st.kind {
			st.can, st.missing = r.CanMatch(func(f string) bool { return s.has(r.LogSource, f) })
		}
		by[r.ID] = st
		if r.Name != "" {
			by[r.Name] = st
		}
	}
	for range 8 { // chains are short; what is deeper stays as it is known by then
		for _, r := range c.coll.Correlations {
			st := &state{}
			all := strings.HasPrefix(r.Type, "temporal") && r.Expression == "" && len(r.Bounds) == 0
			can, kinds, n := 0, 0, 0
			for _, name := range r.Rules {
				sub := by[name]
				if sub == nil {
					continue // a correlation that comes later
				}
				n++
				switch {
				case sub.can:
					can++
				case sub.kind:
					kinds++
				case st.missing == nil || all:
					st.missing = append(st.missing, sub.missing...)
				}
			}
			st.can = n > 0 && (all && can == len(r.Rules) || !all && can > 0)
			st.kind = !st.can && (all && kinds > 0 || kinds == n)
			if st.can {
				st.missing = nil
				for _, f := range append(slices.Clone(r.GroupBy), r.ValueFields()...) {
					if f != "" && !s.has(sigma.LogSource{}, f) && !strings.HasPrefix(f, "tocsin.tenant") {
						st.can = false
						st.missing = append(st.missing, f)
					}
				}
			}
			if st.kind {
				st.missing = nil
			}
			slices.Sort(st.missing)
			st.missing = slices.Compact(st.missing)
			by[r.ID] = st
			if r.Name != "" {
				by[r.Name] = st
			}
		}
	}
	out := make([]Verdict, 0, len(c.infos))
	for _, i := range c.infos {
		st := by[i.ID]
		out = append(out, Verdict{i, st.can, st.missing, st.kind})
	}
	return out
}
