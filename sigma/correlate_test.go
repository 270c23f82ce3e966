package sigma

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

const baseRule = `
title: Failed sign-in
id: 11111111-0000-4000-8000-000000000001
name: failed
logsource: {product: test}
detection:
  sel: {outcome: failure}
  condition: sel
---
title: Sign-in
id: 11111111-0000-4000-8000-000000000002
name: success
logsource: {product: test}
detection:
  sel: {outcome: success}
  condition: sel
`

type rig struct {
	t     testing.TB
	e     *Engine
	names *Names
	set   *Set
	m     Matcher
	rec   Record
	c     *Correlator
	n     uint64
}

func compileText(t testing.TB, text string) (*Engine, *Names) {
	t.Helper()
	c := &Collection{}
	for _, err := range c.Parse("test.yml", []byte(text)) {
		t.Fatal(err)
	}
	names := &Names{}
	e, err := Compile(c, Options{Schema: names})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range e.Errors {
		t.Fatal(err)
	}
	return e, names
}

func newRig(t testing.TB, correlation string, opts CorrelatorOptions) *rig {
	t.Helper()
	e, names := compileText(t, baseRule+"---\n"+correlation)
	for _, f := range []string{"outcome", "user", "ip", "port", "bytes"} {
		if _, err := names.Key(f); err != nil {
			t.Fatal(err)
		}
	}
	return &rig{t: t, e: e, names: names, set: e.Set(Source{LogSource: LogSource{Product: "test"}}), c: NewCorrelator(e, opts)}
}

// at feeds one event at a number of seconds and gives the hits. fields are name=value.
func (r *rig) at(seconds float64, fields ...string) []Hit {
	r.rec.Reset()
	for _, f := range fields {
		k, v, _ := strings.Cut(f, "=")
		if a, err := netip.ParseAddr(v); err == nil && k == "ip" {
			r.rec.AddIP(r.names.Lookup(k), a)
			continue
		}
		r.rec.AddString(r.names.Lookup(k), v)
	}
	r.n++
	t := int64(seconds * 1e9)
	ref := Ref{}
	copy(ref[:], fmt.Sprint(r.n))
	return r.c.Observe(r.m.Match(r.set, &r.rec, nil), &r.rec, t, t, 1, false, ref, nil)
}

func counting(kind, condition, extra string) string {
	return "title: C\nid: 22222222-0000-4000-8000-000000000001\nname: c\ncorrelation:\n  type: " + kind + "\n  rules: [failed]\n  group-by: [user]\n  timespan: 10s\n  condition: {" + condition + "}\n" + extra
}

func TestEventCountSlides(t *testing.T) {
	// A tumbling window of 10 s would see 2 and 1 events: the sliding one sees three within 10 s.
	r := newRig(t, counting("event_count", "gte: 3", ""), CorrelatorOptions{})
	for i, s := range []float64{1008, 1009} {
		if h := r.at(s, "outcome=failure", "user=a"); len(h) != 0 {
			t.Fatalf("event %d: hits %v", i, h)
		}
	}
	if h := r.at(1010, "outcome=success", "user=a"); len(h) != 0 {
		t.Fatal("another rule's event counted")
	}
	if h := r.at(1010, "outcome=failure", "user=b"); len(h) != 0 {
		t.Fatal("another group's event counted")
	}
	h := r.at(1018, "outcome=failure", "user=A") // the window is closed on both ends; groups do not regard case
	if len(h) != 1 || !h[0].New || h[0].Count != 3 || h[0].First != 1008e9 || h[0].Last != 1018e9 || h[0].Group[0] != "A" || len(h[0].Refs) != 3 {
		t.Fatalf("hits %+v", h)
	}
	if h := newRig(t, counting("event_count", "gte: 3", ""), CorrelatorOptions{}); len(h.at(1, "outcome=failure", "user=a"))+len(h.at(2, "outcome=failure", "user=a"))+len(h.at(11.001, "outcome=failure", "user=a")) != 0 {
		t.Fatal("three events in more than ten seconds fired")
	}
}

