package indicator

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestFour: the short way to look up an IPv4 address finds what is listed, alone and in ranges, and nothing else.
func TestFour(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var key [16]byte
	for i := range key {
		key[i] = byte(r.Uint32())
	}
	s := subKey(key, IP)
	four := begin4(s)
	at := func(n uint32) netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], n)
		return netip.AddrFrom4(b)
	}
	for range 2000 {
		n := r.Uint32()
		b := at(n).As16()
		if four.hash(n) != s.hash(b[:]) {
			t.Fatalf("%v has another hash", at(n))
		}
	}
	var entries []Entry
	var ranges []netip.Prefix
	single := map[uint32]bool{}
	for len(entries) < 400 {
		n := 25<<24 | r.Uint32()&0x3ffffff // 25.x and 27.x: the lowest bit of 25 stays
		if len(entries)%4 > 0 {
			single[n] = true
			entries = append(entries, Entry{IP, at(n).String()})
			continue
		}
		p := netip.PrefixFrom(at(n), 12+r.IntN(19)).Masked()
		if _, err := Build(key, []Entry{{Prefix, p.String()}}); err != nil { // too wide
			continue
		}
		ranges = append(ranges, p)
		entries = append(entries, Entry{Prefix, p.String()})
	}
	packed, err := Build(key, entries)
	if err != nil {
		t.Fatal(err)
	}
	set, err := Open(packed)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(n uint32) {
		want := Hit{}
		bits := -1
		for _, p := range ranges {
			if p.Contains(at(n)) && p.Bits() > bits {
				bits, want = p.Bits(), Hit{hashPrefix(set.prefix, p), Prefix}
			}
		}
		if single[n] {
			want = Hit{four.hash(n), IP}
		}
		got, ok := set.MatchIPv4(n)
		if again, ok2 := set.MatchIP(at(n)); got != want || ok != (want.Kind != 0) || again != got || ok != ok2 {
			t.Fatalf("%v: %v %v, want %v", at(n), got, ok, want)
		}
	}
	for n := range single {
		ask(n)
	}
	for range 2000 {
		ask(25<<24 | r.Uint32()&0x3ffffff)
	}
	for _, p := range ranges {
		b := p.Addr().As4()
		first := binary.BigEndian.Uint32(b[:])
		last := first | (uint32(1)<<(32-p.Bits()) - 1)
		for _, n := range []uint32{first - 1, first, last, last + 1} {
			ask(n)
		}
	}
	empty, err := Build(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	if set, err = Open(empty); err != nil {
		t.Fatal(err)
	}
	if _, ok := set.MatchIPv4(25 << 24); ok {
		t.Error("an empty set lists something")
	}
}
