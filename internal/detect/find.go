package detect

import (
	"slices"
	"strings"

	"tocsin/internal/event"
	"tocsin/sigma"
)

// Found is a rule of the catalogue, also one that only feeds correlations.
type Found struct {
	ID, Name, Title, Level, File string
	Runs                         Where // of one that makes detections
	Across                       bool
	Silent                       bool // it makes no detections: correlations count it
	OnSite, AtHub                bool // where it is asked about events, for itself or for those that count it
	Correlation                  bool
	EntityFields                 []string // whose value names the entity
	Counts                       []string // titles of the rules that a correlation counts
}

// Find finds a rule by its id, its name, or its title as it is written.
func (c *Catalogue) Find(text string) (Found, bool) {
	if c.found == nil {
		return Found{}, false
	}
	if f, ok := c.found[text]; ok {
		return *f, true
	}
	f, ok := c.found[strings.ToLower(text)]
	if !ok {
		return Found{}, false
	}
	return *f, true
}

// index makes what Find looks in. Of two rules with one name or title neither is found by it.
func (c *Catalogue) index() {
	c.found = map[string]*Found{}
	var all []*Found
	titles := map[string]string{} // by id and name
	by := map[string]*Found{}
	add := func(m *sigma.Meta, correlation bool) *Found {
		f := &Found{ID: m.ID, Name: m.Name, Title: m.Title, Level: m.Level, File: m.File, Correlation: correlation, Silent: true}
		if a := c.attrs[m.ID]; a != nil {
			f.Silent, f.Runs, f.Across, f.EntityFields = false, a.Runs, a.Across, a.EntityFields
			f.OnSite, f.AtHub = a.Runs != Hub, a.Runs != Site
		}
		titles[m.ID], titles[m.Name] = m.Title, m.Title
		by[m.ID], by[m.Name] = f, f
		all = append(all, f)
		return f
	}
	for _, r := range c.coll.Rules {
		add(&r.Meta, false)
	}
	for _, r := range c.coll.Correlations {
		f := add(&r.Meta, true)
		f.Counts = append(f.Counts, r.Rules...)
	}
	for again := true; again; { // what a correlation counts is asked wherever the correlation is
		again = false
		for _, f := range all {
			for _, n := range f.Counts {
				if g := by[n]; g != nil && (f.OnSite && !g.OnSite || f.AtHub && !g.AtHub) {
					g.OnSite, g.AtHub, again = g.OnSite || f.OnSite, g.AtHub || f.AtHub, true
				}
			}
		}
	}
	twice := map[string]bool{}
	for _, f := range all {
		for i, n := range f.Counts {
			if t := titles[n]; t != "" {
				f.Counts[i] = `"` + t + `"`
			}
		}
		c.found[f.ID] = f
		for _, n := range []string{strings.ToLower(f.Name), strings.ToLower(f.Title)} {
			if n == "" || n == f.ID {
				continue
			}
			if other := c.found[n]; other != nil && other != f {
				twice[n] = true
			}
			c.found[n] = f
		}
	}
	for n := range twice {
		if f := c.found[n]; f != nil && f.ID != n {
			delete(c.found, n)
		}
	}
	slices.SortFunc(all, func(a, b *Found) int { return strings.Compare(a.ID, b.ID) })
	c.all = all
}

// All lists every rule, by id.
func (c *Catalogue) All() []Found {
	out := make([]Found, len(c.all))
	for i, f := range c.all {
		out[i] = *f
	}
	return out
}

// Exceptions say of an event that a rule matched whether the rule must not count it (package layer).
type Exceptions interface {
	Excepts() bool // whether any event need be asked about
	Excepted(rule string, ev *event.Event, now int64) bool
}

// except takes out the matches that exceptions forbid. It costs nothing while there are none.
func (e *Engine) except(ids []int32, ev *event.Event, now int64) []int32 {
	if e.opts.Exceptions == nil || len(ids) == 0 {
		return ids
	}
	x := e.opts.Exceptions()
	if x == nil || !x.Excepts() {
		return ids
	}
	return slices.DeleteFunc(ids, func(id int32) bool { return x.Excepted(e.rules.Rules[id].ID, ev, now) })
}
