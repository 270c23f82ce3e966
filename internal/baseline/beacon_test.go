package baseline

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tocsin/internal/event"
)

func contact(at int64, host, to netip.Addr, port uint16) *Observation {
	return &Observation{ID: id(5), At: at, What: Outbound, Proven: true, Session: true, Source: host, Destination: to, Port: port}
}

var inside, outside = netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("203.0.113.66")

// learnt is a site's engine that has seen ordinary traffic for three weeks.
func learnt(t testing.TB) *Engine {
	e := engine(t, Options{Where: Site})
	days(0, 21, func(d int, at int64) {
		e.Observe(contact(at, netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("192.0.2.1"), 443), at)
	})
	return e
}

func TestBeacon(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, c := range []struct {
		period time.Duration
		jitter float64
		most   int // contacts until it is told
	}{
		{30 * time.Second, 0, 122}, {time.Minute, 0.1, 70}, {5 * time.Minute, 0.3, 30}, {time.Hour, 0.3, 30}, {6 * time.Hour, 0.2, 30}, {10 * time.Minute, 0.5, 60},
	} {
		e := learnt(t)
		at := weekday(3, 0, 0)
		var told []event.Detection
		n := 0
		for n = 1; n <= 200 && len(told) == 0; n++ {
			told = e.Observe(contact(at, inside, outside, 443), at)
			at += int64(float64(c.period) * (1 + c.jitter*(2*r.Float64()-1)))
		}
		if len(told) != 1 || told[0].RuleID != "baseline-beacon" {
			t.Errorf("every %v with a jitter of %.0f %%: not told after 200 contacts", c.period, 100*c.jitter)
			continue
		}
		t.Logf("every %v, jitter %.0f %%: contact %d: %s", c.period, 100*c.jitter, n-1, told[0].Reason)
		if n-1 > c.most {
			t.Errorf("every %v with a jitter of %.0f %%: told at contact %d, want at most %d", c.period, 100*c.jitter, n-1, c.most)
		}
		for range 300 { // once
			if out := e.Observe(contact(at, inside, outside, 443), at); len(out) > 0 {
				t.Fatalf("told again: %s", out[0].Reason)
			}
			at += int64(c.period)
		}
	}
}

func TestBeaconSentence(t *testing.T) {
	e := learnt(t)
	var told []event.Detection
	for at := weekday(3, 0, 0); len(told) == 0; at += int64(5 * time.Minute) {
		told = e.Observe(contact(at, inside, outside, 443), at)
	}
	want := "10.0.0.5 connected to 203.0.113.66 port 443 13 times in 60 minutes, every 5 minutes, and four of five times within 1 % of that; before, this machine did not call there in a beat, and fewer than 4 machines here call there."
	if told[0].Reason != want {
		t.Errorf("got  %s\nwant %s", told[0].Reason, want)
	}
	if told[0].Entity != (event.Entity{Kind: "host", Value: "10.0.0.5"}) {
		t.Errorf("entity %v", told[0].Entity)
	}
}

// Ordinary contacts, however many, are no beat.
func TestRandomContactsAreNoBeacon(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	e := learnt(t)
	n, told := 0, 0
	for pair := range 1000 {
		to := netip.AddrFrom4([4]byte{203, byte(pair >> 8), byte(pair), 9})
		mean := float64(time.Minute) * math.Pow(60, r.Float64())
		at := weekday(3, 0, 0)
		for range 100 {
			at += int64(r.ExpFloat64() * mean)
			told += len(e.Observe(contact(at, inside, to, 443), at))
			n++
		}
	}
	t.Logf("%d of %d random contacts were told", told, n)
	if told > 0 {
		t.Errorf("%d of %d random contacts were told as a beat", told, n)
	}
}

// What many machines call, time and name services, and what beat already while the collector learnt are not told.
func TestBenignBeats(t *testing.T) {
	e := engine(t, Options{Where: Site})
	many := netip.MustParseAddr("192.0.2.50")
	var told []event.Detection
	for d := range 30 {
		for i := range 40 {
			at := monday.AddDate(0, 0, d).Add(time.Duration(i) * 10 * time.Minute).UnixNano()
			observe := func(o *Observation) { told = append(told, e.Observe(o, at)...) }
			observe(contact(at, inside, outside, 443)) // from the first day on
			observe(contact(at, inside, netip.MustParseAddr("198.51.100.123"), 123))
			for h := range 6 {
				host := netip.AddrFrom4([4]byte{10, 0, 1, byte(h)})
				if d%3 == h%3 {
					observe(contact(at, host, many, 443))
				}
				if d >= 20 { // a new one in a network that all have used for long
					observe(contact(at, host, netip.MustParseAddr("192.0.2.51"), 443))
				}
			}
		}
	}
	for _, d := range told {
		if strings.Contains(d.Reason, "10.0.0.5") || d.RuleID != "baseline-beacon" {
			t.Errorf("told: %s", d.Reason)
		}
	}
	if len(told) > 3 { // the first few machines, until it is common
		t.Errorf("%d machines told of a destination that all call", len(told))
	}
}

// A slow beat stays in a table that ordinary traffic fills many times over.
func TestBeatUnderPressure(t *testing.T) {
	e := engine(t, Options{Where: Site})
	e.lim.beats = 256
	days(0, 21, func(d int, at int64) {
		e.Observe(contact(at, netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("192.0.2.1"), 443), at)
	})
	r := rand.New(rand.NewPCG(9, 10))
	var told []event.Detection
	begin := weekday(3, 0, 0)
	next := begin
	for at := begin; at < begin+int64(48*time.Hour) && len(told) == 0; at += int64(2 * time.Second) {
		o := contact(at, netip.AddrFrom4([4]byte{10, 0, 2, byte(r.IntN(200))}), netip.AddrFrom4([4]byte{198, 51, byte(r.IntN(100)), byte(r.IntN(250))}), 443)
		e.Observe(o, at)
		if at >= next {
			told = e.Observe(contact(at, inside, outside, 443), at)
			next += int64(time.Hour)
		}
	}
	if len(told) == 0 {
		t.Error("an hourly beat among 1,800 other contacts an hour was lost from a table of 256")
	}
}
