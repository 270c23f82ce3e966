package rules_test

import (
	"net/netip"
	"testing"

	"tocsin/internal/collector/minimise"
	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/rules"
)

// TestHubRules finds rules that look for what stays at home: the stories of each rule at the hub pass through the policy metadata first, as on a
// site, and the rule must fire on what is left of them. One that cannot says so (needs: full), or belongs on the site.
func TestHubRules(t *testing.T) {
	cat, err := detect.Load(rules.FS)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := minimise.Load("metadata")
	if err != nil {
		t.Fatal(err)
	}
	min, err := minimise.New(minimise.Options{Policy: policy, Own: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	var (
		hub   *detect.Engine
		now   detect.Info
		fired bool
		out   event.Event
		last  int64
	)
	if _, err := detect.New(detect.Options{Catalogue: cat, Where: detect.Site}); err != nil { // it is not used: making it gives keys to the fields of the rules on the site, which stand in stories too
		t.Fatal(err)
	}
	engine, err := detect.New(detect.Options{Catalogue: cat, Where: detect.Hub})
	if err != nil {
		t.Fatal(err)
	}
	empty, err := engine.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	heard := map[string]bool{} // rules that fire under metadata, in one story at least
	rulesAtHub := map[string]detect.Info{}
	note := func(dets []event.Detection) {
		for _, d := range dets {
			fired = fired || d.RuleID == now.ID
		}
	}
	end := func() {
		if hub != nil {
			note(hub.Flush(last + int64(24*60*60*1e9)))
			heard[now.ID] = heard[now.ID] || fired
		}
	}
	err = cat.Stories(rules.FS, func(i detect.Info) {
		end()
		hub, now, fired = nil, i, false
		if i.Runs == detect.Hub {
			rulesAtHub[i.ID] = i
			if err := engine.Restore(empty); err != nil {
				t.Fatal(err)
			}
			hub = engine
		}
	}, func(ev *event.Event, at int64) {
		if hub == nil {
			return
		}
		last = at
		if !ev.Has(event.TocsinVerdict) { // parsers write both
			for i := range ev.Len() {
				if k, v := ev.At(i); k == event.EventType && (v.Str() == "denied" || v.Str() == "allowed") {
					ev.SetString(event.TocsinVerdict, map[string]string{"denied": "deny", "allowed": "allow"}[v.Str()])
				}
			}
		}
		x := min.Decide(ev)
		if x.Leave = x.Leave || ev.Has(event.TocsinIndicatorID); !x.Leave { // what touches an indicator leaves: the set is on the site
			return
		}
		min.Mark(ev, x)
		min.Reduce(&out, ev)
		out.Tenant, out.ID, out.Created, out.Time = ev.Tenant, ev.ID, ev.Created, ev.Time
		note(hub.Process(&out, at))
	})
	if err != nil {
		t.Fatal(err)
	}
	end()
	for id, i := range rulesAtHub {
		switch {
		case !heard[id] && !i.NeedsFull:
			t.Errorf("%s: %s never fires under the policy metadata: what it looks at stays at home. Let it run on the site, or say needs: full", i.File, i.Title)
		case heard[id] && i.NeedsFull:
			t.Errorf("%s: %s says that it needs the policy full, and fires without", i.File, i.Title)
		}
	}
	t.Logf("%d rules at the hub", len(rulesAtHub))
}
