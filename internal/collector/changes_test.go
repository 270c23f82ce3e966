package collector

import (
	"strings"
	"testing"
	"time"

	"tocsin/internal/detect/layers"
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
