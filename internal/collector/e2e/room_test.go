package e2e

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/event"
)

// A full spool lets go of what repeats and of noise before the signs it might cover, whatever came first, holds its bound, and counts each event
// by what it was; also behind a batch that is under way, over a restart, and when that batch is sealed again.
func TestSpoolFull(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name             string
		talked, restarts bool
	}{{"the hub was never reached", false, false}, {"a batch is under way, and its record is lost", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			s := newSite(t, h, "Mill")
			s.cfg.Spool.MaxBytes, s.cfg.RetryMax = 1<<20, 200*time.Millisecond
			n, signs := uint64(0), 0
			var r *running
			burst := func(m int) {
				conn := r.tcp()
				for i := range m {
					if n++; i%40 == 0 {
						signs++
						fmt.Fprintf(conn, "%s\n", vpn(false, fmt.Sprintf("203.0.113.%d", i/40%250+1), "someone"))
						continue
					}
					fmt.Fprintf(conn, "%s\n", traffic("deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i))
				}
			}
			worked := func() {
				r.until("all worked on", func(st *collector.Status) bool { return st.Counts["received"] == n })
				r.until("the spool is within its bound", func(st *collector.Status) bool {
					return sum(st.Counts, "dropped.") > 0 && st.SpoolBytes <= s.cfg.Spool.MaxBytes
				})
			}
			if c.talked {
				r = s.start()
				burst(50)
				r.settled(n)
				h.away()
			} else {
				h.away()
				r = s.start()
			}
			burst(4000)
			worked()
			if c.restarts {
				r.end()
				removeAll(t, s.cfg.Dir, "batches")
				r = s.start()
			}
			burst(2500)
			worked()
			st := r.Status()
			if made, gone := sum(st.Counts, "left.")+sum(st.Counts, "made."), st.Sent+st.Waiting+sum(st.Counts, "dropped."); made != gone {
				t.Errorf("while the hub is away %d events were made and %d are accounted for: %v", made, gone, st.Counts)
			}
			h.back()
			r.settled(n)
			k := h.take(s.id)
			k.balance(t)
			dropped := sum(k.counts, "dropped.")
			if k.counts["received"] != n || dropped == 0 || dropped != k.counts["dropped.spool_full.denied_inbound"] {
				t.Errorf("%d lines: %v", n, k.counts)
			}
			came, first := 0, map[string]bool{}
			for i := range k.events {
				if k.events[i].Str(event.TocsinLeftReason) == "failed_authentication" {
					came++
				} else if yes, _ := k.events[i].Get(event.TocsinFirstDenial); yes.Bool() {
					first[k.events[i].Text(event.SourceIP)] = true
				}
			}
			if came != signs || len(first) < 240 {
				t.Errorf("%d failed sign-ins of %d came, and first refusals of %d sources: %v", came, signs, len(first), slices.Sorted(maps.Keys(first)))
			}
			r.end()
		})
	}
}

// When there are more signs than the spool can hold, the oldest of them go too, and are counted by name.
func TestTortureSpoolOfSigns(t *testing.T) {
	t.Parallel()
	long(t)
	h := newHub(t)
	s := newSite(t, h, "Weir")
	s.cfg.Spool.MaxBytes, s.cfg.RetryMax = 1<<20, 200*time.Millisecond
	r := s.start()
	conn := r.tcp()
	for range 10 {
		fmt.Fprintf(conn, "%s\n", vpn(false, "203.0.113.1", "someone"))
	}
	r.settled(10)
	h.away()
	const n = 3500
	for i := range n {
		fmt.Fprintf(conn, "%s\n", vpn(false, fmt.Sprintf("203.0.%d.%d", i/200+1, i%200+1), "someone"))
	}
	r.until("the spool is within its bound", func(st *collector.Status) bool {
		return st.Counts["received"] == n+10 && st.Counts["dropped.spool_full.failed_authentication"] > 0 && st.SpoolBytes <= s.cfg.Spool.MaxBytes
	})
	h.back()
	r.settled(n + 10)
	k := h.take(s.id)
	k.balance(t)
	if gone := k.counts["dropped.spool_full.failed_authentication"]; gone != sum(k.counts, "dropped.")-k.counts["dropped.spool_full.detection"]-k.counts["dropped.spool_full.site_detection"] || gone == 0 {
		t.Errorf("%v", k.counts)
	}
	if last := k.raw[len(k.raw)-1]; len(k.events) < 1000 {
		t.Errorf("%d events came, the last is %s", len(k.events), last)
	}
}
