package sigma

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// train makes the contents of trained.bin.
func train(t *testing.T) []byte {
	e, names := upstream(t)
	dir := shared(t)
	hash := make([]uint32, len(names.keys))
	for name, k := range names.keys {
		hash[k] = hashName(name)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "events", "*.jsonl"))
	files = append(files, filepath.Join(dir, "oracle", "otrf_windows.events.jsonl"))
	have := make([]int, 1<<trainedBits)    // values with it
	last := make([]int, 1<<trainedBits)    // the value that was counted last
	values := make([]int, len(names.keys)) // of each field
	of := make([]Key, 1<<trainedBits)      // the field that a place counts for, the one met last
	grams := newGramCounts()
	asked := map[Key]bool{}
	for _, name := range e.FieldNames() {
		asked[names.Lookup(name)] = true
	}
	d := &Decoder{Names: names}
	var rec Record
	n := 0
	for _, f := range files {
		for _, l := range readLines(t, f) {
			if err := d.Decode(&rec, l); err != nil {
				t.Fatal(err)
			}
			for i := range rec.fields {
				f := &rec.fields[i]
				if f.kind == fieldNull || f.key == NoKey || !asked[f.key] {
					continue
				}
				n++
				low := rec.lowOf(f)
				values[f.key]++
				grams.note(low)
				for j := 0; j+4 <= len(low); j++ {
					at := trainedAt(hash[f.key], gramAt(low, j))
					if last[at] != n {
						last[at], of[at] = n, f.key
						have[at]++
					}
				}
			}
		}
	}
	out := make([]byte, 1<<trainedBits, 1<<trainedBits+len(grams))
	for i, h := range have {
		if h > 0 {
			share := min(float64(h)/float64(values[of[i]]), 1)
			out[i] = byte(max(1, math.Round(255+16*math.Log2(share))))
		}
	}
	for _, g := range grams {
		x := byte(0)
		if g > 0 {
			x = byte(max(1, math.Round(16*math.Log2(float64(g)))))
		}
		out = append(out, x)
	}
	return out
}

// TestTrained: trained.bin is what the conformance data give. TOCSIN_SIGMA_TRAIN=1 writes it anew.
func TestTrained(t *testing.T) {
	made := train(t)
	if os.Getenv("TOCSIN_SIGMA_TRAIN") != "" {
		if err := os.WriteFile("trained.bin", made, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(made, trainedBytes) {
		t.Error("trained.bin is not what the conformance data give: run this test with TOCSIN_SIGMA_TRAIN=1")
	}
}
