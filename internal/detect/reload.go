package detect

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"tocsin/sigma"
)

// BadRules is why a set of rules was not taken: some of it cannot be used. What ran before runs on.
type BadRules struct{ Errors []*sigma.Error }

// Error names the first fault and how many there are.
func (b *BadRules) Error() string {
	s := b.Errors[0].Error()
	if n := len(b.Errors) - 1; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return s
}

// Reloaded says what a reload did.
type Reloaded struct {
	Rules  int           // that make detections here now
	Groups int           // live groups of correlations that were carried over
	Lost   int           // live groups of correlations that changed or went: they count from nothing
	Paused time.Duration // how long no event could be processed
}

// Reload replaces the rules between two events. The new ones are compiled first, while the old ones work; a set with any fault is refused with
// BadRules and nothing changes. State is carried over for every correlation that is as it was (its type, rules by id, grouping, span and
// condition): what it had counted stays counted, and is handed over as it is, not copied. Where none of a rule's own text changed, its detections go on under their keys.
//
// It may be called from any goroutine, by one at a time.
func (e *Engine) Reload(cat *Catalogue) (Reloaded, error) {
	if cat == nil {
		return Reloaded{}, errors.New("detect: reload: no rules given")
	}
	if len(cat.Errors) > 0 {
		return Reloaded{}, &BadRules{cat.Errors}
	}
	opts := e.opts
	opts.Catalogue = cat
	next, err := New(opts)
	if err != nil {
		return Reloaded{}, err
	}
	if errs := next.Errors(); len(errs) > 0 {
		return Reloaded{}, &BadRules{errs}
	}
	e.mu.Lock()
	var routes []route
	if !e.routesFull() { // else those that a member invented would keep it and the others from what they need until a restart
		routes, next.routesOf = slices.Collect(maps.Keys(e.routes)), maps.Clone(e.routesOf)
	}
	e.mu.Unlock()
	for _, r := range routes { // each takes milliseconds, which the next event of its kind need not wait for
		next.newReading(r)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	begun := time.Now()
	before := e.cor.Stats()
	next.cor.Take(e.cor)
	r := Reloaded{Rules: next.stats.Rules, Groups: next.cor.Stats().Groups}
	r.Lost = max(0, before.Groups-r.Groups)
	// What the old state pushed out stays counted.
	e.evicted += before.Evicted
	for t, n := range e.cor.EvictedByScope() {
		if e.evictedBy == nil {
			e.evictedBy = map[uint32]uint64{}
		}
		e.evictedBy[t] += n
	}
	e.program = next.program
	e.match = sigma.Matcher{}
	e.stats.Rules = r.Rules
	r.Paused = time.Since(begun)
	return r, nil
}
