package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/event"
)

// The whole line on a real gate: scans, a VPN that is guessed open, an indicator, benign traffic, and everything a sender can do wrong.
func TestEndToEnd(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.indicators(1, "203.0.113.66")
	s := newSite(t, h, "Hill School")
	r := s.start()
	r.until("indicators in force", func(st *collector.Status) bool { return st.Indicators != "" })
	tcp, udp := r.tcp(), r.udp()
	n := uint64(0)
	line := func(l string) { fmt.Fprintf(tcp, "%s\n", l); n++ }
	for i := range 500 {
		line(traffic("accept", "10.0.0.5", "203.0.113.200", i))
	}
	for i := range 40 {
		line(traffic("deny", "203.0.113.5", fmt.Sprintf("198.51.100.%d", i+1), i))
	}
	line(traffic("accept", "10.0.0.7", "203.0.113.66", 1))
	for range 12 {
		line(vpn(false, "203.0.113.9", "ann.secret"))
	}
	line(vpn(true, "203.0.113.9", "ann.secret"))
	line(vpn(true, "203.0.113.10", "bob.secret")) // an ordinary sign-in stays
	line("complete garbage \xff\xfe\x01")
	line(strings.Repeat("x", 1<<20))
	wrong := strings.Replace(traffic("deny", "203.0.113.6", "198.51.100.7", 7), time.Now().UTC().Format(time.DateOnly), "2031-01-01", 1)
	line(wrong)
	line(traffic("deny", "203.0.113.6", "198.51.100.7", 8)[:150])
	fmt.Fprint(udp, traffic("deny", "203.0.113.77", "198.51.100.7", 9))
	n++
	st := r.settled(n)
	k := h.take(s.id)
	k.balance(t)
	if k.counts["received"] != n || st.Counts["received"] != n {
		t.Errorf("sent %d lines, the hub heard of %d, the collector says %d", n, k.counts["received"], st.Counts["received"])
	}
	for name, want := range map[string]uint64{"left.indicator": 1, "left.failed_authentication": 12, "left.site_detection": 1, "kept.authentication": 1, "kept.allowed": 500,
		"left.denied_inbound": 42, "oversized": 1, "clock_replaced": 1} {
		if k.counts[name] != want {
			t.Errorf("%s is %d, want %d (%v)", name, k.counts[name], want, k.counts)
		}
	}
	if k.counts["made.detection"] == 0 || k.counts["not_understood"] < 2 {
		t.Errorf("%v", k.counts)
	}
	var detection *event.Event
	for i := range k.events {
		e := &k.events[i]
		switch {
		case e.IsDetection() && e.Str(event.TocsinDetectionFamily) == "account-takeover":
			detection = e
		case e.Str(event.TocsinLeftReason) == "indicator":
			if dst, _ := e.IP(event.DestinationIP); dst != netip.MustParseAddr("203.0.113.66") || e.Str(event.TocsinIndicatorID) == "" || e.Str(event.NetworkDirection) != "outbound" {
				t.Errorf("indicator: %s", k.raw[i])
			}
		case e.Has(event.TocsinDeviceTime):
			if time.Since(time.Unix(0, e.Time)).Abs() > time.Minute {
				t.Errorf("a wrong clock was believed: %s", k.raw[i])
			}
		}
		if !e.IsDetection() && (!e.HasRawDigest || !e.Has(event.EventSequence) || e.Str(event.TocsinSenderAssurance) == "") {
			t.Errorf("event without digest, number or sender: %s", k.raw[i])
		}
	}
	if detection == nil {
		t.Fatalf("no detection of the sign-in after failures: %s", dumpNames(k))
	}
	d, err := event.ToDetection(detection)
	if err != nil {
		t.Fatal(err)
	}
	if d.Entity != (event.Entity{Kind: "source", Value: "203.0.113.9"}) || d.Level != "critical" || d.User != "" || len(d.Events) < 2 {
		t.Errorf("detection: %+v", d)
	}
	success := false
	for _, id := range d.Events {
		if !k.ids[id] {
			t.Errorf("the detection points at %s, which the hub has not", id)
		}
		for i := range k.events {
			success = success || k.events[i].ID == id && k.events[i].Str(event.EventOutcome) == "success"
		}
	}
	if !success {
		t.Error("the detection does not point at the sign-in")
	}
	if all := strings.Join(k.raw, "\n"); strings.Contains(all, "secret") || strings.Contains(all, "msg") || strings.Contains(all, "tunnel established") {
		t.Error("content left the site")
	}
	r.end()
	if left := h.take(s.id); left.batches < k.batches {
		t.Error("batches disappeared")
	}

	// The member's own record says the same.
	var total collector.Totals
	if err := collector.ReadSent(&s.cfg, func(b *collector.SentBatch) (bool, error) { total.Add(b); return true, nil }); err != nil {
		t.Fatal(err)
	}
	if total.Confirmed != total.Batches || total.Events != uint64(len(k.events)) || total.Counts["received"] != n {
		t.Errorf("the record says %+v", total)
	}
}

