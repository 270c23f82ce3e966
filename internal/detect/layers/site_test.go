package layers

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tocsin/internal/detect"
	"tocsin/internal/event"
)

var long = strings.Repeat("r", maxText+1)

// found knows two rules of sites and one of the hub.
type found struct{}

func (found) Find(id string) (detect.Found, bool) {
	f, ok := map[string]detect.Found{
		"single": {ID: "single", OnSite: true, Silent: true},
		"counts": {ID: "counts", OnSite: true, Runs: detect.Site, Correlation: true, EntityFields: []string{"user.name"}},
		"hub":    {ID: "hub", AtHub: true, Runs: detect.Hub},
		"wide":   {ID: "wide", OnSite: true, Runs: detect.Site, Correlation: true, EntityFields: slices.Repeat([]string{"user.name"}, maxEntity+1)},
		long:     {ID: long, OnSite: true, Silent: true},
	}[id]
	return f, ok
}

// What a site is told works there as it does at the hub, without the hub's catalogue, and ends by itself.
func TestSited(t *testing.T) {
	now := time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)
	end := now.Add(time.Hour).UnixNano()
	open := []Layer{
		{ID: 1, Kind: Except, Rule: "single", Scope: Scheme, Field: "user.name", Value: "probe*", Expires: end},
		{ID: 2, Kind: Except, Rule: "counts", Scope: Member, Tenant: 7, Field: "user.name", Value: "backup", Expires: end},
		{ID: 3, Kind: Level, Rule: "counts", Scope: Member, Tenant: 7, Level: "low"},
		{ID: 4, Kind: Level, Rule: "counts", Scope: Region, Region: "North", Level: "critical"},
		{ID: 5, Kind: Off, Rule: "hub", Scope: Scheme},
		{ID: 6, Kind: Off, Rule: "counts", Scope: Member, Tenant: 8},
		{ID: 7, Kind: Off, Rule: "counts", Scope: Scheme, Expires: now.UnixNano()},
		{ID: 8, Kind: Off, Rule: "gone", Scope: Scheme},
		{ID: 9, Kind: Except, Rule: "single", Scope: Scheme, Field: "source.ip", Value: "::ffff:0:0/0", Expires: end}, // was taken once
	}
	b, err := Encode(ForSite(open, 7, "north ", found{}, now))
	if err != nil {
		t.Fatal(err)
	}
	list, err := Decode(b)
	if err != nil || len(list) != 4 || list[3].ID != 4 {
		t.Fatalf("%+v, %v", list, err)
	}
	set := NewSiteSet(list)
	ev := func(user string) *event.Event {
		var e event.Event
		e.SetString(event.UserName, user)
		return &e
	}
	if !set.Excepts() || !set.Excepted("single", ev("Probe1"), now.UnixNano()) || set.Excepted("single", ev("ann"), now.UnixNano()) || set.Excepted("single", ev("probe1"), end) {
		t.Error("the exception of single events")
	}
	det := func(user string) []event.Detection {
		return []event.Detection{{RuleID: "counts", Level: "high", Entity: event.Entity{Kind: "account", Value: user}}}
	}
	if pass, kept, _ := set.Apply(det("backup"), now); len(pass) != 0 || len(kept) != 1 || kept[0].Layer != 2 {
		t.Errorf("%+v %+v", pass, kept)
	}
	if pass, _, _ := set.Apply(det("ann"), now); len(pass) != 1 || pass[0].Level != "low" { // the member's, not its area's
		t.Errorf("%+v", pass)
	}
	if pass, _, _ := set.Apply(det("backup"), now.Add(2*time.Hour)); len(pass) != 1 {
		t.Errorf("past its end: %+v", pass)
	}
	if got := ForSite(open, 0, "", found{}, now); len(got) != 1 || got[0].ID != 1 { // for everybody
		t.Errorf("%+v", got)
	}
}

// What a site would not take is refused when the layer is made; one that was made before, or whose rule was changed since, does not hold up the others.
func TestUnfit(t *testing.T) {
	now := time.Now()
	end := now.Add(time.Hour).UnixNano()
	list := []Layer{
		{ID: 1, Kind: Except, Rule: "wide", Scope: Scheme, Field: "user.name", Value: "probe", Expires: end},
		{ID: 2, Kind: Except, Rule: long, Scope: Scheme, Field: "user.name", Value: "probe", Expires: end},
		{ID: 3, Kind: Except, Rule: "counts", Scope: Scheme, Field: "user.name", Value: "probe\xff", Expires: end},
		{ID: 4, Kind: Off, Rule: "counts", Scope: Scheme},
		{ID: 5, Kind: Off, Rule: "hub", Scope: Scheme},
	}
	for i, want := range []string{"17 fields", "the rule's id is 501 bytes long; sites", "the value of an exception must be text in UTF-8", "", ""} {
		l := list[i]
		l.Reason, l.Owner = "only a test", "IT support"
		err := l.Check(found{}, now)
		if want == "" && err != nil || want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("layer %d: %v", l.ID, err)
		}
		if advice := err != nil && strings.Contains(err.Error(), "the rule's own file"); advice != (l.ID < 3) { // only where the rule is at fault
			t.Errorf("layer %d: %v", l.ID, err)
		}
	}
	x := Sited{Kind: Off, Rule: "counts", Title: "a\xff"}
	if err := x.check(); err == nil || err.Error() != "the rule's title is no text in UTF-8" {
		t.Error(err)
	}
	if got := ForSite(list, 0, "", found{}, now); len(got) != 1 || got[0].ID != 4 {
		t.Errorf("%+v", got)
	} else if _, err := Encode(got); err != nil {
		t.Error(err)
	}
}

