package demo

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tocsin/internal/app/status"
	"tocsin/internal/collector/parse"
	"tocsin/internal/enrich"
	"tocsin/internal/event"
	"tocsin/internal/indicator"
	"tocsin/internal/load/local"
	"tocsin/internal/load/sample"
)

// The same seed gives the same lines, and another seed others.
func TestBackgroundIsDeterministic(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	run := func(m *member, seed uint64) string {
		var b bytes.Buffer
		g := newGenerator(m, seed)
		for i := range 2000 {
			l, device := g.next(nil, now.Add(time.Duration(i)*time.Second))
			fmt.Fprintf(&b, "%d %s\n", device, l)
		}
		return b.String()
	}
	for _, m := range cast {
		if first, again := run(m, 1), run(m, 1); first != again {
			t.Errorf("%s: the same seed gives other lines", m.name)
		}
		if run(m, 1) == run(m, 2) {
			t.Errorf("%s: another seed gives the same lines", m.name)
		}
	}
}

// Strangers keep to one port and one host, are not shared between members, and are none of the story's addresses.
func TestNoise(t *testing.T) {
	owner := map[netip.Addr]string{}
	habits := map[netip.Addr]string{}
	story := map[netip.Addr]bool{}
	for _, a := range storyAddresses() {
		story[a] = true
	}
	for _, m := range cast {
		g := newGenerator(m, 1)
		for _, l := range m.background {
			if l.flow != noise && l.flow != guess {
				continue
			}
			for range 3000 {
				g.fill(l, time.Unix(0, 0))
				v := g.values
				if story[v.Src] {
					t.Fatalf("%s: noise from %s, which the story uses", m.name, v.Src)
				}
				if o := owner[v.Src]; o != "" && o != m.name {
					t.Fatalf("%s calls on %s and on %s", v.Src, o, m.name)
				}
				owner[v.Src] = m.name
				if l.flow == noise {
					habit := fmt.Sprint(v.Dst, v.DstPort)
					if h := habits[v.Src]; h != "" && h != habit {
						t.Fatalf("%s tries %s and %s", v.Src, h, habit)
					}
					habits[v.Src] = habit
				}
			}
		}
	}
	if len(owner) != strangers*len(cast) {
		t.Errorf("%d strangers, want %d", len(owner), strangers*len(cast))
	}
}

// Every line that a device sends is understood by the collector's parsers, with the addresses that were put in.
func TestLinesAreUnderstood(t *testing.T) {
	set := parse.New(parse.Options{Location: time.UTC})
	now := time.Now().UTC().Truncate(time.Second)
	var e event.Event
	seen := map[string]bool{}
	check := func(m *member, template string, line []byte, v sample.Values) {
		t.Helper()
		e.Reset()
		e.Created = now.UnixNano()
		e.SetRaw(line)
		format, ok := set.Parse(&e, "")
		if !ok {
			t.Errorf("%s %s is not understood: %s", m.name, template, line)
			return
		}
		tmpl := sample.All().Template(template)
		seen[template] = true
		for _, want := range []struct {
			slot string
			key  event.Key
			addr netip.Addr
		}{{"src", event.SourceIP, v.Src}, {"dst", event.DestinationIP, v.Dst}, {"src6", event.SourceIP, v.Src6}, {"dst6", event.DestinationIP, v.Dst6}} {
			if !tmpl.Has(want.slot) {
				continue
			}
			if got, _ := e.IP(want.key); got != want.addr {
				t.Errorf("%s (%s): %s is %s, want %s in %s", template, format, want.key.Name(), got, want.addr, line)
			}
		}
		if d := time.Duration(e.Time - now.UnixNano()).Abs(); e.Time != 0 && d > time.Second {
			t.Errorf("%s: its time is %s off: %s", template, d, line)
		}
	}
	for _, m := range cast {
		g := newGenerator(m, 7)
		for _, l := range m.background {
			for range 5 {
				g.fill(l, now)
				check(m, l.template, sample.All().Template(l.template).Append(nil, &g.values), g.values)
			}
		}
	}
	for _, s := range story() {
		s.values.Time = now
		check(s.member, s.template, sample.All().Template(s.template).Append(nil, &s.values), s.values)
	}
	if len(seen) < 35 {
		t.Errorf("only %d kinds of lines are sent", len(seen))
	}
}

