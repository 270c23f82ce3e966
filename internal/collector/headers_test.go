package collector

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/parse"
	"tocsin/internal/event"
)

// TestHeadersKept: what a file says of its columns holds for that file alone, and over a restart, whichever time zone its listener has.
func TestHeadersKept(t *testing.T) {
	slots := []slotted{{slot: slotSyslog}, {slot: slotFiles, timezone: "Europe/London"}, {slot: slotFiles + 1, timezone: "UTC"}}
	start := func() *readers {
		r, err := newReaders(slots, nil, parse.NewLibrary())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	read := func(r *readers, slot uint8, stream uint32, line string) string {
		var e event.Event
		e.SetRaw([]byte(line))
		l := archive.Line{Number: 1, Listener: slot, Stream: stream, Text: []byte(line)}
		r.parse(&e, &l)
		return e.Text(event.SourceIP)
	}
	r := start()
	for i, slot := range []uint8{slotFiles, slotFiles + 1} {
		read(r, slot, 1, "#Fields: date time c-ip cs-method cs-uri-stem s-ip sc-status")
		read(r, slot, 2, "#Fields: date time s-ip cs-method cs-uri-stem c-ip sc-status")
		if i == 0 {
			continue
		}
		b, err := json.Marshal(r.headers())
		if err != nil {
			t.Fatal(err)
		}
		var kept []parse.Header
		if err := json.Unmarshal(b, &kept); err != nil {
			t.Fatal(err)
		}
		r = start()
		r.restoreHeaders(kept)
	}
	const line = "2026-11-12 08:50:01 192.0.2.7 GET /a.html 192.0.2.8 200"
	for _, slot := range []uint8{slotFiles, slotFiles + 1} {
		if a, b := read(r, slot, 1, line), read(r, slot, 2, line); a != "192.0.2.7" || b != "192.0.2.8" {
			t.Errorf("listener %d: one file's clients are %s, the other's %s", slot, a, b)
		}
	}
}

// What the settings say of a device holds for its lines alone, whichever port takes them: its zone, the product to try first, and that it is a relay. The
// narrowest range counts, and what it leaves out is the port's.
func TestDevices(t *testing.T) {
	devices := []Device{{Address: "192.168.0.0/16", Timezone: "America/New_York"}, {Address: "192.168.1.7", Timezone: "Asia/Tokyo", Relay: true}, {Address: "192.168.1.8", Format: "linux-auth"}}
	r, err := newReaders([]slotted{{slot: 0, timezone: "UTC"}, {slot: 1, timezone: "Asia/Kolkata"}}, devices, parse.NewLibrary())
	if err != nil {
		t.Fatal(err)
	}
	const line = `<38>Nov 12 12:00:00 gw sshd[1]: Failed password for ann from 203.0.113.9 port 4711 ssh2`
	for _, x := range []struct {
		from  string
		slot  uint8
		hour  int // UTC
		relay bool
	}{{"192.168.1.7", 0, 3, true}, {"::ffff:192.168.1.7", 1, 3, true}, {"192.168.1.9", 0, 17, false}, {"192.168.1.8", 0, 12, false}, {"10.0.0.1", 0, 12, false}, {"10.0.0.1", 1, 6, false}, {"192.168.1.7", 1, 3, true}} {
		var e event.Event
		e.SetRaw([]byte(line))
		e.Created = time.Date(2026, 11, 12, 20, 0, 0, 0, time.UTC).UnixNano()
		l := archive.Line{Number: 1, Listener: x.slot, Sender: netip.MustParseAddr(x.from), Text: []byte(line), Created: e.Created}
		want := "sshd"
		if x.from == "192.168.1.8" {
			want = "linux-auth"
		}
		if format, ok := r.parse(&e, &l); !ok || format != want {
			t.Fatalf("%+v: understood %v as %s", x, ok, format)
		}
		if got := time.Unix(0, e.Time).UTC(); got.Hour() != x.hour || r.relays(&l) != x.relay {
			t.Errorf("%+v: %v, relay %v", x, got, r.relays(&l))
		}
	}
	c := DefaultConfig()
	c.Listen.Devices = []Device{{Address: "gateway", Timezone: "UTC"}, {Address: "192.0.2.1"}, {Address: "192.0.2.2", Format: "no such"}, {Address: "192.0.2.3", Relay: true}, {Address: "192.0.2.3/32", Timezone: "Mars/Base"}}
	var said []string
	c.checkInputs(func(format string, args ...any) { said = append(said, fmt.Errorf(format, args...).Error()) })
	text := strings.Join(said, "\n")
	for _, want := range []string{"devices[0].address", "devices[1]: none of", `devices[2]: there is no format`, "devices[4].address: 192.0.2.3/32 stands there twice", `devices[4]: there is no time zone`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not said:\n%s", want, text)
		}
	}
}
