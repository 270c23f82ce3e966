package collector

import (
	"strings"
	"testing"
	"time"

	"tocsin/internal/batch"
)

// Every verdict that a comparison of record and statement may end in, with what it is said of.
func TestCompareStatement(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	hub := func(batches, events uint64, digest string) []batch.StatementStream {
		return []batch.StatementStream{{Lane: batch.Live, Epoch: "e", Batches: batches, Events: events, Digest: digest}}
	}
	// record has batches first to last of ten events each; the digest of batch n is "dn".
	record := func(first, last, confirmed uint64) map[string]*SentSums {
		r := &SentSums{Lane: batch.Live, Epoch: "e", First: first, Last: last, Digests: map[uint64]string{}, EventsTo: map[uint64]uint64{}, Confirmed: confirmed}
		for n := first; n <= last; n++ {
			r.Events += 10
			r.Digests[n], r.EventsTo[n] = "d"+string(rune('0'+n)), r.Events
		}
		return map[string]*SentSums{"livee": r}
	}
	total := func(batches, events uint64, digest string) []StreamTotal {
		return []StreamTotal{{Lane: batch.Live, Epoch: "e", Batches: batches, Events: events, Digest: digest}}
	}
	for _, c := range []struct {
		name    string
		hub     []batch.StatementStream
		record  map[string]*SentSums
		totals  []StreamTotal
		match   bool
		verdict string
		events  [2]uint64
	}{
		{"the same", hub(3, 30, "d3"), record(1, 3, 3), nil, true, "the same", [2]uint64{30, 30}},
		{"on the way", hub(3, 30, "d3"), record(1, 5, 3), nil, true, "the same; 2 more on the way", [2]uint64{30, 30}},
		{"restored hub", hub(3, 30, "d3"), record(1, 5, 5), nil, false, "restored from an older copy", [2]uint64{30, 30}},
		{"hub has more", hub(5, 50, "d5"), record(1, 3, 3), nil, false, "the hub holds 2 batches that this record does not know", [2]uint64{0, 50}},
		{"hub has lost what was", hub(2, 20, "d2"), record(4, 5, 5), nil, false, "the hub has lost batches", [2]uint64{0, 20}},
		{"another batch", hub(3, 30, "dx"), record(1, 3, 3), nil, false, "batch 3 is another one at the hub", [2]uint64{30, 30}},
		{"another count", hub(3, 29, "d3"), record(1, 3, 3), nil, false, "the hub counts 29 events in them and this record 30", [2]uint64{30, 29}},
		{"old batches gone", hub(5, 50, "d5"), record(3, 5, 5), nil, true, "the same from batch 3 on", [2]uint64{50, 50}},
		{"old batches gone, totals known", hub(5, 50, "d5"), record(3, 5, 5), total(5, 50, "d5"), true, "the same", [2]uint64{50, 50}},
		{"old batches gone, another count", hub(5, 51, "d5"), record(3, 5, 5), total(5, 50, "d5"), false, "the hub counts 51 events in them and this record 50", [2]uint64{50, 51}},
		{"all batches gone, receipts known", hub(3, 30, "d3"), nil, total(3, 30, "d3"), true, "the same, by the receipts", [2]uint64{30, 30}},
		{"all batches gone, receipts of others", hub(3, 30, "d3"), nil, total(3, 30, "dx"), false, "the record here has none of this stream", [2]uint64{30, 30}},
		{"never sent from here", hub(3, 30, "d3"), nil, nil, false, "the record here has none of this stream", [2]uint64{0, 30}},
		{"first batch on the way", nil, record(1, 1, 0), nil, true, "its first batch is on the way", [2]uint64{0, 0}},
		{"hub has nothing", nil, record(1, 3, 3), nil, false, "the hub holds nothing of this stream", [2]uint64{30, 0}},
		{"hub has nothing of a confirmed first", nil, record(1, 1, 1), nil, false, "the hub holds nothing of this stream", [2]uint64{10, 0}},
	} {
		r := compareStatement(batch.Statement{Collector: "c", HubTime: now, Streams: c.hub}, c.record, c.totals)
		if len(r.Streams) != 1 {
			t.Errorf("%s: %d streams", c.name, len(r.Streams))
			continue
		}
		x := r.Streams[0]
		whole := c.verdict == "the same"
		if r.Match != c.match || x.Match != c.match || whole && x.Verdict != c.verdict || !strings.Contains(x.Verdict, c.verdict) || x.Events != c.events {
			t.Errorf("%s: match %v, %v, %q; want %v, %v, %q", c.name, r.Match, x.Events, x.Verdict, c.match, c.events, c.verdict)
		}
	}
	// Sums go over the streams, and one difference is enough.
	two := append(hub(3, 30, "d3"), batch.StatementStream{Lane: batch.Raw, Epoch: "f", Batches: 1, Events: 4, Digest: "r1"})
	if r := compareStatement(batch.Statement{HubTime: now, Streams: two}, record(1, 3, 3), nil); r.Match || r.Batches != [2]uint64{3, 4} || r.Events != [2]uint64{30, 34} {
		t.Errorf("two streams: %+v", r)
	}
}
