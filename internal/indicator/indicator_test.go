package indicator

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var testKey = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

func mustSet(t testing.TB, entries ...Entry) *Set {
	t.Helper()
	b, err := Build(testKey, entries)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCanonical(t *testing.T) {
	tests := []struct {
		kind  Kind
		in    string
		kind2 Kind
		want  string // empty: refused
		wide  bool
	}{
		{IP, "203.0.113.9", IP, "203.0.113.9", false},
		{IP, " 203.0.113.9 ", IP, "203.0.113.9", false},
		{IP, "::ffff:203.0.113.9", IP, "203.0.113.9", false},
		{IP, "2001:0DB8::0001", IP, "2001:db8::1", false},
		{IP, "203.0.113.9/32", IP, "203.0.113.9", false},
		{Prefix, "203.0.113.77/24", Prefix, "203.0.113.0/24", false},
		{Prefix, "198.51.0.0/16", Prefix, "198.51.0.0/16", false},
		{Prefix, "198.50.0.0/15", 0, "", true},
		{Prefix, "0.0.0.0/0", 0, "", true},
		{Prefix, "2001:db8::/32", Prefix, "2001:db8::/32", false},
		{Prefix, "2001:d00::/24", 0, "", true},
		{Prefix, "::/0", 0, "", true},
		{Prefix, "::ffff:0.0.0.0/0", 0, "", true},
		{Prefix, "::ffff:203.0.113.0/120", Prefix, "203.0.113.0/24", false},
		{IP, "10.1.2.3", 0, "", false},
		{IP, "127.0.0.1", 0, "", false},
		{IP, "fe80::1%eth0", 0, "", false},
		{IP, "300.1.1.1", 0, "", false},
		{Domain, "Evil.Example.", Domain, "evil.example", false},
		{Domain, "*.evil.example", Domain, "evil.example", false},
		{Domain, "bücher.example", Domain, "xn--bcher-kva.example", false},
		{Domain, "_sip.evil.example", Domain, "_sip.evil.example", false},
		{Domain, "co.uk", 0, "", true},
		{Domain, "github.io", 0, "", true},
		{Domain, "com", 0, "", false},
		{Domain, "a..b.example", 0, "", false},
		{Domain, "192.0.2.1", 0, "", false},
		{Domain, strings.Repeat("a", 64) + ".example", 0, "", false},
		{URL, "HTTP://User:pw@Evil.EXAMPLE:80/Path?q=1#frag", URL, "http://evil.example/Path?q=1", false},
		{URL, "https://evil.example:443", URL, "https://evil.example/", false},
		{URL, "https://evil.example:8443?x", URL, "https://evil.example:8443/?x", false},
		{URL, "evil.example/x", 0, "", false},
		{URL, "http:///x", 0, "", false},
		{URL, "http://a b/", 0, "", false},
		{URL, "http://evil.example/" + strings.Repeat("x", 3000), 0, "", false},
		{File, "D41D8CD98F00B204E9800998ECF8427E", File, "d41d8cd98f00b204e9800998ecf8427e", false},
		{File, "d41d8cd9", 0, "", false},
		{File, strings.Repeat("g", 64), 0, "", false},
		{99, "x", 0, "", false},
	}
	for _, tc := range tests {
		kind, got, err := Canonical(tc.kind, tc.in)
		if tc.want == "" {
			if err == nil {
				t.Errorf("%s %q: accepted as %q", tc.kind, tc.in, got)
			} else if errors.Is(err, ErrTooWide) != tc.wide {
				t.Errorf("%s %q: ErrTooWide is %v: %v", tc.kind, tc.in, !tc.wide, err)
			}
			continue
		}
		if err != nil || got != tc.want || kind != tc.kind2 {
			t.Errorf("%s %q: got %s %q, %v; want %s %q", tc.kind, tc.in, kind, got, err, tc.kind2, tc.want)
		}
		if _, again, err := Canonical(kind, got); err != nil || again != got {
			t.Errorf("%s %q: canonical form is not stable: %q, %v", tc.kind, tc.in, again, err)
		}
	}
}

// TestNotPublic: what cannot be one machine on the internet is no indicator, alone or as a range.
func TestNotPublic(t *testing.T) {
	for _, v := range []string{"10.1.2.3", "100.64.0.9", "100.127.255.255", "0.1.2.3", "255.255.255.255", "240.0.0.1", "::", "fd00::1", "fe80::1", "127.0.0.1", "169.254.1.1", "224.0.0.1", "100.64.0.0/16", "0.1.0.0/16"} {
		kind, err := Guess(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, got, err := Canonical(kind, v); err == nil || !strings.Contains(err.Error(), "not public") {
			t.Errorf("%s was taken as %q (%v)", v, got, err)
		}
	}
	for _, v := range []string{"100.63.255.255", "100.128.0.1", "1.0.0.1", "223.255.255.254", "100.128.0.0/16"} {
		kind, _ := Guess(v)
		if _, _, err := Canonical(kind, v); err != nil {
			t.Errorf("%s: %v", v, err)
		}
	}
}

func TestGuess(t *testing.T) {
	for in, want := range map[string]Kind{
		"203.0.113.9": IP, "2001:db8::1": IP, "203.0.113.0/24": Prefix, "evil.example": Domain,
		"https://evil.example/x": URL, strings.Repeat("A1", 32): File, "evil": 0, "": 0, "evil.example/x": 0, "1.2.3": 0,
	} {
		got, err := Guess(in)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("Guess(%q) = %s, %v; want %s", in, got, err, want)
		}
	}
}

func TestMatch(t *testing.T) {
	sha := strings.Repeat("ab", 32)
	s := mustSet(t,
		Entry{IP, "203.0.113.9"}, Entry{IP, "2001:db8::1"}, Entry{Prefix, "198.51.100.0/24"}, Entry{Prefix, "198.51.100.64/26"},
		Entry{Prefix, "2001:db8:aa::/48"}, Entry{Domain, "evil.example"}, Entry{URL, "http://bad.example/a.php"},
		Entry{URL, "http://bad.example/b.php?id=7"}, Entry{File, sha}, Entry{IP, "203.0.113.9/32"})
	if got := s.Len(0); got != 9 {
		t.Errorf("%d entries, want 9 (one was given twice)", got)
	}
	ip := func(a string) func() (Hit, bool) {
		return func() (Hit, bool) { return s.MatchIP(netip.MustParseAddr(a)) }
	}
	dom := func(d string) func() (Hit, bool) { return func() (Hit, bool) { return s.MatchDomain(d) } }
	url := func(u string) func() (Hit, bool) { return func() (Hit, bool) { return s.MatchURL(u) } }
	file := func(h string) func() (Hit, bool) { return func() (Hit, bool) { return s.MatchHash(h) } }
	tests := []struct {
		name  string
		match func() (Hit, bool)
		kind  Kind // 0: no hit
		value string
	}{
		{"address", ip("203.0.113.9"), IP, "203.0.113.9"},
		{"mapped", ip("::ffff:203.0.113.9"), IP, "203.0.113.9"},
		{"neighbour", ip("203.0.113.8"), 0, ""},
		{"v6", ip("2001:db8::1"), IP, "2001:db8::1"},
		{"v6 neighbour", ip("2001:db8::2"), 0, ""},
		{"range", ip("198.51.100.3"), Prefix, "198.51.100.0/24"},
		{"longest range", ip("198.51.100.65"), Prefix, "198.51.100.64/26"},
		{"mapped range", ip("::ffff:198.51.100.3"), Prefix, "198.51.100.0/24"},
		{"v6 range", ip("2001:db8:aa:1::5"), Prefix, "2001:db8:aa::/48"},
		{"outside", ip("198.51.101.3"), 0, ""},
		{"no address", func() (Hit, bool) { return s.MatchIP(netip.Addr{}) }, 0, ""},
		{"domain", dom("evil.example"), Domain, "evil.example"},
		{"subdomain", dom("A.B.Evil.Example."), Domain, "evil.example"},
		{"not a label", dom("notevil.example"), 0, ""},
		{"parent", dom("example"), 0, ""},
		{"one label", dom("localhost"), 0, ""},
		{"empty", dom(""), 0, ""},
		{"long", dom(strings.Repeat("a.", 200) + "evil.example"), 0, ""},
		{"url", url("HTTP://BAD.example:80/a.php"), URL, "http://bad.example/a.php"},
		{"url with query", url("http://bad.example/a.php?x=1"), URL, "http://bad.example/a.php"},
		{"url whole query", url("http://bad.example/b.php?id=7"), URL, "http://bad.example/b.php?id=7"},
		{"url other query", url("http://bad.example/b.php?id=8"), 0, ""},
		{"url path case", url("http://bad.example/A.php"), 0, ""},
		{"url garbage", url("://"), 0, ""},
		{"file", file(strings.ToUpper(sha)), File, sha},
		{"file other", file(strings.Repeat("ac", 32)), 0, ""},
		{"file garbage", file(strings.Repeat("zz", 32)), 0, ""},
		{"kinds apart", dom("203.0.113.9"), 0, ""},
	}
	for _, tc := range tests {
		hit, ok := tc.match()
		if ok != (tc.kind != 0) {
			t.Errorf("%s: matched %v", tc.name, ok)
			continue
		}
		if !ok {
			continue
		}
		want, err := Hash(s.Key(), tc.kind, tc.value)
		if err != nil {
			t.Fatal(err)
		}
		if hit.ID != want || hit.Kind != tc.kind {
			t.Errorf("%s: hit %+v, want %s %x", tc.name, hit, tc.kind, want)
		}
	}
	var empty *Set = mustSet(t)
	if _, ok := empty.MatchIP(netip.MustParseAddr("203.0.113.9")); ok || empty.Len(0) != 0 {
		t.Error("an empty set matches")
	}
}

// A set made by a hub that lost its mind (or was taken over) must not make the
// collector release half its traffic.
func TestOpenRefusesWhatBuildWouldNotMake(t *testing.T) {
	wide := rawSet([6]uint32{4: 1}, []byte{0, 0, 0, 0, 0})
	if _, err := Open(wide); !errors.Is(err, ErrTooWide) {
		t.Errorf("0.0.0.0/0: %v", err)
	}
	if _, err := Open(rawSet([6]uint32{4: 1}, []byte{10, 0, 0, 0, 16})); err == nil {
		t.Error("10.0.0.0/16 was accepted")
	}
	if _, err := Open(rawSet([6]uint32{4: 1}, []byte{203, 0, 113, 1, 24})); !errors.Is(err, ErrFormat) {
		t.Errorf("unmasked prefix: %v", err)
	}
	// A listed public suffix: only the hash is there, so the match refuses.
	h := hashCanonical(subKey(testKey, Domain), Domain, "co.uk")
	var rec [8]byte
	for i := range rec {
		rec[i] = byte(h >> (8 * i))
	}
	s, err := Open(rawSet([6]uint32{1: 1}, rec[:]))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.MatchDomain("www.school.co.uk"); ok {
		t.Error("a public suffix matched")
	}
	good, _ := Build(testKey, []Entry{{IP, "203.0.113.9"}, {Domain, "evil.example"}})
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 0x40
		if _, err := Open(bad); err == nil {
			t.Errorf("byte %d changed and nobody noticed", i)
		}
		if _, err := Open(good[:i]); err == nil {
			t.Errorf("cut to %d bytes and nobody noticed", i)
		}
	}
}