// An exception whose field no rule names any more holds at the hub as it does on sites; without room for the field it says that it does nothing.
func TestFieldWithoutKey(t *testing.T) {
	l := Layer{ID: 1, Kind: Except, Rule: "single", Scope: Scheme, Field: "vendor.only_in_an_old_rule", Value: "x", Expires: time.Now().Add(time.Hour).UnixNano()}
	none := l
	none.ID, none.Field = 2, strings.Repeat("f", 400) // stands for a full table, which tests share
	s := NewSet([]Layer{l, none}, nil, found{})
	var ev event.Event
	ev.SetString(must(event.Register(l.Field)), "x")
	if !s.Excepted("single", &ev, time.Now().UnixNano()) {
		t.Error("it does not hold")
	}
	if idle := s.Idle(); len(idle) != 1 || idle[0].ID != 2 {
		t.Errorf("%+v", idle)
	}
}

func must(k event.Key, err error) event.Key {
	if err != nil {
		panic(err)
	}
	return k
}

// A site takes nothing that is not sound.
func TestDecodeRefuses(t *testing.T) {
	one := func(inside string) string {
		return `{"format":1,"layers":[{"id":1,"rule":"r","expires_ns":"9",` + inside + `}]}`
	}
	for name, text := range map[string]string{
		"no JSON": "x", "another format": `{"format":2,"layers":[]}`, "no kind": one(`"title":"t"`), "another kind": one(`"kind":"leave"`), "a level": one(`"kind":"level","level":"loud"`),
		"everybody": one(`"kind":"except","field":"source.ip","value":"0.0.0.0/0"`), "everything": one(`"kind":"except","field":"user.name","value":"*"`),
		"everybody with IPv6": one(`"kind":"except","field":"source.ip","value":"::ffff:0:0/0"`), "everybody with IPv4": one(`"kind":"except","field":"source.ip","value":"::ffff:0:0/96"`),
		"all mapped": one(`"kind":"except","field":"source.ip","value":"::ffff:0:0/95"`),
		"no end":     `{"format":1,"layers":[{"id":1,"rule":"r","expires_ns":"0","kind":"except","field":"user.name","value":"x"}]}`,
		"no field":   one(`"kind":"except","value":"x"`), "no field of an event": one(`"kind":"except","field":"event.hash","value":"x"`),
		"no rule": `{"format":1,"layers":[{"id":1,"expires_ns":"0","kind":"off"}]}`, "a width": one(`"kind":"off","width":3`), "a text": one(`"kind":"off","title":"` + strings.Repeat("x", 600) + `"`),
		"too many": `{"format":1,"layers":[` + strings.Repeat(`{"id":1,"rule":"r","expires_ns":"0","kind":"off"},`, MaxSited) + `{"id":1,"rule":"r","expires_ns":"0","kind":"off"}]}`,
		"too long": `{"format":1,"layers":[]` + strings.Repeat(" ", MaxSiteBytes) + `}`,
	} {
		if list, err := Decode([]byte(text)); !errors.Is(err, ErrInvalid) || list != nil {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

// An exception by a field that nothing here has named yet holds, on events that come from then on.
func TestFieldOfTomorrow(t *testing.T) {
	field := fmt.Sprintf("a.field.of.tomorrow%d", event.NumKeys())
	list, err := Decode([]byte(`{"format":1,"layers":[{"id":1,"rule":"r","expires_ns":"9","kind":"except","field":"` + field + `","value":"x","single":true}]}`))
	if err != nil {
		t.Fatal(err)
	}
	var ev event.Event
	if err := event.DecodeJSON(&ev, []byte(`{"`+field+`":"x"}`)); err != nil {
		t.Fatal(err)
	}
	if set := NewSiteSet(list); !set.Excepts() || !set.Excepted("r", &ev, 1) || set.Excepted("r", &event.Event{}, 1) {
		t.Error("it excepts nothing")
	}
}

// A rule's long title does not hold up the list.
func TestLongTitle(t *testing.T) {
	title := "x" + strings.Repeat("é", 300)
	list := ForSite([]Layer{{ID: 1, Kind: Off, Rule: "counts", Title: title, Scope: Scheme}}, 7, "", found{}, time.Now())
	if _, err := Encode(list); err != nil || len(list) != 1 || list[0].Title != title[:maxText-1] {
		t.Errorf("%+v, %v", list, err)
	}
}

// A network of IPv4 addresses in IPv6 writing is that network.
func TestMappedNetwork(t *testing.T) {
	m, err := compile("::ffff:192.0.2.0/120")
	if err != nil {
		t.Fatal(err)
	}
	for v, want := range map[string]bool{"192.0.2.7": true, "::ffff:192.0.2.7": true, "192.0.3.7": false, "2001:db8::1": false, "2001:db8::/64": false} {
		if m.matches(v) != want {
			t.Errorf("%s: %v", v, !want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"format":1,"layers":[{"id":1,"rule":"r","expires_ns":"9","kind":"except","field":"user.name","value":"*x","single":true,"entity":["a"]},{"id":2,"kind":"off","rule":"q","expires_ns":"0"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := Decode([]byte(text))
		if err != nil {
			return
		}
		b, err := Encode(list)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := Decode(b)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(list) {
			t.Errorf("%+v\n%+v\n%v", list, again, err)
		}
		set := NewSiteSet(list)
		var e event.Event
		e.SetString(event.UserName, "x")
		for i := range list {
			set.Excepted(list[i].Rule, &e, 0)
			set.Apply([]event.Detection{{RuleID: list[i].Rule}}, time.Unix(0, 0))
		}
	})
}
