package gate

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/keys"
)

func TestRates(t *testing.T) {
	h := newHub(t, func(o *Options) {
		o.Limits = Limits{StreamRate: 5, StreamBurst: 3, UrgentRate: 1, UrgentBurst: 2, TenantEvents: 1000, TenantBurst: 10_000, EnrolRate: 1, EnrolBurst: 4}
	})
	s := newSite(t, h, "Ashgrove School")
	other := newSite(t, h, "Brindle Engineering")
	for range 3 {
		s.send(1)
	}
	p := s.refused("/v1/batches", s.seal(s.manifest(), 1).Submission(), http.StatusTooManyRequests, batch.CodeTooFast)
	if p.Retry < 100 || p.Retry > 1000 {
		t.Errorf("told to wait %d ms", p.Retry)
	}
	other.send(1) // nobody else is held up
	for range 2 {
		m := s.manifest()
		m.Urgent = true
		b := s.seal(m, 1)
		var ack batch.Ack
		s.post("/v1/batches", b.Submission(), http.StatusOK, &ack)
		s.accepted(b, &ack)
	}
	m := s.manifest()
	m.Urgent = true
	s.refused("/v1/batches", s.seal(m, 1).Submission(), http.StatusTooManyRequests, batch.CodeTooFast)
	h.clock.add(time.Second)
	s.send(9_000)
	h.clock.add(time.Second)
	s.refused("/v1/batches", s.seal(s.manifest(), 9_000).Submission(), http.StatusTooManyRequests, "member_budget")
	other.send(9_000)
	h.clock.add(10 * time.Second)
	s.send(9_000)
	for range 8 {
		if p, err := s.keys.EnrolRequest([16]byte{}, "x", "1"); err != nil {
			t.Fatal(err)
		} else if code, _, _, err := s.do(http.MethodPost, h.addr, "/v1/enrol", p); err != nil {
			t.Fatal(err)
		} else if code == http.StatusTooManyRequests {
			return
		}
	}
	t.Error("enrolments without bound")
}

func TestPace(t *testing.T) {
	p := pace{target: 100}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if d := p.next("a", now, 0); d != minInterval {
		t.Errorf("one collector: %v", d)
	}
	for i := range 1000 {
		p.next(fmt.Sprint(i), now, 0)
	}
	if d := p.next("a", now, 0); d < 9*time.Second || d > 11*time.Second {
		t.Errorf("1,000 collectors at 100 batches a second: %v", d)
	}
	if d := p.next("a", now.Add(2*time.Minute), 0); d != minInterval {
		t.Errorf("after the others fell silent: %v", d)
	}
	if d := p.next("a", now.Add(2*time.Minute), 0.5); d != 15*time.Second {
		t.Errorf("under pressure: %v", d)
	}
	if d := p.next("a", now.Add(2*time.Minute), 7); d != maxInterval {
		t.Errorf("under great pressure: %v", d)
	}
}

// A storm: after an outage all collectors come at once. Every one must get through in the end, and those who only hold connections open must
// not keep the others out.
func TestStorm(t *testing.T) {
	h := newHub(t, func(o *Options) {
		o.Limits.Handshakes, o.Limits.Pending, o.Limits.PendingPerHost, o.Limits.EnrolRate, o.Limits.EnrolBurst = 4, 64, 64, 1e6, 1e6
		o.Limits.HandshakeBudget = 2 * time.Second
	})
	const sites = 12
	all := make([]*site, sites)
	for i := range all {
		all[i] = newSite(t, h, fmt.Sprintf("Member %d", i))
	}
	idle := make([]net.Conn, 0, 40)
	for range 40 { // fewer than the bound of one host, more than the handshakes at once
		c, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		idle = append(idle, c)
	}
	var wg sync.WaitGroup
	var served atomic.Int64
	for i := range 20 * sites {
		wg.Go(func() {
			s := *all[i%sites]
			for attempt := range 200 {
				tr := &http.Transport{TLSClientConfig: keys.ClientConfig(func() *keys.Trust { return s.trust }, func() *tls.Certificate { return s.cert }), DisableKeepAlives: true}
				c := &http.Client{Transport: tr, Timeout: 20 * time.Second}
				res, err := c.Get("https://" + h.addr + "/v1/self")
				if err == nil {
					res.Body.Close()
					if res.StatusCode == http.StatusOK {
						served.Add(1)
						return
					}
				}
				time.Sleep(time.Duration(1+int(randomBytes(1)[0])%(10*(attempt+1))) * time.Millisecond) // full jitter, as collectors do
			}
		})
	}
	wg.Wait()
	if served.Load() != 20*sites {
		t.Errorf("%d of %d got through; refused: %v", served.Load(), 20*sites, h.gate.Stats().Refused)
	}
	all[0].send(1)
	t.Logf("%d connections through 4 handshakes at a time with %d idle ones held open; refused on the way: %v", served.Load(), len(idle), h.gate.Stats().Refused)
}
