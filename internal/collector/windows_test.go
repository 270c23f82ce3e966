package collector

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/listen/evtx"
	"tocsin/internal/collector/parse"
	"tocsin/internal/event"
)

// fieldsOf reads a line as the collector does, by automatic detection, and gives what it understood, as text by field.
func fieldsOf(t testing.TB, line string) map[string]string {
	t.Helper()
	r, err := newReaders([]slotted{{slot: 0}}, nil, parse.NewLibrary())
	if err != nil {
		t.Fatal(err)
	}
	var e event.Event
	e.SetRaw([]byte(line))
	e.Created = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC).UnixNano()
	l := archive.Line{Number: 1, Created: e.Created, Text: []byte(line)}
	out := map[string]string{}
	format, ok := r.parse(&e, &l)
	if !ok {
		return out
	}
	out["format"] = format
	out["@timestamp"] = time.Unix(0, e.Time).UTC().Format(time.RFC3339Nano)
	for i := range e.Len() {
		k, v := e.At(i)
		out[k.Name()] += v.Text() + ";"
	}
	return out
}

func evtxLines(t testing.TB, name string) (lines []string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := evtx.Read(f, func(b []byte) error { lines = append(lines, string(b)); return nil }); err != nil {
		t.Logf("%s: %v", filepath.Base(name), err)
	}
	return lines
}

// What winlogbeat wrote of Elastic's own sample files, and what is read from the files themselves, say the same, record by record.
// TOCSIN_BEATS names the source that scripts/filebeat.sh fetched; the samples are Elastic's and stay there.
func TestWinlogbeatPeer(t *testing.T) {
	dir := os.Getenv("TOCSIN_BEATS")
	if dir == "" {
		t.Skip("SKIPPED: TOCSIN_BEATS does not name the source of the Beats (scripts/filebeat.sh DIR; DIR/src)")
	}
	names, _ := filepath.Glob(filepath.Join(dir, "x-pack/winlogbeat/module/*/test/testdata/*.evtx"))
	if len(names) == 0 {
		t.Fatal("no samples there")
	}
	core := []event.Key{event.EventCode, event.EventProvider, event.EventOutcome, event.EventCategory, event.HostName, event.SourceIP, event.SourcePort, event.SourceDomain, event.DestinationIP, event.DestinationPort,
		event.UserDomain, event.ProcessExecutable, event.ProcessCommandLine, event.DNSQuestionName, event.FilePath, event.ObserverProduct}
	records, values, differ := 0, 0, []string(nil)
	for _, name := range names {
		b, err := os.ReadFile(name + ".golden.json")
		if err != nil {
			continue
		}
		var golden []json.RawMessage
		if err := json.Unmarshal(b, &golden); err != nil {
			t.Fatal(name, err)
		}
		byID := map[string]string{}
		for _, l := range evtxLines(t, name) {
			byID[recordID(l)] = l
		}
		for _, g := range golden {
			l, ok := byID[recordID(string(g))]
			if !ok {
				t.Errorf("%s: a record that winlogbeat read is not there", filepath.Base(name))
				continue
			}
			records++
			beat, file := fieldsOf(t, string(g)), fieldsOf(t, l)
			at, err := time.Parse(time.RFC3339Nano, beat["@timestamp"])
			if there, terr := time.Parse(time.RFC3339Nano, file["@timestamp"]); !strings.HasPrefix(filepath.Base(name), "sysmon") && (err != nil || terr != nil || at.Sub(there).Abs() > time.Microsecond) { // of Sysmon Elastic takes the time in the event
				differ = append(differ, fmt.Sprintf("%s: @timestamp %s, in the file %s", filepath.Base(name), beat["@timestamp"], file["@timestamp"]))
			}
			for _, k := range core {
				if v := file[k.Name()]; v != "" {
					if values++; strings.TrimRight(beat[k.Name()], "; ") != strings.TrimRight(v, "; ") {
						differ = append(differ, fmt.Sprintf("%s: %s %.60q, in the file %.60q", filepath.Base(name), k.Name(), beat[k.Name()], v))
					}
				}
			}
		}
	}
	t.Logf("%d records of %d files, %d values; they differ in %d: %s", records, len(names), values, len(differ), strings.Join(differ, " | "))
	if records < 300 || len(differ)*100 > values {
		t.Errorf("%d records, %d of %d values differ", records, len(differ), values)
	}
}

// The same in the tree: the record of the sample file, and one in winlogbeat's form with what winlogbeat adds to it (agent, message, names of task and
// opcode, numbers as numbers). The form is from Elastic's field reference; the added values are made up.
func TestWinlogbeat(t *testing.T) {
	lines := evtxLines(t, "listen/evtx/testdata/Security_1_record.evtx")
	if len(lines) != 1 {
		t.Fatalf("%d records", len(lines))
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &doc); err != nil {
		t.Fatal(err)
	}
	w := doc["winlog"].(map[string]any)
	w["api"], w["record_id"], w["opcode"], w["task"], w["keywords"] = "wineventlog", json.Number(fmt.Sprint(w["record_id"])), "Info", "Log clear", []string{"Audit Success"}
	doc["agent"] = map[string]any{"type": "winlogbeat", "version": "8.19.0", "hostname": "TestComputer"}
	doc["ecs"] = map[string]any{"version": "8.0.0"}
	doc["message"] = "The audit log was cleared.\nSubject:\n\tSecurity ID:\tS-1-5-21-1\n\tAccount Name:\ttest\n\tLogon ID:\t0x2118A"
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	file, beat := fieldsOf(t, lines[0]), fieldsOf(t, string(b))
	if file[event.EventCode.Name()] != "1102;" || file[event.UserName.Name()] == "" {
		t.Errorf("of the file: %v", file)
	}
	for k, v := range file {
		if !strings.HasPrefix(k, "winlog.") && k != event.EventAction.Name() && beat[k] != v {
			t.Errorf("%s: %q by winlogbeat, %q from the file", k, beat[k], v)
		}
	}
}

func recordID(line string) string {
	var r struct {
		Winlog struct {
			ID json.Number `json:"record_id"`
		} `json:"winlog"`
	}
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		var s struct {
			Winlog struct {
				ID string `json:"record_id"`
			} `json:"winlog"`
		}
		_ = json.Unmarshal([]byte(line), &s)
		return s.Winlog.ID
	}
	return r.Winlog.ID.String()
}
