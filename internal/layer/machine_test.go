package layer

import (
	"testing"
	"time"

	"tocsin/internal/baseline"
	"tocsin/internal/detect"
	"tocsin/internal/detect/layers"
	"tocsin/internal/event"
)

// infos are the baselines alone.
type infos struct{}

func (infos) Find(id string) (detect.Found, bool) {
	i, ok := baseline.Lookup(id)
	return detect.Found{ID: i.ID, Title: i.Title, Correlation: true, EntityFields: i.EntityFields}, ok
}

// An exception by the machine that a beat comes from, or by a signature, keeps back that detection and no other.
func TestExceptionsOfBaselines(t *testing.T) {
	s := layers.NewSet([]Layer{
		{ID: 1, Kind: Except, Rule: "baseline-beacon", Scope: Scheme, Field: "source.ip", Value: "10.0.0.5"},
		{ID: 2, Kind: Except, Rule: "baseline-new-signature", Scope: Scheme, Field: "rule.id", Value: "*2001219"},
	}, nil, infos{})
	of := func(rule, kind, value, host string) event.Detection {
		return event.Detection{Tenant: 1, RuleID: rule, Entity: event.Entity{Kind: kind, Value: value}, Host: host}
	}
	pass, kept, _ := s.Apply([]event.Detection{
		of("baseline-beacon", "host", "10.0.0.5", "10.0.0.5"), of("baseline-beacon", "host", "10.0.0.6", "10.0.0.6"),
		of("baseline-new-signature", "rule", "signature 2001219", ""), of("baseline-new-signature", "rule", "signature 2001220", ""),
	}, time.Now())
	if len(pass) != 2 || len(kept) != 2 || kept[0].Layer != 1 || kept[1].Layer != 2 || pass[0].Entity.Value != "10.0.0.6" || pass[1].Entity.Value != "signature 2001220" {
		t.Errorf("passed %v, kept back %v", pass, kept)
	}
}
