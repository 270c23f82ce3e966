package enrich

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"tocsin/internal/event"
)

// write puts files into a new folder and returns it.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t testing.TB, opt Options) *Enricher {
	t.Helper()
	e, err := Open(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// mmdb builds a MaxMind-format database (24-bit records, IPv6 tree with IPv4 below ::/96) with one string field.
func mmdb(t testing.TB, field string, built time.Time, entries map[string]string) string {
	t.Helper()
	type node struct {
		child [2]int // -1 none, >= 0 node, < -1 data -(i+2)
	}
	nodes := []node{{[2]int{-1, -1}}}
	var data []byte
	str := func(s string) []byte { return append([]byte{2<<5 | byte(len(s))}, s...) } // strings below 29 bytes
	n := 0
	for prefix, value := range entries {
		p := netip.MustParsePrefix(prefix)
		bits := p.Bits()
		a := p.Addr().As16()
		if p.Addr().Is4() {
			a = [16]byte{}
			b := p.Addr().As4()
			copy(a[12:], b[:])
			bits += 96
		}
		at := 0
		for i := range bits {
			bit := a[i/8] >> (7 - i%8) & 1
			if i == bits-1 {
				nodes[at].child[bit] = -(len(data) + 2)
				break
			}
			if nodes[at].child[bit] < 0 {
				nodes = append(nodes, node{[2]int{-1, -1}})
				nodes[at].child[bit] = len(nodes) - 1
			}
			at = nodes[at].child[bit]
		}
		data = append(data, 7<<5|1) // a map of one pair
		data = append(data, str(field)...)
		data = append(data, str(value)...)
		n++
	}
	var out []byte
	put := func(c int) {
		v := uint32(len(nodes)) // nothing
		switch {
		case c >= 0:
			v = uint32(c)
		case c < -1:
			v = uint32(len(nodes) + 16 + (-c - 2))
		}
		out = append(out, byte(v>>16), byte(v>>8), byte(v))
	}
	for _, nd := range nodes {
		put(nd.child[0])
		put(nd.child[1])
	}
	out = append(out, make([]byte, 16)...)
	out = append(out, data...)
	out = append(out, "\xab\xcd\xefMaxMind.com"...)
	u16 := func(v uint16) []byte { return binary.BigEndian.AppendUint16([]byte{5<<5 | 2}, v) }
	u32 := func(v uint32) []byte { return binary.BigEndian.AppendUint32([]byte{6<<5 | 4}, v) }
	u64 := func(v uint64) []byte { return binary.BigEndian.AppendUint64([]byte{8, 2}, v) } // extended type 9
	out = append(out, 7<<5|9)
	for _, kv := range []struct {
		k string
		v []byte
	}{
		{"binary_format_major_version", u16(2)}, {"binary_format_minor_version", u16(0)},
		{"build_epoch", u64(uint64(built.Unix()))}, {"database_type", str("test")},
		{"ip_version", u16(6)}, {"node_count", u32(uint32(len(nodes)))}, {"record_size", u16(24)},
		{"languages", []byte{0, 4}}, {"description", []byte{7 << 5}},
	} {
		out = append(out, str(kv.k)...)
		if kv.k == "build_epoch" {
			kv.v[0] = 0<<5 | 8
		}
		out = append(out, kv.v...)
	}
	return string(out)
}

func TestLookup(t *testing.T) {
	built := time.Date(2026, 6, 17, 0, 0, 0, 0, time.UTC)
	dir := write(t, map[string]string{
		"country.mmdb": mmdb(t, "country_code", built, map[string]string{"193.62.0.0/16": "GB", "8.8.8.0/24": "US", "2a00:1450::/32": "IE", "203.0.113.0/24": "AU"}),
		"asn-ipv4.csv": "8.8.8.0,8.8.8.255,15169,\"Google, Inc.\"\r\n193.60.0.0,193.63.255.255,786,Jisc \"Services\"\n",
		"asn-ipv6.csv": "2a00:1450::,2a00:1450:ffff:ffff:ffff:ffff:ffff:ffff,15169,Google\n",
		"overlay.csv": "prefix,country,as_number,as_name,note\n# our wide area network\n10.20.0.0/16,GB,,County WAN,schools\n" +
			"203.0.113.64/26,nl,AS64500,\"Example Hosting, Ltd\",invented\n203.0.113.66,SE,,,one host\n8.8.8.8,,,,resolver\n2001:db8:66::/48,NL,64500,Example,\n",
	})
	e := open(t, Options{Dirs: []string{filepath.Join(dir, "absent"), dir}, Overlay: filepath.Join(dir, "overlay.csv")})
	for address, want := range map[string]Place{
		"193.62.1.1":         {Country: "GB", AS: 786, Organization: `Jisc "Services"`},
		"193.60.1.1":         {AS: 786, Organization: `Jisc "Services"`},
		"8.8.8.9":            {Country: "US", AS: 15169, Organization: "Google, Inc."},
		"::ffff:8.8.8.9":     {Country: "US", AS: 15169, Organization: "Google, Inc."},
		"8.8.8.8":            {Country: "US", AS: 15169, Organization: "Google, Inc.", Note: "resolver", Overlay: true},
		"2a00:1450::1":       {Country: "IE", AS: 15169, Organization: "Google"},
		"2a00:1451::1":       {},
		"10.20.3.4":          {Country: "GB", Organization: "County WAN", Note: "schools", Overlay: true, Special: "private"},
		"10.21.3.4":          {Special: "private"},
		"203.0.113.1":        {Special: "documentation"}, // the data's AU is not believed for documentation addresses
		"203.0.113.65":       {Country: "NL", AS: 64500, Organization: "Example Hosting, Ltd", Note: "invented", Overlay: true, Special: "documentation"},
		"203.0.113.66":       {Country: "SE", Note: "one host", Overlay: true, Special: "documentation"},
		"2001:db8:66::1":     {Country: "NL", AS: 64500, Organization: "Example", Overlay: true, Special: "documentation"},
		"2001:db8:67::1":     {Special: "documentation"},
		"fe80::1%eth0":       {Special: "link-local"},
		"255.255.255.255":    {Special: "broadcast"},
		"240.0.0.1":          {Special: "reserved"},
		"223.255.255.255":    {},
		"1.1.1.1":            {},
		"0.0.0.0":            {Special: "this network"},
		"::":                 {Special: "unspecified"},
		"ffff:ffff:ffff::ff": {Special: "multicast"},
	} {
		if got := e.Lookup(netip.MustParseAddr(address)); got != want {
			t.Errorf("Lookup(%s)\n got %+v\nwant %+v", address, got, want)
		}
	}
	if got := e.Lookup(netip.Addr{}); got != (Place{}) {
		t.Errorf("the invalid address has a place: %+v", got)
	}
	for _, s := range e.Sources() {
		if s.Role == "country" && !s.Date.Equal(built) {
			t.Errorf("country date %v, want %v", s.Date, built)
		}
		if s.Missing || s.Records == 0 || s.Version == "" {
			t.Errorf("source not described: %+v", s)
		}
	}
}

func TestEnrich(t *testing.T) {
	dir := write(t, map[string]string{"overlay.csv": "203.0.113.0/24,NL,64500,Example Hosting\n198.51.100.7,GB,64501,School,\n"})
	e := open(t, Options{Overlay: filepath.Join(dir, "overlay.csv")})
	var ev event.Event
	ev.SetIP(event.SourceIP, netip.MustParseAddr("203.0.113.9"))
	ev.SetIP(event.DestinationIP, netip.MustParseAddr("192.0.2.1"))
	ev.SetString(event.SourceGeoCountryISOCode, "ZZ")      // the firewall's own idea
	ev.SetString(event.DestinationGeoCountryISOCode, "FR") // kept: nothing better is known
	e.Enrich(&ev)
	for key, want := range map[event.Key]string{
		event.SourceGeoCountryISOCode: "NL", event.SourceASNumber: "64500", event.SourceASOrganizationName: "Example Hosting",
		event.DestinationGeoCountryISOCode: "FR", event.DestinationASNumber: "", event.DestinationASOrganizationName: "",
	} {
		if got := ev.Text(key); got != want {
			t.Errorf("%s = %q, want %q", key.Name(), got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { e.Enrich(&ev) }); n != 0 {
		t.Errorf("Enrich allocates %v times", n)
	}
}

// Without any file the enricher works, says what is missing and what to do.
func TestMissing(t *testing.T) {
	e := open(t, Options{Dirs: []string{t.TempDir()}})
	if got := e.Lookup(netip.MustParseAddr("8.8.8.8")); got != (Place{}) {
		t.Errorf("got %+v", got)
	}
	for _, role := range []string{"country", "network"} {
		s := e.cur.Load().source(role)
		if !s.Missing || !strings.Contains(s.Next, "fetch-data.sh") {
			t.Errorf("%s: %+v", role, s)
		}
	}
	if _, err := Open(context.Background(), Options{Overlay: filepath.Join(t.TempDir(), "no.csv")}); err == nil {
		t.Error("a named overlay that is missing must be an error")
	}
}

func TestReload(t *testing.T) {
	dir := write(t, map[string]string{"asn-ipv4.csv": "1.0.0.0,1.0.0.255,1,One\n", "overlay.csv": "1.0.0.1,GB\n"})
	overlay := filepath.Join(dir, "overlay.csv")
	e := open(t, Options{Dirs: []string{dir}, Overlay: overlay})
	ctx := context.Background()
	if changed, err := e.Reload(ctx); changed || err != nil {
		t.Fatalf("nothing changed, got %v %v", changed, err)
	}
	first := e.Version()
	mod := time.Now().Add(-time.Hour)
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		mod = mod.Add(time.Minute) // file systems with coarse times must not hide a change of equal size
		if err := os.Chtimes(filepath.Join(dir, name), mod, mod); err != nil {
			t.Fatal(err)
		}
	}
	put("overlay.csv", "1.0.0.1,FR\n")
	if changed, err := e.Reload(ctx); !changed || err != nil {
		t.Fatalf("overlay changed, got %v %v", changed, err)
	}
	if e.Version() == first {
		t.Error("the version must change with the data")
	}
	put("overlay.csv", "1.0.0.1/24,FR\nnonsense\n")
	_, err := e.Reload(ctx)
	if err == nil || !strings.Contains(err.Error(), "line 1") || !strings.Contains(err.Error(), "line 2") || !strings.Contains(err.Error(), "did you mean 1.0.0.0/24") {
		t.Fatalf("a bad overlay: %v", err)
	}
	if got := e.Lookup(netip.MustParseAddr("1.0.0.1")); got.Country != "FR" || got.AS != 1 {
		t.Errorf("the old data must stay in use, got %+v", got)
	}
	put("overlay.csv", "1.0.0.1,FR\n")
	put("asn-ipv4.csv", "1.0.0.0,1.0.0.255,2,Two\n")
	if changed, err := e.Reload(ctx); !changed || err != nil {
		t.Fatalf("network data changed, got %v %v", changed, err)
	}
	if got := e.Lookup(netip.MustParseAddr("1.0.0.1")); got.AS != 2 {
		t.Errorf("got %+v", got)
	}
	if err := os.Remove(filepath.Join(dir, "asn-ipv4.csv")); err != nil {
		t.Fatal(err)
	}
	if changed, err := e.Reload(ctx); !changed || err != nil || !e.cur.Load().source("network").Missing {
		t.Fatalf("network data removed, got %v %v", changed, err)
	}
}

func TestBadFiles(t *testing.T) {
	for name, test := range map[string]struct{ file, text, want string }{
		"not a database": {"country.mmdb", "hello", "country.mmdb: not a MaxMind-format database"},
		"empty":          {"asn-ipv4.csv", "", "no record in it"},
		"one column":     {"asn-ipv4.csv", "1.0.0.0\n", "line 1: want start,end"},
		"bad address":    {"asn-ipv4.csv", "1.0.0.0,1.0.0.9,1,x\n1.0.0,1.0.0.255,1,x\n", "line 2: start"},
		"backwards":      {"asn-ipv4.csv", "1.0.1.0,1.0.0.255,1,x\n", "line 1: 1.0.1.0 to 1.0.0.255 is not a range"},
		"two families":   {"asn-ipv4.csv", "1.0.1.0,::1,1,x\n", "is not a range"},
		"open quote":     {"asn-ipv4.csv", "1.0.0.0,1.0.0.255,1,\"x\n", "a quote is not closed"},
		"after quote":    {"asn-ipv4.csv", "1.0.0.0,1.0.0.255,1,\"x\"y\n", "text after a closing quote"},
		"columns":        {"asn-ipv4.csv", "1.0.0.0,1.0.0.255,1,x,y\n", "more than 4 columns"},
		"number":         {"asn-ipv4.csv", "1.0.0.0,1.0.0.255,AS1,x\n", "is not a number"},
		"country":        {"country.csv", "1.0.0.0,1.0.0.255,GBR\n", "two letters"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(context.Background(), Options{Dirs: []string{write(t, map[string]string{test.file: test.text})}})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.file) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestParseOverlay(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want string // part of the error; "" when the text is good
	}{
		"good":        {"prefix,country,as_number,as_name,note\n192.0.2.0/24,GB,64500,\"A, B\",x\n2001:db8::/32,,as64500\n", ""},
		"nothing":     {"", ""},
		"country":     {"192.0.2.0/24,England\n", `country "England"`},
		"AS":          {"192.0.2.0/24,,0\n", `AS number "0"`},
		"twice":       {"192.0.2.0/24,GB\n192.0.2.0/24,FR\n", "line 2: 192.0.2.0/24 is on line 1 already"},
		"says naught": {"192.0.2.0/24\n", "says nothing"},
		"columns":     {"192.0.2.0/24,GB,,a,b,c\n", "put text with commas in quotes"},
		"quote":       {"192.0.2.0/24,GB,,\"a\n", "line 1"},
		"mapped":      {"::ffff:192.0.2.0/120,GB\n", "write IPv4 prefixes as IPv4"},
		"zone":        {"fe80::1%eth0,GB\n", "not an address"},
		"control":     {"192.0.2.0/24,GB,,a\x07b\n", "control characters"},
		"long":        {"192.0.2.0/24,GB,," + strings.Repeat("a", 201) + "\n", "201 bytes"},
		"many":        {strings.Repeat("x\n", 30), "and 10 more lines"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseOverlay(strings.NewReader(test.text))
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// flatten must give at every point the value of the span that begins last there, of those the shortest.
func TestFlatten(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		b := newBuilder[string]()
		type in struct{ from, to int }
		var ins []in
		for i := range rng.IntN(8) {
			from := rng.IntN(40)
			s := in{from, from + rng.IntN(40-from)}
			if rng.IntN(10) == 0 {
				s.to = 255
			}
			ins = append(ins, s)
			// The last 256 addresses of each family: ends of the number lines included.
			b.add(netip.AddrFrom4([4]byte{255, 255, 255, byte(s.from)}), netip.AddrFrom4([4]byte{255, 255, 255, byte(s.to)}), b.intern(fmt.Sprint(i)))
			lo, hi := netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00").As16(), netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00").As16()
			lo[15], hi[15] = byte(s.from), byte(s.to)
			b.add(netip.AddrFrom16(lo), netip.AddrFrom16(hi), b.intern(fmt.Sprint(i)))
		}
		r := b.table()
		for at := range 256 {
			want, best := "", in{-1, 0}
			for i, s := range ins {
				if s.from <= at && at <= s.to && (s.from > best.from || s.from == best.from && s.to <= best.to) {
					want, best = fmt.Sprint(i), s
				}
			}
			a6 := netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00").As16()
			a6[15] = byte(at)
			if got := r.get(netip.AddrFrom4([4]byte{255, 255, 255, byte(at)})); got != want {
				t.Fatalf("round %d, spans %v: at %d IPv4 %q, want %q", round, ins, at, got, want)
			}
			if got := r.get(netip.AddrFrom16(a6)); got != want {
				t.Fatalf("round %d, spans %v: at %d IPv6 %q, want %q", round, ins, at, got, want)
			}
		}
	}
}

const installed = "../../share/tocsin"

func openInstalled(t testing.TB) *Enricher {
	t.Helper()
	if _, err := os.Stat(filepath.Join(installed, "country.mmdb")); err != nil {
		t.Skip("skipped: no place data installed; run scripts/fetch-data.sh")
	}
	return open(t, Options{Dirs: []string{installed}})
}

func TestInstalledData(t *testing.T) {
	e := openInstalled(t)
	for address, want := range map[string]Place{
		"8.8.8.8":              {Country: "US", AS: 15169},
		"193.62.1.1":           {Country: "GB", AS: 786},
		"2001:4860:4860::8888": {Country: "US", AS: 15169},
		"203.0.113.1":          {Special: "documentation"},
	} {
		got := e.Lookup(netip.MustParseAddr(address))
		got.Organization = ""
		if got != want {
			t.Errorf("%s: got %+v, want %+v", address, got, want)
		}
	}
	for _, s := range e.Sources() {
		if s.Missing || s.Records < 100000 || len(s.Credits) == 0 || s.Caution == "" || s.Date.Year() != 2026 {
			t.Errorf("not described: %+v", s)
		}
	}
}

func FuzzOverlay(f *testing.F) {
	f.Add("prefix,country,as_number,as_name,note\n192.0.2.0/24,GB,64500,\"A, B\",x\n")
	f.Add("# c\n2001:db8::/32,,as64500\n1.2.3.4,FR")
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := ParseOverlay(strings.NewReader(text))
		if err != nil && entries != nil {
			t.Fatal("entries beside an error")
		}
		o := newOverlay(entries)
		for _, want := range entries {
			got, ok := o.table.Get(want.Prefix)
			if !ok || !reflect.DeepEqual(got, want) {
				t.Fatalf("entry %+v is found as %+v", want, got)
			}
		}
	})
}

func FuzzCSV(f *testing.F) {
	f.Add("1.0.0.0,1.0.0.255,13335,\"Cloudflare, Inc.\"\n2001::,2001::1,1,\"a\"\"b\"\r\n# x\n")
	f.Fuzz(func(t *testing.T, text string) {
		b := newBuilder[string]()
		err := readCSV(b, []byte(text), func(columns []string) (string, error) { return strings.Join(columns[2:], "|"), nil })
		if err != nil {
			return
		}
		r := b.table()
		for _, s := range b.v4 { // every range's last start is answered by a range that holds it
			v := r.values[r.find4(s.from)]
			found := false
			for _, o := range b.v4 {
				found = found || o.from <= s.from && s.from <= o.to && b.values[o.value] == v
			}
			if !found {
				t.Fatalf("at %d the value %q comes from no range", s.from, v)
			}
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	e := openInstalled(b)
	rng := rand.New(rand.NewPCG(3, 4))
	for _, family := range []string{"ipv4", "ipv6"} {
		addrs := make([]netip.Addr, 1<<16)
		for i := range addrs {
			if family == "ipv4" {
				var a [4]byte
				binary.BigEndian.PutUint32(a[:], rng.Uint32())
				addrs[i] = netip.AddrFrom4(a)
			} else {
				t := e.cur.Load().network
				s := t.start6[rng.IntN(len(t.start6))]
				var a [16]byte
				binary.BigEndian.PutUint64(a[:8], s.hi)
				binary.BigEndian.PutUint64(a[8:], s.lo+rng.Uint64())
				addrs[i] = netip.AddrFrom16(a)
			}
		}
		b.Run(family, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				e.Lookup(addrs[i&(1<<16-1)])
				i++
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
		})
	}
}

func BenchmarkEnrich(b *testing.B) {
	e := openInstalled(b)
	rng := rand.New(rand.NewPCG(3, 4))
	evs := make([]event.Event, 4096)
	for i := range evs {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], rng.Uint32())
		evs[i].SetIP(event.SourceIP, netip.AddrFrom4(a))
		evs[i].SetIP(event.DestinationIP, netip.AddrFrom4([4]byte{10, 0, byte(i), byte(i >> 8)}))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		e.Enrich(&evs[i&4095])
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkOpen(b *testing.B) {
	openInstalled(b)
	for b.Loop() {
		if _, err := Open(context.Background(), Options{Dirs: []string{installed}}); err != nil {
			b.Fatal(err)
		}
	}
}
