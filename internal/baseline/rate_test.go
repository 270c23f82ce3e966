package baseline

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tocsin/internal/baseline/sketch"
	"tocsin/internal/event"
)

// monday is when the tests' time begins: a Monday, 00:00 UTC, in winter, so that London has the same hours.
var monday = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// weekday gives an instant by week, day (0 Monday) and time of day.
func weekday(week, day int, clock time.Duration) int64 {
	return monday.AddDate(0, 0, 7*week+day).Add(clock).UnixNano()
}

func engine(t testing.TB, o Options) *Engine {
	t.Helper()
	if o.Where == "" {
		o.Where = Hub
	}
	if o.Key == nil {
		o.Key = &sketch.Key{A: 11, B: 12}
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func id(n int) event.ID { return event.ID{Stream: event.StreamID{1}, Seq: 1, Index: uint32(n)} }

func denied(tenant event.TenantID, at int64, n int, source string) *Observation {
	return &Observation{Tenant: tenant, ID: id(1), At: at, N: uint32(n), What: DeniedInbound, Proven: true, Source: netip.MustParseAddr(source)}
}

// season feeds hours with the counts that f gives, from hour 0 of the week from up to the week to, and gives what was told.
func season(e *Engine, tenant event.TenantID, from, to int, f func(week, hour int) int) []event.Detection {
	var out []event.Detection
	for h := from * slots; h < to*slots; h++ {
		at := monday.Add(time.Duration(h) * time.Hour).Add(20 * time.Minute).UnixNano()
		if n := f(h/slots, h%slots); n > 0 {
			out = append(out, e.Observe(denied(tenant, at, n, "192.0.2.1"), at)...)
		}
	}
	return out
}

func TestPack(t *testing.T) {
	for _, n := range []uint64{0, 1, 2047, 2048, 2049, 4095, 4096, 1 << 20, 1<<40 + 12345, 1 << 62} {
		got, ok := unpack(pack(n))
		if !ok || n < 2048 && got != n || float64(got) > float64(n) || float64(got) < float64(n)*(1-1.0/1024) {
			t.Errorf("%d becomes %d", n, got)
		}
	}
	last := uint16(0)
	for n := uint64(0); n < 1<<63; n += 1 + n/300 {
		if c := pack(n); c < last {
			t.Fatalf("%d has a smaller code than less", n)
		} else {
			last = c
		}
	}
}

// The sentence of the design: a Sunday night's surge.
func TestSurgeExplainsItself(t *testing.T) {
	e := engine(t, Options{})
	sunday2 := 6*24 + 2
	values := []int{37, 64, 50, 41, 58, 45}
	for week := range 6 {
		if out := season(e, 7, week, week+1, func(w, h int) int {
			if h == sunday2 {
				return values[w]
			}
			return 30 + (h*7+w*3)%30
		}); len(out) > 0 {
			t.Fatalf("week %d: %v", week, out[0].Reason)
		}
	}
	season(e, 7, 6, 7, func(w, h int) int {
		if h >= sunday2 {
			return 0
		}
		return 30 + (h*7+w*3)%30
	})
	begin := weekday(6, 6, 2*time.Hour)
	var told []event.Detection
	for i := range 4812 {
		at := begin + int64(i)*700_000_000
		told = append(told, e.Observe(denied(7, at, 1, []string{"198.51.100.7", "203.0.113.9"}[i%2]), at)...)
	}
	if len(told) == 0 {
		t.Fatal("nothing was told while it went on")
	}
	// Twice 64 is below the least of 200 that an hour must have.
	if d := told[0]; d.Count != 200 || d.RuleID != "baseline-denied" || d.Family != "unusual-rate" || d.Tenant != 7 {
		t.Errorf("first told at %d: %+v", d.Count, d)
	}
	if got, want := told[0].Reason, "The firewall has refused 200 connections since 02:00; on the last six Sundays it was 37 to 64 in that hour. At least 100 of them came from 198.51.100.7."; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, d := range told[1:] {
		if d.Key != told[0].Key || d.Count < 400 {
			t.Errorf("an update has another key, or comes too soon: %d", d.Count)
		}
	}
	end := e.Flush(begin + int64(2*time.Hour))
	if len(end) != 1 {
		t.Fatalf("%d detections at the end of the hour", len(end))
	}
	if got, want := end[0].Reason, "The firewall refused 4,812 connections between 02:00 and 03:00; on the last six Sundays it was 37 to 64 in that hour. At least 2,406 of them came from"; !strings.HasPrefix(got, want) {
		t.Errorf("got  %s\nwant %s …", got, want)
	}
	if end[0].Key != told[0].Key || end[0].Count != 4812 || len(end[0].Events) != maxIDs {
		t.Errorf("the last word: key %s, count %d, %d events", end[0].Key, end[0].Count, len(end[0].Events))
	}
	// An attack is not learnt: the same the week after is told again.
	season(e, 7, 7, 8, func(w, h int) int {
		if h >= sunday2 {
			return 0
		}
		return 40
	})
	at := weekday(7, 6, 2*time.Hour+time.Minute)
	if out := e.Observe(denied(7, at, 300, "192.0.2.1"), at); len(out) != 1 {
		t.Errorf("the same surge a week later: %d detections", len(out))
	}
}

func TestNothingBeforeThreeWeeks(t *testing.T) {
	e := engine(t, Options{})
	if out := season(e, 1, 0, 3, func(w, h int) int {
		if h == 100 {
			return 1_000_000 * w
		}
		return 10
	}); len(out) > 0 {
		t.Errorf("told while learning: %s", out[0].Reason)
	}
}

// A level that stays is learnt: it is told when it begins, and no longer after some days.
func TestNewLevelIsLearnt(t *testing.T) {
	e := engine(t, Options{})
	r := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) int { return n*9/10 + r.IntN(n/5) }
	if out := season(e, 1, 0, 6, func(w, h int) int { return noise(100) }); len(out) > 0 {
		t.Fatalf("calm weeks: %s", out[0].Reason)
	}
	keys := map[string]bool{}
	for _, d := range season(e, 1, 6, 8, func(w, h int) int { return noise(1500) }) {
		keys[d.Key] = true
	}
	if len(keys) == 0 || len(keys) > 6 {
		t.Errorf("fifteen times as much for two weeks is %d detections, want a few", len(keys))
	}
	if out := season(e, 1, 8, 10, func(w, h int) int { return noise(1500) }); len(out) > 0 {
		t.Errorf("in the third week it is still told: %s", out[0].Reason)
	}
}

// Half as much again over a day, which no single hour shows.
func TestSlowRise(t *testing.T) {
	e := engine(t, Options{})
	r := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) int { return n*9/10 + r.IntN(n/5) }
	if out := season(e, 1, 0, 6, func(w, h int) int { return noise(100) }); len(out) > 0 {
		t.Fatalf("calm weeks: %s", out[0].Reason)
	}
	out := season(e, 1, 6, 7, func(w, h int) int {
		if h >= 48 && h < 96 {
			return noise(175)
		}
		return noise(100)
	})
	if len(out) == 0 {
		t.Fatal("a rise of three quarters over two days was not told")
	}
	d := out[0]
	if delay := time.Duration(d.Last - weekday(6, 2, 0)); delay > 26*time.Hour {
		t.Errorf("told after %v", delay)
	}
	if !strings.Contains(d.Reason, "in the 24 hours up to") || !strings.Contains(d.Reason, "in the same 24 hours of the last five weeks it was 2,") {
		t.Errorf("reason: %s", d.Reason)
	}
}

