package collector

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
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
		if changed, _ := s.product(&e, "syslog-repeats", at); changed || s.Changed != 0 || len(s.Refused) != 0 || len(s.Products) != 1 {
			t.Errorf("%+v", s)
		}
	}
	if changed, _ := s.product(&e, "other", learnTime+2); !changed {
		t.Error("another product is not noticed")
	}
}

// A newer program or pack that gives a learnt product another name marks nobody; another product is marked, then too.
func TestRenamedProduct(t *testing.T) {
	line := func(vendor, product, raw string) *event.Event {
		var e event.Event
		e.SetRaw([]byte(raw))
		e.SetString(event.ObserverVendor, vendor)
		e.SetString(event.ObserverProduct, product)
		return &e
	}
	addr := netip.AddrFrom4([4]byte{192, 168, 1, 1})
	const late = learnTime + 2
	for _, x := range []struct {
		name    string
		learnt  sender
		seen    *event.Event // after the parsers were renewed, and before the line in question; nil: none
		format  string
		line    *event.Event
		renamed bool
	}{
		{"same maker", sender{Products: []string{"ASA"}, Kinds: []kind{{"asa", "Cisco"}}}, nil, "cef", line("cisco", "Secure Firewall", ""), true},
		{"same parser, the maker's name too", sender{Products: []string{"ASA"}, Kinds: []kind{{"asa", "Cisco"}}}, nil, "asa", line("Cisco Systems", "Secure Firewall", ""), true},
		{"a parser of any maker says nothing", sender{Products: []string{"A"}, Kinds: []kind{{"cef", "Example"}}}, nil, "cef", line("Other", "B", ""), false},
		{"another product", sender{Products: []string{"ASA"}, Kinds: []kind{{"asa", "Cisco"}}}, nil, "fortigate", line("Fortinet", "FortiGate", ""), false},
		{"its old name still comes", sender{Products: []string{"ASA"}, Kinds: []kind{{"asa", "Cisco"}}}, line("Cisco", "ASA", ""), "asa", line("Cisco", "ISE", ""), false},
		{"of an older program, its name is in the line", sender{Products: []string{"CCR1009"}}, nil, "cef", line("MikroTik", "RouterOS", "CEF:0|MikroTik|CCR1009|7.1|1|x|5|"), true},
		{"of an older program, its name is in a word", sender{Products: []string{"CCR1009"}}, nil, "cef", line("MikroTik", "RouterOS", "CEF:0|MikroTik|CCR10091|7.1|1|x|5|"), false},
		{"of an older program, named as its parser", sender{Products: []string{"draytek"}}, nil, "draytek", line("DrayTek", "Vigor", ""), true},
		{"of an older program, another product", sender{Products: []string{"CCR1009"}}, nil, "asa", line("Cisco", "ASA", "%ASA-4-106023"), false},
		{"marked before", sender{Products: []string{"CCR1009"}, Refused: []string{"RouterOS"}}, nil, "cef", line("MikroTik", "RouterOS", "CEF:0|MikroTik|CCR1009|7.1|1|x|5|"), true},
		{"the table is full", sender{Products: []string{"1", "2", "3", "ASA", "5", "6", "7", "8"}, Kinds: []kind{{}, {}, {}, {"asa", "Cisco"}}}, nil, "asa", line("Cisco", "Secure Firewall", ""), true},
	} {
		s := x.learnt
		s.Addr, s.First, s.Lines, s.Seen = addr, 1, learnLines, 0xff
		t1, t2 := newSenders(), newSenders()
		t1.table[addr] = &s
		// Without newer parsers it is another product.
		same := s
		same.Products, same.Refused = slices.Clone(s.Products), nil
		if changed, _ := same.product(x.line, x.format, late); !changed {
			t.Errorf("%s: a name that comes with the same parsers is not marked", x.name)
		}
		b, err := json.Marshal(t1.list())
		if err != nil {
			t.Fatal(err)
		}
		var list []sender
		if err := json.Unmarshal(b, &list); err != nil {
			t.Fatal(err)
		}
		t2.restore(list)
		t2.named()
		s2 := t2.table[addr]
		if x.seen != nil {
			if changed, was := s2.product(x.seen, x.format, late); changed || was != "" {
				t.Errorf("%s: what was learnt is not known", x.name)
			}
		}
		changed, was := s2.product(x.line, x.format, late)
		if changed == x.renamed || (was != "") != x.renamed {
			t.Errorf("%s: marked %v, renamed from %q", x.name, changed, was)
			continue
		}
		if again, was := s2.product(x.line, x.format, late); again == x.renamed || was != "" {
			t.Errorf("%s: its next line: marked %v, renamed from %q", x.name, again, was)
		}
		if x.renamed && (len(s2.Refused) > 0 || s2.Changed > 0 || len(s2.Products) > maxProducts) {
			t.Errorf("%s: %+v", x.name, s2)
		}
		if changed, was := s2.product(line("Cisco", "Another", "CCR1009 draytek"), "asa", late); x.renamed && (!changed || was != "") {
			t.Errorf("%s: a second name was taken for the same product: %q", x.name, was)
		}
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
	play(90, full, true, false)
	again := newSenders() // a restart in the middle of it
	again.restore(p.senders.list())
	p.senders = again
	play(310, full, true, false)
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

// A name longer than what is kept of it is seen like any other: no other product takes its place after a new program.
func TestLongProductIsSeen(t *testing.T) {
	var e event.Event
	line := func(name string) *event.Event {
		e.Reset()
		e.SetString(event.ObserverVendor, "Acme")
		e.SetString(event.ObserverProduct, name)
		return &e
	}
	long := strings.Repeat("Gateway ", 10)
	senders := newSenders()
	s := senders.seen(netip.MustParseAddr("192.168.1.1"), 1)
	s.product(line(long), "acme", 1)
	senders.named()
	s.Lines = learnLines
	s.product(line(long), "acme", 1+learnTime)
	if changed, was := s.product(line("Other"), "acme", 2+learnTime); !changed || was != "" || s.Seen != 1 {
		t.Errorf("another product is marked %v, renamed from %q: %+v", changed, was, s)
	}
}
