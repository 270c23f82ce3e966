package sigma

import (
	"path/filepath"
	"testing"
)

func BenchmarkDbg(b *testing.B) {
	e, names := upstream(b)
	ro, _ := NewRouter(e)
	d := &Decoder{Names: names}
	var rec Record
	var m Matcher
	lines := readLines(b, filepath.Join(shared(b), "oracle/otrf_windows.events.jsonl"))
	for _, l := range lines {
		d.Decode(&rec, l)
		ro.Route(&rec)
	}
	n := 0
	var ids []int32
	for b.Loop() {
		d.Decode(&rec, lines[n%len(lines)])
		n++
		ids = m.Match(ro.Route(&rec), &rec, ids[:0])
	}
}