func TestBuildSaysWhichEntry(t *testing.T) {
	_, err := Build(testKey, []Entry{{IP, "203.0.113.9"}, {Prefix, "128.0.0.0/1"}})
	var e *EntryError
	if !errors.As(err, &e) || e.Index != 1 || !errors.Is(err, ErrTooWide) {
		t.Fatalf("got %v", err)
	}
}

// Build is deterministic: the same key and entries in any order, same bytes.
func TestBuildOrder(t *testing.T) {
	entries := bigList(500)
	a, err := Build(testKey, entries)
	if err != nil {
		t.Fatal(err)
	}
	rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	b, err := Build(testKey, entries)
	if err != nil || !slices.Equal(a, b) {
		t.Fatalf("order matters: %v", err)
	}
	s, err := Open(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var ok bool
		switch e.Kind {
		case IP:
			_, ok = s.MatchIP(netip.MustParseAddr(e.Value))
		case Prefix:
			_, ok = s.MatchIP(netip.MustParsePrefix(e.Value).Addr().Next())
		case Domain:
			_, ok = s.MatchDomain("www." + e.Value)
		case URL:
			_, ok = s.MatchURL(e.Value)
		case File:
			_, ok = s.MatchHash(e.Value)
		}
		if !ok {
			t.Errorf("%s %s is in the set and does not match", e.Kind, e.Value)
		}
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	s := mustSet(t, bigList(1000)...)
	ip, inside := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("50.0.3.200")
	n := testing.AllocsPerRun(100, func() {
		s.MatchIP(ip)
		s.MatchIP(inside)
		s.MatchDomain("a.b.c.nowhere.example")
		s.MatchURL("https://nowhere.example/x/y?z=1")
		s.MatchHash("d41d8cd98f00b204e9800998ecf8427e")
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func rawSet(counts [6]uint32, body []byte) []byte {
	b := append([]byte(magic), testKey[:]...)
	for _, n := range counts {
		b = append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	}
	b = append(b, body...)
	return appendSum(b)
}

func bigList(n int) []Entry {
	r := rand.New(rand.NewPCG(1, 2))
	var out []Entry
	for i := range n {
		out = append(out,
			Entry{IP, netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}).String()},
			Entry{Prefix, fmt.Sprintf("50.%d.%d.0/24", i>>8&0xff, i&0xff)},
			Entry{Domain, fmt.Sprintf("host%d.evil%d.example", i, r.IntN(1000))},
			Entry{URL, fmt.Sprintf("https://bad%d.example/p/%d?x=%d", i, r.Int(), i)},
			Entry{File, fmt.Sprintf("%032x", r.Uint64())})
	}
	return out
}

func FuzzOpen(f *testing.F) {
	for _, n := range []int{0, 1, 40} {
		b, err := Build(testKey, bigList(n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:len(b)-4])
	}
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		// With a right checksum, so that the fuzzer gets past it.
		s, err := Open(appendSum(slices.Clone(b)))
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrTooWide) && !strings.Contains(err.Error(), "not public") {
				t.Fatalf("unclear error %v", err)
			}
			return
		}
		if n := s.Len(0); n > len(b) {
			t.Fatalf("%d entries out of %d bytes", n, len(b))
		}
		s.MatchIP(netip.MustParseAddr("203.0.113.9"))
		s.MatchDomain("www.evil.example")
		s.MatchURL("http://evil.example/")
		s.MatchHash("d41d8cd98f00b204e9800998ecf8427e")
		for p := range s.prefixes.All() {
			if checkPrefix(p) != nil {
				t.Fatalf("%s got in", p)
			}
		}
	})
}

