package gate

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/batch"
	"tocsin/internal/blob"
	"tocsin/internal/bus"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/keys"
	"tocsin/internal/member"
)

var operator = access.System("test")

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// hub is a whole receiving side on the real engines: database, bus, blobs, gate, on a real socket.
type hub struct {
	t     testing.TB
	clock *clock
	ring  *keys.Ring
	store *member.Store
	bus   *bus.Bus
	blobs *blob.Store
	gate  *Gate
	addr  string

	mu        sync.Mutex
	incidents []Incident
}

// newHub starts a hub. change may alter the gate's options, for instance to put a fault between gate and engines.
func newHub(t testing.TB, change func(*Options)) *hub {
	t.Helper()
	h := &hub{t: t, clock: &clock{t: time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)}}
	dir := t.TempDir()
	kd := filepath.Join(dir, "keys")
	if _, err := keys.CreateScheme(keys.SchemeOptions{Dir: kd, Offline: filepath.Join(dir, "offline"), Name: "Test", Now: h.clock.now()}); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.ring, err = keys.Open(kd, keys.HubTLS, keys.CollectorCA, keys.Receipts); err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(t.Context(), db.Options{Path: filepath.Join(dir, "t.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = ln.Addr().String()
	h.store = member.New(d, member.Options{Address: h.addr, Root: h.ring.Trust().RootFingerprint(), Now: h.clock.now})
	if h.bus, err = bus.Open(bus.Options{Dir: filepath.Join(dir, "bus"), TrimEvery: -1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.bus.Close() })
	tk, err := keys.OpenTenantKeys(filepath.Join(dir, "tenants"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if h.blobs, err = blob.Open(blob.Options{Dir: filepath.Join(dir, "blobs"), Keys: tk}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.blobs.Close() })
	o := h.options()
	if change != nil {
		change(&o)
	}
	if h.gate, err = New(o); err != nil {
		t.Fatal(err)
	}
	h.serve(h.gate, ln)
	return h
}

func (h *hub) options() Options {
	receipts, err := h.ring.Signer(keys.Receipts)
	if err != nil {
		h.t.Fatal(err)
	}
	ca, err := h.ring.CA()
	if err != nil {
		h.t.Fatal(err)
	}
	cert, err := h.ring.HubCertificate([]string{"127.0.0.1"}, h.clock.now())
	if err != nil {
		h.t.Fatal(err)
	}
	return Options{Records: h.store, Blobs: h.blobs, Bus: h.bus, Receipts: receipts, CA: ca, Certificate: cert, Trust: h.ring.Trust, Now: h.clock.now,
		Logger: slog.New(slog.DiscardHandler), Checkpoint: func() string { return "a checkpoint" },
		Limits: Limits{StreamRate: 1e6, StreamBurst: 1e6},
		Incident: func(_ context.Context, i Incident) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.incidents = append(h.incidents, i)
		}}
}

func (h *hub) serve(g *Gate, ln net.Listener) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, ln) }()
	h.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
}