// The hub goes away and comes back, is slow, and the collector is restarted meanwhile: nothing is lost, what is new does not wait behind
// what is old.
func TestHubAwayAndBack(t *testing.T) {
	t.Parallel()
	h, s, r, c := begin(t, "Works")
	n := uint64(0)
	burst := func(m int) {
		for i := range m {
			fmt.Fprintf(c, "%s\n", traffic("deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i))
			n++
		}
	}
	burst(100)
	r.settled(n)
	h.away()
	burst(20000)
	r.until("all worked on while the hub is away", func(st *collector.Status) bool { return st.Counts["received"] == n && st.HubTrouble != "" })
	r.end()
	r = s.start()
	c = r.tcp()
	burst(1000)
	r.until("worked on although the hub was never reached", func(st *collector.Status) bool { return st.Counts["received"] == n })
	h.back()
	h.slow(100 * time.Millisecond)
	r.until("a part is confirmed", func(st *collector.Status) bool { return st.Acknowledged > 1000 })
	burst(1000)
	r.settled(n)
	k := h.take(s.id)
	k.balance(t)
	if k.counts["received"] != n || k.counts["left.denied_inbound"] != n || len(k.events) != int(n+sum(k.counts, "made.")) {
		t.Errorf("sent %d lines: %v", n, k.counts)
	}
	if k.lanes["backlog"] == 0 || k.lanes["live"] == 0 {
		t.Errorf("events by lane: %v", k.lanes)
	}
}

// A collector restored from an older copy of its disk: the hub says what it has, and exactly the rest is sent.
func TestRestoredCopy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		since int  // lines between the copy and the loss
		away  bool // the hub cannot be asked when the copy comes up: it works on its lines before it knows
	}{{"what waited was sent since", 0, false}, {"more came since", 700, false}, {"and the hub is away", 700, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			s := newSite(t, h, "Town Hall")
			r := s.start()
			n := uint64(0)
			burst := func(m int) {
				conn := r.tcp()
				for i := range m {
					act, src, dst := "deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7"
					if i%3 == 0 {
						act, src, dst = "accept", "10.0.0.1", "203.0.113.1"
					}
					fmt.Fprintf(conn, "%s\n", traffic(act, src, dst, i))
					n++
				}
				r.until("lines received", func(st *collector.Status) bool { return st.Counts["received"] == n })
			}
			burst(500)
			r.settled(n)
			// The copy is taken while there is work in every stage: received and not sent, because the hub is away.
			h.away()
			burst(9000)
			copied := *s
			copied.cfg.Dir = s.cfg.Dir + "-copy"
			copyDir(t, s.cfg.Dir, copied.cfg.Dir)
			h.back()
			r.settled(n)
			burst(c.since)
			r.settled(n)
			r.end()
			before := h.take(s.id)
			before.balance(t)
			if before.counts["received"] != n {
				t.Fatalf("received %d of %d", before.counts["received"], n)
			}
			// The machine breaks; its disk comes back from the copy.
			if c.away {
				h.away()
			}
			r = copied.start(func(o *collector.Options) {
				o.HoldStart = 10 * time.Second
				if c.away {
					o.HoldStart = time.Millisecond
				}
			})
			conn := r.tcp()
			had := r.Status().Counts["received"]
			for i := range 300 {
				fmt.Fprintf(conn, "%s\n", traffic("deny", "203.0.113.99", "198.51.100.8", i))
				n++
			}
			if c.away {
				r.until("worked on without the hub", func(st *collector.Status) bool { return st.Counts["received"] >= had+300 && st.ArchiveLag == 0 })
				h.back()
			}
			r.until("the new lines are confirmed", func(st *collector.Status) bool {
				return h.take(s.id).counts["received"] == n && st.Waiting == 0 && st.Sent == st.Acknowledged && !st.Unreported
			})
			k := h.take(s.id)
			k.balance(t)
			if made := sum(k.counts, "made.") - sum(before.counts, "made."); k.counts["received"] != n || len(k.events) != len(before.events)+300+int(made) {
				t.Errorf("%d lines went in; the hub heard of %d and has %d events, %d before", n, k.counts["received"], len(k.events), len(before.events))
			}
			if !strings.Contains(s.logs.String(), "older copy of a collector") {
				t.Error("the copy was not noticed")
			}
			r.end()
		})
	}
}

