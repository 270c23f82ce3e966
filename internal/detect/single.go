package detect

import (
	"errors"
	"fmt"
	"testing/fstest"

	"tocsin/internal/event"
	"tocsin/sigma"
)

// Matcher matches one Sigma rule against events, each by itself: for a question about the past, which has no state and makes no detections.
// It belongs to one goroutine.
type Matcher struct{ e *Engine }

// NewMatcher compiles the one rule in text. Its log source and field names are resolved as those of every other rule.
func NewMatcher(text string) (*Matcher, error) {
	cat, err := Load(fstest.MapFS{"question.yml": &fstest.MapFile{Data: []byte(text)}})
	if err != nil {
		return nil, err
	}
	if len(cat.Errors) > 0 {
		return nil, cat.Errors[0]
	}
	if len(cat.coll.Rules) != 1 || len(cat.coll.Correlations) > 0 {
		return nil, errors.New("a question has exactly one rule, and no correlation")
	}
	rules, err := sigma.Compile(&sigma.Collection{Rules: cat.coll.Rules}, sigma.Options{Schema: schema{}})
	if err != nil {
		return nil, fmt.Errorf("detect: %w", err)
	}
	if len(rules.Errors) > 0 {
		return nil, rules.Errors[0]
	}
	e := &Engine{program: program{cat: cat, rules: rules, routes: map[route]*reading{}, routesOf: map[event.TenantID]int{}}}
	if err := e.name(); err != nil {
		return nil, err
	}
	return &Matcher{e}, nil
}

// Matches says whether the rule matches the event.
func (m *Matcher) Matches(ev *event.Event) bool {
	g := m.e.reading(ev)
	if g.set.Len() == 0 {
		return false
	}
	m.e.fill(ev, g)
	m.e.ids = m.e.match.Match(g.set, &m.e.rec, m.e.ids[:0])
	return len(m.e.ids) > 0
}
