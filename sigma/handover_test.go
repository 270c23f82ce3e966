package sigma

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// handoverRules are correlations of all sorts; a set leaves out, changes and reorders some of them.
func handoverRules(order []int, changed int) string {
	kinds := []string{
		"type: event_count\n  rules: [failed]\n  group-by: [user]\n  timespan: %ds\n  condition: {gte: 4}\n  generate: true",
		"type: value_count\n  rules: [failed]\n  group-by: [user]\n  timespan: %ds\n  condition: {field: port, gte: 3}",
		"type: event_count\n  rules: [failed]\n  group-by: [port]\n  timespan: %ds\n  condition: {lt: 3}",
		"type: temporal\n  rules: [failed, c0]\n  group-by: [user]\n  timespan: %ds",
		"type: value_sum\n  rules: [failed]\n  group-by: [ip]\n  timespan: %ds\n  condition: {field: bytes, gt: 50}",
		"type: temporal\n  rules: [failed, c0]\n  group-by: [user]\n  timespan: %ds\n  condition: failed and not c0",
	}
	text := ""
	for _, k := range order {
		span := 20
		if k == changed {
			span = 21
		}
		text += fmt.Sprintf("---\ntitle: C\nid: 22222222-0000-4000-8000-00000000000%d\nname: c%d\ncorrelation:\n  "+kinds[k]+"\n", k, k, span)
	}
	return text[4:]
}

// TestTake: what is taken over is what a snapshot restores, whatever became of the rules, and counts go on from there.
func TestTake(t *testing.T) {
	total := 0
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		opts := CorrelatorOptions{}
		if seed%4 == 3 {
			opts.MaxGroups = 12
		}
		first := newRig(t, handoverRules([]int{0, 1, 2, 3, 4, 5}, -1), opts)
		next := []int{0, 1, 2, 3, 4, 5}
		if seed%2 == 1 {
			rng.Shuffle(len(next), func(i, j int) { next[i], next[j] = next[j], next[i] })
			next = slices.DeleteFunc(next, func(k int) bool { return k == 1+rng.IntN(2) })
		}
		text := handoverRules(next, int(seed%5))
		restored, taken := newRig(t, text, opts), newRig(t, text, opts)
		at := 1000.0
		event := func() (float64, []string) {
			at += float64(rng.IntN(5000)) / 1000
			f := []string{fmt.Sprintf("user=u%d", rng.IntN(3)), fmt.Sprintf("port=%d", rng.IntN(4)), fmt.Sprintf("ip=192.0.2.%d", rng.IntN(3)), fmt.Sprintf("bytes=%d", rng.IntN(30))}
			if rng.IntN(4) > 0 {
				f = append(f, "outcome=failure")
			}
			return at - float64(rng.IntN(3)), f
		}
		for range 30 + rng.IntN(60) {
			s, f := event()
			first.at(s, f...)
			if rng.IntN(9) == 0 {
				first.c.Tick(int64(s*1e9), int64(s*1e9), nil)
			}
		}
		if err := restored.c.Restore(first.c.Snapshot()); err != nil {
			t.Fatal(err)
		}
		groups := first.c.Stats()
		taken.c.Take(first.c)
		if s := first.c.Stats(); s.Groups != 0 || s.StateBytes != 0 || s.Observed != groups.Observed {
			t.Fatalf("seed %d: left behind: %+v", seed, s)
		}
		a, b := restored.c.Stats(), taken.c.Stats()
		if a.Groups != b.Groups || a.Dropped != b.Dropped || groups.Groups != b.Groups+int(b.Dropped) {
			t.Fatalf("seed %d: of %d groups %+v, want %+v", seed, groups.Groups, b, a)
		}
		held := 0
		for i := range taken.c.groups.used {
			if g := taken.c.groups.at(i); g.corPrev != 0 || taken.c.byCor[g.cor].head == i+1 {
				held += g.size()
			}
		}
		if held != taken.c.bytes {
			t.Errorf("seed %d: %d bytes are held, %d counted", seed, held, taken.c.bytes)
		}
		var x, y []Hit
		for range 80 {
			s, f := event()
			x, y = append(x, restored.at(s, f...)...), append(y, taken.at(s, f...)...)
			now := int64(s * 1e9)
			x, y = restored.c.Tick(now, now, x), taken.c.Tick(now, now, y)
		}
		x, y = restored.c.Tick(1e15, 1e15, x), taken.c.Tick(1e15, 1e15, y)
		if opts.MaxGroups > 0 { // who is pushed out depends on the order of groups
			if s := taken.c.Stats(); s.Groups > opts.MaxGroups {
				t.Errorf("seed %d: %+v", seed, s)
			}
			continue
		}
		total += len(x)
		if l, m := episodes(x), episodes(y); !maps.Equal(l, m) {
			t.Fatalf("seed %d: %v, want %v", seed, m, l)
		}
	}
	if total < 500 {
		t.Errorf("only %d hits", total)
	}
}

// episodes are what hits tell in all. Of those that build on others only the first hit: what is told when both end depends on the places of groups.
func episodes(hits []Hit) map[string]string {
	last := map[string]string{}
	for _, h := range hits {
		refs := ""
		for _, r := range h.Refs {
			refs += string(bytes.TrimRight(r[:], "\x00")) + " "
		}
		name := fmt.Sprint(h.Correlation, h.Scope, h.Late, h.Group, h.Episode)
		if h.New {
			last[name+" first"] = fmt.Sprint(h.First, h.Last, h.Count, h.Value, h.Rules, refs)
		}
		if h.Rules == nil {
			last[name] = fmt.Sprint(h.Last, h.Total, refs)
		}
	}
	return last
}
