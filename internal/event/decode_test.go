package event

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// again decodes a line once in new memory, where no field is expected, and twice in memory where those of another line are, then its own: the
// answer may not depend on that.
func again(t *testing.T, before, line []byte) {
	t.Helper()
	var fresh, used Event
	want := DecodeJSON(&fresh, line)
	DecodeJSON(&used, before)
	for range 2 {
		err := DecodeJSON(&used, line)
		if (err == nil) != (want == nil) || err != nil && err.Error() != want.Error() {
			t.Fatalf("%s\nafter %s\n%v, want %v", line, before, err, want)
		}
		if err != nil {
			continue
		}
		if got, want := used.AppendJSON(nil), fresh.AppendJSON(nil); !bytes.Equal(got, want) || !slices.Equal(used.Keys(), fresh.Keys()) {
			t.Fatalf("%s\nafter %s\ngives %s\nwant  %s", line, before, got, want)
		}
		for i := range used.Len() {
			if !used.Ref(i).Equal(*fresh.Ref(i)) || used.present != fresh.present {
				t.Fatalf("%s\nafter %s\n%v differs", line, before, used.Keys()[i])
			}
		}
	}
}

// TestHints: what fields the event before had decides nothing.
func TestHints(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	names := []string{"source.ip", "destination.ip", "source.port", "event.category", "event.type", "tags", "event.risk_score", "user.name", "event.start", "@timestamp", "event.created",
		"no.such.field", "tocsin.urgent", "event.action", "url.full"}
	values := []string{`"203.0.113.7"`, `"10.0.0.1"`, `"2001:db8::1"`, `"10.0.0.256"`, `443`, `"443"`, `0`, `01`, `-1`, `12e3`, `123456789012345678`, `1234567890123456789`, `"a"`, `""`, `"a\nb"`, `"é"`, `["a","b"]`,
		`[]`, `null`, `true`, `"2026-11-22T13:00:00.5Z"`, `"a text that is longer than what is looked at in one go, and then some, and some more"`, `"` + strings.Repeat("x", 100) + `\"y"`, "\"\x01\"", `"\xff"`, `{}`, `"x`, `1 `, ` "x" `}
	line := func() []byte {
		var b []byte
		for i, j := range r.Perm(len(names))[:1+r.IntN(len(names))] {
			if r.IntN(4) > 0 {
				j = i // mostly in one order
			}
			if b = append(b, ",{"[min(1, 1-min(i, 1))]); r.IntN(30) == 0 {
				b = append(b, ' ')
			}
			v := values[r.IntN(len(values))]
			if r.IntN(3) > 0 {
				v = values[r.IntN(2)*4]
			}
			b = append(append(append(append(append(b, '"'), names[j]...), '"'), ':'), v...)
		}
		return append(b, '}')
	}
	before := line()
	for range 20000 {
		next := line()
		again(t, before, next)
		before = next
	}
	for i := range sampleLine {
		cut := slices.Clone(sampleLine)
		cut[i] ^= 1 << (i % 8)
		again(t, sampleLine, cut)
		again(t, cut, sampleLine[:i])
	}
}

// TestFastReads: digits, quads and plain bytes are read in one go as they are one by one.
func TestFastReads(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for i := range 256 * 8 {
		s := []byte("0123cdEF")
		s[i%8] = byte(i / 8)
		n, ok := hex8(string(s))
		want, err := hex.DecodeString(string(s))
		if ok != (err == nil) || ok && !bytes.Equal(want, []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}) {
			t.Fatalf("%q: %x %v, want %x %v", s, n, ok, want, err)
		}
	}
	for range 20000 {
		b := []byte("203.0.113.77")
		for range r.IntN(4) {
			switch at := r.IntN(len(b)); r.IntN(3) {
			case 0:
				b[at] = "0123456789.: "[r.IntN(13)]
			case 1:
				b = slices.Insert(b, at, "0123456789."[r.IntN(11)])
			default:
				b = slices.Delete(b, at, at+1)
			}
		}
		a, ok := ParseIP(string(b))
		if want, err := netip.ParseAddr(string(b)); ok != (err == nil) || ok && a != want.Unmap() {
			t.Fatalf("%s: %v %v, want %v %v", b, a, ok, want, err)
		}
	}
	for n := range 150 {
		for range 20 {
			s := []byte(strings.Repeat("ab", n))[:n]
			for range r.IntN(3) {
				if n > 0 {
					s[r.IntN(n)] = "\"\\\x1f\x00\x80\xff\x7f~ !]["[r.IntN(12)]
				}
			}
			from := r.IntN(n + 1)
			want := from
			for want < n && plain[s[want]] || want < n && s[want] == 0x7f {
				want++
			}
			got := skipPlain(string(s), from)
			for got < n && s[got] == 0x7f { // DEL may stop it: it is looked at by itself
				got = skipPlain(string(s), got+1)
			}
			if got != want {
				t.Fatalf("%q from %d: %d, want %d", s, from, got, want)
			}
		}
	}
}
