package minimise

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"tocsin/internal/event"
)

// What is remembered of rows of keys decides nothing: a minimiser that has seen thousands of other rows, and changes of the event between its
// steps, says and lets go the same as a new one.
func TestShapes(t *testing.T) {
	t.Run("as it comes", func(t *testing.T) {
		testShapes(t, func(o *Options) { o.AlsoLeave = []string{"vendor.let.*"} })
	})
	t.Run("pseudonyms", func(t *testing.T) {
		testShapes(t, func(o *Options) {
			o.PseudonymAddresses, o.PseudonymUsers, o.AlsoLeave = true, true, []string{"vendor.let.*"}
		})
	})
}

func testShapes(t *testing.T, change func(*Options)) {
	r := rand.New(rand.NewPCG(7, 11))
	used, fresh := newMinimiser(t, change), newMinimiser(t, change)
	used.SetIndicators(testSet(t))
	fresh.SetIndicators(testSet(t))
	late, err := event.Register("vendor.let.late")
	if err != nil {
		t.Fatal(err)
	}
	keys := []event.Key{late}
	for k := event.Key(1); int(k) < event.NumKeys(); k++ {
		if strings.HasPrefix(k.Name(), "tocsin.") || strings.HasPrefix(k.Name(), "event.") || strings.HasPrefix(k.Name(), "source.") || k%5 == 0 || strings.HasPrefix(k.Name(), "network.") {
			keys = append(keys, k)
		}
	}
	words := []string{"deny", "allow", "detect", "inbound", "outbound", "authentication", "malware", "email", "network", "failure", "ann", "login ann failed", "", "a longer one than eight", "10.1.2.3", "intrusion_detection", "intrusion_defection", "external", "success"}
	addresses := []string{"10.1.2.3", "203.0.113.66", "198.51.100.7", "2001:db8:1::7", "203.0.113.9"}
	value := func(k event.Key) event.Value {
		text := words[r.IntN(len(words))]
		switch k.Kind() {
		case event.IP:
			text = addresses[r.IntN(len(addresses))]
		case event.Int:
			text = "17"
		case event.Bool:
			text = "true"
		case event.Float:
			text = "1.5"
		case event.Time:
			text = "2026-11-22T10:00:00Z"
		}
		v, ok := event.ParseValue(k.Kind(), text)
		if !ok {
			t.Fatalf("%s: %q", k.Name(), text)
		}
		return v
	}
	fate := func(m *Minimiser, e *event.Event) string {
		var out event.Event
		clock := m.Prepare(e, Sender{Assurance: "udp"})
		d := m.Decide(e)
		d.Urgent, d.First = false, false // what the first denial of a source is depends on what came before
		m.Mark(e, d)
		m.Reduce(&out, e)
		first := fmt.Sprintf("%v %+v %s", clock, d, out.AppendJSON(nil))
		e.Del(event.TocsinIndicatorID) // as the ceiling does
		e.Del(event.EventCategory)
		e.SetString(event.TocsinVerdict, "deny")
		e.AddString(event.EventCategory, "malware")
		m.Reduce(&out, e)
		return fmt.Sprintf("%s %v %s", first, m.Leaves(e), out.AppendJSON(nil))
	}
	var rows [][]event.Key // that come again and again
	for range 1500 {
		var e event.Event
		e.Created, e.Time = created, created
		var row []event.Key
		n := 1 + r.IntN(40)
		switch r.IntN(50) {
		case 0:
			n = maxShape + 20
		case 1, 2: // little but what is asked about
			row = []event.Key{event.EventCategory, event.EventOutcome, event.TocsinVerdict, event.EventAction, event.UserName, event.SourceIP}[r.IntN(3):]
		}
		for len(row) < n {
			row = append(row, keys[r.IntN(len(keys))])
		}
		if len(rows) > 0 && r.IntN(2) == 0 {
			row = rows[r.IntN(len(rows))]
		} else if len(rows) < 8 {
			rows = append(rows, row)
		} else {
			rows[r.IntN(len(rows))] = row
		}
		for _, k := range row {
			e.Add(k, value(k))
		}
		e.SetExtra("vendor.let.go", "x")
		e.SetExtra("vendor.kept", "x")
		again := e.Clone()
		fresh.forget()
		if got, want := fate(used, &e), fate(fresh, again); got != want {
			t.Fatalf("after other rows of keys\n%s\nby itself\n%s", got, want)
		}
	}
}

// A sentence that stays, in front of everything else, leaves no gap and moves nothing to another's place: the first time a row is seen and after.
func TestSentenceInFront(t *testing.T) {
	const (
		head = `{"@timestamp":"2026-11-22T10:00:00Z","event.created":"2026-11-22T10:00:00Z",`
		tail = `"rule.name":"Trojan found","source.ip":"203.0.113.66","event.category":["malware","network"],"event.outcome":"failure"}`
	)
	m := newMinimiser(t, nil)
	for n, c := range []struct{ action, want string }{
		{"the door was opened by nobody at night", head + tail},
		{"deny", head + `"event.action":"deny",` + tail},
		{"the door was opened by nobody at night", head + tail},
	} {
		e := ev(t, "event.action="+c.action, "rule.name=Trojan found", "source.ip=203.0.113.66", "event.category=malware", "event.category=network", "message=stays", "event.outcome=failure")
		var out event.Event
		m.Reduce(&out, e)
		if got := string(out.AppendJSON(nil)); got != c.want {
			t.Errorf("%d: %s\nwant %s", n, got, c.want)
		}
	}
}

// forget makes a minimiser as it is before its first event.
func (m *Minimiser) forget() {
	m.shapes, m.long, m.last = [len(m.shapes)]*shape{}, nil, &shape{answer: make([]uint64, len(m.answer))}
	m.denied = firstSeen{}
}

// A field with a name of ours that a rule registers after the start is still ours alone to set.
func TestLateNamesOfOurs(t *testing.T) {
	k, err := event.Register("tocsin.made.by.a.rule")
	if err != nil {
		t.Fatal(err)
	}
	var e event.Event
	e.Created, e.Time = created, created
	e.SetString(k, "pretended")
	e.SetString(event.EventAction, "deny")
	newMinimiser(t, nil).Prepare(&e, Sender{Assurance: "udp"})
	if e.Has(k) || e.Str(event.EventAction) != "deny" {
		t.Errorf("a line says of itself: %s", e.AppendJSON(nil))
	}
}

// A list of directions that becomes one moves what stands behind it: it is found there all the same.
func TestListOfDirections(t *testing.T) {
	m := newMinimiser(t, nil)
	m.SetIndicators(testSet(t))
	for range 2 { // the second time the row of keys is known
		e := ev(t, "network.direction=in", "network.direction=a", "network.direction=b", "source.ip=198.51.100.7", "destination.ip=203.0.113.66", "network.transport=tcp",
			"tocsin.verdict=allow", "event.category=intrusion_detection", "event.category=network")
		m.Prepare(e, Sender{Assurance: "udp"})
		if got := e.Str(event.NetworkDirection); got != "outbound" || e.Str(event.TocsinIndicatorMatched) != "203.0.113.66" || e.Str(event.TocsinSourceProof) != "session" {
			t.Errorf("%s", e.AppendJSON(nil))
		}
	}
}
