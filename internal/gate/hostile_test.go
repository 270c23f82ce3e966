package gate

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/keys"
	"tocsin/internal/member"
)

// The gate stops between the bus and the records, and a copy of the collector comes with another batch under that number: the followers have
// seen the first, so the other must not be accepted.
func TestNumberStaysClaimed(t *testing.T) {
	f := &faults{}
	h := newHub(t, func(o *Options) {
		f.Records, f.Blobs, f.Bus = o.Records, o.Blobs, o.Bus
		o.Records, o.Blobs, o.Bus = f, f, f
	})
	s := newSite(t, h, "Ashgrove School")
	s.send(1)
	for name, fault := range map[string]*atomic.Bool{"not published": &f.pubBefore, "published": &f.acceptBefore} {
		first, other := s.seal(s.manifest(), 2), s.seal(s.manifest(), 3)
		fault.Store(true)
		code, _, body, err := s.do(http.MethodPost, h.addr, "/v1/batches", first.Submission())
		if err != nil || code != http.StatusServiceUnavailable {
			t.Fatalf("%s: %d %s %v", name, code, body, err)
		}
		s.refused("/v1/batches", other.Submission(), http.StatusConflict, batch.CodeFork)
		var ack batch.Ack
		s.post("/v1/batches", first.Submission(), http.StatusOK, &ack)
		s.accepted(first, &ack)
		for _, n := range h.notices() {
			if n.Digest == other.Digest {
				t.Errorf("%s: the other batch is on the bus", name)
			}
		}
	}
}

