package collector

import (
	"log/slog"
	"testing"

	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/spool"
)

// Lines that left with a detection are known as such under new rules too: what was learnt points at lines of before. Where the state is older
// than the memory, they may not have left.
func TestEvidenceOutlivesRules(t *testing.T) {
	cfg := DefaultConfig()
	m, err := cfg.minimiser([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		rules  string
		cursor spool.Pos
		goOn   bool
		known  bool
	}{{"old", spool.Pos{}, true, true}, {"new", spool.Pos{}, false, true}, {"old", spool.Pos{Segment: 1}, false, false}} {
		p, err := newPipeline(&cfg, m, nil, archive.Secret{1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		a := &Agent{log: slog.New(slog.DiscardHandler), st: &state{}, pipe: p, packs: packState{rules: c.rules}}
		goOn := a.restoreMemory(&memoryHead{RulePack: "old", Cursor: c.cursor, Evidence: []uint64{3}}, nil)
		if _, known := p.evidence[3]; goOn != c.goOn || known != c.known {
			t.Errorf("%+v: they go on: %v, the line is known: %v", c, goOn, known)
		}
	}
}
