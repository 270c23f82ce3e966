package minimise

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tocsin/internal/event"
	"tocsin/internal/indicator"
)

var created = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC).UnixNano()

func newMinimiser(t testing.TB, change func(*Options)) *Minimiser {
	t.Helper()
	p, err := Load("metadata")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Policy: p, Own: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:1::/48")}, PseudonymKey: [32]byte{1}}
	if change != nil {
		change(&o)
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// ev makes an event from "name=value" pairs; a name given twice is a list.
func ev(t testing.TB, pairs ...string) *event.Event {
	t.Helper()
	e := &event.Event{Created: created, Time: created}
	for _, p := range pairs {
		name, value, _ := strings.Cut(p, "=")
		k, ok := event.Lookup(name)
		if !ok {
			t.Fatalf("no field %s", name)
		}
		v, ok := event.ParseValue(k.Kind(), value)
		if !ok {
			t.Fatalf("%s: %q", name, value)
		}
		e.Add(k, v)
	}
	return e
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name   string
		event  []string
		want   string // leave or keep, reason, urgent
		second string // the same event once more
	}{
		{"scan", []string{"source.ip=203.0.113.5", "destination.ip=198.51.100.20", "network.transport=tcp", "tocsin.verdict=deny"}, "leave denied_inbound urgent", "leave denied_inbound"},
		{"scan of the outside address", []string{"source.ip=203.0.113.5", "destination.ip=192.0.2.1", "tocsin.verdict=deny"}, "leave denied_inbound urgent", "leave denied_inbound"},
		{"scan without destination", []string{"source.ip=203.0.113.5", "tocsin.verdict=deny"}, "leave denied_inbound urgent", "leave denied_inbound"},
		{"denied outwards", []string{"source.ip=10.1.2.3", "destination.ip=203.0.113.5", "tocsin.verdict=deny"}, "keep denied_outbound", ""},
		{"denied inside", []string{"source.ip=10.1.2.3", "destination.ip=198.51.100.7", "tocsin.verdict=deny"}, "keep denied_internal", ""},
		{"broadcast", []string{"source.ip=10.1.2.3", "destination.ip=255.255.255.255", "tocsin.verdict=deny"}, "keep denied_internal", ""},
		{"denied, no address", []string{"tocsin.verdict=deny"}, "keep denied_other", ""},
		{"allowed", []string{"source.ip=10.1.2.3", "destination.ip=203.0.113.5", "tocsin.verdict=allow", "network.transport=tcp"}, "keep allowed", ""},
		{"failed sign-in", []string{"source.ip=203.0.113.5", "event.category=authentication", "event.outcome=failure", "user.name=j.smith"}, "leave failed_authentication urgent", "leave failed_authentication urgent"},
		{"sign-in", []string{"source.ip=203.0.113.5", "event.category=authentication", "event.outcome=success"}, "keep authentication", ""},
		{"session", []string{"event.category=session"}, "keep authentication", ""},
		{"ids", []string{"source.ip=203.0.113.5", "event.kind=alert", "event.category=network", "event.category=intrusion_detection", "tocsin.verdict=allow"}, "leave ids urgent", "leave ids urgent"},
		{"virus", []string{"event.category=malware", "tocsin.verdict=deny"}, "leave malware urgent", "leave malware urgent"},
		{"web", []string{"event.category=web"}, "keep web", ""},
		{"listed address", []string{"source.ip=10.1.2.3", "destination.ip=203.0.113.66", "tocsin.verdict=allow", "network.transport=tcp"}, "leave indicator urgent", "leave indicator urgent"},
		{"listed name", []string{"source.ip=10.1.2.3", "dns.question.name=www.bad.example"}, "leave indicator urgent", ""},
		{"listed page", []string{"source.ip=10.1.2.3", "url.full=http://worse.example/x?secret=1", "url.domain=worse.example"}, "leave indicator urgent", ""},
		{"nothing known", nil, "keep other", ""},
		{"another product", []string{"source.ip=203.0.113.5", "event.category=intrusion_detection", "observer.product=changed"}, "leave ids", ""},
	} {
		m := newMinimiser(t, nil)
		m.SetIndicators(testSet(t))
		for _, want := range []string{c.want, c.second} {
			if want == "" {
				continue
			}
			e := ev(t, c.event...)
			m.Prepare(e, Sender{Addr: netip.MustParseAddr("10.0.0.1"), Assurance: "udp", Changed: c.name == "another product"})
			d := m.Decide(e)
			word, text := m.Reason(d.Clause)
			got := map[bool]string{true: "leave ", false: "keep "}[d.Leave] + word
			if d.Urgent {
				got += " urgent"
			}
			if got != want || text == "" {
				t.Errorf("%s: %s (%s), want %s", c.name, got, text, want)
			}
		}
	}
}

func testSet(t testing.TB) *indicator.Set {
	t.Helper()
	b, err := indicator.Build([16]byte{7}, []indicator.Entry{
		{Kind: indicator.IP, Value: "203.0.113.66"}, {Kind: indicator.Domain, Value: "bad.example"}, {Kind: indicator.URL, Value: "http://worse.example/x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := indicator.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDirection(t *testing.T) {
	m := newMinimiser(t, nil)
	for _, c := range []struct{ src, dst, said, want string }{
		{"203.0.113.5", "198.51.100.1", "", "inbound"},
		{"203.0.113.5", "10.0.0.1", "outbound", "inbound"}, // ranges are stronger than the device's word
		{"2001:db8:1::5", "2606:4700::1", "", "outbound"},
		{"192.168.1.1", "198.51.100.1", "", "internal"},
		{"203.0.113.5", "192.0.2.1", "", "external"},
		{"203.0.113.5", "192.0.2.1", "inbound", "inbound"},
		{"203.0.113.5", "", "", "inbound"},
		{"", "203.0.113.5", "", ""},
		{"", "", "inbound", "inbound"},
		{"169.254.1.1", "224.0.0.251", "", "internal"},
	} {
		var pairs []string
		for name, v := range map[string]string{"source.ip": c.src, "destination.ip": c.dst, "network.direction": c.said} {
			if v != "" {
				pairs = append(pairs, name+"="+v)
			}
		}
		e := ev(t, pairs...)
		m.Prepare(e, Sender{Assurance: "udp"})
		if got := e.Str(event.NetworkDirection); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// Private ranges are own without being named: a table of prefixes says which, address by address at their edges.
func TestIsOwn(t *testing.T) {
	m := newMinimiser(t, nil)
	private := prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "0.0.0.0/32",
		"fc00::/7", "fe80::/10", "::1/128", "::/128", "ff00::/8", "198.51.100.0/24", "2001:db8:1::/48")
	own := func(a netip.Addr) bool {
		return slices.ContainsFunc(private, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	check := func(a netip.Addr) {
		if a.IsValid() && m.IsOwn(a) != own(a) {
			t.Errorf("%v: own %v", a, m.IsOwn(a))
		}
	}
	for _, p := range private {
		first := p.Addr()
		last := first
		if first.Is4() {
			b := first.As4()
			for i := p.Bits(); i < 32; i++ {
				b[i/8] |= 0x80 >> (i % 8)
			}
			last = netip.AddrFrom4(b)
			// Mapped into IPv6 it is still the same address.
			if !m.IsOwn(netip.AddrFrom16(first.As16())) {
				t.Errorf("%v mapped into IPv6 is not own", first)
			}
		} else {
			b := first.As16()
			for i := p.Bits(); i < 128; i++ {
				b[i/8] |= 0x80 >> (i % 8)
			}
			last = netip.AddrFrom16(b)
		}
		for _, a := range []netip.Addr{first, first.Next(), last, last.Prev()} {
			if !m.IsOwn(a) && p.Contains(a) {
				t.Errorf("%v of %v is not own", a, p)
			}
		}
		if a := first.Prev(); a.IsValid() && !a.Is4In6() {
			check(a)
		}
		if a := last.Next(); a.IsValid() && !a.Is4In6() {
			check(a)
		}
	}
}

func TestProof(t *testing.T) {
	m := newMinimiser(t, nil)
	for _, c := range []struct {
		event []string
		want  string
	}{
		{[]string{"tocsin.verdict=deny", "network.transport=tcp"}, "none"},
		{[]string{"tocsin.verdict=allow", "network.transport=udp"}, "none"},
		{[]string{"tocsin.verdict=allow", "network.transport=icmp"}, "none"},
		{[]string{"tocsin.verdict=allow", "network.transport=tcp"}, "handshake"},
		{[]string{"event.category=intrusion_detection", "network.transport=tcp", "tocsin.verdict=detect"}, "session"},
		{[]string{"event.category=intrusion_detection", "network.transport=udp", "tocsin.verdict=detect"}, "none"},
		{[]string{"http.request.method=GET", "network.transport=tcp"}, "session"},
		{[]string{"event.category=authentication", "event.outcome=failure"}, "session"},
		{[]string{"event.category=authentication", "event.outcome=failure", "network.transport=udp"}, "none"},
		{[]string{"event.category=authentication", "event.outcome=success"}, "authenticated"},
		{nil, "none"},
	} {
		e := ev(t, c.event...)
		m.Prepare(e, Sender{Assurance: "udp"})
		if got := e.Str(event.TocsinSourceProof); got != c.want {
			t.Errorf("%v: %q, want %q", c.event, got, c.want)
		}
	}
}

func TestClock(t *testing.T) {
	m := newMinimiser(t, nil)
	for _, c := range []struct {
		off      time.Duration
		replaced bool
	}{{0, false}, {4 * time.Minute, false}, {6 * time.Minute, true}, {400 * 24 * time.Hour, true}, {-time.Hour, false}, {-29 * 24 * time.Hour, false}, {-31 * 24 * time.Hour, true}} {
		e := ev(t)
		e.Time = created + int64(c.off)
		if got := m.Prepare(e, Sender{Assurance: "udp"}); got != c.replaced {
			t.Errorf("%v: replaced %v", c.off, got)
		}
		v, ok := e.Get(event.TocsinDeviceTime)
		if ok != c.replaced || ok && (v.Time() != created+int64(c.off) || e.Time != created) {
			t.Errorf("%v: time %d, device time %d", c.off, e.Time-created, v.Time()-created)
		}
	}
}

// A line cannot say of itself what only the collector may say.
func TestClean(t *testing.T) {
	m := newMinimiser(t, nil)
	e := ev(t, "tocsin.source.proof=authenticated", "tocsin.indicator.id=ff", "event.module=tocsin", "event.dataset=tocsin.detection", "tocsin.detection.key=x",
		"tocsin.tenant=7", "tocsin.urgent=true", "tocsin.verdict=deny", "event.sequence=9", "tocsin.detection.tags=a", "tocsin.detection.tags=b")
	m.Prepare(e, Sender{Assurance: "udp"})
	if e.IsDetection() || e.Str(event.TocsinSourceProof) != "none" || e.Has(event.TocsinIndicatorID) || e.Has(event.TocsinTenant) || e.Has(event.TocsinUrgent) ||
		e.Has(event.EventSequence) || e.Has(event.TocsinDetectionTags) || e.Has(event.EventModule) || e.Str(event.TocsinVerdict) != "deny" {
		t.Fatalf("%s", e.AppendJSON(nil))
	}
}

// A secret in every field there is: only those in fields that the policy names may be found in what leaves.
func TestPlantedSecrets(t *testing.T) {
	content := []string{
		"message", "event.reason", "error.message", "url.full", "url.original", "url.path", "url.query", "url.fragment", "url.username", "url.password",
		"http.request.body.content", "http.request.referrer", "user_agent.original", "email.subject", "email.from.address", "email.to.address",
		"email.attachments.file.name", "file.name", "file.path", "file.directory", "user.name", "user.email", "user.full_name", "user.id", "user.domain",
		"source.user.name", "destination.user.name", "client.user.name", "user.target.name", "related.user", "related.hosts", "host.name", "host.hostname",
		"log.syslog.hostname", "observer.hostname", "process.command_line", "process.args", "registry.value", "dns.answers.data", "group.name", "source.mac",
		"destination.mac", "source.domain", "destination.domain", "organization.name", "tags",
	}
	plant := func() (*event.Event, map[string]string) {
		e := &event.Event{Created: created, Time: created}
		secrets := map[string]string{}
		for k := event.Key(1); int(k) < len(partOf); k++ { // the schema's; TestKeysThatComeLater is about others
			if k.Kind() != event.String {
				continue
			}
			s := fmt.Sprintf("secret-%d-end", k)
			e.SetString(k, s)
			secrets[k.Name()] = s
		}
		for i := range event.MaxExtras {
			name := fmt.Sprintf("vendor.field%d", i)
			s := fmt.Sprintf("secret-extra-%d-end", i)
			e.SetNamed(name, s)
			secrets[name] = s
		}
		e.SetRaw([]byte("secret-raw-end"))
		secrets["event.original"] = "secret-raw-end"
		return e, secrets
	}
	reduce := func(m *Minimiser) (string, map[string]string) {
		e, secrets := plant()
		var out event.Event
		m.Reduce(&out, e)
		return string(out.AppendJSON(nil)), secrets
	}
	m := newMinimiser(t, nil)
	got, secrets := reduce(m)
	for name, s := range secrets {
		named := covers(m.o.Policy.Fields.Leave, name) || covers(m.o.Policy.Fields.Address, name)
		if strings.Contains(got, s) != named {
			t.Errorf("%s: left %v, the policy names it %v", name, !named, named)
		}
		if named && slices.Contains(content, name) {
			t.Errorf("the policy lets content leave: %s", name)
		}
	}
	for _, name := range content {
		if _, ok := secrets[name]; !ok {
			t.Errorf("%s is not a field any more: mend this test", name)
		}
	}
	// The member's own changes.
	m = newMinimiser(t, func(o *Options) {
		o.AlsoLeave = []string{"user.name", "vendor.field1"}
		o.AlsoKeep = []string{"rule.*", "network.application"}
	})
	got, secrets = reduce(m)
	for name, want := range map[string]bool{"user.name": true, "vendor.field1": true, "vendor.field2": false, "rule.name": false, "rule.id": false, "network.application": false, "network.protocol": true} {
		if strings.Contains(got, secrets[name]) != want {
			t.Errorf("member's change: %s left %v", name, !want)
		}
	}
	// Users as pseudonyms: the name does not leave, the same word does for every spelling.
	m = newMinimiser(t, func(o *Options) { o.PseudonymUsers = true })
	got, secrets = reduce(m)
	if strings.Contains(got, secrets["user.name"]) || !strings.Contains(got, `"user.name":"`+m.PseudonymUser(secrets["user.name"])) {
		t.Error("pseudonym of a user:", got)
	}
	if m.PseudonymUser(`DOM\J.Smith`) != m.PseudonymUser("j.smith@school.example") || m.PseudonymUser("a") == m.PseudonymUser("b") {
		t.Error("pseudonyms of one user differ, or of two are equal")
	}
	p, err := Load("full")
	if err != nil {
		t.Fatal(err)
	}
	m = newMinimiser(t, func(o *Options) { o.Policy = p; o.AlsoKeep = []string{"user.name"} })
	got, secrets = reduce(m)
	for name, s := range secrets { // the raw line holds everything, so it stays with what is kept back
		if strings.Contains(got, s) == (name == "user.name" || name == "event.original") {
			t.Errorf("full, user.name kept: %s", name)
		}
	}
	m = newMinimiser(t, func(o *Options) { o.Policy = p })
	got, secrets = reduce(m)
	for name, s := range secrets {
		if !strings.Contains(got, s) {
			t.Errorf("full: %s", name)
		}
	}
}

func TestPseudonymAddresses(t *testing.T) {
	m := newMinimiser(t, func(o *Options) { o.PseudonymAddresses = true })
	e := ev(t, "source.ip=192.168.3.7", "destination.ip=203.0.113.5", "source.nat.ip=198.51.100.9", "host.ip=192.168.3.7")
	m.Prepare(e, Sender{Addr: netip.MustParseAddr("10.0.0.1"), Assurance: "udp"})
	var out event.Event
	m.Reduce(&out, e)
	src, _ := out.IP(event.SourceIP)
	host, _ := out.IP(event.HostIP)
	dst, _ := out.IP(event.DestinationIP)
	js := string(out.AppendJSON(nil))
	if src != host || !netip.MustParsePrefix("fd00::/8").Contains(src) || dst.String() != "203.0.113.5" || strings.Contains(js, "192.168") || strings.Contains(js, "198.51") || strings.Contains(js, "10.0.0.1") {
		t.Fatal(js)
	}
	for _, private := range []string{"172.16.3.9", "172.17.0.1"} {
		if a, ok := m.Reveal(m.PseudonymIP(netip.MustParseAddr(private)), true); !ok || a.String() != private {
			t.Errorf("%s comes back as %v", private, a)
		}
	}
	if a, ok := m.Reveal(src, false); !ok || a.String() != "192.168.3.7" {
		t.Fatalf("revealed %v, %v", a, ok)
	}
	other := newMinimiser(t, func(o *Options) { o.PseudonymAddresses = true; o.PseudonymKey = [32]byte{2} })
	if other.PseudonymIP(netip.MustParseAddr("192.168.3.7")) == src {
		t.Fatal("another member's key gives the same pseudonym")
	}
}

func TestDetection(t *testing.T) {
	d := event.Detection{
		RuleID: "r1", RuleTitle: "VPN sign-in after many failures", Family: "vpn-guess", Level: "high", Tags: []string{"attack.t1110"},
		Entity: event.Entity{Kind: "user", Value: "ann"}, First: created - 1e9, Last: created, Count: 13,
		Reason: "ann signed in from 203.0.113.5 after 12 failures for ANN (not annual)", Steps: []event.Step{{Time: created, Text: "sign-in of ann@school.example worked"}},
		Source: "203.0.113.5", User: "ann", Host: "10.0.0.9", Key: "t|r1|ann|1",
	}
	for _, c := range []struct {
		name   string
		change func(*Options)
		check  func(m *Minimiser, got event.Detection) bool
	}{
		{"user stays", nil, func(m *Minimiser, got event.Detection) bool {
			return got.Entity == event.Entity{Kind: "source", Value: "203.0.113.5"} && got.User == "" && got.Key != d.Key && len(got.Key) == 32 &&
				got.Reason == "an account signed in from 203.0.113.5 after 12 failures for an account (not annual)" && got.Steps[0].Text == "sign-in of an account@school.example worked" &&
				got.Count == 13 && got.Source == "203.0.113.5" && got.Host == "10.0.0.9"
		}},
		{"user leaves", func(o *Options) { o.AlsoLeave = []string{"user.name"} }, func(m *Minimiser, got event.Detection) bool {
			return got.Entity == d.Entity && got.User == "ann" && got.Key != d.Key && got.Reason == d.Reason
		}},
		{"pseudonym", func(o *Options) { o.PseudonymUsers, o.PseudonymAddresses = true, true }, func(m *Minimiser, got event.Detection) bool {
			as := m.PseudonymUser("ann")
			return got.Entity == event.Entity{Kind: "user", Value: as} && got.User == as && got.Key != d.Key && strings.HasPrefix(got.Reason, as+" signed in") && strings.HasPrefix(got.Host, "fd")
		}},
	} {
		m := newMinimiser(t, c.change)
		var e event.Event
		m.Detection(&e, &d)
		got, err := event.ToDetection(&e)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if !c.check(m, got) || d.User != "ann" || d.Steps[0].Text != "sign-in of ann@school.example worked" {
			t.Errorf("%s: %+v", c.name, got)
		}
		var again event.Event
		m.Detection(&again, &d)
		if again.Str(event.TocsinDetectionKey) != e.Str(event.TocsinDetectionKey) {
			t.Errorf("%s: the key of a replay differs", c.name)
		}
	}
}

func TestPolicyRefusals(t *testing.T) {
	const tail = "fields: {leave: [], address: []}\n"
	for _, c := range []struct{ text, want string }{
		{"policy: x\nversion: 1\n" + tail, "at least one clause"},
		{"policy: x\nversion: 1\nevents: [{keep: a, text: b, when: {event.kind: [x]}}]\n" + tail, "last clause"},
		{"policy: x\nversion: 1\nevents: [{keep: a, text: b}, {keep: c}]\n" + tail, "no conditions"},
		{"policy: x\nversion: 1\nevents: [{keep: a, leave: b}]\n" + tail, "exactly one"},
		{"policy: x\nversion: 1\nevents: [{keep: 'A b'}]\n" + tail, "reason"},
		{"policy: x\nversion: 1\nevents: [{keep: a, urgent: true}]\n" + tail, "urgent"},
		{"policy: x\nversion: 1\nevents: [{leave: a, when: {no.such: [x]}}, {keep: a}]\n" + tail, "unknown field no.such"},
		{"policy: x\nversion: 1\nevnts: []\n", "evnts"},
		{"policy: x\nversion: 0\nevents: [{keep: a}]\n" + tail, "version"},
		{"policy: x\nversion: 1\nevents: [{keep: a}]\nfields: {leave: ['a b']}\n", "not a field name"},
	} {
		if _, err := Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
	if _, err := Load("nosuch"); err == nil || !strings.Contains(err.Error(), "metadata, full") {
		t.Error(err)
	}
	p, _ := Load("metadata")
	if _, err := New(Options{Policy: p, Own: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}); err == nil {
		t.Error("everything is own")
	}
	a, b := newMinimiser(t, nil), newMinimiser(t, func(o *Options) { o.AlsoLeave = []string{"user.name"} })
	if a.Digest() == b.Digest() || a.Digest() != newMinimiser(t, nil).Digest() || len(a.Digest()) != 64 {
		t.Error("digests:", a.Digest(), b.Digest())
	}
}

// First denials: counted once a day and source, by /64 for IPv6, in bounded memory.
func TestFirstSeen(t *testing.T) {
	var f firstSeen
	a := netip.MustParseAddr("203.0.113.5")
	day := int64(24 * time.Hour)
	for i, c := range []struct {
		addr string
		at   int64
		want bool
	}{{"203.0.113.5", 0, true}, {"203.0.113.5", 1, false}, {"2001:db8::1", 1, true}, {"2001:db8::2", 1, false}, {"2001:db8:0:1::2", 1, true}, {"203.0.113.5", day + 2, false}, {"203.0.113.6", 2*day + 4, true}, {"203.0.113.5", 3*day + 6, true}} {
		if got := f.add(netip.MustParseAddr(c.addr), c.at); got != c.want {
			t.Errorf("%d: %s at %d: %v", i, c.addr, c.at, got)
		}
	}
	// A clock that was ahead and is put right: sources are first again after a day, not after years.
	var ahead firstSeen
	b := netip.MustParseAddr("203.0.113.9")
	if !ahead.add(a, 900*day) || !ahead.add(b, 0) || !ahead.add(a, day+1) {
		t.Error("after a clock was ahead, a source is not first again")
	}
	for range 300000 {
		f.add(a, 4*day)
		a = a.Next()
	}
	if len(f.now) > maxFirstSeen || len(f.before) > maxFirstSeen {
		t.Errorf("%d and %d addresses remembered", len(f.now), len(f.before))
	}
}

func FuzzReplaceWord(f *testing.F) {
	f.Add("ann signed in, annual", "ann", "an account")
	f.Add("İİ i", "i", "x")
	f.Fuzz(func(t *testing.T, s, word, with string) {
		got := replaceWord(s, word, with)
		if word != "" && !strings.Contains(with, word) && slices.Contains(strings.Fields(got), word) && !strings.ContainsAny(with, " ") && wordByte(word[0]) && wordByte(word[len(word)-1]) {
			if strings.Contains(s, word) && with == "x" {
				t.Fatalf("%q still holds %q: %q", s, word, got)
			}
		}
	})
}

func BenchmarkPrepareDecide(b *testing.B) {
	m := newMinimiser(b, nil)
	m.SetIndicators(testSet(b))
	base := ev(b, "source.ip=10.1.2.3", "destination.ip=203.0.113.5", "tocsin.verdict=allow", "network.transport=tcp", "event.category=network", "event.kind=event", "event.action=accept",
		"source.port=40000", "destination.port=443", "observer.vendor=Fortinet", "observer.product=Fortigate", "url.domain=www.example.org")
	var e event.Event
	b.ReportAllocs()
	for b.Loop() {
		base.CopyTo(&e)
		m.Prepare(&e, Sender{Addr: netip.MustParseAddr("10.0.0.1"), Assurance: "udp"})
		m.Decide(&e)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
