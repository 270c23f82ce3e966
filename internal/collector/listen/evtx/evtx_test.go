package evtx

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const sample = "testdata/Security_1_record.evtx"

func lines(t *testing.T, name string) ([]string, error) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	err = Read(f, func(b []byte) error { out = append(out, string(b)); return nil })
	return out, err
}

// A real record, in winlogbeat's shape, with hexadecimal numbers as Windows shows them.
func TestRead(t *testing.T) {
	out, err := lines(t, sample)
	if err != nil || len(out) == 0 {
		t.Fatalf("%d lines, %v", len(out), err)
	}
	var e struct {
		Time  string `json:"@timestamp"`
		Event struct{ Code, Provider, Outcome string }
		Host  struct{ Name string }
		Log   struct{ Level string }
		Win   struct {
			ID      string `json:"event_id"`
			Channel string `json:"channel"`
			Record  string `json:"record_id"`
			Data    struct {
				Cleared map[string]string `json:"LogFileCleared"`
			} `json:"user_data"`
		} `json:"winlog"`
	}
	if err := json.Unmarshal([]byte(out[0]), &e); err != nil {
		t.Fatal(err)
	}
	if e.Event.Code != e.Win.ID || e.Win.Channel != "Security" || e.Event.Provider != "Microsoft-Windows-Eventlog" || e.Win.ID != "1102" || e.Host.Name != "TestComputer" || e.Time != "2019-02-09T17:05:24.672758Z" || e.Win.Record == "" || e.Event.Outcome == "" {
		t.Errorf("%s", out[0])
	}
	if c := e.Win.Data.Cleared; c["SubjectLogonId"] != "0x2118a" || c["SubjectUserName"] != "test" {
		t.Errorf("%s", out[0])
	}
}

// The library's own larger sample, where the module is: every record is a line.
func TestLarge(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "www.velocidex.com/golang/evtx").Output()
	if err != nil {
		t.Skip("SKIPPED: the module's folder is not known; only the small sample was read")
	}
	name := filepath.Join(strings.TrimSpace(string(dir)), "testdata", "Security.evtx")
	if _, err := os.Stat(name); err != nil {
		t.Skip("SKIPPED: the module has no Security.evtx; only the small sample was read")
	}
	out, err := lines(t, name)
	if err != nil || len(out) < 500 {
		t.Errorf("%d lines, %v", len(out), err)
	}
	for _, l := range out {
		if !json.Valid([]byte(l)) || !strings.Contains(l, `"event_id"`) || !strings.Contains(l, `"@timestamp"`) {
			t.Fatal(l)
		}
	}
	t.Logf("%d records", len(out))
}

// Cut at many places and with bytes changed: an error or fewer lines, never a panic.
func TestDamaged(t *testing.T) {
	b, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	errs := 0
	for n := 0; n < len(b); n += 1009 {
		if err := read(bytes.NewReader(b[:n]), func([]byte) error { return nil }); err != nil {
			errs++
		}
	}
	if errs == 0 {
		t.Error("no cut file was an error")
	}
	stop := errors.New("stop")
	if err := read(bytes.NewReader(b), func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	if Knows([]byte("<13>no")) || !Knows(b[:16]) {
		t.Error("knows")
	}
}

// Damage inside the chunk: no panic, lines of JSON.
func FuzzChunk(f *testing.F) {
	b, err := os.ReadFile(sample)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(700), []byte{0xff, 0x00})
	f.Add(uint16(4096+24), []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, at uint16, change []byte) {
		c := bytes.Clone(b)
		copy(c[4096+min(int(at), 65535):], change)
		_ = read(bytes.NewReader(c), func(l []byte) error {
			if !json.Valid(l) {
				t.Fatalf("%q", l)
			}
			return nil
		})
	})
}