func TestEventsWithoutGroupFieldAreNotCounted(t *testing.T) {
	r := newRig(t, counting("event_count", "gte: 1", ""), CorrelatorOptions{})
	if h := r.at(1, "outcome=failure"); len(h) != 0 || r.c.Stats().NoGroup != 1 {
		t.Fatalf("hits %v, stats %+v", h, r.c.Stats())
	}
}

func TestEpisodeGivesOneHitThenPacedUpdates(t *testing.T) {
	r := newRig(t, counting("event_count", "gte: 3", ""), CorrelatorOptions{UpdateEvery: time.Minute})
	total, hits := 0, []Hit(nil)
	for s := 0; s < 3600; s++ {
		hits = append(hits, r.at(1e6+float64(s), "outcome=failure", "user=a")...)
	}
	hits = append(hits, r.c.Tick(1e15+10_000e9, 1e15+10_000e9, nil)...)
	for i, h := range hits {
		total += h.Count
		if h.New != (i == 0) || h.N != i || h.Episode != hits[0].Episode {
			t.Errorf("hit %d: %+v", i, h)
		}
	}
	if total != 3600 || hits[len(hits)-1].Total != 3600 {
		t.Errorf("counts add up to %d, want 3600 (every event once)", total)
	}
	if len(hits) < 6 || len(hits) > 10 {
		t.Errorf("%d hits in an hour, want about 7", len(hits))
	}
	// After a pause longer than the timespan the next attack is a new one.
	var again []Hit
	for s := 0; s < 3; s++ {
		again = append(again, r.at(2e6+float64(s), "outcome=failure", "user=a")...)
	}
	if len(again) != 1 || !again[0].New || again[0].Episode == hits[0].Episode {
		t.Errorf("second attack: %+v", again)
	}
}

func TestOutOfOrderEventsCount(t *testing.T) {
	r := newRig(t, counting("event_count", "gte: 3", ""), CorrelatorOptions{})
	r.at(100, "outcome=failure", "user=a")
	r.at(109, "outcome=failure", "user=a")
	if h := r.at(105, "outcome=failure", "user=a"); len(h) != 1 {
		t.Fatalf("hits %v", h)
	}
}

func TestRangeCondition(t *testing.T) {
	r := newRig(t, counting("event_count", "gte: 2, lte: 3", ""), CorrelatorOptions{})
	// An upper bound is decided when the window is over: the first has six events, the second three.
	for i := range 6 {
		if h := r.at(float64(100+i)/10, "outcome=failure", "user=a"); len(h) != 0 {
			t.Fatalf("too soon: %+v", h)
		}
	}
	var hits []Hit
	for i := range 3 {
		hits = append(hits, r.at(float64(200+i), "outcome=failure", "user=a")...)
	}
	if hits = append(hits, r.c.Tick(300e9, 300e9, nil)...); len(hits) != 1 || hits[0].Count != 3 || hits[0].First != 200e9 || hits[0].Last != 202e9 || !hits[0].New {
		t.Errorf("hits %+v", hits)
	}
}

func TestValueCount(t *testing.T) {
	r := newRig(t, counting("value_count", "field: port, gte: 4", ""), CorrelatorOptions{})
	for i := range 20 { // repeats of three values, and a missing one, are not four
		if h := r.at(float64(100+i)/10, "outcome=failure", "user=a", fmt.Sprintf("port=%d", i%3)); len(h) != 0 {
			t.Fatal("repeated values counted")
		}
	}
	if h := r.at(13, "outcome=failure", "user=a"); len(h) != 0 {
		t.Fatal("a missing value counted")
	}
	if h := r.at(13, "outcome=failure", "user=a", "port=9"); len(h) != 1 || h[0].Value != 4 {
		t.Fatalf("hits %+v", h)
	}
	r = newRig(t, counting("value_count", "field: port, gte: 4", ""), CorrelatorOptions{})
	for i := range 40 { // a new value every 4 s: never four in 10 s
		if h := r.at(float64(100+4*i), "outcome=failure", "user=a", fmt.Sprintf("port=%d", i)); len(h) != 0 {
			t.Fatal("values outside of the window counted")
		}
	}
}

