package sigma

import (
	"fmt"
	"strings"
	"testing"
)

func extended(kind, condition, more string) string {
	return fmt.Sprintf("title: c\nid: c1\ncorrelation:\n  type: %s\n  group-by: [user]\n  timespan: 10s\n  condition: %s\n%s", kind, condition, more)
}

// TestExtendedConditions are timelines of pySigma's conditions over rules. f is a failed sign-in, s a success, at the second behind it; t
// only lets time pass. A hit is written as the time at which it was told, and the first and last event of it.
func TestExtendedConditions(t *testing.T) {
	for _, c := range []struct{ name, kind, condition, timeline, want string }{
		{"and", "temporal", "failed and success", "s100 f105", "105:100-105"},
		{"and, too far apart", "temporal", "failed and success", "s100 f111", ""},
		{"or", "temporal", "failed or success", "s100", "100:100-100"},
		{"not is decided when the time is over", "temporal", "failed and not success", "f100 t110 t111", "111:100-100"},
		{"not: the other came in time", "temporal", "failed and not success", "f100 s110 t125", ""},
		{"not: the other came just too late", "temporal", "failed and not success", "f100 s111 t125", "111:100-100"},
		{"not: the other came before, in one window with it", "temporal", "failed and not success", "s95 f100 t125", ""},
		{"not: the other came long before", "temporal", "failed and not success", "s85 f100 t125", "125:100-100"},
		{"not: again after it was prevented", "temporal", "failed and not success", "f100 s101 f120 t140", "140:120-120"},
		{"not: the next event of the group tells it too", "temporal", "failed and not success", "f100 f130 t150", "130:100-100 150:130-130"},
		{"not binds before or", "temporal", "failed and not success or failed and success", "f100 s101", "101:100-101"},
		{"ordered as the condition says", "temporal_ordered", "failed and success", "f100 s105", "105:100-105"},
		{"ordered, the other way round", "temporal_ordered", "failed and success", "s100 f105", ""},
		{"ordered, with not", "temporal_ordered", "failed and not success", "f100 t120", "120:100-100"},
		{"double negation", "temporal", "not (not failed or not success)", "f100 s103", "103:100-103"},
	} {
		r := newRig(t, extended(c.kind, c.condition, ""), CorrelatorOptions{})
		var got []string
		note := func(at string, hits []Hit) {
			for _, h := range hits {
				got = append(got, fmt.Sprintf("%s:%d-%d", at, h.First/1e9, h.Last/1e9))
			}
		}
		for _, e := range strings.Fields(c.timeline) {
			var s float64
			fmt.Sscan(e[1:], &s)
			ns := int64(s * 1e9)
			switch e[0] {
			case 'f':
				note(e[1:], r.at(s, "outcome=failure", "user=a"))
			case 's':
				note(e[1:], r.at(s, "outcome=success", "user=a"))
			default:
				note(e[1:], r.c.Tick(ns, ns, nil))
			}
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %s: %q, want %q", c.name, c.timeline, text, c.want)
		}
		if len(r.c.waiting) > 0 && !strings.Contains(c.timeline, "t1") {
			t.Errorf("%s: still waiting", c.name)
		}
	}
}

// TestWaitingAcrossRestart: what waits is saved, and decided after the restart with the same result. It does not expire meanwhile.
func TestWaitingAcrossRestart(t *testing.T) {
	for _, cor := range []string{extended("temporal", "failed and not success", ""), counting("event_count", "lt: 3", ""), counting("value_sum", "field: bytes, lte: 50", "")} {
		r := newRig(t, cor, CorrelatorOptions{})
		r.at(100, "outcome=failure", "user=a", "bytes=20")
		snapshot := r.c.Snapshot()
		if snapshot[0] != snapshotWaiting {
			t.Fatalf("version %d", snapshot[0])
		}
		c := NewCorrelator(r.e, CorrelatorOptions{})
		if err := c.Restore(snapshot); err != nil {
			t.Fatal(err)
		}
		if h := c.Tick(110e9, 110e9, nil); len(h) != 0 {
			t.Fatalf("too soon: %+v", h)
		}
		h := c.Tick(111e9, 111e9, nil)
		if len(h) != 1 || h[0].First != 100e9 || h[0].Group[0] != "a" || !h[0].New || h[0].Count != 1 {
			t.Fatalf("hits %+v", h)
		}
		if h := c.Tick(200e9, 200e9, nil); len(h) != 0 || len(c.waiting) != 0 || len(c.dues) != 0 {
			t.Fatalf("told twice: %+v", h)
		}
		for cut := range len(snapshot) { // a torn snapshot is refused, not half taken
			if err := NewCorrelator(r.e, CorrelatorOptions{}).Restore(snapshot[:cut]); err == nil {
				t.Fatalf("a snapshot cut at %d was taken", cut)
			}
		}
	}
}

// TestWaitingIsBounded: groups that are pushed out are counted and decide nothing; a late group is given time.
func TestWaitingIsBounded(t *testing.T) {
	r := newRig(t, extended("temporal", "failed and not success", ""), CorrelatorOptions{MaxGroups: 10, ScopeGroups: 10})
	for i := range 100 {
		r.at(100+float64(i)/1000, "outcome=failure", fmt.Sprintf("user=u%d", i))
	}
	if len(r.c.waiting) != 10 || r.c.Stats().Evicted != 90 {
		t.Fatalf("%d waiting, %d evicted", len(r.c.waiting), r.c.Stats().Evicted)
	}
	if h := r.c.Tick(120e9, 120e9, nil); len(h) != 10 {
		t.Fatalf("%d hits", len(h))
	}
}

func TestExtendedErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{extended("temporal", "failed and not", ""), "it ends where"},
		{extended("temporal", "not failed", ""), "without any event"},
		{extended("temporal", "failed and not failed", ""), "never hold"},
		{extended("event_count", "failed and success", ""), "temporal and temporal_ordered"},
		{extended("temporal", "failed", "  rules: [failed, success]\n"), `"success" is in the list but not in the condition`},
		{extended("temporal", "failed and success", "  rules: [failed]\n"), `names "success", which is not in the list`},
		{extended("temporal", "failed and nobody", ""), `"nobody", which does not exist`},
		{extended("temporal", "1 of failed", ""), "names each rule"},
		{extended("temporal", "''", ""), "empty"},
	} {
		col := &Collection{}
		errs := col.Parse("t.yml", []byte(baseRule+"---\n"+c.text))
		e, err := Compile(col, Options{Schema: &Names{}})
		if err != nil {
			t.Fatal(err)
		}
		if errs = append(errs, e.Errors...); len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, errs, c.want)
		}
	}
}

// TestTimespans: months and years are the mean ones of the calendar, as in pySigma 1.5.
func TestTimespans(t *testing.T) {
	for in, want := range map[string]int64{"1s": 1, "5m": 300, "2h": 7200, "1d": 86400, "1w": 604800, "1M": 2629746, "1y": 31556952} {
		if d, err := parseTimespan(in); err != nil || int64(d.Seconds()) != want {
			t.Errorf("%s: %v, %v", in, d, err)
		}
	}
}
