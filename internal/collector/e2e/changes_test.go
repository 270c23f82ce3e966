package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/detect"
	"tocsin/internal/detect/layers"
	"tocsin/internal/directive"
	"tocsin/internal/event"
	"tocsin/internal/keys"
	"tocsin/rules"
)

// Changes of on-site rules reach the site, signed with a key that the hub does not have: an exception by a field that never leaves, an exception of what a
// rule finds, another level, a rule switched off; and they go again. What the hub signs itself, what is older and what is not sound is refused. They hold
// over a restart, and nothing of what they keep back leaves.
func TestRuleChanges(t *testing.T) {
	t.Parallel()
	house := func(o *collector.Options) { o.HouseEvery = 50 * time.Millisecond }
	h, s, r, c := begin(t, "Kirk", house)
	cat, err := detect.Load(rules.FS)
	if err != nil {
		t.Fatal(err)
	}
	version, lines := uint64(0), uint64(0)
	alone := func() { // a hub hands out the newest of a type only
		h.mu.Lock()
		defer h.mu.Unlock()
		h.directives = nil
	}
	publish := func(list ...layers.Layer) {
		t.Helper()
		for i := range list {
			l := &list[i]
			l.ID, l.Scope, l.Reason, l.Owner = int64(i+1), layers.Scheme, "it is only a test", "IT support"
			if l.Kind == layers.Except {
				l.Expires = time.Now().Add(time.Hour).UnixNano()
			}
			if err := l.Check(cat, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		sited := layers.ForSite(list, 1, "", cat, time.Now())
		if len(sited) != len(list) {
			t.Fatalf("%d of %d layers are for sites", len(sited), len(list))
		}
		b, err := layers.Encode(sited)
		if err != nil {
			t.Fatal(err)
		}
		version++
		alone()
		h.direct(directive.RuleChanges, keys.Packs, version, b)
		want := fmt.Sprintf(", changes %d", version)
		r.until("the changes are in force", func(st *collector.Status) bool {
			if len(list) == 0 {
				return len(st.RuleChanges) == 0
			}
			return strings.HasSuffix(st.RulePack, want) && len(st.RuleChanges) == len(list)
		})
	}
	// takeover is a sign-in after many failures; what the hub gets of it are the detections, and the sign-in as their evidence.
	takeover := func(ip, user string) (found []event.Detection, evidence int) {
		t.Helper()
		for range 12 {
			fmt.Fprintf(c, "%s\n", vpn(false, ip, user))
		}
		fmt.Fprintf(c, "%s\n", vpn(true, ip, user))
		lines += 13
		r.settled(lines)
		k := h.take(s.id)
		for i := range k.events {
			e := &k.events[i]
			switch a, _ := e.IP(event.SourceIP); {
			case e.IsDetection():
				if d, err := event.ToDetection(e); err != nil {
					t.Error(err)
				} else if d.Entity.Value == ip && d.Family == "account-takeover" {
					found = append(found, d)
				}
			case a.String() == ip && e.Str(event.EventOutcome) == "success":
				evidence++
			}
		}
		return found, evidence
	}
	publish(layers.Layer{Kind: layers.Except, Rule: "vpn_success", Field: "user.name", Value: "probe.*"}) // names do not leave: only the site can
	if got, n := takeover("203.0.113.10", "probe.monitor"); len(got) != 0 || n != 0 {
		t.Errorf("excepted by the account: %+v, %d", got, n)
	}
	publish(layers.Layer{Kind: layers.Except, Rule: "vpn_takeover", Field: "source.ip", Value: "203.0.113.0/28"}, layers.Layer{Kind: layers.Level, Rule: "vpn_takeover", Level: "low"})
	if got, n := takeover("203.0.113.12", "cat"); len(got) != 0 || n != 0 {
		t.Errorf("excepted by the address: %+v, %d", got, n)
	}
	if got, n := takeover("203.0.113.20", "dan"); len(got) != 1 || got[0].Level != "low" || n != 1 {
		t.Errorf("another level: %+v, %d", got, n)
	}
	publish(layers.Layer{Kind: layers.Off, Rule: "vpn_takeover"})
	// Refused, and everything stays: what the hub signs with a key of its own, what is older, what is not sound.
	off := must(layers.Encode(nil))
	for _, x := range []struct {
		purpose keys.Purpose
		version uint64
		content []byte
		says    string
	}{
		{keys.IndicatorSets, 100, off, "signature"},
		{keys.Questions, 101, off, "may not sign that"},
		{keys.Packs, 1, off, "never goes back"},
		{keys.Packs, 102, []byte(`{"format":1,"layers":[{"id":1,"kind":"leave","rule":"x","expires_ns":"0"}]}`), "does not know"},
	} {
		alone()
		h.direct(directive.RuleChanges, x.purpose, x.version, x.content)
		st := r.until("it is refused: "+x.says, func(st *collector.Status) bool {
			return slices.ContainsFunc(st.Refusals, func(f collector.Refusal) bool { return strings.Contains(f.Why, x.says) })
		})
		if len(st.RuleChanges) != 1 || !strings.HasSuffix(st.RulePack, ", changes 3") {
			t.Errorf("%s: in force are %+v, %s", x.says, st.RuleChanges, st.RulePack)
		}
	}
	// A restart keeps them.
	r.end()
	alone()
	r = s.start(house)
	c = r.tcp()
	if st := r.Status(); !slices.Equal(st.RuleChanges, []collector.RuleChange{{Rule: "VPN sign-in after many failures", What: "switched off"}}) || !strings.HasSuffix(st.RulePack, ", changes 3") {
		t.Errorf("after a restart: %+v, %s", st.RuleChanges, st.RulePack)
	}
	if got, n := takeover("203.0.113.22", "fay"); len(got) != 0 || n != 0 {
		t.Errorf("after a restart: %+v, %d", got, n)
	}
	publish()
	if got, n := takeover("203.0.113.23", "gus"); len(got) != 1 || n != 1 {
		t.Errorf("taken back: %+v, %d", got, n)
	}
	counts := h.take(s.id).counts
	if counts["rule_changes_kept_detections"] < 2 || counts["rule_changes_excepted_events"] != 1 {
		t.Errorf("%v", counts)
	}
}
