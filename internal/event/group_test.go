package event

import "testing"

// TestGroup: a group is set whole, in its order and with its lists, or not at all.
func TestGroup(t *testing.T) {
	g := NewGroup([]Key{ObserverVendor, EventType, EventType, ObserverProduct, EventOutcome}, "a", "allowed", "start", "", "success")
	var e Event
	if e.SetGroup(g) {
		t.Error("an event without memory took a group")
	}
	e.SetString(UserName, "x")
	e.SetInt(SourcePort, 1)
	e.Reset()
	e.SetString(UserName, "x")
	for len(e.keys) < cap(e.keys) { // up to no room
		if n := len(e.keys); cap(e.keys)-n < 4 {
			if e.SetGroup(g) || len(e.keys) != n || e.Has(EventType) {
				t.Fatal("half of a group")
			}
			break
		}
		if !e.SetGroup(g) {
			t.Fatal("not taken")
		}
		if e.SetGroup(g) {
			t.Fatal("taken twice")
		}
		e.AddString(EventType, "end")
		if got := string(e.AppendJSON(nil)); got != `{"user.name":"x","observer.vendor":"a","event.type":["allowed","start","end"],"event.outcome":"success"}` {
			t.Fatal(got)
		}
		if !e.Has(EventOutcome) || e.Has(ObserverProduct) {
			t.Fatal("wrong bits")
		}
		e.Truncate(1)
		if e.Has(EventType) || e.Len() != 1 {
			t.Fatal("not taken back")
		}
		e.SetString(EventOutcome, "failure")
		if e.SetGroup(g) || e.Str(EventOutcome) != "failure" || e.Len() != 2 {
			t.Fatal("set beside a value that was there")
		}
		break
	}
}
