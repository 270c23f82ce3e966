package collector

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector/spool"
)

func TestIntervals(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s, u intervals
	in := map[uint64]bool{}
	at := uint64(0)
	for range 30 {
		at += 2 + rng.Uint64N(5)
		to := at + rng.Uint64N(6)
		s = s.add(at, to)
		u = u.union(intervals{{at, to}})
		for n := at; n <= to; n++ {
			in[n] = true
		}
		at = to
	}
	if s.check() != nil || !reflect.DeepEqual(s, u) {
		t.Fatalf("%v\n%v", s, u)
	}
	for n := range at + 10 {
		if s.contains(n) != in[n] {
			t.Fatalf("%d: %v", n, !in[n])
		}
	}
	if got := (intervals{}).add(5, 4); len(got) != 0 {
		t.Fatal("an empty interval was added")
	}
	long := intervals{}
	for i := range uint64(1000) {
		long = long.add(1<<50+i*3, 1<<50+i*3+1)
	}
	note := position{Counted: 1 << 50, Done: long}.encode()
	if len(note) > 2048 {
		t.Fatalf("the note of a position has %d bytes; a manifest takes 2048", len(note))
	}
	p, err := decodePosition(note)
	if err != nil || p.Counted != 1<<50 || !reflect.DeepEqual(p.Done, long) {
		t.Fatalf("%v %v", p, err)
	}
}

// How a stream stands to the hub's head of it.
func TestStand(t *testing.T) {
	d := func(b byte) digest { return digest{b} }
	hub := func(epoch string, seq uint64, b byte, received time.Duration) batch.Head {
		return batch.Head{Lane: batch.Live, Epoch: epoch, Seq: seq, Digest: d(b).String(), Received: time.Unix(1000, 0).Add(received)}
	}
	since := time.Unix(1000, 0)
	for _, c := range []struct {
		name  string
		lane  laneState
		heads []batch.Head
		want  standing
		at    uint64
	}{
		{"new", laneState{Epoch: "a"}, nil, same, 0},
		{"same", laneState{Epoch: "a", Seq: 5, Prev: d(5)}, []batch.Head{hub("a", 5, 5, 0)}, same, 5},
		{"receipt missed", laneState{Epoch: "a", Seq: 5, Prev: d(5), Pending: &pending{Seq: 6, Digest: d(6)}}, []batch.Head{hub("a", 6, 6, 0)}, same, 6},
		{"not yet there", laneState{Epoch: "a", Pending: &pending{Seq: 1, Digest: d(1)}}, nil, same, 0},
		{"hub restored", laneState{Epoch: "a", Seq: 5, Prev: d(5)}, []batch.Head{hub("a", 3, 3, 0)}, behind, 3},
		{"hub empty", laneState{Epoch: "a", Seq: 5, Prev: d(5)}, nil, behind, 0},
		{"we are old", laneState{Epoch: "a", Seq: 5, Prev: d(5)}, []batch.Head{hub("a", 9, 9, 0)}, foreign, 0},
		{"one ahead of what we sealed", laneState{Epoch: "a", Seq: 5, Prev: d(5), Pending: &pending{Seq: 6, Digest: d(6)}}, []batch.Head{hub("a", 7, 7, 0)}, foreign, 0},
		{"fork of the last", laneState{Epoch: "a", Seq: 5, Prev: d(5)}, []batch.Head{hub("a", 5, 6, 0)}, foreign, 0},
		{"fork of the sealed", laneState{Epoch: "a", Seq: 5, Prev: d(5), Pending: &pending{Seq: 6, Digest: d(6)}}, []batch.Head{hub("a", 6, 7, 0)}, foreign, 0},
		{"own old epoch", laneState{Epoch: "b", Seq: 1, Prev: d(1)}, []batch.Head{hub("a", 5, 5, time.Hour), hub("b", 1, 1, 0)}, same, 1},
		{"unknown epoch, newer", laneState{Epoch: "b", Seq: 1, Prev: d(1)}, []batch.Head{hub("b", 1, 1, 0), hub("x", 5, 5, time.Hour)}, foreign, 0},
		{"forgotten epoch, older", laneState{Epoch: "b", Seq: 1, Prev: d(1)}, []batch.Head{hub("y", 5, 5, -time.Hour), hub("b", 1, 1, 0)}, same, 1},
	} {
		got, at := stand(&c.lane, c.heads, []string{"a", "b"}, since)
		if got != c.want || at != c.at {
			t.Errorf("%s: %v at %d, want %v at %d", c.name, got, at, c.want, c.at)
		}
	}
}

// Whatever the state file holds, reading it ends in an error or in a state that can be written and read again, and whose sums do not wrap.
func FuzzState(f *testing.F) {
	s := newState("01a203bc-fba0-74ea-837c-9c1716764469")
	s.Counts["received"] = 7
	s.Spool = mark{Pos: spool.Pos{Segment: 3, Offset: 100}, Num: 9, Line: 8}
	s.Ranges = []span{{From: mark{Num: 1}, To: mark{Pos: spool.Pos{Segment: 1}, Num: 4}}}
	s.Live.At = mark{Num: 4}
	s.Live.Pending = &pending{Seq: 1, To: mark{Num: 6, Pos: spool.Pos{Segment: 3}}, Done: intervals{{1, 2}}}
	b, err := s.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err != nil {
			return
		}
		if n := s.waiting(); n > 1<<62 && s.Spool.Num < 1<<62 {
			t.Fatalf("%d events wait", n)
		}
		again, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		s2, err := decodeState(again)
		if err != nil {
			t.Fatalf("%v: %s", err, again)
		}
		if third, _ := s2.encode(); string(third) != string(again) {
			t.Fatalf("%s\n%s", again, third)
		}
	})
}

// Records of the spool and of batches: what is written is read back, and nothing else is taken.
func FuzzRecords(f *testing.F) {
	r := record{flags: 3, group: 1 << 50, line: 7, refs: []uint64{1, 2}, json: []byte(`{"a":1}`)}
	f.Add(r.append(nil))
	f.Add(entry{Kind: "batch", Lane: batch.Live, Epoch: "e", Seq: 3}.encode([]byte("body")))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r record
		if r.decode(b) == nil && string(r.append(nil)) != string(b) {
			t.Fatalf("%q became %q", b, r.append(nil))
		}
		if e, body, err := decodeEntry(b); err == nil {
			if _, err := json.Marshal(e.At); err != nil {
				return // years that cannot be written are read only from files that were not written here
			}
			e2, body2, err := decodeEntry(e.encode(body))
			if err != nil || string(body2) != string(body) || e2.Seq != e.Seq || e2.Digest != e.Digest {
				t.Fatalf("%v %+v %+v", err, e, e2)
			}
		}
	})
}
