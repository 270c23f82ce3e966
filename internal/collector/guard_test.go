package collector

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestGuard(t *testing.T) {
	var said []string
	g := newGuard(func(what, why string) { said = append(said, what+": "+why) })
	at := time.Now().UnixNano()
	// One in 200 lines: within the share, for ever.
	for i := range 100_000 {
		g.line()
		if i%200 == 0 && g.indicator("quiet", at) {
			t.Fatalf("stopped at line %d", i)
		}
	}
	// One in 20: off before the window is over, and named once.
	stopped := 0
	for i := range 100_000 {
		g.line()
		if i%20 == 0 && g.indicator("loud", at) {
			stopped++
		}
	}
	if stopped < 4700 || len(said) != 1 || !strings.Contains(said[0], "indicator loud") {
		t.Errorf("stopped %d times, said %q", stopped, said)
	}
	if g.indicator("quiet", at) {
		t.Error("another indicator was switched off with it")
	}
	// Many indicators that share the work among them: the set is off.
	said = nil
	stopped = 0
	for i := range 50_000 {
		g.line()
		if i%4 == 0 && g.indicator(fmt.Sprint("many", i), at) {
			stopped++
		}
	}
	if stopped < 10_000 || len(said) != 1 || !strings.HasPrefix(said[0], "indicators: ") {
		t.Errorf("stopped %d times, said %q", stopped, said)
	}
	g.forgive("indicator")
	if g.indicator("loud", at) || len(g.list()) != 0 {
		t.Error("a newer set is not given its chance")
	}
	// A rule that brings a heap each time, but seldom.
	released := 0
	for range 1000 {
		for range 2000 {
			g.line()
		}
		if !g.rule("heaps", 100, at) {
			released += 100
		}
	}
	if released != guardHour {
		t.Errorf("%d events released in an hour", released)
	}
	if g.rule("heaps", 100, at+int64(time.Hour)) {
		t.Error("the next hour is not a new one")
	}
}