// second starts another gate on the same engines and returns its address.
func (h *hub) second(change func(*Options)) string {
	o := h.options()
	if change != nil {
		change(&o)
	}
	g, err := New(o)
	if err != nil {
		h.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.serve(g, ln)
	return ln.Addr().String()
}

func (h *hub) told(kind string) []Incident {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []Incident
	for _, i := range h.incidents {
		if i.Kind == kind {
			out = append(out, i)
		}
	}
	return out
}

func (h *hub) token(org string) keys.Token {
	h.t.Helper()
	o, err := h.store.FindOrganisation(h.t.Context(), operator, org)
	if err != nil {
		if o, err = h.store.AddOrganisation(h.t.Context(), "test", member.Organisation{Name: org}); err != nil {
			h.t.Fatal(err)
		}
	}
	site, err := h.store.FindSite(h.t.Context(), operator, o.ID, "")
	if err != nil {
		h.t.Fatal(err)
	}
	tok, _, err := h.store.MakeToken(h.t.Context(), operator, "test", site.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	return tok
}

// notices returns what the bus holds.
func (h *hub) notices() []bus.Notice {
	h.t.Helper()
	c, err := h.bus.Consumer(context.Background(), fmt.Sprintf("t%x", randomBytes(4)), "batch.*")
	if err != nil {
		h.t.Fatal(err)
	}
	var out []bus.Notice
	for {
		ms, err := c.Fetch(context.Background(), 1000, 20*time.Millisecond)
		if err != nil {
			h.t.Fatal(err)
		}
		if len(ms) == 0 {
			return out
		}
		for _, m := range ms {
			n, err := bus.ParseNotice(m.Data)
			if err != nil {
				h.t.Fatal(err)
			}
			out = append(out, n)
		}
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// site is a collector, cut down to what it says to the gate.
type site struct {
	t     testing.TB
	h     *hub
	keys  *keys.Collector
	trust *keys.Trust
	cert  *tls.Certificate
	reg   keys.EnrolAnswer
	http  *http.Client

	epoch string
	seq   uint64
	prev  [32]byte
	last  [32]byte // SHA-256 of the newest receipt
}

func newSite(t testing.TB, h *hub, org string) *site {
	t.Helper()
	s := &site{t: t, h: h, epoch: hex.EncodeToString(randomBytes(16))}
	var err error
	if s.keys, err = keys.CreateCollector(filepath.Join(t.TempDir(), "collector")); err != nil {
		t.Fatal(err)
	}
	tok := h.token(org)
	if s.trust, err = keys.FetchTrust(t.Context(), tok.Address, tok.Root, nil); err != nil {
		t.Fatal(err)
	}
	s.client()
	req, err := s.keys.EnrolRequest(tok.Secret, "gateway", "0.1")
	if err != nil {
		t.Fatal(err)
	}
	s.post("/v1/enrol", req, http.StatusOK, &s.reg)
	s.adopt(s.reg.Certificate)
	return s
}

func (s *site) client() {
	tr := &http.Transport{TLSClientConfig: keys.ClientConfig(func() *keys.Trust { return s.trust }, func() *tls.Certificate { return s.cert }), MaxIdleConnsPerHost: 4}
	s.t.Cleanup(tr.CloseIdleConnections)
	s.http = &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

func (s *site) adopt(pem string) {
	s.t.Helper()
	if err := s.keys.SaveCertificate([]byte(pem)); err != nil {
		s.t.Fatal(err)
	}
	var err error
	if s.cert, err = s.keys.Certificate(); err != nil {
		s.t.Fatal(err)
	}
	s.client() // connections made with the certificate before are not used again
}

func (s *site) do(method, addr, path string, body []byte) (int, http.Header, []byte, error) {
	req, err := http.NewRequest(method, "https://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	res, err := s.http.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, res.Header, b, err
}

func (s *site) post(path string, body []byte, want int, v any) {
	s.t.Helper()
	s.call(http.MethodPost, path, body, want, v)
}

func (s *site) call(method, path string, body []byte, want int, v any) {
	s.t.Helper()
	code, _, b, err := s.do(method, s.h.addr, path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	if code != want {
		s.t.Fatalf("%s %s: status %d, want %d: %s", method, path, code, want, b)
	}
	if v != nil {
		if err := json.Unmarshal(b, v); err != nil {
			s.t.Fatalf("%s: %v: %s", path, err, b)
		}
	}
}

// refused posts what must be refused and checks that the refusal can be read by a person.
func (s *site) refused(path string, body []byte, status int, code string) batch.Problem {
	s.t.Helper()
	before := s.h.gate.Stats().Refused[code]
	got, hdr, b, err := s.do(http.MethodPost, s.h.addr, path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	var p batch.Problem
	if err := json.Unmarshal(b, &p); err != nil {
		s.t.Fatalf("status %d, not a problem: %s", got, b)
	}
	if got != status || p.Code != code {
		s.t.Errorf("status %d, code %q (%s), want %d, %q", got, p.Code, p.Detail, status, code)
	}
	if hdr.Get("Content-Type") != "application/problem+json" || p.Title == "" || p.Detail == "" || p.Next == "" {
		s.t.Errorf("the refusal %q lacks its type or words: %s", code, b)
	}
	if n := s.h.gate.Stats().Refused[code]; n != before+1 {
		s.t.Errorf("the refusal %q is counted %d times", code, n-before)
	}
	if p.Retry > 0 && hdr.Get("Retry-After") == "" {
		s.t.Errorf("the refusal %q says to come again but not when", code)
	}
	return p
}

func (s *site) manifest() batch.Manifest {
	m := batch.Manifest{Stream: batch.Stream{Collector: s.reg.Collector, Tenant: event.TenantID(s.reg.Tenant), Lane: batch.Live, Epoch: s.epoch}, Seq: s.seq + 1, Prev: s.prev, Created: s.h.clock.now(),
		CollectorVersion: "0.1", PolicyDigest: "metadata", Position: fmt.Sprintf("line %d", s.seq+1), Counts: map[string]uint64{"received": 10, "kept.policy": 8, "left.denied": 2, "sent": 2}}
	if m.Seq == 1 {
		m.Prev, m.LastReceipt = s.last, s.last
	}
	return m
}

func events(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = fmt.Appendf(nil, `{"@timestamp":"2026-11-22T13:00:%02d.%09dZ","event.created":"2026-11-22T13:00:%02dZ","event.dataset":"fortinet.fortigate","event.kind":"event","event.category":["network"],"event.type":["denied"],"event.action":"deny","observer.vendor":"Fortinet","source.ip":"203.0.113.%d","source.port":%d,"destination.ip":"198.51.100.%d","destination.port":%d,"network.transport":"tcp"}`,
			i%60, i*7919%1000000000, i%60, i*31%256, 1024+i*7919%60000, i*17%256, []int{22, 23, 443, 445, 3389}[i%5])
	}
	return out
}

func (s *site) seal(m batch.Manifest, n int) batch.Sealed {
	s.t.Helper()
	w := batch.NewWriter()
	for _, l := range events(n) {
		if err := w.Add(l); err != nil {
			s.t.Fatal(err)
		}
	}
	b, err := w.Seal(m, s.keys.Batch())
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *site) accepted(b batch.Sealed, ack *batch.Ack) {
	s.t.Helper()
	r, err := batch.VerifyReceipt(ack.Receipt, s.trust.Ed25519(keys.Receipts)...)
	if err != nil {
		s.t.Fatal(err)
	}
	if r.Digest != b.Digest || r.Seq != b.Manifest.Seq || r.Stream != b.Manifest.Stream.ID() {
		s.t.Errorf("the receipt is for another batch: %+v", r)
	}
	s.seq, s.prev, s.last = b.Manifest.Seq, b.Digest, sha256.Sum256(ack.Receipt)
}

// send sends the next batch, which must be accepted.
func (s *site) send(n int) (batch.Sealed, batch.Ack) {
	s.t.Helper()
	b := s.seal(s.manifest(), n)
	var ack batch.Ack
	s.post("/v1/batches", b.Submission(), http.StatusOK, &ack)
	s.accepted(b, &ack)
	return b, ack
}

func TestFromTokenToReceipt(t *testing.T) {
	h := newHub(t, nil)
	s := newSite(t, h, "Ashgrove School")
	var self batch.Self
	s.call(http.MethodGet, "/v1/self", nil, http.StatusOK, &self)
	if self.State != member.Quarantined || self.Organisation != "Ashgrove School" || self.Collector != s.reg.Collector || self.PolicyCeiling != "metadata" {
		t.Errorf("self: %+v", self)
	}
	b1, ack := s.send(3)
	if ack.NextIntervalMS < 200 || ack.NextIntervalMS > 30_000 || ack.Checkpoint != "a checkpoint" || ack.HubTime.IsZero() {
		t.Errorf("ack: %+v", ack)
	}
	// What both sides show must agree, and ends the quarantine.
	words := s.keys.CheckWords(s.trust.RootFingerprint())
	if err := h.store.ConfirmWords(t.Context(), operator, "test", s.reg.Collector, strings.Join(words[:], " ")); err != nil {
		t.Fatal(err)
	}
	b2, _ := s.send(0)
	ns := h.notices()
	if len(ns) != 2 || !ns[0].Quarantined || ns[1].Quarantined || ns[0].Digest != b1.Digest || ns[1].Seq != 2 || ns[0].Events != 3 {
		t.Errorf("notices: %+v", ns)
	}
	for i, b := range []batch.Sealed{b1, b2} {
		sub, err := h.blobs.Get(t.Context(), event.TenantID(s.reg.Tenant), b.Digest, ns[i].Blob)
		if err != nil || !bytes.Equal(sub, b.Submission()) {
			t.Errorf("batch %d is not in the blob store as it was sent: %v", i+1, err)
		}
	}
	var hs batch.Heads
	s.call(http.MethodGet, "/v1/streams", nil, http.StatusOK, &hs)
	if len(hs.Streams) != 1 || hs.Streams[0].Seq != 2 || hs.Streams[0].Digest != hex.EncodeToString(b2.Digest[:]) || hs.Streams[0].Position != "line 2" {
		t.Errorf("heads: %+v", hs)
	}
	if _, err := batch.VerifyReceipt(hs.Streams[0].Receipt, s.trust.Ed25519(keys.Receipts)...); err != nil {
		t.Errorf("the head's receipt: %v", err)
	}
	c, err := h.store.Collector(t.Context(), operator, s.reg.Collector)
	if err != nil || c.State != member.Live {
		t.Errorf("the records say %+v, %v", c, err)
	}
	if st := h.gate.Stats(); st.In != 2 || st.Out != 2 || st.Events != 3 || len(st.Refused) != 0 || st.Active != 1 {
		t.Errorf("stats %+v", st)
	}
}

func TestRepeatForkClone(t *testing.T) {
	h := newHub(t, nil)
	s := newSite(t, h, "Ashgrove School")
	b1, a1 := s.send(1)
	b2, _ := s.send(2)
	h.clock.add(time.Minute)
	// Repeats, of the head and before it, get the very same receipt.
	var again batch.Ack
	s.post("/v1/batches", b1.Submission(), http.StatusOK, &again)
	if !bytes.Equal(again.Receipt, a1.Receipt) {
		t.Errorf("a repeat got another receipt:\n%s\n%s", again.Receipt, a1.Receipt)
	}
	if n := len(h.notices()); n != 2 {
		t.Errorf("%d notices after a repeat of 2 batches", n)
	}

	// The same number, another content.
	m := s.manifest()
	m.Seq, m.Prev = 2, b1.Digest
	fork := s.seal(m, 3)
	for range 2 {
		p := s.refused("/v1/batches", fork.Submission(), http.StatusConflict, batch.CodeFork)
		if p.Head == nil || p.Head.Digest != hex.EncodeToString(b2.Digest[:]) {
			t.Errorf("a fork is not told the head: %+v", p.Head)
		}
	}
	told := h.told("fork")
	if len(told) != 1 || told[0].Got != fork.Digest || told[0].Collector != s.reg.Collector || told[0].Kept == "" {
		t.Fatalf("people were told of the fork: %+v", told)
	}
	kept, err := h.blobs.Get(t.Context(), event.TenantID(s.reg.Tenant), fork.Digest, told[0].Kept)
	if err != nil || !bytes.Equal(kept, fork.Submission()) {
		t.Errorf("the fork was not kept: %v", err)
	}
	log, err := h.store.Log(t.Context(), 0, 100)
	if err != nil || len(log) == 0 || log[len(log)-1].Kind != "fork" {
		t.Errorf("the register for the ledger: %+v, %v", log, err)
	}
	// The right number, but after another past.
	m = s.manifest()
	m.Prev = fork.Digest
	s.refused("/v1/batches", s.seal(m, 1).Submission(), http.StatusConflict, batch.CodeFork)
	if n := len(h.notices()); n != 2 {
		t.Errorf("%d notices: a fork got on the bus", n)
	}

	// The restored copy begins a new epoch, loses nothing, and names its last receipt.
	h.clock.add(time.Minute)
	copied := *s
	copied.epoch, copied.seq, copied.prev = strings.Repeat("cd", 16), 0, [32]byte{}
	copied.send(3)
	copied.send(1)
	if len(h.told("clone")) != 0 {
		t.Error("a new epoch alone was called a clone")
	}
	// But the original goes on as well: two machines.
	h.clock.add(time.Minute)
	s.send(1)
	s.send(1)
	clone := h.told("clone")
	if len(clone) != 1 || clone[0].Epoch != s.epoch {
		t.Errorf("people were told of the clone: %+v", clone)
	}
	if h.gate.Refused(s.reg.Collector)["clone"] != 2 {
		t.Errorf("counts %v", h.gate.Refused(s.reg.Collector))
	}
	if n := len(h.notices()); n != 6 {
		t.Errorf("%d notices for 6 accepted batches", n)
	}
}

var errFault = errors.New("broken on purpose")

func TestIndicatorsAndTrust(t *testing.T) {
	var set atomic.Pointer[string]
	h := newHub(t, func(o *Options) {
		o.Indicators = func() ([]byte, string) {
			if s := set.Load(); s != nil {
				return []byte(*s), `"7"`
			}
			return nil, ""
		}
	})
	s := newSite(t, h, "Ashgrove School")
	var none batch.Problem
	s.call(http.MethodGet, "/v1/indicators", nil, http.StatusNotFound, &none)
	if none.Code != "no_indicators" || len(h.gate.Stats().Refused) != 0 {
		t.Errorf("no set: %+v, %v", none, h.gate.Stats().Refused)
	}
	v := `{"a":1}`
	set.Store(&v)
	code, hdr, body, err := s.do(http.MethodGet, h.addr, "/v1/indicators", nil)
	if err != nil || code != 200 || string(body) != v {
		t.Fatal(code, string(body), err)
	}
	if hdr.Get("ETag") != `"7"` {
		t.Errorf("the tag is %s", hdr.Get("ETag"))
	}
	req, _ := http.NewRequest(http.MethodGet, "https://"+h.addr+"/v1/indicators", nil)
	req.Header.Set("If-None-Match", hdr.Get("ETag"))
	res, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusNotModified {
		t.Errorf("the same set again: %d", res.StatusCode)
	}
	s.cert = nil
	s.client()
	if code, _, _, err := s.do(http.MethodGet, h.addr, "/v1/indicators", nil); err != nil || code != http.StatusUnauthorized {
		t.Errorf("indicators without a certificate: %d, %v", code, err)
	}
	s.refused("/wp-login.php", nil, http.StatusNotFound, "no_such_address")
	s.call(http.MethodGet, "/v1/trust", nil, http.StatusOK, nil)
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "is not given") {
		t.Errorf("%v", err)
	}
}

// BenchmarkGate measures pre-signed batches from 32 collectors over real TLS into database, bus and blobs. The clients' side of TLS is in it.
func BenchmarkGate(b *testing.B) {
	for _, n := range []int{50, 500, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := newHub(b, func(o *Options) {
				o.Limits.TenantEvents, o.Limits.TenantBurst, o.Limits.EnrolRate, o.Limits.EnrolBurst = 1e9, 1e9, 1e6, 1e6
			})
			const sites = 32
			lines := events(n)
			all := make([]*site, sites)
			queues := make([][][]byte, sites)
			w := batch.NewWriter()
			for i := range all {
				all[i] = newSite(b, h, fmt.Sprintf("Member %d", i))
				for range b.N/sites + 1 {
					w.Reset()
					for _, l := range lines {
						if err := w.Add(l); err != nil {
							b.Fatal(err)
						}
					}
					x, err := w.Seal(all[i].manifest(), all[i].keys.Batch())
					if err != nil {
						b.Fatal(err)
					}
					all[i].seq, all[i].prev = x.Manifest.Seq, x.Digest
					queues[i] = append(queues[i], x.Submission())
				}
			}
			var wg sync.WaitGroup
			var failed atomic.Int64
			b.ResetTimer() // not b.Loop: the batches are signed before, and their number must be known
			for i, s := range all {
				wg.Go(func() {
					for _, sub := range queues[i][:(b.N+sites-1-i)/sites] {
						code, _, _, err := s.do(http.MethodPost, h.addr, "/v1/batches", sub)
						if err != nil || code != http.StatusOK {
							failed.Add(1)
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			if failed.Load() > 0 {
				b.Errorf("%d of %d batches failed: %v", failed.Load(), b.N, h.gate.Stats().Refused)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "batches/s")
			b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