func TestDrop(t *testing.T) {
	e := engine(t, Options{})
	season(e, 1, 0, 6, func(w, h int) int { return 100 + h%5 })
	var out []event.Detection
	for h := range 24 {
		at := monday.Add(time.Duration(6*slots+h)*time.Hour + time.Minute).UnixNano()
		if h >= 4 {
			// Other lines still come.
			o := denied(1, at, 1, "192.0.2.1")
			o.What = FailedSignIn
			out = append(out, e.Observe(o, at)...)
		} else {
			out = append(out, e.Observe(denied(1, at, 100, "192.0.2.1"), at)...)
		}
	}
	if len(out) != 1 || out[0].RuleID != "baseline-denied-drop" {
		t.Fatalf("%d detections: %v", len(out), out)
	}
	if want := "The firewall has reported hardly any refused connections since 04:00: 0 in the last hour, in which it was 101 on the last six Mondays. Other lines still arrive."; out[0].Reason != want {
		t.Errorf("got  %s\nwant %s", out[0].Reason, want)
	}
	// Nothing at all is silence, which is health's matter.
	e = engine(t, Options{})
	season(e, 1, 0, 6, func(w, h int) int { return 100 })
	if out := e.Flush(weekday(6, 3, 0)); len(out) != 0 {
		t.Errorf("silence: %s", out[0].Reason)
	}
}