func FuzzCanonical(f *testing.F) {
	for _, e := range bigList(1) {
		f.Add(uint8(e.Kind), e.Value)
	}
	f.Add(uint8(URL), "HTTP://u:p@A.b:80/?x#y")
	f.Fuzz(func(t *testing.T, k uint8, v string) {
		kind, c, err := Canonical(Kind(k), v)
		if err != nil {
			return
		}
		kind2, again, err := Canonical(kind, c)
		if err != nil || again != c || kind2 != kind {
			t.Fatalf("%s %q -> %q -> %q, %v", Kind(k), v, c, again, err)
		}
		s := mustSet(t, Entry{kind, c})
		var ok bool
		switch kind {
		case IP:
			_, ok = s.MatchIP(netip.MustParseAddr(c))
		case Prefix:
			_, ok = s.MatchIP(netip.MustParsePrefix(c).Addr())
		case Domain:
			_, ok = s.MatchDomain(c)
		case URL:
			_, ok = s.MatchURL(c)
		case File:
			_, ok = s.MatchHash(c)
		}
		if !ok {
			t.Fatalf("%s %q does not match itself", kind, c)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		s := mustSet(b, bigList(n)...)
		ips := make([]netip.Addr, 1024)
		for i := range ips {
			ips[i] = netip.AddrFrom4([4]byte{byte(i * 7), byte(i * 13), byte(i), 9})
		}
		b.Run(fmt.Sprintf("ip/entries=%d", 5*n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				s.MatchIP(ips[i&1023])
				i++
			}
		})
		b.Run(fmt.Sprintf("domain/entries=%d", 5*n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.MatchDomain("www.some-school.example")
			}
		})
		b.Run(fmt.Sprintf("url/entries=%d", 5*n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.MatchURL("https://www.some-school.example/a/b?c=d")
			}
		})
		b.Run(fmt.Sprintf("hash/entries=%d", 5*n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.MatchHash("d41d8cd98f00b204e9800998ecf8427e")
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	raw, err := Build(testKey, bigList(100_000))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := Open(raw); err != nil {
			b.Fatal(err)
		}
	}
}