// The overlay is one the hub takes, and gives every address of the demo's Internet a country.
func TestOverlay(t *testing.T) {
	entries, err := enrich.ParseOverlay(strings.NewReader(overlay()))
	if err != nil {
		t.Fatal(err)
	}
	covered := func(a netip.Addr) bool {
		for _, e := range entries {
			if e.Prefix.Contains(a) && e.Country != "" {
				return true
			}
		}
		return false
	}
	for _, m := range cast {
		for n := range strangers {
			if a := strangerAddr(m, n); !covered(a) {
				t.Errorf("%s has no country", a)
			}
		}
	}
	if !covered(attacker) || !covered(c2) {
		t.Error("the story's addresses have no country")
	}
}

// The indicator list is one that makes a set, which knows the story's server and nothing of the members.
func TestIndicators(t *testing.T) {
	var entries []indicator.Entry
	for row := range strings.Lines(indicators()) {
		value, _, _ := strings.Cut(strings.TrimSpace(row), ",")
		if strings.HasPrefix(row, "#") {
			continue
		}
		kind, err := indicator.Guess(value)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, indicator.Entry{Kind: kind, Value: value})
	}
	b, err := indicator.Build([16]byte{1}, entries)
	if err != nil {
		t.Fatal(err)
	}
	set, err := indicator.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := set.MatchIP(c2); !ok {
		t.Error("the story's server is not in the set")
	}
	for _, m := range cast {
		g := newGenerator(m, 3)
		for range 5000 {
			g.next(nil, time.Unix(0, 0))
			if _, ok := set.MatchIP(g.values.Dst); ok && g.values.Dst.IsValid() {
				t.Fatalf("background traffic touches the indicator %s", g.values.Dst)
			}
		}
	}
}

