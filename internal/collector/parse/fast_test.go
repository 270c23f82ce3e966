package parse

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tocsin/internal/event"
)

// TestClocks reads times in the forms whose digits stand in fixed places, and the same with one byte changed, and compares with the long way.
func TestClocks(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	layouts := []string{"Jan _2 15:04:05", "Jan 02 15:04:05 host", "Jan  2 2006 15:04:05: x", "Jan 02 15:04:05 2006", "Jan 2 15:04:05.000", "2006-01-02 15:04:05", "2006/01/02 15:04:05",
		"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05.000000-07:00 h", "2006:01:02-15:04:05"}
	for range 20000 {
		at := time.Unix(r.Int64N(4e9), 1000*r.Int64N(1e6)).UTC()
		layout := layouts[r.IntN(len(layouts))]
		text := at.Format(layout)
		var c civil
		read := isoAt
		if layout[0] == 'J' {
			read = bsdAt
		}
		if read(text, &c) == 0 {
			t.Fatalf("%q is not read", text)
		}
		year := c.year
		if year == 0 {
			year = at.Year()
		}
		if year != at.Year() || c.month != int(at.Month()) || c.day != at.Day() || c.hour != at.Hour() || c.min != at.Minute() || c.sec != at.Second() {
			t.Fatalf("%q is read as %+v", text, c)
		}
		b := []byte(text)
		b[r.IntN(len(b))] = " 0159:.,-Tx\xb5"[r.IntN(12)]
		var w uint64
		for i := 0; i+8 <= len(b); i++ { // every eight bytes of it
			var x, y civil
			w = load(string(b[i:i+8]), 0)
			if clock8(w, &x) != (clockSlow(string(b[i:i+8]), &y) && b[i] != ' ') || x != y && b[i] != ' ' {
				t.Fatalf("%q: %+v and %+v", b[i:i+8], x, y)
			}
		}
	}
}

// clockSlow reads two digits, a colon, and so on, byte by byte.
func clockSlow(s string, c *civil) bool {
	for i := range s {
		if i == 2 || i == 5 {
			if s[i] != ':' {
				return false
			}
		} else if !isDigit(s[i]) && !(i == 0 && s[i] == ' ') {
			return false
		}
	}
	c.hour, c.min, c.sec = two(s, 0), two(s, 3), two(s, 6)
	return true
}

// TestTwiceShownHour: what is read of the hour that a clock shows twice does not depend on the lines before it.
func TestTwiceShownHour(t *testing.T) {
	var e event.Event
	read := func(s *Set, text string) int64 {
		e.Reset()
		e.SetRaw([]byte(text))
		e.Created = received.UnixNano()
		s.Parse(&e, "")
		return e.Time
	}
	before := []string{"", "2026-07-01 12:00:00 h x: y", "2026-12-01 12:00:00 h x: y", "2026-10-25 00:30:00 h x: y", "2026-10-25 03:30:00 h x: y"}
	for _, text := range []string{"2026-10-25 01:30:00 h x: y", "2026-03-29 01:30:00 h x: y", "2026-10-25 00:59:59 h x: y", "2026-10-25 02:00:00 h x: y"} {
		want := int64(0)
		for _, a := range before {
			for _, b := range before {
				s := testSet(t)
				read(s, a)
				read(s, b)
				if got := read(s, text); want == 0 {
					want = got
				} else if got != want {
					t.Errorf("%s behind %q and %q: %v, else %v", text, a, b, time.Unix(0, got).UTC(), time.Unix(0, want).UTC())
				}
			}
		}
	}
}