// Weeks away, as in the summer holidays, or without a line at all, as with a broken collector, do not make the return a finding.
func TestHolidaysAndGaps(t *testing.T) {
	for name, f := range map[string]func(w, h int) int{
		"holidays": func(w, h int) int {
			if w >= 8 && w < 14 {
				return 20
			}
			return 100
		},
		"gap": func(w, h int) int {
			if w >= 8 && w < 10 {
				return 0
			}
			return 100
		},
	} {
		e := engine(t, Options{})
		r := rand.New(rand.NewPCG(3, 4))
		if out := season(e, 1, 0, 18, func(w, h int) int {
			n := f(w, h) * 4
			return n*9/10 + r.IntN(n/5+1)
		}); len(out) > 0 {
			for _, d := range out {
				if d.RuleID != "baseline-denied-drop" || name == "gap" {
					t.Errorf("%s: %s", name, d.Reason)
				}
			}
		}
	}
}

// Lines over UDP have a baseline of their own: whoever forges them neither moves the one of known senders nor uses up its detections.
func TestForgedRates(t *testing.T) {
	calm := func(forge bool) (*Engine, []event.Detection) {
		e := engine(t, Options{})
		var out []event.Detection
		for h := range 7 * slots {
			at := monday.Add(time.Duration(h)*time.Hour + time.Minute).UnixNano()
			n := 100
			if h == 6*slots+90 {
				n = 1000
			}
			out = append(out, e.Observe(denied(1, at, n, "192.0.2.1"), at)...)
			if forge {
				o := denied(1, at, 50_000+h*h, "203.0.113.1")
				o.Proven = false
				if h%50 == 49 {
					o.N = 400_000_000
				}
				for _, d := range e.Observe(o, at) {
					if !strings.Contains(d.Reason, "UDP") {
						t.Fatalf("a forged surge is told as a proved one: %s", d.Reason)
					}
				}
			}
		}
		return e, out
	}
	_, want := calm(false)
	_, got := calm(true)
	keep := func(list []event.Detection) (out []string) {
		for _, d := range list {
			if !strings.Contains(d.Reason, "UDP") {
				out = append(out, d.Key+d.Reason)
			}
		}
		return out
	}
	if a, b := keep(want), keep(got); len(a) == 0 || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("forged lines change what known senders' lines say:\n%v\n%v", a, b)
	}
}

// A sender that claims to be a known one can at most double what is learnt in a week without being told.
func TestPoisoningIsSlow(t *testing.T) {
	e := engine(t, Options{})
	season(e, 1, 0, 4, func(w, h int) int { return 400 })
	for _, factor := range []float64{2.1, 3, 10} {
		c := engine(t, Options{})
		season(c, 1, 0, 6, func(w, h int) int { return 400 })
		if out := season(c, 1, 6, 7, func(w, h int) int {
			if h == 50 {
				return int(400 * factor)
			}
			return 400
		}); len(out) == 0 {
			t.Errorf("%.1f times as much in one hour was not told", factor)
		}
	}
}

func TestClocksAndLateness(t *testing.T) {
	e := engine(t, Options{})
	season(e, 1, 0, 4, func(w, h int) int { return 100 })
	before := e.clock
	// A collector whose clock is a year ahead.
	now := weekday(4, 0, time.Minute)
	e.Observe(denied(2, now+int64(365*24*time.Hour), 1, "192.0.2.1"), now)
	if e.clock > now || e.clock < before {
		t.Errorf("the clock went to %v", time.Unix(0, e.clock))
	}
	// One that was cut off sends what is hours old.
	late := e.Stats().Late
	e.Observe(denied(1, now-int64(5*time.Hour), 1_000_000, "192.0.2.1"), now)
	if e.Stats().Late != late+1 {
		t.Error("a late event was counted")
	}
	for _, at := range []int64{0, -5, 1<<63 - 1} {
		e.Observe(denied(1, at, 1, "192.0.2.1"), at)
	}
}
