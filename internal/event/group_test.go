package event

import "testing"

// TestGroup: a group is set whole, in its order and with its lists, or not at all.
func TestGroup(t *testing.T) {
	g := NewGroup([]Key{ObserverVendor, EventType, EventType, ObserverProduct, EventOutcome}, "a", "allowed", "start", "", "success")
	var e Event
	if e.SetGroup(g) {
		t.Error("an event without memory took a group")
	}
	for i := range 8 { // memory for as many values
		e.AddString(EventCategory, string(rune('a'+i)))
	}
	room := cap(e.keys)
	e.Reset()
	e.SetString(UserName, "x")
	if !e.SetGroup(g) || e.SetGroup(g) {
		t.Fatal("not taken, or taken twice")
	}
	e.AddString(EventType, "end")
	if got := string(e.AppendJSON(nil)); got != `{"user.name":"x","observer.vendor":"a","event.type":["allowed","start","end"],"event.outcome":"success"}` {
		t.Error(got)
	}
	if !e.Has(EventOutcome) || e.Has(ObserverProduct) {
		t.Error("wrong bits")
	}
	e.Truncate(1)
	if e.Has(EventType) || e.Len() != 1 {
		t.Error("not taken back")
	}
	e.SetString(EventOutcome, "failure")
	if e.SetGroup(g) || e.Str(EventOutcome) != "failure" || e.Len() != 2 {
		t.Error("set beside a value that was there")
	}
	e.Reset()
	for len(e.keys) < room-3 { // one place too few
		e.AddString(EventCategory, "a")
	}
	if e.SetGroup(g) || len(e.keys) != room-3 || e.Has(EventType) {
		t.Error("half of a group was set")
	}
	if h := GroupOf([]Key{EventType, EventType}, []Value{StringValue("a"), StringValue("b")}); h.Len() != 2 || !e.AppendGroup(h) || !e.HasString(EventType, "b") {
		t.Error("no group of values, or not appended")
	}
	if GroupOf([]Key{MaxKeys - 1}, []Value{IntValue(1)}) != nil {
		t.Error("a group of a key that no bit covers")
	}
	e.Reset()
	for len(e.keys) < MaxValues {
		e.AddString(EventCategory, "a")
	}
	if e.SetGroup(g) || e.AppendGroup(g) || len(e.keys) != MaxValues {
		t.Error("more values than an event may have")
	}
}

// TestSetNew: the first value stands.
func TestSetNew(t *testing.T) {
	var e Event
	for _, k := range []Key{UserName, MaxKeys - 1} {
		for _, v := range []string{"a", "b"} {
			e.SetNew(k, v)
		}
		if got := e.Str(k); got != "a" {
			t.Errorf("%d: %q", k, got)
		}
	}
	e.SetIPv4(SourceIP, 0xc0000201)
	if got := e.Text(SourceIP); got != "192.0.2.1" {
		t.Error(got)
	}
}
