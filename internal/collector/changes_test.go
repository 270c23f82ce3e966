package collector

import (
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/detect/layers"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// What the centre changed about rules stands on the page, until its end, and texts in it are texts.
func TestChangesOnThePage(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	c := changes{list: []layers.Sited{
		{Kind: layers.Off, Title: "Odd <b>title</b>"}, {Kind: layers.Except, Title: "Scan", Field: "source.ip", Value: "192.0.2.7", Expires: now.Add(time.Hour).UnixNano()},
		{Kind: layers.Level, Title: "Guessing", Level: "low"}, {Kind: layers.Off, Title: "Over", Expires: now.UnixNano()},
	}}
	cfg := DefaultConfig()
	m, err := cfg.minimiser([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := pageTemplate.Execute(&b, &pageView{Tab: "home", S: &Status{RuleChanges: c.show(now)}, Policy: m.Policy(), Config: &cfg}); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{"Rules on this machine that the centre changed", "Odd &lt;b&gt;title", "switched off", "further notice", "leaves out source.ip = 192.0.2.7", "has the level low"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	if strings.Contains(page, "Over") {
		t.Error("what is over is on the page")
	}
}

// flushed is an engine that tells of one thing when it is asked without a line.
type flushed struct{ Detector }

func (flushed) Flush(int64) []event.Detection {
	return []event.Detection{{RuleID: "r", RuleTitle: "t", Family: "f", Level: "low", Key: "k", Entity: event.Entity{Kind: "rule", Value: "r"}, Reason: "it is only a test"}}
}

// What the rules told of without a line is out of their memory, also when a change of rules keeps it back: it is asked for again after a restart.
func TestFlushedAndKeptBack(t *testing.T) {
	cfg := DefaultConfig()
	m, err := cfg.minimiser([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPipeline(&cfg, m, flushed{}, archive.Secret{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := layers.Encode([]layers.Sited{{Kind: layers.Off, Rule: "r", Title: "t"}})
	if err != nil {
		t.Fatal(err)
	}
	use, err := p.changes.read(&keys.Directive{Version: 1, Content: list})
	if err != nil {
		t.Fatal(err)
	}
	use()
	if n := p.flushDetector(1, 1, full); n != 1 || p.n != 0 || p.changes.kept != 1 {
		t.Errorf("%d told of, %d records, %d kept back", n, p.n, p.changes.kept)
	}
}