// What a feeder counts as sent arrives, over UDP and both TCP framings, and comes from the device's own loopback address.
func TestFeederDelivers(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	to := netip.MustParseAddrPort(udp.LocalAddr().String())
	tcp, err := net.Listen("tcp", to.String())
	if err != nil {
		t.Skipf("skipped: the port is taken for TCP: %v", err)
	}
	defer tcp.Close()
	m := cast[2]
	f := newFeeder(m, to)
	defer f.close()

	var mu sync.Mutex
	got := map[string]string{} // line by sender
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		n, from, err := udp.ReadFrom(buf)
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		got[netip.MustParseAddrPort(from.String()).Addr().String()] = string(buf[:n])
	})
	wg.Go(func() {
		c, err := tcp.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		buf := make([]byte, 4096)
		n, err := c.Read(buf)
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		got[netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().String()] = string(buf[:n])
	})
	for _, device := range []int{0, 4} {
		if err := f.send(context.Background(), device, []byte("a line")); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if f.sent.Load() != 2 {
		t.Errorf("sent %d, want 2", f.sent.Load())
	}
	want := map[string]string{"127.23.0.1": "a line", "127.23.0.5": "a line\n"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A second demo in the same folder is refused, and what the first kept is found again.
func TestState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openState(dir); err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("a second demo in one folder: %v", err)
	}
	if err := s.ports(0); err != nil {
		t.Fatal(err)
	}
	s.Collectors["firm"].Enrolled = true
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	s.close()
	again, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if again.WebPort != s.WebPort || !again.Collectors["firm"].Enrolled || again.Collectors["school"].Enrolled {
		t.Errorf("the second start knows %+v", again)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", again.WebPort))
	if err != nil {
		t.Skipf("skipped: port taken meanwhile: %v", err)
	}
	defer l.Close()
	if err := again.ports(again.WebPort); err == nil || !strings.Contains(err.Error(), "--port") {
		t.Errorf("a taken port that was asked for: %v", err)
	}
	if err := again.ports(0); err != nil || again.WebPort == s.WebPort && again.WebPort != 0 && !local.Free(again.WebPort, false) {
		t.Errorf("a taken port must be replaced: %v", err)
	}
}

func TestCompare(t *testing.T) {
	name := func(tenant uint32) string {
		return map[uint32]string{1: cast[0].name, 2: cast[1].name, 3: cast[2].name}[tenant]
	}
	alert := func(id int64, w Expectation) status.Alert {
		var tenant uint32
		for i, m := range cast {
			if m.name == w.Member {
				tenant = uint32(i + 1)
			}
		}
		return status.Alert{ID: id, Tenant: tenant, Family: w.Family, Entity: w.Entity, Count: w.AtLeast, First: 5e9, Raised: 5_300e6}
	}
	var all []status.Alert
	for i, w := range expectations() {
		all = append(all, alert(int64(i+1), w))
	}
	want := expectations()
	if u := compare(want, all, name, 1e9); len(u) != 0 || len(missing(want)) != 0 {
		t.Fatalf("all as expected: unexpected %v, missing %v", u, missing(want))
	}
	if want[0].AfterMS != 4300 {
		t.Errorf("times: %+v", want[0])
	}
	want = expectations()
	twice := alert(99, want[0])
	other := status.Alert{ID: 100, Tenant: 1, Family: "other", Entity: "x"}
	if u := compare(want, append(all[1:], twice, twice, other), name, 1e9); len(u) != 2 {
		t.Errorf("a second alert of one kind and a strange one: %v", u)
	}
	want = expectations()
	compare(want, all[1:], name, 1e9)
	if m := missing(want); len(m) != 1 || m[0].Entity != all[0].Entity {
		t.Errorf("missing: %v", m)
	}
}

// The sums of one member: each way of losing a line is named.
func TestBalance(t *testing.T) {
	good := func() MemberResult {
		return MemberResult{Devices: 100, Received: 100, NotUnderstood: 1, Kept: map[string]uint64{"allowed": 80}, Left: map[string]uint64{"denied": 19}, Made: map[string]uint64{"detection": 2}, Sent: 21, Acknowledged: 21, Stored: 21}
	}
	x := good()
	if x.check(true, nil); len(x.Gaps) != 0 {
		t.Fatalf("balanced, but %v", x.Gaps)
	}
	for name, spoil := range map[string]func(*MemberResult){
		"lost on the wire":  func(x *MemberResult) { x.Devices++ },
		"lost in parsing":   func(x *MemberResult) { x.Kept["allowed"]-- },
		"lost in the spool": func(x *MemberResult) { x.Made["detection"]++ },
		"waiting":           func(x *MemberResult) { x.Waiting++; x.Made["detection"]++ },
		"not acknowledged":  func(x *MemberResult) { x.Acknowledged--; x.Stored-- },
		"not stored":        func(x *MemberResult) { x.Stored-- },
		"stored twice":      func(x *MemberResult) { x.Stored++ },
		"kept aside":        func(x *MemberResult) { x.Stored--; x.Dead++ },
		"dropped": func(x *MemberResult) {
			x.Sent--
			x.Acknowledged--
			x.Stored--
			x.Dropped = map[string]uint64{"disk": 1}
		},
	} {
		x := good()
		spoil(&x)
		if x.check(true, nil); len(x.Gaps) == 0 {
			t.Errorf("%s is not noticed", name)
		}
	}
}

func BenchmarkBackground(b *testing.B) {
	g := newGenerator(cast[1], 1)
	now := time.Now()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = g.next(buf[:0], now)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}
