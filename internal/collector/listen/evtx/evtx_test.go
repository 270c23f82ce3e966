package evtx

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
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

// A file of 739 records and what velocidex/evtx, a stranger's reader, makes of it: the same records, in the same order, of the same time.
func TestPeerLarge(t *testing.T) {
	if os.Getenv("TOCSIN_TEST_PEERS") == "" {
		t.Skip("SKIPPED: make peers brings a larger sample; only the small one was read")
	}
	b, err := exec.Command("go", "mod", "download", "-json", "www.velocidex.com/golang/evtx@v0.2.1-0.20240730174545-3e4ff3d96433").Output()
	var mod struct{ Dir string }
	if err != nil || json.Unmarshal(b, &mod) != nil {
		t.Skip("SKIPPED: the sample's module cannot be had here")
	}
	out, err := lines(t, filepath.Join(mod.Dir, "testdata", "Security.evtx"))
	if err != nil || len(out) != 739 {
		t.Errorf("%d lines, %v", len(out), err)
	}
	ids := map[string]int{}
	for _, l := range out {
		var e struct {
			Time string `json:"@timestamp"`
			Win  struct {
				ID   string            `json:"event_id"`
				Data map[string]string `json:"event_data"`
			} `json:"winlog"`
		}
		if err := json.Unmarshal([]byte(l), &e); err != nil || e.Time == "" || e.Win.ID == "" {
			t.Fatal(l, err)
		}
		ids[e.Win.ID]++
	}
	t.Logf("%d records, %v", len(out), ids)
}

// What one changed byte, or a template that holds itself, may cost: the library that this package once used took all memory for the first.
func TestHostileRecord(t *testing.T) {
	b, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	count := bytes.Clone(b)
	count[4096+570] = '8'
	again := []byte{0x0c, 1, 1, 0, 0, 0, 0, 0x16, 0, 0, 0, 0, 0, 0} // an instance of the template at 0x1600, without values
	// A chunk of so many records that use a template so often.
	chunkOf := func(records, times int, body ...byte) []byte {
		c := make([]byte, fileHeader+chunkSize)
		copy(c, b[:fileHeader])
		chunk := c[fileHeader:]
		copy(chunk, chunkMagic)
		binary.LittleEndian.PutUint64(chunk[8:], 1)
		binary.LittleEndian.PutUint64(chunk[16:], uint64(records))
		for i := range records {
			r := chunk[firstAt+1024*i:]
			copy(r, []byte{0x2a, 0x2a, 0, 0, 0, 4, 0, 0})
			copy(r[24:], slices.Repeat(again, times))
		}
		d := chunk[0x1600:]
		binary.LittleEndian.PutUint32(d[20:], uint32(len(body)))
		copy(d[24:], body)
		return c
	}
	lies := bytes.Clone(b)
	copy(lies[4096+8:], bytes.Repeat([]byte{0xff}, 8)) // the first record is behind the last
	for name, file := range map[string][]byte{
		"count":  count,
		"itself": chunkOf(1, 1, slices.Repeat(again, 3)...),
		"deep":   chunkOf(1, 1, slices.Repeat([]byte{0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02}, 1000)...),
		"pieces": chunkOf(4, 60, slices.Repeat([]byte{0x05, 1, 4, 0, 'a', 0, 'b', 0, 'c', 0, 'd', 0}, 4000)...),                                   // of one text
		"zeros":  chunkOf(4, 60, slices.Repeat(append([]byte{0x05, 1, 0, 0x10}, make([]byte, 8192)...), 6)...),                                    // become no text
		"values": chunkOf(4, 60, slices.Repeat(append([]byte{0x0c, 1, 1, 0, 0, 0, 0, 0x13, 0, 0, 0, 0x10, 0, 0}, make([]byte, 4*4096)...), 3)...), // of a template without a body
		"lies":   lies,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := read(bytes.NewReader(file), func([]byte) error { return nil })
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrDamaged) || took > 64<<20 {
			t.Errorf("%s: %v, %d bytes", name, err, took)
		}
	}
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