// TestIPv6Hex compares with netip.
func TestIPv6Hex(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	known := 0
	for range 200000 {
		s := ""
		if r.IntN(2) == 0 { // groups with at most one gap
			for i := range 1 + r.IntN(9) {
				if i > 0 || r.IntN(3) == 0 {
					s += ":"
				}
				if r.IntN(6) > 0 {
					s += fmt.Sprintf("%x", r.IntN(1<<(1+r.IntN(17))))
				}
			}
		} else {
			for range r.IntN(12) {
				s += string("0af1:::."[r.IntN(8)])
			}
		}
		a, ok := ipv6Hex(s)
		b, err := netip.ParseAddr(s)
		if ok {
			known++
		}
		if ok && (err != nil || b.Unmap() != a) || !ok && err == nil && b.Is6() && !dotted(s) {
			t.Fatalf("%q: %v %v, netip %v %v", s, a, ok, b, err)
		}
	}
	if known < 10000 {
		t.Errorf("only %d addresses", known)
	}
}

func dotted(s string) bool {
	for i := range len(s) {
		if s[i] == '.' {
			return true
		}
	}
	return false
}

// TestMemoryOfNames: what a Set remembers of the names of lines before changes no answer. One Set reads all lines, the other forgets before each.
func TestMemoryOfNames(t *testing.T) {
	x := newTwins(t)
	r := rand.New(rand.NewPCG(9, 10))
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	n := 0
	for _, sample := range samples(t) {
		for _, line := range readLines(t, sample.input) {
			if !kvLike(line) {
				continue
			}
			for range rounds {
				x.without.run.memories, x.without.run.memory, x.without.run.last = nil, nil, nil
				x.same(t, vary(r, line), "")
				n++
			}
		}
	}
	t.Logf("%d lines", n)
}

// TestNameBecomesField: a name that rules make a field is one from the next line on, also when all lines are of one product.
func TestNameBecomesField(t *testing.T) {
	s := testSet(t)
	var e event.Event
	read := func() {
		e.Reset()
		e.SetRaw([]byte(`<134>id=firewall sn=18B1690729A8 time="2026-11-12 08:50:01 UTC" fw=198.51.100.20 pri=6 m=98 msg="Connection Opened" namedlater=7 src=192.0.2.7:1:X0 dst=198.51.100.2:443:X1`))
		if name, ok := s.Parse(&e, ""); !ok || name != "sonicwall" {
			t.Fatal(name, ok)
		}
	}
	read()
	read()
	if !slices.Contains(e.Extras(), event.Extra{Name: "namedlater", Value: "7"}) {
		t.Fatalf("%s", e.AppendJSON(nil))
	}
	k, err := event.Register("namedlater")
	if err != nil {
		t.Fatal(err)
	}
	if read(); e.Str(k) != "7" {
		t.Errorf("it is no field: %s", e.AppendJSON(nil))
	}
}

