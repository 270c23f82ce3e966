package collector

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/event"
)

// "Last message repeated" is not another product: what a device is pinned to stays, and it is not learnt as one.
func TestRepeatsAreNoProduct(t *testing.T) {
	s := sender{Addr: netip.AddrFrom4([4]byte{192, 168, 1, 1}), First: 1, Lines: learnLines, Products: []string{"FortiGate"}}
	var e event.Event
	e.SetString(event.ObserverProduct, "syslog sender")
	for _, at := range []int64{2, learnTime + 2} {
		if s.product(&e, "syslog-repeats", at) || s.Changed != 0 || len(s.Refused) != 0 || len(s.Products) != 1 {
			t.Errorf("%+v", s)
		}
	}
	if !s.product(&e, "other", learnTime+2) {
		t.Error("another product is not noticed")
	}
}

// Of two firewalls of one kind one is updated, and nothing that it writes is understood: the collector says so once, names it, and again when it happens
// again. When nearly everything is not understood the hub says it, and what was never understood is no fault.
func TestOneOfTwoIsNotUnderstood(t *testing.T) {
	c := DefaultConfig()
	m, err := c.minimiser([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPipeline(&c, m, nil, archive.Secret{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.origin = "c1"
	n := uint64(0)
	at := time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)
	send := func(from byte, clear bool, f fate) {
		n++
		at = at.Add(time.Second)
		text := fmt.Sprintf(`<189>date=2026-11-23 time=06:00:00 devname="FGT" devid="FG100" tz="+0000" logid="0000000013" type="traffic" subtype="forward" level="notice" srcip=10.0.0.5 srcport=%d dstip=203.0.113.9 dstport=443 proto=6 action="accept" policyid=1`, 1024+n)
		if !clear {
			text = "\x01\x02\x03 nothing that anybody reads"
		}
		p.line(&archive.Line{Number: n, Created: at.UnixNano(), Via: archive.UDP, Sender: netip.AddrFrom4([4]byte{192, 168, 1, from}), Text: []byte(text)}, f)
	}
	told := func() uint64 { return p.tally.madeDetection }
	play := func(lines int, f fate, clear ...bool) {
		for range lines {
			for i, c := range clear {
				send(byte(i+1), c, f)
			}
		}
	}
	play(500, full, true, true, false) // the third was never understood
	if told() != 0 {
		t.Fatalf("%d are told of", told())
	}
	play(399, full, true, true, false)
	play(600, full, true, false)
	if told() != 1 {
		t.Fatalf("%d are told of, want the second", told())
	}
	s := string(p.frames)
	if !strings.Contains(s, "tocsin-health-lines") || !strings.Contains(s, "Of the lines that the device 192.168.1.2 sends") {
		t.Errorf("%q", s)
	}
	list := p.senders.list()
	again := newSenders() // a restart in the middle of it
	again.restore(list)
	p.senders = again
	play(400, full, true, false)
	if told() != 1 {
		t.Errorf("told again: %d", told())
	}
	play(400, full, true, true)
	play(400, replay, true, false) // was told before the restart
	if told() != 1 {
		t.Errorf("told of what was told before: %d", told())
	}
	play(400, full, true, true)
	play(400, full, true, false)
	if told() != 2 {
		t.Errorf("another time: %d", told())
	}
	play(400, full, true, true)
	play(1000, full, false, false)
	if told() != 2 {
		t.Errorf("what the hub sees is told here too: %d", told())
	}
	// The hub asks nothing of a collector of which a fifth or more was never understood: the one firewall among such is told of.
	for i := range 3000 {
		send([]byte{1, 1, 1, 5, 5, 5, 5, 5, 5, 6}[i%10], i%10 < 3 || i%10 == 9, full)
	}
	before := told()
	for i := range 3000 {
		send([]byte{1, 1, 1, 5, 5, 5, 5, 5, 5, 6}[i%10], i%10 == 9, full)
	}
	if told() != before+1 {
		t.Errorf("a device that the hub does not see: %d", told()-before)
	}
	// The policy decides about the device's address.
	var e event.Event
	p.min.Detection(&e, &event.Detection{RuleID: "r", RuleTitle: "t", Family: "f", Level: "high", Key: "k", Entity: event.Entity{Kind: "host", Value: "192.168.1.2"}, EntityField: event.TocsinSenderIP.Name(), Reason: "192.168.1.2"})
	leave, _ := m.MayLeave(event.TocsinSenderIP)
	if got := e.Str(event.TocsinDetectionEntity); leave != (got == "192.168.1.2") {
		t.Errorf("the policy lets it leave: %v; it leaves as %q", leave, got)
	}
}
