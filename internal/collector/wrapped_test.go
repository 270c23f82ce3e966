package collector

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"tocsin/internal/event"
)

// A firewall's line that a Beat or an OpenTelemetry sender carries in its message says what the bare line says: every sample line of every
// product, in the events that filebeat and the OTLP input make.
func TestForwardedLines(t *testing.T) {
	names, err := filepath.Glob("parse/packs/*/input.log")
	if err != nil || len(names) == 0 {
		t.Fatal("no samples", err)
	}
	wraps := map[string]func(line string) string{
		"filebeat": func(line string) string {
			return fmt.Sprintf(`{"@timestamp":"2026-11-22T10:00:00.000Z","@metadata":{"beat":"filebeat","type":"_doc","version":"7.17.24"},"log":{"offset":4711,"file":{"path":"/var/log/fw.log"}},"message":%s,"input":{"type":"log"},"ecs":{"version":"1.12.0"},"host":{"name":"collector-7"},"agent":{"type":"filebeat","version":"7.17.24","hostname":"collector-7"}}`, quoted(line))
		},
		"otlp": func(line string) string {
			return fmt.Sprintf(`{"@timestamp":"2026-11-22T10:00:00Z","observed_timestamp":"2026-11-22T10:00:01Z","severity_text":"INFO","severity_number":9,"message":%s,"resource":{"service.name":"fw","host.name":"collector-7"},"scope":{"name":"test"},"attributes":{"log.file.name":"fw.log"}}`, quoted(line))
		},
	}
	core := []event.Key{event.SourceIP, event.DestinationIP, event.SourcePort, event.DestinationPort, event.NetworkTransport, event.EventAction, event.TocsinVerdict, event.EventOutcome, event.UserName, event.ObserverProduct}
	lines, same, values, right := 0, 0, 0, 0
	worst := map[string]int{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for l := range bytes.Lines(b) {
			if l = bytes.TrimSpace(l); len(l) < 30 || !bytes.Contains(l, []byte(" ")) || n == 12 {
				continue
			}
			n++
			bare := fieldsOf(t, string(l))
			for how, wrap := range wraps {
				got := fieldsOf(t, wrap(string(l)))
				lines++
				ok := true
				for _, k := range core {
					if bare[k.Name()] == "" {
						continue
					}
					values++
					if got[k.Name()] == bare[k.Name()] {
						right++
						continue
					}
					ok = false
				}
				if ok {
					same++
				} else {
					worst[filepath.Base(filepath.Dir(name))+" "+how]++
				}
			}
		}
	}
	t.Logf("%d forwarded lines, %d say the same; %d of %d values; others: %v", lines, same, right, values, worst)
	if lines < 1000 || right*100 < values*97 { // the rest are formats whose lines mean something only after their header, and a few that need the envelope
		t.Errorf("%d of %d values are the same", right, values)
	}
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}
