package sigma

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestSeries compares a series with a plain list over many changes, for instants of every resolution.
func TestSeries(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 11))
		valued := seed%2 == 0
		var s series
		var want []point
		at := rng.Int64N(1e18) - 5e17
		check := func(what string) {
			t.Helper()
			if got := s.points(valued, nil); !slices.Equal(got, want) || int(s.n) != len(want) {
				t.Fatalf("seed %d, %s: %v, want %v", seed, what, got, want)
			}
		}
		for range 300 {
			last := int64(0)
			if len(want) > 0 {
				last = want[len(want)-1].t
			}
			switch n := rng.IntN(10); {
			case n < 6:
				unit := seriesUnits[min(rng.IntN(4), int(seed%4))]
				at = max(at, last) + rng.Int64N(300)*unit
				p := point{t: at}
				if valued {
					p.h = rng.Uint64()
				}
				s.push(last, p.t, valued, p.h)
				want = append(want, p)
				check("push")
			case n < 8 && len(want) > 0:
				s.pop(valued)
				want = want[1:]
				check("pop")
			case n == 8 && len(want) > 0:
				i := rng.IntN(len(want))
				w := s.walk(valued)
				for range i + 1 {
					w.next()
				}
				left := s.remove(&w, last, valued)
				if want = slices.Delete(slices.Clone(want), i, i+1); len(want) > 0 && left != want[len(want)-1].t {
					t.Fatalf("the last that is left is %d, want %d", left, want[len(want)-1].t)
				}
				check("remove")
			case n == 9 && len(want) > 0:
				from := want[rng.IntN(len(want))].t
				i := slices.IndexFunc(want, func(p point) bool { return p.t >= from })
				if n, first := s.since(from, valued); n != len(want)-i || first != want[i].t {
					t.Fatalf("since %d: %d from %d, want %d from %d", from, n, first, len(want)-i, want[i].t)
				}
			}
		}
	}
}

// TestRefList compares a list of references with a plain one: any bytes come back.
func TestRefList(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		var table streamTable
		var l refList
		var want []Ref
		limit := 2 + rng.IntN(20)
		for range 60 {
			var r Ref
			r[0] = byte(rng.IntN(3))
			switch rng.IntN(3) {
			case 0:
				for i := range r {
					r[i] = byte(rng.Uint32())
				}
			case 1:
				r[23], r[27] = byte(rng.Uint32()), byte(rng.Uint32())
			default:
				r[16], r[22], r[26] = 0xff, byte(rng.Uint32()), byte(rng.Uint32())
			}
			table.add(&l, r, limit)
			if len(want) == limit {
				want = slices.Delete(want, max(limit/2, 1), max(limit/2, 1)+1)
			}
			want = append(want, r)
			if got := table.unpack(&l); !slices.Equal(got, want) {
				t.Fatalf("%v, want %v", got, want)
			}
		}
		table.release(&l)
		if len(table.numbers) != 0 || len(table.unpack(&l)) != 0 {
			t.Fatal("references are left")
		}
	}
}

// TestExactCounts: whatever the order in which events come, as long as each is at most a timespan behind the latest of its group, the
// condition holds for an event exactly when a window that holds it has enough events.
func TestExactCounts(t *testing.T) {
	const span = 10
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		threshold := 2 + rng.IntN(5)
		r := newRig(t, counting("event_count", fmt.Sprintf("gte: %d", threshold), ""), CorrelatorOptions{})
		var g group
		cc := r.e.cors[0]
		var all []float64
		latest := 1000.0
		for i := range 60 {
			at := latest + rng.Float64()*span*0.6
			if rng.IntN(3) == 0 {
				at = latest - rng.Float64()*span
			}
			if rng.IntN(4) > 0 {
				at = float64(int64(at)) // whole seconds: windows that fit exactly
			}
			if at < latest-span {
				continue
			}
			latest = max(latest, at)
			all = append(all, at)
			slices.Sort(all)
			want := 0
			for _, from := range all { // the fullest window that begins with an event and holds this one
				if n := 0; from <= at && at <= from+span {
					for _, x := range all {
						if x >= from && x <= from+span {
							n++
						}
					}
					want = max(want, n)
				}
			}
			ns, last := int64(at*1e9), g.last
			if last != 0 && ns > last+cc.span {
				g.clear()
			}
			g.last = max(last, ns)
			n, first, _ := r.c.count(&g, cc, 0, 0, ns, last)
			if (n >= threshold) != (want >= threshold) || n > want || n < min(want, threshold) || n >= 1 && (first > ns || ns > first+cc.span) {
				t.Fatalf("seed %d, event %d at %v of %v: counted %d from %d, want %d, threshold %d", seed, i, at, all, n, first, want, threshold)
			}
		}
	}
}

// stateOf is what a group takes that got n events at the given distance, with references.
func stateOf(t testing.TB, kind, condition string, n int, every time.Duration, jitter int64) (float64, int) {
	r := newRig(t, counting(kind, condition, ""), CorrelatorOptions{})
	outcome, user, port := r.names.Lookup("outcome"), r.names.Lookup("user"), r.names.Lookup("port")
	const groups = 4096
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		for k := range groups {
			r.rec.Reset()
			r.rec.AddString(outcome, "failure")
			r.rec.AddInt(user, int64(k))
			r.rec.AddInt(port, int64(i))
			ref := Ref{0: byte(k % 50), 22: byte((i*groups + k) / 500 >> 8), 23: byte((i*groups + k) / 500), 26: byte((i*groups + k) % 500 >> 8), 27: byte((i*groups + k) % 500)}
			at := 1e18 + int64(i)*int64(every)
			if jitter > 1 {
				at += rng.Int64N(int64(every)) / jitter * jitter
			}
			r.c.Observe([]int32{0}, &r.rec, at, at, 0, false, ref, nil)
		}
	}
	s := r.c.Stats()
	return float64(s.StateBytes) / groups, s.Groups
}

// TestGroupBytes: a live group takes at most 256 bytes, references to its events included, when it was seen a usual number of times: 130 for
// one event, 170 to 190 for eight, 250 to 265 for 28 (of which 20 are pointed at), 313 if their times have nanoseconds; a group that counts
// values ten more for each.
func TestGroupBytes(t *testing.T) {
	for _, c := range []struct {
		kind, condition string
		n               int
		every           time.Duration
		jitter          int64
		most            float64
	}{
		{"event_count", "gte: 20", 1, 100 * time.Millisecond, 1e6, 150},
		{"event_count", "gte: 40", 8, 100 * time.Millisecond, 1e6, 200},
		{"event_count", "gte: 40", 28, 100 * time.Millisecond, 1e6, 256},
		{"event_count", "gte: 40", 28, 300 * time.Millisecond, 1, 270},
		{"event_count", "gte: 40", 28, 100 * time.Millisecond, 2, 360},
		{"event_count", "gte: 40", 8, 100 * time.Millisecond, 2, 200},
		{"value_count", "field: port, gte: 40", 8, 100 * time.Millisecond, 1e6, 256},
		{"value_count", "field: port, gte: 40", 28, 100 * time.Millisecond, 1e6, 512},
	} {
		got, groups := stateOf(t, c.kind, c.condition, c.n, c.every, c.jitter)
		t.Logf("%s, %d events every %v, to %d ns: %.0f bytes a group of %d", c.kind, c.n, c.every, c.jitter, got, groups)
		if got > c.most || groups != 4096 {
			t.Errorf("%s, %d events: %.0f bytes a group, want at most %.0f; %d groups", c.kind, c.n, got, c.most, groups)
		}
	}
}
