package collector

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tocsin/internal/collector/archive"
)

func TestExtract(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"blocked 203.0.113.5:4711 -> 198.51.100.20:22 by rule 7", []string{"203.0.113.5:4711", "198.51.100.20:22"}},
		{"from 203.0.113.5(4711) to 198.51.100.20/443", []string{"203.0.113.5:4711", "198.51.100.20:443"}},
		{"src=203.0.113.5, dst=198.51.100.20.", []string{"203.0.113.5", "198.51.100.20"}},
		{"firmware 2.0.0.1 build 1.2.3.4.5 at 12:04:51 on 2026-11-22", nil},
		{"from 2001:db8::5 to [2001:db8:1::7]", []string{"2001:db8::5", "2001:db8:1::7"}},
		{"mac aa:bb:cc:dd:ee:ff time 10:20:30:40", nil},
		{"999.1.1.1 and 203.0.113.5:99999", []string{"203.0.113.5"}},
		{"", nil},
	} {
		if got := Extract(c.text); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

// Whatever comes, and from how many senders: bounded, counted to the line.
func TestUnknowns(t *testing.T) {
	u := newUnknowns()
	a := netip.MustParseAddr("10.0.0.1")
	for i := range 20_000 {
		u.add(&archive.Line{Sender: a, Text: fmt.Appendf(nil, "door %d opened from 203.0.113.%d:4711", i, i%200+1)})
	}
	for i := range 20 {
		u.add(&archive.Line{Sender: a, Text: []byte(strings.Repeat(string(rune('a'+i)), 5000))})
	}
	b := netip.MustParseAddr("10.1.0.0")
	for range 1000 {
		u.add(&archive.Line{Sender: b, Text: []byte("hello\xff")})
		b = b.Next()
	}
	list := u.list()
	if len(list) != maxUnknownSenders+1 || list[0].Sender != "10.0.0.1" || list[0].Lines != 20_020 || len(list[0].Kinds) > maxUnknownKinds {
		t.Errorf("%d senders, first %+v", len(list), list[0].Lines)
	}
	if k := list[0].Kinds[0]; !slices.Equal(k.Found, []string{"203.0.113.1:4711"}) || k.Lines < 10_000 {
		t.Errorf("%+v", k)
	}
	n := uint64(0)
	for _, s := range list {
		n += s.Lines
	}
	if n != 21_020 {
		t.Errorf("%d lines counted", n)
	}
}