// A new epoch gives no new rate, and epochs and forks are recorded in bounded number: each costs rows, ledger entries and people's attention.
func TestEpochsAndForksAreBounded(t *testing.T) {
	h := newHub(t, func(o *Options) {
		o.Limits = Limits{StreamRate: 5, StreamBurst: 6, StreamsRate: 0.1, StreamsBurst: 2, ForksRate: 0.001, ForksBurst: 2}
	})
	s := newSite(t, h, "Ashgrove School")
	other := newSite(t, h, "Brindle Engineering")
	epoch := func(n int) *site {
		c := *s
		c.epoch, c.seq, c.prev, c.last = strings.Repeat(fmt.Sprintf("%02x", n), 16), 0, [32]byte{}, [32]byte{}
		return &c
	}
	first, _ := epoch(1).send(1)
	epoch(2).send(1)
	p := s.refused("/v1/batches", epoch(3).seal(epoch(3).manifest(), 1).Submission(), http.StatusTooManyRequests, batch.CodeTooFast)
	if !strings.Contains(p.Title, "streams") || p.Retry < 5000 {
		t.Errorf("the third stream: %+v", p)
	}
	for range 3 {
		epoch(3).do(http.MethodPost, h.addr, "/v1/batches", epoch(3).seal(epoch(3).manifest(), 1).Submission())
	}
	// The lane's rate is used up, whatever the epoch.
	p = s.refused("/v1/batches", epoch(4).seal(epoch(4).manifest(), 1).Submission(), http.StatusTooManyRequests, batch.CodeTooFast)
	if strings.Contains(p.Title, "streams") {
		t.Errorf("a new epoch has a rate of its own: %+v", p)
	}
	other.send(1)

	for range 5 {
		h.clock.add(time.Second)
		m := epoch(1).manifest()
		m.Seq, m.Prev = 1, [32]byte{}
		fork := epoch(1).seal(m, 2)
		if fork.Digest == first.Digest {
			t.Fatal("no fork")
		}
		s.refused("/v1/batches", fork.Submission(), http.StatusConflict, batch.CodeFork)
	}
	log, err := h.store.Log(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	forks := 0
	for _, e := range log {
		if e.Kind == "fork" {
			forks++
		}
	}
	if forks != 2 || len(h.told("fork")) != 2 || h.gate.Refused(s.reg.Collector)["fork_unrecorded"] != 3 {
		t.Errorf("%d forks in the register and %d told, of 5 where 2 are allowed; %v", forks, len(h.told("fork")), h.gate.Refused(s.reg.Collector))
	}
}

// Strangers who use up the bound on enrolments keep nobody from renewing, and rubbish does not use it up.
func TestEnrolmentsDoNotBlockRenewals(t *testing.T) {
	h := newHub(t, func(o *Options) { o.Limits.EnrolRate, o.Limits.EnrolBurst, o.Limits.CallerBurst = 0.001, 2, 1000 })
	s := newSite(t, h, "Ashgrove School") // one enrolment
	for range 5 {
		s.refused("/v1/enrol", []byte("{}"), http.StatusBadRequest, "enrolment_invalid")
	}
	req, err := s.keys.EnrolRequest([16]byte{}, "x", "1")
	if err != nil {
		t.Fatal(err)
	}
	s.refused("/v1/enrol", req, http.StatusForbidden, "token_unknown")
	s.refused("/v1/enrol", req, http.StatusTooManyRequests, batch.CodeTooFast)
	forged := newSiteKeys(t)
	for n := range 5 { // not signed by the collector they name
		req, err := forged.RenewRequest(s.reg.Collector, "1", uint64(n+1))
		if err != nil {
			t.Fatal(err)
		}
		s.refused("/v1/renew", req, http.StatusForbidden, "renewal_signature")
	}
	req, err = s.keys.RenewRequest(s.reg.Collector, "1", 1)
	if err != nil {
		t.Fatal(err)
	}
	s.post("/v1/renew", req, http.StatusOK, nil)
}

func newSiteKeys(t *testing.T) *keys.Collector {
	t.Helper()
	k, err := keys.CreateCollector(t.TempDir() + "/collector")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// One address cannot ask for ever.
func TestOneAddressKnocks(t *testing.T) {
	h := newHub(t, func(o *Options) { o.Limits.CallerRate, o.Limits.CallerBurst = 0.001, 3 })
	s := newSite(t, h, "Ashgrove School")
	for range 2 {
		s.refused("/v1/enrol", []byte("{}"), http.StatusBadRequest, "enrolment_invalid")
	}
	s.refused("/v1/enrol", []byte("{}"), http.StatusTooManyRequests, batch.CodeTooFast)
}

// Connections that show no certificate are bounded, and take none from collectors.
func TestStrangersConnections(t *testing.T) {
	h := newHub(t, func(o *Options) { o.Limits.Strangers, o.Limits.StrangersPer, o.Limits.Connections = 6, 4, 3 })
	s := newSite(t, h, "Ashgrove School")
	dial := func(cert *tls.Certificate) *tls.Conn {
		t.Helper()
		c, err := tls.Dial("tcp", h.addr, keys.ClientConfig(func() *keys.Trust { return s.trust }, func() *tls.Certificate { return cert }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	ask := func(c *tls.Conn, path string) (int, error) {
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: hub\r\n\r\n", path)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return 0, err
		}
		io.Copy(io.Discard, res.Body)
		return res.StatusCode, res.Body.Close()
	}
	turnedAway := func() uint64 { return h.gate.Stats().Refused["too_many_connections"] }
	// A client's handshake ends before the server's, so who came first shows only in who is turned away.
	var held []*tls.Conn
	for range 5 {
		held = append(held, dial(nil))
	}
	until(t, "one of five strangers is turned away", func() bool { return turnedAway() == 1 })
	s.send(1) // on a connection of its own, kept
	for range 2 {
		c := dial(s.cert)
		if code, err := ask(c, "/v1/self"); err != nil || code != http.StatusOK {
			t.Fatalf("a collector beside strangers: %d, %v", code, err)
		}
		held = append(held, c)
	}
	if code, err := ask(dial(s.cert), "/v1/self"); err == nil {
		t.Errorf("a fourth connection of one collector was answered: %d", code)
	}
	// What was held and is given back can be had again; who shows no certificate is let go after one answer.
	for _, c := range held {
		c.Close()
	}
	for range 20 {
		until(t, "a stranger is answered", func() bool {
			code, err := ask(dial(nil), "/v1/trust")
			return err == nil && code == http.StatusOK
		})
	}
	until(t, "the collector has room again", func() bool {
		code, err := ask(dial(s.cert), "/v1/self")
		return err == nil && code == http.StatusOK
	})
}

// until waits for what another goroutine does.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(2 * time.Millisecond) { // the time between two looks
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// A collector that sends many batches slowly holds its share of the memory for requests, not all of it.
func TestSlowBodies(t *testing.T) {
	h := newHub(t, func(o *Options) { o.Limits.Batches = 2 })
	s := newSite(t, h, "Ashgrove School")
	other := newSite(t, h, "Brindle Engineering")
	for range 2 {
		c, err := tls.Dial("tcp", h.addr, keys.ClientConfig(func() *keys.Trust { return s.trust }, func() *tls.Certificate { return s.cert }))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /v1/batches HTTP/1.1\r\nHost: hub\r\nContent-Length: 1000000\r\n\r\n{")
	}
	until(t, "both are being read", func() bool {
		h.gate.coming.mu.Lock()
		defer h.gate.coming.mu.Unlock()
		return h.gate.coming.m[s.reg.Collector] == 2
	})
	s.refused("/v1/batches", s.seal(s.manifest(), 1).Submission(), http.StatusTooManyRequests, batch.CodeTooFast)
	other.send(1)
}

// The member's share is looked at before a body is: beyond it nothing is digested or decompressed.
func TestBudgetBeforeWork(t *testing.T) {
	h := newHub(t, func(o *Options) { o.Limits.TenantEvents, o.Limits.TenantBurst = 1, batch.MaxEvents })
	s := newSite(t, h, "Ashgrove School")
	w := batch.NewWriter()
	for range 20 { // large events count as several
		if err := w.Add(fmt.Appendf(nil, `{"message":%q}`, strings.Repeat("x", 500<<10))); err != nil {
			t.Fatal(err)
		}
	}
	large, err := w.Seal(s.manifest(), s.keys.Batch())
	if err != nil {
		t.Fatal(err)
	}
	var ack batch.Ack
	s.post("/v1/batches", large.Submission(), http.StatusOK, &ack)
	s.accepted(large, &ack)
	bad := s.seal(s.manifest(), 6000).Submission()
	bad[len(bad)-1] ^= 1
	s.refused("/v1/batches", bad, http.StatusTooManyRequests, "member_budget")
}

// forgetful are records that do not know a collector whose certificate the authority signed: a database put back from a backup.
type forgetful struct{ Records }

func (forgetful) Refused(context.Context, string, string, uint64) error {
	return fmt.Errorf("counting: %w", member.ErrUnknown)
}

func TestRefusalsOfTheUnknownAreDropped(t *testing.T) {
	h := newHub(t, func(o *Options) { o.Records = forgetful{o.Records} })
	h.gate.counts.add("somebody", "revoked")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.gate.noteRefusals(ctx)
	h.gate.counts.mu.Lock()
	defer h.gate.counts.mu.Unlock()
	if n := len(h.gate.counts.todo); n != 0 {
		t.Errorf("%d refusals wait for ever", n)
	}
}

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7:1234": "192.0.2.7", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[2001:db8:1:2:3:4:5:6]:443": "2001:db8:1:2::/64", "[fe80::1%eth0]:443": "fe80::/64", "@": "@",
	} {
		if got := address(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("gate\u202eway\x00\x85 \xff1\u200b"); got != "gateway 1" {
		t.Errorf("%q", got)
	}
}