func TestTemporal(t *testing.T) {
	text := func(kind string) string {
		return "title: C\nid: 22222222-0000-4000-8000-000000000001\ncorrelation:\n  type: " + kind + "\n  rules: [failed, success]\n  group-by: [who]\n  timespan: 10s\n  aliases:\n    who: {failed: user, success: bytes}\n"
	}
	fail, ok := []string{"outcome=failure", "user=a"}, []string{"outcome=success", "bytes=a", "user=z"}
	for _, c := range []struct {
		kind string
		seq  []float64 // negative: success
		want int
	}{
		{"temporal", []float64{100, -105}, 1},
		{"temporal", []float64{-100, 105}, 1},
		{"temporal", []float64{100, -111}, 0},
		{"temporal_ordered", []float64{100, -105}, 1},
		{"temporal_ordered", []float64{-100, 105}, 0},
		{"temporal_ordered", []float64{100, -110.001}, 0},
		{"temporal_ordered", []float64{100, 108, -112}, 1},
	} {
		r := newRig(t, text(c.kind), CorrelatorOptions{})
		n := 0
		for _, s := range c.seq {
			f := fail
			if s < 0 {
				s, f = -s, ok
			}
			n += len(r.at(s, f...))
		}
		if n != c.want {
			t.Errorf("%s %v: %d hits, want %d", c.kind, c.seq, n, c.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		kind, cond string
		values     []int
		want       int
	}{
		{"value_sum", "field: bytes, gte: 100", []int{40, 50, 9}, 0},
		{"value_sum", "field: bytes, gte: 100", []int{40, 50, 10}, 1},
		{"value_avg", "field: bytes, gt: 10", []int{10, 10, 11}, 1},
		{"value_median", "field: bytes, gte: 5", []int{1, 2, 9, 9, 9}, 1},
		{"value_percentile", "field: bytes, percentile: 99, gt: 50", []int{1, 1, 1, 60}, 1},
	} {
		r := newRig(t, counting(c.kind, c.cond, ""), CorrelatorOptions{})
		n := 0
		for i, v := range c.values {
			n += len(r.at(float64(100+i), "outcome=failure", "user=a", fmt.Sprintf("bytes=%d", v)))
		}
		if n != c.want {
			t.Errorf("%s %s %v: %d hits, want %d", c.kind, c.cond, c.values, n, c.want)
		}
	}
}

func TestChain(t *testing.T) {
	r := newRig(t, counting("event_count", "gte: 2", "---\ntitle: Many users\nid: 33333333-0000-4000-8000-000000000001\ncorrelation:\n  type: value_count\n  rules: [c]\n  timespan: 60s\n  condition: {field: user, gte: 3}\n"), CorrelatorOptions{})
	var last []Hit
	for i := range 3 {
		u := fmt.Sprintf("user=u%d", i)
		r.at(float64(100+i), "outcome=failure", u)
		last = r.at(float64(100+i)+0.5, "outcome=failure", u)
	}
	if len(last) != 2 || r.e.CorrelationAlerts(last[0].Correlation) || !r.e.CorrelationAlerts(last[1].Correlation) {
		t.Fatalf("hits %+v", last)
	}
	if r.e.Alerts(0) {
		t.Error("a rule that a correlation uses alerts on its own")
	}
}

func TestIPv6GroupsByNetwork(t *testing.T) {
	r := newRig(t, strings.Replace(counting("event_count", "gte: 3", ""), "[user]", "[ip]", 1), CorrelatorOptions{})
	var h []Hit
	for i := range 3 {
		h = r.at(float64(100+i), "outcome=failure", fmt.Sprintf("ip=2001:db8:0:1::%x", i+1))
	}
	if len(h) != 1 || h[0].Group[0] != "2001:db8:0:1::/64" {
		t.Fatalf("hits %+v", h)
	}
}

func TestBoundsAreFairAndVisible(t *testing.T) {
	r := newRig(t, counting("event_count", "gte: 3", ""), CorrelatorOptions{MaxGroups: 100, ScopeGroups: 60})
	feed := func(scope uint32, user string, s float64) []Hit {
		r.rec.Reset()
		r.rec.AddString(r.names.Lookup("outcome"), "failure")
		r.rec.AddString(r.names.Lookup("user"), user)
		return r.c.Observe(r.m.Match(r.set, &r.rec, nil), &r.rec, int64(s*1e9), int64(s*1e9), scope, false, Ref{}, nil)
	}
	feed(2, "victim", 100)
	feed(2, "victim", 100.1)
	for i := range 10_000 { // one scope floods
		feed(1, fmt.Sprint(i), 101)
	}
	if h := feed(2, "victim", 102); len(h) != 1 {
		t.Error("another scope's flood pushed the state out")
	}
	s := r.c.Stats()
	if s.Groups > 100 || s.Evicted == 0 || r.c.EvictedByScope()[1] != s.Evicted || r.c.EvictedByScope()[2] != 0 {
		t.Errorf("stats %+v, by scope %v", s, r.c.EvictedByScope())
	}
	for i := range 200 { // memory is freed when time passes
		feed(3, "x", 10_000+float64(i))
	}
	if s := r.c.Stats(); s.Groups > 2 {
		t.Errorf("%d groups live long after their time", s.Groups)
	}
}

func TestSnapshot(t *testing.T) {
	for cut := range 60 {
		whole := newRig(t, counting("event_count", "gte: 5", ""), CorrelatorOptions{})
		parts := newRig(t, counting("event_count", "gte: 5", ""), CorrelatorOptions{})
		var a, b []Hit
		for i := range 60 {
			f := []string{"outcome=failure", fmt.Sprintf("user=%d", i%2)}
			if i == cut {
				snap := parts.c.Snapshot()
				parts.c = NewCorrelator(parts.e, CorrelatorOptions{})
				if err := parts.c.Restore(snap); err != nil {
					t.Fatal(err)
				}
			}
			a, b = append(a, whole.at(float64(100+i), f...)...), append(b, parts.at(float64(100+i), f...)...)
		}
		a, b = whole.c.Tick(1e13, 1e13, a), parts.c.Tick(1e13, 1e13, b)
		slices.SortFunc(a, func(x, y Hit) int { return strings.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
		slices.SortFunc(b, func(x, y Hit) int { return strings.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
		if fmt.Sprint(a) != fmt.Sprint(b) || len(a) == 0 {
			t.Fatalf("cut at %d: %v, want %v", cut, b, a)
		}
	}
}

func TestSnapshotOfOtherRules(t *testing.T) {
	r := newRig(t, counting("event_count", "gte: 5", ""), CorrelatorOptions{})
	r.at(100, "outcome=failure", "user=a")
	other := newRig(t, counting("event_count", "gte: 6", ""), CorrelatorOptions{})
	if err := other.c.Restore(r.c.Snapshot()); err != nil {
		t.Fatal(err)
	}
	if s := other.c.Stats(); s.Groups != 0 || s.Dropped != 1 {
		t.Errorf("stats %+v", s)
	}
}

func FuzzRestore(f *testing.F) {
	r := newRig(f, counting("event_count", "gte: 3", ""), CorrelatorOptions{})
	for i := range 10 {
		r.at(float64(100+i), "outcome=failure", "user=a")
	}
	f.Add(r.c.Snapshot())
	r = newRig(f, counting("value_count", "field: port, gte: 4", ""), CorrelatorOptions{})
	r.at(100, "outcome=failure", "user=a", "port=1")
	f.Add(r.c.Snapshot())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newRig(t, counting("event_count", "gte: 3", ""), CorrelatorOptions{})
		if r.c.Restore(b) != nil {
			return
		}
		for i := range 5 {
			r.at(float64(100+i), "outcome=failure", "user=a")
		}
		r.c.Tick(1e15, 1e15, nil)
		if err := r.c.Restore(r.c.Snapshot()); err != nil {
			t.Fatalf("own snapshot refused: %v", err)
		}
	})
}

// BenchmarkCorrelate measures observing over many groups, matching included.
func BenchmarkCorrelate(b *testing.B) {
	r := newRig(b, counting("event_count", "gte: 20", ""), CorrelatorOptions{})
	const groups = 100_000
	users := make([]string, groups)
	for i := range users {
		users[i] = fmt.Sprintf("user-%d", i)
	}
	fail, user := r.names.Lookup("outcome"), r.names.Lookup("user")
	rules := []int32{0}
	var hits []Hit
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		r.rec.Reset()
		r.rec.AddString(fail, "failure")
		r.rec.AddString(user, users[n%groups])
		at := int64(n) * 1e3
		hits = r.c.Observe(rules, &r.rec, at, at, uint32(n%8), false, Ref{}, hits[:0])
		n++
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
	if s := r.c.Stats(); s.Groups > 0 {
		b.ReportMetric(float64(s.StateBytes)/float64(s.Groups), "B/group")
	}
}

// TestNothingIsLostAtTheEnd: events of an attack that was not told of when it ended are told when time goes on, and when the next one
// begins.
func TestNothingIsLostAtTheEnd(t *testing.T) {
	for _, next := range []bool{false, true} {
		r := newRig(t, counting("event_count", "gte: 3", ""), CorrelatorOptions{})
		var hits []Hit
		for s := range 8 {
			hits = append(hits, r.at(float64(100+s), "outcome=failure", "user=a")...)
		}
		if next {
			hits = append(hits, r.at(500, "outcome=failure", "user=a")...)
		} else {
			hits = r.c.Tick(500e9, 500e9, hits)
		}
		last := hits[len(hits)-1]
		if len(hits) != 2 || last.New || last.Total != 8 || last.Count != 5 || last.Episode != hits[0].Episode || last.Last != 107e9 {
			t.Errorf("next %v: %+v", next, hits)
		}
	}
}

// TestBehindOthers: events that come behind others are counted in a window that holds them, never in two windows' worth of time.
func TestBehindOthers(t *testing.T) {
	r := newRig(t, counting("value_count", "field: port, gte: 4", ""), CorrelatorOptions{})
	for i, s := range []float64{115, 116, 106, 107} { // 106 to 116 is one timespan of 10 s, and 107 too
		if h := r.at(s, "outcome=failure", "user=a", fmt.Sprintf("port=%d", i)); len(h) != i/3 {
			t.Fatalf("at %v: %+v", s, h)
		}
	}
	r = newRig(t, counting("value_count", "field: port, gte: 4", ""), CorrelatorOptions{})
	for i, s := range []float64{115, 116, 101, 102} {
		if h := r.at(s, "outcome=failure", "user=a", fmt.Sprintf("port=%d", i)); len(h) != 0 {
			t.Fatalf("values 15 s apart are in a window of 10 s: %+v", h)
		}
	}
}

// TestRefsComeBack: the references of a hit are those that went in, also after a snapshot and after groups were freed.
func TestRefsComeBack(t *testing.T) {
	r := newRig(t, counting("event_count", "gte: 30", ""), CorrelatorOptions{MaxGroups: 8, MaxRefs: 6})
	feed := func(user string, s float64, n byte) []Hit {
		r.rec.Reset()
		r.rec.AddString(r.names.Lookup("outcome"), "failure")
		r.rec.AddString(r.names.Lookup("user"), user)
		return r.c.Observe([]int32{0}, &r.rec, int64(s*1e9), int64(s*1e9), 0, false, Ref{0: n % 5, 20: n, 27: 1}, nil)
	}
	var hits []Hit
	for i := range 30 {
		if i == 17 {
			snap := r.c.Snapshot()
			if err := r.c.Restore(snap); err != nil {
				t.Fatal(err)
			}
		}
		feed(fmt.Sprintf("noise %d", i), 100+float64(i)/10, byte(200+i%9))
		hits = feed("a", 100+float64(i)/10, byte(i+1))
	}
	if len(hits) != 1 {
		t.Fatalf("%d hits", len(hits))
	}
	var got []byte
	for _, ref := range hits[0].Refs {
		if ref[0] != ref[20]%5 || ref[27] != 1 {
			t.Errorf("reference %v", ref)
		}
		got = append(got, ref[20])
	}
	if want := []byte{1, 2, 3, 28, 29, 30}; !slices.Equal(got, want) {
		t.Errorf("references %v, want %v", got, want)
	}
	uses := 0
	for _, s := range r.c.streams.list {
		uses += s.n
	}
	refs, bytes := 0, 0
	for i := range r.c.groups.used {
		refs += int(r.c.groups.at(i).refs.n)
		bytes += r.c.groups.at(i).size()
	}
	if uses != refs || bytes != r.c.bytes {
		t.Errorf("%d references counted, %d there; %d bytes counted, %d there", uses, refs, r.c.bytes, bytes)
	}
}

// TestGroupStore compares the table with a map over many additions and removals.
func TestGroupStore(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var s groupStore
	want := map[[2]uint64]int32{}
	for range 20_000 {
		key := [2]uint64{rng.Uint64N(64) * 3, rng.Uint64N(40)} // many share a place
		if i, ok := want[key]; ok {
			s.remove(i)
			delete(want, key)
		} else {
			want[key] = s.add(key)
		}
	}
	for a := range uint64(64) {
		for b := range uint64(40) {
			key := [2]uint64{a * 3, b}
			i, ok := s.find(key)
			if j, there := want[key]; ok != there || ok && i != j {
				t.Fatalf("key %v: %d %v, want %d %v", key, i, ok, j, there)
			}
		}
	}
	if s.live != len(want) {
		t.Errorf("%d live, want %d", s.live, len(want))
	}
}

// TestChainInTightBounds: hits that feed other correlations can push out the very group that made them; nothing is mixed up then.
func TestChainInTightBounds(t *testing.T) {
	for _, limit := range []int{1, 2, 3} {
		r := newRig(t, counting("event_count", "gte: 2", "---\ntitle: Many users\nid: 33333333-0000-4000-8000-000000000001\ncorrelation:\n  type: temporal\n  rules: [c]\n  group-by: [user]\n  timespan: 60s\n"), CorrelatorOptions{MaxGroups: limit, ScopeGroups: limit})
		rng := rand.New(rand.NewPCG(uint64(limit), 1))
		at := 100.0
		for range 4000 {
			at += rng.Float64() * 6
			r.at(at, "outcome=failure", fmt.Sprintf("user=u%d", rng.IntN(4)))
			if rng.IntN(20) == 0 {
				r.c.Tick(int64(at*1e9), int64(at*1e9), nil)
			}
		}
		bytes, live := 0, 0
		for i := range r.c.groups.used {
			g := r.c.groups.at(i)
			if bytes += g.size(); g.key != ([2]uint64{}) {
				live++
			}
		}
		if s := r.c.Stats(); live != s.Groups || s.Groups > limit || bytes != r.c.bytes || s.Evicted == 0 {
			t.Errorf("limit %d: %d groups live, %d counted; %d bytes, %d counted; %+v", limit, live, s.Groups, bytes, r.c.bytes, s)
		}
	}
}