// TestOpenings: what a Set remembers of the openings of lines changes no answer, whatever stands in their dates, clocks, names and behind them.
func TestOpenings(t *testing.T) {
	x := newTwins(t)
	x.with.recipes.off = true
	r := rand.New(rand.NewPCG(13, 14))
	dates := []string{"Nov 12 08:50:01", "Nov  2 08:50:01", "Nov 12 2026 08:50:01", "2026-11-12T08:50:01", "2026/11/12 08:50:01", "2026-11-12T08:50:01+02:00", "2026-11-12 08:50:01Z", "Nov 12 08:50:01 UTC",
		"Nov 12 08:50:01 2026 GMT+2", "Nov 12 08:50:01.123", "Nov 12 08:50:01,", "Nov 2 08:50:01", "*Nov 12 08:50:01", "Thu Nov 12 08:50:01", "12 Nov 2026 08:50:01", "2026 Nov 12 08:50:01"}
	names := []string{"gw-test-01 kernel:", "fw.example sshd[1234]:", "filterlog[77]:", "a b:", "gw gw kernel:", "gw 192.0.2.1 kernel:", "host : tag[1]:", "fw1: %ASA-6-302013:", "gw audit[12]", "1 app:", "Vigor2927:",
		"UTC app[5]:", "2026 host app:", "+01:00 host app:", "client app:", "CEF: x:", "host CEF:0|a|b|c|d|e|5|src=192.0.2.1", "	host app:", "gw-test-01", "gw-test-01 :", "fw-2.example", "UTC-gw-1", "zebra-fw", "gw-test-01 gw-test-01", "gw-test-01 192.0.2.1", "  gw-test-01", "client-7", "gw1234:", "long-" + "name-of-a-host.in-some-domain.example.org and-a-program-with-a-long-name[123456]:"}
	texts := []string{"text", " text", "", "[ 12.5] IN=eth0 OUT= SRC=192.0.2.1 DST=192.0.2.2 PROTO=TCP SPT=1 DPT=2", "%ASA-6-1: x", "date=2026-11-12 time=08:50:01", "host: x", ": x", "	x", "a=b", "x: y: z",
		"app 12 - [x y=\"z\"] t", "Nov 12 08:50:02 fw kernel: x", "1,2026/11/12 08:50:01,007200001056,TRAFFIC,drop", "gw-test-01 app: x", ":", ": %ASA-6-302013: x", "10.1.99.1 id=firewall sn=1 src=192.0.2.1"}
	for _, d := range dates {
		for _, n := range names {
			for range 40 {
				line := []byte("<134>" + d + " " + n + " " + texts[r.IntN(len(texts))])
				switch r.IntN(6) {
				case 0:
					line[r.IntN(len(line))] = " 0127:.ax"[r.IntN(9)]
				case 1: // another clock
					for i, c := range line[:min(len(line), 30)] {
						if isDigit(c) && r.IntN(3) == 0 {
							line[i] = byte('0' + r.IntN(10))
						}
					}
				case 2:
					line = line[:r.IntN(len(line)+1)]
				}
				x.without.openings = [64]opening{}
				x.same(t, line, "")
			}
		}
	}
	for _, bare := range []bool{false, true} {
		if n := slices.IndexFunc(x.with.openings[:], func(o opening) bool { return o.clock != 0 && o.bare == bare }); n < 0 {
			t.Error("no opening was remembered", bare)
		}
	}
}

// TestOpeningOfTwelveHours: behind a clock of twelve hours the same PM means another hour for 12 than for 1.
func TestOpeningOfTwelveHours(t *testing.T) {
	x := newTwins(t)
	for _, date := range []string{"11/12/2026", "2026/11/12", "2026-11-12", "Nov 12 2026", "Nov 12"} {
		for _, clock := range []string{"12:05:00 PM", "01:05:00 PM", "08:05:00 AM", "12:05:00 AM"} {
			x.without.openings = [64]opening{}
			x.same(t, []byte("<134>"+date+" "+clock+" gw-test-01 app[12]: text"), "")
			x.without.openings = [64]opening{}
			x.same(t, []byte("<134>"+date+" "+clock+" gw-test-01 text without a program"), "")
		}
	}
}

// TestNetfilterLong: words and values of kilobytes, in quotes and without, among the names.
func TestNetfilterLong(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	var e event.Event
	s := testSet(t)
	for range 400 {
		n := 1900 + r.IntN(400)
		long := strings.Repeat("x", n)
		parts := []string{"IN=eth0", "OUT=eth1", "SRC=192.0.2.1", "DST=192.0.2.2", "LEN=60", "PROTO=TCP", "SPT=1024", "DPT=443", "SYN", "ID=7"}
		parts = slices.Insert(parts, r.IntN(len(parts)), []string{long, "A=" + long, `B="` + long + ` SPT=9"`, long + "=1", strings.Repeat("DF ", n/3), "C=" + strings.Repeat("y", n-40)}[r.IntN(6)])
		line := "kernel: SRC=192.0.2.1 " + strings.Join(parts, " ")
		e.Reset()
		e.SetRaw([]byte(line))
		if name, ok := s.Parse(&e, "netfilter"); !ok || name != "netfilter" {
			t.Fatalf("%q %v: %.200s", name, ok, line)
		}
		for k, want := range map[event.Key]string{event.ObserverIngressInterfaceName: "eth0", event.ObserverEgressInterfaceName: "eth1", event.SourceIP: "192.0.2.1", event.DestinationIP: "192.0.2.2",
			event.NetworkBytes: "60", event.NetworkTransport: "tcp", event.SourcePort: "1024", event.DestinationPort: "443"} {
			if got := e.Text(k); got != want {
				t.Fatalf("%s = %q, want %q: %.100s ... %s", k.Name(), got, want, line, line[len(line)-60:])
			}
		}
	}
}