// A hub restored from an older copy gets again what it lost, byte for byte.
func TestRestoredHub(t *testing.T) {
	t.Parallel()
	h, s, r, c := begin(t, "College")
	n := uint64(0)
	burst := func(m int) {
		for i := range m {
			fmt.Fprintf(c, "%s\n", traffic("deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i))
			n++
		}
		r.settled(n)
	}
	burst(200)
	h.away()
	h.close()
	backup := t.TempDir()
	copyDir(t, h.dir, backup)
	h.open()
	h.back()
	for range 4 {
		burst(150)
	}
	want := h.take(s.id)
	h.away()
	h.close()
	for _, d := range []string{"t.db", "t.db-wal", "t.db-shm", "bus", "blobs", "tenants"} {
		removeAll(t, h.dir, d)
	}
	copyDir(t, backup, h.dir)
	h.open()
	h.back()
	burst(150)
	k := h.take(s.id)
	k.balance(t)
	if k.counts["received"] != n || len(k.events) != int(n+sum(k.counts, "made.")) {
		t.Fatalf("sent %d lines; the restored hub heard of %d and has %d events; it had %d", n, k.counts["received"], len(k.events), len(want.events))
	}
	if !slices.Equal(k.raw[:len(want.raw)], want.raw) {
		t.Error("what was sent again differs")
	}
}

// Two copies that run at the same time are noticed, and stop overtaking each other.
func TestClone(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Clinic")
	r := s.start()
	send := func(r *running, m int) {
		c := r.tcp()
		for i := range m {
			fmt.Fprintf(c, "%s\n", traffic("deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i))
		}
		c.Close()
	}
	send(r, 100)
	r.settled(100)
	copied := *s
	copied.cfg.Dir = s.cfg.Dir + "-clone"
	copyDir(t, s.cfg.Dir, copied.cfg.Dir)
	// Runs that begin in one second would number their lines alike.
	r2 := copied.start(func(o *collector.Options) {
		o.Now = func() time.Time { return time.Now().Add(2 * time.Second) }
	})
	send(r2, 100)
	r2.settled(200)
	send(r, 100)
	deadline := time.Now().Add(30 * time.Second)
	for len(h.told("clone"))+len(h.told("fork")) == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the hub was told of no clone")
		}
		time.Sleep(20 * time.Millisecond)
	}
	k := h.take(s.id)
	k.noDoubles(t)
}

// The certificate is renewed unattended, also when it has expired while the collector was off.
func TestRenewal(t *testing.T) {
	h := newHub(t)
	h.away()
	h.life = 3 * time.Second
	h.back()
	s := newSite(t, h, "Farm")
	time.Sleep(3500 * time.Millisecond) // the first certificate is over before the collector first runs
	r := s.start()
	c := r.tcp()
	for i := range 50 {
		fmt.Fprintf(c, "%s\n", traffic("deny", "203.0.113.1", "198.51.100.7", i))
	}
	first := r.settled(50).NotAfter
	for i := range 50 {
		fmt.Fprintf(c, "%s\n", traffic("deny", "203.0.113.1", "198.51.100.7", i))
	}
	r.settled(100)
	if !first.After(time.Now().Add(-3 * time.Second)) {
		t.Errorf("certificate until %v", first)
	}
	h.take(s.id).balance(t)
}
