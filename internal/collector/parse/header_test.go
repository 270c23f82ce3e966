package parse

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"tocsin/internal/event"
)

// quay is a product whose log says itself what stands in its columns.
const quay = `format: 1
name: quay
version: 1
vendor: Harbour Works
product: Crane
dataset: harbour.crane
recognise:
  - starts: ['#Columns:', '#kind', '#made']
  - starts: 'crane '
read:
  - columns: {delimiter: ' ', quote: '', header: '#Columns:', marks: ['#kind', '#made'], names: [day, clock, from, what, verb], min: 5}
    in: .line
fields:
  day: {to: time, join: [$day, ' ', $clock]}
  from: source.ip
  to: destination.ip
  verb: event.action
  '#kind': event.code
rules:
  - {when: {'#kind': lift}, set: {event.category: process}}
`

func TestHeader(t *testing.T) {
	lib := NewLibrary()
	with, err := lib.Packs().With(mustLoad(t, quay).Packs()...)
	if err != nil {
		t.Fatal(err)
	}
	lib.Use(with)
	s := New(Options{Location: time.UTC, Library: lib, Now: func() time.Time { return received }})
	s.rethrow = true
	a := Origin{Listener: 1, Sender: netip.MustParseAddr("192.0.2.1")}
	b := Origin{Listener: 1, Sender: netip.MustParseAddr("192.0.2.2")}
	var e event.Event
	read := func(from Origin, line string) (string, string) {
		e.Reset()
		e.SetRaw([]byte(line))
		name, _ := s.ParseFrom(&e, "", from)
		src, _ := e.IP(event.SourceIP)
		dst, _ := e.IP(event.DestinationIP)
		return name, strings.Join([]string{src.String(), dst.String(), e.Str(event.EventAction), e.Str(event.EventCode), time.Unix(0, e.Time).UTC().Format(time.DateTime)}, " ")
	}
	const line = "2026-11-12 08:50:01 192.0.2.7 crane lift"
	const fallback = "192.0.2.7 invalid IP lift  2026-11-12 08:50:01"
	for i, c := range []struct {
		from       Origin
		line, want string
	}{
		{a, line, fallback},
		{a, "#kind lift", "invalid IP invalid IP   1970-01-01 00:00:00"},
		{a, "#Columns: verb to from clock day", "invalid IP invalid IP   1970-01-01 00:00:00"},
		{a, "hoist 192.0.2.9 192.0.2.8 08:50:02 2026-11-12", "192.0.2.8 192.0.2.9 hoist lift 2026-11-12 08:50:02"},
		{b, line, fallback}, // another sender has said nothing
		{a, line, fallback}, // as many columns, but no time where the header says
		{a, "#Columns: day clock from load", ""},
		{a, "2026-11-12 08:50:03 192.0.2.8 heavy", "192.0.2.8 invalid IP   2026-11-12 08:50:03"},                   // the mark was of the header before
		{a, "hoist 192.0.2.9 192.0.2.8 08:50:02 2026-11-12", "192.0.2.8 192.0.2.9 hoist lift 2026-11-12 08:50:02"}, // a file read beside it
		{a, "#Columns: clock day from to", ""},
		{a, "08:50:04 2026-11-12 192.0.2.8 192.0.2.9", "192.0.2.8 192.0.2.9   2026-11-12 08:50:04"}, // the newer of as many columns
	} {
		name, got := read(c.from, c.line)
		if name != "quay" || c.want != "" && got != c.want {
			t.Errorf("%d: %q read as %q: %q, want %q", i, c.line, name, got, c.want)
		}
	}
	if len(e.Extras()) != 0 {
		t.Errorf("extras %v", e.Extras())
	}
	read(a, "#Columns: day clock from load")
	read(a, "2026-11-12 08:50:03 192.0.2.8 heavy")
	if x := e.Extras(); len(x) != 1 || x[0].Name != "load" || x[0].Value != "heavy" {
		t.Errorf("extras %v", x)
	}
	// A file of the same listener has columns of its own.
	c, d := Origin{Listener: 2, Stream: 1}, Origin{Listener: 2, Stream: 2}
	read(c, "#kind lift")
	read(c, "#Columns: verb to from clock day")
	read(d, "#Columns: from to verb day clock")
	inC, inD := "hoist 192.0.2.9 192.0.2.8 08:50:02 2026-11-12", "192.0.2.8 192.0.2.9 hoist 2026-11-12 08:50:02"
	both := func(s *Set, when string) {
		t.Helper()
		read := func(from Origin, line string) string {
			e.Reset()
			e.SetRaw([]byte(line))
			s.ParseFrom(&e, "", from)
			src, _ := e.IP(event.SourceIP)
			return src.String() + " " + e.Str(event.EventAction) + " " + e.Str(event.EventCode)
		}
		if got := read(c, inC); got != "192.0.2.8 hoist lift" {
			t.Errorf("%s: %q", when, got)
		}
		if got := read(d, inD); got != "192.0.2.8 hoist " {
			t.Errorf("%s: the other file: %q", when, got)
		}
	}
	both(s, "two files")
	// What was said is kept over a restart, and when the pack is exchanged.
	kept, err := json.Marshal(s.Headers())
	if err != nil {
		t.Fatal(err)
	}
	var list []Header
	if err := json.Unmarshal(kept, &list); err != nil {
		t.Fatal(err)
	}
	s2 := New(Options{Location: time.UTC, Library: lib, Now: func() time.Time { return received }})
	s2.rethrow = true
	s2.RestoreHeaders(list)
	both(s2, "after a restart")
	newer, err := lib.Packs().With(mustLoad(t, strings.Replace(quay, "version: 1", "version: 2", 1)).Packs()...)
	if err != nil {
		t.Fatal(err)
	}
	lib.Use(newer)
	both(s2, "with a newer pack")
	s2.RestoreHeaders([]Header{{Format: "quay", Step: 7, Columns: []string{"a"}}, {Format: "no such", Columns: []string{"a"}}, {Format: "quay", Step: -1}, {Format: "quay"}, {Format: "asa", Columns: []string{"a"}}})
	both(s2, "after damaged headers")
	lib.Use(with)
	// Invented senders cost bounded memory.
	for i := range 3 * maxOrigins {
		read(Origin{Sender: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})}, "#Columns: "+strings.Repeat("x"+strconv.Itoa(i)+" ", 2*maxColumns))
	}
	bytes := 0
	for _, o := range s.origins {
		bytes += o.bytes
	}
	if len(s.origins) > maxOrigins || bytes > maxHeadBytes || bytes != s.headBytes {
		t.Errorf("%d origins are remembered, %d bytes, said to be %d", len(s.origins), bytes, s.headBytes)
	}
	if kept, err := json.Marshal(s.Headers()); err != nil || len(kept) > 2*maxKeptHeaders {
		t.Errorf("%d bytes of headers would be kept: %v", len(kept), err)
	}
	for _, o := range s.origins {
		if len(o.heads) > maxHeads || len(o.heads[0].cols) > maxColumns {
			t.Fatalf("%d heads of %d columns", len(o.heads), len(o.heads[0].cols))
		}
	}
	// With the pack away, what it announced is forgotten.
	lib.Use(NewLibrary().Packs())
	if name, _ := read(a, "2026-11-12 08:50:03 192.0.2.8 heavy"); name == "quay" {
		t.Error("read by a pack that is not in use")
	}
}
