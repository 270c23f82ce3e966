package collector

import (
	"encoding/json"
	"testing"

	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/parse"
	"tocsin/internal/event"
)

// TestHeadersKept: what a file says of its columns holds for that file alone, and over a restart, whichever time zone its listener has.
func TestHeadersKept(t *testing.T) {
	slots := []slotted{{slot: slotSyslog}, {slot: slotFiles, timezone: "Europe/London"}, {slot: slotFiles + 1, timezone: "UTC"}}
	start := func() *readers {
		r, err := newReaders(slots, parse.NewLibrary())
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