// kvLike says whether a line has a few names and values.
func kvLike(line []byte) bool {
	n := 0
	for _, c := range line {
		if c == '=' {
			n++
		}
	}
	return n > 5
}

// TestSplit compares the cutting of columns by a mask with cutting them one by one.
func TestSplit(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 20000 {
		b := make([]byte, r.IntN(200))
		if r.IntN(20) == 0 {
			b = make([]byte, 1900+r.IntN(400))
		}
		for i := range b {
			b[i] = "abc,,\"\"x"[r.IntN(8)]
			if r.IntN(4) > 0 {
				b[i] = 'y'
			}
		}
		var x, y [40]string
		n, m := split(x[:], string(b)), splitSlow(y[:], string(b))
		if n != m || x != y {
			t.Fatalf("%q: %d %q, else %d %q", b, n, x[:n], m, y[:m])
		}
	}
}

// TestNetfilterPairs compares the walk over a line's pairs by marks with that byte by byte.
func TestNetfilterPairs(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	parts := []string{"IN=", "OUT=eth1", "MAC=00:08:a2:0c:1f:12:00:c8:8b:e2:d6:87:08:00", "SRC=", "SRC=195.54.160.107", "DST=51.15.166.67", "LEN=40", "PROTO=TCP", "PROTO=", "SPT=8080", "DPT=1",
		" ", "  ", " SYN ", "[", "=", "\"", "\\\"", " DST=\"a b\" ", " IN=\"", " IN\x00=eth9 ", " PROT=UDP ", " PROTO", "IN=eth0 OUT= ", "x[y]=z ", "\xff", "MAC=00:08:a2:0c:1f:1g:00-c8-8b.e2.d6.87:08:00"}
	s := testSet(t)
	by := func(read func(*Set, string)) (string, *event.Event) {
		e := &event.Event{}
		s.e = e
		var b strings.Builder
		for range 1 + r.IntN(20) {
			b.WriteString(parts[r.IntN(len(parts))])
			if r.IntN(3) > 0 {
				b.WriteByte(' ')
			}
		}
		text := b.String()
		if r.IntN(100) == 0 { // longer than what marks cover
			text = strings.Repeat("A=b ", 600) + text
		}
		read(s, text)
		return text, e
	}
	for i := range uint64(3000) {
		*r = *rand.New(rand.NewPCG(21, i))
		text, a := by(func(s *Set, text string) { s.netfilterPairs("ab "+text, 3) })
		*r = *rand.New(rand.NewPCG(21, i))
		_, b := by((*Set).netfilterLong)
		if !slices.Equal(a.Keys(), b.Keys()) {
			t.Fatalf("%q: %v and %v", text, a.Keys(), b.Keys())
		}
		for j := range a.Len() {
			if !a.Ref(j).Equal(*b.Ref(j)) {
				t.Fatalf("%q: %s is %q and %q", text, a.Keys()[j], a.Ref(j).Text(), b.Ref(j).Text())
			}
		}
	}
}

// TestMACBytes looks at every byte in every place.
func TestMACBytes(t *testing.T) {
	for at := range 8 {
		for c := range 256 {
			b := []byte("0:a-F.9f")
			b[at] = byte(c)
			want := hexDigit[c] < 16 || strings.IndexByte(":-.", byte(c)) >= 0
			if got := macBytes(load(string(b), 0)); got != want {
				t.Errorf("%q: %v", b, got)
			}
		}
	}
}
