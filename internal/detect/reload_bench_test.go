package detect

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"tocsin/internal/event"
)

// The kinds of events that came are ready when the new rules come into force: the next event of a kind waits for nothing, and is counted as one of its
// member's as before.
func TestReloadIsReady(t *testing.T) {
	e, err := New(Options{Catalogue: load(t, reloadRules("a", "3")), Where: Hub})
	if err != nil {
		t.Fatal(err)
	}
	var ev event.Event
	webEvent(&ev, 0, netip.MustParseAddr("192.0.2.1"), "/each", testStart)
	e.Process(&ev, testStart)
	before := e.reading(&ev)
	if _, err := e.Reload(load(t, reloadRules("b", "3"))); err != nil {
		t.Fatal(err)
	}
	g := e.routes[e.finer.routeOf(&ev)]
	if g == nil || g == before || g.set.Len() == 0 || e.reading(&ev) != g || e.routesOf[1] != 1 {
		t.Errorf("%+v, %v", g, e.routesOf)
	}
}

// A member that has as many kinds of events as there can be begins anew at a reload, and everybody with it.
func TestReloadFreesRoutes(t *testing.T) {
	for _, c := range []struct{ of, all, want int }{{maxRoutesOfOne - 1, 1, 1}, {maxRoutesOfOne, 1, 0}, {1, maxRoutes, 0}} {
		e, err := New(Options{Catalogue: load(t, reloadRules("a", "3")), Where: Hub})
		if err != nil {
			t.Fatal(err)
		}
		var ev event.Event
		webEvent(&ev, 0, netip.MustParseAddr("192.0.2.1"), "/each", testStart)
		e.Process(&ev, testStart)
		e.routesOf[1] = c.of
		for i := range c.all - 1 {
			e.routes[route(i+1)<<40] = nil
		}
		if _, err := e.Reload(load(t, reloadRules("b", "3"))); err != nil {
			t.Fatal(err)
		}
		if len(e.routes) != c.want || e.routesOf[1] != c.of*c.want {
			t.Errorf("%+v: %d routes, %v", c, len(e.routes), e.routesOf)
		}
		e.reading(&ev)
		if len(e.routes) != 1 {
			t.Errorf("%+v: it is not learnt again", c)
		}
	}
}

// BenchmarkReload measures how long no event can be processed while 200,000 groups are handed over: to the same rules, and to one rule more, which gives
// the others new numbers; and how long the first event after it takes.
func BenchmarkReload(b *testing.B) {
	same := load(b, reloadRules("a", "3"))
	more := reloadRules("b", "3")
	more["0.yml"] = more["rules.yml"]
	delete(more, "rules.yml")
	head := strings.Replace(strings.Split(string(reloadRules("new", "3")["rules.yml"].Data), "---\n")[2], "000000000003", "000000000009", 1)
	more["0.yml"].Data = append([]byte(head+"---\n"), more["0.yml"].Data...)
	sets := []*Catalogue{load(b, more), same}
	for _, c := range []struct {
		name string
		sets []*Catalogue
	}{{"same", []*Catalogue{same, same}}, {"more", sets}} {
		b.Run(c.name, func(b *testing.B) {
			e, err := New(Options{Catalogue: same, Where: Hub, TenantGroups: hubGroups})
			if err != nil {
				b.Fatal(err)
			}
			var ev event.Event
			for n := range 100_000 { // each is counted by two rules
				webEvent(&ev, n, netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), "/each", testStart)
				e.Process(&ev, testStart)
			}
			var paused, first time.Duration
			n, groups := 0, 0
			for b.Loop() {
				r, err := e.Reload(c.sets[n%2])
				if err != nil || r.Lost > 100_000 {
					b.Fatalf("%+v %v", r, err)
				}
				webEvent(&ev, n, netip.AddrFrom4([4]byte{10, 0, 0, 1}), "/each", testStart)
				begun := time.Now()
				e.Process(&ev, testStart)
				paused, first, groups, n = paused+r.Paused, first+time.Since(begun), r.Groups, n+1
			}
			b.ReportMetric(float64(paused.Microseconds())/1e3/float64(n), "pause-ms")
			b.ReportMetric(float64(first.Microseconds())/1e3/float64(n), "first-event-ms")
			b.ReportMetric(float64(groups), "groups")
		})
	}
}
