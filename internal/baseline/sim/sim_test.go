package sim

import (
	"os"
	"strings"
	"testing"
)

// The bars: of what is planted, nine of ten are told; nothing is told wrongly more than once in twenty weeks of a member, hub and site together.
const (
	barRecall = 0.9
	barFalse  = 0.05
)

// TestScheme plays a small scheme in the ordinary run, and with TOCSIN_TEST_TORTURE=long ten thousand members over ninety days.
func TestScheme(t *testing.T) {
	o := Options{Seed: 1, Members: 60, Days: 56, Warm: 35}
	if os.Getenv("TOCSIN_TEST_TORTURE") == "long" {
		o = Options{Seed: 1, Members: 10_000, Days: 90, Warm: 42}
	}
	hub := make(chan *Result, 1)
	go func() {
		r, err := Hub(o)
		if err != nil {
			t.Error(err)
		}
		hub <- r
	}()
	s, err := Sites(o)
	if err != nil {
		t.Fatal(err)
	}
	h := <-hub
	if h == nil {
		t.FailNow()
	}
	var text strings.Builder
	text.WriteString("at the hub\n")
	h.Print(&text)
	text.WriteString("on the sites\n")
	s.Print(&text)
	t.Logf("\n%s", &text)
	t.Logf("the hub's engine: %d bytes for %d members, %d a member; the largest site %d bytes", h.Stats.Bytes, h.Stats.Tenants, h.Stats.Bytes/max(h.Stats.Tenants, 1), s.Largest)
	t.Logf("some of what nothing explains:\n%s\n%s", h.Explain(), s.Explain())
	for name, r := range map[string]*Result{"hub": h, "sites": s} {
		if r.Recall() < barRecall {
			t.Errorf("%s: %.3f of what was planted was told, the bar is %.2f", name, r.Recall(), barRecall)
		}
	}
	if f := h.FalseRate() + s.FalseRate(); f > barFalse {
		t.Errorf("%.4f false detections a member and week, the bar is %.2f", f, barFalse)
	}
	if n := h.Stats.Bytes / max(h.Stats.Tenants, 1); n > 64<<10 {
		t.Errorf("%d bytes a member at the hub", n)
	}
}
