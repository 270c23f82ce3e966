package minimise

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tocsin/internal/event"
)

// Ranges that touch, lie in one another or begin with the same byte are one answer for each address.
func TestRanges(t *testing.T) {
	member := prefixes("198.51.100.0/25", "198.51.100.128/25", "198.51.100.64/26", "203.0.113.0/24", "11.0.0.0/8", "9.255.255.255/32", "192.169.0.0/16", "2001:db8:1::/48", "2001:db8:7::/64")
	r := newRanges(member)
	all := append(prefixes("fc00::/7", "fe80::/10", "::1/128", "::/128", "ff00::/8"), append(private4, member...)...)
	want := func(a netip.Addr) bool {
		for _, p := range all {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	n := 0
	check := func(a netip.Addr) {
		n++
		if a.IsValid() && r.has(a) != want(a) {
			t.Errorf("%v: own %v", a, r.has(a))
		}
	}
	for _, p := range all {
		if !p.Addr().Is4() {
			check(p.Addr())
			check(p.Addr().Prev())
			continue
		}
		b := p.Addr().As4()
		for i := p.Bits(); i < 32; i++ {
			b[i/8] |= 0x80 >> (i % 8)
		}
		last := netip.AddrFrom4(b)
		for _, a := range []netip.Addr{p.Addr(), p.Addr().Prev(), p.Addr().Next(), last, last.Next(), last.Prev()} {
			check(a)
		}
	}
	for i := range 1 << 16 {
		check(netip.AddrFrom4([4]byte{byte(i >> 8), byte(i), byte(i * 7), byte(i * 13)}))
	}
	for i := 1; i < len(r.v4); i++ {
		if r.v4[i].from <= r.v4[i-1].to {
			t.Errorf("%v and %v are not apart", r.v4[i-1], r.v4[i])
		}
	}
}

// With pseudonyms of addresses no own one leaves written out in a text either, be it the host of a web address or a sentence.
func TestAddressesInTexts(t *testing.T) {
	m := newMinimiser(t, func(o *Options) { o.PseudonymAddresses = true })
	as := func(a string) string { return m.PseudonymIP(netip.MustParseAddr(a)).String() }
	for _, c := range []struct{ in, want string }{
		{"10.0.0.5", as("10.0.0.5")},
		{"from 10.0.0.5, to 203.0.113.5.", "from " + as("10.0.0.5") + ", to 203.0.113.5."},
		{"src10.0.0.5:443->198.51.100.7(80)", "src" + as("10.0.0.5") + ":443->" + as("198.51.100.7") + "(80)"},
		{"fe80::1 ::1 [2001:db8:1::9]:80", as("fe80::1") + " " + as("::1") + " [" + as("2001:db8:1::9") + "]:80"},
		{"2001:db8:1:5::/64", as("2001:db8:1:5::") + "/64"},
		{"2001:db8:1::9: closed", as("2001:db8:1::9") + ": closed"},
		{"version 10.0.0.5.1 and 1.10.0.0.5", "version " + as("10.0.0.5") + ".1 and 1." + as("10.0.0.5")}, // in doubt it is one
		{"10.0.0.5.443 > 203.0.113.9.10.0.0.6: S", as("10.0.0.5") + ".443 > 203.0.113.9." + as("10.0.0.6") + ": S"},
		{"010.000.000.005 and 203.000.113.009", as("10.0.0.5") + " and 203.000.113.009"},
		{"src:10.0.0.5 dst:fe80::1 x:2606:4700::1", "src:" + as("10.0.0.5") + " dst:" + as("fe80::1") + " x:2606:4700::1"},
		{"0:1:10.0.0.5 0:10.0.0.5 0:1:2:3:4:5:6:7:8:fe80::1", "0:1:" + as("10.0.0.5") + " 0:" + as("10.0.0.5") + " 0:1:2:3:4:5:6:7:8:" + as("fe80::1")},
		{"1.3.6.1.4.1.9 256.10.0.0.1000", "1.3.6.1.4.1.9 256.10.0.0.1000"},
		{"at 10:00:00 face::b00c ab:cd", "at 10:00:00 face::b00c ab:cd"},
		{"::ffff:10.0.0.5", as("10.0.0.5")},
		{"", ""}, {":", ":"}, {"...", "..."}, {"1.2.3", "1.2.3"},
	} {
		if got := m.hideAddresses(c.in); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
	e := ev(t, "source.ip=203.0.113.5", "destination.ip=10.0.0.5", "url.domain=10.0.0.5", "rule.name=block 10.0.0.5", "tocsin.verdict=deny")
	e.SetString(event.HostIP, "10.0.0.5, 10.0.0.6") // not one address, so kept as text
	m.Prepare(e, Sender{Assurance: "udp"})
	var out event.Event
	m.Reduce(&out, e)
	if js := string(out.AppendJSON(nil)); strings.Contains(js, "10.0.0.") || strings.Count(js, as("10.0.0.5")) != 4 {
		t.Error(js)
	}
	d := event.Detection{RuleID: "r", Family: "f", Level: "low", Entity: event.Entity{Kind: "source", Value: "2001:db8:1:5::/64"}, EntityField: "source.ip", Source: "2001:db8:1:5::/64",
		Reason: "2001:db8:1:5::/64 tried 10.0.0.5 and 10.0.0.6.", Key: "k"}
	m.Detection(&out, &d)
	if js := string(out.AppendJSON(nil)); strings.Contains(js, "2001:db8") || strings.Contains(js, "10.0.0.") || !strings.Contains(js, as("2001:db8:1:5::")) {
		t.Error(js)
	}
}

// A line cannot say what only the collector may say under a name that this version does not know, either.
func TestPretenders(t *testing.T) {
	p, err := Load("full")
	if err != nil {
		t.Fatal(err)
	}
	m := newMinimiser(t, func(o *Options) { o.Policy = p })
	e := ev(t, "tocsin.verdict=deny")
	for _, name := range []string{"tocsin.future", "vendor.a", "tocsin.other.thing", "vendor.b"} {
		e.SetNamed(name, "x")
	}
	m.Prepare(e, Sender{Assurance: "udp"})
	var out event.Event
	m.Reduce(&out, e)
	if x := out.Extras(); len(x) != 2 || x[0].Name != "vendor.a" || x[1].Name != "vendor.b" {
		t.Errorf("%v", x)
	}
}

// What one line costs: no memory.
func TestNoMemory(t *testing.T) {
	m := newMinimiser(t, nil)
	m.SetIndicators(testSet(t))
	base := ev(t, "source.ip=203.0.113.5", "destination.ip=198.51.100.5", "tocsin.verdict=deny", "network.transport=tcp", "event.category=network", "event.kind=event", "event.action=deny",
		"source.port=40000", "destination.port=443", "observer.vendor=Fortinet", "observer.product=Fortigate", "url.domain=www.example.org", "rule.name=Block Ann Smith", "user.name=ann smith x")
	var e, out event.Event
	line := func() {
		base.CopyTo(&e)
		m.Prepare(&e, Sender{Addr: netip.MustParseAddr("192.0.2.1"), Assurance: "udp"})
		d := m.Decide(&e)
		m.Mark(&e, d)
		m.Reduce(&out, &e)
	}
	line()
	if n := testing.AllocsPerRun(1000, line); n > 0 {
		t.Errorf("%v allocations a line", n)
	}
}

func FuzzHideAddresses(f *testing.F) {
	for _, s := range []string{"from 10.0.0.5:80 to [fe80::1]:443", "1.2.3.4.5", "::ffff:10.0.0.1", "ab:cd:ef", "fd12::1 010.0.0.1 x:fe80::2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m := newMinimiser(t, func(o *Options) { o.PseudonymAddresses = true })
		got := m.hideAddresses(s)
		for _, word := range strings.Fields(got) {
			a, err := netip.ParseAddr(word)
			if err != nil || a.Zone() != "" || !m.IsOwn(a) || a.Is6() && !slices.Contains(strings.Fields(s), word) { // a pseudonym is an own address of IPv6 too
				continue
			}
			t.Fatalf("%q: %s is left in %q", s, word, got)
		}
	})
}
